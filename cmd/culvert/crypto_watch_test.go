package main

import (
	"errors"
	"log/slog"
	"testing"
	"time"
)

// A crypto engine is tested when the kernel counts errors or a client goes silent, and not more often than it should be.
func TestEngineWatch(t *testing.T) {
	start := time.Unix(1e9, 0)
	var count uint64
	told := true
	var tests []string
	w := &engineWatch{
		log: slog.New(slog.DiscardHandler), next: start, pause: firstPause,
		reading: func() (uint64, bool) { return count, told },
		check:   func(why string) { tests = append(tests, why) },
	}
	now := start
	expect := func(what string, n int) {
		t.Helper()
		if len(tests) != n {
			t.Fatalf("%s, %v after the start: tests %q, not %d", what, now.Sub(start), tests, n)
		}
	}
	after := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); {
			now = now.Add(time.Second)
			w.Tick(now)
		}
	}
	count = 5 // somebody else's
	w.Tick(now)
	after(time.Minute)
	expect("nothing happens", 0)
	count++
	after(watchEvery)
	expect("an error", 1)
	count++
	w.suspect(now, "silence")
	after(time.Minute)
	expect("a test is under way", 1)
	w.tested(now, true, nil)
	w.suspect(now, "silence")
	count++
	after(firstPause - 2*watchEvery)
	expect("just tested", 1)
	after(2 * watchEvery)
	w.suspect(now, "silence")
	expect("silence", 2)
	// A flood of errors, of which none is the engine's: ever longer pauses, though never for ever.
	w.tested(now, true, errors.New("nothing else works either"))
	for range 3600 {
		count++
		after(time.Second)
		if w.testing {
			w.tested(now, true, nil)
		}
	}
	if n := len(tests); n < 6 || n > 10 {
		t.Errorf("%d tests in an hour", n-2)
	}
	// The last engine is left: nothing to do any more.
	after(maxPause)
	w.testing = true
	n := len(tests)
	w.tested(now, false, nil)
	count++
	w.suspect(now.Add(maxPause), "silence")
	after(time.Hour)
	expect("no engine is in use", n)
	if !w.Deadline().IsZero() {
		t.Errorf("wants to be told the time at %v", w.Deadline())
	}

	// A kernel that does not count has other signs.
	told = false
	w = &engineWatch{log: w.log, next: start, pause: firstPause, reading: w.reading, check: w.check}
	w.Tick(start)
	if !w.Deadline().IsZero() {
		t.Error("goes on reading what is not there")
	}
	w.suspect(start, "silence")
	expect("silence", n+1)
	(*engineWatch)(nil).suspect(start, "no engine at all")
}

func TestSumCounters(t *testing.T) {
	stat := "XfrmInError             \t1\nXfrmInStateProtoError   \t40\nXfrmOutStateProtoError  \t2\nXfrmOutStateProtoErrorX \t7\nhalf a line"
	if got := sumCounters([]byte(stat), "XfrmOutStateProtoError", "XfrmInStateProtoError"); got != 42 {
		t.Errorf("%d", got)
	}
}
