package main

import (
	"context"
	"sync/atomic"
	"time"
)

// A core is a protocol engine or a link: it acts when told, and says when it next wants to be told the time.
type core interface {
	Deadline() time.Time // zero: nothing is due
	Tick(now time.Time)
}

// loop is the one goroutine that owns all control state. Everything else hands it closures: sockets by offer, which
// drops when the loop is flooded (the protocols retransmit), finished work by post, which waits.
type loop struct {
	net   chan func(now time.Time)
	first chan func(now time.Time) // what strangers begin with, behind everything else
	done  chan func(now time.Time)
	over  chan struct{} // closed when the loop has ended
	cores map[core]struct{}
	// dropped counts datagrams that arrived faster than the loop could take them.
	dropped atomic.Uint64
	beats   atomic.Uint64 // turns made, for a watchdog
	inputs  uint64        // closures run; unlike turns they do not come from deadlines alone
}

// inboxSize bounds what a flood can queue: 256 datagrams of an MTU each are 400 KB at the worst.
const inboxSize = 256

func newLoop() *loop {
	return &loop{
		net:   make(chan func(time.Time), inboxSize),
		first: make(chan func(time.Time)),
		done:  make(chan func(time.Time), inboxSize),
		over:  make(chan struct{}),
		cores: make(map[core]struct{}),
	}
}

// add and remove tell the loop whose deadlines to keep. Both are called on the loop, or before it runs.
func (l *loop) add(c core)    { l.cores[c] = struct{}{} }
func (l *loop) remove(c core) { delete(l.cores, c) }

// offer queues input from the network, or drops it and says so.
func (l *loop) offer(f func(now time.Time)) bool {
	select {
	case l.net <- f:
		return true
	default:
		l.dropped.Add(1)
		return false
	}
}

// last runs f when there is nothing else to do, and waits for its end: what strangers begin with must not keep the loop
// from those who have begun already.
func (l *loop) last(f func(now time.Time)) {
	ran := make(chan struct{})
	select {
	case l.first <- func(now time.Time) { f(now); close(ran) }:
		<-ran
	case <-l.over:
	}
}

// post queues the result of work that must not be lost. The loop itself never posts: it would wait for itself.
func (l *loop) post(f func(now time.Time)) { l.done <- f }

// call runs f on the loop and waits for it; false if the context ended first.
func (l *loop) call(ctx context.Context, f func(now time.Time)) bool {
	ran := make(chan struct{})
	select {
	case l.done <- func(now time.Time) { f(now); close(ran) }:
	case <-ctx.Done():
		return false
	}
	select {
	case <-ran:
		return true
	case <-ctx.Done():
		return false
	}
}

// run turns until until() says it is over, which is asked after every turn.
func (l *loop) run(until func(now time.Time) bool) {
	defer close(l.over)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		l.beats.Add(1)
		now := time.Now()
		next := l.tick(now)
		if until(now) {
			return
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = max(0, next.Sub(now))
		}
		timer.Reset(wait)
		select {
		case f := <-l.done:
			l.take(f)
		case f := <-l.net:
			l.take(f)
		case f := <-l.first:
			l.take(f)
		case <-timer.C:
		}
		l.drain()
	}
}

func (l *loop) take(f func(now time.Time)) {
	l.inputs++
	f(time.Now())
}

// drain takes what has queued up meanwhile, so that deadlines are looked at once a batch and not once a datagram.
// Finished work goes first: it frees what it was holding.
func (l *loop) drain() {
	for range inboxSize {
		select {
		case f := <-l.done:
			l.take(f)
			continue
		default:
		}
		select {
		case f := <-l.net:
			l.take(f)
			continue
		default:
		}
		select {
		case f := <-l.first:
			l.take(f)
		default:
			return
		}
	}
}

// tick tells the time to every core whose deadline has come and returns the earliest one ahead. Telling one core may
// add others or move their deadlines, so the earliest is looked for afterwards.
func (l *loop) tick(now time.Time) (next time.Time) {
	for c := range l.cores {
		if d := c.Deadline(); !d.IsZero() && !d.After(now) {
			c.Tick(now)
		}
	}
	for c := range l.cores {
		if d := c.Deadline(); !d.IsZero() && (next.IsZero() || d.Before(next)) {
			next = d
		}
	}
	return next
}

// workers run slow work outside the loop: Diffie-Hellman on one pool, kernel calls under the RTNL lock in a lane of
// their own per session, so that they stay in order.
type workers struct {
	queue chan func()
}

// newWorkers starts n goroutines that end with ctx; depth bounds what may wait for them.
func newWorkers(ctx context.Context, n, depth int) *workers {
	w := &workers{queue: make(chan func(), depth)}
	for range n {
		go func() {
			for {
				select {
				case f := <-w.queue:
					f()
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return w
}

// submit hands work over, or refuses when too much is waiting.
func (w *workers) submit(f func()) bool {
	select {
	case w.queue <- f:
		return true
	default:
		return false
	}
}

// lane runs the work of one session in order, on a goroutine that exists only while there is work.
type lane struct {
	work    []func()
	running bool
	l       *loop
}

// do appends work and calls done with its error on the loop. It is called on the loop only.
func (n *lane) do(work func() error, done func(now time.Time, err error)) {
	n.work = append(n.work, func() {
		err := work()
		n.l.post(func(now time.Time) {
			if done != nil {
				done(now, err)
			}
			n.next()
		})
	})
	if !n.running {
		n.running = true
		n.next()
	}
}

func (n *lane) next() {
	if len(n.work) == 0 {
		n.running = false
		return
	}
	f := n.work[0]
	n.work = n.work[1:]
	go f()
}
