#!/usr/bin/env bats
# The forms in which one model may come: each tool makes of every form what it makes of the llava-hf folder.
load common

PY=/usr/bin/python3

layout() {
	need_program "$PY"
	"$PY" "$ROOT/tests/e2e/layout.py" "$DEMO/mini-llava" "$@"
}

# tensors STREAM: their names and types, then all their bytes.
tensors() {
	vqlm-ls "$1" | awk '$1 == "TENSOR" {print $2, $3, $6}'
	vqlm-ls --cat '*.*.*' "$1" | sha256sum
}

# whole MODEL [FLAGS of all tools]: what each tool makes of it, a line or file each, under $T/NAME of the second argument.
whole() {
	local m=$1 to=$T/$2
	shift 2
	mkdir "$to"
	vqlm-calib -q -m "$m" "$@" -n 2 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" --influence-samples 1 -o "$to.c"
	tensors "$to.c" >"$to/calib"
	vqlm-ls --cat 'input/*' "$to.c" | sha256sum >>"$to/calib"
	vqlm-prune -q -m "$m" "$@" --blocks 2 -o "$to.p"
	tensors "$to.p" >"$to/prune"
	vqlm-infer -q -t 1 -m "$m" "$@" -d "$DEMO/mini-sqa/llava_test_CQM-A.json" --limit 4 --logits "$to.l" |
		jq -c 'select(.question_id) | [.question_id, .tokens, .text]' >"$to/infer"
	vqlm-ls --cat '*' "$to.l" | sha256sum >>"$to/infer"
	vqlm-entropy -q <"$to.c" | vqlm-search -q -w 4 -a 8 --sweeps 1 | vqlm-pack -q -o "$to.vqm"
	vqlm-export -q --to gguf --acts-as drop -o "$to.gguf" "$to.vqm" >"$to/export"
	# The vision tower's and the decoder's numbers; keys have the history.
	tar xOf "$to.vqm" --wildcards '*_proj.weight' '*.patch_embed.weight' decoder.head.weight | sha256sum >>"$to/export"
	vqlm-infer -q -t 1 -m "$to.vqm" -d "$DEMO/mini-sqa/llava_test_CQM-A.json" --limit 4 |
		jq -c 'select(.question_id) | [.question_id, .tokens, .text]' >>"$to/export"
}

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
	DEMO=$ROOT/pipelines/demo
	T=$BATS_FILE_TMPDIR
	whole "$DEMO/mini-llava" want
	[ "$(wc -l <want/infer)" -eq 5 ]
}

# same MODEL [FLAGS]: as the folder.
same() {
	whole "$1" got "${@:2}"
	diff -r "$BATS_FILE_TMPDIR/want" got
}

@test "llava-hf in shards: calibrated, pruned, asked, quantized, exported as in one file" {
	layout m --weights safetensors --shards 3
	same m
}

@test "PyTorch's .bin: calibrated, pruned, asked, quantized, exported as safetensors" {
	layout m
	same m/pytorch_model.bin
}

@test "PyTorch's .bin in shards: calibrated, pruned, asked, quantized, exported as safetensors" {
	layout m --shards 2
	same m
}

@test "the LLaVA authors' layout: calibrated, pruned, asked, quantized, exported as llava-hf" {
	layout m --flat clip-mini
	# Its own prompt is vicuna's, and "<image>" an id of its own.
	whole m got --template llava-hf
	diff "$BATS_FILE_TMPDIR/want/prune" got/prune
	# Logits have the model's name beside them; flat.bats compares them.
	for f in infer export; do
		diff <(grep '^\[' "$BATS_FILE_TMPDIR/want/$f") <(grep '^\[' got/$f)
	done
	diff <(grep -v '^\[' "$BATS_FILE_TMPDIR/want/export") <(grep -v '^\[' got/export)
}

@test "a tar: calibrated, pruned, asked, quantized, exported as the folder in it" {
	cp -r "$DEMO/mini-llava" m
	tar cf m.tar m
	same m.tar
}

@test "a compressed tar: calibrated, pruned, asked, quantized, exported as the folder in it" {
	cp -r "$DEMO/mini-llava" m
	tar c m | zstd -q >m.tar.zst
	same m.tar.zst
}

