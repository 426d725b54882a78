#!/usr/bin/env bats
# vqlm-eval as a user sees it.
load common

letters() {
	cat "$DEMO/golden/predictions.jsonl"
}

eval_mini() {
	vqlm-eval -r "$DEMO/mini-sqa/problems.json" "$@"
}

# A whole run of ours over the first N questions.
whole_run() {
	letters | head -"$1" | jq -c -s '{vqlm: "answers", producer: "test", ids: [.[].question_id]}'
	letters | head -"$1"
	echo '{"vqlm":"totals"}'
}

@test "the golden letters of the small model give its table" {
	run -0 --separate-stderr bash -c "vqlm-eval -r '$DEMO/mini-sqa/problems.json' < '$DEMO/golden/predictions.jsonl'"
	[ -z "$stderr" ]
	[[ "${lines[1]}" == *"all 2000 questions of split test" ]]
	[[ "$output" == *"NAT"*"SOC"*"LAN"*"TXT"*"IMG"*"NO"*"G1-6"*"Avg"* ]]
	[[ "$output" != *"G7-12"* ]] # no question of these grades
	[[ "$output" == *"1974 right of 2000 asked; counted as wrong: 0 unparsed, 0 outside the choices, 0 missing"* ]]
}

@test "JSON classes agree with a count made by jq" {
	eval_mini -f json "$DEMO/golden/predictions.jsonl" >table.json
	jq -s '(.[0] | with_entries(select(.value.split == "test"))) as $p | .[1:] as $a
		| [$a[] | {p: $p[.question_id], t: .text} | .right = ((.t | explode[0]) - 65 == .p.answer)]
		| {NAT: map(select(.p.subject == "natural science")), SOC: map(select(.p.subject == "social science")),
			LAN: map(select(.p.subject == "language science")), TXT: map(select(.p.hint != "")),
			IMG: map(select(.p.image)), NO: map(select(.p.hint == "" and (.p.image | not))),
			"G1-6": map(select(.p.grade | ltrimstr("grade") | tonumber <= 6)), Avg: .}
		| map_values({n: length, right: (map(select(.right)) | length)})' \
		"$DEMO/mini-sqa/problems.json" "$DEMO/golden/predictions.jsonl" >want.json
	jq '.classes | map_values({n, right})' table.json | diff <(jq -S . want.json) <(jq -S . -)
	[ "$(jq '.classes.Avg | .acc == 100 * .right / .n and .lo < .acc and .acc < .hi' table.json)" = true ]
	[ "$(jq .partial table.json)" = false ]
}

@test "LLaVA's published answers give the published accuracies" {
	need_data scienceqa/llava_test_CQM-A.json
	local d=$DATA/scienceqa
	run -0 vqlm-eval -f json -r "$d/llava_test_CQM-A.json" "$d/test_sqa_llava_lcs_558k_sqa_12e_vicuna_v1_3_13b.json"
	[ "$(jq -c '[.right, .n, .unparsed, .outside, .missing]' <<<"$output")" = "[3863,4241,3,1,0]" ]
	figure "LLaVA-13B v1.3: $(jq -r '"\(.right)/\(.n) = \(.classes.Avg.acc * 100 | round / 100) %"' <<<"$output")"
	run -0 vqlm-eval -f json -r "$d/llava_test_CQM-A.json" "$d/llava-v1.5-13b_output.jsonl"
	[ "$(jq -c '[.right, .n, (.classes.IMG.acc * 100 | round)]' <<<"$output")" = "[3155,4241,7164]" ]
	figure "LLaVA-1.5-13B: $(jq -r '"\(.right)/\(.n) = \(.classes.Avg.acc * 100 | round / 100) %, image subset \(.classes.IMG.acc * 100 | round / 100) %"' <<<"$output")"
	# The same answers in the {results, outputs} form, and as lines.
	run -0 vqlm-eval -f json -r "$d/llava_test_CQM-A.json" "$d/llava-v1.5-13b_result.json"
	[ "$(jq .right <<<"$output")" = 3155 ]
	jq -c '.outputs | to_entries[] | {question_id: .key, text: .value}' "$d/llava-v1.5-13b_result.json" >lines.jsonl
	run -0 vqlm-eval -f json -r "$d/llava_test_CQM-A.json" lines.jsonl
	[ "$(jq .right <<<"$output")" = 3155 ]
	jq 'del(.outputs)' "$d/llava-v1.5-13b_result.json" >results.json
	run -0 vqlm-eval -f json -r "$d/llava_test_CQM-A.json" results.json
	[ "$(jq .right <<<"$output")" = 3155 ]
}

