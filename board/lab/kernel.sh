#!/bin/bash
# Builds the lab's user-mode Linux kernels from Debian's sources, once, at the same time, and prints where they are.
#
# usage: kernel.sh [--print] [SERIES...]
#	--print		only names the programs, built or not
#	SERIES		6.1 or 6.12; both without it
#
# A kernel and its modules have a directory whose name carries the source package's version and a hash of the fragment and
# the patch, so a change of any of them builds anew and an old checkout finds its own kernel again. LAB_CACHE moves the
# cache (default ~/.cache/culvert).
#
# A processor with AMX has more state than these kernels save ("ptrace set fp regs failed, errno = 14"): there the
# program is a launcher that preloads xstate/xstate.c.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}
print=
[ "${1:-}" != --print ] || { print=yes; shift; }
[ $# -gt 0 ] || set -- 6.1 6.12

fail() {
	echo "kernel.sh: $*" >&2
	exit 1
}

# directory SERIES: where that kernel is, or will be.
directory() {
	local version
	version=$(dpkg-query -W -f '${Version}' "linux-source-$1" 2>/dev/null) ||
		fail "package linux-source-$1 is missing: run make deps"
	echo "$cache/linux-$version-$(cat "$here/kernel.fragment" "$here/kernel.patch" | sha256sum | cut -c1-12)"
}

wide() { grep -q -m1 -w amx_tile /proc/cpuinfo; }
program() { if wide; then echo "$1/launch"; else echo "$1/linux"; fi; }

# launcher DIRECTORY: makes its file launch start its kernel with the library in front.
launcher() {
	local lib
	lib=$cache/xstate-$(sha256sum "$here/xstate/xstate.c" | cut -c1-12).so
	if [ ! -s "$lib" ]; then
		cc -O2 -shared -fPIC -o "$lib.$$" "$here/xstate/xstate.c" ||
			fail "this processor (AMX) needs a C compiler for the lab: run make deps"
		mv "$lib.$$" "$lib"
	fi
	printf '#!/bin/sh\nLD_PRELOAD=%s exec %s "$@"\n' "$lib" "$1/linux" >"$1/launch.$$"
	chmod +x "$1/launch.$$"
	mv "$1/launch.$$" "$1/launch"
}

# What a build for user mode never reads, most of the source by volume. The Kconfig files it does read, all of them.
needless=(--exclude='*/tools/testing' --exclude='*/tools/perf')
for dir in Documentation samples sound arch/{alpha,arc,arm,arm64,csky,hexagon,ia64,loongarch,m68k,microblaze,mips,nios2} \
	arch/{openrisc,parisc,powerpc,riscv,s390,sh,sparc,xtensa} drivers/{gpu,media,infiniband,scsi,staging,usb,iio,clk} \
	drivers/net/{ethernet,wireless} fs/{xfs,btrfs,smb}; do
	needless+=(--exclude="*/$dir/*."{c,h,S,dts,dtsi,rst,txt,yaml,json})
done

# build SERIES DIRECTORY, in a work directory whose removal is the caller's.
build() {
	tar -C "$work" "${needless[@]}" -xf "/usr/src/linux-source-$1.tar.xz"
	cd "$work/linux-source-$1"
	patch -p1 <"$here/kernel.patch"
	export ARCH=um
	make KCONFIG_ALLCONFIG="$here/kernel.fragment" allnoconfig
	make -j"$(nproc)" linux modules
	mkdir "$work/new"
	strip -o "$work/new/linux" linux
	make INSTALL_MOD_PATH="$work/new" INSTALL_MOD_STRIP=1 modules_install
	mv "$work/new/lib/modules" "$work/new/modules"
	rmdir "$work/new/lib"
	rm -rf "$2"
	mv "$work/new" "$2"
}

# provide SERIES: builds it unless it is there, or somebody else has just built it.
provide() {
	local dir log start=$SECONDS
	dir=$(directory "$1")
	log=$cache/kernel-$1.log
	exec 9>"$dir.lock"
	flock 9
	if [ ! -x "$dir/linux" ]; then
		work=$(mktemp -d "$cache/build.XXXXXX")
		trap 'rm -rf "$work"' EXIT
		set +e # a condition around it would turn set -e off inside
		(set -e; build "$1" "$dir") >"$log" 2>&1 </dev/null 9>&-
		local status=$?
		set -e
		[ $status = 0 ] || {
			tail -n 40 "$log" >&2
			fail "the build of $1 failed, the whole log is $log"
		}
		echo "kernel.sh: $1 built in $((SECONDS - start)) s" >&2
	fi
	! wide || launcher "$dir"
}

if [ -z "$print" ]; then
	mkdir -p "$cache"
	jobs=()
	for series; do
		(provide "$series") &
		jobs+=($!)
	done
	status=0
	for job in "${jobs[@]}"; do wait "$job" || status=1; done
	[ $status = 0 ] || exit 1
fi
for series; do
	dir=$(directory "$series")
	program "$dir"
done