@test "a ZIP: calibrated, pruned, asked, quantized, exported as the folder in it" {
	cp -r "$DEMO/mini-llava" m
	zip -qr m.zip m
	same m.zip
}

@test "a model stream: calibrated, pruned, asked, quantized, exported as the folder that it was made of" {
	vqlm-calib -q -m "$DEMO/mini-llava" -n 0 -o m.vqs
	same m.vqs
}

@test "a GGUF file with its mmproj: calibrated, pruned, asked, quantized, exported as llava-hf" {
	"$PY" -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"
	mkdir m
	"$PY" "$ROOT/tests/e2e/gguf_file.py" convert "$DEMO/mini-llava" m/model.gguf F16
	"$PY" "$ROOT/tests/e2e/gguf_file.py" vision "$DEMO/mini-llava" m/mmproj.gguf F16 'vqlm.aspect="crop"'
	whole m/model.gguf got
	# Vectors are float32 there, and "<image>" is an id of its own; gguf.bats compares the logits.
	diff <(awk '/_proj.weight/' "$BATS_FILE_TMPDIR/want/prune") <(awk '/_proj.weight/' got/prune)
	[ "$(awk 'NF == 3' got/prune | wc -l)" -eq "$(awk 'NF == 3' "$BATS_FILE_TMPDIR/want/prune" | wc -l)" ]
	for f in infer export; do
		diff <(grep '^\[' "$BATS_FILE_TMPDIR/want/$f") <(grep '^\[' got/$f)
	done
	diff <(grep -v '^\[' "$BATS_FILE_TMPDIR/want/export") <(grep -v '^\[' got/export)
}

@test "a LLaMA folder: pruned, exported to GGUF, AWQ, GPTQ and compressed-tensors" {
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" --text-only tiny m >/dev/null
	vqlm-prune -q -m m --blocks 1 --no-keep -o p.vqs
	[ "$(vqlm-ls p.vqs | grep -c 'layers.0.q_proj')" -eq 1 ]
	[ "$(vqlm-ls p.vqs | grep -c 'layers.1.q_proj')" -eq 0 ]
	local m f
	for m in m p.vqs; do
		vqlm-calib -q -n 0 -m "$m" | vqlm-search -q --method rtn -w 4 -a 16 --w-sym | vqlm-pack -q -o m.vqm
		for f in gguf awq gptq compressed-tensors; do
			rm -rf out
			run -0 vqlm-export --verify --to "$f" -o out m.vqm
			[[ "$output" == *"matrices in $f, largest difference 0, promised 0"* ]]
		done
	done
}

@test "llama2.c's checkpoint: exported to bitsandbytes" {
	need_data stories260k
	cp -r "$DATA/stories260k" s
	vqlm-calib -q -n 0 -m s/stories260K.bin | vqlm-search -q --method nf4 -w 4 -a 16 | vqlm-pack -q -o m.vqm
	run -0 vqlm-export --verify --to bnb -o out m.vqm
	[[ "$output" == *"verify: 35 matrices in bnb, largest difference 0, promised 0"* ]]
}

@test "a GGUF file: pruned and exported as the folder" {
	"$PY" -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"
	gguf() { "$PY" "$ROOT/tests/e2e/gguf_file.py" "$@"; }
	gguf model m
	gguf convert m m.gguf F32
	local w
	for w in m m.gguf; do
		vqlm-prune -q -m "$w" --blocks 1 --no-keep -o p.vqs
		tensors p.vqs >"$w.pruned"
		vqlm-calib -q -m "$w" -n 0 | vqlm-search -q --method rtn -w 4 -a 16 --group 32 | vqlm-pack -q -o m.vqm
		rm -rf out
		vqlm-export -q --to compressed-tensors --verify -o out m.vqm
		"$PY" - out/model.safetensors <<-'E' >"$w.exported"
			import hashlib, json, struct, sys
			b = open(sys.argv[1], 'rb').read()
			n = struct.unpack('<Q', b[:8])[0]
			h = json.loads(b[8:8 + n])
			h.pop('__metadata__')
			print(sorted(h), hashlib.sha256(b[8 + n:]).hexdigest())
		E
	done
	[ "$(wc -l <m.pruned)" -gt 5 ]
	cmp m.pruned m.gguf.pruned
	cmp m.exported m.gguf.exported
}
