#!/bin/bash
# step.sh BIN STEP OUTPUT ...: one step of cluster.mk, on whatever machine it landed.  It may be cut at any moment and run
# again anywhere: OUTPUT is there when it is whole, else OUTPUT.part is gone on from.
#   plan    OUTPUT MODEL CALIB BITS CUTS 'FLAGS of vqlm-calib' [FLAGS of vqlm-entropy]
#   piece   OUTPUT PLAN A-B [FLAGS of vqlm-search]
#   model   OUTPUT PIECE...
#   answers OUTPUT MODEL DATA IMAGES I/N [FLAGS of vqlm-infer]
set -euo pipefail

[ $# -ge 4 ] || { echo "usage: step.sh BIN STEP OUTPUT ARGUMENT..." >&2; exit 2; }
bin=$1 step=$2 output=$3
shift 3
# The signal that ends a job is for the tool: it finishes its block or round, keeps the .part and ends with 75.
resumable() {
	local go_on=()
	if [ -e "$output.part" ] || [ -e "$output.part.resumed" ]; then
		go_on=(--resume "$output.part")
	fi
	exec "$@" -q -o "$output" "${go_on[@]}"
}

case $step in
plan)
	model=$1 data=$2 bits=$3 cuts=$4
	read -ra flags <<<"$5"
	shift 5
	"$bin/vqlm-calib" -q -m "$model" -d "$data" --checkpoint "$cuts" "${flags[@]}" \
		| "$bin/vqlm-entropy" -q -a "$bits" -o "$output" "$@"
	;;
piece)
	plan=$1 units=$2
	shift 2
	resumable "$bin/vqlm-search" --blocks "$units" "$@" <"$plan"
	;;
model)
	cat "$@" | "$bin/vqlm-pack" -q -o "$output"
	;;
answers)
	model=$1 data=$2 images=$3 shard=$4
	shift 4
	resumable "$bin/vqlm-infer" -m "$model" -d "$data" --images "$images" --shard "$shard" "$@"
	;;
*)
	echo "step.sh: no step '$step'" >&2
	exit 2
	;;
esac
