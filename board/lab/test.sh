#!/bin/bash
# Runs the tests of the lab (TestLab...) in three lanes, so that two guests, which is as many as run at a time, always do:
# the program's tests by turns in two of them, the other packages' in the third.
#
# A guest's clock goes on while it works, and its machine may be shared: a test that fails is run once more, and that is said. A test
# that fails twice has failed.
set -u
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
show() { grep --line-buffered -vE '^(=== |testing: warning: no tests|PASS$|ok .*no tests to run|FAIL$)|no test files'; }

one() { # lane package pattern: its lab tests, and those that failed again
	local pkg=$2 log failed again
	log=$tmp/$1.$(echo "$pkg" | tr / _)
	go test -run "$3" -count 1 -timeout 50m -v "$pkg" 2>&1 | tee "$log" | show
	[ "${PIPESTATUS[0]}" = 0 ] && return 0
	failed=$(sed -nE 's/^--- FAIL: (TestLab[A-Za-z0-9_]*) .*/\1/p' "$log" | sort -u | paste -sd'|')
	[ -n "$failed" ] || return 1
	echo "$pkg: once more: $failed"
	go test -run "^($failed)\$" -count 1 -timeout 30m -v "$pkg" 2>&1 | tee "$log.again" | show
	again=${PIPESTATUS[0]}
	[ "$again" = 0 ] && echo "$pkg: NEEDED A SECOND RUN: $failed"
	return "$again"
}

lane() { # name pattern packages...
	local status=0 name=$1 pattern=$2
	shift 2
	for pkg in "$@"; do one "$name" "$pkg" "$pattern" || status=1; done
	echo $status >"$tmp/$name.status"
}

turns() { # first: every second of the program's tests from there on, as a pattern
	echo "$tests" | sed -n "$1~2p" | paste -sd'|' | sed 's/.*/^(&)$/'
}

main=culvert/cmd/culvert
rest=$(go list ./... | grep -vx "$main")
tests=$(go test -list '^TestLab' "$main" | grep '^TestLab') || exit 1
# shellcheck disable=SC2086
lane rest '^TestLab' $rest >"$tmp/rest.out" 2>&1 &
lane even "$(turns 2)" "$main" >"$tmp/even.out" 2>&1 &
lane odd "$(turns 1)" "$main"
wait
cat "$tmp/even.out" "$tmp/rest.out"
[ "$(cat "$tmp/odd.status" "$tmp/even.status" "$tmp/rest.status" | paste -sd+)" = 0+0+0 ]
