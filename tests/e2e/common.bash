# What the end-to-end tests share.  `load common` at the top of a .bats file.

bats_require_minimum_version 1.5.0

# Where things are, and a folder of the test's own.
places() {
	ROOT=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
	DEMO=$ROOT/pipelines/demo
	DATA=${VQLM_DATA:-$ROOT/../shared/data}
	T=$BATS_TEST_TMPDIR
	cd "$T" || return 1
}

setup() { places; }

# Skips a test that wants the public data (a folder below $VQLM_DATA) where it is absent.
need_data() {
	[ -e "$DATA/$1" ] || skip "no $1 under VQLM_DATA"
}

# A figure that a reader of the test log wants to see.
figure() {
	echo "# figure: $*" >&3
}

# need_program NAME...: skips where an optional reference is not installed.
need_program() {
	local p
	for p in "$@"; do
		command -v "$p" >/dev/null || skip "$p is not installed"
	done
}

# libarchive loses its own buffers when an archive whose output failed is freed.  For the tests that make it fail;
# everywhere else `make asan` counts every leak.
allow_libarchive_leak() {
	export LSAN_OPTIONS="suppressions=$ROOT/tests/lsan.supp:print_suppressions=0"
}
