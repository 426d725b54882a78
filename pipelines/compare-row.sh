#!/bin/bash
# compare-row.sh OUT ROW CALIB: the header and the line of one row of compare.mk's table, OUT/ROW.json; CALIB.made and
# CALIB.log are of the calibration that it came from.
set -euo pipefail

out=$1 row=$2 calib=$3
[ "${row##*/}" != fp ] || calib=/dev/null/none
# What a file holds, or nothing: full precision has no search, and a row may lack its pair.
held() {
	[ ! -e "$1" ] || cat "$1"
}
jq -n -r --arg row "$row" --arg ran "$(cat "$out/$row.ran")" --arg made "$(held "$out/$row.made")" \
	--arg calib "$(held "$calib.made")" --rawfile calib_log <(held "$calib.log") \
	--rawfile log <(held "$out/$row.log") --slurpfile run "$out/$row.json" \
	--slurpfile pair <(held "$out/$row.pair") -f "$(dirname "$0")/compare.jq"
