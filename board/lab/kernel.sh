#!/bin/sh
# Builds the lab's own user-mode Linux from Debian's kernel source, once, and prints where it is.
#
# usage: kernel.sh [--print | --debian]
#	--print		only names the file, built or not
#	--debian	names Debian's own (package user-mode-linux) instead, in the form that runs on this processor
#
# The name carries the source package's version and the fragment's hash, so a change of either builds anew
# and an old checkout finds its own kernel again. LAB_CACHE moves the cache (default ~/.cache/culvert).
#
# A processor with AMX has more state than these kernels save ("ptrace set fp regs failed, errno = 14"): there the
# name is a launcher that preloads xstate/xstate.c, and the kernel lies beside it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}

# launcher FILE KERNEL: makes FILE start KERNEL with the library in front.
launcher() {
	hash=$(sha256sum "$here/xstate/xstate.c" | cut -c1-12)
	lib=$cache/xstate-$hash.so
	if [ ! -s "$lib" ]; then
		cc -O2 -shared -fPIC -o "$lib.$$" "$here/xstate/xstate.c" || {
			echo "kernel.sh: this processor (AMX) needs a C compiler for the lab: run make deps" >&2
			exit 1
		}
		mv "$lib.$$" "$lib"
	fi
	printf '#!/bin/sh\nLD_PRELOAD=%s exec %s "$@"\n' "$lib" "$2" >"$1.$$"
	chmod +x "$1.$$"
	cmp -s "$1.$$" "$1" && rm "$1.$$" || mv "$1.$$" "$1"
}
wide() { grep -q -m1 -w amx_tile /proc/cpuinfo; }
elf() { [ "$(head -c 4 "$1" | tail -c 3)" = ELF ]; }

if [ "${1:-}" = --debian ]; then
	debian=$(command -v linux.uml) || {
		echo "kernel.sh: package user-mode-linux is missing: run make deps" >&2
		exit 1
	}
	if wide; then
		mkdir -p "$cache"
		launcher "$cache/linux-debian" "$debian"
		debian=$cache/linux-debian
	fi
	echo "$debian"
	exit 0
fi

series=6.12
version=$(dpkg-query -W -f '${Version}' "linux-source-$series" 2>/dev/null) || {
	echo "kernel.sh: package linux-source-$series is missing: run make deps" >&2
	exit 1
}
hash=$(sha256sum "$here/kernel.fragment" | cut -c1-12)
out=$cache/linux-$version-$hash
[ "${1:-}" = --print ] && { echo "$out"; exit 0; }

if [ ! -x "$out" ]; then
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
fi
if wide; then
	if elf "$out"; then
		ln -f "$out" "$out.elf"
	fi
	launcher "$out" "$out.elf"
fi
echo "$out"
