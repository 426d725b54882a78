#!/usr/bin/env bats
# vqlm-search: the command line, interruptions, pieces, and what --dry-run promises.
load common

setup_file() {
	export OMP_WAIT_POLICY=passive
	cd "$BATS_FILE_TMPDIR" || return 1
	demo=$BATS_TEST_DIRNAME/../../pipelines/demo
	"$BUILD/bin/vqlm-calib" -m "$demo/mini-llava-outlier" -n 0 -o weights.vqs
	"$BUILD/bin/vqlm-calib" -m "$demo/mini-llava-outlier" -n 10 --checkpoint 7 \
		-d "$demo/mini-sqa/llava_train_calib_CQM-A.json" | "$BUILD/bin/vqlm-entropy" >plan.vqs
	"$BUILD/bin/vqlm-search" -q --rows 300 <plan.vqs >whole.vqs
}

W() { echo "$BATS_FILE_TMPDIR/weights.vqs"; }
P() { echo "$BATS_FILE_TMPDIR/plan.vqs"; }
WHOLE() { echo "$BATS_FILE_TMPDIR/whole.vqs"; } # P searched with --rows 300

@test "options out of range are a wrong command line (2), and the range is said" {
	local bad
	for bad in "-w 9" "-w 1" "-a 12" "--group 100" "--act-group 7" "--method worst" "--sweeps 101" "--rotate x" "--smooth 2" "--mixed 1.1" "--clip all" \
		"--parts llm,head" "--parts ," "--blocks 5-3" "--blocks x" "--veo maybe" "--eta -1" \
		"--gptaq 1.5" "--gptaq x" "--polish -1" "--awq-loss all" "--method awq --awq-loss joint --acts paper" \
		"--token-weights some" "--vision-weight much" "--vision-weight -1" "--veo-lambda -1"; do
		# shellcheck disable=SC2086
		run -2 --separate-stderr vqlm-search $bad <"$(W)"
		[ -z "$output" ]
		[ "${#stderr_lines[@]}" -eq 1 ]
		[[ "$stderr" == "vqlm-search: "* ]]
	done
}

@test "empty and cut input are refused (3) and nothing appears under the final name" {
	run -3 --separate-stderr vqlm-search --method rtn </dev/null
	[[ "$stderr" == "vqlm-search: stdin: "* ]]
	local n
	for n in 100000 150000 200000; do
		run -3 --separate-stderr bash -c "head -c $n '$(W)' | vqlm-search --method rtn -o x.vqs"
		[ -z "$output" ]
		[ ! -e x.vqs ]
		[[ "$stderr" == "vqlm-search: stdin: "* ]]
		[[ "$stderr" != *"stdin:"*"stdin:"* ]]
	done
}

@test "a method that wants inputs or a plan says which tool gives them (3)" {
	run -3 --separate-stderr vqlm-search --method layerwise <"$(W)"
	[[ "$stderr" == *"vqlm-calib"* ]]
	run -3 --separate-stderr bash -c "vqlm-calib -m '$DEMO/mini-llava' -n 2 \
		-d '$DEMO/mini-sqa/llava_train_calib_CQM-A.json' | vqlm-search --method qvlm"
	[[ "$stderr" == *"vqlm-entropy"* ]]
}

@test "output that cannot be written is a failure of the system (4)" {
	run -4 --separate-stderr bash -c "vqlm-search --method rtn <'$(W)' >/dev/full"
	[[ "$stderr" == "vqlm-search: stdout"* ]]
	run -4 --separate-stderr bash -c "vqlm-search --method rtn <'$(W)' >&-"
	run -4 --separate-stderr vqlm-search --method rtn --resume none.part <"$(W)"
	[[ "$stderr" == *"none.part"* ]]
}

@test "a killed search (kill -9) is resumed to the same bytes" {
	vqlm-search -q --rows 300 -o x.vqs <"$(P)" &
	local pid=$! i
	for i in $(seq 600); do # until the first block is out
		[ -s x.vqs.part ] && [ "$(stat -c %s x.vqs.part)" -gt 400000 ] && break
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.05
	done
	kill -9 "$pid" || true
	wait "$pid" || true
	[ ! -e x.vqs ]
	[ -s x.vqs.part ]
	run -0 --separate-stderr vqlm-search -v --rows 300 -o x.vqs --resume x.vqs.part <"$(P)"
	[[ "$stderr" == *"taken from the interrupted run"* ]]
	cmp x.vqs "$(WHOLE)"
	[ ! -e x.vqs.part ]
	[ ! -e x.vqs.part.resumed ]
}

