package main

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// beacon is a core that is due once and then schedules whatever its tick says.
type beacon struct {
	at    time.Time
	ticks []time.Time
	then  func(now time.Time) time.Time
}

func (b *beacon) Deadline() time.Time { return b.at }
func (b *beacon) Tick(now time.Time) {
	b.ticks = append(b.ticks, now)
	b.at = b.then(now)
}

func TestLoopTicksAtDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop()
		start := time.Now()
		b := &beacon{at: start.Add(time.Second)}
		late := &beacon{then: func(time.Time) time.Time { return time.Time{} }}
		b.then = func(now time.Time) time.Time {
			// A core made while the loop is ticking is waited for as well.
			late.at = now.Add(3 * time.Second)
			l.add(late)
			return time.Time{}
		}
		l.add(b)
		l.run(func(now time.Time) bool { return len(late.ticks) > 0 })
		if len(b.ticks) != 1 || b.ticks[0].Sub(start) != time.Second {
			t.Errorf("first core ticked at %v, want once after 1s", b.ticks)
		}
		if d := late.ticks[0].Sub(start); d != 4*time.Second {
			t.Errorf("core added in a tick ticked after %v, want 4s", d)
		}
	})
}

// What strangers begin with waits for everything else, and whoever brings it waits for its end, or the loop's.
func TestLoopStrangersLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop()
		var order []string
		say := func(s string) func(time.Time) { return func(time.Time) { order = append(order, s) } }
		var returned atomic.Int32
		for range 3 {
			go func() { l.last(say("first")); returned.Add(1) }()
		}
		synctest.Wait()
		if !l.offer(say("net")) {
			t.Error("strangers fill the room of the others")
		}
		l.post(say("done"))
		if returned.Load() != 0 {
			t.Error("whoever brings the first messages does not wait")
		}
		l.drain()
		synctest.Wait()
		if len(order) < 3 || order[0] != "done" || order[1] != "net" || order[2] != "first" || int(returned.Load()) != len(order)-2 {
			t.Errorf("order %v, %d have returned", order, returned.Load())
		}
		l.run(func(time.Time) bool { return true })
		go l.last(say("late")) // returns, or the test would say that it is stuck
		synctest.Wait()
	})
}

func TestLoopDropsWhatItCannotTake(t *testing.T) {
	l := newLoop()
	for range inboxSize {
		if !l.offer(func(time.Time) {}) {
			t.Fatal("refused below the bound")
		}
	}
	if l.offer(func(time.Time) {}) || l.dropped.Load() != 1 {
		t.Errorf("a full inbox took more; dropped = %d", l.dropped.Load())
	}
}

func TestLaneKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLoop()
		n := &lane{l: l}
		failed := errors.New("failed")
		var got []int // written by one piece of work after the other, read when all are done
		var seen error
		finished := 0
		done := func(_ time.Time, err error) { seen = errors.Join(seen, err); finished++ }
		l.done <- func(time.Time) {
			n.do(func() error { time.Sleep(time.Second); got = append(got, 1); return failed }, done)
			n.do(func() error { got = append(got, 2); return nil }, done)
			n.do(func() error { got = append(got, 3); return nil }, done)
		}
		l.run(func(time.Time) bool { return finished == 3 })
		if got[0] != 1 || got[1] != 2 || got[2] != 3 || !errors.Is(seen, failed) || n.running {
			t.Errorf("order %v, error %v", got, seen)
		}
	})
}

func TestLoopCallGivesUpWithItsContext(t *testing.T) {
	l := newLoop()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if l.call(ctx, func(time.Time) {}) {
		t.Error("call on a loop that does not run said it ran")
	}
}
