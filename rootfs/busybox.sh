#!/bin/sh
# Builds busybox for the big-endian MIPS board from Debian's source, with Debian's own configuration of busybox-static, so
# that all boards have the same programs, and prints where it is. The other boards have Debian's package as it is.
#
# usage: busybox.sh
#
# Built once, about a minute; the name carries this script's hash. LAB_CACHE and DEBIAN_MIRROR as for kernel/debian.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}
out=$cache/busybox-mips-$(sha256sum "$here/busybox.sh" | cut -c1-12)
[ -s "$out" ] && { echo "$out"; exit 0; }
command -v mips-linux-gnu-gcc >/dev/null || {
	echo "busybox.sh: package gcc-mips-linux-gnu is missing: run make deps-boards" >&2
	exit 1
}
mkdir -p "$cache"
exec 9>"$cache/busybox-mips.lock"
flock 9
[ -s "$out" ] && { echo "$out"; exit 0; }
work=$(mktemp -d "$cache/busybox.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
log=$cache/busybox-mips.log

# A package manager's state of our own: the machine's may not list sources.
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$work/state/lists/partial" "$work/archives/partial"
: >"$work/status"
echo "deb-src [signed-by=$keys] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} $suite main" >"$work/sources.list"
apt() {
	apt-get -q -o Dir::State="$work/state" -o Dir::State::status="$work/status" -o Dir::Cache="$work" \
		-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root "$@"
}
build() {
	cd "$work"
	apt update
	apt --download-only source busybox
	mkdir src
	tar -C src --strip-components=1 -xf busybox_*.orig.tar.*
	tar -C src -xf busybox_*.debian.tar.*
	cd src
	# Debian's patches, in their order.
	while read -r patch _; do
		case $patch in '' | '#'*) continue ;; esac
		patch -s -p1 <"debian/patches/$patch"
	done <debian/patches/series
	cp debian/config/pkg/static .config
	# Traffic control's CBQ is gone from newer kernels' headers; nothing here uses tc.
	sed -i -e 's/^CONFIG_TC=y/# CONFIG_TC is not set/' -e 's/^CONFIG_FEATURE_TC_INGRESS=y/# CONFIG_FEATURE_TC_INGRESS is not set/' .config
	sed -i -e 's/^CONFIG_CROSS_COMPILER_PREFIX=.*/CONFIG_CROSS_COMPILER_PREFIX="mips-linux-gnu-"/' .config
	# The defaults answer what the release's configuration does not.
	yes '' | make oldconfig
	nice make -j"$(nproc)" busybox
}
build >"$log" 2>&1 </dev/null || {
	tail -n 20 "$log" >&2
	echo "busybox.sh: the build failed, the whole log is $log" >&2
	exit 1
}
cp "$work/src/busybox" "$out.new"
mv "$out.new" "$out"
echo "$out"
