#!/usr/bin/env bats
# vqlm-infer as a user sees it.
load common

MODEL() { echo "$DEMO/mini-llava"; }
TEST() { echo "$DEMO/mini-sqa/llava_test_CQM-A.json"; }

infer() {
	vqlm-infer -m "$DEMO/mini-llava" "$@"
}

# A packed model, W4A4 without calibration.
packed() {
	vqlm-calib -m "$DEMO/mini-llava" -n 0 | vqlm-search --method rtn -w 4 -a 4 | vqlm-pack -o "$1"
}

# Answers without what may differ between runs.
steady() {
	jq -cS 'select(.vqlm != "totals") | del(.ms)' "$1"
}

# compare ANSWERS GOLDEN: "same right n"
compare() {
	jq -rn --slurpfile a <(jq -c 'select(.question_id)' "$1") --slurpfile g "$2" --slurpfile d "$DEMO/mini-sqa/llava_test_CQM-A.json" '
		($g | map({(.question_id): .text}) | add) as $g
		| ($d[0] | map({(.id): .conversations[1].value}) | add) as $d
		| [([$a[] | select(.text == $g[.question_id])] | length), ([$a[] | select(.text == $d[.question_id])] | length), ($a | length)]
		| join(" ")'
}

# full VARIANT: all questions in full precision, once for this file: VARIANT.jsonl and VARIANT.logits in its folder.
full() {
	local out=$BATS_FILE_TMPDIR/$1
	[ -e "$out.jsonl" ] || vqlm-infer --float32 -m "$DEMO/$1" -d "$(TEST)" --logits "$out.logits" -o "$out.jsonl"
}

@test "full precision gives the golden letter on 99.9 % of 2,000 questions, both variants" {
	local v same right n answers
	for v in "" -outlier; do
		run -0 --separate-stderr full "mini-llava$v"
		[ -z "$output" ]
		[ -z "$stderr" ]
		answers=$BATS_FILE_TMPDIR/mini-llava$v.jsonl
		read -r same right n <<<"$(compare "$answers" "$DEMO/golden/predictions$v.jsonl")"
		figure "mini-llava$v, full precision: $same of $n letters as golden, $right right; $(tail -1 "$answers" |
			jq -r '"\(.seconds * 10 | round / 10) s, \(.prefill_tokens_per_second | round) prompt tokens/s, peak \(.peak_anon_bytes / 1048576 | round) MiB"')"
		[ "$n" -eq 2000 ]
		[ "$same" -ge 1998 ]
		[ "$right" -eq 1974 ]
	done
}

@test "bfloat16 products change at most 0.1 % of the letters, and no byte with the threads" {
	grep -q avx512_bf16 /proc/cpuinfo || skip "this processor has none"
	local v changed f
	for v in "" -outlier; do
		f=$BATS_FILE_TMPDIR/mini-llava$v
		full "mini-llava$v"
		vqlm-infer -q -m "$DEMO/mini-llava$v" -d "$(TEST)" --logits b.logits -o b.jsonl
		[ "$(head -1 "$f.jsonl" | jq -r .params.products)" = float32 ]
		[ "$(head -1 b.jsonl | jq -r .params.products)" = bf16 ]
		changed=$(diff <(jq -r 'select(.text) | .text' "$f.jsonl") <(jq -r 'select(.text) | .text' b.jsonl) | grep -c '^<' || true)
		figure "mini-llava$v, bf16 beside float32: $changed of 2000 letters changed, $(vqlm-eval -q -r "$DEMO/mini-sqa/problems.json" -f json \
			-b "$f.jsonl" --logits b.logits --baseline-logits "$f.logits" b.jsonl | jq -c .logits)"
		[ "$changed" -le 2 ]
	done
	for v in 1 3 4; do
		vqlm-infer -q -t $v -m "$DEMO/mini-llava" -d "$(TEST)" --limit 100 --logits "$v.logits" >/dev/null
		cmp 1.logits "$v.logits"
	done
	# A packed model's float products are those of every kernel set.
	packed m.vqm
	[ "$(vqlm-infer -q -m m.vqm -d "$(TEST)" --limit 1 | head -1 | jq -r .params.products)" = float32 ]
}

