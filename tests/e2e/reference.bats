#!/usr/bin/env bats
# Quantized models beside an independent fake quantization, pipelines/demo/scripts/fakequant.py, code by code and in
# their answers.
load common

model() {
	echo "$DEMO/mini-llava-outlier"
}

# Flags of vqlm-search for the two rules that the reference has, both 4 bits.
flags() {
	case $1 in
	group) ;;
	token) echo "--group 0 --act-group 0 --w-sym --a-sym" ;;
	esac
}

# quantize GRID: GRID.vqs, GRID.vqm, and the payloads and the listing of the stream.
quantize() {
	local f
	read -ra f <<<"$(flags "$1")"
	vqlm-calib -q -n 0 -m "$(model)" | vqlm-search -q --method rtn -w 4 -a 4 "${f[@]}" -l 0 >"$1.vqs"
	vqlm-pack -q -o "$1.vqm" <"$1.vqs"
	zstd -q -dc "$1.vqs" >"$1.raw"
	vqlm-ls --json "$1.vqs" >"$1.json"
}

need_torch() {
	/usr/bin/python3 -c 'import numpy, torch' 2>/dev/null || skip "python3-torch is not installed"
}

reference() {
	local what=$1 grid=$2
	shift 2
	/usr/bin/python3 "$BATS_TEST_DIRNAME/reference.py" "$what" "$(model)" "$grid.raw" "$grid.json" "$grid" "$@"
}

codes() {
	mkdir -p "$1"
	"$BUILD/e2e/act_codes" "$1.vqm" "$DEMO/golden/golden-outlier.safetensors" "$1"
}

@test "every weight's code is the reference's with scales rounded to float16, in groups and by channel" {
	need_torch
	local g
	for g in group token; do
		quantize $g
		reference weights $g >out
		figure "$g: weights $(cat out)"
		# All linears of four tower layers, projector and five decoder layers; all codes the same.
		[ "$(jq .linears out)" = 61 ]
		[ "$(jq .codes out)" = 4325376 ]
		[ "$(jq .differ out)" = 0 ]
		# float32 scales move codes of weights near a tie: float16 rounds a scale by up to 2^-11 of it.
		[ "$(jq '.differ_float32_scales > 0 and .differ_float32_scales < 0.005 * .codes' out)" = true ]
	done
	# A single code off by one is seen.
	local at
	at=$(jq -s '[.[] | select(.raw_bytes)] | (map(.name) | index("decoder.layers.3.up_proj.weight")) as $i | .[:$i] | map(.raw_bytes) | add' token.json)
	local byte
	byte=$(xxd -s $((at + 77)) -l 1 -p token.raw)
	printf '%02x' $((16#$byte ^ 1)) | xxd -r -p | dd of=token.raw bs=1 seek=$((at + 77)) conv=notrunc status=none
	[ "$(reference weights token | jq .differ)" = 1 ]
}

@test "every linear's input has the reference's codes on the golden questions, but for ties" {
	need_torch
	local g
	for g in group token; do
		quantize $g
		codes $g
		# Place by place: the reference's own forward, fed with our codes of the places before.
		reference acts $g "$DEMO/golden/golden-outlier.safetensors" $g forced >out
		figure "$g: activations $(cat out)"
		[ "$(jq .prompts out)" = 8 ]
		[ "$(jq .inputs out)" = 250 ]
		[ "$(jq .quantizer_differs out)" = 0 ]
		[ "$(jq .no_tie out)" = 0 ]
		[ "$(jq '.differ <= 0.001 * .codes' out)" = true ]
		# And left alone, where a tie may spread through the layers after it.
		reference acts $g "$DEMO/golden/golden-outlier.safetensors" $g free >out
		figure "$g: activations, free $(cat out)"
		[ "$(jq '.differ <= 0.01 * .codes' out)" = true ]
	done
	# A single code off by one is seen: it is no tie, and not the code of its own input.
	local f=token/6.codes rows n
	rows=$(od -An -td4 -N4 $f) n=$(od -An -td4 -j4 -N4 $f)
	local at=$((12 + 4 * rows * n + 5)) byte
	byte=$(xxd -s $at -l 1 -p $f)
	printf '%02x' $((16#$byte ^ 1)) | xxd -r -p | dd of=$f bs=1 seek=$at conv=notrunc status=none
	reference acts token "$DEMO/golden/golden-outlier.safetensors" token forced >out
	[ "$(jq '.quantizer_differs' out)" = 1 ]
	[ "$(jq '.no_tie >= 1' out)" = true ]
}

# accuracy GRID: percent of the whole test split.
accuracy() {
	quantize "$1"
	vqlm-infer -q -m "$1.vqm" -d "$DEMO/mini-sqa/llava_test_CQM-A.json" -o "$1.jsonl"
	vqlm-eval -q -r "$DEMO/mini-sqa/problems.json" -f json "$1.jsonl" >"$1.eval"
	[ "$(jq .n "$1.eval")" = 2000 ]
	[ "$(jq .partial "$1.eval")" = false ]
	jq .classes.Avg.acc "$1.eval"
}

# What fakequant.py answered right with float32 scales, from the table in the demo's card.
card() {
	awk -F' *[|] *' -v row="$1" '/^`mini-llava-outlier/ { on = 1 } on && $2 == row { print $3; exit }' "$DEMO/README.md"
}

@test "round to nearest of 4 bits answers as many questions as the reference's, in groups within a point, by token within three" {
	local want got
	want=$(card "W4A4 RTN, group 128 asym both")
	[ -n "$want" ]
	got=$(accuracy group)
	figure "groups of 128: $got %, the reference $want %"
	awk "BEGIN { d = $got - $want; exit !(d <= 1 && d >= -1) }"
	want=$(card "W4A4 RTN, per channel / per token sym")
	[ -n "$want" ]
	got=$(accuracy token)
	figure "per channel, per token: $got %, the reference $want %"
	awk "BEGIN { d = $got - $want; exit !(d <= 3 && d >= -3) }"
}
