package main

import (
	"testing"
	"time"
)

// A server that is away is called less and less often, and one that was there for a while is called again at once.
func TestRedial(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var r redial
	waits := func(jitter float64, want ...time.Duration) {
		t.Helper()
		for _, w := range want {
			r.failed(now, jitter)
			if got := r.at.Sub(now); got != w {
				t.Errorf("waits %v, want %v", got, w)
			}
			if r.due(now) || r.due(r.at.Add(-1)) || !r.due(r.at) {
				t.Error("due at the wrong time")
			}
			now = r.at
			r.begun()
			if r.due(now.Add(time.Hour)) {
				t.Error("due while an attempt is under way")
			}
		}
	}
	s := time.Second
	waits(0, s, 2*s, 4*s, 8*s, 16*s, 30*s, 30*s)
	// Up, but not for long: that is no success.
	r.connected(now)
	now = now.Add(10 * s)
	waits(0, 30*s)
	r.connected(now)
	now = now.Add(redialSteady)
	waits(0, s, 2*s)
	waits(1, 5*s, 10*s)
}