@test "SIGTERM ends after the block at hand with 75, and the search can be resumed" {
	vqlm-search -q --rows 300 -o x.vqs <"$(P)" 2>err &
	local pid=$! i status=0
	for i in $(seq 600); do
		[ -s x.vqs.part ] && break
		sleep 0.05
	done
	kill -TERM "$pid"
	wait "$pid" || status=$?
	[ "$status" -eq 75 ]
	grep -q -- --resume err
	[ ! -e x.vqs ]
	vqlm-search -q --rows 300 -o x.vqs --resume x.vqs.part <"$(P)"
	cmp x.vqs "$(WHOLE)"
}

@test "resuming with other parameters is refused (3) and loses nothing" {
	head -c 900000 <(vqlm-search -q --method rtn <"$(W)") >x.vqs.part || true
	run -3 --separate-stderr vqlm-search --method rtn -w 5 -o y.vqs --resume x.vqs.part <"$(W)"
	[[ "$stderr" == *"x.vqs.part"*"other parameters"* ]]
	[ -s x.vqs.part ]
	run -0 --separate-stderr vqlm-search --method rtn -o x.vqs --resume x.vqs.part <"$(W)"
	cmp x.vqs <(vqlm-search -q --method rtn -l 1 <"$(W)")
}

@test "pieces at a checkpoint, concatenated, pack to the model of a single run" {
	vqlm-search -q --rows 300 --blocks 0-6 <"$(P)" >a.vqs
	vqlm-search -q --rows 300 --blocks 7-9 <"$(P)" >b.vqs
	mkdir pieces whole
	cat a.vqs b.vqs | vqlm-pack | tar xf - -C pieces
	vqlm-pack <"$(WHOLE)" | tar xf - -C whole
	[ "$(find pieces -type f | wc -l)" -gt 100 ]
	# Only the manifest tells them apart: it lists where the segments come from.
	diff -r --exclude=manifest.json pieces whole
}

@test "a piece that begins inside the vision tower scores its end as one run does" {
	vqlm-calib -q -m "$DEMO/mini-llava-outlier" -n 6 --checkpoint 2,4 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" \
		| vqlm-entropy -q >tower.vqs
	vqlm-search -q --rows 300 --blocks 0-3 <tower.vqs >whole.vqs
	vqlm-search -q --rows 300 --blocks 2-3 <tower.vqs >piece.vqs
	vqlm-ls --cat 'search/block/*-3' whole.vqs >whole.json
	[ "$(jq .veo whole.json)" = true ]
	vqlm-ls --cat 'search/block/*-3' piece.vqs | cmp - whole.json
}

# Codes of one linear of a searched stream.
codes() { vqlm-pack -q <"$1" | tar xO decoder.layers.2.down_proj.weight | sha256sum; }

# change_the_codes STREAM FLAGS MORE...: with each of MORE beside FLAGS the codes are others than STREAM's.
change_the_codes() {
	local than=$1 flags=$2 o
	shift 2
	for o; do
		# shellcheck disable=SC2086
		vqlm-search -q $flags $o <"$(P)" >other.vqs
		[ "$(codes "$than")" != "$(codes other.vqs)" ] || return 1
	done
}

# less_error_than_rtn BITS METHOD [FLAGS]: in every block, weights alone.
less_error_than_rtn() {
	local bits=$1 method=$2 rtn errors
	shift 2
	# "units A-B: error X -> Y": X is that of rounding to nearest.
	run -0 --separate-stderr bash -c "vqlm-search -v --method layerwise -w $bits -a 16 <'$(P)' >/dev/null"
	rtn=$(sed -n 's/.*: error \([^ ]*\) ->.*/\1/p' <<<"$stderr")
	run -0 --separate-stderr bash -c "vqlm-search -v --method $method -w $bits -a 16 $* <'$(P)' >/dev/null"
	errors=$(sed -n 's/.*: error \([^ ]*\), .*/\1/p' <<<"$stderr")
	figure "errors of blocks at W${bits}A16: rtn $(tr '\n' ' ' <<<"$rtn")$method $(tr '\n' ' ' <<<"$errors")"
	[ "$(wc -l <<<"$rtn")" -gt 3 ] || return 1
	paste <(echo "$rtn") <(echo "$errors") | awk '!($2 > 0 && $2 < $1) { bad = 1 } END { exit bad }'
}

