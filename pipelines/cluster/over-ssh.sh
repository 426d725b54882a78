#!/bin/bash
# over-ssh.sh HOSTS [VARIABLE=VALUE...]: the steps of cluster.mk by GNU parallel over ssh, without a shared folder.  HOSTS
# is a file of parallel's --sshloginfile, a line "JOBS/HOST" each; the hosts have the tools where REMOTE_BIN says
# (default: BIN), bash and rsync.  Plan, model and score are made here; pieces and answers there, in the folder WORK
# (default: vqlm-cluster in the login's own), and come back.  A step whose host is lost is run on another; after a failure
# run the same line again: what came back is not made again.  PARALLEL_SSH is the ssh to use.
set -euo pipefail

[ -r "${1:-}" ] || { echo "usage: over-ssh.sh HOSTS [VARIABLE=VALUE...]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
hosts=$(realpath "$1")
shift
ask() { make -s --no-print-directory -f "$here/cluster.mk" "$@"; }
out=$(ask "$@" show-OUT)
remote=${REMOTE_BIN:-$(ask "$@" show-BIN)}
work=${WORK:-vqlm-cluster}

# Kernel set and BLAS core are part of what made a model: as here, where the environment says which.
same=()
for v in VQLM_CPU OPENBLAS_CORETYPE; do
	[ -z "${!v:-}" ] || same+=("$v=${!v}")
done

# everywhere NAME SUFFIX FLAGS FILE... -- COMMAND: for the lines "I ARGUMENT" on standard input, OUT/NAME-I.SUFFIX from
# `step.sh REMOTE_BIN NAME NAME-I.SUFFIX COMMAND`, where @ is the argument.  FILEs ("FOLDER/./PATH") go ahead.
everywhere() {
	local name=$1 suffix=$2 base=() command
	shift 2
	while [ "$1" != -- ]; do base+=(--basefile "$1") && shift; done
	shift
	command=${*//@/\{2\}}
	(cd "$out" && parallel --will-cite --sshloginfile "$hosts" --workdir "$work" --retries 4 --colsep ' ' \
		--joblog "+$name.joblog" --basefile "$here/./step.sh" "${base[@]}" --return "$name-{1}.$suffix" --cleanup \
		"env ${same[*]} bash step.sh $remote $name $name-{1}.$suffix $command")
}

ask "$@" plan
ask "$@" list-pieces \
	| everywhere piece vqs "$out/./plan.vqs" -- plan.vqs @ "$(ask "$@" flags-piece)"
ask "$@" model
test=$(ask "$@" show-TEST) images=$(ask "$@" show-IMAGES)
ask "$@" list-answers \
	| everywhere answers jsonl "$out/./model.vqm" "$(dirname "$test")/./$(basename "$test")" "$(dirname "$images")/./$(basename "$images")" \
		-- model.vqm "$(basename "$test")" "$(basename "$images")" @ "$(ask "$@" flags-answers)"
ask "$@" score
