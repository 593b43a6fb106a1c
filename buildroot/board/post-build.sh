#!/bin/sh
# Buildroot calls this with the target directory and the board's name when all packages are installed.
set -eu
target=$1

# A router forwards; the kernel drops what pretends to come from elsewhere only loosely, as an L2TP client's traffic may
# arrive by another interface than it would leave by.
mkdir -p "$target/etc/sysctl.d"
cat >"$target/etc/sysctl.d/60-culvert.conf" <<-SYSCTL
	net.ipv4.ip_forward = 1
	net.ipv4.conf.all.rp_filter = 2
	net.ipv4.conf.all.send_redirects = 0
	net.ipv4.conf.default.send_redirects = 0
SYSCTL
