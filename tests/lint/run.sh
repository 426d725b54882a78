#!/bin/bash
# All the checks that read the tree and run nothing of ours.
set -uo pipefail

cd "$(dirname "$0")/../.." || exit 4
bad=0
note() { echo "lint: $*"; bad=1; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

tests/lint/layers.sh || bad=1

# Man pages: sound, and one for every tool; every tool has its end-to-end tests.
for m in man/*.[157]; do
	out=$(mandoc -T lint -W warning "$m" 2>&1) || true
	[ -z "$out" ] || note "$out"
done
for t in bin/vqlm-*.c; do
	t=$(basename "$t" .c)
	[ -e "man/$t.1" ] || note "$t has no man page"
	[ -e "tests/e2e/$t.bats" ] || note "$t has no tests/e2e/$t.bats"
	grep -q "Xr $t 1" man/vqlm.7 || note "vqlm(7) does not name $t"
done

# Every fuzz target is replayed by make check.
for f in tests/fuzz/fuzz_*.c; do
	grep -q "\"../fuzz/$(basename "$f")\"" tests/unit/test_fuzz.c || note "$f: tests/unit/test_fuzz.c does not replay it"
	grep -q "replay_found($(basename "$f" .c)," tests/unit/test_fuzz.c || note "$f: tests/unit/test_fuzz.c does not take its files of tests/data (replay_found)"
done

# The README names the tests that show what it promises; a row of that table names none that is not listed below it.
while IFS=$'\t' read -r file name; do
	grep -qF "@test \"$name\" {" "tests/e2e/$file" 2>/dev/null || note "README.md: no test '$name' in tests/e2e/$file"
done < <(sed -nE 's/^[0-9]+\. .([a-z0-9-]+\.bats).: (.*)/\1\t\2/p' README.md)
n=$(grep -cE '^[0-9]+\. .[a-z0-9-]+\.bats.: ' README.md)
out=$(sed -n '/^## What goes in/,/^The numbers are/p' README.md | grep '^|' | sed 's/^|[^|]*|//' | grep -oE '[0-9]+' | sort -nu | awk -v n="$n" '$1 > n')
if [ "$n" -eq 0 ] || [ -n "$out" ]; then
	note "README.md: tests of the table that are not listed: ${out:-all}"
fi

# Shell.
mapfile -t scripts < <(git ls-files '*.sh' '.ci/run')
[ "${#scripts[@]}" -eq 0 ] || shellcheck "${scripts[@]}" || bad=1

# C that must not be there, and where OpenBLAS may be seen.
out=$(git grep -nE '\b(strcpy|strcat|sprintf|gets|atoi|atof|strtok)\(' -- 'bin/*.[ch]' 'lib/*.[ch]') && note "banned function: $out"
out=$(git grep -lE '#include <(cblas|lapacke)\.h>' -- lib bin | grep -vE '^lib/kernel/(blas|lapack)\.c$') && note "only lib/kernel/blas.c and lapack.c may see OpenBLAS: $out"
out=$(git grep -nE '\b(printf|fprintf|exit|abort)\(' -- 'lib/*.c' | grep -vE '^lib/(base/log|task/)') && note "lib/ prints or exits: $out"
out=$(git grep -nE 'march=|-ffast-math' -- Makefile '*.mk' '.ci/run' | grep -v '^[^:]*:[0-9]*:#') && note "flags that make results depend on the machine: $out"
out=$(git ls-files 'bin/*.[ch]' 'lib/*.[ch]' | xargs wc -l | awk '$2 != "total" && $1 > 800 { print $2 ": " $1 " lines; split it" }')
[ -z "$out" ] || note "$out"
out=$(git ls-files 'lib/*.[ch]' | xargs -n1 basename | sort | uniq -d)
[ -z "$out" ] || note "file names that are not unique: $out"

# Words: nothing unfinished, nothing of the place where it was written.
out=$(git grep -nIE '\b(TODO|FIXME|XXX)\b' -- bin lib man pipelines Makefile '*.md' ':!pipelines/demo') && note "unfinished: $out"
out=$(git grep -nIE '(^|[^A-Za-z0-9_.])/(work|home|root)/' -- . ':!*.json' ':!tests/lint/run.sh') && note "a path of one machine: $out"

# Formatting, where clang-format is to be had.
if command -v clang-format >/dev/null; then
	mapfile -t sources < <(git ls-files '*.c' '*.h')
	clang-format --dry-run -Werror "${sources[@]}" >"$scratch/format" 2>&1 || note "formatting (make format): $(head -5 "$scratch/format")"
fi

[ "$bad" -eq 0 ] && echo "lint: clean"
exit "$bad"
