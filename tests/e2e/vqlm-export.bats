#!/usr/bin/env bats
# vqlm-export: folders for other engines, read by references of their own, and what it refuses.
load common

setup_file() {
	export OMP_WAIT_POLICY=passive
	cd "$BATS_FILE_TMPDIR" || return 1
	demo=$BATS_TEST_DIRNAME/../../pipelines/demo
	"$BUILD/bin/vqlm-calib" -q -m "$demo/mini-llava" -n 0 -o weights.vqs
}

# model NAME FLAGS...: the packed model of that name, made when it is first wanted; its path.
model() {
	local name=$BATS_FILE_TMPDIR/$1.vqm
	shift
	[ -e "$name" ] || vqlm-search -q --method rtn "$@" <"$BATS_FILE_TMPDIR/weights.vqs" | vqlm-pack -q -o "$name"
	echo "$name"
}
asym() { model asym -w 4 -a 16; }
sym() { model sym -w 4 -a 16 --w-sym; }
rows() { model rows -w 4 -a 16 --group 0; }
wide() { model wide -w 8 -a 16; }
wide_sym() { model wide-sym -w 8 -a 16 --w-sym; }
acts() { model acts -w 4 -a 8; }
# Scales of the inputs behind norms; the outliers' model has real ones.
smooth() {
	local m=$BATS_FILE_TMPDIR/smooth.vqm
	[ -e "$m" ] || vqlm-calib -q -m "$DEMO/mini-llava-outlier" -n 4 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" |
		tee "$BATS_FILE_TMPDIR/outlier.vqs" | vqlm-search -q --method rtn -w 4 -a 16 --w-sym --smooth .5 --smooth-at norms |
		vqlm-pack -q -o "$m"
	echo "$m"
}
nf4() { model nf4 --method nf4 -w 4 -a 16; }

# SmolVLM with random weights, whose matrices fill blocks of 32.
smol() {
	local w=$BATS_FILE_TMPDIR/smol.vqs name=$1
	shift
	[ -e "$w" ] || smolvlm "$BATS_FILE_TMPDIR/smol" "$w"
	[ -e "$BATS_FILE_TMPDIR/$name.vqm" ] || vqlm-search -q --method rtn "$@" <"$w" | vqlm-pack -q -o "$BATS_FILE_TMPDIR/$name.vqm"
	echo "$BATS_FILE_TMPDIR/$name.vqm"
}
smolvlm() {
	local part=text_config
	/usr/bin/python3 "$BATS_TEST_DIRNAME/smolvlm.py" make "$1" --set $part.hidden_size=96 --set $part.num_attention_heads=3 \
		--set $part.num_key_value_heads=1 --set $part.intermediate_size=160 --set vision_config.hidden_size=64 "${@:3}"
	vqlm-calib -q -m "$1" -n 0 -o "$2"
}

