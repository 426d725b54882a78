#!/usr/bin/env bats
# The demo's graph, on few questions.
load common

# The words of the command, so that a test may start make itself in the background.
words() {
	demo=(make -s -f "$ROOT/pipelines/demo.mk" BIN="$(dirname "$(command -v vqlm-eval)")" OUT="$T/out" BITS="8 4" METHODS="rtn layerwise"
		CALIB_FLAGS="-n 4 --influence-samples 0" SEARCH_FLAGS="--rows 64" INFER_FLAGS="--limit 40")
}

@test "the table has a row for full precision and for each method and width, and its numbers are eval's" {
	words
	run -0 "${demo[@]}"
	[ "$(cut -f1,2 out/table.tsv | tr '\t\n' '- ')" = "method-bits fp-W16A16 rtn-W8A8 layerwise-W8A8 rtn-W4A4 layerwise-W4A4 " ]
	[ "$(awk -F'\t' '{ print NF }' out/table.tsv | sort -u)" = 22 ]
	[ "$(awk -F'\t' '$1 == "layerwise" && $2 == "W4A4" { print $10 }' out/table.tsv)" = \
		"$(jq '.classes.Avg.acc * 100 | round / 100' out/layerwise-w4a4.json)" ]
	# Full precision is compared with nothing, round to nearest only with full precision.
	[ "$(awk -F'\t' '$1 == "fp" { print $12 $13 $14 }' out/table.tsv)" = "" ]
	[ "$(awk -F'\t' '$1 == "rtn" && $12 $13 == "" && $14 > 0' out/table.tsv | wc -l)" = 2 ]
	[ "$(grep -c '^| ' out/table.md)" = 6 ]
	[[ "$(head -c 200 out/chart.svg)" == *"<svg"* ]]
	# A second run has nothing to do; a lost row is made again, and only that one.
	touch -r out/table.tsv before
	run -0 "${demo[@]}"
	[ -z "$output" ]
	[ ! out/table.tsv -nt before ]
	rm out/rtn-w4a4.jsonl
	run -0 "${demo[@]}"
	echo "$output"
	[ "$output" = "demo: rtn-w4a4 answers" ]
}

@test "an interrupted demo leaves no half files under final names and goes on" {
	words
	"${demo[@]}" >log 2>&1 &
	local make=$!
	while [ ! -e out/rtn-w8a8.jsonl.part ] && kill -0 "$make" 2>/dev/null; do sleep 0.01; done
	kill "$make"
	wait "$make" || true
	[ ! -e out/table.tsv ]
	[ -s out/calib.vqs ]
	run "${demo[@]}"
	echo "$output"
	[ "$status" -eq 0 ]
	[[ "$output" != *calibrating* ]]
	[ "$(wc -l <out/table.tsv)" = 6 ]
}
