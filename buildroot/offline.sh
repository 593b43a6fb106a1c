# Sourced by check.sh and image.sh: what lets Buildroot work here without fetching anything.
#
# offline DIR makes DIR/bin, to stand first in PATH, and DIR/local.mk, which Buildroot reads: Go is the machine's own
# instead of go.dev's, and modules come from its cache.
# shellcheck shell=sh
offline() {
	mkdir -p "$1/bin"
	# Buildroot would fetch and build GNU tar where it is older than 1.35, for archives that it makes itself. There are none.
	cat >"$1/bin/tar" <<-'TAR'
		#!/bin/sh
		[ "$*" = --version ] && exec echo "tar (GNU tar) 1.35"
		exec /bin/tar "$@"
	TAR
	chmod 755 "$1/bin/tar"
	cat >"$1/local.mk" <<-LOCAL
		GO_BIN_OVERRIDE_SRCDIR = $(go env GOROOT)
		HOST_GO_BIN_OVERRIDE_SRCDIR = $(go env GOROOT)
		BR2_PACKAGE_CULVERT_GOPROXY = file://$(go env GOMODCACHE)/cache/download
	LOCAL
}
