#!/bin/bash
# All the checks that read the tree and run nothing of ours.
set -uo pipefail

cd "$(dirname "$0")/../.."
bad=0
note() { echo "lint: $*"; bad=1; }

tests/lint/layers.sh || bad=1

# Man pages.
for m in man/*.[157]; do
	[ -e "$m" ] || continue
	out=$(mandoc -T lint -W warning "$m" 2>&1) || true
	[ -z "$out" ] || note "$out"
done

# Shell.
mapfile -t scripts < <(git ls-files '*.sh' '.ci/run')
[ "${#scripts[@]}" -eq 0 ] || shellcheck "${scripts[@]}" || bad=1

# C that must not be there, and where OpenBLAS may be seen.
out=$(git grep -nE '\b(strcpy|strcat|sprintf|gets|atoi|atof|strtok)\(' -- 'bin/*.[ch]' 'lib/*.[ch]') && note "banned function: $out"
out=$(git grep -lE '#include <(cblas|lapacke)\.h>' -- lib bin | grep -vE '^lib/kernel/(blas|lapack)\.c$') && note "only lib/kernel/blas.c and lapack.c may see OpenBLAS: $out"
out=$(git grep -nE '\b(printf|fprintf|exit|abort)\(' -- 'lib/*.c' | grep -vE '^lib/(base/log|task/)') && note "lib/ prints or exits: $out"

# Formatting, where clang-format is to be had.
if command -v clang-format >/dev/null; then
	mapfile -t sources < <(git ls-files '*.c' '*.h')
	clang-format --dry-run -Werror "${sources[@]}" >/tmp/vqlm-format.$$ 2>&1 || note "formatting (make format): $(head -5 /tmp/vqlm-format.$$)"
	rm -f /tmp/vqlm-format.$$
fi

[ "$bad" -eq 0 ] && echo "lint: clean"
exit "$bad"
