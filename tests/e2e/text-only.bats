#!/usr/bin/env bats
# Models without a vision tower through every tool: a LLaMA folder, and llama2.c's stories260K.
load common

# A LLaMA folder m, questions without pictures t.json, of which q.json has five.
llama() {
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" --text-only --layers 3 tiny m >/dev/null
	jq -c '[.[] | select(has("image") | not)][:12]' "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" >t.json
	jq -c '[.[] | select(has("image") | not)][:5]' "$DEMO/mini-sqa/llava_test_CQM-A.json" >q.json
}

# A copy of the published files, s/stories260K.bin and its tokenizer.
stories() {
	need_data stories260k
	mkdir s
	cp "$DATA"/stories260k/*.bin s
	chmod u+w s/*
}

# answers MODEL: how many answers to q.json.
answers() { vqlm-infer -q -m "$1" -d q.json | grep -c question_id; }

@test "a LLaMA folder goes through the pipe by every method and answers" {
	llama
	vqlm-calib -q -m m -n 6 -d t.json --error-stats --checkpoint 1 | vqlm-entropy -q >plan.vqs
	! vqlm-ls plan.vqs | grep -qE 'vision|pixels|stat/sketch'
	for method in rtn layerwise qvlm gptq awq best nf4; do
		vqlm-search -q --rows 256 --method $method -w 4 -a 8 <plan.vqs | vqlm-pack -q -o m.vqm
		[ "$(answers m.vqm)" -eq 5 ]
	done
	[ "$(answers m)" -eq 5 ]
	vqlm-infer -q -m m.vqm -d q.json | vqlm-eval -r "$DEMO/mini-sqa/problems.json" >table
	grep -q Avg table
	tar xOf m.vqm card.md >card
	grep -qx 'pipeline_tag: text-generation' card
	! grep -qE 'vision encoder|projector \|' card
}

@test "options that speak of pictures leave a model without them as it is" {
	llama
	vqlm-calib -q -m m -n 6 -d t.json | vqlm-entropy -q >plan.vqs
	vqlm-search -q --rows 256 <plan.vqs | vqlm-pack -q -o want.vqm
	mkdir want
	tar xf want.vqm -C want
	for opt in "--veo off" "--eta 3" "--parts llm" "--vision-weight 0.5 --token-weights vision"; do
		# shellcheck disable=SC2086 # options are words
		vqlm-search -q --rows 256 $opt <plan.vqs | vqlm-pack -q -o got.vqm
		rm -rf got
		mkdir got
		tar xf got.vqm -C got
		diff -r -x model.json -x card.md -x manifest.json want got
	done
}

@test "a picture for a model without eyes is refused (3)" {
	llama
	run -3 --separate-stderr vqlm-infer -q -m m -i "$DEMO/mini-sqa/images/test/3/image.png" "What is it?"
	[[ "$stderr" == *"this model reads no pictures" ]]
	run -3 --separate-stderr bash -c "vqlm-calib -q -m m -n 200 -d $DEMO/mini-sqa/llava_train_calib_CQM-A.json | cat; exit \${PIPESTATUS[0]}"
	[[ "$stderr" == *"this model reads no pictures" ]]
}

# The text: llama2.c's test_all.py, "expected_stdout" (greedy).
@test "stories260K goes on with its story as llama2.c does, whole, as a stream, loaded, and packed without quantization" {
	stories
	local story=$', there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.\nLily\'s mom said, "Lily, let\'s go to the park."'
	vqlm-calib -q -m s/stories260K.bin -n 0 -o s.vqs
	vqlm-search -q --method rtn -w 16 -a 16 <s.vqs | vqlm-pack -q -o s.vqm
	for m in s/stories260K.bin "--load -m s/stories260K.bin" s.vqs s.vqm; do
		# shellcheck disable=SC2086 # options are words
		run -0 --separate-stderr vqlm-infer -q --max-tokens 120 -m ${m#-m } "Once upon a time"
		[[ "$output" == "${story#, }"* || "$output" == "$story"* ]] || { echo "$m: $output"; false; }
	done
}

@test "stories260K through the pipe: calibrated on its own words, pruned, quantized" {
	stories
	jq -nc '[range(8) | {id: "\(.)", conversations: [{from: "human", value: "Once upon a time, there was a little girl named Lily. She had \(.) dogs and a red ball."}]}]' >t.json
	for method in rtn qvlm gptq awq best; do
		vqlm-calib -q -m s/stories260K.bin -n 8 -d t.json | vqlm-entropy -q | vqlm-search -q --method $method -w 4 -a 8 --group 64 | vqlm-pack -q -o s.vqm
		run -0 --separate-stderr vqlm-infer -q -m s.vqm "Once upon a time"
		[ -n "$output" ]
	done
	vqlm-prune -q -m s/stories260K.bin -d t.json --samples 8 --no-keep --table >scores.csv
	[ "$(wc -l <scores.csv)" -eq 6 ]
	awk -F, 'NR > 1 && !($2 > 1 && $2 < 1000) { exit 1 }' scores.csv
	vqlm-prune -q -m s/stories260K.bin -d t.json --samples 8 --no-keep -n 1 -o p.vqs
	run -0 --separate-stderr vqlm-infer -q -m p.vqs "Once upon a time"
	[ -n "$output" ]
}

@test "the tensors of stories260K: norms, neighbours turned into halves, a head that is the embedding" {
	stories
	vqlm-calib -q -m s/stories260K.bin -n 0 -o s.vqs
	python3 - <<-'END'
		import struct, subprocess
		b = open('s/stories260K.bin', 'rb').read()
		dim, hidden, layers, heads, kv, vocab, seq = struct.unpack('<7i', b[:28])
		at = 28
		def take(n):
		    global at
		    at += 4 * n
		    return b[at - 4 * n:at]
		def got(name): return subprocess.run(['vqlm-ls', '--cat', name, 's.vqs'], capture_output=True, check=True).stdout
		def same(name, want): assert got(name) == want, name
		hs, kvd = dim // heads, dim // heads * kv
		def halves(w):
		    rows = [w[i * dim * 4:(i + 1) * dim * 4] for i in range(len(w) // dim // 4)]
		    return b''.join(rows[h + i] for h in range(0, len(rows), hs) for i in list(range(0, hs, 2)) + list(range(1, hs, 2)))
		same('decoder.embed.weight', take(vocab * dim))
		for name, n, how in (('norm1', dim, None), ('q_proj', dim * dim, halves), ('k_proj', kvd * dim, halves), ('v_proj', kvd * dim, None), ('o_proj', dim * dim, None),
		                     ('norm2', dim, None), ('gate_proj', hidden * dim, None), ('down_proj', hidden * dim, None), ('up_proj', hidden * dim, None)):
		    for l in range(layers):
		        w = take(n)
		        same(f'decoder.layers.{l}.{name}.weight', how(w) if how else w)
		same('decoder.norm.weight', take(dim))
		assert at + seq * hs * 4 == len(b)
	END
	! vqlm-ls s.vqs | grep -q decoder.head
	[ "$(vqlm-ls --cat config s.vqs | jq -c '[.bos, .eos, .chat, .decoder.tied, .decoder.max_position]')" = '[1,2,"plain",true,512]' ]
}

@test "a head of its own follows the tables of the rotary embedding" {
	python3 - <<-'END'
		import random, struct
		dim, hidden, layers, heads, kv, vocab, seq = 8, 12, 2, 2, 1, 16, 32
		r = random.Random(1)
		n = vocab * dim + layers * (2 * dim + 2 * dim * dim + 2 * dim * dim // 2 + 3 * dim * hidden) + dim + seq * 4
		f = lambda n: struct.pack(f'<{n}f', *(r.gauss(0, .1) for _ in range(n)))
		open('own.bin', 'wb').write(struct.pack('<7i', dim, hidden, layers, heads, kv, -vocab, seq) + f(n) + b'\0\0\x80?' * vocab * dim)
	END
	vqlm-calib -q -m own.bin -n 0 -o own.vqs
	[ "$(vqlm-ls --cat decoder.head.weight own.vqs | od -An -tfF -v | tr -s ' ' '\n' | sort -u | tr -d '\n')" = 1 ]
}

@test "a cut checkpoint of llama2.c, one without a tokenizer or with a wrong one is refused (3)" {
	stories
	refused() {
		run -3 --separate-stderr bash -c "vqlm-prune -q -m s/stories260K.bin --text text.txt --samples 1 --tokens 4 --table | cat; exit \${PIPESTATUS[0]}"
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-prune: $1"* ]] || { echo "$stderr"; false; }
		[ "${#stderr_lines[@]}" -eq 1 ]
	}
	echo 'Once upon a time, there was a little girl named Lily.' >text.txt
	run -0 vqlm-prune -q -m s/stories260K.bin --text text.txt --samples 1 --tokens 4 --table
	cp s/tok512.bin tok512.bin
	head -c 1000 tok512.bin >s/tok512.bin
	refused "tok512.bin: want the 512 tokens of a tokenizer of llama2.c, got the end after token "
	cat tok512.bin tok512.bin >s/tok512.bin
	refused "tok512.bin: want the 512 tokens of a tokenizer of llama2.c, got more bytes after token 512"
	rm s/tok512.bin
	refused "s/stories260K.bin: want tokenizer.json, tokenizer.model, vocab.json and merges.txt, qwen.tiktoken or arcade100k.tiktoken, found none"
	# Under its other name, and as SentencePiece's own file.
	cp tok512.bin s/tokenizer.bin
	run -0 vqlm-prune -q -m s/stories260K.bin --text text.txt --samples 1 --tokens 4 --table
	local want=$output
	vqlm-calib -q -m s/stories260K.bin -n 0 | vqlm-search -q --method rtn -w 16 -a 16 | vqlm-pack -q -o s.vqm
	tar xf s.vqm tokenizer.model
	rm s/tokenizer.bin
	mv tokenizer.model s
	run -0 vqlm-prune -q -m s/stories260K.bin --text text.txt --samples 1 --tokens 4 --table
	[ "$output" = "$want" ]
	/usr/bin/python3 - "$DATA/stories260k/stories260K.bin" <<-'E' >s/stories260K.bin
		import struct, sys
		b = open(sys.argv[1], 'rb').read()
		n = len(b) // 4
		sys.stdout.buffer.write(struct.pack('>%dI' % n, *struct.unpack('<%dI' % n, b)))
	E
	run -3 --separate-stderr vqlm-calib -q -m s/stories260K.bin -n 0
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-calib: s/stories260K.bin: want "*"a checkpoint of llama2.c; got a file of another kind" ]]
	head -c 100000 "$DATA/stories260k/stories260K.bin" >s/stories260K.bin
	refused "s/stories260K.bin: as a checkpoint of llama2.c (version 0) its header wants $(stat -c %s "$DATA/stories260k/stories260K.bin") bytes, got 100000"
}
