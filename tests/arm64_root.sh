#!/bin/bash
# arm64_root.sh DIR: installs Debian's cross compiler and qemu where they are missing, and puts arm64's libraries and
# headers of the build and the tests under DIR.  Nothing of arm64 is installed in the system: apt-get works with
# states of its own, so that neither architectures nor versions of what is installed change.
set -euo pipefail

root=$(realpath -m "$1")
tools="gcc-aarch64-linux-gnu qemu-user"
libraries="libc6-dev libgomp1 libzstd-dev libarchive-dev libopenblas-openmp-dev libjansson-dev libjpeg62-turbo-dev
	libpng-dev libutf8proc-dev libpcre2-dev libxxhash-dev nettle-dev libcmocka-dev"

command -v apt-get >/dev/null || {
	echo "arm64: this is not a Debian system; install an aarch64 cross compiler, qemu-aarch64 and these for arm64: $libraries" >&2
	exit 1
}
missing=
for p in $tools; do
	dpkg-query -W -f '${db:Status-Abbrev}' "$p" 2>/dev/null | grep -q '^ii' || missing+=" $p"
done
if [ -n "$missing" ]; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	echo "arm64: installing$missing"
	$sudo apt-get update -qq
	# shellcheck disable=SC2086 # a list of words on purpose
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

# What it was fetched for is written down: a root of fewer libraries is one to fetch anew.
[ "$(cat "$root/complete" 2>/dev/null)" != "$libraries" ] || exit 0
echo "arm64: fetching libraries to $1"
rm -rf "$root"
apt=$root/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial"
: >"$apt/status"
own=(-qq -o "APT::Architecture=arm64" -o "APT::Architectures::=arm64" -o "Dir::State=$apt" -o "Dir::State::lists=$apt/lists"
	-o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt" -o "Dir::Cache::archives=$apt/archives" -o "Debug::NoLocking=1")
apt-get "${own[@]}" update
# shellcheck disable=SC2086 # a list of words on purpose
apt-get "${own[@]}" install -y --download-only --no-install-recommends $libraries >/dev/null
for package in "$apt"/archives/*.deb; do
	dpkg-deb -x "$package" "$root"
done
rm -rf "$apt"

# Links that start at / would leave the folder.
find "$root" -lname '/*' -printf '%p %l\n' | while read -r link target; do
	ln -sfn "$root$target" "$link"
done

# What update-alternatives would do.
lib=$root/usr/lib/aarch64-linux-gnu include=$root/usr/include/aarch64-linux-gnu
for f in "$lib"/openblas-openmp/libopenblas.so* "$include"/openblas-openmp/*.h; do
	ln -s "openblas-openmp/${f##*/}" "$(dirname "$(dirname "$f")")/${f##*/}"
done
echo "$libraries" >"$root/complete"
