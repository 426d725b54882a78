#!/usr/bin/env bats
# What may not change the bytes: the instruction set, the number of threads, the way that input comes.
load common

# run_all SETTING NAME: the whole pipe on a small model under VAR=VALUE, its outputs as NAME.*.
run_all() {
	local name=$2
	(
		export "${1?}"
		vqlm-calib -q -m m -n 4 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" >"$name.calib"
		vqlm-entropy -q <"$name.calib" >"$name.plan"
		vqlm-search -q --method qvlm --rows 64 -w 4 -a 4 <"$name.plan" >"$name.searched"
		vqlm-pack -q <"$name.searched" >"$name.vqm"
		# Of one packed model, so that what differs differs here.
		vqlm-infer -q -m first.vqm -d "$DEMO/mini-sqa/llava_test_CQM-A.json" --limit 60 --max-tokens 4 --logits "$name.logits" \
			| jq -c '[.question_id, .text, .tokens]' >"$name.answers"
		vqlm-infer -q --float32 -m m -d "$DEMO/mini-sqa/llava_test_CQM-A.json" --limit 30 --score --logits "$name.full" >/dev/null
	)
}

# Hashes of a stream's records: its header names the kernel set, on purpose.
records() {
	vqlm-ls --json "$1" | jq -c 'select(.name) | [.name, .xxh64, .attrs]'
}

prepare() {
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" tiny m >/dev/null
	vqlm-calib -q -m m -n 0 | vqlm-search -q --method rtn -w 4 -a 4 | vqlm-pack -q -o first.vqm
}

@test "every instruction set gives the same calibration, the same search and the same logits, to the bit" {
	prepare
	run_all VQLM_CPU=generic generic
	local set n=0 f
	for set in avx2 avx512vnni neon neondot; do
		env VQLM_CPU=$set vqlm-ls -c generic.calib >/dev/null 2>&1 || continue # not on this machine
		run_all VQLM_CPU=$set $set
		for f in calib plan searched logits full; do
			diff <(records "generic.$f") <(records "$set.$f") || { echo "$set differs in $f"; false; }
		done
		diff generic.answers $set.answers
		n=$((n + 1))
	done
	figure "$n instruction sets beside the generic one: the same bits"
}

@test "the number of threads changes no byte" {
	prepare
	run_all OMP_NUM_THREADS=1 one # -t 0 would take all cores whatever this says
	local t f
	for t in 1 2 3 4; do
		run_all SLURM_CPUS_PER_TASK=$t "$t"
		for f in calib plan searched vqm logits full; do
			cmp "one.$f" "$t.$f"
		done
		diff one.answers "$t.answers"
	done
}

@test "a pipe, a file and another run give the same packed model" {
	prepare
	run_all VQLM_=0 a
	vqlm-calib -q -m m -n 4 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" \
		| vqlm-entropy -q \
		| vqlm-search -q --method qvlm --rows 64 -w 4 -a 4 \
		| vqlm-pack -q >piped.vqm
	cmp a.vqm piped.vqm
	vqlm-pack -q -o named.vqm <a.searched
	cmp a.vqm named.vqm
}
