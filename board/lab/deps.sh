#!/bin/sh
# Installs the Debian packages that the tests and the demo use. Quiet and quick when they are all there.
# usage: deps.sh [board|boards|buildroot]
#	board		also the one emulator that CI uses
#	boards		also what the emulated boards, their kernels and images need
#	buildroot	and what Buildroot wants of a machine besides
set -eu
packages="build-essential flex bison bc libelf-dev libssl-dev xz-utils kmod procps linux-source-6.1
linux-source-6.12 strongswan-charon strongswan-starter strongswan-swanctl libstrongswan-standard-plugins libcharon-extra-plugins
libstrongswan-extra-plugins xl2tpd ppp softether-vpnserver softether-vpncmd iproute2 iptables nftables iperf3 tcpdump tshark
openssl iputils-ping netcat-openbsd qemu-user-static ca-certificates git busybox-static shellcheck"
case ${1:-} in
board) packages="$packages qemu-system-mips" ;;
boards | buildroot) packages="$packages qemu-system-arm qemu-system-mips gcc-mips-linux-gnu libc6-dev-mips-cross e2fsprogs" ;;
esac
[ "${1:-}" != buildroot ] || packages="$packages rsync cpio unzip bc file fakeroot patchelf python3-magic flake8"
missing=
for p in $packages; do
	case $(dpkg-query -W -f '${Status}' "$p" 2>/dev/null) in
	*" installed") ;;
	*) missing="$missing $p" ;;
	esac
done
[ -z "$missing" ] && exit 0
as=
[ "$(id -u)" = 0 ] || as=sudo
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# Their services must not start on the machine that only wants the programs: policy-rc.d says so while we install.
policy=/usr/sbin/policy-rc.d
made=
[ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' | $as tee $policy >/dev/null; $as chmod +x $policy; made=1; }
trap '[ -z "$made" ] || $as rm -f $policy' EXIT
log=$(mktemp)
$as apt-get update -qq >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
# shellcheck disable=SC2086
$as apt-get install -y -qq --no-install-recommends $missing >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
rm -f "$log"
