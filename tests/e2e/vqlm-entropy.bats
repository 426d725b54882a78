#!/usr/bin/env bats
# vqlm-entropy: the plan, and everything else untouched.
load common

setup_file() {
	local demo
	demo=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)/pipelines/demo
	export S=$BATS_FILE_TMPDIR/s.vqs
	vqlm-calib -t 1 -m "$demo/mini-llava" -d "$demo/mini-sqa/llava_train_calib_CQM-A.json" -n 16 --bits 4,6 --error-stats --checkpoint 7 >"$S"
	vqlm-calib -m "$demo/mini-llava" -n 0 >"$BATS_FILE_TMPDIR/w.vqs"
}

plan() {
	vqlm-ls "$1" | grep -cE '^PLAN .* plan( |$)'
}

@test "the plan stands before the first weight, all other records pass in order" {
	vqlm-entropy <"$S" >e.vqs
	vqlm-ls -c e.vqs
	vqlm-ls "$S" | grep -vE '^(PLAN)' >before
	vqlm-ls e.vqs | grep -vE '^(PLAN)' >after
	diff before after
	vqlm-ls e.vqs | awk '{print $1}' | uniq >kinds
	[ "$(tr '\n' ' ' <kinds)" = "META INPUT STAT PLAN TENSOR " ]
}

@test "the payloads pass byte for byte and the history gets one line" {
	vqlm-entropy <"$S" >e.vqs
	# cut out the plan's payload: what remains is the input's
	zstd -qdc "$S" >a.raw
	zstd -qdc e.vqs >b.raw
	n=$(($(wc -c <b.raw) - $(wc -c <a.raw)))
	[ "$n" -gt 0 ]
	at=$(grep -abo '{"D":\[' b.raw | head -1 | cut -d: -f1)
	{ head -c "$at" b.raw; tail -c +$((at + n + 1)) b.raw; } | cmp - a.raw
	[ "$(head -c 4000 e.vqs | strings | grep -m1 -o '"tool":"vqlm-[a-z]*"' | wc -l)" -ge 1 ]
	head -c 4000 e.vqs | strings | grep -q '"tool":"vqlm-entropy"'
}

@test "the table has a line a unit and a D for each pair of one tower" {
	run -0 --separate-stderr bash -c "vqlm-entropy --table < $S"
	[ -z "$stderr" ]
	[ "${lines[0]}" = $'unit\tkind\tD\tentropy\tinfluence\terror\tblock' ]
	[ "${#lines[@]}" -eq 11 ]
	[ "$(awk -F'\t' '$3 == "NA" {print $1}' <<<"$output" | tr '\n' ' ')" = "3 4 9 " ]
	# every D is positive and below 4 bits; the entropy of a level is above its conditional entropy's floor
	awk -F'\t' 'NR > 1 && $3 != "NA" && !($3 > 0 && $3 < 2.7726) {exit 1}' <<<"$output"
	awk -F'\t' 'NR > 1 && $4 != "NA" && !($4 > 0 && $4 < 2.7726) {exit 1}' <<<"$output"
	awk -F'\t' 'NR > 1 && !($5 > 0) {exit 1}' <<<"$output"
	awk -F'\t' 'NR > 1 && !($6 > 0 && $6 < 1) {exit 1}' <<<"$output"
	figure "D of mini-llava at 4 bits:$(awk -F'\t' 'NR > 1 && $3 != "NA" {printf " %.3f", $3}' <<<"$output")"
}

@test "D(k, k+1) is at most the entropy of layer k+1" {
	vqlm-entropy --table <"$S" |
		awk -F'\t' 'NR > 1 { if (prev != "" && prev != "NA" && $4 != "NA" && prev > $4 + 1e-6) exit 1; prev = $3 }'
}

@test "more bits mean more entropy and smaller errors" {
	vqlm-entropy --table -a 4 <"$S" >t4
	vqlm-entropy --table -a 6 <"$S" >t6
	paste t4 t6 | awk -F'\t' 'NR > 1 && $3 != "NA" && !($10 > $3) {exit 1} NR > 1 && !($13 < $6) {exit 1}'
}

@test "a low threshold joins all, a high one nothing; the projector stands alone; checkpoints part" {
	run -0 --separate-stderr bash -c "vqlm-entropy --table --h0 0 --depth 4 < $S"
	[ "$(awk -F'\t' 'NR > 1 {printf "%s", $7}' <<<"$output")" = 0000122333 ]
	run -0 --separate-stderr bash -c "vqlm-entropy --table --h0 100 < $S"
	[ "$(awk -F'\t' 'NR > 1 {printf "%s", $7}' <<<"$output")" = 0123456789 ]
	run -0 --separate-stderr bash -c "vqlm-entropy --table --partition fixed --depth 2 < $S"
	[ "$(awk -F'\t' 'NR > 1 {printf "%s", $7}' <<<"$output")" = 0011233445 ]
}

