package main

import (
	"testing"
	"time"
)

// A server that is away is called less and less often, one that refuses us yet less, and one that was there for a while is
// called again at once. What an attempt has taken counts as waiting.
func TestRedial(t *testing.T) {
	const s = time.Second
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	now := start
	var r redial
	waits := func(took time.Duration, refused bool, jitter float64, want ...time.Duration) {
		t.Helper()
		for _, w := range want {
			r.begun(now)
			if r.due(now.Add(time.Hour)) {
				t.Error("due while an attempt is under way")
			}
			now = now.Add(took)
			r.failed(now, refused, jitter)
			if got := r.at.Sub(now); got != w {
				t.Errorf("waits %v, want %v", got, w)
			}
			if r.due(now) || r.due(r.at.Add(-1)) || !r.due(r.at) {
				t.Error("due at the wrong time")
			}
			now = r.at
		}
	}
	waits(0, false, 0, s, 2*s, 4*s, 5*s, 5*s)
	waits(0, true, 0, 10*s, 20*s, 30*s, 30*s)
	waits(4*s, false, 0, s)
	waits(30*s, false, 0, s)
	waits(30*s, false, 1, 1250*time.Millisecond)
	// Up, but not for long: that is no success.
	r.begun(now)
	r.connected(now)
	now = now.Add(10 * s)
	r.failed(now, false, 0)
	if got := r.at.Sub(now); got != 5*s {
		t.Errorf("waits %v after a short link", got)
	}
	r.begun(r.at)
	r.connected(now)
	now = now.Add(redialSteady)
	r.failed(now, false, 0)
	if got := r.at.Sub(now); got != s {
		t.Errorf("waits %v after a long link", got)
	}
	waits(0, false, 1, 2500*time.Millisecond)
	// Whom the server has let in until a moment ago it may let in again: at most 6.25 s, for an hour.
	waits(0, true, 1, 5*s, 6250*time.Millisecond)
	for now.Before(r.ended.Add(redialTrusted)) {
		waits(0, true, 1, 6250*time.Millisecond)
	}
	waits(0, true, 1, 12500*time.Millisecond, 25*s, 37500*time.Millisecond)
	// Something has changed: at once. An attempt under way is left alone.
	r.hurry(now.Add(-s))
	if !r.due(now.Add(-s)) {
		t.Error("not due at once")
	}
	r.begun(now)
	if r.hurry(now); r.due(now) {
		t.Error("due beside an attempt")
	}
}
