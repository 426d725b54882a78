#!/bin/bash
# size-7b.sh MEMORY OUT: bytes of LLaMA-7B's weights with 32, 26, 17 and 12 of its blocks, at 16 bits and at 4 in groups
# of 128, beside the memory that Kim et al. published for these sizes (size-7b-published.tsv); size-7b.tsv and size-7b.md in OUT.
# MEMORY is build/bench/memory, which counts them from the shapes as vqlm-pack lays them out.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: size-7b.sh MEMORY OUT" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$2"
published=$here/size-7b-published.tsv
mapfile -t blocks < <(awk '!/^#/ && $1 != "size" { print $2 }' "$published")
"$1" --blocks "${blocks[@]}" >"$2/weights.part"
awk -f "$here/size-7b.awk" "$published" "$2/weights.part" >"$2/size-7b.tsv.part"
rm "$2/weights.part"
mv "$2/size-7b.tsv.part" "$2/size-7b.tsv"
awk -f "$here/size-7b-md.awk" "$2/size-7b.tsv" >"$2/size-7b.md.part"
mv "$2/size-7b.md.part" "$2/size-7b.md"
cat "$2/size-7b.md"
