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
	local status=0
	wait "$pid" || status=$? # not by run, whose subshell has no such child and would not wait
	[ "$status" = 143 ]
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

@test "size-accuracy prunes, rounds and scores; its numbers are prune's and eval's" {
	unhurried
	local set=("${small[@]}" REMOVED="0 2" KEEP=1)
	run -0 "$ROOT/pipelines/size-accuracy.sh" "$(bin)" out "${set[@]}"
	local t=out/size-accuracy.tsv d=out/removed2 r="$DEMO/mini-sqa/problems.json" b
	[ "$(cut -f1,4 $t | tail -n +2 | tr '\t\n' '- ')" = "removed0-fp removed0-gptq removed2-fp removed2-gptq " ]
	[ "$(awk -F'\t' '{ print NF }' $t | sort -u | wc -l)" = 1 ]
	b=$(vqlm-ls --json $d/model.vqs | jq -c 'select(.header) | .header.history[-1].params | [(.n_blocks - (.kept | length)), (.kept | length), .params]')
	[ "[$(cell $t removed2 gptq W4A16 removed),$(cell $t removed2 gptq W4A16 n_blocks),$(cell $t removed2 fp W16A16 params)]" = "$b" ]
	[ "$(cell $t removed2 fp W16A16 Avg)" = "$(vqlm-eval -q -r "$r" -f json $d/fp.jsonl | jq '.classes.Avg.acc * 100 | round / 100')" ]
	[ "$(cell $t removed2 gptq W4A16 se)" = "$(vqlm-eval -q -r "$r" -f json $d/group/w4a16/gptq.jsonl | jq '.classes.Avg.se * 100 | round / 100')" ]
	[ "$(cell $t removed2 gptq W4A16 flips)" = "$(vqlm-eval -q -r "$r" -f json -b $d/fp.jsonl $d/group/w4a16/gptq.jsonl | jq '.baseline.classes.Avg.changed')" ]
	# What was rounded is the pruned model: its blocks, and fewer bytes.
	tar xOf $d/group/w4a16/gptq.vqm "$(tar tf $d/group/w4a16/gptq.vqm | grep md$)" >card
	grep -q "^The decoder has $(cell $t removed2 gptq W4A16 n_blocks) of its 5 blocks: " card
	awk "BEGIN { exit !($(cell $t removed2 gptq W4A16 weights_MiB) < $(cell $t removed0 gptq W4A16 weights_MiB) && $(cell $t removed0 gptq W4A16 weights_MiB) < $(cell $t removed2 fp W16A16 weights_MiB)) }"
	awk "BEGIN { exit !($(cell $t removed2 fp W16A16 peak_MiB) > 5) }"
	[ "$(grep -c '^| Ours' out/size-accuracy.md)" = 2 ]
	[[ "$(head -c 200 out/size-accuracy.svg)" == *"<svg"* ]]
	# What is done stays; a size whose blocks cannot be had leaves the others.
	run -1 "$ROOT/pipelines/size-accuracy.sh" "$(bin)" out "${set[@]}" REMOVED="0 2 5"
	[[ "$output" == *"vqlm-prune: "* ]]
	[[ "$output" != *"removed2/group/w4a16/gptq"$'\n'* ]]
	[ "$(wc -l <$t)" = 5 ]
}

@test "size-accuracy heals when asked to, and its table says so" {
	unhurried
	run -0 "$ROOT/pipelines/size-accuracy.sh" "$(bin)" out "${small[@]}" REMOVED=1 HEAL=lora HEAL_FLAGS="--lora-steps 2 --heal-samples 16"
	[ "$(vqlm-ls --json out/removed1/model.vqs | jq -c 'select(.header) | .header.history[-1].params.heal | [.way, .steps, .samples]')" = '["lora",2,16]' ]
	grep -q '^Blocks go .* healing: lora\.$' out/size-accuracy.md
}

@test "weights of LLaMA-7B at its pruned sizes are those of its shapes, beside what was published" {
	local memory
	memory=$(dirname "$(bin)")/bench/memory
	run -0 "$ROOT/pipelines/size-7b.sh" "$memory" out
	# Parameters: embedding, head and norm, and 4 d^2 + 3 d f + 2 d a block; 2 bytes each, and 4 bits, a scale of 16 and a zero point of 8
	# for 128 of what is in linears.
	awk -F'\t' -v d=4096 -v f=11008 -v vocab=32000 'NR > 1 {
		linear = $2 * (4 * d * d + 3 * d * f); plain = 2 * vocab * d + d + 2 * d * $2; gib = 2 ^ 30
		if ($3 != linear + plain || $4 != sprintf("%.2f", 2 * $3 / gib)) exit 1
		if ($7 != sprintf("%.2f", (linear * (4 + 24 / 128) / 8 + 2 * plain) / gib)) exit 1
		n++
	} END { exit n != 4 }' out/size-7b.tsv
	grep -q '^| 5.5B | 26 | .* | 10.5 | ' out/size-7b.md
	run -2 "$ROOT/pipelines/size-7b.sh" "$memory"
	[[ "$output" == "usage: size-7b.sh "* ]]
	run -2 "$memory" --blocks 33
	[ "$output" = "memory: --blocks wants 1..32, got '33'" ]
}

@test "scripts of the comparisons refuse wrong command lines (2)" {
	local s
	for s in table2 ablation table4 size-accuracy; do
		run -2 "$ROOT/pipelines/$s.sh"
		[[ "$output" == "usage: $s.sh "* ]]
		run -2 "$ROOT/pipelines/$s.sh" -j none "$(bin)" out
		[ ! -e out/$s.tsv ]
	done
}
