# What the scripts of the comparisons share: options, jobs, and a run that a failed row does not end.
# shellcheck shell=bash

# compare_main GRAPH JOBS TABLE [VARIABLE=VALUE...] [-j JOBS] BIN OUT [VARIABLE=VALUE...]: makes the rows that GRAPH
# (compare.mk, or what includes it) lists, then the table of those that there are.  Status 1 when a row is missing.
compare_main() {
	local graph=$1 jobs=$2 table=$3 set=() bin='' out='' failed=0 start=$SECONDS here
	here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
	shift 3
	# `make -j2 table2` says how many, too.
	[[ " ${MAKEFLAGS-} " =~ \ -j([0-9]+)\  ]] && jobs=${BASH_REMATCH[1]}
	while [ $# -gt 0 ]; do
		case $1 in
		-j) jobs=${2:?"$table: -j wants a number"} && shift ;;
		-j*) jobs=${1#-j} ;;
		-*) compare_usage "$table" ;;
		*=*) set+=("$1") ;;
		*) if [ -z "$bin" ]; then bin=$1; elif [ -z "$out" ]; then out=$1; else compare_usage "$table"; fi ;;
		esac
		shift
	done
	[ -n "$out" ] || compare_usage "$table"
	bin=$(realpath "$bin")
	mkdir -p "$out"
	out=$(realpath "$out")
	compare_share "$jobs"
	set+=(BIN="$bin" OUT="$out" TABLE="$table")
	compare_make -k -j "$jobs" -f "$here/$graph" "${set[@]}" rows || failed=1
	compare_make -f "$here/$graph" "${set[@]}" table
	echo
	cat "$out/$table.md"
	echo
	echo "$table: $((SECONDS - start)) s; $out/$table.tsv .md .svg"
	[ "$failed" -eq 0 ] || echo "$table: rows are missing, see above" >&2
	return "$failed"
}

# make on its own, and ended with this script: a signal to the script alone must not leave rows running.  The trap is
# there before make is ($! is empty, or of a make that is done).
compare_make() {
	trap '[ -z "${!:-}" ] || { kill "$!"; wait "$!"; } 2>/dev/null || true; exit 143' TERM INT
	MAKEFLAGS='' make -s "$@" &
	wait "$!"
}

compare_usage() {
	echo "usage: $1.sh [-j JOBS] BIN OUT [VARIABLE=VALUE...]" >&2
	exit 2
}

# Each of so many jobs takes its share of the cores (the tools' default number of threads; no result depends on it).
compare_share() {
	local cores
	[[ "$1" =~ ^[1-9][0-9]*$ ]] || { echo "-j wants a number of jobs, got '$1'" >&2; exit 2; }
	cores=${SLURM_CPUS_PER_TASK:-$(nproc)}
	export SLURM_CPUS_PER_TASK=$((cores > $1 ? cores / $1 : 1))
}
