#!/bin/sh
# Buildroot calls this with the target directory and the board's name when all packages and rootfs/overlay are in place. The
# overlay has init scripts of its own, with the daemon and the console in inittab, and the first configuration; what
# packages have for the same is taken away.
set -eu
target=$1
for script in S01syslogd S02klogd S02sysctl S11modules S40network S50crond S60culvert; do
	rm -f "$target/etc/init.d/$script"
done
install -m 0600 "$target/usr/share/culvert/default.toml" "$target/etc/culvert/culvert.toml"