@test "answers open with the model and the ids asked, and end with totals" {
	infer -d "$(TEST)" --limit 5 >a.jsonl
	[ "$(wc -l <a.jsonl)" -eq 7 ]
	[ "$(head -1 a.jsonl | jq -c '[.vqlm, .ids, .split, .model.name]')" = '["answers",["1","2","3","4","5"],"test","mini-llava"]' ]
	[ "$(sed -n 2,6p a.jsonl | jq -r .question_id | paste -sd,)" = 1,2,3,4,5 ]
	[ "$(tail -1 a.jsonl | jq '.vqlm == "totals" and .questions == 5 and .seconds > 0 and .weight_bytes > 0 and .peak_bytes > 0')" = true ]
	# Nothing but these says when.
	[ "$(head -1 a.jsonl | grep -c -e seconds -e '"ms"')" -eq 0 ]
}

@test "a packed model answers from a file and from standard input alike" {
	packed m.vqm
	run -0 --separate-stderr vqlm-infer -m m.vqm -d "$(TEST)" --limit 100 -o a.jsonl
	[ -z "$stderr" ]
	run -0 --separate-stderr bash -c "vqlm-infer -m - -d '$(TEST)' --limit 100 <m.vqm >b.jsonl"
	diff <(steady a.jsonl) <(steady b.jsonl)
	[ "$(head -1 a.jsonl | jq -c '[.model.method, .model.w.bits, .model.a.bits]')" = '["rtn",4,4]' ]
}

@test "--load and --map give the same answers, and -v says which it was" {
	packed m.vqm
	local how model
	for model in m.vqm "$(MODEL)"; do
		for how in load map; do
			run -0 --separate-stderr vqlm-infer -v --$how -m "$model" -d "$(TEST)" --limit 40 --logits $how.vqs -o $how.jsonl
			[ -z "$output" ]
			echo "$stderr" >$how.err
		done
		diff <(steady load.jsonl) <(steady map.jsonl)
		cmp load.vqs map.vqs
		[[ "$(cat load.err)" == *" MiB of weights, loaded, "*" MiB of large pages; kernels "* ]]
		[[ "$(cat map.err)" == *" MiB of weights, mapped; kernels "* ]]
	done
	run -0 --separate-stderr bash -c "vqlm-infer -v --load -m - -d '$(TEST)' --limit 40 <m.vqm >in.jsonl"
	[[ "$stderr" == *"weights, loaded, "* ]]
	vqlm-infer --map -m m.vqm -d "$(TEST)" --limit 40 | diff <(steady in.jsonl) <(steady /dev/stdin)
}

@test "weights are loaded where more than 512 tokens may be decoded" {
	packed m.vqm
	run -0 --separate-stderr bash -c "vqlm-infer -v -m m.vqm -d '$(TEST)' --limit 32 >a.jsonl"
	[[ "$stderr" == *"weights, mapped; "* ]]
	run -0 --separate-stderr bash -c "vqlm-infer -v -m m.vqm -d '$(TEST)' --limit 33 >a.jsonl"
	[[ "$stderr" == *"weights, loaded, "* ]]
	run -0 --separate-stderr bash -c "vqlm-infer -v -m m.vqm -d '$(TEST)' --limit 33 --score >a.jsonl"
	[[ "$stderr" == *"weights, mapped; "* ]]
	run -0 --separate-stderr vqlm-infer -v -m m.vqm --max-tokens 513 What is ice?
	[[ "$stderr" == *"weights, loaded, "* ]]
	run -0 --separate-stderr bash -c "cat m.vqm | vqlm-infer -v -m - What is ice?"
	[[ "$stderr" == *"weights, in memory, "* ]]
}

