#!/usr/bin/env bats
# Decoders other than LLaMA's: StableLM, Phi and the first Qwen, as MoE-LLaVA has them.
load common

PY=/usr/bin/python3

# make FAMILY DIR [options]: a small checkpoint with random weights.
make_model() {
	need_program "$PY"
	"$PY" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))' || skip "python3-torch is not installed"
	"$PY" "$BATS_TEST_DIRNAME/backbone.py" make "$@"
}

torch() { "$PY" "$BATS_TEST_DIRNAME/backbone.py" "$@"; }

# The first block that is left of a pruned model.
kept() { vqlm-ls --json "$1" | jq 'select(.header) | .header.history[-1].params.kept[0]'; }

# Questions without pictures: t.json.
questions() {
	jq -c '[.[] | select(has("image") | not)][:'"$1"']' "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" >t.json
}

# Questions with pictures and without: t.json.
pictures() {
	jq -c '[.[] | select(has("image"))][:'"$1"'] + [.[] | select(has("image") | not)][:1]' \
		"$DEMO/mini-sqa/llava_train_calib_CQM-A.json" >t.json
	images="--images $DEMO/mini-sqa"
}

# samples MODEL N: the prompts of t.json's N questions as I.tokens, their pictures as I.pixels and their ids in MODEL.q.
samples() {
	local i q=$1.q
	mkdir "$q"
	vqlm-calib -q -m "$1" -d t.json $images -n "$2" --influence-samples 0 --bits 8 -o "$q/c.vqs"
	for ((i = 0; i < $2; i++)); do
		vqlm-ls --cat "input/$i/tokens" "$q/c.vqs" >"$q/$i.tokens"
		vqlm-ls --cat "input/$i/pixels" "$q/c.vqs" >"$q/$i.pixels" 2>/dev/null || rm "$q/$i.pixels"
	done
	vqlm-ls --cat calib "$q/c.vqs" | jq -r '.ids[]' >"$q/ids"
}

# ours MODEL N: the last logits of N prompts, computed together, as MODEL.q/I.got.
ours() {
	local i q=$1.q
	samples "$1" "$2"
	vqlm-infer -q -m "$1" -d t.json $images --float32 --kv 32 --logits l.vqs --max-tokens 1 >/dev/null
	for ((i = 0; i < $2; i++)); do
		vqlm-ls --cat "logits/$(sed -n "$((i + 1))p" "$q/ids")" l.vqs >"$q/$i.got"
	done
}

# answers MODEL COUNT: tokens for t.json's questions in the order of MODEL.q/ids, one after the other with a cache.
answers() {
	local id
	vqlm-infer -q -m "$1" -d t.json --float32 --kv 32 --max-tokens "$2" >a.jsonl
	while read -r id; do
		jq -c --arg id "$id" 'select(.question_id == $id) | .tokens' a.jsonl
	done <"$1.q/ids"
}

