#!/usr/bin/env bats
# Zero-shot questions as a user sees them: pipelines/zeroshot.sh, vqlm-infer --choices, vqlm-eval --task zeroshot.
load common

zeroshot() { "$ROOT/pipelines/zeroshot.sh" "$@"; }
infer() { vqlm-infer -q -m "$DEMO/mini-llava" "$@"; }
steady() { jq -cS 'select(.vqlm != "totals")' "$1"; }

# Twelve questions of two tasks, with three to five choices.
questions() {
	jq -cn 'range(12) | . as $i | (if $i % 2 == 1 then "piqa" else "arc_easy" end) as $task
		| {id: "\($task)/\($i)", task: $task, context: "Question: Which is colour number \($i)?\nAnswer:",
			choices: ["red", "dark green", "blue", "a very pale yellow", "grey"][:3 + $i % 3] | map(" " + .), answer: ($i % 3)}'
}

# A run of vqlm-infer that never was: N RIGHT TASK a line on standard input, by the task's metric.
run_of() {
	jq -cRn '[inputs | split(" ") | {n: (.[0] | tonumber), right: (.[1] | tonumber), task: .[2]}] as $tasks
		| [$tasks[] | . as $t | range($t.n) | {question_id: "\($t.task)/\(.)", task: $t.task, scores: [-1, -2], chars: [1, 1],
			tokens: [1, 1], answer: (if . < $t.right then 0 else 1 end)}] as $lines
		| {vqlm: "choices", model: {name: "m"}, params: {bos: "none"}, ids: [$lines[].question_id]}, $lines[], {vqlm: "totals"}'
}

@test "each task's rows become the prompts of the harness" {
	local row want
	while IFS=$'\t' read -r task row want; do
		[ "$(echo "$row" | zeroshot "$task" | jq -cS 'del(.id, .task)')" = "$(jq -cS . <<<"$want")" ]
	done <<-'END'
		boolq	{"passage":"P.","question":"is it","label":1,"idx":0}	{"context":"P.\nQuestion: is it?\nAnswer:","choices":[" no"," yes"],"answer":1}
		boolq	{"passage":"P.","question":"is it","answer":false}	{"context":"P.\nQuestion: is it?\nAnswer:","choices":[" no"," yes"],"answer":0}
		piqa	{"goal":"g é","sol1":"a","sol2":"b ","label":1}	{"context":"Question: g é\nAnswer:","choices":[" a"," b "],"answer":1}
		hellaswag	{"activity_label":"Ice","ctx_a":"A man [x] is.","ctx_b":"the Man SITS","endings":["a [title] b","c  d","[y] e","f"],"label":"2"}	{"context":"Ice: A man is. The man sits","choices":[" a. b"," c d","  e"," f"],"answer":2}
		winogrande	{"sentence":"Jo saw Al as _ was é _.","option1":"Jo","option2":"Al","answer":"2"}	{"context":["Jo saw Al as Jo","Jo saw Al as Al"],"choices":[" was é _."," was é _."],"answer":1}
		arc_easy	{"id":"a","question":"Q?","choices":{"text":["a","b","c"],"label":["1","2","3"]},"answerKey":"3"}	{"context":"Question: Q?\nAnswer:","choices":[" a"," b"," c"],"answer":2}
		arc_challenge	{"id":"a","question":{"stem":"Q?","choices":[{"text":"a","label":"A"},{"text":"b","label":"B"}]},"answerKey":"B"}	{"context":"Question: Q?\nAnswer:","choices":[" a"," b"],"answer":1}
		openbookqa	{"id":"a","question_stem":"The sun","choices":{"text":["is","was"],"label":["A","B"]},"answerKey":"A"}	{"context":"The sun","choices":[" is"," was"],"answer":0}
	END
	run -3 --separate-stderr zeroshot piqa <<<'{"goal":"g","sol1":"a","label":1}'
	[[ "$stderr" == *"row 0 is no question of piqa"* ]]
	run -2 --separate-stderr zeroshot mmlu
	[[ "$stderr" == "usage: zeroshot.sh TASK"* ]]
}

