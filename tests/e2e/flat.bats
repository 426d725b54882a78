#!/usr/bin/env bats
# The layout of the LLaVA authors: flat configuration, tower in a CLIP folder or inside, "<image>" outside the vocabulary.
load common

PY=/usr/bin/python3

# flat NAME [options]: the demo's checkpoint in that layout, its tower in ./clip-mini.
flat() {
	need_program "$PY"
	"$PY" "$ROOT/tests/e2e/layout.py" "$DEMO/mini-llava" "$1" --flat clip-mini "${@:2}"
}

# Names, types and every byte of a model's tensors.
weights() {
	vqlm-calib -q -n 0 -m "$@" >"$T/w.vqs"
	vqlm-ls "$T/w.vqs" | awk '$1 == "TENSOR" {print $2, $3, $6}'
	vqlm-ls --cat 'vision.*' "$T/w.vqs" | sha256sum
	vqlm-ls --cat 'projector.*' "$T/w.vqs" | sha256sum
	vqlm-ls --cat 'decoder.*' "$T/w.vqs" | sha256sum
}

infer() {
	vqlm-infer -q -t 1 -d "$DEMO/mini-sqa/llava_test_CQM-A.json" --limit 24 "$@"
}

# refused STATUS TEXT... -- ARGS...: vqlm-calib says all of it and writes nothing.
refused() {
	local status=$1 texts=() t
	shift
	while [ "$1" != -- ]; do
		texts+=("$1")
		shift
	done
	run -"$status" --separate-stderr vqlm-calib -n 0 "${@:2}"
	[ -z "$output" ]
	for t in "${texts[@]}"; do
		[[ "$stderr" == "vqlm-calib: "*"$t"* ]] || { echo "$stderr"; false; }
	done
}

# One sample with a picture that is not square, as calibration reads it.
one_sample() {
	"$PY" - <<-'E'
		import json
		from PIL import Image
		im = Image.new('RGB', (90, 41))
		im.putdata([(x * 7 % 256, (x * x + 3 * y) % 256, (5 * y + x) % 256) for y in range(41) for x in range(90)])
		im.save('odd.png')
		json.dump([{'id': '1', 'image': 'odd.png', 'conversations': [{'from': 'human', 'value': '<image>\nIs it?'},
		                                                             {'from': 'gpt', 'value': 'A'}]}], open('odd.json', 'w'))
	E
}

@test "the tower beside, inside, in safetensors: the weights of the llava-hf folder, bit for bit" {
	flat beside
	flat inside --tower inside
	flat both --weights safetensors --shards 2
	weights "$DEMO/mini-llava" >want
	for m in beside inside both; do
		weights "$m" | cmp want -
	done
	mv clip-mini elsewhere
	weights both --vision elsewhere | cmp want -
	tar cf both.tar both
	weights both.tar --vision elsewhere | cmp want -
	# The name may lead to the folder from the checkpoint's own, too.
	mv elsewhere both/clip-mini
	weights both | cmp want -
}

@test "random weights, and a projector of one matrix" {
	flat m --random 7 --linear
	vqlm-calib -q -n 0 -m m | vqlm-ls - >list
	[ "$(grep -c ' projector\.' list)" -eq 2 ]
	infer -m m --limit 2 | jq -s -e '.[0].template == "llava_v1" and (map(.text // empty) | length) == 2'
}

@test "the same logits and letters as the llava-hf folder" {
	flat m
	infer -m "$DEMO/mini-llava" --logits want.vqs >want
	infer -m m --template llava-hf --logits got.vqs >got
	vqlm-ls --cat 'logits/*' want.vqs >want.f32
	vqlm-ls --cat 'logits/*' got.vqs >got.f32
	# Two tokens fewer: <image> and <pad> are those of llava-hf alone.
	"$PY" - <<-'E'
		a, b = open('want.f32', 'rb').read(), open('got.f32', 'rb').read()
		assert len(a) == 24 * 4 * 1024 and len(b) == 24 * 4 * 1022
		assert all(a[i * 4096:i * 4096 + 4088] == b[i * 4088:(i + 1) * 4088] for i in range(24))
	E
	cmp <(jq -c '[.question_id, .tokens // empty]' want) <(jq -c '[.question_id, .tokens // empty]' got)
	figure "$(jq -r 'select(.tokens) | .text' got | wc -l) answers and their logits equal those of the llava-hf folder"
	head -1 got | jq -e '.template == "llava-hf" and .model.aspect == "crop"'
	infer -m m --limit 1 | head -1 | jq -e '.template == "vicuna_v1"'
}

