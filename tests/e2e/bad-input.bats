#!/usr/bin/env bats
# Checkpoints that are damaged, incomplete or of another kind: status 3 and one line that names the place.
load common

# A tiny checkpoint of random weights in $T/m.
checkpoint() {
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" "$@" tiny m >/dev/null
}

# The same in two shards.
shards() {
	checkpoint --shard-mb 1
	[ -f m/model-00002-of-00002.safetensors ]
}

header_bytes() {
	od -An -t u8 -N 8 "$1" | tr -d ' '
}

# edit FILE JQ-PROGRAM: rewrites the header of a safetensors file; its data stay.
edit() {
	local n
	n=$(header_bytes "$1")
	tail -c +9 "$1" | head -c "$n" | jq -cj "$2" >header
	tail -c +$((9 + n)) "$1" >data
	put "$1"
}

# put FILE: length, ./header and ./data as one file.
put() {
	local n i
	n=$(stat -c %s header)
	for i in 0 8 16 24 32 40 48 56; do
		printf '%b' "\\x$(printf %02x $(((n >> i) & 255)))"
	done >"$1"
	cat header data >>"$1"
}

# refused WORD...: vqlm-calib ends with 3 and says each word in one line, on standard error only.
refused() {
	local w
	run -3 --separate-stderr bash -c 'vqlm-calib -m m -n 0 >out.vqs'
	[ "${#stderr_lines[@]}" -eq 1 ]
	[[ "$stderr" == "vqlm-calib: "* ]]
	for w in "$@"; do
		[[ "$stderr" == *"$w"* ]] || { echo "'$w' is not in: $stderr"; return 1; }
	done
	# What went out, if anything, is known to be incomplete.
	if [ -s out.vqs ]; then
		run -3 --separate-stderr vqlm-ls -c out.vqs
	fi
}

@test "an undamaged tiny checkpoint and a sharded one are sent whole" {
	checkpoint
	vqlm-calib -m m -n 0 -o one.vqs
	vqlm-ls -c one.vqs
	rm -r m
	shards
	vqlm-calib -m m -n 0 -o two.vqs
	vqlm-ls -c two.vqs
}

@test "a hole between tensors is refused (3)" {
	checkpoint
	edit m/model.safetensors 'map_values(if .data_offsets then .data_offsets[0] += 2 | .data_offsets[1] += 2 else . end)'
	refused model.safetensors hole
}

@test "tensors that overlap are refused (3)" {
	checkpoint
	edit m/model.safetensors 'to_entries as $e | .[$e[2].key].data_offsets = $e[1].value.data_offsets | .[$e[2].key].shape = $e[1].value.shape'
	refused model.safetensors overlap
}

@test "a tensor that comes twice in the header is refused (3)" {
	checkpoint
	n=$(header_bytes m/model.safetensors)
	tail -c +$((9 + n)) m/model.safetensors >data
	{
		printf '{"language_model.lm_head.weight":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},'
		tail -c +10 m/model.safetensors | head -c $((n - 1))
	} >header
	put m/model.safetensors
	refused model.safetensors duplicate
}

@test "a header over the limit is refused (3)" {
	checkpoint
	printf '\x01\xe1\xf5\x05\0\0\0\0' | dd of=m/model.safetensors conv=notrunc status=none
	refused model.safetensors 100000000 100000001
}

@test "a file cut short is refused (3), wherever it is cut" {
	checkpoint
	cp m/model.safetensors whole
	for keep in 0 7 8 100 "$(header_bytes whole)" -1; do
		head -c "$keep" whole >m/model.safetensors
		refused model.safetensors
	done
}

@test "a dtype that is unknown is named (3)" {
	checkpoint
	edit m/model.safetensors '."language_model.lm_head.weight".dtype = "F8_E4M3"'
	refused model.safetensors language_model.lm_head.weight F8_E4M3
}

@test "a weight that holds integers is refused (3)" {
	checkpoint
	edit m/model.safetensors '."language_model.lm_head.weight".dtype = "I16"'
	refused model.safetensors language_model.lm_head.weight i16 f16
}

@test "NaN and infinity in a weight are refused (3) with the tensor and the place" {
	checkpoint
	for bad in '\x00\x7e' '\x00\x7c' '\x00\xfc'; do
		printf '%b' "$bad" |
			dd of=m/model.safetensors bs=1 seek=$(($(stat -c %s m/model.safetensors) - 2)) conv=notrunc status=none
		refused decoder.head.weight 'NaN or infinity' '[1023, 127]'
	done
}

@test "a missing tensor is named with every spelling that was tried (3)" {
	checkpoint
	edit m/model.safetensors 'with_entries(if .key == "language_model.model.layers.1.mlp.up_proj.weight" then .key = "other" else . end)'
	refused decoder.layers.1.up_proj.weight language_model.model.layers.1.mlp.up_proj.weight \
		model.language_model.layers.1.mlp.up_proj.weight
}

