#!/bin/bash
# Runs the tests of the lab (TestLab...), the packages in two lanes since at most two guests run at a time.
#
# The lab's clocks are real and its machine may be shared: a test that fails is run once more, and that is said. A test
# that fails twice has failed.
set -u
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
show() { grep --line-buffered -vE '^(=== |testing: warning: no tests|PASS$|ok .*no tests to run|FAIL$)|no test files'; }

one() { # package: its lab tests, and those that failed again
	local pkg=$1 log failed again
	log=$tmp/$(echo "$pkg" | tr / _)
	go test -run '^TestLab' -count 1 -timeout 50m -v "$pkg" 2>&1 | tee "$log" | show
	[ "${PIPESTATUS[0]}" = 0 ] && return 0
	failed=$(sed -nE 's/^--- FAIL: (TestLab[A-Za-z0-9_]*) .*/\1/p' "$log" | sort -u | paste -sd'|')
	[ -n "$failed" ] || return 1
	echo "$pkg: once more: $failed"
	go test -run "^($failed)\$" -count 1 -timeout 30m -v "$pkg" 2>&1 | tee "$log.again" | show
	again=${PIPESTATUS[0]}
	[ "$again" = 0 ] && echo "$pkg: NEEDED A SECOND RUN: $failed"
	return "$again"
}

lane() { # name packages...
	local status=0 name=$1
	shift
	for pkg in "$@"; do one "$pkg" || status=1; done
	echo $status >"$tmp/$name.status"
}

main=culvert/cmd/culvert
rest=$(go list ./... | grep -vx "$main")
# shellcheck disable=SC2086
lane rest $rest >"$tmp/rest.out" 2>&1 &
lane main "$main"
wait
cat "$tmp/rest.out"
[ "$(cat "$tmp/main.status" "$tmp/rest.status" | paste -sd+)" = 0+0 ]
