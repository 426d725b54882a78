#!/usr/bin/env bats
# The comparisons of pipelines/, on few questions and few rows.
load common

# Flags that keep a row short; the rows are named by the test.
small=("CALIB_FLAGS=-n 4 --influence-samples 1" "SEARCH_FLAGS=--rows 64" "INFER_FLAGS=--limit 40")

# Under a sanitizer demo.bats runs the same programs in the same way, and this would take long.
unhurried() {
	[ -z "${VQLM_SANITIZED-}" ] || skip "the demo's tests run these programs under the sanitizer"
}

bin() {
	dirname "$(command -v vqlm-eval)"
}

# The cells of a table that name and score a row: no seconds, no memory.
scores() {
	cut -f1-19 "$1"
}

# The processes that name a file below a folder.
working_in() {
	grep -lzsF "$1/" /proc/[0-9]*/cmdline || true
}

# cell TABLE VARIANT METHOD BITS COLUMN
cell() {
	awk -F'\t' -v v="$2" -v m="$3" -v b="$4" -v c="$5" 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i }
		NR > 1 && $1 == v && $4 == m && $3 == b { print $at[c] }' "$1"
}

@test "table2 has a row for every variant, width and method, and its numbers are eval's" {
	unhurried
	run -0 "$ROOT/pipelines/table2.sh" "$(bin)" out "${small[@]}" BITS="w8a8 w4a16" METHODS="rtn qvlm" SCHEMES=group
	local t=out/table2.tsv
	[ "$(cut -f1-4 $t | tail -n +2 | tr '\t\n' '- ')" = "outlier--W16A16-fp outlier-group-W8A8-rtn outlier-group-W8A8-qvlm outlier-group-W4A16-rtn outlier-group-W4A16-qvlm plain--W16A16-fp plain-group-W8A8-rtn plain-group-W8A8-qvlm plain-group-W4A16-rtn plain-group-W4A16-qvlm " ]
	[ "$(awk -F'\t' '{ print NF }' $t | sort -u | wc -l)" = 1 ]
	# Scores, flips and the pair are what vqlm-eval says of the answers that were kept.
	local d=out/outlier/group/w4a16 r="$DEMO/mini-sqa/problems.json"
	[ "$(cell $t outlier rtn W4A16 Avg)" = "$(vqlm-eval -q -r "$r" -f json $d/rtn.jsonl | jq '.classes.Avg.acc * 100 | round / 100')" ]
	[ "$(cell $t outlier rtn W4A16 flips)" = "$(vqlm-eval -q -r "$r" -f json -b out/outlier/fp.jsonl $d/rtn.jsonl | jq '.baseline.classes.Avg.changed')" ]
	[ "$(cell $t outlier rtn W4A16 diff)" = "$(vqlm-eval -q -r "$r" -f json -b $d/qvlm.jsonl $d/rtn.jsonl | jq '.baseline.classes.Avg.diff * 100 | round / 100')" ]
	[ "$(cell $t outlier qvlm W4A16 diff)" = "" ]
	awk -F'\t' 'NR > 1 && $4 != "fp" && !($16 > 0) { exit 1 }' $t
	# Eight quantized rows stand in the short tables and in the long ones, full precision in the long ones of both variants.
	[ "$(grep -c '^| rtn\|^| qvlm' out/table2.md)" = 12 ]
	[ "$(grep -c '^| fp' out/table2.md)" = 2 ]
	[[ "$(head -c 200 out/table2.svg)" == *"<svg"* ]]
	# What a second run finds done stays; what was removed comes back the same.
	scores $t >before
	rm $d/rtn.*
	run -0 "$ROOT/pipelines/table2.sh" "$(bin)" out "${small[@]}" BITS="w8a8 w4a16" METHODS="rtn qvlm" SCHEMES=group
	[ "$(grep -c '^table2: outlier/\|^table2: plain/' <<<"$output")" = 1 ]
	[[ "$output" == "table2: outlier/group/w4a16/rtn"* ]]
	diff before <(scores $t)
}

@test "a table that was killed goes on and is that of an undisturbed run, as is one of rows side by side" {
	unhurried
	local set=("${small[@]}" VARIANTS=outlier BITS="w4a4 w3a4" METHODS="rtn qvlm" SCHEMES=group AGAINST=rtn)
	: >log
	"$ROOT/pipelines/table2.sh" -j 1 "$(bin)" cut "${set[@]}" >log 2>&1 &
	local pid=$!
	while ! grep -q "^table2: outlier/group/w4a4/qvlm" log && kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
	kill "$pid"
	run ! wait "$pid"
	[ -z "$(working_in "$(realpath cut)")" ]
	[ ! -e cut/table2.tsv ]
	run -0 "$ROOT/pipelines/table2.sh" -j 1 "$(bin)" cut "${set[@]}"
	[[ "$output" != *"w4a4/rtn"$'\n'* ]] # done before
	[[ "$output" == *"table2: outlier/group/w3a4/qvlm"* ]]
	run -0 "$ROOT/pipelines/table2.sh" -j 2 "$(bin)" whole "${set[@]}"
	diff <(scores cut/table2.tsv) <(scores whole/table2.tsv)
	[ -z "$(find cut whole -name '*.part' -o -name '*.vqm' -o -path '*w?a?/*.logits')" ]
}

