# One row of the demo's table from vqlm-eval's JSON.  $row is fp or METHOD-wBITSaBITS; $made and $ran are what
# timed.sh wrote of the quantization ("" for fp) and of the answers: wall-clock and core seconds.
def times: split(" ") | .[0] // "", .[1] // "";
def r2: if . == null then "" else . * 100 | round / 100 end;
# Three digits; small ones as 1.23e-07.
def g3: if . == null then "" elif . == 0 then 0 else . as $x | ($x | log10 | floor) as $e
	| (($x * pow(10; 2 - $e) | round) / 100) as $m
	| if $e < -4 then "\($m)e\($e)" else $m * pow(10; $e) * 1e6 | round / 1e6 end end;
["method", "bits", "NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "Avg", "se",
	"diff_rtn", "p_rtn", "kl_fp", "same_top_fp", "weights_MiB", "peak_MiB", "quantize_s", "quantize_core_s",
	"answer_s", "answer_core_s", "n"],
[($row | split("-")[0]), ($row | split("-")[1] // "W16A16" | ascii_upcase),
	(.classes | .NAT, .SOC, .LAN, .TXT, .IMG, .NO, ."G1-6", .Avg | .acc | r2),
	(.classes.Avg.se | r2),
	(if ($row | startswith("rtn")) then "" else .baseline.classes.Avg.diff | r2 end),
	(if ($row | startswith("rtn")) then "" else .baseline.classes.Avg.p_mid | g3 end),
	(.logits.kl_mean | g3),
	(if .logits then 100 * .logits.same_top / .logits.n | r2 else "" end),
	(.totals | .weight_bytes, .peak_bytes | if . then . / 1048576 | r2 else "" end),
	($made | times), ($ran | times),
	.n]
| @tsv
