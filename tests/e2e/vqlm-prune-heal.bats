#!/usr/bin/env bats
# vqlm-prune --heal: new weights for what is left, and what is refused.
load common

CALIB=$BATS_TEST_DIRNAME/../../pipelines/demo/mini-sqa/llava_train_calib_CQM-A.json

heal() { vqlm-prune -m "$DEMO/mini-llava" -d "$CALIB" --answers --heal-samples 24 "$@"; }
weights() { vqlm-ls --json "$1" | jq -c 'select(.kind == "TENSOR") | [.name, .dtype, .xxh64]'; }
changed() { diff <(weights "$1") <(weights "$2") | grep '^>' | jq -Rr '.[2:] | fromjson | .[0]'; }

@test "linear changes the down projection before each removed run alone" {
	vqlm-prune -q -m "$DEMO/mini-llava" --blocks 2,4 -o cut.vqs
	run -0 --separate-stderr heal -v --heal-samples 64 --blocks 2,4 --heal linear -o l.vqs
	[ -z "$output" ]
	[ "$(changed cut.vqs l.vqs | tr '\n' ' ')" = "decoder.layers.1.down_proj.weight decoder.layers.2.down_proj.weight " ]
	diff <(weights cut.vqs | jq -c '.[:2]') <(weights l.vqs | jq -c '.[:2]')
	[ "$(vqlm-ls --json l.vqs | jq -c 'select(.header) | .header.history[-1].params.heal | [.way, .samples, .answers, .seed]')" = '["linear",64,true,0]' ]
}

@test "lora changes every linear of the decoder and nothing else, and lowers the held-out divergence" {
	vqlm-prune -q -m "$DEMO/mini-llava" --blocks 4 -o cut.vqs
	run -0 --separate-stderr heal -v --blocks 4 --heal lora --lora-steps 6 --lora-rate 0.001 -o a.vqs
	[ "$(changed cut.vqs a.vqs | sort)" = "$(weights cut.vqs | jq -r '.[0]' | grep -E 'decoder.layers.*proj.weight' | sort)" ]
	first=$(grep 'step 0 of 6, held-out' <<<"$stderr" | grep -oE '[0-9.]+$')
	best=$(grep 'are kept, held-out' <<<"$stderr" | grep -oE '[0-9.]+$')
	jq -en "$best < $first"
	[ "$(vqlm-ls --json a.vqs | jq -c 'select(.header) | .header.history[-1].params.heal | [.way, .rank, .steps, .rate]')" = '["lora",8,6,0.001]' ]
}

@test "threads change no byte of either" {
	for way in linear "lora --lora-steps 3"; do
		# shellcheck disable=SC2086 # words on purpose
		for t in 1 4; do heal -q -t $t --blocks 3 --heal $way -o "t$t.vqs"; done
		cmp t1.vqs t4.vqs
	done
}

@test "a training that was stopped goes on to the same bytes" {
	heal -q --heal-samples 12 --blocks 3 --heal lora --lora-steps 8 -o whole.vqs
	train=(-q -m "$DEMO/mini-llava" -d "$CALIB" --answers --heal-samples 12 --blocks 3 --heal lora --lora-steps 8 --lora-state s)
	vqlm-prune "${train[@]}" -o part.vqs 3>&- &
	while [ ! -e s ]; do kill -0 $! && sleep 0.02; done
	kill -TERM $!
	status=0
	wait $! || status=$?
	[ "$status" -eq 75 ]
	[ ! -e part.vqs ]
	vqlm-prune "${train[@]}" -o part.vqs
	cmp <(weights whole.vqs) <(weights part.vqs)
	# From the end there is nothing to do but to merge.
	vqlm-prune "${train[@]}" -o again.vqs
	cmp part.vqs again.vqs
}

@test "the state of another training, a damaged one and another file are refused (3)" {
	heal -q --blocks 3 --heal lora --lora-steps 2 --lora-state s -o a.vqs
	run -3 --separate-stderr heal --blocks 3 --heal lora --lora-steps 3 --lora-state s -o b.vqs
	[[ "$stderr" == "vqlm-prune: s: the state is of another model"* ]]
	run -3 --separate-stderr heal --blocks 2 --heal lora --lora-steps 2 --lora-state s -o b.vqs
	[[ "$stderr" == "vqlm-prune: s: the state is of another model"* ]]
	head -c 5000 s >cut
	run -3 --separate-stderr heal --blocks 3 --heal lora --lora-steps 2 --lora-state cut -o b.vqs
	[[ "$stderr" == "vqlm-prune: cut: the state is damaged"* ]]
	echo hello >text
	run -3 --separate-stderr heal --blocks 3 --heal lora --lora-steps 2 --lora-state text -o b.vqs
	[[ "$stderr" == "vqlm-prune: text: want the state of a training"* ]]
	[ ! -e b.vqs ]
}

@test "a run at the start has no block before it (2)" {
	run -2 --separate-stderr heal --blocks 0 --heal linear -o l.vqs
	[[ "$stderr" == "vqlm-prune: --heal linear: block 0 goes"*"--heal lora"* ]]
	heal -q --blocks 0 --heal lora --lora-steps 1 -o l.vqs
}

@test "bad values of the options of --heal are refused with what is wanted (2)" {
	refuse() {
		run -2 --separate-stderr heal --blocks 3 "$@"
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-prune: "*"$want"* ]] || { echo "$stderr"; false; }
	}
	want="linear|lora" refuse --heal magic
	for v in 1 0 65537 x ""; do want="2..65536" refuse --heal lora --heal-samples "$v"; done
	for v in 0 257 x; do want="1..256" refuse --heal lora --lora-rank "$v"; done
	for v in 0 1000001 x; do want="1..1000000" refuse --heal lora --lora-steps "$v"; done
	for v in -1 1.5 nan x; do want="lora-rate" refuse --heal lora --lora-rate "$v"; done
	want="--lora-state wants --heal lora" refuse --heal linear --lora-state s
	want="--blocks wants no criterion" refuse --lora-steps 3
	run -2 --separate-stderr vqlm-prune -m "$DEMO/mini-llava" --blocks 3 --heal lora
	[[ "$stderr" == "vqlm-prune: --heal wants samples"* ]]
	run -2 --separate-stderr vqlm-prune -m "$DEMO/mini-llava" -d "$CALIB" --table --heal lora
	[[ "$stderr" == "vqlm-prune: --table wants no --heal"* ]]
}