@test "random partitions follow the seed" {
	for s in 1 1 2 3 4 5; do
		vqlm-entropy --table --partition random -S $s <"$S" | cut -f7 | tr -d '\n'
		echo
	done >plans
	[ "$(sed -n 1p plans)" = "$(sed -n 2p plans)" ]
	[ "$(sort -u plans | wc -l)" -gt 1 ]
}

@test "fixed blocks begin anew in each tower, the first as --offset says" {
	blocks() { vqlm-entropy -q --partition fixed --depth 2 "$@" <"$S" | vqlm-ls --cat plan | jq -c .blocks; }
	[ "$(blocks)" = "[[0,1],[2,3],[4,4],[5,6],[7,8],[9,9]]" ]
	[ "$(blocks --offset 1)" = "[[0,0],[1,2],[3,3],[4,4],[5,5],[6,6],[7,8],[9,9]]" ]
}

@test "the error proxy takes D's place" {
	vqlm-entropy --proxy error <"$S" | strings | grep -q '"proxy":"error"'
	a=$(vqlm-entropy --table --proxy error -v <"$S" 2>&1 >/dev/null)
	[[ "$a" == *"h0 0.0"* ]]
}

@test "a statistic that is not there is refused (3) by name, with the remedy" {
	run -3 --separate-stderr bash -c "vqlm-entropy -a 8 < $S | cat; exit \${PIPESTATUS[0]}"
	[[ "$stderr" == "vqlm-entropy: stdin: no record 'stat/joint/raw/8'"*"--bits"* ]]
	vqlm-calib -t 1 -m "$DEMO/mini-llava" -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" -n 2 --bits 4 --influence-samples 0 >n.vqs
	run -3 --separate-stderr bash -c "vqlm-entropy --proxy error < n.vqs | cat; exit \${PIPESTATUS[0]}"
	[[ "$stderr" == *"'stat/error/4'"*"--error-stats"* ]]
}

@test "weights alone get one-layer blocks and a note" {
	run -0 --separate-stderr bash -c "vqlm-entropy --table < $BATS_FILE_TMPDIR/w.vqs"
	[[ "$stderr" == "vqlm-entropy: warning: stdin: no statistics"* ]]
	[ "$(awk -F'\t' 'NR > 1 {printf "%s", $7}' <<<"$output")" = 0123456789 ]
}

@test "a plan that is there is replaced, with a note" {
	vqlm-entropy <"$S" >e.vqs
	run -0 --separate-stderr bash -c 'vqlm-entropy --h0 0 < e.vqs > f.vqs'
	[[ "$stderr" == *"is replaced"* ]]
	[ "$(plan f.vqs)" -eq 1 ]
	vqlm-entropy --h0 0 <"$S" >g.vqs
	cmp <(vqlm-ls g.vqs) <(vqlm-ls f.vqs)
}

@test "a cut stream is refused (3) wherever it is cut" {
	n=$(wc -c <"$S")
	for at in 0 1 100 5000 $((n / 3)) $((n / 2)) $((n - 60)) $((n - 1)); do
		run -3 --separate-stderr bash -c "head -c $at $S | vqlm-entropy > cut.vqs"
		[[ "$stderr" == "vqlm-entropy: stdin: "* ]]
		run -3 vqlm-ls -c cut.vqs
	done
}

@test "something else than a stream is refused (3)" {
	run -3 --separate-stderr bash -c "vqlm-entropy < $DEMO/mini-llava/config.json | cat; exit \${PIPESTATUS[0]}"
	[[ "$stderr" == "vqlm-entropy: stdin: "* ]]
}

@test "numbers of the command line are checked (2)" {
	for opt in "--h0 x" "--h0 -1" "--h0-quantile 2" "--h0 1 --h0-quantile .5" "--depth 0" "-a 1" "-a 16" "--partition half" "--proxy x" "--space x"; do
		run -2 --separate-stderr bash -c "vqlm-entropy $opt < /dev/null"
		[ -z "$output" ]
		[[ "$stderr" == "vqlm-entropy: "*"wants"* ]]
	done
}

@test "-o leaves nothing under its name when the input is cut" {
	run -3 --separate-stderr bash -c "head -c 50000 $S | vqlm-entropy -o o.vqs"
	[ ! -e o.vqs ]
	vqlm-entropy -o o.vqs <"$S"
	vqlm-ls -c o.vqs
}