@test "gptq says its errors and the damping that few tokens want, and every switch changes the codes" {
	run -0 --separate-stderr bash -c "vqlm-search -v --method gptq -a 16 --rows 300 <'$(P)' >gptq.vqs"
	[[ "$stderr" == *"error 0."*", loss "*", damping 0.1, "* ]]
	[[ "$stderr" == *"warning: at "*" places there were fewer than 8 tokens per input"* ]]
	change_the_codes gptq.vqs "--method gptq -a 16 --rows 300" --act-order "--gptaq 0.25" "--polish 3" --w-sym \
		"--w-clip mse" "--rotate hadamard" "--smooth 0.5"
}

@test "--keep-inputs passes calibration inputs and statistics on, byte for byte, and changes nothing else" {
	vqlm-search -q --method rtn <"$(P)" >plain.vqs
	vqlm-search -q --method rtn --keep-inputs <"$(P)" >kept.vqs
	[ "$(vqlm-ls plain.vqs | grep -cE '^(INPUT|STAT)')" -eq 0 ]
	diff <(vqlm-ls --json "$(P)" | jq -c 'select(.kind == "INPUT" or .kind == "STAT") | [.name, .xxh64]') \
		<(vqlm-ls --json kept.vqs | jq -c 'select(.kind == "INPUT" or .kind == "STAT") | [.name, .xxh64]')
	diff <(vqlm-ls --json plain.vqs | jq -c 'select(.name) | [.name, .xxh64]') \
		<(vqlm-ls --json kept.vqs | jq -c 'select(.name and .kind != "INPUT" and .kind != "STAT") | [.name, .xxh64]')
}

@test "gptq leaves less error in every block than rounding to nearest" {
	less_error_than_rtn 3 gptq --act-order
}

@test "awq says ratio and losses of every layer, and every switch changes the codes" {
	run -0 --separate-stderr bash -c "vqlm-search -v --method awq -a 4 --rows 300 <'$(P)' >awq.vqs"
	[ "$(grep -cE ': unit [0-9]+: qkv ratio 0(\.[0-9]+)? loss [^ ]+ -> [^ ]+ clip 0\.[0-9]+, o ' <<<"$stderr")" -eq 9 ]
	[ "$(grep -c ': unit 4: linear clip 0.[0-9]*, linear clip' <<<"$stderr")" -eq 1 ]
	[[ "$stderr" == *"block outputs evaluated"* ]]
	change_the_codes awq.vqs "--method awq -a 4 --rows 300" "--awq-loss joint" --awq-duo --w-sym
}

@test "awq leaves less error in every block than rounding to nearest" {
	less_error_than_rtn 4 awq
}

@test "a model of awq runs with its divided norms, and resumes to the same bytes" {
	local n
	vqlm-calib -q -m "$DEMO/mini-llava-outlier" -n 8 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" >in.vqs
	vqlm-search -q --method awq -w 8 -a 16 --rows 300 -o whole.vqs <in.vqs
	n=$(stat -c %s whole.vqs)
	head -c $((n * 6 / 10)) whole.vqs >cut.part
	run -0 --separate-stderr bash -c "vqlm-search -v --method awq -w 8 -a 16 --rows 300 --resume cut.part \
		-o again.vqs <in.vqs"
	[[ "$stderr" == *"taken from the interrupted run"* ]]
	cmp whole.vqs again.vqs
	vqlm-pack -q <whole.vqs >x.vqm
	jq -c '.[:40]' "$DEMO/mini-sqa/llava_val_CQM-A.json" >val.json
	vqlm-infer -q --float32 -m "$DEMO/mini-llava-outlier" -d val.json --images "$DEMO/mini-sqa" --logits fp.logits >fp.jsonl
	vqlm-infer -q -m x.vqm -d val.json --images "$DEMO/mini-sqa" --logits x.logits >x.jsonl
	n=$(vqlm-eval -r "$DEMO/mini-sqa/problems.json" -f json --logits x.logits --baseline-logits fp.logits x.jsonl |
		jq .logits.kl_mean)
	figure "awq W8A16: KL $n to full precision"
	jq -ne "$n >= 0 and $n < 0.001"
}

