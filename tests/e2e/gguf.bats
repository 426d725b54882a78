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

# llava: v, the demo's model as a GGUF file and its mmproj, with pictures cropped as the demo does.
llava() {
	need_numpy
	mkdir v
	gguf convert "$DEMO/mini-llava" v/model.gguf F16
	gguf vision "$DEMO/mini-llava" v/mmproj.gguf F16 'vqlm.aspect="crop"'
	jq -c '.[:8]' "$DEMO/mini-sqa/llava_test_CQM-A.json" >q.json
	ln -s "$DEMO/mini-sqa/images" images
}

# refused MODEL TEXT: status 3, nothing on standard output, the text in the message.
refused() {
	run -3 --separate-stderr vqlm-infer -q -m "$1" --template plain "${@:3}" "What is it?"
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-infer: "*"$2"* ]] || { echo "$stderr"; false; }
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

@test "tokens of any text are those of tokenizer.json" {
	need_numpy
	cp -r "$DEMO/mini-llava" json && rm json/tokenizer.model
	gguf convert "$DEMO/mini-llava" m.gguf F16
	# shellcheck disable=SC1112 # the quotes are part of the text
	"$PY" - <<-'E'
		import json
		texts = ['What is it?', ' two  spaces ', '\n\nlines\n', 'Grüße, 世界 🙂!', 'a</s>b<s> c', '<pad><unk>x', '‘quoted’', 'tab\tand\u00a0nbsp',
		         '[PAD5]', '▁▁ x', '0123 45.6', 'thethethe' * 9, '<0x41>']
		json.dump([{'id': str(i), 'conversations': [{'from': 'human', 'value': t}]} for i, t in enumerate(texts)], open('t.json', 'w'))
	E
	for m in json m.gguf; do
		vqlm-calib -q -m $m -n 13 -d t.json -o $m.vqs
		vqlm-ls $m.vqs | awk '$6 ~ /tokens$/ {print $2, $3, $6}' >$m.list
		vqlm-ls --cat 'input/*/tokens' $m.vqs >$m.tokens
	done
	[ "$(wc -l <json.list)" -eq 13 ]
	cmp json.list m.gguf.list
	cmp json.tokens m.gguf.tokens
}

# bytes NAME PRE CHANGE: m with the byte-level tokenizer of that name changed by jq, as a folder j and as j.gguf.
bytes() {
	rm -rf j
	cp -r m j
	rm j/tokenizer.model j/added_tokens.json
	echo '{}' >j/tokenizer_config.json
	jq -c "$3" "$ROOT/tests/data/tokenizer/good-$1.json" >j/tokenizer.json
	gguf convert j j.gguf F16 "tokenizer.ggml.pre=\"$2\""
}

@test "tokens of byte-level BPE are those of tokenizer.json, by each pattern that has a name" {
	folder
	"$PY" - <<-'E'
		import json
		texts = ["It's we'LL  they're\n\n x", '12345 6.789', 'Grüße, 世界 🙂!', 'a<|im_end|>b <|im_start|> c', 'e\u0301 \u00e9 \t\r\n z', 'the other there', ' ']
		json.dump([{'id': str(i), 'conversations': [{'from': 'human', 'value': t}]} for i, t in enumerate(texts)], open('t.json', 'w'))
	E
	n=0
	while read -r name pre change; do
		bytes "$name" "$pre" "$change"
		for k in j j.gguf; do
			vqlm-calib -q -m $k -n 7 -d t.json --template plain -o $k.vqs
			vqlm-ls --cat 'input/*/tokens' $k.vqs | sha256sum >$k.tokens
		done
		diff j.tokens j.gguf.tokens
		n=$((n + 1))
	done <<-E
		digits smollm .
		gpt2 gpt-2 .pre_tokenizer.add_prefix_space=false
		gpt2 phi-2 .pre_tokenizer.add_prefix_space=false
		nfc-bos qwen2 .model.ignore_merges=false
		nfc-bos qwen2 .model.ignore_merges=false|.post_processor=null
		nfc-bos llama-bpe .normalizer=null|.pre_tokenizer.pretokenizers[0].pattern.Regex|=sub("[|].p[{]N[}][|]";"|\\\\p{N}{1,3}|")
	E
	[ $n -eq 6 ]
	grep -q 'N}{1,3}' j/tokenizer.json
	bytes gpt2 starcoder .
	refused j.gguf ": key 'tokenizer.ggml.pre': want one of llama-bpe, llama3, llama-v3, qwen2, deepseek-r1-qwen, stablelm2, smollm, gpt-2, phi-2, got 'starcoder', whose pattern is not known"
	gguf convert j j.gguf F16 'tokenizer.ggml.pre="gpt-2"' tokenizer.ggml.merges=
	refused j.gguf ": key 'tokenizer.ggml.merges' is missing"
}

@test "the pipe makes the same codes of a GGUF file as of the folder" {
	folder
	gguf convert m m.gguf F32
	jq -c '[.[] | select(has("image") | not)][:6]' "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" >t.json
	for k in m m.gguf; do
		vqlm-calib -q -m $k -n 6 -d t.json | vqlm-entropy -q | vqlm-search -q --method gptq -w 4 -a 8 | vqlm-pack -q -o $k.vqm
		mkdir $k.d
		tar xf $k.vqm -C $k.d
		answers $k.vqm >$k.answers
	done
	diff -r -x model.json -x card.md -x manifest.json -x 'tokenizer*' -x added_tokens.json m.d m.gguf.d
	[ "$(find m.d -name '*.json' | wc -l)" -gt 20 ]
	diff m.answers m.gguf.answers
}

@test "a tower and its projector beside the model, or by --vision, see what the folder sees" {
	llava
	answers "$DEMO/mini-llava" >want
	answers v/model.gguf | diff want -
	answers v/model.gguf --load | diff want -
	# As the first converters had the feed-forward; with all of the layers and the one that is taken; elsewhere.
	gguf vision "$DEMO/mini-llava" v/mmproj.gguf F16 'vqlm.aspect="crop"' legacy=1
	answers v/model.gguf | diff want -
	mv v/mmproj.gguf tower
	answers v/model.gguf --vision tower | diff want -
	gguf vision "$DEMO/mini-llava" v/mmproj.gguf F16 'clip.vision.feature_layer=[4]' all=1
	answers v/model.gguf --aspect crop | diff want -
	# The engine pads, and so does a file that says nothing.
	[ "$(vqlm-infer -q -m v/model.gguf -d q.json --limit 1 | jq -r '.model.aspect | values')" = pad ]
	[ "$(vqlm-calib -q -n 0 -m v/model.gguf --vision none | vqlm-ls - | grep -c 'vision\|projector')" -eq 0 ]
}

@test "a tower that is not the model's is refused (3)" {
	llava
	cp v/mmproj.gguf v/mmproj-2.gguf
	refused v/model.gguf "v/model.gguf: two vision towers lie beside it, mmproj-2.gguf and mmproj.gguf; --vision FILE chooses one, --vision none leaves it without"
	rm v/mmproj-2.gguf
	refused v/mmproj.gguf "v/mmproj.gguf: a vision tower (mmproj); want the language model with -m, and this with --vision or beside it"
	refused v/model.gguf "v/model.gguf: want a GGUF file with the vision tower and the projector of v/model.gguf (its mmproj), got something else" --vision v/model.gguf
	refused v/model.gguf "mini-llava: want a GGUF file with the vision tower" --vision "$DEMO/mini-llava"
	gguf model m
	gguf convert m m.gguf F16 llama.embedding_length=128 llama.rope.dimension_count=32
	refused m.gguf "v/mmproj.gguf: want a projector to 128, the width of m.gguf, got one to 256; the two are not of one model (--vision FILE names another, --vision none leaves it out)" --vision v/mmproj.gguf
	for change in 'clip.projector_type="resampler"|clip.projector_type'"': want mlp (LLaVA 1.5), got 'resampler'" \
		'clip.vision.mm_patch_merge_type="spatial_unpad"|clip.vision.mm_patch_merge_type'"': want flat (LLaVA 1.6's tiles are not supported), got 'spatial_unpad'" \
		'clip.vision.image_grid_pinpoints=[1,2]|clip.vision.image_grid_pinpoints'"': LLaVA 1.6's tiles are not supported" \
		'clip.vision.feature_layer=[3,4]|clip.vision.feature_layer'"': want one layer of 1..4, got several" \
		'clip.vision.feature_layer=[5]|clip.vision.feature_layer'"': want one layer of 1..4, got another number" \
		"clip.vision.block_count=3|a layer beyond 'clip.vision.block_count'" \
		'clip.has_vision_encoder=false|clip.has_vision_encoder'"': want true" \
		'clip.vision.image_mean=[0.5,0.5]|clip.vision.image_mean'"': want 3 numbers, got 2" \
		'clip.vision.patch_size=|clip.vision.patch_size'"' is missing" \
		'clip.vision.embedding_length=64|want shape [64]'; do
		gguf vision "$DEMO/mini-llava" t.gguf F16 "${change%%|*}"
		run -3 --separate-stderr vqlm-calib -m v/model.gguf -n 0 --vision t.gguf
		[[ "$stderr" == "vqlm-calib: t.gguf"*"${change#*|}"* ]] || { echo "$change: $stderr"; false; }
	done
}

@test "what vqlm-export writes comes back with the packed model's logits" {
	need_numpy
	jq -c '.[:8]' "$DEMO/mini-sqa/llava_test_CQM-A.json" >q.json
	ln -s "$DEMO/mini-sqa/images" images
	vqlm-calib -q -n 0 -m "$DEMO/mini-llava" -o w.vqs
	for flags in "-w 4 --w-sym" "-w 4" "-w 8 --w-sym"; do
		# shellcheck disable=SC2086 # flags are words
		vqlm-search -q --method rtn -a 16 $flags <w.vqs | vqlm-pack -q -o m.vqm
		rm -rf out
		vqlm-export --to gguf -o out --parts llm,vision,projector m.vqm
		answers m.vqm --logits a.vqs >want
		answers out/model.gguf --float32 --logits b.vqs >got
		diff <(head -8 want) <(head -8 got)
		run -0 "$PY" "$BATS_TEST_DIRNAME/logits.py" a.vqs b.vqs
		jq -e '.n == 8 and .relative < 1e-6' <<<"$output"
		figure "an exported model read back, $flags: $output"
	done
}

@test "damaged files, and models of another kind, are refused with what is wrong (3)" {
	need_numpy
	"$PY" "$BATS_TEST_DIRNAME/gguf_bad.py" bad >cases
	[ "$(wc -l <cases)" -ge 80 ]
	while IFS=$'\t' read -r name text; do
		refused "bad/$name.gguf" "$text"
		[[ "$stderr" == "vqlm-infer: bad/$name.gguf"* ]]
	done <cases
	# No magic number: no GGUF at all.
	printf 'GGUX' | cat - bad/m/model.safetensors >x.gguf
	run -3 --separate-stderr vqlm-calib -m x.gguf -n 0
	[[ "$stderr" == *"a GGUF file, or a checkpoint of llama2.c; got a file of another kind" ]]
	# Cut anywhere before the end of the data.
	gguf convert bad/m good.gguf F16
	size=$(stat -c %s good.gguf)
	for i in {1..40}; do
		head -c $((size * i / 41)) good.gguf >cut.gguf
		refused cut.gguf "cut.gguf: "
	done
}

@test "a model in shards is read from the first; one that is missing, or another's, is named (3)" {
	folder
	gguf shards m s 3
	[ "$(find . -name 's-0000?-of-00003.gguf' | wc -l)" -eq 3 ]
	same m s-00001-of-00003.gguf
	answers m >want
	answers s-00001-of-00003.gguf --load | diff want -
	refused s-00002-of-00003.gguf "s-00002-of-00003.gguf: shard 2 of a model; want the first, which has the keys (its name has -00001-of-)"
	cp s-00002-of-00003.gguf s-00003-of-00003.gguf
	refused s-00001-of-00003.gguf "s-00003-of-00003.gguf: want shard 3 of 3, got 2 of 3"
	rm s-00002-of-00003.gguf
	refused s-00001-of-00003.gguf "s-00002-of-00003.gguf: cannot open"
}

@test "a dry run counts the room that blocks take as floats, and does not take it" {
	folder
	gguf blocks m q.gguf Q8_0 ref
	mkdir room
	TMPDIR=$PWD/room vqlm-calib -n 0 -m q.gguf --dry-run >said
	# All matrices are blocks of 34 bytes for 32 weights: 64 as float16.
	figure "$(grep spool said)"
	awk -v size="$(stat -c %s q.gguf)" '/^spool/ { ok = $2 * 1048576 > 1.5 * size && $2 * 1048576 < 1.9 * size } END { exit !ok }' said
	grep -q '^spool.* in TMPDIR, for weights that are blocks of codes$' said
	TMPDIR=$PWD/nowhere vqlm-calib -n 0 -m q.gguf --dry-run | grep -v time | cmp <(grep -v time said) -
	run -4 env TMPDIR="$PWD/nowhere" vqlm-calib -q -n 0 -m q.gguf -o x.vqs
	[ ! -e x.vqs ]
	vqlm-calib -n 0 -m m --dry-run >said
	run ! grep spool said
}

@test "what a model lacks is said before its tensors are rewritten" {
	folder
	gguf convert m x.gguf F32 'tokenizer.chat_template="odd"'
	TMPDIR=$T/none run -3 --separate-stderr vqlm-calib -m x.gguf -n 0
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-calib: x.gguf/tokenizer_config.json: unknown chat template; choose one with --template "* ]]
	TMPDIR=$T/none run -4 --separate-stderr vqlm-calib -m x.gguf -n 0 --template plain
	[[ "$stderr" == "vqlm-calib: $T/none: cannot create a temporary file; TMPDIR names another folder"* ]]
}

# The engine, as node-llama-cpp carries it.
need_engine() {
	need_program node jq
	engine=${NODE_LLAMA_CPP:-$ROOT/node_modules/node-llama-cpp}
	[ -d "$engine" ] || skip "node-llama-cpp is not there; NODE_LLAMA_CPP names its folder"
}

# off MODEL: how far our next-token probabilities in float32 are from llama.cpp's, squared and relative.
off() {
	node "$BATS_TEST_DIRNAME/llama.mjs" "$engine" "$1" <prompts.json >llama.jsonl
	vqlm-infer -q --float32 -m "$1" --vision none -d q.json --logits l.vqs >answers.jsonl
	"$PY" "$BATS_TEST_DIRNAME/llama_logits.py" l.vqs answers.jsonl llama.jsonl | jq .relative
}

@test "the same file has the same probabilities in llama.cpp" {
	folder
	need_engine
	jq -c '[.[] | "USER: " + .conversations[0].value + " ASSISTANT:"]' q.json >prompts.json
	for type in F32 F16; do
		gguf convert m x.gguf $type
		got=$(off x.gguf)
		jq -en "$got < 1e-6"
		figure "llama.cpp, random weights in $type: $got"
	done
	# It quantizes the inputs of blocks to 8 bits.
	for type in Q5_0 Q8_0 Q3_K Q4_K Q6_K; do
		rm -rf ref
		gguf blocks m x.gguf $type ref
		got=$(off x.gguf)
		jq -en "$got < 1e-4"
		figure "llama.cpp, random blocks of $type: $got"
	done
}

@test "files of llama-quantize have the weights that it makes float16 again itself" {
	folder
	local quantize=${LLAMA_QUANTIZE:-llama-quantize} type n=0
	command -v "$quantize" >/dev/null || skip "llama-quantize is not there; LLAMA_QUANTIZE names it"
	gguf convert m f32.gguf F32
	for type in Q2_K Q3_K_M Q4_K_M Q5_K_M Q6_K Q4_0 Q4_1 Q5_0 Q5_1 Q8_0; do
		"$quantize" f32.gguf q.gguf $type 1 >/dev/null 2>&1
		"$quantize" --allow-requantize q.gguf f16.gguf F16 1 >/dev/null 2>&1
		same f16.gguf q.gguf
		n=$((n + 1))
	done
	[ $n -eq 10 ]
}
