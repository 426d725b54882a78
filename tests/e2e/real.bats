#!/usr/bin/env bats
# Real pretrained models through the tools: tests/bench/vit.c and stories.c.
load common

vit() { "$BUILD/bench/vit" "$1" "$DATA/vit-tiny" "${@:2}"; }
stories() { "$BUILD/bench/stories" "$1" "$DATA/stories260k" "${@:2}"; }
between() { awk -v x="$1" -v lo="$2" -v hi="$3" 'BEGIN { exit !(x >= lo && x <= hi) }'; }

@test "ViT-Tiny in float32 gives the golden logits to 1e-3 and the same top 1 on every photo" {
	need_data vit-tiny
	run -0 vit golden
	figure "vit-tiny: photos, same top 1, largest difference of a logit: $output"
	read -r photos same worst <<<"$output"
	[ "$photos" = 17 ]
	[ "$same" = 17 ]
	between "$worst" 0 1e-3
}

# The text: llama2.c's test_all.py, "expected_stdout" (greedy, the first 200 tokens); the loss: its README, 1.297.
@test "stories260K in float32 tells the story of llama2.c's own test, at llama2.c's loss" {
	need_data stories260k
	run -0 stories tell
	local story=$'Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.\nLily\'s mom said, "Lily, let\'s go to the park." Lily was sad and didn\'t know what to do. She said, "I want to play with your ball, but I can\'t find it."\nLily was sad and didn\'t know what to do. She said, "I\'m sorry, Lily. I didn\'t know what to do."\n'
	[[ "$output" == "$story"* ]]
	run -0 stories ppl
	figure "stories260K: stories, tokens, perplexity: $output"
	between "$(cut -f3 <<<"$output")" 3.58 3.74
}

@test "models that are packed without quantization are the float32 models" {
	need_data vit-tiny
	need_data stories260k
	stories stream | vqlm-search -q --method rtn -w 16 -a 16 | vqlm-pack -q -o s.vqm
	[ "$(stories ppl s.vqm)" = "$(stories ppl)" ]
	vit stream | vqlm-search -q --method rtn -w 16 -a 16 | vqlm-pack -q -o v.vqm
	vit logits v.vqm >v.vqs
	vit logits >float.vqs
	run -0 "$BUILD/bench/vit" compare v.vqs float.vqs
	[ "$output" = $'102\t102\t0.00000\t0.00000' ]
}

@test "GPTQ with its options and best win back half of what 4-bit rounding of stories260K's weights loses" {
	need_data stories260k
	export VQLM_DATA=$DATA
	MODELS=stories METHODS="rtn gptq+ best" SCHEMES=4-16 SIZES=64 run -0 "$ROOT/tests/bench/real.sh" out
	figure "stories260K W4A16, groups of 64: perplexity $(awk -F'\t' 'NR > 1 { printf "%s %s ", $1, $5 }' out/stories.tsv)"
	[ "$(cut -f1 out/stories.tsv | tr '\n' ' ')" = "method float32 rtn gptq+ best " ]
	between "$(awk -F'\t' '$1 == "gptq+" { print $7 + 0 }' out/stories.tsv)" 50 100
	between "$(awk -F'\t' '$1 == "best" { print $7 + 0 }' out/stories.tsv)" 50 100
	[ "$(grep -c '^| ' out/tables.md)" = 6 ]
	# A second run takes the rows that are there.
	rm out/stories-best-4-16-g64.row
	MODELS=stories METHODS="rtn gptq+ best" SCHEMES=4-16 SIZES=64 run -0 --separate-stderr "$ROOT/tests/bench/real.sh" out
	[ "$stderr" = "real: stories best 4-16, groups of 64" ]
}

@test "on real inputs that were not calibrated on, W4A4: every method is better than rounding, WUSH with GPTQ by most" {
	need_data vit-tiny
	local methods=rtn,nf,awq,gptq+order+polish+clip,wush+gptq m
	"$BUILD/bench/layers" -s W4A4 -m $methods "$DATA/vit-tiny" >layers.tsv
	declare -A db
	while IFS=$'\t' read -r m x; do db[$m]=$x; done < <(awk -F'\t' 'NR > 1 { print $2 "\t" $NF }' layers.tsv)
	figure "twelve linears of vit-tiny, W4A4, mean dB: $(for m in ${methods//,/ }; do printf '%s %s ' "$m" "${db[$m]}"; done)"
	for m in nf awq gptq+order+polish+clip wush+gptq; do
		between "${db[$m]}" -99 "$(bc <<<"${db[rtn]} - 0.2")"
	done
	between "${db[wush+gptq]}" -99 "$(bc <<<"${db[rtn]} - 3")"
	between "${db[wush+gptq]}" -99 "$(bc <<<"${db[gptq+order+polish+clip]} - 2")"
	between "${db[wush+gptq]}" -99 "$(bc <<<"${db[awq]} - 1.5")"
}
