#!/bin/bash
# ded.sh BIN OUT MODEL CALIB [W A [flags of vqlm-search...]]: how well the proxies foretell which neighbouring layers
# should be searched together; OUT/ded.tsv.
#
# For every pair of neighbours (k, k+1) and each of SUBSETS (8) disjoint subsets of SAMPLES (32) calibration samples:
#   ded      what the paper calls DED: the pair's output error after the sequential layer-wise search minus that after
#            the joint search, both relative to the squared output, with inputs from quantized predecessors
#   entropy  D(k, k+1) of vqlm-entropy
#   error    its other proxy, the mean rounding error of the two layers
#   cross    ||D||_F / ||H||_F of k+1, GPTAQ's measure of what quantized predecessors do to its inputs
# and then, after #, how each proxy correlates with ded (ded.awk).  What is finished is kept.
set -euo pipefail

[ $# -ge 4 ] || { echo "usage: ded.sh BIN OUT MODEL CALIB [W A [flags of vqlm-search]]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
bin=$1 out=$2 model=$3 calib=$4 w=${5:-4} a=${6:-4}
shift $(($# < 6 ? $# : 6))
subsets=${SUBSETS:-8} samples=${SAMPLES:-32}
levels=$((a <= 8 ? a : 8)) # 16 leaves activations alone; entropies still need levels
mkdir -p "$out"

# Subset I: neighbours in the file, so that questions about one picture are not in two subsets.
subset() {
	jq -cs --argjson i "$1" --argjson n "$samples" '
		(if length == 1 and (.[0] | type) == "array" then .[0] else . end)[$i * $n:($i + 1) * $n]
		| if length < $n then error("ded.sh: too few samples for subset \($i)") else . end' "$calib"
}

# What search says of its blocks, a JSON object a line: blocks CALIB-STREAM OFFSET DEPTH FLAGS...
blocks() {
	local from=$1 offset=$2 depth=$3
	shift 3
	"$bin/vqlm-entropy" -q -a "$levels" --partition fixed --depth "$depth" --offset "$offset" <"$from" \
		| "$bin/vqlm-search" -q -l 0 -w "$w" -a "$a" "$@" \
		| "$bin/vqlm-ls" --cat 'search/block/*'
}

# One subset's lines of the table.
measure() {
	local i=$1
	subset "$i" >"$out/subset.json"
	"$bin/vqlm-calib" -q -m "$model" -d "$out/subset.json" --images "$(dirname "$calib")" -n "$samples" \
		--error-stats --bits "$levels" --influence-samples 0 -o "$out/subset.vqs"
	"$bin/vqlm-entropy" -q --table -a "$levels" <"$out/subset.vqs" >"$out/table.tsv"
	blocks "$out/subset.vqs" 0 2 --method qvlm --veo off "${@:2}" >"$out/pairs.jsonl"
	blocks "$out/subset.vqs" 1 2 --method qvlm --veo off "${@:2}" >>"$out/pairs.jsonl"
	blocks "$out/subset.vqs" 0 1 --method gptq --gptaq 0.25 >"$out/gptq.jsonl"
	{
		jq -r '["cross", .units[0], .cross] | @tsv' "$out/gptq.jsonl"
		jq -r 'select(.units[1] == .units[0] + 1) | ["pair", .units[0], .error_plain, .error_layerwise, .error] | @tsv' \
			"$out/pairs.jsonl"
	} | awk -F'\t' -v OFS='\t' -v subset="$i" -v n="$samples" '
		FNR == NR { if (FNR > 1) { kind[$1] = $2; d[$1] = $3; error[$1] = $6 } next }
		$1 == "cross" { cross[$2] = $3; next }
		d[$2] == "NA" { next } # no picture in the subset: the tower was not measured
		{ print subset, n, kind[$2], $2, d[$2], (error[$2] + error[$2 + 1]) / 2, cross[$2 + 1], $3, $4, $5, $4 - $5 }
	' "$out/table.tsv" - | sort -t$'\t' -n -k4,4 >"$out/ded-$i.tsv.part"
	rm "$out"/subset.* "$out/table.tsv" "$out/pairs.jsonl" "$out/gptq.jsonl"
	mv "$out/ded-$i.tsv.part" "$out/ded-$i.tsv"
}

for ((i = 0; i < subsets; i++)); do
	[ -e "$out/ded-$i.tsv" ] || measure "$i" "$@"
done
{
	printf 'subset\tsamples\tkind\tunit\tentropy\terror\tcross\terror_plain\terror_layerwise\terror_joint\tded\n'
	for ((i = 0; i < subsets; i++)); do cat "$out/ded-$i.tsv"; done
} >"$out/ded.tsv.part"
awk -f "$here/ded.awk" "$out/ded.tsv.part" >"$out/ded.correlations"
cat "$out/ded.correlations" >>"$out/ded.tsv.part"
rm "$out/ded.correlations"
mv "$out/ded.tsv.part" "$out/ded.tsv"