# beside N COUNT MODEL...: logits of N prompts of each, and COUNT tokens of answers, are PyTorch's, which has no cache.  It is
# started once: that takes longer than such models.
beside() {
	local n=$1 count=$2 m
	shift 2
	for m; do
		ours "$m" "$n"
	done
	torch beside "$count" "$@" >off
	figure "logits off by $(tr '\n' ' ' <off)"
	[ "$(wc -l <off)" -eq $# ]
	awk -v n="$n" '!($2 == n && $3 < 1e-4) { bad = 1 } END { exit bad }' off
	for m; do
		[ "$count" -eq 0 ] || answers "$m" "$count" | diff "$m.q/answers" -
	done
}

@test "StableLM: logits and answers are PyTorch's" {
	questions 5
	make_model stablelm m
	make_model stablelm_epoch old
	# Its other switches: no bias, one norm for both halves, a whole head that turns.
	make_model stablelm other --set use_qkv_bias=false --set use_parallel_residual=true --set partial_rotary_factor=1.0
	make_model stablelm later --drop rope_theta --drop partial_rotary_factor --set tie_word_embeddings=true \
		--set 'rope_parameters={"rope_type":"default","rope_theta":5000,"partial_rotary_factor":0.5}'
	beside 5 12 m old other later
}

@test "Phi: logits and answers are PyTorch's" {
	questions 5
	make_model phi m
	beside 5 12 m
}

@test "Phi as Microsoft's own code had it: the same model, and what is wrong is said (3)" {
	local d
	make_model phi m
	"$PY" "$BATS_TEST_DIRNAME/backbone.py" msft m old
	for d in m old; do
		vqlm-calib -q -n 0 -m $d -o $d.vqs
		vqlm-ls --json $d.vqs | jq -c 'select(.kind == "TENSOR") | [.name, .dims, .xxh64]' >$d.tensors
		vqlm-ls --cat config $d.vqs | jq -S . >$d.config
	done
	[ "$(wc -l <m.tensors)" -gt 40 ]
	cmp m.tensors old.tensors
	cmp m.config old.config
	with old '.rotary_dim = 15' "'rotary_dim': want an even number, got 15"
	with old '.n_head = 3' "want a hidden_size that is a multiple of num_attention_heads, got 160 and 3"
	with old '.n_inner = null' "tensor 'transformer.h.0.mlp.fc1.weight': want shape [640, 160] by config.json, got [320, 160]"
	with old '.n_head_kv = 2' "tensor 'transformer.h.0.mixer.Wqkv.weight': want shape [320, 160] by config.json, got [480, 160]"
}

@test "Qwen: logits and answers are PyTorch's" {
	questions 5
	make_model qwen m
	make_model qwen other --set no_bias=false --set rotary_pct=0.5 --set rotary_emb_base=5000
	beside 5 12 m other
}

@test "by every method through the pipe, the same bytes by threads" {
	local family method
	questions 6
	for family in stablelm phi qwen; do
		make_model $family $family
		vqlm-calib -q -m $family -n 6 -d t.json --error-stats --checkpoint 1 | vqlm-entropy -q >plan.vqs
		for method in rtn layerwise qvlm gptq awq best nf4; do
			vqlm-search -q -t 1 --rows 256 --method $method -w 4 -a 8 <plan.vqs >1.vqs
			vqlm-search -q -t 3 --rows 256 --method $method -w 4 -a 8 <plan.vqs >3.vqs
			cmp 1.vqs 3.vqs
			vqlm-pack -q -o m.vqm <1.vqs
			[ "$(vqlm-infer -q -m m.vqm -d t.json | grep -c question_id)" -eq 6 ]
		done
		# In 8 bits what folds, transforms and stages leave is near to full precision.
		vqlm-infer -q -m $family -d t.json --float32 --logits whole.vqs --max-tokens 1 >/dev/null
		for method in awq best gptq; do
			vqlm-search -q --rows 256 --method $method -w 8 -a 16 --group 32 <plan.vqs | vqlm-pack -q -o m.vqm
			vqlm-infer -q -m m.vqm -d t.json --float32 --logits l.vqs --max-tokens 1 >/dev/null
			run -0 "$PY" "$BATS_TEST_DIRNAME/logits.py" whole.vqs l.vqs
			jq -e '.n == 6 and .relative < 1e-3' <<<"$output" || { echo "$family $method $output"; false; }
		done
		vqlm-export -q --verify --force --to gptq --gptq-format v2 -o out m.vqm
	done
}

# Three families as dense models behind a tower, and sparse.
@test "MoE-LLaVA's layout: tower inside and beside, pictures, experts; logits are PyTorch's" {
	local family kind models=()
	pictures 3
	for family in stablelm_epoch phi qwen; do
		kind=${family%_*}
		models+=("$kind" "moe_$kind")
		make_model $family $kind --flat inside
		make_model $family moe_$kind --flat clip-$kind --experts 0,2
		sed -i "s|openai/clip-mini|openai/clip-$kind|" moe_$kind/config.json
	done
	beside 4 0 "${models[@]}"
	for kind in stablelm phi qwen; do
		vqlm-ls --cat config $kind.q/c.vqs |
			jq -e '.arch == "llava_'$kind'" and .chat == "'$kind'" and .eos == 2 and .image_token == 1024'
		mv clip-$kind elsewhere
		run -3 --separate-stderr vqlm-calib -m moe_$kind -n 0
		[[ "$stderr" == *"'mm_image_tower': no folder of 'openai/clip-$kind' beside the model"*"--vision DIR" ]]
		vqlm-calib -q -m moe_$kind -n 0 --vision elsewhere >/dev/null
		rm -r elsewhere
	done
}

@test "vqlm-prune's perplexities and Taylor scores are PyTorch's, parallel layers and fused rows too" {
	local family id
	questions 5
	for family in stablelm phi qwen; do
		make_model $family $family
		samples $family 5
		while read -r id; do
			jq -r --arg id "$id" '.[] | select(.id == $id) | .conversations[1].value' t.json
		done <$family.q/ids >$family.q/letters
		vqlm-calib -q -m $family -n 0 -o whole.vqs
		vqlm-prune -q -m $family -d t.json --samples 5 --no-keep --table >$family.q/ppl.csv
		vqlm-prune -q -m $family -d t.json --samples 5 --criterion taylor --taylor-batch 5 --table >$family.q/taylor.csv
		vqlm-prune -q -m $family -d t.json --samples 5 --no-keep -n 1 -o p.vqs
		vqlm-calib -q -m p.vqs -n 5 -d t.json | vqlm-entropy -q | vqlm-search -q -w 4 -a 8 | vqlm-pack -q -o p.vqm
		[ "$(vqlm-infer -q -m p.vqm -d t.json | grep -c question_id)" -eq 5 ]
		vqlm-prune -q -m $family -d t.json --samples 5 --no-keep -n 1 --heal lora --heal-samples 5 --lora-steps 2 -o h.vqs
		# Healing moves weights, and leaves biases as they were.
		for w in weight bias; do
			vqlm-ls --cat "decoder.layers.0.q_proj.$w" h.vqs >healed.$w
			vqlm-ls --cat "decoder.layers.$(kept h.vqs).q_proj.$w" whole.vqs >whole.$w
		done
		! cmp -s healed.weight whole.weight
		cmp healed.bias whole.bias
		vqlm-prune -q -m $family -d t.json --samples 5 --no-keep --blocks 1 --heal linear --heal-samples 5 -o l.vqs
		[ "$(vqlm-infer -q -m h.vqs -d t.json | grep -c question_id)" -eq 5 ]
		[ "$(vqlm-infer -q -m l.vqs -d t.json | grep -c question_id)" -eq 5 ]
	done
	run -0 torch prune stablelm phi qwen
	figure "scores off by $output"
	jq -s -e 'length == 3 and all(.[]; .samples == 5 and .ppl < 1e-4 and .taylor < 1e-3)' <<<"$output"
}

# refused MODEL TEXT...: status 3, nothing on standard output, all texts in one line.
refused() {
	local t
	run -3 --separate-stderr vqlm-calib -m "$1" -n 0
	[ -z "$output" ]
	[ "${#stderr_lines[@]}" -eq 1 ]
	for t in "${@:2}"; do
		[[ "$stderr" == "vqlm-calib: $1"*"$t"* ]] || { echo "$stderr"; false; }
	done
}

# with MODEL FILTER TEXT...: refused with config.json changed so.
with() {
	cp "$1/config.json" keep.json
	jq "$2" keep.json >"$1/config.json"
	refused "$1" "${@:3}"
	mv keep.json "$1/config.json"
}

@test "configurations that are wrong or not supported are refused (3) by key" {
	make_model stablelm stablelm
	make_model phi phi
	make_model qwen qwen
	with stablelm '.model_type = "mamba"' "config.json: 'model_type': want" '"mamba"'
	with stablelm '.architectures = ["StableLmModel"]' "'architectures': want"
	with stablelm '.partial_rotary_factor = 0.1' "'partial_rotary_factor': want an even number of each head's 32 numbers to turn" "which is 3"
	with stablelm '.partial_rotary_factor = 0.01' "which is 0"
	with stablelm '.partial_rotary_factor = 1.5' "'partial_rotary_factor': want a number of 0..1, got 1.5"
	with stablelm '.partial_rotary_factor = "all"' "'partial_rotary_factor': want a number of 0..1"
	with stablelm '.qk_layernorm = true' "'qk_layernorm': norms of queries and keys are not supported"
	with stablelm '.rope_scaling = {"type": "dynamic", "factor": 2.0}' "'rope_scaling': want null or the default"
	with stablelm '.hidden_size = 129' "want a hidden_size that is a multiple of num_attention_heads, got 129 and 4"
	with stablelm '.num_key_value_heads = 3' "want a number of attention heads that is a multiple of the key and value heads, got 4 and 3"
	with stablelm '.num_hidden_layers = 1e9' "'num_hidden_layers': want an integer of 1..1024"
	with stablelm '.layer_norm_eps = -1' "'layer_norm_eps': want a number of"
	with stablelm '.hidden_act = "relu2"' "'hidden_act': want one of"
	with stablelm '.use_qkv_bias = "no"' "'use_qkv_bias': want true or false"
	with stablelm '.quantization_config = {"bits": 4}' "quantized already"
	with stablelm '.torch_dtype = "float8"' "'torch_dtype': want float16, bfloat16 or float32"
	with stablelm '.use_parallel_residual = true | .num_key_value_heads = 4' "tensor 'model.layers.0.self_attn.k_proj.weight': want shape [128, 128] by config.json, got [64, 128]"
	with phi '.vocab_size = 1023' "tensor 'model.embed_tokens.weight': want shape [1023, 160] by config.json, got [1024, 160]"
	with phi '.model_type = "stablelm" | .architectures = ["StableLmForCausalLM"]' "tensor 'decoder.layers.0.o_proj.weight' is missing; looked for model.layers.0.self_attn.o_proj.weight"
	with qwen '.intermediate_size = 383' "'intermediate_size': want an even number, twice the rows of w1, got 383"
	with qwen '.scale_attn_weights = false' "'scale_attn_weights': want true"
	with qwen '.kv_channels = 16' "tensor 'transformer.h.0.attn.c_attn.weight': want shape [192, 128] by config.json, got [384, 128]"
	with qwen '.no_bias = false' "tensor 'decoder.layers.0.o_proj.bias' is missing; looked for transformer.h.0.attn.c_proj.bias"
	# Up to its seq_length alone: beyond, it would turn by other angles and scale its queries.
	questions 1
	jq '.seq_length = 8' qwen/config.json >c && mv c qwen/config.json
	run -3 --separate-stderr vqlm-infer -q -m qwen -d t.json
	[[ "$stderr" == *"tokens, the model reads at most 8" ]]
	jq '.use_dynamic_ntk = false | .use_logn_attn = false' qwen/config.json >c && mv c qwen/config.json
	vqlm-infer -q -m qwen -d t.json >/dev/null
}

@test "a fused tensor of other rows or type, and a head without its bias, are refused (3)" {
	make_model qwen m
	make_model phi p
	cp m/model.safetensors whole
	# edit FOLDER CODE: changes the tensors w of a checkpoint.
	edit() {
		"$PY" - "$1" "$2" <<-E
			import sys
			sys.path.insert(0, '$BATS_TEST_DIRNAME')
			import layout
			path = sys.argv[1] + '/model.safetensors'
			w = layout.read_safetensors(path)
			exec(sys.argv[2])
			layout.write_safetensors(path, w)
		E
	}
	edit m "n = 'transformer.h.1.attn.c_attn.weight'; w[n] = ('F16', [383, 128], w[n][2][:-256])"
	refused m "tensor 'transformer.h.1.attn.c_attn.weight': want shape [384, 128] by config.json, got [383, 128]" "not of one model"
	cp whole m/model.safetensors
	edit m "n = 'transformer.h.1.attn.c_attn.bias'; w[n] = ('F16', [128], w[n][2][:256])"
	refused m "tensor 'transformer.h.1.attn.c_attn.bias': want shape [384] by config.json, got [128]"
	cp whole m/model.safetensors
	edit m "n = 'transformer.h.2.attn.c_attn.weight'; w[n] = ('F16', [384 * 128], w[n][2])"
	refused m "tensor 'transformer.h.2.attn.c_attn.weight': want shape [384, 128] by config.json, got [49152]"
	cp whole m/model.safetensors
	edit m "n = 'transformer.h.0.attn.c_attn.bias'; w[n] = ('I64', [384], bytes(8 * 384))"
	refused m "tensor 'transformer.h.0.attn.c_attn.bias': want f16, bf16 or f32, got i64"
	cp whole m/model.safetensors
	edit m "del w['transformer.h.0.attn.c_attn.weight']"
	refused m "tensor 'decoder.layers.0.q_proj.weight' is missing; looked for transformer.h.0.attn.c_attn.weight"
	cp whole m/model.safetensors
	# A value that is none, in the rows of v.
	edit m "n = 'transformer.h.0.attn.c_attn.weight'; b = w[n][2]; w[n] = ('F16', [384, 128], b[:256 * 300] + bytes([0, 0x7e]) + b[256 * 300 + 2:])"
	run -3 --separate-stderr bash -c 'vqlm-calib -m m -n 0 | cat >/dev/null; exit ${PIPESTATUS[0]}'
	[[ "$stderr" == *"tensor 'decoder.layers.0.v_proj.weight': NaN or infinity at [44, 0]"* ]]
	edit p "del w['lm_head.bias']"
	refused p "tensor 'decoder.head.bias' is missing; looked for lm_head.bias"
}