@test "a row that fails leaves a table of the others and status 1" {
	unhurried
	run -1 "$ROOT/pipelines/table2.sh" "$(bin)" out "${small[@]}" VARIANTS=outlier BITS=w4a4 METHODS="rtn qvlm broken" SCHEMES=group \
		HOW_broken="rtn --no-such-flag"
	[[ "$output" == *"vqlm-search: "*"no-such-flag"* ]]
	[[ "$output" == *"rows are missing"* ]]
	[ "$(cut -f4 out/table2.tsv | tr '\n' ' ')" = "method fp rtn qvlm " ]
}

@test "the ablation has every term and partition, and its ratios are those of its rows" {
	unhurried
	run -0 "$ROOT/pipelines/ablation.sh" "$(bin)" out "${small[@]}" BITS=w4a4 SEEDS="1 2" SUBSETS=2 SAMPLES=4
	local t=out/ablation.tsv
	[ "$(cut -f4 $t | tail -n +2 | tr '\n' ' ')" = "fp layerwise single cdm veo qvlm entropy median upper error fixed2 fixed3 random1 random2 " ]
	# The same search twice, as a term and as a partition.
	[ "$(cell $t outlier cdm W4A4 kl_fp)" = "$(cell $t outlier entropy W4A4 kl_fp)" ]
	[ "$(cell $t outlier cdm W4A4 forwards)" = "$(cell $t outlier entropy W4A4 forwards)" ]
	# Plans are what their names say: ten units, the projector by itself.
	[ "$(cell $t outlier single W4A4 blocks)" = 10 ]
	[ "$(cell $t outlier fixed3 W4A4 blocks)" = 5 ]
	[ "$(cell $t outlier fixed2 W4A4 blocks)" = 6 ]
	local want
	want=$(awk "BEGIN { printf \"%.2f\", $(cell $t outlier qvlm W4A4 forwards) / $(cell $t outlier layerwise W4A4 forwards) }")
	[[ "$(grep '^- W4A4, Q-VLM to layer-wise' out/ablation.md)" == *" $want in layer forwards"* ]]
	want=$(awk "BEGIN { printf \"%.2f\", $(cell $t outlier error W4A4 calib_s) / $(cell $t outlier entropy W4A4 calib_s) }")
	[[ "$(grep '^- W4A4, error as the proxy' out/ablation.md)" == *"takes $want times as long"* ]]
	[[ "$(head -c 200 out/ablation.svg)" == *"<svg"* ]]
	# The correlations are ded.sh's.
	want=$(awk -F'\t' '$2 == "all" && $3 == "entropy" { print $4 }' out/ded/ded.tsv)
	[ -n "$want" ]
	[[ "$(grep '^| all | entropy' out/ablation.md)" == "| all | entropy | $want |"* ]]
}

@test "table4 has bytes of weights, resident memory and seconds of each method" {
	unhurried
	run -0 "$ROOT/pipelines/table4.sh" "$(bin)" out "${small[@]}" METHODS="rtn qvlm" KEEP=1
	local t=out/table4.tsv m
	[ "$(cut -f3,4 $t | tail -n +2 | tr '\t\n' '- ')" = "W16A16-fp W8A8-rtn W8A8-qvlm W4A4-rtn W4A4-qvlm " ]
	# Weights: the members of the packed model that are tensors.
	local want
	want=$(vqlm-ls --json out/outlier/group/w4a4/rtn.vqm | jq -s '[.[] | select(.name) | select(.name | test("weight$|bias$|embed$|position_embed$|class_embed$|norm$")) | .size] | add / 1048576 * 100 | round / 100')
	[ "$(cell $t outlier rtn W4A4 weights_MiB)" = "$want" ]
	for m in rtn qvlm; do
		awk "BEGIN { exit !($(cell $t outlier $m W4A4 weights_MiB) < $(cell $t outlier $m W8A8 weights_MiB) && $(cell $t outlier $m W8A8 weights_MiB) < $(cell $t outlier fp W16A16 weights_MiB)) }"
		# A process of ours takes some MiB, the small model and its runs less than a GiB.
		awk "BEGIN { exit !($(cell $t outlier $m W4A4 peak_MiB) > 5 && $(cell $t outlier $m W4A4 search_peak_MiB) > 5 && $(cell $t outlier $m W4A4 peak_MiB) < 1024) }"
		awk "BEGIN { exit !($(cell $t outlier $m W4A4 answer_s) > 0) }"
	done
	grep -q '^| Q-VLM | the same | 11.2 h, 15.7 GB, 89.82 |' out/table4.md
}

@test "scripts of the comparisons refuse wrong command lines (2)" {
	local s
	for s in table2 ablation table4; do
		run -2 "$ROOT/pipelines/$s.sh"
		[[ "$output" == "usage: $s.sh "* ]]
		run -2 "$ROOT/pipelines/$s.sh" -j none "$(bin)" out
		[ ! -e out/$s.tsv ]
	done
}
