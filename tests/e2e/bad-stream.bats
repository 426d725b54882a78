#!/usr/bin/env bats
# Streams that are cut, of another version or stored in another way, through every tool that reads one.
load common

# A small calibrated stream, its plan and what search made of it.
streams() {
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" --layers 1 --vision-layers 2 tiny m >/dev/null
	vqlm-calib -q -m m -n 2 -d "$DEMO/mini-sqa/llava_train_calib_CQM-A.json" --influence-samples 1 -o calib.vqs "$@"
	vqlm-entropy -q <calib.vqs -o plan.vqs "$@"
	vqlm-search -q --method rtn <plan.vqs -o searched.vqs "$@"
}

# edges STREAM: where its frames begin, the first and the end of the file left out.
edges() {
	local at=0 size n
	size=$(stat -c %s "$1")
	while [ "$at" -lt "$size" ]; do
		[ "$at" -eq 0 ] || echo "$at"
		n=$(od -An -t u4 -j $((at + 4)) -N 4 "$1" | tr -d ' ')
		if [ "$(tail -c +$((at + 9)) "$1" | head -c 8)" = VQLMRECD ]; then
			echo $((at + 8 + n))
			n=$((n + $(od -An -t u8 -j $((at + 40)) -N 8 "$1" | tr -d ' ')))
		fi
		at=$((at + 8 + n))
	done
}

# cut_everywhere STREAM TOOL...: status 3 and one line, wherever the stream is cut.
cut_everywhere() {
	local stream=$1 at status size n=0
	shift
	size=$(stat -c %s "$stream")
	RANDOM=7
	for at in $(edges "$stream") $(for _ in {1..25}; do echo $(((RANDOM * 32768 + RANDOM) % size)); done); do
		status=0
		head -c "$at" "$stream" | "$@" >out 2>err || status=$?
		[ "$status" -eq 3 ] && [ "$(wc -l <err)" -eq 1 ] || {
			echo "$* at $at of $size: status $status, $(cat err)"
			return 1
		}
		n=$((n + 1))
	done
	figure "$1: refused a stream cut at $n places"
}

@test "a stream cut at every frame's edge and at random places is refused (3) by every tool, in one line" {
	streams
	cut_everywhere calib.vqs vqlm-entropy -q
	cut_everywhere plan.vqs vqlm-search -q --method rtn
	cut_everywhere searched.vqs vqlm-pack -q
	cut_everywhere searched.vqs vqlm-ls
}

@test "a stream of another major version is refused (3) by every tool and both versions are said" {
	streams
	local tool
	for f in calib plan searched; do
		printf '\x07' | dd of="$f.vqs" bs=1 seek=16 conv=notrunc status=none
	done
	for tool in "vqlm-entropy <calib.vqs" "vqlm-search --method rtn <plan.vqs" "vqlm-search <plan.vqs" "vqlm-pack <searched.vqs" \
		"vqlm-ls <searched.vqs" "vqlm-ls -c <searched.vqs"; do
		run -3 --separate-stderr bash -c "$tool >out"
		[[ "$stderr" == "${tool%% *}: stdin: want stream version 1.x, got 7.0: "* ]]
		[ "${#stderr_lines[@]}" -eq 1 ]
	done
}

@test "an output that is no stream gives a resumed search nothing, and that is said" {
	streams
	echo 'no stream' >other
	run -0 --separate-stderr bash -c 'vqlm-search --method rtn --resume other <plan.vqs >again.vqs'
	[[ "$stderr" == "vqlm-search: warning: other: nothing can be taken from it: "* ]]
	cmp searched.vqs again.vqs
}

@test "a resumed search that was refused or stopped keeps the work of the first" {
	streams
	vqlm-search -q --method rtn -l 0 <plan.vqs -o whole.vqs
	head -c $(($(stat -c %s whole.vqs) * 2 / 3)) whole.vqs >x.vqs.part
	cp x.vqs.part first
	# Other parameters: refused, and again with the right ones.
	run -3 --separate-stderr bash -c 'vqlm-search -q --method rtn -w 8 -l 0 -o x.vqs --resume x.vqs.part <plan.vqs'
	[[ "$stderr" == *"other parameters"* ]]
	cmp first x.vqs.part.resumed
	run -3 --separate-stderr bash -c 'head -c 500000 plan.vqs | vqlm-search -q --method rtn -l 0 -o x.vqs --resume x.vqs.part'
	cmp first x.vqs.part.resumed
	vqlm-search -q --method rtn -l 0 -o x.vqs --resume x.vqs.part <plan.vqs
	cmp whole.vqs x.vqs
	[ ! -e x.vqs.part ]
	[ ! -e x.vqs.part.resumed ]
}

@test "every level stores the same, and what is packed from it is the same" {
	local level
	for level in 0 1 9 19; do
		streams -l "$level"
		vqlm-ls --json searched.vqs | jq -c 'select(.name) | [.kind, .name, .shape, .raw_bytes, .xxh64, .attrs]' >"list-$level"
		vqlm-pack -q <searched.vqs >"m-$level"
		cmp list-0 "list-$level"
		cmp m-0 "m-$level"
		vqlm-ls -c searched.vqs
	done
}