@test "a LLaVA conversation file and problems.json give the same accuracy" {
	run -0 eval_mini -f json "$DEMO/golden/predictions.jsonl"
	local want
	want=$(jq -S '.classes | {TXT, IMG, NO, Avg}' <<<"$output")
	run -0 vqlm-eval -f json -r "$DEMO/mini-sqa/llava_test_CQM-A.json" "$DEMO/golden/predictions.jsonl"
	diff <(echo "$want") <(jq -S .classes <<<"$output")
}

@test "a run that asked part of the split says so and counts only that part" {
	whole_run 40 >part.jsonl
	run -0 --separate-stderr eval_mini part.jsonl
	[[ "$output" == *"partial run, 40 of 2000 questions of split test"* ]]
	[[ "$output" == *" right of 40 asked"* ]]
}

@test "shards that follow one another are one run" {
	whole_run 2000 | jq -c 'if .vqlm == "answers" then .ids |= .[:900] else . end' | awk 'NR <= 901' >a.jsonl
	echo '{"vqlm":"totals"}' >>a.jsonl
	whole_run 2000 | jq -c 'if .vqlm == "answers" then .ids |= .[900:] else . end' | awk 'NR == 1 || NR > 901' >b.jsonl
	run -0 --separate-stderr bash -c "cat a.jsonl b.jsonl | vqlm-eval -f json -r '$DEMO/mini-sqa/problems.json'"
	[ "$(jq -c '[.right, .n]' <<<"$output")" = "[1974,2000]" ]
	# The first shard's totals lost: the second opening shows it.
	run -3 --separate-stderr bash -c "head -901 a.jsonl | cat - b.jsonl | vqlm-eval -r '$DEMO/mini-sqa/problems.json'"
	[[ "$stderr" == "vqlm-eval: stdin: line 902: cut: the answers that open in line 1 have no totals"* ]]
}

# shard I/N [jq of the opening]: part I of the first 60 questions, one in N, as vqlm-infer writes it.
shard() {
	letters | head -60 | awk -v i="${1%/*}" -v n="${1#*/}" 'NR % n == i % n' >lines
	jq -c -s --arg shard "$1" '{vqlm: "answers", producer: "test", model: {sha256: "m"}, data: {sha256: "d"}, ids: [.[].question_id],
		n_asked: 60, shard: $shard, params: {kv: 16}}'" | ${2:-.}" lines
	cat lines
	echo '{"vqlm":"totals"}'
}

@test "the files of all shards are one run, in any order" {
	local i
	for i in 1 2 3; do shard $i/3 >$i.jsonl; done
	run -0 --separate-stderr eval_mini -f json 3.jsonl 1.jsonl - <2.jsonl
	[ "$(jq -r '"\(.n) \(.missing) \(.answers)"' <<<"$output")" = "60 0 3.jsonl and 2 more" ]
	local all=$output
	whole_run 60 >whole.jsonl
	run -0 --separate-stderr eval_mini -f json whole.jsonl
	diff <(jq .classes <<<"$all") <(jq .classes <<<"$output")
	run -0 --separate-stderr eval_mini -f json -b <(cat 1.jsonl 2.jsonl 3.jsonl) whole.jsonl
	[ "$(jq .baseline.classes.Avg.n <<<"$output")" = 60 ]
}

