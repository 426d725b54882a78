#!/bin/bash
# timed.sh FILE COMMAND...: runs the command and writes its wall-clock seconds and the seconds that it computed
# on all cores, "12.34 20.56", to FILE.
set -euo pipefail

file=$1
shift
start=$(date +%s%N)
# A group of its own, so that a signal to this script alone ends the whole pipe that the command may be.
set -m
"$@" <&0 &
group=$!
trap 'kill -TERM -- "-$group"; wait "$group" || true; exit 143' TERM INT
wait "$group"
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