@test "LLM-Adapters' files become as many questions as the tasks have" {
	need_data zeroshot
	local task file n
	while read -r task file n; do
		zeroshot "$task" "$DATA/zeroshot/$file.json" >q.jsonl
		[ "$(wc -l <q.jsonl)" -eq "$n" ]
		[ "$(jq -s 'all(.[]; .answer < (.choices | length) and (.choices | length) <= 5)' q.jsonl)" = true ]
		[ "$(grep -cE 'Answer[1-5]:|Solution[12]:|Option[12]:' q.jsonl)" -eq 0 ]
	done <<-'END'
		boolq-no-passage boolq 3270
		piqa piqa 1838
		winogrande winogrande 1267
		arc_easy ARC-Easy 2376
		arc_challenge ARC-Challenge 1172
		openbookqa openbookqa 500
	END
}

@test "the choices of a question are scored as what follows its context" {
	questions >q.jsonl
	infer --choices q.jsonl >a.jsonl
	[ "$(head -1 a.jsonl | jq -c '[.vqlm, .params.bos, (.ids | length), .model.name]')" = '["choices","none",12,"mini-llava"]' ]
	[ "$(sed -n 2,13p a.jsonl | jq -r .question_id | paste -sd,)" = "$(jq -r .id q.jsonl | paste -sd,)" ]
	[ "$(sed -n 3p a.jsonl | jq -c '[.task, .chars, .answer, (.scores | length), all(.scores[]; . < 0)]')" = '["piqa",[3,10,4,18],1,4,true]' ]
	# A choice that is another's beginning is at least as probable.
	jq -cn '{id: "1", task: "piqa", context: "The sky is", choices: [" blue", " blue and wide", " blue and wide open"], answer: 0}' >p.jsonl
	[ "$(infer --choices - <p.jsonl | sed -n 2p | jq '.scores[0] > .scores[1] and .scores[1] > .scores[2]')" = true ]
	# Blanks at the end of a context go to the choice.
	jq -cn '{id: "1", task: "piqa", context: "The sky", choices: [" is blue", " is red"], answer: 0}' >p.jsonl
	jq -cn '{id: "1", task: "piqa", context: "The sky ", choices: ["is blue", "is red"], answer: 0}' >blank.jsonl
	[ "$(infer --choices p.jsonl | sed -n 2p | jq .scores)" = "$(infer --choices blank.jsonl | sed -n 2p | jq .scores)" ]
	[ "$(infer --choices p.jsonl --bos first | sed -n 2p | jq .scores)" != "$(infer --choices p.jsonl | sed -n 2p | jq .scores)" ]
	[ "$(infer --choices p.jsonl --bos first | head -1 | jq -r .params.bos)" = first ]
}

@test "threads, shards and an interruption change no score" {
	questions >q.jsonl
	infer -t 1 --choices q.jsonl -o whole
	infer -t 3 --choices q.jsonl -o threads
	diff <(steady whole) <(steady threads)
	infer --choices q.jsonl --shard 1/2 >shards
	infer --choices q.jsonl --shard 2/2 >>shards
	[ "$(vqlm-eval --task zeroshot -f json shards | jq -cS .tasks)" = "$(vqlm-eval --task zeroshot -f json whole | jq -cS .tasks)" ]
	head -5 whole >cut.part
	run -3 --separate-stderr vqlm-eval --task zeroshot cut.part
	[[ "$stderr" == *"cut: the run that opens in line 1 has no totals"* ]]
	infer --choices q.jsonl --resume cut.part -o resumed
	diff <(steady whole) <(steady resumed)
}

@test "tasks that were asked one by one are tasks of one table; the same task twice is refused" {
	questions | grep '"task":"piqa"' >piqa.jsonl
	questions | grep '"task":"arc_easy"' >arc.jsonl
	questions >both.jsonl
	local t
	for t in piqa arc both; do
		infer --choices $t.jsonl >$t.out
	done
	cat piqa.out arc.out >two.out
	[ "$(vqlm-eval --task zeroshot -f tsv two.out)" = "$(vqlm-eval --task zeroshot -f tsv both.out)" ]
	cat two.out piqa.out >twice.out
	run -3 --separate-stderr vqlm-eval --task zeroshot twice.out
	[ -z "$output" ]
}