@test "shards that are missing, doubled, mixed or of another run are refused (3)" {
	refused() { # message, files
		local want=$1
		shift
		run -3 --separate-stderr eval_mini "$@"
		[ -z "$output" ]
		[ "${#stderr_lines[@]}" -eq 1 ]
		# shellcheck disable=SC2053 # a pattern
		[[ "$stderr" == "vqlm-eval: "$want ]] || { echo "$stderr"; false; }
	}
	local i key
	for i in 1 2 3; do shard $i/3 >$i.jsonl; done
	refused "1.jsonl: the run that opens in line 1 lacks 1 of its 3 shards: 2/3; name the files of all of them" 1.jsonl 3.jsonl
	shard 1/20 >one.jsonl
	refused "one.jsonl: "*" lacks 19 of its 20 shards: 2/20, "*" 9/20, ...; name the files of all of them" one.jsonl
	refused "1.jsonl: line 1: shard 1/3 came before" 1.jsonl 2.jsonl 3.jsonl 1.jsonl
	shard 2/4 >quarter.jsonl
	refused "quarter.jsonl: line 1: shard 2/4, but the run that opens in 1.jsonl line 1 is in 3 shards"* 1.jsonl quarter.jsonl 3.jsonl
	whole_run 60 | jq -c 'if .vqlm == "answers" then {model: {sha256: "m"}, data: {sha256: "d"}, n_asked: 60, params: {kv: 16}} + . else . end' >whole.jsonl
	refused "whole.jsonl: line 1: shard none, but the run that opens in 1.jsonl line 1 is in 3 shards"* 1.jsonl whole.jsonl
	for key in '.model.sha256 = "x"' '.data.sha256 = "x"' '.params.kv = 8' '.producer = "x"' '.n_asked = 61' 'del(.model)' '.split = "val"'; do
		shard 2/3 "$key" >other.jsonl
		refused "other.jsonl: line 1: '"*"' is "*", in the run before it was "*"; only parts of one run are added up" 1.jsonl other.jsonl 3.jsonl
	done
	for key in '"0/3"' '"4/3"' '"2"' '"/3"' '"2/"' 2 '"1/1000001"'; do
		shard 2/3 ".shard = $key" >other.jsonl
		refused "other.jsonl: line 1: 'shard': want I/N with I of 1..N, got "* 1.jsonl other.jsonl 3.jsonl
	done
	# A list of ids that lost one, with its answer; and one that has another shard's.
	shard 2/3 'del(.ids[0])' | sed 2d >less.jsonl
	refused "1.jsonl: all 3 shards of the run that opens in line 1 ask 59 questions, want 60" 1.jsonl less.jsonl 3.jsonl
	id=$(jq -r '.ids[0] // empty' 1.jsonl)
	shard 2/3 ".ids[0] = \"$id\"" | sed "2s/.*/{\"question_id\":\"$id\",\"text\":\"A\"}/" >overlap.jsonl
	refused "overlap.jsonl: line 2: question_id '$id' came before, in 1.jsonl line 2" 1.jsonl overlap.jsonl 3.jsonl
	# A shard that did not end.
	sed '$d' 2.jsonl >cut.jsonl
	refused "cut.jsonl: line 21: cut: the answers that open in line 1 have no totals"* 1.jsonl cut.jsonl 3.jsonl
}

@test "answers cut at any line are refused (3), and cut inside a line too" {
	whole_run 30 >whole.jsonl
	run -0 eval_mini whole.jsonl
	local n size at
	n=$(wc -l <whole.jsonl) size=$(wc -c <whole.jsonl)
	for ((at = 0; at < n; at++)); do
		head -"$at" whole.jsonl >cut.jsonl
		run -3 --separate-stderr eval_mini cut.jsonl
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-eval: cut.jsonl: "* ]]
	done
	for ((at = 1; at < size - 1; at += 97)); do
		head -c "$at" whole.jsonl >cut.jsonl
		run -3 --separate-stderr eval_mini cut.jsonl
		[ -z "$output" ]
		[ "${#stderr_lines[@]}" -eq 1 ]
	done
}

@test "nothing on stdin means that the tool before failed (3)" {
	run -3 --separate-stderr bash -c "vqlm-eval -r '$DEMO/mini-sqa/problems.json' < /dev/null"
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-eval: stdin: want answers, got nothing"* ]]
}

@test "bad answers are refused (3) and the line is named" {
	refused() { # text of stdin, what the message must hold
		run -3 --separate-stderr bash -c "printf '%b' '$1' | vqlm-eval -r '$DEMO/mini-sqa/problems.json'"
		[ -z "$output" ]
		[ "${#stderr_lines[@]}" -eq 1 ]
		[[ "$stderr" == "vqlm-eval: stdin: line $2"* ]] || { echo "$stderr"; false; }
	}
	local ok='{"question_id":"1","text":"D"}\n'
	refused "$ok$ok" "2: question_id '1' came before, in line 1"
	refused "$ok"'{"question_id":"999999","text":"D"}\n' "2: the references have no question '999999'"
	refused "$ok"'{"question_id":"2","text":"\\xff"}\n' "2: bad JSON"
	refused "$ok"'{"question_id":"2"}\n' "2: question_id '2': want 'text'"
	refused "$ok"'{"text":"A"}\n' "2: want 'question_id'"
	refused "$ok"'{"question_id":"2","text":"A","text":"B"}\n' "2: bad JSON"
	refused "$ok"'[1]\n' "2: want an answer"
	refused "$ok"'{"vqlm":"totals"}\n' "2: totals without an opening line"
	refused '{"vqlm":"answers","ids":["1"]}\n{"question_id":"2","text":"A"}\n{"vqlm":"totals"}\n' \
		"2: question '2' was not asked"
	run -3 --separate-stderr bash -c "printf '%b' '{\"vqlm\":\"answers\",\"ids\":[\"x\"]}\n{\"vqlm\":\"totals\"}\n' | vqlm-eval -r '$DEMO/mini-sqa/problems.json'"
	[[ "$stderr" == *"id 'x' was asked, and the references have no such question"* ]]
	run -3 --separate-stderr bash -c "echo '{\"answers\":1}' | vqlm-eval -r '$DEMO/mini-sqa/problems.json'"
	[ "${#stderr_lines[@]}" -eq 1 ]
}

