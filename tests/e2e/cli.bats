#!/usr/bin/env bats
# What every tool promises about its command line.
load common

tools() {
	for t in "$BUILD"/bin/vqlm-*; do
		[[ "$t" == *.o || "$t" == *.d ]] || basename "$t"
	done
}

@test "every tool has --help on stdout with status 0" {
	for t in $(tools); do
		run -0 --separate-stderr "$t" --help
		[[ "$output" == "$t - "* ]]
		[ -z "$stderr" ]
	done
}

@test "every tool says its version" {
	for t in $(tools); do
		run -0 --separate-stderr "$t" --version
		[[ "$output" =~ ^$t\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
	done
}

@test "an unknown option is a wrong command line (2), said in one line" {
	for t in $(tools); do
		run -2 --separate-stderr "$t" --no-such-option
		[ -z "$output" ]
		[ "${#stderr_lines[@]}" -eq 1 ]
		[[ "$stderr" == "$t: "*"--no-such-option"* ]]
	done
}

@test "a short option that is unknown is named wherever it stands, and a flag takes no value (2)" {
	for t in $(tools); do
		run -2 --separate-stderr "$t" -qZv
		[[ "$stderr" == "$t: unknown option '-Z';"* ]]
		run -2 --separate-stderr "$t" --quiet=yes
		[[ "$stderr" == "$t: '--quiet=yes': this option takes no value;"* ]]
	done
}

@test "what is said never lands in the output, though standard error is closed" {
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" tiny m >/dev/null
	vqlm-calib -q -m m -n 0 -l 0 -o good.vqs
	vqlm-calib -vv -m m -n 0 -l 0 -o talk.vqs 2>&-
	cmp good.vqs talk.vqs
	run -0 --separate-stderr bash -c 'vqlm-ls -c talk.vqs <&- 2>&-'
	[[ "$output" == "talk.vqs: stream ok"* ]]
}

@test "-o leaves a device and a named pipe what they are, and refuses a folder at once (4)" {
	"$BUILD/bench/make_ckpt" --tokenizer "$DEMO/mini-llava" tiny m >/dev/null
	vqlm-calib -q -m m -n 0 -l 0 -o good.vqs
	mkfifo pipe
	cat pipe >got.vqs &
	vqlm-calib -q -m m -n 0 -l 0 -o pipe
	wait
	cmp good.vqs got.vqs
	[ -p pipe ]
	mknod full c 1 7 || skip "devices cannot be made here"
	run -4 --separate-stderr vqlm-calib -q -m m -n 0 -o full
	[ -c full ]
	[ ! -e full.part ]
	[[ "$stderr" == "vqlm-calib: full: "*"No space left on device" ]]
	mkdir folder
	run -4 --separate-stderr vqlm-calib -q -m m -n 0 -o folder
	[[ "$stderr" == "vqlm-calib: folder: want a file"* ]]
}

@test "a number out of range is a wrong command line (2) and the range is said" {
	for t in $(tools); do
		run -2 --separate-stderr "$t" --threads 5000
		[[ "$stderr" == "$t: "*"0..1024"* ]]
	done
}

@test "help that cannot be written is a failure of the system (4)" {
	for t in $(tools); do
		run -4 --separate-stderr bash -c "$t --help > /dev/full"
		[[ "$stderr" == "$t: stdout: "* ]]
	done
}

@test "every option of --help is in the man page and every option of the page is in --help" {
	for t in $(tools); do
		"$t" --help | grep -oE -- '^  (-.,| )? +--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+' | sort -u >help.txt
		grep -E '^\.(It|Op) Fl' "$ROOT/man/$t.1" | grep -oE -- 'Fl -[a-z0-9-]+' | sed 's/^Fl -/--/' | sort -u >man.txt
		[ -s help.txt ]
		diff help.txt man.txt || { echo "$t: help and man page differ"; false; }
	done
}

@test "VQLM_CPU with an unknown set is a wrong command line (2)" {
	for t in $(tools); do
		run -2 --separate-stderr env VQLM_CPU=mmx "$t" --threads 1
		[[ "$stderr" == "$t: "*"VQLM_CPU"* ]]
	done
}

@test "no line of --help is wider than 100 columns or ends in a blank" {
	for t in $(tools); do
		"$t" --help >help.txt
		run -1 grep -nE '^.{101}| $' help.txt
	done
}

@test "every option of every tool stands in some test, by its long or its short name" {
	local t line long short
	cat "$ROOT"/tests/e2e/*.bats "$ROOT"/tests/e2e/*.bash >tests
	for t in $(tools); do
		"$t" --help | sed -nE 's/^ +(-([A-Za-z]), )?(--[a-z0-9-]+).*/\3 \2/p' >options
		[ "$(wc -l <options)" -gt 7 ]
		while read -r long short; do
			case $long in --seed | --level | --verbose) continue ;; esac # the same in all: -S, -l, -v
			grep -qE -- "$long([^a-z0-9-]|\$)" tests || grep -qE -- "[ (]-[a-z]*$short[ '\"]" tests || echo "$t $long"
		done <options
	done >missing
	cat missing
	[ ! -s missing ]
}