@test "acc takes the likeliest choice, acc_norm the likeliest by character, both the first of equals" {
	{
		echo '{"vqlm":"choices","params":{"bos":"none"},"ids":["piqa/0","piqa/1","piqa/2","arc_easy/0"]}'
		echo '{"question_id":"piqa/0","task":"piqa","scores":[-4,-6],"chars":[2,12],"answer":1}'
		echo '{"question_id":"piqa/1","task":"piqa","scores":[-4,-6],"chars":[2,12],"answer":0}'
		echo '{"question_id":"piqa/2","task":"piqa","scores":[-3,-3],"chars":[4,4],"answer":0}'
		echo '{"question_id":"arc_easy/0","task":"arc_easy","scores":[-3,-3,-2],"chars":[1,9,1],"answer":1}'
		echo '{"vqlm":"totals"}'
	} >a.jsonl
	run -0 vqlm-eval --task zeroshot -f json a.jsonl
	[ "$(jq -c '.tasks | [.piqa.n, (.piqa.acc * .piqa.n / 100 | round), (.piqa.acc_norm * .piqa.n / 100 | round), .arc_easy.acc == 0, .arc_easy.acc_norm == 100]' <<<"$output")" = "[3,2,2,true,true]" ]
	[ "$(jq -c '[.n_tasks, has("average")]' <<<"$output")" = '[2,false]' ]
	run -0 vqlm-eval --task zeroshot a.jsonl
	[[ "$output" == *"no average: 2 of 7 tasks, without boolq, hellaswag, winogrande, arc_challenge, openbookqa; partial: piqa 3 of 1838, arc_easy 1 of 2376"* ]]
}

