#!/bin/bash
# big.sh [-n SAMPLES] [-k] [-d DIR] [-b A-B] [-m "..."] [-c "..."] [-e "..."] [-s "..."] SHAPE
#
# Writes a checkpoint of random weights of SHAPE (see make_ckpt) under DIR, runs
# vqlm-calib | vqlm-entropy | vqlm-search | vqlm-pack on it (-b A-B: search these units alone, and do not
# pack; -m -c -e -s: options for make_ckpt, calib, entropy and search), and prints each tool's peak of anonymous memory
# (looked at every 0.1 s; the mapped checkpoint does not count), its peak of resident memory and its time.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
bin=${BUILD:-$root/build}
samples=4 keep=0 dir=${TMPDIR:-/tmp}/vqlm-big blocks='' make=() calib=() entropy=() search=(--method rtn -w 4 -a 8)
usage() { sed -n '2s/# /usage: /p' "$0" >&2; exit 2; }
while getopts n:kd:b:m:c:e:s: o; do
	case $o in
	n) samples=$OPTARG ;;
	k) keep=1 ;; # leave the checkpoint and the packed model
	d) dir=$OPTARG ;;
	b) blocks=$OPTARG ;;
	m) read -ra make <<<"$OPTARG" ;;
	e) read -ra entropy <<<"$OPTARG" ;;
	c) read -ra calib <<<"$OPTARG" ;;
	s) read -ra search <<<"$OPTARG" ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -eq 1 ] || usage
shape=$1
model=$dir/$shape
data=$root/pipelines/demo/mini-sqa/llava_train_calib_CQM-A.json
log=$(mktemp -d)
# shellcheck disable=SC2317  # the trap calls it
cleanup() {
	rm -rf "$log"
	if [ "$keep" -eq 0 ]; then
		rm -rf "$model" "$dir/$shape.vqm" "$dir/$shape.vqm.part"
		rmdir --ignore-fail-on-non-empty "$dir"
	fi
}
trap cleanup EXIT

# measure NAME COMMAND...: runs it between this function's input and output, and notes its peaks.
measure() {
	local name=$1 start pid anon=0 rss=0 status=0 a r key value
	shift
	start=$(date +%s.%N)
	"$@" <&0 2>>"$log/$name.err" &
	pid=$!
	exec <&- >&-
	while kill -0 "$pid" 2>/dev/null; do
		a=0 r=0
		while read -r key value _; do
			case $key in RssAnon:) a=$value ;; VmHWM:) r=$value ;; esac
		done <"/proc/$pid/status" 2>/dev/null || true
		[ "$a" -le "$anon" ] || anon=$a
		[ "$r" -le "$rss" ] || rss=$r
		sleep 0.1
	done
	wait "$pid" || status=$?
	printf '%-14s %10d %10d %10.1f %6d\n' "$name" $((anon / 1024)) $((rss / 1024)) \
		"$(echo "$(date +%s.%N) - $start" | bc)" "$status" >"$log/$name.row"
	return "$status"
}

mkdir -p "$dir"
[ -f "$model/config.json" ] ||
	"$bin/bench/make_ckpt" --tokenizer "$root/pipelines/demo/mini-llava" "${make[@]}" "$shape" "$model"
sink() {
	if [ -n "$blocks" ]; then
		cat >/dev/null
	else
		measure vqlm-pack "$bin/bin/vqlm-pack" -v -o "$dir/$shape.vqm"
	fi
}
[ -z "$blocks" ] || search+=(--blocks "$blocks")
status=0
measure vqlm-calib "$bin/bin/vqlm-calib" -v -m "$model" -d "$data" -n "$samples" "${calib[@]}" |
	measure vqlm-entropy "$bin/bin/vqlm-entropy" -v "${entropy[@]}" |
	measure vqlm-search "$bin/bin/vqlm-search" -v "${search[@]}" |
	sink || status=$?

printf '%-14s %10s %10s %10s %6s\n' tool 'anon MiB' 'rss MiB' seconds status
cat "$log"/*.row
for f in "$log"/*.err; do
	[ ! -s "$f" ] || { echo "--- $(basename "$f" .err) said, last:"; tail -n 3 "$f"; }
done
[ "$status" -ne 0 ] || [ -n "$blocks" ] || ls -l "$dir/$shape.vqm"
exit "$status"