@test "a copy that does not fit is refused (4) with the remedy, and is no default" {
	truncate -s 100T sparse.vqm 2>/dev/null || truncate -s 8T sparse.vqm
	run -4 --separate-stderr vqlm-infer --load -m sparse.vqm What is ice?
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-infer: memory: sparse.vqm has "*" GiB of weights, "*" GiB are free; --map needs no copy" ]]
	run -3 --separate-stderr vqlm-infer -m sparse.vqm --max-tokens 1000 What is ice?
	[[ "$stderr" == "vqlm-infer: sparse.vqm: "* ]]
	packed m.vqm
	head -c 1000000 m.vqm >cut.vqm
	run -3 --separate-stderr vqlm-infer --load -m cut.vqm What is ice?
	[[ "$stderr" == "vqlm-infer: cut.vqm: "* ]]
	run -2 --separate-stderr infer --load --map What is ice?
	[[ "$stderr" == *"exclude each other"* ]]
}

@test "--lock keeps weights in memory, or says what forbids it (4)" {
	[ -z "${VQLM_SANITIZED:-}" ] || skip "AddressSanitizer makes mlock do nothing"
	packed m.vqm
	local how
	for how in load map; do
		run -0 --separate-stderr vqlm-infer --$how --lock -m m.vqm -d "$(TEST)" --limit 2
		need_program setpriv
		run -4 --separate-stderr bash -c "ulimit -l 1000; exec setpriv --bounding-set=-ipc_lock --inh-caps=-all \
			vqlm-infer --$how --lock -m m.vqm What is ice?"
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-infer: memory: cannot lock "*" bytes, the limit is 1024000; raise it (ulimit -l "*")" ]]
	done
}

@test "threads change no answer, instruction sets no letter" {
	packed m.vqm
	local t set n
	vqlm-infer -t 1 -m m.vqm -d "$(TEST)" --limit 200 --score --logits one.vqs >one.jsonl
	for t in 2 4; do
		vqlm-infer -t $t -m m.vqm -d "$(TEST)" --limit 200 --score --logits many.vqs >many.jsonl
		diff <(steady one.jsonl) <(steady many.jsonl)
		cmp one.vqs many.vqs
	done
	for set in generic avx2; do
		n=200
		[ $set = avx2 ] || n=60 # generic takes ten times as long
		VQLM_CPU=$set vqlm-infer -m m.vqm -d "$(TEST)" --limit $n >"$set.jsonl" 2>err || { grep -q VQLM_CPU err && continue; }
		diff <(steady one.jsonl | jq -c 'select(.text) | .text' | head -n $n) <(steady "$set.jsonl" | jq -c 'select(.text) | .text')
	done
}

@test "scores are log-probabilities of the choices, and the best one is the answer" {
	infer -d "$(TEST)" --limit 300 --score >s.jsonl
	infer -d "$(TEST)" --limit 300 >g.jsonl
	[ "$(jq -c 'select(.question_id == "1") | .scores | keys' s.jsonl)" = '["A","B","C","D","E"]' ]
	[ "$(jq -s 'map(select(.scores)) | all(.[]; .text as $t | .scores[$t] == ([.scores[]] | max) and ([.scores[] | exp] | add) < 1.000001)' s.jsonl)" = true ]
	diff <(jq -r 'select(.text) | .text' s.jsonl) <(jq -r 'select(.text) | .text' g.jsonl)
}

@test "logits are a stream with one record a question, and a run is no distance from itself" {
	infer -d "$(TEST)" --limit 20 --logits a.vqs >a.jsonl
	run -0 vqlm-ls -c a.vqs
	[ "$(vqlm-ls --json a.vqs | jq -r 'select(.name) | .name' | head -2 | paste -sd' ')" = "logits/1 logits/2" ]
	[ "$(vqlm-ls --json a.vqs | jq -r 'select(.name) | .name' | wc -l)" -eq 20 ]
	infer -d "$(TEST)" --limit 20 --score --logits b.vqs >b.jsonl
	cmp a.vqs b.vqs
}

