package l2tp

import (
	"container/heap"
	"time"
)

// timers is a heap of tunnels by deadline, so that thousands of idle tunnels cost a packet nothing.
type timers []*tunnel

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due.Before(t[j].due) }
func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].slot, t[j].slot = i, j
}
func (t *timers) Push(x any) {
	tun := x.(*tunnel)
	tun.slot = len(*t)
	*t = append(*t, tun)
}
func (t *timers) Pop() any {
	last := len(*t) - 1
	tun := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	tun.slot = -1
	return tun
}

// schedule files a tunnel under its present deadline.
func (e *Engine) schedule(t *tunnel) {
	due := t.deadline(e)
	switch {
	case due.IsZero() || t.gone:
		if t.slot >= 0 {
			heap.Remove(&e.timers, t.slot)
		}
	case t.slot < 0:
		t.due = due
		heap.Push(&e.timers, t)
	case !due.Equal(t.due):
		t.due = due
		heap.Fix(&e.timers, t.slot)
	}
}

// Deadline is when Tick has to be called next; zero if there is nothing to wait for.
func (e *Engine) Deadline() time.Time {
	if len(e.timers) == 0 {
		return time.Time{}
	}
	return e.timers[0].due
}

// Tick does what is due. Calling it early does nothing.
func (e *Engine) Tick(now time.Time) {
	// One tunnel can be due twice in a call, no more often than its clocks: delivery, set-up, silence.
	for len(e.timers) > 0 && !e.timers[0].due.After(now) {
		t := e.timers[0]
		e.tickTunnel(now, t)
		e.finish(now, t)
	}
}
