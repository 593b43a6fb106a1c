#!/bin/sh
# Checks the external tree against a Buildroot: its style, every board's defconfig, the package's description, and that the
# package builds for the boards named, big-endian MIPS if none is. Nothing is fetched: Go is this machine's.
#
# usage: check.sh BUILDROOT [BOARD...]
#	BUILDROOT	a Buildroot source tree, as from git clone https://gitlab.com/buildroot.org/buildroot.git
#	BOARD		mips, mipsel, arm, arm64; all of them: "mips mipsel arm arm64"
#
# Output and logs lie in ~/.cache/culvert/buildroot (LAB_CACHE moves it).
set -eu
buildroot=$(cd "${1:?usage: check.sh BUILDROOT [BOARD...]}" && pwd)
shift
[ -x "$buildroot/utils/check-package" ] || { echo "check.sh: $buildroot is no Buildroot" >&2; exit 2; }
[ $# -gt 0 ] || set -- mips
here=$(cd "$(dirname "$0")" && pwd)
out=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/culvert}/buildroot
mkdir -p "$out"
# shellcheck source=buildroot/offline.sh disable=SC1091
. "$here/offline.sh"
fail() { # fail LOG MESSAGE
	tail -n 30 "$1" >&2
	echo "check.sh: $2; the whole log is $1" >&2
	exit 1
}

echo "style"
(cd "$here" && find . -type f ! -path './openwrt/*' ! -name '*.go') | sed "s|^\./|$here/|" >"$out/files"
# Its checkers are Python with Debian's python3-magic, which a Python of another kind does not see.
# shellcheck disable=SC2046
(cd "$buildroot" && PATH=/usr/bin:$PATH utils/check-package -b $(cat "$out/files")) >"$out/style.log" 2>&1 ||
	fail "$out/style.log" "check-package has found something"

offline "$out"
PATH=$out/bin:$PATH
for board in mips mipsel arm arm64; do
	echo "defconfig of qemu-$board"
	dir=$out/$board
	log=$dir.log
	mkdir -p "$dir"
	cp "$out/local.mk" "$dir/local.mk"
	make -C "$buildroot" O="$dir" BR2_EXTERNAL="$here" "culvert_qemu_${board}_defconfig" >"$log" 2>&1 ||
		fail "$log" "culvert_qemu_${board}_defconfig cannot be loaded"
	make -C "$dir" savedefconfig BR2_DEFCONFIG="$dir/defconfig" >>"$log" 2>&1 ||
		fail "$log" "culvert_qemu_${board}_defconfig cannot be saved"
	diff -u "$here/configs/culvert_qemu_${board}_defconfig" "$dir/defconfig" >>"$log" ||
		fail "$log" "culvert_qemu_${board}_defconfig is not what Buildroot makes of it"
	make -s -C "$dir" culvert-show-info 2>>"$log" | tr -d '\n' >"$dir/info"
	grep -q '"name": "culvert".*"dependencies": \[ "host-go"' "$dir/info" || fail "$dir/info" "show-info does not know the package"
done

for board; do
	echo "package for qemu-$board"
	dir=$out/$board
	log=$dir.build.log
	# Where the target could have cgo, Go waits for its C compiler, which culvert does without.
	make -C "$dir" HOST_GO_DEPENDENCIES_CGO= culvert-dirclean culvert >"$log" 2>&1 </dev/null || fail "$log" "the package does not build for $board"
	case $board in
	mips) want="ELF 32-bit MSB executable, MIPS" ;;
	mipsel) want="ELF 32-bit LSB executable, MIPS" ;;
	arm) want="ELF 32-bit LSB executable, ARM" ;;
	arm64) want="ELF 64-bit LSB executable, ARM aarch64" ;;
	*) fail "$log" "no board $board" ;;
	esac
	what=$(file -b "$dir/target/usr/sbin/culvert")
	case $what in
	"$want"*"statically linked"*) ;;
	*) fail "$log" "the program for $board is $what" ;;
	esac
	for file in etc/init.d/S60culvert etc/culvert/culvert.toml; do
		[ -f "$dir/target/$file" ] || fail "$log" "$file is not installed"
	done
	echo "	$what, $(stat -c %s "$dir/target/usr/sbin/culvert") octets"
done
