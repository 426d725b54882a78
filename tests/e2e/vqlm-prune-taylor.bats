#!/usr/bin/env bats
# vqlm-prune --criterion taylor: scores by the gradients of the weights.
load common

CALIB=$BATS_TEST_DIRNAME/../../pipelines/demo/mini-sqa/llava_train_calib_CQM-A.json

# Tokens and pixels of the samples that both tools choose, as raw files.
samples() {
	local i k
	vqlm-calib -q -m "$DEMO/mini-llava" -d "$CALIB" -n "$1" --influence-samples 0 --bits 8 -o c.vqs
	mkdir samples
	for ((i = 0; i < $1; i++)); do
		vqlm-ls --cat "input/$i/tokens" c.vqs >"samples/$i.tokens"
		jq -r --arg id "$(vqlm-ls --cat calib c.vqs | jq -r ".ids[$i]")" '.[] | select(.id == $id) | .conversations[1].value' "$CALIB" >"samples/$i.answer"
		vqlm-ls --cat "input/$i/pixels" c.vqs >"samples/$i.pixels" 2>/dev/null || rm "samples/$i.pixels"
	done
}

taylor() { vqlm-prune -q -m "$DEMO/mini-llava" -d "$CALIB" --criterion taylor "$@"; }

@test "Taylor scores of every tensor are PyTorch's" {
	need_program /usr/bin/python3
	/usr/bin/python3 -c 'import numpy, torch' 2>/dev/null || skip "python3-torch is not installed"
	samples 6
	for what in "1 all" "4 all" "4 answers"; do
		set -- $what
		taylor --samples 6 --taylor-batch "$1" $([ "$2" = all ] || echo --answers) --table >t.csv
		run -0 /usr/bin/python3 "$BATS_TEST_DIRNAME/taylor.py" "$DEMO/mini-llava" samples "$@" t.csv
		figure "Taylor scores, batches of $1, $2: $output"
		jq -e '.samples == 6 and .tensor < 1e-4 and .block < 1e-4' <<<"$output"
	done
}

@test "the table has the nine columns of the published files and removes in its own order" {
	taylor --samples 4 --table >t.csv
	[ "$(head -1 t.csv)" = block_name,all_weight_scores ]
	[ "$(tail -n +2 t.csv | tr -cd ',\n' | sort | uniq -c | tr -s ' ')" = " 5 ,,,,,,,,," ]
	low=$(tail -n +2 t.csv | awk -F, '{s = 0; for (i = 2; i <= NF; i++) s += $i; print s, NR - 1}' | sort -g | head -2 | cut -d' ' -f2 | sort | tr '\n' ' ')
	taylor --samples 4 -n 2 --no-keep -o p.vqs
	kept=$(vqlm-ls --json p.vqs | jq -r 'select(.header) | .header.history[-1].params.kept[]')
	[ "$(comm -23 <(seq 0 4) <(echo "$kept") | tr '\n' ' ')" = "$low" ]
	# The same choice from the table.
	vqlm-prune -q -m "$DEMO/mini-llava" --scores t.csv -n 2 --no-keep -o q.vqs
	cmp <(vqlm-ls --json p.vqs | jq -c 'select(.name) | [.name, .xxh64]') <(vqlm-ls --json q.vqs | jq -c 'select(.name) | [.name, .xxh64]')
}

@test "batches of other sizes weigh samples otherwise; threads change nothing" {
	taylor --samples 5 --taylor-batch 1 --table >one.csv
	taylor --samples 5 --taylor-batch 5 --table >all.csv
	! cmp -s one.csv all.csv
	taylor --samples 5 --taylor-batch 5 --table -t 1 >t1.csv
	taylor --samples 5 --taylor-batch 5 --table -t 4 >t4.csv
	cmp t1.csv t4.csv
}

@test "an iterative choice is that of pruning twice" {
	kept() { vqlm-ls --json "$1" | jq -c 'select(.header) | .header.history[-1].params.kept'; }
	taylor --samples 4 -n 2 --no-keep --iterative -o both.vqs
	taylor --samples 4 -n 1 --no-keep -o one.vqs
	vqlm-prune -q -m one.vqs -d "$CALIB" --criterion taylor --samples 4 -n 1 --no-keep -o two.vqs
	[ "$(kept both.vqs)" = "$(kept two.vqs)" ]
	[ "$(kept two.vqs | jq length)" -eq 3 ]
}

@test "--taylor-batch out of range, or no samples, is refused (2)" {
	for v in 0 65537 x 1.5 ""; do
		run -2 --separate-stderr taylor --taylor-batch "$v" -n 1 --no-keep
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-prune: "*"--taylor-batch"*1..65536* ]]
	done
	run -2 --separate-stderr vqlm-prune -m "$DEMO/mini-llava" --criterion taylor -n 1 --no-keep
	[[ "$stderr" == "vqlm-prune: --criterion taylor wants samples"* ]]
}
