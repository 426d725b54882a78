#!/usr/bin/env bats
# NF4 and NF3: search, pack and run a model, against an independent dequantization and against itself in float.
load common

setup_file() {
	export OMP_WAIT_POLICY=passive
	cd "$BATS_FILE_TMPDIR" || return 1
	demo=$BATS_TEST_DIRNAME/../../pipelines/demo
	"$BUILD/bin/vqlm-calib" -q -m "$demo/mini-llava" -n 0 -o weights.vqs
}

W() { echo "$BATS_FILE_TMPDIR/weights.vqs"; }
model() { vqlm-search -q --method nf4 "$@" <"$(W)" | vqlm-pack -q; }
answer() { vqlm-infer -q -d "$DEMO/mini-sqa/llava_val_CQM-A.json" --limit 40 "$@"; }
apart() { /usr/bin/python3 "$BATS_TEST_DIRNAME/logits.py" "$1" "$2"; }

need_numpy() { /usr/bin/python3 -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"; }

@test "other bits, groups and symmetric grids are a wrong command line (2) that says which there are" {
	local w
	for w in 2 5 7 16; do
		run -2 --separate-stderr vqlm-search --method nf4 -w $w <"$(W)"
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-search: --method nf4 wants -w 4 (NF4), 3 (NF3), 6 or 8"*"got $w"* ]]
	done
	run -2 --separate-stderr vqlm-search --method nf4 --group 128 <"$(W)"
	[[ "$stderr" == *"groups of 64, got --group 128"* ]]
	run -2 --separate-stderr vqlm-search --method nf4 --w-sym <"$(W)"
}

@test "NF4 without calibration gives the logits of the model that numpy quantized" {
	need_numpy
	need_program jq zstd
	[ "$(/usr/bin/python3 "$ROOT/tests/vectors/nf4_ckpt.py" "$DEMO/mini-llava" reference)" -eq 67 ] # six of a layer that LLaVA does not run
	model -a 16 >m.vqm
	answer -m reference --float32 --logits reference.logits >/dev/null
	answer -m m.vqm --logits m.logits >a.jsonl
	answer -m m.vqm --exact --logits exact.logits >/dev/null
	answer -m "$DEMO/mini-llava" --float32 --logits full.logits >/dev/null
	apart reference.logits m.logits >d.json
	figure "NF4, W4A16: logits against numpy's dequantization: $(cat d.json)"
	jq -e '.n == 40 and .largest < 1e-4' d.json
	# Floating-point activations are multiplied in float: there is nothing else to be exact about.
	cmp m.logits exact.logits
	# The test sees the difference that NF4 makes.
	apart full.logits m.logits | jq -e '.largest > 0.01'
	[ "$(head -1 a.jsonl | jq -rc '[.model.method, .model.w.type, .model.w.bits, .model.w.block]')" = '["nf4","nf",4,64]' ]
	run -0 vqlm-ls --check m.vqm
}

@test "integer products of NF4 differ from exact ones by less than the errors of the bytes" {
	need_numpy
	need_program jq zstd
	local sum
	model -a 8 >m.vqm
	answer -m m.vqm --logits m.logits >a.jsonl
	answer -m m.vqm --exact --logits exact.logits >b.jsonl
	sum=$(vqlm-search -q --method nf4 -a 8 <"$(W)" | vqlm-ls --json - | jq -s '[.[].attrs.error_bytes // empty] | add')
	apart exact.logits m.logits >d.json
	figure "NF4, W4A8: integer against exact logits: $(cat d.json), errors of the bytes add up to $sum"
	# Each layer adds its own error, relative to its output: together they bound that of the logits.
	jq -e --argjson sum "$sum" '.relative > 0 and .relative < $sum and $sum < 0.01' d.json
	[ "$(head -1 a.jsonl | jq .params.exact)" = null ]
	[ "$(head -1 b.jsonl | jq .params.exact)" = true ]
}

@test "uniform grids are exact too, but for rounding" {
	need_numpy
	need_program jq zstd
	vqlm-search -q --method rtn -w 8 -a 8 <"$(W)" | vqlm-pack -q >m.vqm
	answer -m m.vqm --logits m.logits >/dev/null
	answer -m m.vqm --exact --logits exact.logits >/dev/null
	apart exact.logits m.logits >d.json
	figure "RTN, W8A8: integer against exact logits: $(cat d.json)"
	jq -e '.relative < 1e-3' d.json
}

@test "every kernel set gives the same answers" {
	local c
	model -w 3 -a 4 >m.vqm
	VQLM_CPU=generic answer -m m.vqm --limit 5 | jq -c 'select(.question_id) | [.question_id, .tokens]' >want
	for c in avx2 avx512vnni; do
		grep -q "${c%vnni}" /proc/cpuinfo || continue
		VQLM_CPU=$c answer -m m.vqm --limit 5 | jq -c 'select(.question_id) | [.question_id, .tokens]' | cmp - want
	done
	[ "$(wc -l <want)" -eq 5 ]
}

@test "weights take 4.13 and 3.13 bits" {
	run -0 --separate-stderr bash -c "vqlm-search -q --method nf4 -a 16 <'$(W)' | vqlm-pack -v >/dev/null"
	[[ "$stderr" == *"61 quantized linears at 4.13 bits"* ]]
	run -0 --separate-stderr bash -c "vqlm-search -q --method nf4 -w 3 -a 16 <'$(W)' | vqlm-pack -v >/dev/null"
	[[ "$stderr" == *"61 quantized linears at 3.13 bits"* ]]
}

@test "a killed search is resumed to the same bytes, and dry-run says what the stream takes" {
	local size
	vqlm-search -q --method nf4 -l 0 -o whole.vqs <"$(W)"
	size=$(stat -c %s whole.vqs)
	head -c $((size / 2)) whole.vqs >x.vqs.part
	vqlm-search -q --method nf4 -l 0 -o x.vqs --resume x.vqs.part <"$(W)"
	cmp x.vqs whole.vqs
	run -0 vqlm-search --method nf4 -l 0 --dry-run <"$(W)"
	awk -v size="$size" '/^disk/ { ok = $2 * 1048576 > .9 * size && $2 * 1048576 < 1.1 * size } END { exit !ok }' <<<"$output"
}
