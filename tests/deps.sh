#!/bin/bash
# deps.sh [PACKAGE...]: installs the Debian packages that the build and the tests need, or those named, and that are missing.
# Silent when there is nothing to do; needs root (or sudo) only when something is missing.
set -euo pipefail

build="gcc make libc6-dev libzstd-dev libarchive-dev libopenblas-openmp-dev libjansson-dev
	libjpeg62-turbo-dev libpng-dev libutf8proc-dev libpcre2-dev libxxhash-dev nettle-dev"
test="bats libcmocka-dev mandoc shellcheck clang-format zstd jq xxd gnuplot-nox"

missing=
wanted=${*:-$build $test}
for p in $wanted; do
	dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null | grep -q '^ii' || missing+=" $p"
done
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || {
	echo "deps: this is not a Debian system; install these yourself:$missing" >&2
	exit 1
}
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of words on purpose
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
