#!/usr/bin/env bats
# Perplexity as a user sees it: vqlm-infer --ppl, vqlm-eval --task ppl.
load common

# A text of some 2,000 tokens that the small model reads.
text() { sed 's/<image>/picture/g' "$DEMO/README.md"; }

ppl() { vqlm-infer -q -m "$DEMO/mini-llava" "$@"; }

windows() { jq -c 'select(.question_id)' "$1"; }
steady() { jq -cS 'select(.vqlm != "totals")' "$1"; }

# The same model with a head of zeros: every token is as probable as any.
uniform() {
	cp -r "$DEMO/mini-llava" "$1"
	/usr/bin/python3 - "$1/model.safetensors" <<-'PY'
		import json, struct, sys
		with open(sys.argv[1], "r+b") as f:
		    n = struct.unpack("<Q", f.read(8))[0]
		    head = json.loads(f.read(n))
		    a, b = next(v for k, v in head.items() if k.endswith("lm_head.weight"))["data_offsets"]
		    f.seek(8 + n + a)
		    f.write(bytes(b - a))
	PY
}

@test "a window a line; protocols differ in length, BOS and what they score" {
	text >t
	local args n k total
	while read -r args n k; do
		# shellcheck disable=SC2086 # words on purpose
		ppl --ppl t ${args//,/ } >r.jsonl
		total=$(head -1 r.jsonl | jq .n_tokens)
		[ "$(windows r.jsonl | wc -l)" -eq $((total / n)) ]
		[ "$(windows r.jsonl | jq -s "all(.[]; .tokens == $k and .nll > 0)")" = true ]
		[ "$(windows r.jsonl | jq -r .question_id | tail -1)" = $((total / n - 1)) ]
	done <<-'END'
		--protocol,shortened-llama 128 127
		--protocol,shortened-llama,--bos,each 128 128
		--protocol,llama.cpp,--window,256 256 127
		--window,100 100 99
		--window,100,--bos,each 100 100
	END
	[ "$(head -1 r.jsonl | jq -c '.params | [.protocol, .window, .bos, .scored, .rows]')" = '["custom",100,"each","all","text"]' ]
	# One token of the text less than with a BOS before the first.
	[ "$(ppl --ppl t --window 100 --bos none | head -1 | jq .n_tokens)" -eq "$total" ]
	[ "$(ppl --ppl t --window 100 | head -1 | jq .n_tokens)" -eq $((total + 1)) ]
	# What follows a BOS is scored with the windows of the same tokens: the first windows are alike.
	[ "$(ppl --ppl t --protocol shortened-llama --limit 1 | sed -n 2p)" = "$(ppl --ppl t --window 128 --limit 1 | sed -n 2p)" ]
}

@test "a model to which all tokens are alike has the perplexity of its vocabulary, in any protocol" {
	uniform u
	text >t
	local vocab args
	vocab=$(jq '.text_config.vocab_size // .vocab_size' u/config.json)
	for args in "--protocol shortened-llama" "--protocol llama.cpp --window 64" "--window 50 --bos none"; do
		# shellcheck disable=SC2086 # words on purpose
		vqlm-infer -q -m u --ppl t $args | vqlm-eval --task ppl -f json >r.json
		[ "$(jq "(.ppl / $vocab - 1 | fabs) < 1e-8 and .nll_se < 1e-8" r.json)" = true ]
	done
}

@test "eval adds windows up, as jq does, and names the protocol" {
	text | ppl --ppl - --protocol shortened-llama >r.jsonl
	run -0 --separate-stderr vqlm-eval --task ppl -f json r.jsonl
	[ -z "$stderr" ]
	windows r.jsonl | jq -s --argjson e "$output" '
		map(.nll / .tokens) | (add / length) as $m | (map(. - $m | . * .) | add / (length - 1) / length | sqrt) as $se
		| [$m - $e.nll, $se - $e.nll_se, ($m | exp) / $e.ppl - 1, ($m | exp) * $se / $e.ppl_se - 1, length - $e.windows]
		| all(.[]; fabs < 1e-5)' | grep -qx true
	run -0 vqlm-eval --task ppl r.jsonl
	[[ "$output" == *"mini-llava, full precision"* ]]
	[[ "$output" == *"shortened-llama: windows of 128 tokens, BOS before the first token of the text, all but each window's first scored; text as given"* ]]
	[[ "$output" == *"$(windows r.jsonl | jq -s 'map(.tokens) | add') tokens scored in all $(windows r.jsonl | wc -l) windows"* ]]
	vqlm-eval --task ppl -f tsv r.jsonl | awk -F'\t' 'NR == 2 && $1 == "shortened-llama" && $2 == 128 { ok = 1 } END { exit !ok }'
	[[ "$(vqlm-eval --task ppl -f markdown r.jsonl)" == "Perplexity "*" ± "*"shortened-llama"* ]]
	text | ppl --ppl - --protocol shortened-llama --limit 1 >one.jsonl
	[ "$(vqlm-eval --task ppl -f json one.jsonl | jq -c '[.ppl_se, .windows == 1, .n_windows > 1]')" = '[null,true,true]' ]
	[[ "$(vqlm-eval --task ppl one.jsonl)" == *" 1 of the "*" windows"* ]]
}

@test "rows are joined by blank lines, as each data set's rows are" {
	printf ' \n = A b = \n \n The cat sat on the mat .\n' >rows
	printf '\n\n = A b = \n\n\n\n\n The cat sat on the mat .\n' >wikitext
	printf '\n\n= A b =\n\n\n\nThe cat sat on the mat .' >ptb
	local kind
	for kind in wikitext ptb; do
		ppl --ppl rows --rows $kind --window 8 | windows - >a
		ppl --ppl $kind --window 8 | windows - >b
		cmp a b
		[ -s a ]
	done
	[ "$(ppl --ppl rows --rows ptb --window 8 | head -1 | jq -r .params.rows)" = ptb ]
	[[ "$(ppl --ppl rows --rows ptb --window 8 | vqlm-eval --task ppl)" == *"text of rows joined as for ptb"* ]]
}

@test "threads, shards and an interruption change no window" {
	text >t
	ppl -t 1 --ppl t --protocol shortened-llama -o whole
	local n i
	n=$(windows whole | wc -l)
	ppl -t 3 --ppl t --protocol shortened-llama -o threads
	diff <(steady whole) <(steady threads)
	for i in 1 2 3; do
		ppl --ppl t --protocol shortened-llama --shard $i/3
	done >shards
	diff <(windows whole | jq -cS . | sort) <(windows shards | jq -cS . | sort)
	[ "$(vqlm-eval --task ppl -f json shards | jq -c '[.windows, .ppl]')" = "$(vqlm-eval --task ppl -f json whole | jq -c '[.windows, .ppl]')" ]
	head -n $((n / 2)) whole >cut.part
	run -3 --separate-stderr vqlm-eval --task ppl cut.part
	[[ "$stderr" == *"cut: the run that opens in line 1 has no totals"* ]]
	ppl --ppl t --protocol shortened-llama --resume cut.part -o resumed
	diff <(steady whole) <(steady resumed)
	run -3 --separate-stderr ppl --ppl t --protocol shortened-llama --bos each --resume cut.part -o other
	[[ "$stderr" == *"of its opening record differs"* ]]
}

@test "a packed model is scored, and compared with full precision window by window" {
	text >t
	vqlm-calib -q -m "$DEMO/mini-llava" -n 0 | vqlm-search -q --method rtn -w 4 -a 8 | vqlm-pack -q -o m.vqm
	ppl --ppl t --protocol shortened-llama >fp.jsonl
	vqlm-infer -q -m m.vqm --ppl t --protocol shortened-llama >q.jsonl
	vqlm-eval --task ppl -f json -b fp.jsonl q.jsonl >r.json
	jq -s --slurpfile b <(windows fp.jsonl) --slurpfile r r.json '
		[., $b] | transpose | map((.[0].nll - .[1].nll) / .[0].tokens) | (add / length) as $m
		| (map(. - $m | . * .) | add / (length - 1) / length | sqrt) as $se
		| $r[0].baseline | ((.diff - $m | fabs) < 1e-6 and (.diff_se - $se | fabs) < 1e-6 and .diff != 0)' \
		<(windows q.jsonl) | grep -qx true
	run -0 vqlm-eval --task ppl -b fp.jsonl q.jsonl
	[[ "$output" == *"against    fp.jsonl, "*" nats a token, times "* ]]
	# Against itself: nothing.
	[ "$(vqlm-eval --task ppl -f json -b q.jsonl q.jsonl | jq -c '.baseline | .diff == 0 and .diff_se == 0')" = true ]
}

@test "logits before each scored token make the window's sum, and the divergence of two models" {
	text >t
	ppl --float32 --ppl t --protocol llama.cpp --window 300 --logits l.vqs -o r.jsonl
	vqlm-ls l.vqs | grep -c 'logits/' >n
	[ "$(cat n)" -eq "$(windows r.jsonl | wc -l)" ]
	run -0 vqlm-eval -f json --logits l.vqs --baseline-logits l.vqs
	[ "$(jq -c '.logits | [.kl_mean == 0, .same_top == .n, .n]' <<<"$output")" = "[true,true,$(windows r.jsonl | jq -s 'map(.tokens) | add')]" ]
	# Through pipes, with nothing on disk; and a model to which all tokens are alike is ln V - H away from it.
	uniform u
	vqlm-eval -f json \
		--logits <(vqlm-infer -q -m u --ppl t --protocol llama.cpp --window 300 --logits - -o /dev/null) \
		--baseline-logits <(ppl --float32 --ppl t --protocol llama.cpp --window 300 --logits - -o /dev/null) >r.json
	/usr/bin/python3 - l.vqs "$ROOT/tests/e2e/logits.py" r.json <<-'PY'
		import json, re, sys
		import numpy as np
		source = open(sys.argv[2]).read().split("\na, b = ")[0]
		space = {}
		exec(source, space)
		kl = []
		for v in space["records"](sys.argv[1]).values():
		    v = v.reshape(149, -1)
		    p = np.exp(v - v.max(1, keepdims=True))
		    p /= p.sum(1, keepdims=True)
		    kl += list(np.log(v.shape[1]) + (p * np.log(np.maximum(p, 1e-300))).sum(1))
		got = json.load(open(sys.argv[3]))["logits"]
		assert got["n"] == len(kl) and abs(got["kl_mean"] / np.mean(kl) - 1) < 1e-6, (got, np.mean(kl))
	PY
}

@test "what is no text, or too short, or too long for the model, is refused (3)" {
	: >empty
	run -3 --separate-stderr ppl --ppl empty
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-infer: empty: want a text, got nothing" ]]
	printf 'caf\xe9 au lait\n' >latin1
	run -3 --separate-stderr ppl --ppl latin1
	[[ "$stderr" == "vqlm-infer: latin1: line 1, byte 4: want UTF-8, got 0xe9" ]]
	echo "too short" >short
	run -3 --separate-stderr ppl --ppl short --protocol shortened-llama
	[[ "$stderr" == "vqlm-infer: short: want at least one window of 128 tokens, got "*" tokens; --window N makes it shorter" ]]
	text >t
	run -3 --separate-stderr ppl --ppl t
	[[ "$stderr" == *"a window has 2048 tokens with its BOS, the model reads at most 512"* ]]
	run -3 --separate-stderr ppl --ppl t --window 512 --bos each
	[[ "$stderr" == *"a window has 513 tokens"* ]]
	printf '<image> %s\n' "$(text | tr '\n' ' ')" >image
	run -3 --separate-stderr ppl --ppl image --window 64
	[[ "$stderr" == *"windows from '0' on: 1 image tokens"* ]]
	run -4 --separate-stderr ppl --ppl absent
	[[ "$stderr" == "vqlm-infer: absent: "*"No such file or directory" ]]
}

@test "command lines that make no sense are refused (2)" {
	text >t
	local args
	for args in "--protocol gptq --window 128" "--protocol gptq --bos each" "--protocol shortened-llama --bos none" \
		"--protocol llama.cpp --bos first" "--window 3" "--bos twice" "--protocol other" "--rows lines" "--window 64 --shard 3/2" \
		"--score" "--max-tokens 3" "--temperature 1" "--template plain" "--images x" "-d x" "-i x" "a question" \
		"--resume a --logits b"; do
		# shellcheck disable=SC2086 # words on purpose
		run -2 --separate-stderr ppl --ppl t $args
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-infer: "* ]]
	done
	run -2 --separate-stderr ppl --ppl t --protocol gptq --window 128
	[[ "$stderr" == *"--protocol gptq is of windows of 2048 tokens, got --window 128; --protocol custom takes any"* ]]
	for args in "--window 8" "--bos each" "--rows ptb" "--protocol gptq"; do
		# shellcheck disable=SC2086 # words on purpose
		run -2 --separate-stderr ppl -d x $args
		[[ "$stderr" == *"${args%% *} wants --ppl"* ]]
	done
	run -2 --separate-stderr vqlm-infer -m - --ppl -
	[[ "$stderr" == *"the model and the text cannot both come from standard input"* ]]
	for args in "-r x" "-s x" "-p lmms" "-m 3" "--logits x" "--baseline-logits x" "a b"; do
		# shellcheck disable=SC2086 # words on purpose
		run -2 --separate-stderr vqlm-eval --task ppl $args
	done
	run -2 --separate-stderr vqlm-eval --task other
}

@test "eval adds up parts of one run only (3)" {
	text >t
	ppl --ppl t --protocol shortened-llama --limit 4 >a
	ppl --ppl t --protocol shortened-llama --bos each --limit 4 >each
	ppl --ppl t --protocol llama.cpp --window 128 --limit 4 >cpp
	run -3 --separate-stderr bash -c 'cat a each | vqlm-eval --task ppl'
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-eval: stdin: line 7: 'bos' is \"each\", in the run before it was \"first\"; only parts of one run are added up" ]]
	run -3 --separate-stderr bash -c 'cat a cpp | vqlm-eval --task ppl'
	[[ "$stderr" == *"line 7: 'bos' is "* ]]
	run -3 --separate-stderr vqlm-eval --task ppl -b cpp a
	[[ "$stderr" == *"such runs cannot be compared" ]]
	sed 's/./&x/5' t >u
	ppl --ppl u --protocol shortened-llama --limit 4 >other
	run -3 --separate-stderr bash -c 'cat a other | vqlm-eval --task ppl'
	[[ "$stderr" == *"'data' is "* ]]
	run -3 --separate-stderr bash -c 'cat a a | vqlm-eval --task ppl'
	[[ "$stderr" == *"line 7: id '0' was asked twice"* ]]
	for i in 1 2; do ppl --ppl t --protocol shortened-llama --limit 4 --shard $i/2 >half-$i; done
	run -0 --separate-stderr bash -c 'cat half-2 half-1 | vqlm-eval --task ppl -f json'
	[ "$(jq .windows <<<"$output")" = 4 ]
	run -3 --separate-stderr vqlm-eval --task ppl half-2
	[[ "$stderr" == "vqlm-eval: half-2: the run that opens in line 1 lacks 1 of its 2 shards: 1/2; "* ]]
	sed 3d a >gap
	run -3 --separate-stderr vqlm-eval --task ppl gap
	[[ "$stderr" == *"line 5: totals, but id '1' has no line"* ]]
	sed '2s/"nll":[^,]*/"nll":"x"/' a >bad
	run -3 --separate-stderr vqlm-eval --task ppl bad
	[[ "$stderr" == *"bad: line 2: want 'nll', a number" ]]
	sed '3s/"tokens":127/"tokens":99/' a >bad
	run -3 --separate-stderr vqlm-eval --task ppl bad
	[[ "$stderr" == *"line 3: 99 tokens scored, in other windows 127; want windows of one protocol" ]]
	sed '4s/}$//' a >bad
	run -3 --separate-stderr vqlm-eval --task ppl bad
	[[ "$stderr" == *"bad: line 4: bad JSON"* ]]
	run -3 --separate-stderr vqlm-eval --task ppl "$DEMO/golden/predictions.jsonl"
	[[ "$stderr" == *"line 1: want the opening line of a run of kind 'perplexity', got an object that is none" ]]
	: >empty
	run -3 --separate-stderr vqlm-eval --task ppl empty
	run -3 --separate-stderr vqlm-eval -r "$DEMO/mini-sqa/problems.json" a
	run -4 --separate-stderr vqlm-eval --task ppl absent
}