@test "right answers as many as a published table says give its average" {
	need_data pruning/results
	local csv n=0
	for csv in "$DATA"/pruning/results/*/zeroshot_acc.csv; do
		paste -d' ' <(sed -n 1p "$csv" | tr -d '\r' | tr , '\n') <(sed -n 3p "$csv" | tr -d '\r' | tr , '\n') >table
		awk 'BEGIN { split("boolq 3270 piqa 1838 hellaswag 10042 winogrande 1267 arc_easy 2376 arc_challenge 1172 openbookqa 500", a)
				for (i = 1; i < 15; i += 2) n[a[i]] = a[i + 1] }
			$1 in n { printf "%d %d %s\n", n[$1], $2 * n[$1] / 100 + 0.5, $1 }' table | run_of >run.jsonl
		vqlm-eval --task zeroshot -f json run.jsonl >r.json
		[ "$(jq --argjson want "$(awk '$1 == "AVE" { print $2 }' table)" '(.average - $want | fabs) < 1e-6 and .n_tasks == 7' r.json)" = true ]
		[[ "$(vqlm-eval --task zeroshot run.jsonl)" != *partial* ]]
		figure "$(basename "$(dirname "$csv")"): average of 7 tasks $(jq .average r.json), published $(awk '$1 == "AVE" { print $2 }' table)"
		n=$((n + 1))
	done
	[ "$n" -gt 0 ]
}

@test "another run is compared question by question" {
	printf '%s\n' "100 60 boolq" "50 20 hellaswag" | run_of >base.jsonl
	printf '%s\n' "100 70 boolq" "50 15 hellaswag" | run_of >run.jsonl
	run -0 vqlm-eval --task zeroshot -f json -b base.jsonl run.jsonl
	[ "$(jq -c '.tasks | [.boolq.baseline, .hellaswag.baseline] | map([.n, .lost, .gained, (.diff | round)])' <<<"$output")" = '[[100,0,10,10],[50,5,0,-10]]' ]
	[[ "$(vqlm-eval --task zeroshot -b base.jsonl run.jsonl)" == *"+10.00 ± 3.00"* ]]
	[[ "$(vqlm-eval --task zeroshot -f markdown -b base.jsonl run.jsonl)" == *"| hellaswag | 50 |"*"| -10.00 ± "* ]]
	vqlm-eval --task zeroshot -f tsv -b base.jsonl run.jsonl | awk -F'\t' '$1 == "boolq" && $8 == "acc" && $13 == 10 { ok = 1 } END { exit !ok }'
}

@test "questions and runs that are none are refused (3)" {
	local bad
	while IFS=$'\t' read -r bad want; do
		{ questions | head -1; echo "$bad"; } >q.jsonl
		run -3 --separate-stderr infer --choices q.jsonl
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-infer: q.jsonl: line 2: "*"$want"* ]]
	done <<-'END'
		{"id":"x","task":"mmlu","context":"c","choices":[" a"," b"],"answer":0}	task 'mmlu': want one of boolq, piqa,
		{"id":"x","context":"c","choices":[" a"," b"],"answer":0}	want 'task'
		{"task":"piqa","context":"c","choices":[" a"," b"],"answer":0}	want 'id'
		{"id":"x","task":"piqa","context":"c","choices":[" a"],"answer":0}	want 'choices', a list of 2 to 26 texts
		{"id":"x","task":"piqa","context":"c","choices":[" a",""],"answer":0}	none empty
		{"id":"x","task":"piqa","context":"","choices":[" a"," b"],"answer":0}	want 'context' of texts, none empty
		{"id":"x","task":"piqa","context":["c"],"choices":[" a"," b"],"answer":0}	want 'context', a text or a text for each choice
		{"id":"x","task":"piqa","context":"c","choices":[" a"," b"],"answer":2}	want 'answer', the position of a choice
		{"id":"arc_easy/0","task":"piqa","context":"c","choices":[" a"," b"],"answer":1}	its 'id' came before
		{"id":"x","task":"piqa","context":"c","choices":[" a"," b"],"answer":1	bad JSON
	END
	: >empty
	run -3 --separate-stderr infer --choices empty
	[[ "$stderr" == *"want questions with choices, got none" ]]
	jq -cn '{id: "long", task: "piqa", context: "c", choices: [("word " * 600), " b"], answer: 0}' >q.jsonl
	run -3 --separate-stderr infer --choices q.jsonl
	[[ "$stderr" == "vqlm-infer: question 'long': a choice has "*" tokens, the model reads at most 512" ]]
	run -4 --separate-stderr infer --choices absent
	# A long context is cut at its front.
	jq -cn '{id: "long", task: "piqa", context: ("word " * 600), choices: [" a", " b"], answer: 0}' >q.jsonl
	infer --choices q.jsonl >ok.jsonl
	questions >q.jsonl
	infer --choices q.jsonl --limit 3 >a
	infer --choices q.jsonl --limit 3 --bos first >first
	run -3 --separate-stderr vqlm-eval --task zeroshot -b first a
	[[ "$stderr" == *"such runs cannot be compared" ]]
	run -3 --separate-stderr bash -c 'cat a first | vqlm-eval --task zeroshot'
	[[ "$stderr" == *"'bos' is \"first\", in the run before it was \"none\""* ]]
	for bad in 's/"task":"piqa"/"task":"mmlu"/' 's/"chars":\[/&0,/' 's/"answer":1/"answer":9/' 's/"scores":\[/&"x",/'; do
		sed "3$bad" a >b
		run -3 --separate-stderr vqlm-eval --task zeroshot b
		[[ "$stderr" == "vqlm-eval: b: line 3: want "* ]] || [[ "$stderr" == "vqlm-eval: b: line 3: task 'mmlu': want one of "* ]]
	done
	infer --ppl <(questions) --window 16 >ppl.jsonl
	run -3 --separate-stderr vqlm-eval --task zeroshot ppl.jsonl
	[[ "$stderr" == *"want the opening line of a run of kind 'choices', got perplexity" ]]
	run -3 --separate-stderr vqlm-eval --task ppl a
}

@test "command lines that make no sense are refused (2)" {
	questions >q.jsonl
	local args
	for args in "--bos each" "--window 8" "--protocol gptq" "--rows ptb" "--score" "--logits x" "--max-tokens 3" "-d x" "--ppl x" "a question" "-i x" "--shard 0/2"; do
		# shellcheck disable=SC2086 # words on purpose
		run -2 --separate-stderr infer --choices q.jsonl $args
		[ -z "$output" ]
	done
	run -2 --separate-stderr infer --choices q.jsonl --ppl x
	[[ "$stderr" == *"--ppl and --choices exclude each other"* ]]
	run -2 --separate-stderr infer -d x --bos first
	[[ "$stderr" == *"--bos wants --ppl or --choices"* ]]
	run -2 --separate-stderr vqlm-infer -m - --choices - <q.jsonl
	run -2 --separate-stderr vqlm-eval --task zeroshot -r x
	[[ "$stderr" == *"--reference is not for --task ppl or zeroshot"* ]]
}