@test "what prompts share is computed once, and changes no bit of their logits" {
	local s id
	infer -d "$(TEST)" --limit 120 --logits all.vqs >all.jsonl
	[ "$(jq 'select(.vqlm == "totals") | .pictures' all.jsonl)" -lt "$(jq '[limit(120; .[]) | select(.image)] | length' "$(TEST)")" ]
	for s in 1 2; do
		infer -d "$(TEST)" --limit 120 --shard $s/2 --logits part.vqs >part.jsonl
		[ "$(jq -c 'select(.question_id)' part.jsonl | wc -l)" -gt 20 ]
		for id in $(jq -r 'select(.question_id) | .question_id' part.jsonl); do
			cmp <(vqlm-ls --cat "logits/$id" all.vqs) <(vqlm-ls --cat "logits/$id" part.vqs)
		done
	done
}

@test "a single question is answered in plain text" {
	run -0 --separate-stderr infer -i "$DEMO/mini-sqa/images/test/6/image.png" $'What color is the cross?\nA. red\nB. yellow'
	[ "$output" = A ]
	[ -z "$stderr" ]
	run -0 --separate-stderr infer --score -i "$DEMO/mini-sqa/images/test/6/image.png" $'What color is the cross?\nA. red\nB. yellow'
	[ "$output" = A ]
	run -0 --separate-stderr infer -v -i "$DEMO/mini-sqa/images/test/6/image.png" $'What color is the cross?\nA. red\nB. yellow'
	[ "$output" = A ]
	[[ "$stderr" == "vqlm-infer: "*"mini-llava: 9.3 MiB of weights, mapped; kernels "*", 1 batch at a time" ]]
	run -0 --separate-stderr infer What state of matter is $'juice?\nA. liquid\nB. solid'
	[ "$output" = A ]
}

@test "questions on standard input are answered one a line" {
	printf 'Is ice cold?\n\nWho?' | infer --max-tokens 3 >a.jsonl
	[ "$(jq -c 'select(.question_id) | [.question_id, (.tokens | length <= 3)]' a.jsonl | paste -sd' ')" = '["1",true] ["2",true] ["3",true]' ]
	infer </dev/null >b.jsonl
	[ "$(head -1 b.jsonl | jq -c .ids)" = '[]' ]
	[ "$(wc -l <b.jsonl)" -eq 2 ]
}

@test "temperature draws by seed and question, whatever else runs" {
	infer -d "$(TEST)" --limit 40 --temperature 3 -S 5 >a.jsonl
	infer -d "$(TEST)" --limit 40 --temperature 3 -S 5 -t 1 >b.jsonl
	infer -d "$(TEST)" --limit 40 --temperature 3 -S 6 >c.jsonl
	infer -d "$(TEST)" --limit 40 --temperature 3 -S 5 --shard 2/3 >d.jsonl
	diff <(steady a.jsonl) <(steady b.jsonl)
	run ! diff <(jq .tokens a.jsonl) <(jq .tokens c.jsonl)
	[ "$(jq -r 'select(.question_id) | .question_id' d.jsonl | wc -l)" -gt 3 ]
	jq -c 'select(.question_id) | [.question_id, .tokens[0]]' d.jsonl >part.txt
	jq -c 'select(.question_id) | [.question_id, .tokens[0]]' a.jsonl | grep -Fxf part.txt | diff - part.txt
}