@test "prompts have the tokens of the slow tokenizer around the picture" {
	flat m
	one_sample
	for m in "$DEMO/mini-llava" m; do
		vqlm-calib -q -m "$m" -d odd.json -n 1 --template vicuna_v1 --influence-samples 0 | vqlm-ls --cat 'input/0/tokens' - |
			od -An -v -w4 -td4 | tr -d ' ' >"$(basename "$m").tokens"
	done
	[ "$(grep -c '^1022$' mini-llava.tokens)" -eq 49 ]
	sed 's/^1022$/1024/' mini-llava.tokens | cmp m.tokens -
}

@test "a model trained with marks gets them around its pictures" {
	flat m --set mm_use_im_start_end=true
	one_sample
	run -3 --separate-stderr vqlm-calib -m m -d odd.json -n 1
	[[ "$stderr" == *"wants '<im_start>' and '<im_end>' around a picture"* ]]
	echo '{"<im_start>": 1022, "<im_end>": 1023}' >m/added_tokens.json
	vqlm-calib -q -m m -d odd.json -n 1 --influence-samples 0 -o m.vqs
	vqlm-ls --cat 'input/0/tokens' m.vqs | od -An -v -w4 -td4 | tr -d ' ' | uniq | grep -A2 '^1022$' >got
	printf '1022\n1024\n1023\n' | cmp got -
	vqlm-ls --cat config m.vqs | jq -e .image_marks
}