@test "bad references are refused (3), absent ones are a failure (4)" {
	run -4 --separate-stderr vqlm-eval -r no-such-file "$DEMO/golden/predictions.jsonl"
	[[ "$stderr" == "vqlm-eval: no-such-file: cannot open"* ]]
	run -4 --separate-stderr eval_mini no-such-answers
	[[ "$stderr" == "vqlm-eval: no-such-answers: cannot open"* ]]
	run -3 --separate-stderr eval_mini -s evening "$DEMO/golden/predictions.jsonl"
	[[ "$stderr" == *"pid_splits.json: want a split 'evening'"* ]]
	echo '{"1":{"choices":["a","b"],"answer":2}}' >bad.json
	run -3 --separate-stderr vqlm-eval -r bad.json "$DEMO/golden/predictions.jsonl"
	[[ "$stderr" == "vqlm-eval: bad.json: problem '1': 'answer'"* ]]
	echo '[{"id":"1","conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"maybe"}]}]' >bad.json
	run -3 --separate-stderr vqlm-eval -r bad.json "$DEMO/golden/predictions.jsonl"
	[[ "$stderr" == *"item '1': want a gpt turn of the form C"*"'maybe'"* ]]
	echo '[{' >bad.json
	run -3 --separate-stderr vqlm-eval -r bad.json "$DEMO/golden/predictions.jsonl"
	[[ "$stderr" == "vqlm-eval: bad.json: line "*"bad JSON"* ]]
}

@test "the baseline is compared question by question" {
	# Two right answers spoilt, none mended.
	letters | jq -c 'if .question_id == "1" or .question_id == "2" then .text = "no idea" else . end' >worse.jsonl
	run -0 eval_mini -f json -b "$DEMO/golden/predictions.jsonl" worse.jsonl
	[ "$(jq -c '.baseline.classes.Avg | [.lost, .gained, .changed, .n, .p_exact, .p_mid]' <<<"$output")" = "[2,0,2,2000,0.5,0.25]" ]
	[ "$(jq -c '[.unparsed, .right]' <<<"$output")" = "[2,1972]" ]
	run -0 eval_mini -b "$DEMO/golden/predictions.jsonl" worse.jsonl
	[[ "$output" == *"against $DEMO/golden/predictions.jsonl (98.70 %): -0.10 points"*"2 lost, 0 gained"*"p 0.5 exact, 0.25 mid-p"* ]]
	# Only what both were asked counts.
	whole_run 10 >ten.jsonl
	run -0 eval_mini -f json -b ten.jsonl worse.jsonl
	[ "$(jq -c '.baseline.classes.Avg.n' <<<"$output")" = 10 ]
}

@test "logits of a run are compared with a baseline's" {
	infer() { vqlm-infer -q -m "$DEMO/mini-llava" -d "$DEMO/mini-sqa/llava_test_CQM-A.json" --limit 12 "$@" >/dev/null; }
	infer --logits a.vqs
	vqlm-calib -q -n 0 -m "$DEMO/mini-llava" | vqlm-search -q --method rtn -w 8 -a 8 | vqlm-pack -q -o m.vqm
	infer -m m.vqm --logits b.vqs
	run -0 --separate-stderr vqlm-eval -f json --logits a.vqs --baseline-logits a.vqs
	[ "$(jq '.logits | .n == 12 and .kl_mean == 0 and .kl_max == 0 and .same_top == 12' <<<"$output")" = true ]
	run -0 --separate-stderr vqlm-eval -f json --logits b.vqs --baseline-logits a.vqs
	[ "$(jq '.logits | .kl_mean > 0 and .kl_mean < 0.01 and .kl_max >= .kl_mean' <<<"$output")" = true ]
	head -c -100 a.vqs >cut.vqs
	run -3 --separate-stderr vqlm-eval --logits b.vqs --baseline-logits cut.vqs
	[[ "$stderr" == "vqlm-eval: cut.vqs: "* ]]
	infer --limit 11 --logits less.vqs
	run -3 --separate-stderr vqlm-eval --logits b.vqs --baseline-logits less.vqs
	[[ "$stderr" == *"has more questions"* ]]
}