@test "shards are disjoint and together all" {
	local i
	for i in 1 2 3; do
		infer -d "$(TEST)" --limit 60 --shard $i/3 >"part-$i.jsonl"
	done
	infer -d "$(TEST)" --limit 60 >all.jsonl
	diff <(jq -c 'select(.question_id) | [.question_id, .text]' part-*.jsonl | sort) <(jq -c 'select(.question_id) | [.question_id, .text]' all.jsonl | sort)
	run -0 --separate-stderr bash -c "cat part-*.jsonl | vqlm-eval -f json -r '$DEMO/mini-sqa/problems.json'"
	[ "$(jq .n <<<"$output")" -eq 60 ]
	run -0 --separate-stderr vqlm-eval -f json -r "$DEMO/mini-sqa/problems.json" part-*.jsonl
	[ "$(jq .n <<<"$output")" -eq 60 ]
	run -3 --separate-stderr vqlm-eval -r "$DEMO/mini-sqa/problems.json" part-1.jsonl part-3.jsonl
	[[ "$stderr" == *"part-1.jsonl: "*"lacks 1 of its 3 shards: 2/3;"* ]]
	# Of another limit, another part is the same one in name only.
	infer -d "$(TEST)" --limit 59 --shard 2/3 >short.jsonl
	run -3 --separate-stderr vqlm-eval -r "$DEMO/mini-sqa/problems.json" part-1.jsonl short.jsonl part-3.jsonl
	[[ "$stderr" == *"short.jsonl: line 1: 'n_asked' is 59, in the run before it was 60;"* ]]
	# More parts than questions: some are empty, and whole.
	for i in 1 2 3 4 5; do
		infer -d "$(TEST)" --limit 2 --shard $i/5 >"few-$i.jsonl"
	done
	run -0 --separate-stderr vqlm-eval -f json -r "$DEMO/mini-sqa/problems.json" few-*.jsonl
	[ "$(jq .n <<<"$output")" -eq 2 ]
}

@test "a killed run resumes to the answers of a whole one" {
	infer -d "$(TEST)" --limit 200 -o whole.jsonl
	# What a kill leaves: some answers, the last one cut.
	head -90 whole.jsonl >cut.part
	sed -n 91p whole.jsonl | head -c 20 >>cut.part
	run -0 --separate-stderr infer -d "$(TEST)" --limit 200 --resume cut.part -o cut
	diff <(steady whole.jsonl) <(steady cut)
	[ "$(sed -n 2,90p cut | diff -q - <(sed -n 2,90p whole.jsonl))" = "" ] # taken over, not made again
	# OUTPUT.part itself is what one resumes from.
	head -50 whole.jsonl >again.part
	run -0 infer -d "$(TEST)" --limit 200 --resume again.part -o again
	diff <(steady whole.jsonl) <(steady again)
	[ ! -e again.part ]
}

@test "a resumed run that is killed or refused loses no answer of the first" {
	infer -d "$(TEST)" --limit 200 -o whole.jsonl
	head -90 whole.jsonl >a.part
	run -3 --separate-stderr infer -d "$(TEST)" --limit 201 --resume a.part -o a
	vqlm-infer -q -t 1 -m "$(MODEL)" -d "$(TEST)" --limit 200 --resume a.part -o a &
	local pid=$! i
	for ((i = 0; i < 400; i++)); do
		[ -s a.part ] && [ -e a.part.resumed ] && break
		sleep 0.02
	done
	kill -9 "$pid" || true
	wait "$pid" || true
	[ -e a ] || infer -d "$(TEST)" --limit 200 --resume a.part -o a
	diff <(steady whole.jsonl) <(steady a)
	cmp <(sed -n 2,90p a) <(sed -n 2,90p whole.jsonl) # the first run's own lines
	[ ! -e a.part.resumed ]
}

@test "keys and values are kept in 16 bits, or as --kv says, and the answers name it" {
	local bits
	for bits in 32 16 8; do
		infer -d "$(TEST)" --limit 100 --kv $bits >$bits.jsonl
		[ "$(head -1 $bits.jsonl | jq .params.kv)" = $bits ]
	done
	infer -d "$(TEST)" --limit 100 >default.jsonl
	diff <(steady default.jsonl) <(steady 16.jsonl)
	run -3 --separate-stderr infer -d "$(TEST)" --limit 100 --kv 8 --resume default.jsonl -o b.jsonl
	[[ "$stderr" == *"'params' of its opening record differs"* ]]
	run -2 --separate-stderr infer -d "$(TEST)" --kv 4
	[[ "$stderr" == *"--kv wants one of 32|16|8, got '4'"* ]]
}

