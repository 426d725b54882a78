#!/usr/bin/env bats
# The targets of the Makefile that touch what is outside build/.
load common

mk() {
	env -u MAKEFLAGS -u MAKELEVEL make -s --no-print-directory -C "$ROOT" BUILD="$BUILD" "$@"
}

@test "make help names every target that is for users" {
	run -0 mk help
	local t
	for t in demo table2 ablation table4 size-accuracy size-7b check fuzz-run lint asan bench bench-layers bench-real install uninstall dist clean deps help; do
		[[ "$output" == *"make $t "* ]] || { echo "$t is missing"; false; }
	done
}

@test "make install puts programs and man pages under DESTDIR and PREFIX, make uninstall removes them" {
	mk install DESTDIR="$T/root" PREFIX=/usr >/dev/null
	local t
	for t in calib entropy search pack infer eval ls; do
		[ -x "root/usr/bin/vqlm-$t" ]
		[ -f "root/usr/share/man/man1/vqlm-$t.1" ]
	done
	[ -f root/usr/share/man/man7/vqlm.7 ]
	[ -f root/usr/share/man/man5/vqlm-stream.5 ]
	run -0 root/usr/bin/vqlm-ls --version
	[ "$(find root -type f | wc -l)" -eq $(($(ls "$ROOT"/bin/vqlm-*.c "$ROOT"/man/*.[157] | wc -l))) ]
	mk uninstall DESTDIR="$T/root" PREFIX=/usr >/dev/null
	[ -z "$(find root -type f)" ]
}

@test "make dist archives the committed tree under one folder" {
	git -C "$ROOT" rev-parse HEAD >/dev/null 2>&1 || skip "no git checkout"
	mk dist BUILD="$T/out"
	tar tzf out/vqlm-*.tar.gz | sort >list
	diff <(git -C "$ROOT" ls-tree -r --name-only HEAD | sort) <(grep -v '/$' list | sed 's,^vqlm-[0-9.]*/,,')
}

@test "make fuzz-run's script begins with seeds, names what broke a promise and ends with 1" {
	mkdir -p b/fuzz
	ln -s "$BUILD/bin" "$BUILD/bench" "$BUILD/tests" b
	printf '#!/bin/sh\nls "$7"\necho stat::number_of_executed_units: 7\n' >b/fuzz/fuzz_image
	printf '#!/bin/sh\necho SUMMARY: a fault\nexit 77\n' >b/fuzz/fuzz_vqm
	chmod +x b/fuzz/fuzz_*
	run -0 "$ROOT/tests/fuzz/run.sh" "$T/b" 2 image
	[[ "$output" == "image "*" 7 inputs in 2 s, no promise broken" ]]
	grep -q bad-empty.png b/fuzz/image.log
	run -1 "$ROOT/tests/fuzz/run.sh" "$T/b" 2 vqm image
	[[ "${lines[0]}" == "vqm "*"FAULT (status 77)" ]]
	[ "${lines[1]}" = "SUMMARY: a fault" ]
	[[ "${lines[3]}" == "image "*"no promise broken" ]]
	[ -s b/fuzz/seeds/vqm/best ]
	[ -s b/fuzz/seeds/tree/packed ]
	run -2 "$ROOT/tests/fuzz/run.sh" "$T/b" soon
	[[ "$output" == *"want a number of seconds, got 'soon'"* ]]
}
