#!/usr/bin/env bats
# GGUF files as the model of every tool, written by gguf_file.py and by vqlm-export.
load common

PY=/usr/bin/python3
FILE=$BATS_TEST_DIRNAME/gguf_file.py

need_numpy() { "$PY" -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"; }

# gguf ARGUMENTS: gguf_file.py.
gguf() { "$PY" "$FILE" "$@"; }

# m, a LLaMA folder in float32; q.json, five questions without pictures.
folder() {
	need_numpy
	gguf model m
	jq -c '[.[] | select(has("image") | not)][:5]' "$DEMO/mini-sqa/llava_test_CQM-A.json" >q.json
}

# The weights of a model: types, shapes and names, then the hash of every byte.
weights() {
	vqlm-calib -q -n 0 -m "$1" -o w.vqs
	vqlm-ls w.vqs | awk '$1 == "TENSOR" {print $2, $3, $6}'
	vqlm-ls --cat 'decoder.*' w.vqs | sha256sum
}

# same A B: the weights of both are the same.
same() {
	weights "$1" >want.w
	weights "$2" | diff want.w -
}

# answers MODEL FLAGS...: the tokens of the questions and answers, and the logits.
answers() {
	vqlm-infer -q -m "$1" -d q.json --logits l.vqs "${@:2}" | jq -c 'select(.question_id) | [.question_id, .n_prompt, .tokens]'
	vqlm-ls --cat 'logits/*' l.vqs | sha256sum
}

# refused MODEL TEXT: status 3, nothing on standard output, the text in the message.
refused() {
	run -3 --separate-stderr vqlm-calib -m "$1" -n 0
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-calib: $1"*"$2"* ]] || { echo "$stderr"; false; }
}

@test "float weights are those of the folder, bit for bit, and so are answers and logits" {
	folder
	answers m >want
	[ "$(grep -c . want)" -eq 6 ]
	gguf convert m f32.gguf F32
	same m f32.gguf
	answers f32.gguf | diff want -
	answers f32.gguf --load | diff want -
	for type in F16 BF16; do
		rm -rf ref
		gguf blocks m x.gguf $type ref
		same ref x.gguf
		[ "$(grep -ic "^$type " want.w)" -eq 16 ]
	done
	# A tied head is not there twice.
	gguf convert m tied.gguf F32 drop:output.weight=
	[ "$(weights tied.gguf | grep -c head)" -eq 0 ]
}

@test "blocks of every type have the values that numpy finds, rounded to float16" {
	folder
	for type in Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K; do
		rm -rf ref
		gguf blocks m x.gguf $type ref
		same ref x.gguf
	done
	gguf blocks m x.gguf IQ4_XS ref
	refused x.gguf ": tensor 'token_embd.weight': type IQ4_XS is not supported; want a model in F32, F16, BF16, Q4_0 to Q8_0 or Q2_K to Q6_K"
}
