#!/usr/bin/env bats
# Tokenizers that are kept in other files than tokenizer.json: tiktoken's ranks (Qwen, StableLM 2), GPT-2's merges (Phi).
load common

PY=/usr/bin/python3

# model KIND: a checkpoint KIND of one small layer with a tokenizer of that kind.
model() {
	need_program "$PY"
	"$PY" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("torch"))' || skip "python3-torch is not installed"
	local shape=()
	case $1 in
	qwen) shape=(qwen --set hidden_size=32 --set kv_channels=8 --set intermediate_size=64 --set vocab_size=151936) ;;
	arcade100k) shape=(stablelm_epoch --set hidden_size=32 --set num_attention_heads=2 --set num_key_value_heads=2 --set
		intermediate_size=32 --set vocab_size=100352) ;;
	gpt2) shape=(phi --set hidden_size=40 --set num_attention_heads=2 --set intermediate_size=40 --set vocab_size=2048) ;;
	esac
	"$PY" "$BATS_TEST_DIRNAME/backbone.py" make "${shape[0]}" "$1" "${shape[@]:1}" --layers 1
	rm "$1"/tokenizer*.json
	"$PY" "$BATS_TEST_DIRNAME/ranks.py" make "$1" "$1" "${2:-700}"
}

# ids MODEL N: the prompts of d.json's N samples, a JSON array a line.
ids() {
	local i
	vqlm-calib -q -m "$1" -d d.json -n "$2" --template plain --influence-samples 0 --bits 8 -o c.vqs
	for ((i = 0; i < $2; i++)); do
		vqlm-ls --cat "input/$i/tokens" c.vqs | od -An -v -w4 -td4 | jq -sc .
	done | paste <(vqlm-ls --cat calib c.vqs | jq -r '.ids[]') - | sort -n | cut -f2
}

refused() {
	run -3 --separate-stderr vqlm-calib -m "$1" -d d.json -n 1 --template plain
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-calib: "*"$2"* ]] || { echo "$stderr"; false; }
}

@test "texts have the tokens of their authors' algorithm" {
	local kind
	need_program "$PY"
	"$PY" "$BATS_TEST_DIRNAME/ranks.py" texts 80 >texts.json
	jq -c '[to_entries[] | {id: "\(.key)", conversations: [{from: "human", value: .value}, {from: "gpt", value: "A"}]}]' texts.json >d.json
	for kind in qwen arcade100k gpt2; do
		model $kind
		"$PY" "$BATS_TEST_DIRNAME/ranks.py" encode $kind $kind texts.json >want
		ids $kind 80 | cmp want -
		figure "$kind: $(jq -s 'add | length' want) tokens of 80 texts"
		# Streams and packed models carry it as tokenizer.json.
		vqlm-ls --cat tokenizer.json c.vqs | jq -e '.model.type == "BPE"'
		vqlm-calib -q -m $kind -n 0 | vqlm-search -q --method rtn -w 8 -a 8 --group 0 --act-group 0 | vqlm-pack -q -o m.vqm
		run -0 --separate-stderr vqlm-infer -q --max-tokens 4 -m m.vqm "$(jq -r '.[0]' texts.json)"
		rm -r $kind c.vqs m.vqm
	done
}

@test "a file of ranks that is cut, doubled or of something else is refused (3) by its line" {
	echo '[{"id": "1", "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "A"}]}]' >d.json
	model qwen 40
	cp qwen/qwen.tiktoken good
	try() {
		refused qwen "qwen/qwen.tiktoken: $1"
		cp good qwen/qwen.tiktoken
	}
	echo 'YWE=' >>qwen/qwen.tiktoken
	try "line $(($(wc -l <good) + 1)): want a token in base64, a space and its rank"
	sed -i '3s/ .*/ 3x/' qwen/qwen.tiktoken
	try "line 3: want a rank of 0..1048575, got '3x'"
	sed -i '4s/^[^ ]*/Y!==/' qwen/qwen.tiktoken
	try "line 4: want a token in base64"
	sed -i '4s/ .*/ 99999999999999999999/' qwen/qwen.tiktoken
	try "line 4: want a token in base64"
	sed -i '5s/ .*/ 7/' qwen/qwen.tiktoken
	try "two tokens have the rank 7"
	sed -n 9p good | sed 's/ .*/ 5000/' >>qwen/qwen.tiktoken
	try "line $(($(wc -l <good) + 1)): the token is that of rank 8"
	sed -i 1d qwen/qwen.tiktoken
	try "no token for the byte 0x"
	: >qwen/qwen.tiktoken
	try "no token for the byte 0x00 alone"
	echo 'AAAAAAAA 151650' >>qwen/qwen.tiktoken
	try "want ranks below 151643, where the special tokens begin, got 151650"
	head -c 100000 /dev/urandom >qwen/qwen.tiktoken
	try ""
	rm qwen/qwen.tiktoken
	refused qwen "qwen: want tokenizer.json, tokenizer.model, vocab.json and merges.txt, qwen.tiktoken or arcade100k.tiktoken, found none"
}

@test "merges that are cut, without a vocabulary or of another class are refused (3)" {
	echo '[{"id": "1", "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "A"}]}]' >d.json
	model gpt2 40
	cp gpt2/merges.txt good
	echo 'lonely' >>gpt2/merges.txt
	refused gpt2 "gpt2/merges.txt: line $(($(wc -l <good) + 1)): want two tokens and a space"
	echo 'a b c' >gpt2/merges.txt
	refused gpt2 "gpt2/merges.txt: line 1: want two tokens and a space"
	printf 'a \xff\n' >gpt2/merges.txt
	refused gpt2 "gpt2/merges.txt: line 1: want UTF-8"
	echo 'qq zz' >gpt2/merges.txt
	refused gpt2 "not all of the two tokens and what they make are in the vocabulary"
	rm gpt2/merges.txt
	refused gpt2 "gpt2/vocab.json: want merges.txt beside it"
	cp good gpt2/merges.txt
	echo '{"tokenizer_class": "RobertaTokenizer"}' >gpt2/tokenizer_config.json
	refused gpt2 "gpt2/tokenizer_config.json: 'tokenizer_class': vocab.json and merges.txt are read for GPT-2, CodeGen and Qwen 2, not for 'RobertaTokenizer'"
	echo '{"tokenizer_class": "CodeGenTokenizer", "add_prefix_space": true}' >gpt2/tokenizer_config.json
	refused gpt2 "'add_prefix_space': want false"
	echo '{"tokenizer_class": "CodeGenTokenizer"}' >gpt2/tokenizer_config.json
	echo '{"x": "y"}' >gpt2/added_tokens.json
	refused gpt2 "gpt2/added_tokens.json: 'x': want the id of a token"
	rm gpt2/added_tokens.json
	vqlm-calib -q -m gpt2 -d d.json -n 1 --template plain >/dev/null
	echo '[]' >gpt2/vocab.json
	refused gpt2 "gpt2/vocab.json: want an object"
}
