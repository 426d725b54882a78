#!/usr/bin/env bats
# Activation schemes: search, pack and run a model with each.
load common

setup_file() {
	export OMP_WAIT_POLICY=passive
	cd "$BATS_FILE_TMPDIR" || return 1
	demo=$BATS_TEST_DIRNAME/../../pipelines/demo
	"$BUILD/bin/vqlm-calib" -q -m "$demo/mini-llava" -n 24 -d "$demo/mini-sqa/llava_train_calib_CQM-A.json" \
		| "$BUILD/bin/vqlm-entropy" -q >plan.vqs
	"$BUILD/bin/vqlm-infer" -q --float32 -m "$demo/mini-llava" -d "$demo/mini-sqa/llava_val_CQM-A.json" --limit 60 \
		--logits full.logits -o full.jsonl
}

P() { echo "$BATS_FILE_TMPDIR/plan.vqs"; }

# kl NAME: mean divergence of NAME's logits from full precision.
kl() {
	vqlm-eval -r "$DEMO/mini-sqa/problems.json" -f json --logits "$1.logits" \
		--baseline-logits "$BATS_FILE_TMPDIR/full.logits" "$1.jsonl" | jq .logits.kl_mean
}

@test "every scheme goes from search to answers, and each says its name" {
	need_program jq tar
	local acts range n
	for acts in group token static paper; do
		vqlm-search -q --method rtn -w 8 -a 8 --acts "$acts" <"$(P)" | vqlm-pack -q -o $acts.vqm
		run -0 vqlm-ls --check $acts.vqm
		vqlm-infer -q -m $acts.vqm -d "$DEMO/mini-sqa/llava_val_CQM-A.json" --limit 60 \
			--logits $acts.logits >$acts.jsonl
		[ "$(head -1 $acts.jsonl | jq -r .model.a.scheme)" = $acts ]
		[ "$(tar xOf $acts.vqm model.json | jq -r '.history[-2].params.a.scheme')" = $acts ]
		tar xOf $acts.vqm card.md | grep -q "\"scheme\":\"$acts\""
		run -0 vqlm-eval -r "$DEMO/mini-sqa/problems.json" $acts.jsonl
		case $acts in
		group) [[ "$output" == *"rtn, W8A8"* && "$output" != *"activations"* ]] ;;
		*) [[ "$output" == *"rtn, W8A8, activations $acts"* ]] ;;
		esac
		n=$(tar tf $acts.vqm | grep -c '\.range$' || true)
		range=$(tar xOf $acts.vqm decoder.layers.1.q_proj.weight.json | jq -r .attrs.act.range)
		case $acts in
		group | token) [ "$n" -eq 0 ] && [ "$range" = null ] ;;
		static) [ "$n" -gt 40 ] && [ "$range" = static ] ;;
		paper)
			[ "$n" -gt 40 ] && [ "$range" = channel ]
			range=$(tar xOf paper.vqm vision.layers.1.q_proj.weight.json | jq -r .attrs.act.range)
			[ "$range" = position ]
			;;
		esac
		figure "W8A8 $acts: mean divergence $(kl $acts) on 60 questions"
		# Eight bits stay close whatever the scheme.
		[ "$(jq -n "$(kl $acts) < 0.1")" = true ]
	done
}

@test "stored ranges change no byte with the threads, and a cut search is resumed to the same" {
	local acts method
	for acts in static paper; do
		method=$([ $acts = static ] && echo layerwise || echo rtn)
		vqlm-search -q -t 1 --method "$method" --acts "$acts" --rows 300 <"$(P)" >one.vqs
		vqlm-search -q -t 2 --method "$method" --acts "$acts" --rows 300 <"$(P)" >two.vqs
		cmp one.vqs two.vqs
		head -c $(($(stat -c %s one.vqs) / 2)) one.vqs >x.part
		run -0 --separate-stderr bash -c "vqlm-search -v --method $method --acts $acts --rows 300 \
			--resume x.part <'$(P)' >two.vqs"
		[[ "$stderr" == *"taken from the interrupted run"* ]]
		cmp one.vqs two.vqs
	done
}

@test "stored ranges without samples or without pictures are refused (3), whatever the method" {
	local method
	for method in rtn layerwise gptq; do
		run -3 --separate-stderr bash -c "vqlm-calib -q -m '$DEMO/mini-llava' -n 0 \
			| vqlm-search --method $method --acts paper"
		[[ "$stderr" == *"no calibration inputs"*"--acts paper"*"vqlm-calib"* ]]
	done
	need_program jq
	jq '[.[] | select(.image == null)]' "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" >text.json
	run -3 --separate-stderr bash -c "vqlm-calib -q -m '$DEMO/mini-llava' -n 8 -d text.json \
		| vqlm-search -q --method rtn --acts static"
	[[ "$stderr" == *"'vision.layers.0.q_proj.weight'"*"no calibration sample has a picture"* ]]
	vqlm-calib -q -m "$DEMO/mini-llava" -n 8 -d text.json \
		| vqlm-search -q --method rtn --acts static --parts llm >llm.vqs
}

@test "schemes and the options that they contradict are a wrong command line (2)" {
	local bad
	for bad in "--acts none" "--acts token --act-group 64" "--acts token --act-group 128" \
		"--acts paper --act-group 0" "--acts paper --a-sym" "--acts static --act-lp 0"; do
		# shellcheck disable=SC2086
		run -2 --separate-stderr vqlm-search $bad <"$(P)"
		[ -z "$output" ]
	done
	vqlm-search -q --method rtn --act-group 0 <"$(P)" >a.vqs
	vqlm-search -q --method rtn --acts token --act-group 0 <"$(P)" >b.vqs
	# The same grids by another name: only the headers differ.
	diff <(vqlm-ls --json a.vqs | jq -c 'select(.name)') <(vqlm-ls --json b.vqs | jq -c 'select(.name)')
}