# The errors of blocks that -v names, as chosen.
errors() {
	run -0 --separate-stderr bash -c "vqlm-search -v $1 -w 4 -a 4 --rows 1000 <'$2' >/dev/null"
	sed -n 's/.*: error \([^ ]* -> \)\{0,1\}\([0-9.e-]*\).*/\2/p' <<<"$stderr"
}

# Over seeds 0 to 2 of calibration and signs (0 and 1 for WUSH) the least ratios of a block's errors are 3.7 of layerwise to
# smooth, 8.0 of layerwise to best, 2.0 of smooth to best, 6.3 of smooth to WUSH.
@test "transforms leave less error in every block, GPTQ behind them still less, and behind WUSH the least" {
	local raw smooth best wush
	vqlm-calib -q -m "$DEMO/mini-llava-outlier" -n 32 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" >in.vqs
	raw=$(errors "--method layerwise" in.vqs)
	smooth=$(errors "--method rtn --rotate hadamard --smooth 0.5" in.vqs)
	best=$(errors "--method best" in.vqs)
	wush=$(errors "--method best --rotate wush --smooth off" in.vqs)
	figure "errors of blocks at W4A4: layerwise $(tr '\n' ' ' <<<"$raw")rtn --rotate hadamard --smooth 0.5 $(tr '\n' ' ' \
		<<<"$smooth")best $(tr '\n' ' ' <<<"$best")best --rotate wush --smooth off $(tr '\n' ' ' <<<"$wush")"
	[ "$(wc -l <<<"$raw")" -eq 10 ]
	paste <(echo "$raw") <(echo "$smooth") <(echo "$best") <(echo "$wush") \
		| awk '!($4 > 0 && $4 * 4 < $2 && $3 * 1.5 < $2 && $3 * 5 < $1 && $2 * 3 < $1) { bad = 1 } END { exit bad }'
}

@test "best is gptq with other defaults, of which each can be given" {
	local o
	vqlm-search -q --method best --rows 300 --clip off -t 2 <"$(P)" >best.vqs
	vqlm-search -q --method gptq --rotate hadamard --smooth search --sweeps 0 --act-order --gptaq 0.25 --polish 3 \
		--rows 300 <"$(P)" >gptq.vqs
	[ "$(codes best.vqs)" = "$(codes gptq.vqs)" ]
	run -0 vqlm-ls best.vqs
	[[ "$output" == *"decoder.layers.2.down_proj.transform_scale"* ]]
	vqlm-search -q --method best --rotate wush --smooth off --rows 300 <"$(P)" >wush.vqs
	run -0 vqlm-ls wush.vqs
	[[ "$output" == *"decoder.layers.2.down_proj.transform_matrix"* ]]
	run -2 --separate-stderr vqlm-search --method qvlm --smooth search </dev/null
	[[ "$stderr" == *"--smooth search is for rtn, gptq and best"* ]]
	for o in "best" "rtn --rotate hadamard" "layerwise --smooth 0.5"; do
		# shellcheck disable=SC2086
		run -2 --separate-stderr vqlm-search -w 16 --method $o </dev/null
		[[ "$stderr" == *"-w 16 leaves weights as they are"* ]]
	done
	run -3 --separate-stderr vqlm-search --method rtn --smooth 0.5 <"$BATS_FILE_TMPDIR/weights.vqs"
	[[ "$stderr" == *"or search without --clip, --smooth and --rotate wush"* ]]
	run -2 --separate-stderr vqlm-search --smooth 1.5 </dev/null
	[[ "$stderr" == *"--smooth wants 'off', 'search' or a number of 0..1, got '1.5'"* ]]
}

@test "--mixed keeps 8 bits in the layers of the highest entropy" {
	local want
	want=$(vqlm-entropy -q --space hadamard --table <"$(P)" | awk '$4 + 0 > 0 {print $4, $1}' | sort -rn | head -3 |
		awk '{print $2}' | sort -n | tr '\n' ' ')
	vqlm-search -q --method rtn --rotate hadamard --mixed 0.34 <"$(P)" >mixed.vqs
	[ "$(vqlm-ls --json mixed.vqs | jq -r 'select(.attrs.act.bits == 8) | .attrs.unit' | sort -nu | tr '\n' ' ')" = "$want" ]
	run -3 --separate-stderr vqlm-search --method rtn --mixed 0.5 <"$BATS_FILE_TMPDIR/weights.vqs"
	[[ "$stderr" == *"--mixed wants record 'stat/joint/raw/4'"* ]]
}

