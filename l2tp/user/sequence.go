package user

import "sync"

// restartRun is how many old numbers in a row, each the successor of the one before, mean that the peer counts anew.
const restartRun = 5

// sequence is the receiving side of RFC 2661 section 5.4: what is lost is lost, and what arrives behind a later message
// is dropped, so that PPP sees frames in the order they were sent in. There is no queue, which would hold the frames
// behind every loss back.
type sequence struct {
	mu      sync.Mutex
	started bool
	next    uint16
	old     uint16 // the last one that was dropped
	run     int    // how many in a row up to it
}

// accept says whether the message with that number is delivered, and whether some before it are missing.
func (q *sequence) accept(ns uint16) (ok, gap bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if ahead := ns - q.next; !q.started || ahead < 0x8000 {
		gap = q.started && ahead != 0
		q.started, q.next, q.run = true, ns+1, 0
		return true, gap
	}
	if q.run > 0 && ns == q.old+1 {
		q.run++
	} else {
		q.run = 1
	}
	q.old = ns
	if q.run < restartRun {
		return false, false
	}
	q.next, q.run = ns+1, 0
	return true, true
}
