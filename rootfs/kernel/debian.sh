#!/bin/sh
# Fetches Debian packages of another architecture and unpacks them into the cache, without telling the machine's own
# package manager, and prints the directory.
#
# usage: debian.sh ARCH [PACKAGE...]
#	ARCH		arm64, armhf, mipsel
#	PACKAGE		without any: the architecture's kernel and busybox, which is what a board's image is made of
#
# The directory holds boot/, lib/modules/ and bin/ as the packages have them, less the drivers of hardware that no
# emulated board has. It is fetched once; remove it to have newer ones. LAB_CACHE moves the cache (default
# ~/.cache/culvert), DEBIAN_MIRROR and DEBIAN_SECURITY_MIRROR name other servers than deb.debian.org's.
set -eu
arch=${1:?usage: debian.sh ARCH [PACKAGE...]}
shift
case $arch in
arm64) kernel=linux-image-arm64 ;;
armhf) kernel=linux-image-armmp ;;
mipsel) kernel=linux-image-4kc-malta ;;
*)
	echo "debian.sh: no board here is of architecture $arch: arm64, armhf or mipsel" >&2
	exit 2
	;;
esac
cache=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}
name=debian-$arch
[ $# = 0 ] || name=$name-$(echo "$*" | tr -c 'a-z0-9\n' -)
[ $# -gt 0 ] || set -- "$kernel" busybox-static
out=$cache/$name
[ -e "$out/complete" ] && { echo "$out"; exit 0; }

mkdir -p "$cache"
exec 9>"$cache/$name.lock"
flock 9
[ -e "$out/complete" ] && { echo "$out"; exit 0; }
work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
log=$cache/$name.log

# A package manager's state of our own, of that architecture alone; the machine's settings (proxies) still hold.
# shellcheck source=/dev/null
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$work/state/lists/partial" "$work/archives/partial" "$work/etc" "$work/root"
cat >"$work/etc/sources.list" <<-SOURCES
	deb [signed-by=$keys] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} $suite main
	deb [signed-by=$keys] ${DEBIAN_SECURITY_MIRROR:-http://deb.debian.org/debian-security} $suite-security main
SOURCES
: >"$work/status"
apt() {
	command=$1
	shift
	"apt-$command" -q -o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o Dir::State="$work/state" \
		-o Dir::State::status="$work/status" -o Dir::Cache="$work" -o Dir::Etc::sourcelist="$work/etc/sources.list" \
		-o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null -o APT::Sandbox::User=root "$@"
}
fetch() {
	apt get update
	for package; do
		case $package in
		linux-image-*) # its newest version is what the metapackage depends on
			real=$(apt cache depends "$package" | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
			package=${real:-$package}
			;;
		esac
		(cd "$work" && apt get download "$package")
	done
	for deb in "$work"/*.deb; do
		dpkg-deb -x "$deb" "$work/root"
	done
}
fetch "$@" >"$log" 2>&1 </dev/null || {
	tail -n 20 "$log" >&2
	echo "debian.sh: the packages cannot be fetched, the whole log is $log" >&2
	exit 1
}
for dir in "$work"/root/lib/modules/*/kernel; do
	[ -d "$dir" ] || continue
	(cd "$dir" && rm -rf sound drivers/gpu drivers/media drivers/staging drivers/infiniband drivers/iio drivers/scsi \
		drivers/hid drivers/usb drivers/video drivers/net/wireless drivers/net/ethernet drivers/net/usb drivers/hwmon \
		drivers/message drivers/target drivers/accel drivers/bluetooth drivers/nvme drivers/md)
done
rm -rf "$work/root/usr/share" "$out"
: >"$work/root/complete"
mv "$work/root" "$out"
echo "$out"
