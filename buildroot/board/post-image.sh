#!/bin/sh
# Buildroot calls this with the images' directory and the board's name; it writes how to boot them.
set -eu
images=$1
board=$2
case $board in
qemu-mips) qemu="qemu-system-mips -M malta -cpu 24Kc -vga none" kernel=vmlinux tty=ttyS0 ;;
qemu-mipsel) qemu="qemu-system-mipsel -M malta -cpu 24Kc -vga none" kernel=vmlinux tty=ttyS0 ;;
qemu-arm) qemu="qemu-system-arm -M virt,highmem=off -cpu cortex-a7" kernel=zImage tty=ttyAMA0 ;;
qemu-arm64) qemu="qemu-system-aarch64 -M virt -cpu cortex-a53" kernel=Image tty=ttyAMA0 ;;
*)
	echo "post-image.sh: no board $board" >&2
	exit 1
	;;
esac
cat >"$images/start-qemu.sh" <<-START
	#!/bin/sh
	# Boots the image in QEMU with its serial line on this terminal; Ctrl-A X ends it. More arguments go to QEMU.
	cd "\$(dirname "\$0")" || exit
	exec $qemu -m \${MEMORY:-128M} -display none -nodefaults -no-reboot -serial mon:stdio \\
		-kernel \${KERNEL:-$kernel} -initrd rootfs.cpio.gz -append "console=$tty panic=1 \${APPEND:-}" \\
		-netdev user,id=n0 -device virtio-net-pci,netdev=n0,romfile= "\$@"
START
chmod 755 "$images/start-qemu.sh"
