#!/bin/bash
# Runs every unit test and every end-to-end test (or those named on the command line) and closes with
# "N passed, N failed, N skipped".  BUILD names the build folder, VQLM_DATA the public data, VQLM_LAUNCH a command
# in front of every unit test (an emulator and its flags: the longest loops then take a part of their cases,
# tests/unit/emulated.h).
set -uo pipefail

cd "$(dirname "$0")/.." || exit 4
BUILD=$(realpath "${BUILD:-build}")
export BUILD
export GOMP_SPINCOUNT=3000 # as the tools set it for themselves
export PATH="$BUILD/bin:$PATH"
export VQLM_DATA="${VQLM_DATA:-$PWD/../shared/data}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0

run_unit() {
	# shellcheck disable=SC2086 # words on purpose
	CMOCKA_MESSAGE_OUTPUT=TAP ${VQLM_LAUNCH:-} "$1" >"$log" 2>&1
	local status=$? ok not skip
	# cmocka calls a skipped test "not ok N # SKIP".
	skip=$(grep -cE '^(not )?ok .*# SKIP' "$log")
	ok=$(grep '^ok ' "$log" | grep -vc '# SKIP')
	not=$(grep '^not ok ' "$log" | grep -vc '# SKIP')
	if [ "$status" -ne 0 ] && [ "$not" -eq 0 ]; then
		not=1 # it crashed
	fi
	[ "$not" -eq 0 ] || { echo "--- $1 (status $status)"; cat "$log"; }
	grep '^# figure:' "$log" | sed 's/^# figure:/   /'
	count "$(basename "$1")" "$ok" "$not" "$skip"
}

run_bats() {
	bats --tap "$1" >"$log" 2>&1
	local status=$? ok not skip
	ok=$(grep -c '^ok ' "$log")
	not=$(grep -c '^not ok ' "$log")
	skip=$(grep -c '^ok .*# skip' "$log")
	if [ "$status" -ne 0 ] && [ "$not" -eq 0 ]; then
		not=1
	fi
	[ "$not" -eq 0 ] || { echo "--- $1 (status $status)"; cat "$log"; }
	grep '^# figure:' "$log" | sed 's/^# figure:/   /'
	count "$(basename "$1")" $((ok - skip)) "$not" "$skip"
}

count() {
	printf '%-28s %4d passed %3d failed %3d skipped\n' "$1" "$2" "$3" "$4"
	passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
	# Where the public data are, nothing may be skipped for want of them.
	if [ "$4" -gt 0 ] && [ -d "$VQLM_DATA" ] && grep -qi 'skip.*VQLM_DATA' "$log"; then
		echo "--- skipped for want of data although $VQLM_DATA exists:"
		grep -i 'skip' "$log"
		failed=$((failed + 1))
	fi
}

if [ $# -gt 0 ]; then
	for t in "$@"; do
		case $t in *.bats) run_bats "$t" ;; *) run_unit "$t" ;; esac
	done
else
	for t in tests/unit/test_*.c; do
		run_unit "$BUILD/tests/$(basename "$t" .c)"
	done
	for t in tests/e2e/*.bats; do
		run_bats "$t"
	done
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
