# One row of a comparison from vqlm-eval's JSON: $run against full precision, $pair against the method that all rows
# are paired with.  $row is VARIANT/SCHEME/wBaB/METHOD or VARIANT/fp; $calib, $made and $ran are what timed.sh wrote of
# the calibration, the quantization ("" for fp) and the answers, wall-clock and core seconds; $calib_log and $log are
# what vqlm-calib, and vqlm-entropy and vqlm-search, said with -v.
def times: split(" ") | .[0] // "", .[1] // "";
def r2: if . == null then "" else . * 100 | round / 100 end;
# Three digits; small ones as 1.23e-07.
def g3: if . == null then "" elif . == 0 then 0 else . as $x | ($x | log10 | floor) as $e
	| (($x * pow(10; 2 - $e) | round) / 100) as $m
	| if $e < -4 then "\($m)e\($e)" else $m * pow(10; $e) * 1e6 | round / 1e6 end end;
def mib: if . then . / 1048576 | r2 else "" end;
def said(re): [capture(re; "g") | .x | tonumber] | last // "";
($row | split("/")) as $at | ($at | length == 2) as $fp | $run[0] as $r | ($pair[0].baseline.classes // null) as $p
| ($p == null or $p.Avg.changed == 0 and $pair[0].answers == $pair[0].baseline.answers) as $self
| ["variant", "scheme", "bits", "method", "NAT", "SOC", "LAN", "TXT", "IMG", "NO", "Avg", "se",
	"diff", "diff_se", "p", "kl_fp", "flips", "lost", "gained", "weights_MiB", "peak_MiB", "search_peak_MiB",
	"calib_peak_MiB", "calib_s", "calib_core_s", "quantize_s", "quantize_core_s", "answer_s", "answer_core_s", "blocks", "evaluations",
	"forwards", "n"],
[$at[0], (if $fp then "" else $at[1] end), (if $fp then "W16A16" else $at[2] | ascii_upcase end), $at[-1],
	($r.classes | .NAT, .SOC, .LAN, .TXT, .IMG, .NO, .Avg | .acc | r2), ($r.classes.Avg.se | r2),
	(if $self then "", "", "" else $p.Avg | (.diff | r2), (.se | r2), (.p_mid | g3) end),
	($r.logits.kl_mean | g3),
	(if $fp then "", "", "" else $r.baseline.classes.Avg | .changed, .lost, .gained end),
	($r.totals | .weight_bytes, .peak_bytes | mib), ($log | said("own memory, (?<x>[0-9.]+) MiB resident")),
	(if $fp then "" else $calib_log | said("own memory, (?<x>[0-9.]+) MiB resident") end),
	(if $fp then "", "" else $calib | times end), ($made | times), ($ran | times),
	($log | said("units in (?<x>[0-9]+) blocks"), said("search: (?<x>[0-9]+) block outputs"), said("evaluated, (?<x>[0-9.]+) layer forwards")),
	$r.n]
| @tsv
