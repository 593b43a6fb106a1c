#!/bin/sh
# Builds the big-endian malta board's kernel from Debian's source, once, and prints where it is (about 15 minutes on two
# cores). Debian itself has no such kernel any more, and most RouterBOARDs of the MIPS kind are big-endian.
#
# usage: malta-be.sh [--print]
#	--print		only names the file, built or not
#
# The name carries the source package's version and the fragment's hash. LAB_CACHE moves the cache (default ~/.cache/culvert).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}
series=6.12
version=$(dpkg-query -W -f '${Version}' "linux-source-$series" 2>/dev/null) || {
	echo "malta-be.sh: package linux-source-$series is missing: run make deps-boards" >&2
	exit 1
}
hash=$(sha256sum "$here/malta-be.fragment" | cut -c1-12)
out=$cache/vmlinuz-malta-be-$version-$hash
[ "${1:-}" = --print ] && { echo "$out"; exit 0; }
[ -s "$out" ] && { echo "$out"; exit 0; }

command -v mips-linux-gnu-gcc >/dev/null || {
	echo "malta-be.sh: package gcc-mips-linux-gnu is missing: run make deps-boards" >&2
	exit 1
}
mkdir -p "$cache"
# Two that come at once make one kernel.
exec 9>"$cache/malta-be.lock"
flock 9
[ -s "$out" ] && { echo "$out"; exit 0; }
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
log=$cache/malta-be-build.log
export ARCH=mips CROSS_COMPILE=mips-linux-gnu-
{
	tar -C "$work" -xf "/usr/src/linux-source-$series.tar.xz"
	cd "$work/linux-source-$series"
	make malta_defconfig
	# Its hundreds of modules would all be built in once there are no modules.
	sed -i -E 's/^(CONFIG_[A-Z0-9_]+)=m$/# \1 is not set/' .config
	scripts/kconfig/merge_config.sh -m .config "$here/malta-be.fragment"
	make olddefconfig
	nice make -j"$(nproc)" vmlinuz
} >"$log" 2>&1 </dev/null || {
	tail -n 40 "$log" >&2
	echo "malta-be.sh: the build failed, the whole log is $log" >&2
	exit 1
}
# What the fragment asks for and the kernel's own rules did not grant would be missed only much later.
bad=
while read -r line; do
	case $line in
	CONFIG_*=y) grep -qx "$line" "$work/linux-source-$series/.config" || bad="$bad ${line%=y}" ;;
	esac
done <"$here/malta-be.fragment"
[ -z "$bad" ] || echo "malta-be.sh: not granted:$bad" >&2
cp "$work/linux-source-$series/vmlinuz" "$out.new"
mv "$out.new" "$out"
echo "$out"
