#!/bin/bash
# array.sh [VARIABLE=VALUE...]: the steps of cluster.mk as Slurm jobs that wait for one another: plan, an array of pieces,
# model, an array of answers, score.  Prints the id of the last.  Folders must be shared by all nodes.
# A task whose node goes down is put back in the queue and goes on from its .part; after a failure (see OUT/log) run the
# same line again: what is there is not made again.  What the jobs may take, the environment says: SBATCH_PARTITION and
# the rest of sbatch(1), and SMALL for plan, model and score, PIECE and ANSWERS for a task of the arrays, each flags of
# sbatch.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
for v in "$@"; do
	[[ "$v" =~ ^[A-Z_]+= ]] || { echo "usage: array.sh [VARIABLE=VALUE...]" >&2; exit 2; }
done
ask() { make -s --no-print-directory -f "$here/cluster.mk" "$@"; }
out=$(ask "$@" show-OUT)
mkdir -p "$out/log"

# submit NAME FLAGS ID GOAL [VARIABLE=VALUE...]: after job ID; %a in the goal is the task.
submit() {
	local name=$1 id=$3 goal=$4 flags line log=$out/log/$1
	read -ra flags <<<"$2"
	shift 4
	[ -z "$id" ] || flags+=(--dependency="afterok:$id" --kill-on-invalid-dep=yes)
	printf -v line '%q ' make -s -f "$here/cluster.mk" "$@" RUN= "$goal"
	[[ "$goal" != *%a* ]] || log+=-%a
	sbatch --parsable --job-name="vqlm-$name" --requeue --open-mode=append --output="$log.log" \
		"${flags[@]}" --wrap "${line//%a/\$SLURM_ARRAY_TASK_ID}"
}

id=$(submit plan "${SMALL:-}" '' plan "$@")
id=$(submit piece "${PIECE:-} --array=1-$(ask "$@" show-PIECES | wc -w)" "$id" "$out/piece-%a.vqs" "$@")
id=$(submit model "${SMALL:-}" "$id" model "$@")
id=$(submit answers "${ANSWERS:-} --array=1-$(ask "$@" show-SHARDS)" "$id" "$out/answers-%a.jsonl" "$@")
submit score "${SMALL:-}" "$id" score "$@"
