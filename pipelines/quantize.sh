#!/bin/bash
# quantize.sh BIN CALIB.vqs MODEL.vqm METHOD W A [flags of vqlm-search...]: from a calibration kept in a file to
# a packed model.  The plan is made for the activation bits of the search, with the flags of vqlm-entropy that
# PLAN_FLAGS holds.  With -v among the flags the two say what they do and what it cost.
set -euo pipefail

[ $# -ge 6 ] || { echo "usage: quantize.sh BIN CALIB.vqs MODEL.vqm METHOD W A [flags]" >&2; exit 2; }
trap 'exit 143' TERM INT # once the pipe below has ended, which got the signal too
bin=$1 calib=$2 model=$3 method=$4 w=$5 a=$6
shift 6
plan=$a
[ "$plan" -le 8 ] || plan=8 # 16 leaves activations alone; the plan still needs levels
say=-v
[[ " $* " == *" -v "* ]] || { say=-q && set -- "$@" -q; }
read -ra plan_flags <<<"${PLAN_FLAGS:-}"
"$bin/vqlm-entropy" "$say" -a "$plan" "${plan_flags[@]}" <"$calib" \
	| "$bin/vqlm-search" --method "$method" -w "$w" -a "$a" "$@" \
	| "$bin/vqlm-pack" -q -o "$model"