@test "resuming another run is refused (3)" {
	infer -d "$(TEST)" --limit 20 -o a.jsonl
	run -3 --separate-stderr infer -d "$(TEST)" --limit 21 --resume a.jsonl -o b.jsonl
	[[ "$stderr" == *"a.jsonl: 'ids' of its opening record differs"* ]]
	run -3 --separate-stderr vqlm-infer -m "$DEMO/mini-llava-outlier" -d "$(TEST)" --limit 20 --resume a.jsonl -o b.jsonl
	[[ "$stderr" == *"'model' of its opening record differs"* ]]
	run -3 --separate-stderr infer -d "$(TEST)" --limit 20 --score --resume a.jsonl -o b.jsonl
	[[ "$stderr" == *"'params' of its opening record differs"* ]]
	[ ! -e b.jsonl ]
	echo nonsense >c.part
	run -3 --separate-stderr infer -d "$(TEST)" --limit 20 --resume c.part -o b.jsonl
	[[ "$stderr" == *"c.part"* ]]
	run -4 --separate-stderr infer -d "$(TEST)" --limit 20 --resume absent.part -o b.jsonl
}

@test "SIGTERM ends the batch, keeps the answers and says how to go on (75)" {
	vqlm-infer -m "$(MODEL)" -q -t 1 -d "$(TEST)" -o s.jsonl 2>err &
	local pid=$! i
	for ((i = 0; i < 400; i++)); do
		[ -s s.jsonl.part ] && [ "$(wc -l <s.jsonl.part)" -gt 1 ] && break
		sleep 0.05
	done
	kill -TERM "$pid"
	local status=0
	wait "$pid" || status=$?
	[ "$status" -eq 75 ]
	[[ "$(cat err)" == "vqlm-infer: stopped after "*" of 2000 questions; --resume s.jsonl.part goes on" ]]
	[ ! -e s.jsonl ]
	[ "$(tail -c 1 s.jsonl.part | od -An -c | tr -d ' ')" = '\n' ]
	run -3 --separate-stderr bash -c "vqlm-eval -r '$DEMO/mini-sqa/problems.json' <s.jsonl.part"
}

@test "a question without its picture is refused before anything runs (3)" {
	jq -c '[.[0], .[2] | .image = "images/none.png"]' "$(TEST)" >d.json
	run -3 --separate-stderr infer -d d.json
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-infer: question '3': "*"images/none.png"*"No such file"* ]] || [[ "$stderr" == *"question '"*"none.png"* ]]
	jq -c '[.[2] | del(.image)]' "$(TEST)" >e.json
	run -3 --separate-stderr infer -d e.json
	[[ "$stderr" == *"'3'"* ]]
	mkdir -p other/images/test/3
	head -c 200 "$DEMO/mini-sqa/images/test/3/image.png" >other/images/test/3/image.png
	jq -c '[.[2]]' "$(TEST)" >f.json
	run -3 --separate-stderr infer -d f.json --images other
	[[ "$stderr" == *"question '3'"*"other/images/test/3/image.png"* ]]
	run -0 infer -d f.json --images "$DEMO/mini-sqa"
}

@test "a prompt beyond the model's positions is refused (3)" {
	jq -cn '[{id: "long", conversations: [{from: "human", value: ("word " * 600)}]}]' >d.json
	run -3 --separate-stderr infer -d d.json
	[[ "$stderr" == "vqlm-infer: question 'long': the prompt has "*" tokens, the model reads at most 512" ]]
}