need_numpy() { /usr/bin/python3 -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"; }
reference() { /usr/bin/python3 "$BATS_TEST_DIRNAME/exported.py" "$@"; }

# same MODEL N FLAGS...: an export that verifies itself, and that the reference finds the same in N matrices.
same() {
	local m=$1 n=$2
	shift 2
	rm -rf out
	run -0 --separate-stderr vqlm-export --verify -o out "$@" "$m"
	[ -z "$stderr" ]
	[[ "$output" == *"verify: $n matrices in "*", largest difference 0, promised 0"* ]]
	run -0 reference "$m" out
	[[ "$output" == "$n matrices, "*" floats, largest difference 0" ]] || { echo "$* $m: $output"; false; }
}

@test "AWQ: the words of 4 bits are those of the packed model, by a reference of its own" {
	need_numpy
	same "$(asym)" 35 --to awq
	same "$(sym)" 35 --to awq
	same "$(rows)" 35 --to awq
	same "$(asym)" 61 --to awq --parts llm,vision,projector
}

@test "GPTQ: 2, 3, 4 and 8 bits, zero points of both versions" {
	need_numpy
	same "$(sym)" 35 --to gptq
	same "$(asym)" 35 --to gptq --gptq-format v2
	same "$(rows)" 35 --to gptq --gptq-format v2
	same "$(wide_sym)" 35 --to gptq
	same "$(model two -w 2 -a 16)" 35 --to gptq --gptq-format v2
	same "$(model three -w 3 -a 16)" 35 --to gptq --gptq-format v2
	cmp out/quantize_config.json <(jq -S --indent 2 .quantization_config out/config.json | head -c -1)
}

@test "compressed-tensors: packed words, and bytes with inputs of 8 bits, dynamic and static" {
	need_numpy
	same "$(asym)" 35 --to compressed-tensors
	same "$(sym)" 35 --to compressed-tensors
	same "$(rows)" 61 --to compressed-tensors --parts llm,vision,projector
	same "$(wide)" 35 --to compressed-tensors
	same "$(acts)" 35 --to compressed-tensors --acts-as dynamic-int8
	[ "$(jq -r '.quantization_config.config_groups.group_0.input_activations.strategy' out/config.json)" = token ]
	same "$(model five -w 5 -a 8)" 35 --to compressed-tensors --acts-as dynamic-int8
	vqlm-calib -q -m "$DEMO/mini-llava" -n 8 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" \
		| vqlm-search -q --method rtn -w 8 -a 8 --acts static --w-sym --group 0 \
		| vqlm-pack -q -o static.vqm
	same static.vqm 35 --to compressed-tensors --acts-as static-int8
	[ "$(jq -r '.quantization_config.config_groups.group_0.input_activations.strategy' out/config.json)" = tensor ]
}

@test "bitsandbytes: NF4 with its double quantization" {
	need_numpy
	same "$(nf4)" 35 --to bnb
	same "$(nf4)" 61 --to bnb --parts llm,vision,projector
}

# blocks MODEL TYPES DIFFERENCE FLAGS...: a GGUF export in which the reference finds tensors of these types.
blocks() {
	local m=$1 types=$2 off=$3
	shift 3
	rm -rf out
	run -0 --separate-stderr vqlm-export --to gguf --verify -o out "$@" "$m"
	[ -z "$stderr" ]
	run -0 reference "$m" out
	[[ "$output" == "$types, "*"largest difference "$off ]] || { echo "$* $m: $output"; false; }
}

@test "GGUF: Q4_0 and Q8_0 are the packed model's to the bit, Q4_1 but for its minimum in float16" {
	need_numpy
	blocks "$(sym)" "35 Q4_0" 0
	blocks "$(wide_sym)" "35 Q8_0" 0
	blocks "$(model three -w 3 -a 16)" "35 Q8_0" 0
	blocks "$(asym)" "35 Q4_1" "*"
	blocks "$(rows)" "61 Q4_1" "*" --parts llm,vision,projector
	blocks "$(acts)" "35 Q4_1" "*" --acts-as drop
	vqlm-search -q --method rtn -w 4 -a 16 --w-sym <"$BATS_FILE_TMPDIR/weights.vqs" | vqlm-pack -q --head 8 -o head.vqm
	blocks head.vqm "2 Q8_0, 61 Q4_0" 0 --acts-as drop --parts llm,vision,projector
	cmp <(vqlm-export --to gguf -o again --acts-as drop --parts llm,vision,projector -t 1 head.vqm >&2; cat again/*.gguf) <(cat out/*.gguf)
}

@test "the language model in llama.cpp has the probabilities of vqlm-infer" {
	need_numpy
	need_program node jq
	local lib=${NODE_LLAMA_CPP:-$ROOT/node_modules/node-llama-cpp} m
	[ -d "$lib" ] || skip "node-llama-cpp is not there; NODE_LLAMA_CPP names its folder"
	jq -c '[.[] | select(has("image") | not)][:20]' "$DEMO/mini-sqa/llava_val_CQM-A.json" >text.json
	jq -c '[.[] | "USER: " + .conversations[0].value + " ASSISTANT:"]' text.json >prompts.json
	# One whose tokenizer has merges and no scores.
	cp -r "$DEMO/mini-llava" merges && rm merges/tokenizer.model
	vqlm-calib -q -m merges -n 0 | vqlm-search -q --method rtn -w 4 -a 16 | vqlm-pack -q -o merges.vqm
	for m in "$(sym)" "$(asym)" "$(wide_sym)" merges.vqm "$(smooth)"; do
		rm -rf out
		vqlm-export --to gguf -o out "$m"
		node "$BATS_TEST_DIRNAME/llama.mjs" "$lib" out/model.gguf <prompts.json >llama.jsonl
		vqlm-infer -q -m "$m" -d text.json --logits logits.vqs >answers.jsonl
		run -0 /usr/bin/python3 "$BATS_TEST_DIRNAME/llama_logits.py" logits.vqs answers.jsonl llama.jsonl
		[ "$(jq .n <<<"$output")" = 20 ]
		# It quantizes inputs to 8 bits; a model of other weights is 3e-4 away.
		jq -e '.relative < 1e-5' <<<"$output"
		figure "llama.cpp, $(basename "$m"): $output"
	done
}

# key FILE KEY: the value of a key of a GGUF file as JSON.
key() {
	/usr/bin/python3 - "$BATS_TEST_DIRNAME" "$@" <<-'E'
		import json, sys
		sys.path.insert(0, sys.argv[1])
		import exported
		print(json.dumps(exported.gguf(sys.argv[2])[0][sys.argv[3]]))
	E
}

@test "SmolVLM as GGUF: model and mmproj with the packed model's integers, tied, untied and with a head of 8 bits" {
	need_numpy
	blocks "$(smol smol -w 4 -a 16 --w-sym)" "21 Q4_0" 0
	key out/model.gguf tokenizer.chat_template | jq -e 'contains("<end_of_utterance>")'
	blocks "$(smol smol-asym -w 4 -a 16)" "40 Q4_1" "*" --parts llm,vision,projector
	smolvlm untied untied.vqs --set tie_word_embeddings=false --type bfloat16 --set torch_dtype='"bfloat16"'
	vqlm-search -q --method rtn -w 4 -a 16 --w-sym <untied.vqs | vqlm-pack -q --head 8 -o untied.vqm
	blocks untied.vqm "2 Q8_0, 40 Q4_0" 0 --acts-as drop --parts llm,vision,projector
}

@test "SmolVLM in llama.cpp has the token ids and the probabilities of vqlm-infer" {
	need_numpy
	need_program node jq
	local lib=${NODE_LLAMA_CPP:-$ROOT/node_modules/node-llama-cpp} m i=0
	[ -d "$lib" ] || skip "node-llama-cpp is not there; NODE_LLAMA_CPP names its folder"
	jq -n '["What is it? Is it a 123?\nA. one\nB. two", "It\u0027s 2025: we\u0027ll see 12,345.67!", "  two  spaces\n\n\ttab \u0027S \u0027ll",
		"caf\u00e9 na\u00efve \u4f60\u597d \ud83d\ude80 \u00bd \u0663", "x"]' >words.json
	jq 'to_entries | map({id: "q\(.key)", conversations: [{from: "human", value: .value}, {from: "gpt", value: "A"}]})' words.json >text.json
	jq 'map("<|im_start|>User: " + . + "<end_of_utterance>\nAssistant:")' words.json >prompts.json
	vqlm-calib -q -m "$(dirname "$(smol smol -w 4 -a 16 --w-sym)")/smol" -d text.json -n 5 --influence-samples 0 --bits 8 -o c.vqs
	for m in "$(smol smol)" "$(smol smol-asym -w 4 -a 16)"; do
		rm -rf out
		vqlm-export --to gguf -o out "$m"
		node "$BATS_TEST_DIRNAME/llama.mjs" "$lib" out/model.gguf <prompts.json >llama.jsonl
		vqlm-infer -q -m "$m" -d text.json --max-tokens 1 --logits logits.vqs >answers.jsonl
		run -0 /usr/bin/python3 "$BATS_TEST_DIRNAME/llama_logits.py" logits.vqs answers.jsonl llama.jsonl
		# It quantizes inputs to 8 bits; the model in 8 bits is 2e-2 away.
		jq -e '.n == 5 and .relative < 1e-3' <<<"$output"
		figure "SmolVLM in llama.cpp, $(basename "$m"): $output"
	done
	for i in 0 1 2 3 4; do
		vqlm-ls --cat "input/$i/tokens" c.vqs | od -An -v -td4 | jq -cs . >ours
		sed -n "$((i + 1))p" llama.jsonl | jq -c .tokens | cmp - ours
	done
}

@test "SmolVLM in AWQ, GPTQ, compressed-tensors and NF4, as Idefics3's class has it" {
	need_numpy
	need_program jq
	local f m
	m=$(smol smol-32 -w 4 -a 16 --group 32)
	for f in awq "gptq --gptq-format v2" compressed-tensors; do
		# shellcheck disable=SC2086 # words
		same "$m" 21 --to $f
		jq -e '.architectures == ["Idefics3ForConditionalGeneration"] and (.quantization_config | tostring | contains("vision_model") and
			contains("connector") and contains("lm_head"))' out/config.json
	done
	same "$m" 40 --to compressed-tensors --parts llm,vision,projector
	same "$(smol smol-nf4 --method nf4 -w 4 -a 16)" 21 --to bnb
	same "$(smol smol-acts -w 8 -a 8 --w-sym)" 21 --to compressed-tensors --acts-as dynamic-int8
	# The keys of the checkpoint's own files have its values.
	for f in config.json preprocessor_config.json chat_template.json; do
		jq -n --slurpfile a "$BATS_FILE_TMPDIR/smol/$f" --slurpfile b "out/$f" -e '
			[$a[0] | paths(scalars)] - [["text_config", "model_type"], ["vision_config", "model_type"], ["torch_dtype"]]
			| map(. as $p | select(($a[0] | getpath($p)) as $v | ($b[0] | getpath($p)) as $w
				| ($v != $w) and (($v | type) != "number" or (($v - $w) | fabs) > 1e-9))) == []'
	done
	cmp out/tokenizer.json "$BATS_FILE_TMPDIR/smol/tokenizer.json"
	[ "$(jq .image_seq_len out/processor_config.json)" = 4 ]
	# What was exported is a checkpoint, but for its quantization.
	run -3 --separate-stderr vqlm-calib -m out -n 0
	[[ "$stderr" == *"'quantization_config': the checkpoint is quantized already"* ]]
}

# backbone NAME FAMILY FLAGS... [-- OPTIONS...]: a packed model of another decoder, searched with FLAGS and made with OPTIONS.
backbone() {
	local name=$1 family=$2 flags=()
	shift 2
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		flags+=("$1")
		shift
	done
	[ -e "$name.vqs" ] || /usr/bin/python3 "$BATS_TEST_DIRNAME/backbone.py" make "$family" "$name" "${@:2}"
	[ -e "$name.vqs" ] || vqlm-calib -q -m "$name" -n 0 -o "$name.vqs"
	vqlm-search -q --method rtn -a 16 "${flags[@]}" <"$name.vqs" | vqlm-pack -q -o "$name.vqm"
}

@test "StableLM, Phi and Qwen as GGUF: the packed model's integers, and in llama.cpp the probabilities of vqlm-infer" {
	need_numpy
	need_program node jq
	local lib=${NODE_LLAMA_CPP:-$ROOT/node_modules/node-llama-cpp} f arch
	[ -d "$lib" ] || skip "node-llama-cpp is not there; NODE_LLAMA_CPP names its folder"
	jq -c '[.[] | select(has("image") | not)][:6]' "$DEMO/mini-sqa/llava_val_CQM-A.json" >text.json
	jq -c '[.[] | .conversations[0].value]' text.json >prompts.json
	for f in stablelm phi qwen; do
		arch=$(case $f in phi) echo phi2 ;; qwen) echo qwen2 ;; *) echo $f ;; esac)
		backbone $f $f -w 4 --w-sym
		blocks $f.vqm "$([ $f = phi ] && echo 18 || echo 21) Q4_0" 0
		[ "$(key out/model.gguf general.architecture)" = "\"$arch\"" ]
		node "$BATS_TEST_DIRNAME/llama.mjs" "$lib" out/model.gguf <prompts.json >llama.jsonl
		vqlm-infer -q -m $f.vqm -d text.json --max-tokens 1 --logits logits.vqs >answers.jsonl
		run -0 /usr/bin/python3 "$BATS_TEST_DIRNAME/llama_logits.py" logits.vqs answers.jsonl llama.jsonl
		# It quantizes inputs to 8 bits; full precision is 3e-3 away and more.
		jq -e '.n == 6 and .relative < 2e-4' <<<"$output"
		figure "$f in llama.cpp: $output"
	done
}

@test "StableLM, Phi and Qwen in AWQ, GPTQ, compressed-tensors and NF4, alone and behind a tower" {
	need_numpy
	need_program jq
	local f n format
	for f in stablelm phi qwen; do
		n=$([ $f = phi ] && echo 18 || echo 21)
		backbone $f $f -w 4 --group 32
		for format in awq "gptq --gptq-format v2" compressed-tensors; do
			# shellcheck disable=SC2086 # words
			same $f.vqm "$n" --to $format
		done
		case $f in
			stablelm) jq -e '.architectures == ["StableLmForCausalLM"] and .partial_rotary_factor == 0.25 and .use_qkv_bias' ;;
			phi) jq -e '.architectures == ["PhiForCausalLM"] and .partial_rotary_factor == 0.4' ;;
			qwen) jq -e '.architectures == ["Qwen2ForCausalLM"] and .head_dim == 32' ;;
		esac <out/config.json
	done
	backbone stablelm stablelm --method nf4 -w 4
	same stablelm.vqm 21 --to bnb
	backbone flat phi -w 4 --group 32 -- --flat inside
	same flat.vqm 18 --to awq
	jq -e '.model_type == "llava" and .text_config.model_type == "phi" and .image_token_index == 1022' out/config.json
	blocks flat.vqm "18 Q4_1" "*"
	# Code of the authors' own is not in the folder; tokenizer.json is.
	jq '.auto_map = {"AutoTokenizer": ["x.X", null]} | .tokenizer_class = "QWenTokenizer"' qwen/tokenizer_config.json >c
	mv c qwen/tokenizer_config.json
	rm qwen.vqs
	vqlm-calib -q -m qwen -n 0 | vqlm-search -q --method rtn -w 4 -a 16 | vqlm-pack -q -o own.vqm
	rm -rf out
	vqlm-export -q --to compressed-tensors -o out own.vqm
	jq -e '.tokenizer_class == "PreTrainedTokenizerFast" and (has("auto_map") | not) and .bos_token == "<s>"' out/tokenizer_config.json
}

@test "what no class or engine has of these decoders is refused (3) with the reason" {
	need_numpy
	no() {
		run -3 --separate-stderr vqlm-export -o out --to "$1" "$2"
		[[ "$stderr" == "vqlm-export: $2: "$3 ]] || { echo "$stderr"; false; }
		[ ! -e out ]
	}
	backbone bias qwen -w 4 -- --set no_bias=false
	no awq bias.vqm "the decoder has biases but of q, k and v, which Qwen 2 has not (the first Qwen goes out as that); vqlm-infer runs the packed model"
	backbone part qwen -w 4 -- --set rotary_pct=0.5
	no gguf part.vqm "the decoder has heads that turn in part, which Qwen 2 has not"*
	backbone tied stablelm -w 4 -- --set tie_word_embeddings=true
	no gguf tied.vqm "gguf: engines have no place for a head that is the embedding in decoders of this kind; want another --to"
	same tied.vqm 21 --to compressed-tensors
	# Phi's halves read one norm, which takes the scales of both or none.
	/usr/bin/python3 "$BATS_TEST_DIRNAME/backbone.py" make phi phi
	jq -c '[.[] | select(has("image") | not)][:4]' "$DEMO/mini-sqa/llava_val_CQM-A.json" >text.json
	vqlm-calib -q -m phi -n 4 -d text.json | vqlm-search -q --method rtn -w 4 -a 16 --smooth .5 --smooth-at norms | vqlm-pack -q -o smooth.vqm
	rm -rf out
	no awq smooth.vqm "'decoder.layers.0.q_proj.weight' and 'decoder.layers.0.up_proj.weight' share an input, but not the scales"*
}

@test "scales of inputs are folded into the norms before them, and what no norm can take is refused (3)" {
	need_numpy
	local m
	m=$(smooth)
	same "$m" 35 --to awq
	[[ "$(vqlm-export --verify --force --to awq -o out "$m")" == *"verify: 26 weights of norms hold the scales of the inputs behind them"* ]]
	jq -e '.tensors["decoder.layers.1.k_proj.weight"].folded == {block: 0, from: "decoder.layers.1.q_proj", kind: "scale"}' out/vqlm.json
	jq -e '.tensors["decoder.layers.1.o_proj.weight"] | has("folded") | not' out/vqlm.json
	same "$m" 35 --to gptq
	same "$m" 59 --to awq --parts llm,vision
	rm -rf out
	run -0 vqlm-export --verify --to gguf -o out "$m"
	run -0 reference "$m" out
	[[ "$output" == *"35 Q4_0, "*", largest difference 0" ]]
	vqlm-search -q --method rtn -w 4 -a 16 --smooth .5 <"$BATS_FILE_TMPDIR/outlier.vqs" | vqlm-pack -q -o all.vqm
	rm -rf out
	run -3 --separate-stderr vqlm-export --to awq -o out all.vqm
	[[ "$stderr" == *"'vision.layers.0.o_proj.weight': its input goes through scales (--smooth), and no norm comes before it that could take them; search again with vqlm-search --smooth-at norms" ]]
	[ ! -e out ]
	vqlm-search -q --method rtn -w 4 -a 16 --smooth search --rotate hadamard --smooth-at norms <"$BATS_FILE_TMPDIR/outlier.vqs" |
		vqlm-pack -q -o turned.vqm
	run -3 --separate-stderr vqlm-export --to awq -o out turned.vqm
	[[ "$stderr" == *"its input goes through a transform (hadamard), which awq cannot say; search again with vqlm-search --rotate none --smooth off" ]]
	# The scales are worth having: full precision is nearer than without.
	vqlm-infer -q -m "$DEMO/mini-llava-outlier" -d "$DEMO/mini-sqa/llava_val_CQM-A.json" --limit 40 --logits fp.vqs >fp.jsonl
	vqlm-search -q --method rtn -w 4 -a 4 <"$BATS_FILE_TMPDIR/outlier.vqs" | vqlm-pack -q -o plain4.vqm
	vqlm-search -q --method rtn -w 4 -a 4 --smooth .5 --smooth-at norms <"$BATS_FILE_TMPDIR/outlier.vqs" | vqlm-pack -q -o smooth4.vqm
	kl() {
		vqlm-infer -q -m "$1" -d "$DEMO/mini-sqa/llava_val_CQM-A.json" --limit 40 --logits l.vqs >l.jsonl
		vqlm-eval -q -f json --logits l.vqs --baseline-logits fp.vqs | jq .logits.kl_mean
	}
	figure "KL from full precision at W4A4: $(kl plain4.vqm), behind norms smoothed $(kl smooth4.vqm)"
	[ "$(jq -n "$(kl smooth4.vqm) < $(kl plain4.vqm)")" = true ]
}

@test "large models come in files of bounded size with an index, and a head of 8 bits as float16" {
	need_numpy
	vqlm-search -q --method rtn -w 4 -a 16 <"$BATS_FILE_TMPDIR/weights.vqs" | vqlm-pack -q --head 8 -o head.vqm
	same head.vqm 35 --to awq --acts-as drop --shard-size 0.001
	n=$(find out -name 'model-*.safetensors' | wc -l)
	[ "$n" -gt 3 ]
	[ "$(jq -r '.weight_map[]' out/model.safetensors.index.json | sort -u | wc -l)" = "$n" ]
	[ ! -e out/model.safetensors ]
}

@test "the folder is whole for its readers, and says what the format cannot" {
	need_program jq
	run -0 vqlm-export --to awq --acts-as drop -o out "$(acts)"
	[ "$output" = "$(printf '%s\n' "awq: vision encoder: 24 dequantized to float16" \
		"awq: projector: 2 dequantized to float16" "awq: decoder layers: 35 as integers")" ]
	for f in out/*.json; do jq -e . "$f" >/dev/null; done
	cmp out/tokenizer.json "$DEMO/mini-llava/tokenizer.json"
	cmp out/tokenizer_config.json "$DEMO/mini-llava/tokenizer_config.json"
	# The keys of the checkpoint's own configuration have its values, but for the layers behind the feature layer.
	jq -n --slurpfile a "$DEMO/mini-llava/config.json" --slurpfile b out/config.json -e '
		($b[0] | [paths(scalars)] - [["none"]]) as $p
		| [$p[] | . as $q | select($q[0] != "quantization_config" and ($a[0] | getpath($q)) != null)
			| select(($a[0] | getpath($q)) != ($b[0] | getpath($q)))
			| select((($a[0] | getpath($q)) | type) != "number" or
				((($a[0] | getpath($q)) - ($b[0] | getpath($q))) | fabs) > 1e-9) | join(".")] | sort
		== ["vision_config.num_hidden_layers", "vision_feature_layer"]'
	[ "$(jq -c '.quantization_config.modules_to_not_convert' out/config.json)" = '["lm_head","vision_tower","multi_modal_projector"]' ]
	[ "$(jq -c '.tensors["decoder.layers.0.q_proj.weight"] | [.as, .act.bits]' out/vqlm.json)" = '["codes",8]' ]
	[ "$(jq -r '.history[-1].tool' out/vqlm.json)" = vqlm-pack ]
	[ "$(head -2 out/README.md)" = "$(printf -- '---\nbase_model: "mini-llava"')" ]
	grep -q 'vqlm-search .*"bits":4' out/README.md
}

@test "the same model gives the same bytes, whatever the number of threads" {
	vqlm-export -q --to gptq --gptq-format v2 -t 1 -o a "$(asym)"
	vqlm-export -q --to gptq --gptq-format v2 -t 2 -o b "$(asym)"
	diff -r a b
}

@test "what a format cannot hold is refused (3) with the tensor and the remedy, and no folder is left" {
	local m
	refused() {
		run -3 --separate-stderr vqlm-export -o out "${@:3}" "$1"
		[[ "$stderr" == "vqlm-export: "*"'decoder.layers."*"'"*"$2"* || "$stderr" == *"'vision.layers.0.q_proj.weight'"*"$2"* ]] || { echo "$stderr"; false; }
		[ "${#stderr_lines[@]}" = 1 ]
		[ -z "$(find . -name 'out*')" ]
	}
	refused "$(nf4)" "is NF4; want --to bnb" --to awq
	refused "$(nf4)" "is NF4; want --to bnb" --to compressed-tensors
	refused "$(asym)" "want another --to, or vqlm-search --method nf4" --to bnb
	refused "$(wide)" "has 8 bits, AWQ has 4" --to awq
	refused "$(model five -w 5 -a 8)" "has 5 bits" --to gptq --acts-as drop
	refused "$(nf4)" "is in NF codes, which GGUF lacks" --to gguf
	refused "$(wide)" "want vqlm-search --w-sym" --to gguf
	refused "$(acts)" "--acts-as drop" --to awq
	refused "$(acts)" "--acts-as dynamic-int8" --to compressed-tensors
	refused "$(acts)" "has no stored range" --to compressed-tensors --acts-as static-int8
	m=$(model turned -w 4 -a 16 --rotate hadamard)
	refused "$m" "vqlm-search --rotate none --smooth off" --to awq
	m=$(model zeros -w 2 -a 16 --group 32)
	refused "$m" "has a zero point of 0, which the first GPTQ format cannot hold; take --gptq-format v2" --to gptq
}

# effect MODEL FLAGS...: its export's measure on prompts.json, and the packed model's logits, keys and values whole as there.
effect() {
	rm -rf out
	vqlm-export -q -d prompts.json -n 40 -o out "${@:2}" "$1" >said
	jq .effect out/vqlm.json >effect.json
	vqlm-infer -q --kv 32 -m "$1" -d prompts.json --logits packed.vqs >/dev/null
}

# near MOST ARGS...: effect.json has the figures of effect.py ARGS, divergences but for a part of MOST.
near() {
	run -0 --separate-stderr /usr/bin/python3 "$BATS_TEST_DIRNAME/effect.py" "${@:2}"
	figure "$(jq -c '[.kl_mean, .kl_max]' effect.json) wanted $output"
	jq -e --argjson want "$output" --argjson most "$1" '
		def near(a; b): ((a - b) | fabs) <= $most * b;
		.n == $want.n and .same_top == $want.same_top and near(.kl_mean; $want.kl_mean) and near(.kl_max; $want.kl_max)' effect.json
}

prompts() {
	ln -s "$DEMO/mini-sqa/images" images
	jq -c '.[:40]' "$DEMO/mini-sqa/llava_val_CQM-A.json" >prompts.json
}

@test "what --acts-as changes is measured: by numpy from the folder alone, and by vqlm-infer of the same grids" {
	need_numpy
	need_program jq
	prompts
	local all="--parts llm,vision,projector" four m
	four=$(model four -w 4 -a 4 --w-sym)
	effect "$four" --to awq --acts-as drop $all
	near 1e-2 out packed.vqs prompts.json
	jq -e --arg sha "$(sha256sum prompts.json | cut -d' ' -f1)" '.linears == 61 and .int8 == 0 and .n == 40 and .seed == 0
		and .data_sha256 == $sha and .engine == null and .kl_max > 1e-3' effect.json
	[[ "$(<said)" == "effect: the inputs of 61 matrices change, of 0 to 8 bits and of 61 to floating point
effect: 40 prompts, seed 0, of data with SHA-256 $(sha256sum prompts.json | cut -d' ' -f1)
effect: KL divergence mean "* ]]
	grep -q "^average, .* at most; 100 % have the same top token\.$" <(sed 's/^most; /average, x at most; /' out/README.md)
	# GGUF, read back with inputs in floating point: the path that stands for an engine with its own.
	effect "$four" --to gguf --acts-as drop $all
	vqlm-infer -q --kv 32 --float32 -m out/model.gguf -d prompts.json --logits gguf.vqs >/dev/null
	near 3e-2 gguf.vqs packed.vqs
	[[ "$(jq -r .engine effect.json)" == "the engine quantizes inputs to 8 bits itself, which is not in these figures: "* ]]
	# A head of 8 bits; scales of inputs in norms, a model whose likeliest tokens change too.
	vqlm-search -q --method rtn -w 4 -a 4 --w-sym <"$BATS_FILE_TMPDIR/weights.vqs" | vqlm-pack -q --head 8 -o head.vqm
	smooth >/dev/null
	vqlm-search -q --method rtn -w 4 -a 4 --w-sym --smooth .5 --smooth-at norms <"$BATS_FILE_TMPDIR/outlier.vqs" |
		vqlm-pack -q -o smooth4.vqm
	for m in head smooth4; do
		effect $m.vqm --to gguf --acts-as drop $all
		vqlm-infer -q --kv 32 --float32 -m out/model.gguf -d prompts.json --logits gguf.vqs >/dev/null
		near 3e-2 gguf.vqs packed.vqs
	done
	jq -e '.same_top < 1' effect.json
	# Rounding moves codes of 8 bits here and there: numpy is near, a model of those very grids the same.
	effect "$(model four-asym -w 4 -a 4)" --to compressed-tensors --acts-as dynamic-int8
	near .35 out packed.vqs prompts.json
	jq -e '.linears == 61 and .int8 == 35 and (.engine | test("127\\.5"))' effect.json
	effect "$four" --to compressed-tensors --acts-as dynamic-int8 $all
	vqlm-infer -q --kv 32 -m "$(model token -w 4 -a 8 --w-sym --a-sym --acts token)" -d prompts.json --logits token.vqs >/dev/null
	near 1e-2 token.vqs packed.vqs
	vqlm-calib -q -m "$DEMO/mini-llava" -n 8 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" -o s.vqs
	vqlm-search -q --method rtn -w 4 -a 4 --acts static <s.vqs | vqlm-pack -q -o static.vqm
	effect static.vqm --to compressed-tensors --acts-as static-int8 $all
	near .35 out packed.vqs prompts.json
}

@test "where inputs stay as they are the measure is 0, and without data there is none" {
	need_program jq
	prompts
	effect "$(wide)" --to compressed-tensors
	jq -e '[.linears, .int8, .kl_mean, .kl_max, .same_top] == [0, 0, 0, 0, 1]' effect.json
	[[ "$(<said)" == "effect: the inputs of 0 matrices change, "*"KL divergence mean 0, largest 0 nats; same top token 100 %"* ]]
	! grep -q "quantizes the inputs" out/README.md
	# One stored range of 8 bits is what the folder says.
	vqlm-calib -q -m "$DEMO/mini-llava" -n 8 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" -o s.vqs
	vqlm-search -q --method rtn -w 8 -a 8 --acts static --act-group 0 <s.vqs | vqlm-pack -q -o one.vqm
	effect one.vqm --to compressed-tensors --acts-as static-int8 --parts llm,vision,projector
	jq -e '[.linears, .kl_max] == [0, 0]' effect.json
	rm -rf out
	run -0 vqlm-export --to awq --acts-as drop -o out "$(acts)"
	[[ "$output" != *"effect"* ]]
	jq -e 'has("effect") and .effect == null' out/vqlm.json
	grep -q "What that changes was not measured\.$" out/README.md
}

@test "the measure depends on the seed and not on threads, and bad data is refused" {
	prompts
	local m
	m=$(acts)
	vqlm-export -q --to awq --acts-as drop -d prompts.json -n 5 -t 1 -o a "$m" >a.txt
	vqlm-export -q --to awq --acts-as drop -d prompts.json -n 5 -t 3 -o b "$m" >b.txt
	diff -r a b
	cmp a.txt b.txt
	vqlm-export -q --to awq --acts-as drop -d prompts.json -n 5 -S 1 -o c "$m" >c.txt
	[ "$(jq -c '[.effect.seed, .effect.n]' c/vqlm.json)" = "[1,5]" ]
	[ "$(jq .effect.kl_mean a/vqlm.json)" != "$(jq .effect.kl_mean c/vqlm.json)" ]
	bad() {
		run "-$1" --separate-stderr vqlm-export --to awq --acts-as drop -o out "${@:3}" "$m"
		[[ "$stderr" == "vqlm-export: $2"* ]] || { echo "$stderr"; false; }
		[ "${#stderr_lines[@]}" = 1 ]
		[ -z "$(find . -name 'out*')" ]
	}
	bad 4 "absent.json: cannot open" -d absent.json
	bad 3 "prompts.json: want 41 samples (-n), the file holds 40" -d prompts.json -n 41
	echo '[{"id": "1"' >cut.json
	bad 3 "cut.json" -d cut.json -n 1
	echo '[{"id": "1", "image": "none.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"}]}]' >none.json
	bad 3 "none.json: sample '1': " -d none.json -n 1
	bad 2 "--images is for the pictures of -d DATA" --images images
	bad 2 "--samples wants an integer of 1" -d prompts.json -n 0
}

@test "a decoder with experts is refused (3), as no format says them" {
	need_numpy
	/usr/bin/python3 "$BATS_TEST_DIRNAME/moe_model.py" "$DEMO/mini-llava" moe
	vqlm-calib -q -m moe -n 0 | vqlm-search -q --method rtn -w 4 -a 16 | vqlm-pack -q -o moe.vqm
	for f in awq gguf compressed-tensors; do
		run -3 --separate-stderr vqlm-export --to "$f" -o out moe.vqm
		[[ "$stderr" == "vqlm-export: moe.vqm: a decoder with experts (layer 0 has 4) cannot be exported: no engine reads MoE-LLaVA's; vqlm-infer runs the packed model" ]]
		[ ! -e out ]
	done
}

@test "matrices that do not fill words or groups are refused (3) by name" {
	# Decoders of 36 and 48 inputs, which no demo has.
	python3 "$BATS_TEST_DIRNAME/odd_model.py" odd 36
	vqlm-calib -q -m odd -n 0 | vqlm-search -q --method rtn -w 4 -a 16 --group 0 | vqlm-pack -q -o odd.vqm
	run -3 --separate-stderr vqlm-export --to awq -o out odd.vqm
	[[ "$stderr" == "vqlm-export: odd.vqm: 'decoder.layers.0.q_proj.weight': is [36, 36]; awq wants sides that are multiples of 8"* ]]
	python3 "$BATS_TEST_DIRNAME/odd_model.py" even 48
	vqlm-calib -q -m even -n 0 | vqlm-search -q --method rtn -w 4 -a 16 --group 0 | vqlm-pack -q -o even.vqm
	run -3 --separate-stderr vqlm-export --to awq -o out even.vqm
	[[ "$stderr" == *"'decoder.layers.0.q_proj.weight': has 48 inputs in groups of 48, which no groups of 32, 64 or 128 cut evenly"* ]]
	run -3 --separate-stderr vqlm-export --to gguf -o out even.vqm
	[[ "$stderr" == *"has 48 inputs in groups of 48; GGUF wants multiples of 32"* ]]
	run -3 --separate-stderr vqlm-export --to gptq -o out even.vqm
	[[ "$stderr" == *"is [48, 48]; gptq wants sides that are multiples of 32"* ]]
	run -0 vqlm-export --to compressed-tensors --verify -o out even.vqm
	[[ "$output" == *"largest difference 0, promised 0"* ]]
}

@test "a damaged or cut model is refused (3)" {
	local m size n
	m=$(asym)
	size=$(stat -c %s "$m")
	for n in 0 100 5000 $((size / 2)) $((size - 1)); do
		head -c "$n" "$m" >cut.vqm
		run -3 --separate-stderr vqlm-export --to awq -o out cut.vqm
		[[ "$stderr" == "vqlm-export: cut.vqm: "* ]]
	done
	cp "$m" bad.vqm
	printf 'xxxx' | dd of=bad.vqm bs=1 seek=$((size / 2)) conv=notrunc status=none
	run -3 --separate-stderr vqlm-export --to awq -o out bad.vqm
	[[ "$stderr" == *"is damaged (SHA-256 differs)"* ]]
	[ ! -e out ]
}

@test "a folder that is there is refused (4); --force replaces an earlier export and nothing else" {
	local m
	m=$(asym)
	mkdir out
	run -4 --separate-stderr vqlm-export --to awq -o out "$m"
	[ "$stderr" = "vqlm-export: out: is there already; --force replaces it" ]
	vqlm-export --to awq --force -o out/ "$m"
	vqlm-export --to gptq --gptq-format v2 --force -o out "$m"
	[ -e out/quantize_config.json ]
	mkdir letters
	echo dear >letters/mother
	run -4 --separate-stderr vqlm-export --to awq --force -o letters "$m"
	[[ "$stderr" == *"letters: holds files but no 'vqlm.json', so it is none of ours; will not replace it" ]]
	[ "$(cat letters/mother)" = dear ]
	mkdir out/inner
	run -4 --separate-stderr vqlm-export --to awq --force -o out "$m"
	[[ "$stderr" == *"holds 'inner', which is no plain file"* ]]
	echo file >plain
	run -4 --separate-stderr vqlm-export --to awq --force -o plain "$m"
	[[ "$stderr" == *"plain: want a folder to replace"* ]]
	[ -z "$(find . -name '*.part-*')" ]
}

@test "no room and no way to write are failures of the system (4) that leave nothing" {
	local m
	m=$(asym)
	run -4 --separate-stderr vqlm-export --to awq -o absent/out "$m"
	[[ "$stderr" == "vqlm-export: absent/out: cannot create a folder: "* ]]
	run -4 --separate-stderr vqlm-export --to awq -o /proc/out "$m"
	run -4 --separate-stderr vqlm-export --to awq -o out absent.vqm
	# A file may have 1 MiB and no more.
	run --separate-stderr bash -c "trap '' XFSZ; ulimit -f 1024; vqlm-export --to awq -o out '$m'"
	[ "$status" -eq 4 ]
	[[ "$stderr" == *"model.safetensors: cannot write: "* ]]
	run -4 --separate-stderr bash -c "vqlm-export --to awq -o out '$m' >/dev/full"
	[ -z "$(find . -name 'out*')" ]
}

@test "a signal ends it with 75 and nothing is left" {
	local m status seen=0 i
	m=$(asym)
	# Wherever it is when the signal comes; 143 before it listens, 0 after the work.
	for i in {1..60}; do
		vqlm-export -q --to awq --verify -o out "$m" 2>err >/dev/null &
		sleep "0.0$((i % 10))"
		kill -TERM $! 2>/dev/null || true
		wait $! && status=0 || status=$?
		[[ "$status" = 75 || "$status" = 143 || "$status" = 0 ]]
		[ "$status" = 143 ] || [ -z "$(find . -name 'out.part*')" ]
		[ "$status" = 0 ] || [ ! -e out ]
		[ "$status" != 75 ] || { seen=1 && [ "$(cat err)" = "vqlm-export: out: stopped by a signal; nothing is left, run it again" ]; }
		[ "$seen" = 0 ] || break
		rm -rf out*
	done
	[ "$seen" = 1 ]
}

@test "a wrong command line is refused (2) with what is wanted" {
	wrong() {
		run -2 --separate-stderr vqlm-export "${@:2}"
		[[ "$stderr" == "vqlm-export: "*"$1"* ]] || { echo "$stderr"; false; }
	}
	wrong "want --to FORMAT" -o out m.vqm
	wrong "--to wants one of awq|gptq" --to tar -o out m.vqm
	wrong "want -o DIR" --to awq m.vqm
	wrong "want -o DIR" --to awq -o - m.vqm
	wrong "want one packed model, got 0" --to awq -o out
	wrong "want one packed model, got 2" --to awq -o out a.vqm b.vqm
	wrong "--gptq-format is for --to gptq" --to awq --gptq-format v2 -o out m.vqm
	wrong "--gptq-format wants one of v1|v2" --to gptq --gptq-format v3 -o out m.vqm
	wrong "are for --to compressed-tensors" --to awq --acts-as dynamic-int8 -o out m.vqm
	wrong "--acts-as wants one of" --to awq --acts-as keep -o out m.vqm
	wrong "--parts wants words of" --to awq --parts head -o out m.vqm
	wrong "--shard-size wants a number" --to awq --shard-size 0 -o out m.vqm
}
