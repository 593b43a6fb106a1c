#!/bin/sh
# Builds the lab's own user-mode Linux from Debian's kernel source, once, and prints where it is.
#
# usage: kernel.sh [--print]      --print only names the file, built or not
#
# The name carries the source package's version and the fragment's hash, so a change of either builds anew
# and an old checkout finds its own kernel again. LAB_CACHE moves the cache (default ~/.cache/culvert).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}
series=6.12
version=$(dpkg-query -W -f '${Version}' "linux-source-$series" 2>/dev/null) || {
	echo "kernel.sh: package linux-source-$series is missing: run make deps" >&2
	exit 1
}
hash=$(sha256sum "$here/kernel.fragment" | cut -c1-12)
out=$cache/linux-$version-$hash
[ "${1:-}" = --print ] && { echo "$out"; exit 0; }
[ -x "$out" ] && { echo "$out"; exit 0; }

mkdir -p "$cache"
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
log=$cache/kernel-build.log
{
	tar -C "$work" -xf "/usr/src/linux-source-$series.tar.xz"
	cd "$work/linux-source-$series"
	make ARCH=um defconfig
	scripts/kconfig/merge_config.sh -m .config "$here/kernel.fragment"
	make ARCH=um olddefconfig
	make ARCH=um -j"$(nproc)" linux
} >"$log" 2>&1 </dev/null || {
	tail -n 40 "$log" >&2
	echo "kernel.sh: the build failed, the whole log is $log" >&2
	exit 1
}
strip -o "$out.new" "$work/linux-source-$series/linux"
mv "$out.new" "$out"
echo "$out"