@test "pad is Pillow's, crop is the default; both are recorded" {
	"$PY" -c 'import PIL, numpy' 2>/dev/null || skip "python3-pil and python3-numpy are not installed"
	flat pad --aspect pad
	flat crop
	one_sample
	pixels() {
		vqlm-calib -q -d odd.json -n 1 --influence-samples 0 -m "$@" >"$T/p.vqs"
		vqlm-ls --cat 'input/0/pixels' "$T/p.vqs"
	}
	pixels pad >pad.f32
	vqlm-ls --cat config p.vqs | jq -e '.preproc.image_aspect_ratio == "pad"'
	pixels crop >crop.f32
	pixels crop --aspect pad | cmp pad.f32 -
	pixels pad --aspect crop | cmp crop.f32 -
	pixels "$DEMO/mini-llava" | cmp crop.f32 -
	"$PY" - <<-'E'
		import numpy as np
		from PIL import Image
		mean, std = [.48145466, .4578275, .40821073], [.26862954, .26130258, .27577711]
		im = Image.open('odd.png')
		square = Image.new('RGB', (90, 90), tuple(int(m * 255) for m in mean))
		square.paste(im, (0, (90 - 41) // 2))
		x = np.asarray(square.resize((56, 56), Image.BICUBIC))
		x = (x * (1 / 255)).astype(np.float32)
		x = ((x - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)
		assert np.array_equal(x, np.fromfile('pad.f32', np.float32).reshape(3, 56, 56))
	E
	vqlm-calib -q -n 0 -m pad | vqlm-entropy -q | vqlm-search -q --method rtn -w 8 | vqlm-pack -q -o pad.vqm
	head -1 <(infer -m pad.vqm --limit 1) | jq -e '.model.aspect == "pad"'
	head -1 <(infer -m pad.vqm --limit 1 --aspect crop) | jq -e '.model.aspect == "crop"'
	infer -m pad >answers
	run -0 --separate-stderr vqlm-eval -q -r "$DEMO/mini-sqa/problems.json" answers
	[[ "$output" == *"full precision, pictures padded"* ]]
}

@test "LLaVA 1.6 is refused by the key that says so" {
	flat m
	cp m/config.json plain.json
	try() {
		jq "$1" plain.json >m/config.json
		refused 3 "m/config.json: '$2': want" "LLaVA 1.6's tiles are not supported" -- -m m
	}
	try '.image_aspect_ratio = "anyres"' image_aspect_ratio
	try '.mm_patch_merge_type = "spatial_unpad"' mm_patch_merge_type
	try '.image_grid_pinpoints = [[336, 672]]' image_grid_pinpoints
	jq '.mm_patch_merge_type = "flat" | .image_aspect_ratio = "pad"' plain.json >m/config.json
	vqlm-calib -q -n 0 -m m >/dev/null
}

@test "a tower that is not there, or another one, is refused with what to do" {
	flat m
	mv clip-mini away
	refused 3 "'mm_vision_tower': no folder of 'openai/clip-mini' beside the model" "give it with --vision DIR" -- -m m
	refused 4 "nowhere: no such model" -- -m m --vision nowhere
	mkdir empty
	refused 3 "empty: no config.json" -- -m m --vision empty
	refused 3 "m/config.json: 'model_type': want clip or clip_vision_model" -- -m m --vision m
	jq '.vision_config.hidden_size = 64 | .vision_config.num_attention_heads = 1' away/config.json >c && mv c away/config.json
	refused 3 "'mm_hidden_size': want a tower of width 128, got 64" "give the folder of 'openai/clip-mini' with --vision" -- \
		-m m --vision away
}

@test "sizes that disagree are refused with file, tensor, shapes" {
	flat m
	cp m/config.json plain.json
	jq '.mm_projector_type = "linear"' plain.json >m/config.json
	refused 3 "m/config.json: 'mm_projector_type': want mlp2x_gelu" -- -m m
	jq '.hidden_size = 512 | .head_dim = 128' plain.json >m/config.json
	refused 3 "tensor 'model.mm_projector.0.weight': want shape [512, 128] by config.json, got [256, 128]" "not of one model" -- -m m
	jq '.mm_projector_type = "mlp3x_gelu"' plain.json >m/config.json
	refused 3 "'mm_projector_type': want" "mlp3x_gelu" -- -m m
	jq '.vocab_size = 1000' plain.json >m/config.json
	refused 3 "tensor 'model.embed_tokens.weight': want shape [1000, 256] by config.json, got [1024, 256]" -- -m m
	cp plain.json m/config.json
	echo '{"<more>": 1030}' >m/added_tokens.json
	run -3 --separate-stderr infer -m m
	[[ "$stderr" == *"m/tokenizer.model: has 1031 tokens with the added ones, but the embedding 1024 rows"* ]]
}

@test "--vision and --aspect where they have no use" {
	flat m
	refused 2 "--vision: $DEMO/mini-llava names no vision tower of its own" -- -m "$DEMO/mini-llava" --vision clip-mini
	refused 2 "--aspect wants one of model|crop|pad, got 'wide'" -- -m m --aspect wide
	run -2 --separate-stderr vqlm-prune -m m -n 1 --aspect ''
	[[ "$stderr" == "vqlm-prune: --aspect wants one of"* ]]
	run -2 --separate-stderr vqlm-prune -m "$DEMO/mini-llava" -n 1 --vision clip-mini
	[[ "$stderr" == "vqlm-prune: --vision: "* ]]
	vqlm-calib -q -n 0 -m m | vqlm-entropy -q | vqlm-search -q --method rtn -w 8 | vqlm-pack -q -o m.vqm
	run -2 --separate-stderr infer -m m.vqm --vision clip-mini
	[[ "$stderr" == "vqlm-infer: --vision: m.vqm is a packed model"* ]]
	run -2 --separate-stderr infer -m m --aspect round
	[[ "$stderr" == "vqlm-infer: --aspect wants one of"* ]]
}

# exported N ROWS: the folder out has <image> as token N, and ROWS rows, those after the model's 1024 the first one again.
exported() {
	jq -e --argjson n "$1" --argjson rows "$2" '.image_token_index == $n and .vocab_size == $rows and .text_config.vocab_size == $rows' out/config.json
	jq -e --arg n "$1" '.added_tokens_decoder[$n] | .content == "<image>" and .special' out/tokenizer_config.json
	"$PY" - "$2" <<-'E'
		import json, struct, sys
		import numpy as np
		b = open('out/model.safetensors', 'rb').read()
		n = struct.unpack('<Q', b[:8])[0]
		h = json.loads(b[8:8 + n])
		for k in ('language_model.model.embed_tokens.weight', 'language_model.lm_head.weight'):
		    a, e = h[k]['data_offsets']
		    w = np.frombuffer(b[8 + n + a:8 + n + e], np.float16).reshape(h[k]['shape'])
		    assert len(w) == int(sys.argv[1]) and (w[1024:] == w[0]).all() and len(np.unique(w[:1024], axis=0)) > 1000
	E
}

@test "an export has a token and a row for pictures, which this layout has not" {
	flat m
	pack() { vqlm-calib -q -n 0 -m m | vqlm-search -q --method rtn -w 4 -a 16 | vqlm-pack -q -o m.vqm "$@"; }
	pack
	# The tokenizer has 1022 tokens: rows are spare.
	run -0 vqlm-export --verify --to awq -o out m.vqm
	exported 1022 1024
	# None is.
	echo '{"<pad>": 1022, "<more>": 1023}' >m/added_tokens.json
	pack
	run -0 vqlm-export --verify --force --to awq -o out m.vqm
	exported 1024 1025
	cmp m/added_tokens.json out/added_tokens.json
	pack --head 8
	run -0 vqlm-export --verify --force --to gptq --gptq-format v2 --acts-as drop -o out m.vqm
	exported 1024 1025
	# llama.cpp puts features where they belong without a token for them.
	run -0 vqlm-export --verify --force --to gguf --acts-as drop -o out m.vqm
	[ ! -e out/tokenizer_config.json ]
}
