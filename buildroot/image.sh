#!/bin/sh
# Builds the whole root file system of board qemu-mips with Buildroot on a Debian 12, and prints where it is. Nothing comes
# from Buildroot's download sites: the compiler is Debian's (gcc-mips-linux-gnu behind a wrapper that gives it a sysroot),
# busybox is built from Debian's source, and the kernel is the one that the other tests run on (rootfs/kernel/malta-be.sh).
# It proves the external tree, its scripts and its image; for a release let Buildroot make its own toolchain and kernel.
#
# usage: image.sh BUILDROOT
#
# Output and logs lie in ~/.cache/culvert/buildroot (LAB_CACHE moves it); DEBIAN_MIRROR as for rootfs/kernel/debian.sh.
set -eu
buildroot=$(cd "${1:?usage: image.sh BUILDROOT}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
out=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}/buildroot
dir=$out/image
log=$out/image.log
mkdir -p "$dir"
# shellcheck source=buildroot/offline.sh disable=SC1091
. "$here/offline.sh"
for tool in mips-linux-gnu-gcc fakeroot patchelf rsync cpio; do
	command -v $tool >/dev/null || { echo "image.sh: $tool is missing: run make deps-buildroot" >&2; exit 1; }
done

# toolchain makes a toolchain of Debian's cross compiler that Buildroot takes for a custom one: it wants a sysroot, which a
# distribution's compiler does not have.
toolchain() {
	[ -e "$out/toolchain/complete" ] && return
	rm -rf "$out/toolchain"
	mkdir -p "$out/toolchain/bin" "$out/toolchain/sysroot/usr"
	cp -a /usr/mips-linux-gnu/include /usr/mips-linux-gnu/lib "$out/toolchain/sysroot/usr/"
	ln -s usr/lib "$out/toolchain/sysroot/lib"
	# libc.so and its like are linker scripts with the paths of the machine.
	grep -lI 'GNU ld script' "$out"/toolchain/sysroot/usr/lib/*.so | xargs -r sed -i 's|/usr/mips-linux-gnu/lib/||g'
	for tool in ar as gcc-ar gcc-nm gcc-ranlib ld nm objcopy objdump ranlib readelf strip strings size addr2line; do
		ln -s "/usr/bin/mips-linux-gnu-$tool" "$out/toolchain/bin/mips-linux-gnu-$tool"
	done
	for tool in gcc cpp; do
		cat >"$out/toolchain/bin/mips-linux-gnu-$tool" <<-'GCC'
			#!/bin/sh
			sysroot=$(dirname "$(dirname "$(readlink -f "$0")")")/sysroot
			for arg; do
				case $arg in
				--sysroot=*) sysroot=${arg#*=} ;;
				-print-sysroot) echo "$sysroot"; exit ;;
				-print-file-name=libc.a) echo "$sysroot/usr/lib/libc.a"; exit ;;
				-v) [ $# -gt 1 ] || { /usr/bin/mips-linux-gnu-gcc -v 2>&1 | sed "s| --with-sysroot=/ | --with-sysroot=$sysroot |" >&2; exit; } ;;
				esac
			done
			exec "/usr/bin/${0##*/}" --sysroot="$sysroot" -B"$sysroot/usr/lib" -isystem "$sysroot/usr/include" \
				-L"$sysroot/usr/lib" -Wl,-rpath-link,"$sysroot/usr/lib" "$@"
		GCC
		chmod 755 "$out/toolchain/bin/mips-linux-gnu-$tool"
	done
	: >"$out/toolchain/complete"
}

# busybox fetches Debian's source of it.
busybox() {
	[ -e "$out/busybox/complete" ] && return
	work=$out/busybox.fetch
	rm -rf "$work" "$out/busybox"
	mkdir -p "$work/lists/partial" "$work/archives/partial" "$out/busybox"
	: >"$work/status"
	# shellcheck disable=SC1091
	suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
	echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} $suite main" \
		>"$work/sources.list"
	for command in update "--download-only source busybox"; do
		# shellcheck disable=SC2086
		(cd "$work" && apt-get -q -o Dir::State="$work" -o Dir::State::status="$work/status" -o Dir::Cache="$work" \
			-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
			-o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root $command)
	done
	tar -C "$out/busybox" --strip-components=1 -xf "$work"/busybox_*.orig.tar.*
	rm -rf "$work"
	: >"$out/busybox/complete"
}

# host PACKAGE COMMAND... makes a source that installs the machine's own commands as Buildroot's host package.
host() {
	package=$1
	shift
	mkdir -p "$out/host/$package"
	cat >"$out/host/$package/configure" <<-CONFIGURE
		#!/bin/sh
		for arg; do case \$arg in --prefix=*) prefix=\${arg#*=} ;; esac; done
		printf 'all:\ninstall:\n\tmkdir -p %s/bin\n\tfor c in $*; do ln -sf \$\$(command -v \$\$c) %s/bin/; done\n' "\$prefix" "\$prefix" >Makefile
	CONFIGURE
	chmod 755 "$out/host/$package/configure"
	name=$(echo "$package" | tr "[:lower:]" "[:upper:]")
	printf '%s_OVERRIDE_SRCDIR = %s\nHOST_%s_OVERRIDE_SRCDIR = %s\n' "$name" "$out/host/$package" "$name" "$out/host/$package" >>"$out/local.mk"
}

build() {
	toolchain
	busybox
	offline "$out"
	echo "BUSYBOX_OVERRIDE_SRCDIR = $out/busybox" >>"$out/local.mk"
	host fakeroot fakeroot faked
	host patchelf patchelf
	cp "$out/local.mk" "$dir/local.mk"
	# The board's own defconfig, but for the toolchain and the kernel. Debian's C library is hard-float: the test's kernel
	# emulates a floating-point unit; culvert itself stays soft-float.
	{
		grep -v -e BR2_TOOLCHAIN -e BR2_LINUX -e FORCE_CHECK_HASHES "$here/configs/culvert_qemu_mips_defconfig"
		cat <<-CONFIG
			# BR2_MIPS_SOFT_FLOAT is not set
			BR2_TOOLCHAIN_EXTERNAL=y
			BR2_TOOLCHAIN_EXTERNAL_CUSTOM=y
			BR2_TOOLCHAIN_EXTERNAL_PATH="$out/toolchain"
			BR2_TOOLCHAIN_EXTERNAL_CUSTOM_PREFIX="mips-linux-gnu"
			BR2_TOOLCHAIN_EXTERNAL_GCC_12=y
			BR2_TOOLCHAIN_EXTERNAL_HEADERS_6_1=y
			BR2_TOOLCHAIN_EXTERNAL_CUSTOM_GLIBC=y
			# BR2_TOOLCHAIN_EXTERNAL_INET_RPC is not set
			BR2_TOOLCHAIN_EXTERNAL_OPENMP=y
		CONFIG
	} >"$dir/defconfig"
	make -C "$buildroot" O="$dir" BR2_EXTERNAL="$here" defconfig BR2_DEFCONFIG="$dir/defconfig"
	# Debian's programs stand in for the host packages, so nothing of them is generated.
	nice make -C "$dir" FAKEROOT_AUTORECONF=NO HOST_FAKEROOT_AUTORECONF=NO HOST_FAKEROOT_DEPENDENCIES= \
		BR2_DEFCONFIG="$here/configs/culvert_qemu_mips_defconfig"
}
PATH=$out/bin:$PATH
build >"$log" 2>&1 </dev/null || {
	tail -n 30 "$log" >&2
	echo "image.sh: the build failed, the whole log is $log" >&2
	exit 1
}
echo "$dir/images/rootfs.cpio.gz"
