#!/bin/bash
# timed.sh [-l LOG] FILE COMMAND...: runs the command and writes its wall-clock seconds and the seconds that it computed
# on all cores, "12.34 20.56", to FILE.  With -l what it says goes to LOG, and is shown when it fails.
set -euo pipefail

log=
[ "$1" != -l ] || { log=$2; shift 2; }
file=$1
shift
[ -z "$log" ] || exec 3>&2 2>"$log"
# A group of its own, so that a signal to this script alone ends the whole pipe that the command may be.  The trap is
# there before the command is ($! is empty until then), and waits for it: who starts again at once meets no leftover.
set -m
trap '[ -z "${!:-}" ] || { kill -TERM -- "-$!"; wait -f "$!"; } || true; exit 143' TERM INT
start=$(date +%s%N)
"$@" <&0 &
if ! wait -f "$!"; then # -f: a command that is stopped for a while has not ended
	[ -z "$log" ] || cat "$log" >&3
	exit 1
fi
wall=$((($(date +%s%N) - start) / 10000000))
# The second line of `times` is what finished children took, 0m1.234s of their own and 0m0.056s in the kernel.
# A pipe would run `times` in a child that has none.
times >"$file.part"
awk -v wall="$wall" 'NR == 2 {
	gsub(/[ms]/, " ")
	$0 = $0
	printf "%.2f %.2f\n", wall / 100, 60 * $1 + $2 + 60 * $3 + $4
}' "$file.part" >"$file"
rm "$file.part"