@test "a bad model is refused: absent (4), corrupt (3), cut (3), no model at all (3)" {
	run -4 --separate-stderr vqlm-infer -m absent.vqm -d "$(TEST)"
	[[ "$stderr" == "vqlm-infer: absent.vqm: "*"No such file or directory" ]]
	[ -z "$output" ]
	packed m.vqm
	local n
	n=$(stat -c %s m.vqm)
	{ head -c $((n / 2)) m.vqm; printf 'XXXXXXXX'; tail -c +$((n / 2 + 9)) m.vqm; } >bad.vqm
	run -3 --separate-stderr vqlm-infer -m bad.vqm -d "$(TEST)" --limit 1
	[[ "$stderr" == "vqlm-infer: bad.vqm: "* ]]
	run -3 --separate-stderr bash -c "head -c $((n / 2)) m.vqm | vqlm-infer -m - -d '$(TEST)' --limit 1"
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-infer: stdin: "* ]]
	run -3 --separate-stderr bash -c "vqlm-infer -m - -d '$(TEST)' </dev/null"
	run -3 --separate-stderr vqlm-infer -m "$ROOT/Makefile" -d "$(TEST)"
	mkdir empty
	run -3 --separate-stderr vqlm-infer -m empty -d "$(TEST)"
	[[ "$stderr" == *"empty"*"config.json"* ]]
}

@test "weights that are not numbers are refused, not answered with (3)" {
	cp -r "$DEMO/mini-llava" nan
	# The final norm lies at 7934976 of the data; 0x7e00 is a half-precision NaN.
	local head
	head=$(od -An -t u8 -N 8 nan/model.safetensors | tr -d ' ')
	printf '\x00\x7e' | dd of=nan/model.safetensors bs=1 seek=$((8 + head + 7934976 + 20)) conv=notrunc status=none
	run -3 --separate-stderr vqlm-infer -m nan -d "$(TEST)" --limit 1
	[[ "$stderr" == "vqlm-infer: nan: tensor 'decoder.norm.weight': element 10 is nan" ]]
	# A large weight is not looked at before it does harm, but it is named then.
	cp "$DEMO/mini-llava/model.safetensors" nan/
	printf '\x00\x7e' | dd of=nan/model.safetensors bs=1 seek=$((8 + head + 2000)) conv=notrunc status=none
	run -3 --separate-stderr vqlm-infer -m nan -d "$(TEST)" --limit 1
	[[ "$stderr" == "vqlm-infer: nan: "*"decoder.head.weight"*"NaN"* ]]
}

@test "output that cannot be written is a failure of the system (4)" {
	run -4 --separate-stderr bash -c "vqlm-infer -m '$DEMO/mini-llava' -d '$(TEST)' --limit 1 >/dev/full"
	[[ "$stderr" == "vqlm-infer: stdout: "*"No space left on device" ]]
	run -4 --separate-stderr bash -c "vqlm-infer -m '$DEMO/mini-llava' -d '$(TEST)' --limit 1 >&-"
	run -4 --separate-stderr infer -d "$(TEST)" --limit 1 -o no/such/folder
	run -4 --separate-stderr infer -d absent.json
}

@test "command lines that make no sense are refused (2)" {
	run -2 --separate-stderr vqlm-infer -d "$(TEST)"
	[[ "$stderr" == *"no model"* ]]
	run -2 --separate-stderr infer -d "$(TEST)" a question
	run -2 --separate-stderr infer -i x.png
	run -2 --separate-stderr infer --limit 3 a question
	run -2 --separate-stderr infer --shard 1/2 a question
	run -2 --separate-stderr infer -d "$(TEST)" --shard 3/2
	[[ "$stderr" == *"--shard wants I/N with I of 1..N, got '3/2'"* ]]
	run -2 --separate-stderr infer -d "$(TEST)" --template none
	[[ "$stderr" == *"llava-hf|vicuna_v1"* ]]
	run -2 --separate-stderr infer -d "$(TEST)" --max-tokens 0
	run -2 --separate-stderr infer -d "$(TEST)" --resume a --logits b
	run -2 --separate-stderr vqlm-infer -m -
	[[ "$stderr" == *"standard input"* ]]
}
