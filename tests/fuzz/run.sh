#!/bin/bash
# run.sh BUILD SECONDS [TARGET...]: searches for inputs that break a reader, SECONDS in all, shared out evenly between the
# targets (all that are built, or those named: image, torch, ...).  It begins with tests/data, what test_fuzz mutates and
# what was found before (BUILD/fuzz/corpus, which grows); what breaks a promise is kept in BUILD/fuzz/artefacts.
# Status 1 when there is such an input.
set -euo pipefail

cd "$(dirname "$0")/../.."
build=$1 seconds=$2
shift 2
case $seconds in '' | *[!0-9]*) echo "fuzz: want a number of seconds, got '$seconds' (make fuzz-run T=60)" >&2; exit 2 ;; esac
if [ $# -eq 0 ]; then
	for t in tests/fuzz/fuzz_*.c; do
		t=$(basename "$t" .c)
		set -- "$@" "${t#fuzz_}"
	done
fi
each=$((seconds / $#))
[ "$each" -ge 1 ] || each=1

rm -rf "$build/fuzz/seeds"
mkdir -p "$build/fuzz/seeds" "$build/fuzz/artefacts" "$build/fuzz/tmp"
export TMPDIR=$build/fuzz/tmp
VQLM_FUZZ_SEEDS=$build/fuzz/seeds "$build/tests/test_fuzz" >"$build/fuzz/seeds.log" 2>&1 || {
	cat "$build/fuzz/seeds.log" >&2
	exit 1
}
# A model of 80 thousand numbers in each form that it has.
model() {
	local m=$build/fuzz/tmp/m d=pipelines/demo/mini-sqa/llava_train_calib_CQM-A.json s=$build/fuzz/seeds
	rm -rf "$m"
	mkdir -p "$s/stream" "$s/checkpoint" "$s/vqm" "$s/tree"
	"$build/bench/make_ckpt" --layers 1 --vision-layers 2 --hidden 32 --inter 64 --heads 2 --kv-heads 1 --vision-hidden 32 \
		--vision-inter 64 --vision-heads 2 --image 28 --tied tiny "$m" >/dev/null
	"$build/bin/vqlm-calib" -q -n 2 -d "$d" -m "$m" -o "$s/stream/model"
	cp "$s/stream/model" "$s/checkpoint/model"
	"$build/bin/vqlm-entropy" -q <"$s/stream/model" >"$m.plan"
	"$build/bin/vqlm-search" -q --method rtn <"$m.plan" | "$build/bin/vqlm-pack" -q >"$s/vqm/rtn"
	"$build/bin/vqlm-search" -q --method best <"$m.plan" | "$build/bin/vqlm-pack" -q >"$s/vqm/best"
	"$build/bin/vqlm-search" -q --method nf4 -a 16 <"$m.plan" | "$build/bin/vqlm-pack" -q >"$s/vqm/nf4"
	"$build/bin/vqlm-export" -q --to gguf --acts-as drop --force -o "$m.gguf" "$s/vqm/rtn" >/dev/null
	mkdir -p "$s/gguf"
	cp "$m.gguf/model.gguf" "$m.gguf/mmproj.gguf" "$s/gguf"
	tar cf "$s/tree/model" -C "$m" .
	tar czf "$s/tree/packed" -C "$m" config.json tokenizer_config.json generation_config.json
}
model

# One thread, as the runs of one input must not differ; no more memory than a reader may ask for; a leak is a fault.
export OMP_NUM_THREADS=1
export ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

bad=0
for t in "$@"; do
	mkdir -p "$build/fuzz/corpus/$t" "$build/fuzz/seeds/$t"
	status=0
	"$build/fuzz/fuzz_$t" -max_total_time="$each" -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
		-artifact_prefix="$build/fuzz/artefacts/$t-" "$build/fuzz/corpus/$t" "$build/fuzz/seeds/$t" \
		>"$build/fuzz/$t.log" 2>&1 || status=$?
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/fuzz/$t.log")
	if [ "$status" -eq 0 ]; then
		printf '%-12s %9s inputs in %d s, no promise broken\n' "$t" "$runs" "$each"
	else
		bad=1
		printf '%-12s %9s inputs: FAULT (status %d)\n' "$t" "${runs:-?}" "$status"
		grep -aE '^(SUMMARY|ERROR|==[0-9]+==ERROR)|runtime error|Test unit written' "$build/fuzz/$t.log" | head -5
		echo "  the rest: $build/fuzz/$t.log"
	fi
done
exit "$bad"