@test "gptq needs no plan, and resumes to the same bytes" {
	local n
	vqlm-calib -q -m "$DEMO/mini-llava" -n 8 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" >in.vqs
	vqlm-search -q --method gptq --gptaq 0.25 -o whole.vqs <in.vqs
	n=$(stat -c %s whole.vqs)
	head -c $((n * 6 / 10)) whole.vqs >cut.part
	run -0 --separate-stderr bash -c "vqlm-search -v --method gptq --gptaq 0.25 --resume cut.part \
		-o again.vqs <in.vqs"
	[[ "$stderr" == *"taken from the interrupted run"* ]]
	cmp whole.vqs again.vqs
	run -3 --separate-stderr bash -c "vqlm-search --method gptq --resume cut.part -o other.vqs <in.vqs"
}

@test "one thread and two give the same bytes" {
	local m
	for m in rtn layerwise qvlm gptq "awq --awq-loss joint --awq-duo" "gptq --act-order --gptaq 0.25 --polish 2" best \
		"gptq --gptaq 0.25 --token-weights attention" \
		"qvlm --sweeps 1 --token-weights vision --vision-weight measured --veo-lambda 1" \
		"rtn --rotate hadamard" "layerwise --rotate hadamard --smooth 0.5"; do
		# shellcheck disable=SC2086
		cmp <(vqlm-search -q -t 1 --rows 150 --method $m <"$(P)") \
			<(vqlm-search -q -t 2 --rows 150 --method $m <"$(P)")
	done
}

@test "the memory that --dry-run names holds, and is not twice too much" {
	[ -z "${VQLM_SANITIZED:-}" ] || skip "a sanitizer takes memory of its own"
	local o want got
	"$BUILD/bench/make_ckpt" --layers 2 --hidden 768 --inter 2112 --heads 8 --kv-heads 8 \
		--vocab 1024 --vision-layers 2 --tokenizer "$DEMO/mini-llava" tiny ckpt >/dev/null
	vqlm-calib -q -m ckpt -n 8 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" |
		vqlm-entropy -q >plan.vqs
	for o in "--method rtn -l 0" "--method layerwise --rows 256" "--method qvlm --rows 64 --sweeps 1" \
		"--method gptq --rows 256" "--method gptq --rows 256 --gptaq 0.25 --token-weights attention" \
		"--method awq --rows 256" "--method awq --rows 0 -a 16" \
		"--method rtn --rotate hadamard" "--method best --rows 64"; do
		# shellcheck disable=SC2086
		run -0 --separate-stderr vqlm-search $o --dry-run <plan.vqs
		[ -z "$stderr" ]
		want=$(awk '$1 == "memory" {print int($2)}' <<<"$output")
		# shellcheck disable=SC2086
		run -0 --separate-stderr bash -c "vqlm-search -v $o <plan.vqs >/dev/null"
		got=$(awk '/peak memory/ {print int($4)}' <<<"$stderr")
		figure "$o: --dry-run says $want MiB, the peak was $got MiB"
		[ "$got" -gt 0 ]
		[ "$got" -le "$want" ]
		[ "$want" -le $((2 * got + 16)) ]
	done
}

@test "4-bit rtn makes the stream smaller; how fast is a figure" {
	local t0 t1 n
	"$BUILD/bench/make_ckpt" --text-only --layers 2 --hidden 2048 --inter 5632 --heads 16 --kv-heads 16 \
		--vocab 1024 --tokenizer "$DEMO/mini-llava" tiny ckpt >/dev/null
	vqlm-calib -q -m ckpt -n 0 -l 0 >w.vqs
	n=$(stat -c %s w.vqs)
	t0=$(date +%s%N)
	vqlm-search -q --method rtn -w 4 -a 8 -l 0 <w.vqs >out.vqs
	t1=$(date +%s%N)
	figure "rtn: $((n * 1000 / (t1 - t0))) MB/s of input ($((n / 1000000)) MB)"
	[ "$(stat -c %s out.vqs)" -lt $((n * 6 / 10)) ]
}
