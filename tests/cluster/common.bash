# What the tests of pipelines/cluster share: the small model in four pieces and three shards, and what one machine makes
# of the same.

load ../e2e/common

CLUSTER=$(cd "$BATS_TEST_DIRNAME/../../pipelines/cluster" && pwd)
VARS=(BIN="$BUILD/bin" CUTS="2 4 7" SHARDS=3 CALIB_FLAGS="-n 32" SEARCH_FLAGS="-t 1 --sweeps 4" INFER_FLAGS="-t 1 --limit 300")

graph() { make -s --no-print-directory -f "$CLUSTER/cluster.mk" "${VARS[@]}" "$@"; }

# one_machine OUT: the graph without a launcher, and beside it the model of one search and the answers of one run.
one_machine() {
	graph OUT="$1" model
	"$BUILD/bin/vqlm-search" -q --method qvlm -w 4 -a 4 --sweeps 4 <"$1/plan.vqs" | "$BUILD/bin/vqlm-pack" -q -o "$1/one.vqm"
	"$BUILD/bin/vqlm-infer" -q -m "$1/one.vqm" -d "$CLUSTER/../demo/mini-sqa/llava_test_CQM-A.json" --limit 300 -o "$1/one.jsonl"
}

# What does not change from run to run, in one order: answers without their time.
steady() { jq -c 'select(.question_id) | del(.ms)' "$@" | sort; }

# same_as_one_machine OUT ONE: the packed model, byte for byte; beside that of one search all but its manifest, which
# lists the pieces; every answer.
same_as_one_machine() {
	local d
	for d in "$1/model.vqm" "$2/model.vqm" "$2/one.vqm"; do
		mkdir -p "$d.d" && tar xf "$d" -C "$d.d"
	done
	diff -r "$1/model.vqm.d" "$2/model.vqm.d"
	cmp "$1/model.vqm" "$2/model.vqm"
	[ "$(find "$2/one.vqm.d" -type f | wc -l)" -gt 100 ]
	diff -r --exclude=manifest.json "$1/model.vqm.d" "$2/one.vqm.d"
	[ "$(steady "$2/one.jsonl" | wc -l)" -eq 300 ]
	diff <(steady "$2/one.jsonl") <(steady "$1"/answers-*.jsonl)
	[ "$(jq .n "$1/score.json")" -eq 300 ]
	[ -z "$(find "$1" -name '*.part*')" ]
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || { echo "waited in vain: $*"; return 1; }
		sleep 0.2
	done
}

# Processes below the given ones, and those themselves.
tree() {
	local p
	for p; do
		echo "$p"
		# shellcheck disable=SC2046 # words on purpose
		tree $(ps -o pid= --ppid "$p")
	done
}

# A free port of this machine, from the given one on.
free_port() {
	local p=$1
	while (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; do p=$((p + 1)); done
	echo "$p"
}