# Of llama.cpp's llama-perplexity at a context of 256 on the same bytes: 118.47 over 40 chunks, 121.82 over 60.
@test "stories260K has the perplexity that llama.cpp gives it" {
	need_data stories260k
	need_data text/wiki.test.raw
	head -c 60000 "$DATA/text/wiki.test.raw" >t
	local n want
	while read -r n want; do
		vqlm-infer -q -m "$DATA/stories260k/stories260K.bin" --ppl t --protocol llama.cpp --window 256 --limit "$n" |
			vqlm-eval --task ppl -f json >r.json
		figure "stories260K, $n windows as llama.cpp's: $(jq -r '"\(.ppl) ± \(.ppl_se)"' r.json), llama.cpp $want"
		[ "$(jq "(.ppl / $want - 1 | fabs) < 1e-4 and .windows == $n and .tokens == 127 * $n" r.json)" = true ]
	done <<-'END'
		40 118.47
		60 121.82
	END
}

@test "fewer bits, more perplexity: stories260K packed in 8 and 4 bits beside float32" {
	need_data stories260k
	need_data text/wiki.test.raw
	head -c 60000 "$DATA/text/wiki.test.raw" >t
	local b
	vqlm-infer -q -m "$DATA/stories260k/stories260K.bin" --ppl t --protocol shortened-llama >fp.jsonl
	for b in 8 4; do
		vqlm-calib -q -m "$DATA/stories260k/stories260K.bin" -n 0 | vqlm-search -q --method rtn -w $b -a 16 | vqlm-pack -q -o $b.vqm
		vqlm-infer -q -m $b.vqm --ppl t --protocol shortened-llama | vqlm-eval --task ppl -f json -b fp.jsonl >$b.json
		figure "stories260K W${b}A16: $(jq -r '"perplexity \(.ppl), \(.baseline.diff) ± \(.baseline.diff_se) nats a token from float32"' $b.json)"
	done
	[ "$(jq -s '(.[0].baseline | .diff | fabs < 0.01) and (.[1].baseline | .diff > 4 * .diff_se)' 8.json 4.json)" = true ]
}
