#!/bin/bash
# matrix.sh [kernels]: the tests on every instruction set; the word alone is the part that is fast.
#
#   kernels   the tests of lib/kernel for arm64, cross-built, in qemu: with dot products, and products without
#
# and by default also the tests of lib/kernel with each of x86's kernel sets, as they are and under AddressSanitizer and
# UBSan; every unit test for arm64; and there the pipe with each kernel set, and a packed model's letters beside x86's.
# BUILD names the build folder (arm64's is aarch64 in it), ASAN the sanitizers' flags: `make check-matrix` sets both.
set -euo pipefail

cd "$(dirname "$0")/.."
build=${BUILD:-build}
arm=$build/aarch64
root=$arm/root
without=cortex-a72 # a CPU without dot products
kernels=(base layout qact qgemm gemm16 transform_kernel ops dependency)
slow=(attention) # minutes in an emulator: with every unit test
n=$(nproc)
step() { echo "matrix: $* (after $SECONDS s)"; }

cross() {
	make -s -j"$n" BUILD="$arm" CC="aarch64-linux-gnu-gcc --sysroot=$(realpath "$root")" CFLAGS="-O2 -g -Werror" "$@"
}

# run_kernels FOLDER NAME...: these tests of lib/kernel, which were built there.
run_kernels() {
	local folder=$1
	shift
	BUILD=$build tests/run.sh "${@/#/$folder/tests/test_}"
}

arm64_kernels() {
	local status=0
	tests/arm64_root.sh "$root"
	step "arm64: build"
	cross "${kernels[@]/#/$arm/tests/test_}" "$arm/bin/vqlm-ls"
	step "arm64: kernels"
	VQLM_LAUNCH="qemu-aarch64 -cpu max -L $root" run_kernels "$arm" "${kernels[@]}"
	step "arm64: kernels that differ without dot products"
	BUILD=$arm VQLM_LAUNCH="qemu-aarch64 -cpu $without -L $root" tests/run.sh "$arm/tests/test_qgemm"
	VQLM_CPU=neondot qemu-aarch64 -cpu "$without" -L "$root" "$arm/bin/vqlm-ls" </dev/null 2>/dev/null || status=$?
	[ "$status" -eq 2 ] || {
		echo "matrix: want neondot refused (2) on a CPU without dot products, got status $status" >&2
		return 1
	}
}

x86_kernels() {
	local set status
	step "x86: build"
	make -s -j"$n" BUILD="$build" "${kernels[@]/#/$build/tests/test_}" "${slow[@]/#/$build/tests/test_}" "$build/bin/vqlm-ls"
	make -s -j"$n" BUILD="$build/asan" CFLAGS="${ASAN:?}" "${kernels[@]/#/$build/asan/tests/test_}" "${slow[@]/#/$build/asan/tests/test_}"
	for set in generic avx2 avx512vnni; do
		status=0
		VQLM_CPU=$set "$build/bin/vqlm-ls" </dev/null 2>/dev/null || status=$?
		[ "$status" -ne 2 ] || {
			echo "matrix: this CPU does not run $set: not tested"
			continue
		}
		step "x86: kernels, $set"
		VQLM_CPU=$set run_kernels "$build" "${kernels[@]}" "${slow[@]}"
		step "x86: kernels, $set, sanitized"
		VQLM_CPU=$set VQLM_SANITIZED=1 run_kernels "$build/asan" "${kernels[@]}" "${slow[@]}"
	done
}

# Programs that run the arm64 ones under their names, in $arm/run.
launchers() {
	local f
	mkdir -p "$arm/run/bin" "$arm/run/bench" "$arm/run/e2e"
	for f in "$arm"/bin/vqlm-* "$arm/bench/make_ckpt"; do
		case $f in *.[do]) continue ;; esac
		printf '#!/bin/sh\nexec qemu-aarch64 -cpu max -L %s %s "$@"\n' "$(realpath "$root")" "$(realpath "$f")" \
			>"$arm/run/$(basename "$(dirname "$f")")/$(basename "$f")"
	done
	chmod +x "$arm"/run/*/*
}

# answers BIN SET MODEL: the letters of MODEL with the tools in BIN on a handful of questions.
answers() {
	VQLM_CPU=$2 PATH="$PWD/$1:$PATH" vqlm-infer -q -m "$3" -d pipelines/demo/mini-sqa/llava_test_CQM-A.json --limit 20 \
		| jq -c 'select(.text) | [.question_id, .text]'
}

arm64_rest() {
	local set folder
	step "arm64: build all"
	cross all units "$arm/bench/make_ckpt"
	step "arm64: every unit test"
	BUILD=$arm VQLM_LAUNCH="qemu-aarch64 -cpu max -L $root" tests/run.sh "$arm"/tests/test_*[!.]?
	step "arm64: the pipe with each kernel set"
	launchers
	BUILD=$arm/run tests/run.sh tests/e2e/same.bats
	step "arm64: letters beside x86's"
	make -s -j"$n" BUILD="$build" all
	folder=$(mktemp -d)
	PATH="$PWD/$build/bin:$PATH" bash -euo pipefail -c "vqlm-calib -q -m pipelines/demo/mini-llava -n 0 | vqlm-search -q --method rtn -w 4 -a 8 | vqlm-pack -q -o $folder/m.vqm"
	answers "$build/bin" generic "$folder/m.vqm" >"$folder/want"
	[ "$(wc -l <"$folder/want")" -eq 20 ]
	for set in generic neon neondot; do
		answers "$arm/run/bin" "$set" "$folder/m.vqm" | diff "$folder/want" -
		echo "matrix: $set: the letters of x86"
	done
	rm -rf "$folder"
}

case ${1:-all} in
kernels) arm64_kernels ;;
all)
	x86_kernels
	arm64_kernels
	arm64_rest
	;;
*)
	echo "usage: matrix.sh [kernels]" >&2
	exit 2
	;;
esac
step "all passed"
