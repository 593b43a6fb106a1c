package ikev1

import (
	"container/heap"
	"time"
)

// timer is one thing that is due at a time. Its owner embeds it and sets fire once.
type timer struct {
	at   time.Time
	pos  int // place in the heap plus one; 0: not set
	fire func(now time.Time)
}

// timers is the engine's agenda, the earliest first.
type timers struct {
	queue timerQueue
}

// set arms a timer, or moves it.
func (t *timers) set(x *timer, at time.Time) {
	x.at = at
	if x.pos == 0 {
		heap.Push(&t.queue, x)
	} else {
		heap.Fix(&t.queue, x.pos-1)
	}
}

// stop disarms a timer; one that is not armed stays so.
func (t *timers) stop(x *timer) {
	if x.pos != 0 {
		heap.Remove(&t.queue, x.pos-1)
	}
}

// next is when the earliest timer is due, zero if there is none.
func (t *timers) next() time.Time {
	if len(t.queue) == 0 {
		return time.Time{}
	}
	return t.queue[0].at
}

// run fires what is due.
func (t *timers) run(now time.Time) {
	for len(t.queue) > 0 && !t.queue[0].at.After(now) {
		x := t.queue[0]
		t.stop(x)
		x.fire(now)
	}
}

type timerQueue []*timer

func (q timerQueue) Len() int           { return len(q) }
func (q timerQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q timerQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].pos, q[j].pos = i+1, j+1
}

func (q *timerQueue) Push(x any) {
	t := x.(*timer)
	*q = append(*q, t)
	t.pos = len(*q)
}

func (q *timerQueue) Pop() any {
	last := len(*q) - 1
	t := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	t.pos = 0
	return t
}
