#!/bin/bash
# demo.sh BIN OUT: quantizes and evaluates the embedded model; table.tsv, table.md and chart.svg in OUT.
# What is finished is kept: run it again after an interruption, or after `rm OUT/qvlm-w4a4.*` to redo one row.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: demo.sh BIN OUT" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
bin=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
start=$SECONDS

# One row after the other, each with all the cores, so that its seconds mean something; `make -j2 -f
# pipelines/demo.mk` runs them side by side.
MAKEFLAGS='' make -s -f "$here/demo.mk" BIN="$bin" OUT="$out"

echo
column -t -s $'\t' <(cut -f1-8,10,11,13,14,16-18,20 "$out/table.tsv") 2>/dev/null || cat "$out/table.tsv"
echo
echo "demo: $((SECONDS - start)) s; whole table and chart: $out/table.tsv table.md chart.svg"