@test "a tensor of another shape than the configuration's is refused (3)" {
	checkpoint
	jq '.text_config.intermediate_size = 512' m/config.json >c.json
	mv c.json m/config.json
	refused gate_proj.weight '[512, 128]' '[256, 128]'
}

@test "a projector, a tower and a vocabulary of another model are refused (3) with tensor and shapes" {
	checkpoint
	cp m/config.json c.json
	cp m/model.safetensors whole
	edit m/model.safetensors '."multi_modal_projector.linear_2.weight".shape = [64, 256]'
	refused model.safetensors multi_modal_projector.linear_2.weight '[128, 128]' '[64, 256]' 'not of one model'
	cp whole m/model.safetensors
	jq '.text_config.hidden_size = 256 | .text_config.head_dim = 32' c.json >m/config.json
	refused model.safetensors multi_modal_projector.linear_1.weight '[256, 64]' '[128, 64]' 'not of one model'
	jq '.vision_config.hidden_size = 128' c.json >m/config.json
	refused model.safetensors class_embedding '[128]' '[64]' 'not of one model'
	jq '.text_config.vocab_size = 1000' c.json >m/config.json
	refused model.safetensors embed_tokens.weight '[1000, 128]' '[1024, 128]' 'not of one model'
}

@test "a tokenizer with more tokens than the embedding has rows is refused (3) and both counts are said" {
	checkpoint
	jq '.added_tokens += [{id: 1200, content: "<x>", special: true, single_word: false, lstrip: false, rstrip: false, normalized: false}]' \
		m/tokenizer.json >t.json
	mv t.json m/tokenizer.json
	for w in "vqlm-calib -n 1 -d $DEMO/mini-sqa/llava_train_calib_CQM-A.json" "vqlm-infer -d $DEMO/mini-sqa/llava_test_CQM-A.json"; do
		run -3 --separate-stderr bash -c "$w -q -m m >out"
		[[ "$stderr" == *"m/tokenizer.json: has 1201 tokens with the added ones, but the embedding 1024 rows"*"not of one model" ]]
		[ "${#stderr_lines[@]}" -eq 1 ]
	done
}

@test "a missing shard is named (3)" {
	shards
	rm m/model-00002-of-00002.safetensors
	refused model-00002-of-00002.safetensors
}

@test "a shard path that leaves the folder is refused (3)" {
	shards
	mv m/model-00002-of-00002.safetensors .
	sed -i 's|"model-00002|"../model-00002|' m/model.safetensors.index.json
	refused model.safetensors.index.json ../model-00002-of-00002.safetensors
}

@test "a tensor that its shard does not hold, or that two hold, is named (3)" {
	shards
	cp m/model.safetensors.index.json index.json
	jq '.weight_map."language_model.lm_head.weight" = "model-00001-of-00002.safetensors"' \
		index.json >m/model.safetensors.index.json
	refused model-00001-of-00002.safetensors language_model.lm_head.weight 'not in the shard'
	cp index.json m/model.safetensors.index.json
	cp m/model-00001-of-00002.safetensors m/model-3.safetensors
	jq '.weight_map.extra = "model-3.safetensors"' index.json >m/model.safetensors.index.json
	refused model-3.safetensors extra
	edit m/model-3.safetensors 'to_entries | map(select(.key != "__metadata__")) | .[0].key = "extra" | from_entries'
	refused model-3.safetensors 'also in'
}

@test "an unknown architecture is named with what is supported (3)" {
	checkpoint
	jq '.model_type = "qwen2_vl" | .architectures = ["Qwen2VLForConditionalGeneration"]' m/config.json >c.json
	mv c.json m/config.json
	refused config.json qwen2_vl llava llama
}

@test "sizes that cannot be are refused with file, key, wanted and got (3)" {
	checkpoint
	cp m/config.json c.json
	for edit in '.text_config.num_attention_heads = 0' '.text_config.hidden_size = 99999999' \
		'.vision_config.patch_size = 0' '.text_config.num_hidden_layers = -3' \
		'.text_config.rms_norm_eps = 0'; do
		jq "$edit" c.json >m/config.json
		key=${edit% =*}
		refused config.json "'${key##*.}'" want got
	done
}

@test "a checkpoint without config.json, weights or tokenizer says which is missing (3)" {
	checkpoint
	mv m/config.json .
	refused 'no config.json'
	mv config.json m
	mv m/model.safetensors .
	refused model.safetensors model.safetensors.index.json
}

@test "a model folder that the command line names and that is absent is a failure (4)" {
	run -4 --separate-stderr vqlm-calib -m nowhere -n 0
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-calib: nowhere: "* ]]
}

@test "an unknown chat template is shown with the remedy (3), and --template is that" {
	checkpoint
	jq '.chat_template = "{{ strange }}"' m/tokenizer_config.json >c.json
	mv c.json m/tokenizer_config.json
	refused tokenizer_config.json '{{ strange }}' --template
	vqlm-calib -m m -n 0 --template vicuna_v1 -o out.vqs
	vqlm-ls -c out.vqs
}