@test "TSV and Markdown hold the numbers of JSON" {
	eval_mini -f json "$DEMO/golden/predictions.jsonl" >t.json
	eval_mini -f tsv "$DEMO/golden/predictions.jsonl" >t.tsv
	[ "$(head -1 t.tsv)" = $'class\tn\tright\tacc\tse\tlo\thi' ]
	diff <(tail -n +2 t.tsv | cut -f1-3 | sort) <(jq -r '.classes | to_entries[] | [.key, .value.n, .value.right] | @tsv' t.json | sort)
	run -0 eval_mini -f markdown "$DEMO/golden/predictions.jsonl"
	[ "${lines[0]}" = "| NAT | SOC | LAN | TXT | IMG | NO | G1-6 | Avg |" ]
	[[ "${lines[2]}" == *"$(jq -r '.classes.Avg.acc' t.json)"* ]]
}

@test "--parser says how a letter is read, --split which questions are counted" {
	id=$(jq -r 'to_entries | map(select(.value.split == "test"))[0].key' "$DEMO/mini-sqa/problems.json")
	for text in 'The answer is B.' 'ANSWER: B.' ' B.'; do
		jq -cn --arg id "$id" --arg text "$text" '{question_id: $id, text: $text}' >a.jsonl
		for p in llava qvlm lmms; do
			eval_mini -f json --parser "$p" a.jsonl | jq .unparsed
		done | tr '\n' ' '
	done >unparsed
	[ "$(cat unparsed)" = "0 1 1 1 0 1 1 1 0 " ]
	run -2 --separate-stderr eval_mini --parser gpt a.jsonl
	[ "$(eval_mini -f json --split val a.jsonl 2>err | jq .classes.Avg.n)" != "$(eval_mini -f json --split test a.jsonl | jq .classes.Avg.n)" ]
}

@test "under --min-acc the status is 1 and the table is written all the same" {
	run -0 --separate-stderr eval_mini -m 98.7 "$DEMO/golden/predictions.jsonl"
	run -1 --separate-stderr eval_mini -m 98.71 "$DEMO/golden/predictions.jsonl"
	[[ "$output" == *"1974 right of 2000"* ]]
	[ "$stderr" = "vqlm-eval: accuracy 98.70 % is below --min-acc 98.71" ]
	run -2 --separate-stderr eval_mini -m 101 "$DEMO/golden/predictions.jsonl"
	[[ "$stderr" == *"0..100"* ]]
}

@test "wrong command lines are refused (2) in one line" {
	run -2 --separate-stderr vqlm-eval
	[[ "$stderr" == "vqlm-eval: want -r, "* ]]
	run -2 --separate-stderr eval_mini - a -
	[[ "$stderr" == "vqlm-eval: standard input cannot be read twice"* ]]
	run -2 --separate-stderr vqlm-eval --task ppl a b
	[[ "$stderr" == "vqlm-eval: want one file of scored tokens, got 'b' too; cat joins several"* ]]
	run -2 --separate-stderr vqlm-eval --logits a
	[[ "$stderr" == *"come together"* ]]
	run -2 --separate-stderr eval_mini -f xml
	[[ "$stderr" == *"text|tsv|json|markdown"* ]]
}

@test "a table that cannot be written is a failure of the system (4)" {
	run -4 --separate-stderr bash -c "vqlm-eval -r '$DEMO/mini-sqa/problems.json' '$DEMO/golden/predictions.jsonl' > /dev/full"
	[ "$stderr" = "vqlm-eval: stdout: cannot write: No space left on device" ]
	run -4 --separate-stderr bash -c "vqlm-eval -r '$DEMO/mini-sqa/problems.json' '$DEMO/golden/predictions.jsonl' >&-"
	[[ "$stderr" == "vqlm-eval: stdout: "* ]]
	run -0 eval_mini -o table.txt "$DEMO/golden/predictions.jsonl"
	[[ "$(cat table.txt)" == *"1974 right of 2000"* ]]
	[ ! -e table.txt.part ]
}
