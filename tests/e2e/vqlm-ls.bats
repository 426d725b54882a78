#!/usr/bin/env bats
# vqlm-ls, and through it the stream format, on streams that an independent program wrote.
load common

stream() {
	need_program python3
	python3 "$ROOT/tests/e2e/stream.py" "$1" >"$1.vqs"
}

@test "a stream written from the man page alone is listed" {
	stream good
	run -0 --separate-stderr vqlm-ls good.vqs
	[ "${#lines[@]}" -eq 3 ]
	[ -z "$stderr" ]
	[[ "${lines[1]}" =~ ^TENSOR\ +f32\ +2x3\ +24\ +41\ +a\.weight\ +\{\"linear\":true,\"unit\":0\}$ ]]
	run -0 vqlm-ls <good.vqs
	[ "${#lines[@]}" -eq 3 ]
}

@test "--check prints one line and verifies payloads that a listing skips" {
	stream good
	run -0 --separate-stderr vqlm-ls --check good.vqs
	[ "$output" = "good.vqs: stream ok: 1 segment, 3 records, 37 raw bytes, 88 stored" ]
	at=$(grep -abo '{"arch' good.vqs | cut -d: -f1)
	printf X | dd of=good.vqs bs=1 seek=$((at + 1)) conv=notrunc status=none
	run -0 --separate-stderr vqlm-ls good.vqs
	run -3 --separate-stderr vqlm-ls -c good.vqs
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-ls: good.vqs: record 0 'config': "*damaged* ]]
}

@test "--json is JSON, header first" {
	need_program jq
	stream good
	vqlm-ls --json good.vqs >out
	[ "$(jq -r '.header.producer // empty' out)" = stream.py ]
	[ "$(jq -r 'select(.name == "a.weight") | .shape == [2, 3] and .attrs.linear and .kind == "TENSOR"' out)" = true ]
	run -0 vqlm-ls --json -o out2 good.vqs
	[ -z "$output" ]
	cmp out out2
}

@test "--cat writes the payloads of the records that match, and of no other" {
	stream good
	run -0 --separate-stderr vqlm-ls --cat 'conf*' good.vqs
	[ "$output" = '{"arch":"no"}' ]
	[ -z "$stderr" ]
	vqlm-ls --cat a.weight good.vqs >weight
	[ "$(od -An -tf4 weight | wc -w)" -eq 6 ]
	run -3 --separate-stderr vqlm-ls --cat b.weight good.vqs
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-ls: good.vqs: no record's name matches 'b.weight'" ]]
	printf X | dd of=good.vqs bs=1 seek=$(($(grep -abo '{"arch' good.vqs | cut -d: -f1) + 1)) conv=notrunc status=none
	run -3 --separate-stderr vqlm-ls --cat config good.vqs
	[ -z "$output" ]
}

@test "--cat gives the files of a stream back byte for byte, and nothing after them" {
	vqlm-calib -q -m "$DEMO/mini-llava" -n 0 -o m.vqs
	local f
	for f in tokenizer.model tokenizer.json tokenizer_config.json added_tokens.json; do
		vqlm-ls --cat "$f" m.vqs | cmp "$DEMO/mini-llava/$f" -
	done
	[ "$(vqlm-ls --cat config m.vqs | wc -l)" -eq 1 ]
}

@test "segments in a row are one stream, and kinds from the future are listed" {
	stream two
	stream unknown-kind
	run -0 vqlm-ls -c two.vqs
	[[ "$output" == *"2 segments, 6 records"* ]]
	run -0 vqlm-ls unknown-kind.vqs
	[[ "${lines[3]}" == "900 "*" new" ]]
}

@test "a stream without an end record is refused (3)" {
	stream no-end
	run -3 --separate-stderr bash -c 'cat no-end.vqs | vqlm-ls -c'
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-ls: stdin: the stream is cut after 3 records"* ]]
}

@test "a stream cut anywhere is refused (3), listed or checked" {
	stream good
	size=$(stat -c %s good.vqs)
	for n in $(seq 0 7 $((size - 1))) $((size - 1)); do
		run -3 bash -c "head -c $n good.vqs | vqlm-ls"
		run -3 bash -c "head -c $n good.vqs | vqlm-ls -c"
	done
}

@test "a name that comes twice is refused (3)" {
	stream twice
	run -3 --separate-stderr vqlm-ls -c twice.vqs
	[[ "$stderr" == "vqlm-ls: twice.vqs: record 3 'a.weight': there is a record of this name already" ]]
}

@test "a claim of 64 GiB without the bytes is refused (3)" {
	stream huge
	run -3 --separate-stderr bash -c 'cat huge.vqs | vqlm-ls -c'
	[[ "$stderr" == *"record 3 'b': the input ends within its payload" ]]
	run -3 --separate-stderr vqlm-ls huge.vqs
	[ -n "${VQLM_SANITIZED:-}" ] || # AddressSanitizer itself reserves terabytes
		run -3 --separate-stderr bash -c 'ulimit -v 800000; vqlm-ls huge.vqs'
}

@test "another major version is refused (3) and both are named" {
	stream major
	run -3 --separate-stderr vqlm-ls major.vqs
	[ -z "$output" ]
	[[ "$stderr" == "vqlm-ls: major.vqs: want stream version 1.x, got 2.0"* ]]
}

@test "what is no stream is refused (3), nothing is refused (3), no file is a failure (4)" {
	echo hello world >text
	run -3 --separate-stderr vqlm-ls text
	[[ "$stderr" == "vqlm-ls: text: want a tensor stream or a packed model, got"* ]]
	run -3 --separate-stderr vqlm-ls /dev/null
	[[ "$stderr" == *"the input is empty"* ]]
	run -4 --separate-stderr vqlm-ls absent.vqs
	[[ "$stderr" == "vqlm-ls: absent.vqs: cannot open: "* ]]
	run -4 --separate-stderr vqlm-ls .
}

@test "zstd tests and lists a stream" {
	need_program zstd
	stream good
	run -0 zstd -t -q good.vqs
	cp good.vqs good.zst
	run -0 zstd -l good.zst
}

@test "a full disk is a failure of the system (4)" {
	stream good
	run -4 --separate-stderr bash -c 'vqlm-ls good.vqs >/dev/full'
	[[ "$stderr" == "vqlm-ls: stdout: "* ]]
}

@test "the bytes in the man page are those of a stream" {
	need_program xxd
	stream good
	sed -n 's/^\([0-9a-f]\{3\}\)  \(\([0-9a-f]\{2\} \{1,2\}\)\{1,16\}\).*/\2/p' "$ROOT/man/vqlm-stream.5" |
		tr -d ' \n' | xxd -r -p >page
	[ "$(stat -c %s page)" -eq 209 ]
	cmp -n 209 page good.vqs
}
