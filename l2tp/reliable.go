package l2tp

import "time"

// Reliable delivery of control messages (RFC 2661 section 5.8 and appendix A).
const (
	// ackDelay is how long an acknowledgement waits for a message to ride on.
	ackDelay = 100 * time.Millisecond
	// helloPatience keeps a HELLO going longer than other messages: phones sleep through the ordinary cycle.
	helloPatience = 60 * time.Second
	// defaultPeerWindow is assumed where Receive Window Size is missing (RFC 2661 section 4.4.3).
	defaultPeerWindow = 4
	// maxQueued stops us from taking more requests from a peer that does not acknowledge our answers.
	maxQueued = 256
	// maxEarly is the longest message worth keeping until the ones before it arrive.
	maxEarly = 2048
)

type retransmission struct {
	first, cap time.Duration
	tries      int
}

// timeout is the wait after the n-th transmission, n from 1.
func (r retransmission) timeout(n int) time.Duration {
	d := r.first
	for ; n > 1 && d < r.cap; n-- {
		d *= 2
	}
	return min(d, r.cap)
}

// cycle is how long a message is tried in all. A peer may repeat itself that long (RFC 2661 section 5.7).
func (r retransmission) cycle() (sum time.Duration) {
	for n := 1; n <= r.tries; n++ {
		sum += r.timeout(n)
	}
	return sum
}

type outgoing struct {
	msg  []byte
	kind MessageType
}

type early struct {
	ns  uint16
	msg []byte // header cut off
	hdr Header
}

// delivery is one control connection's half of the sliding window in either direction. Sequence numbers are compared
// modulo 2^16, the half circle before a number being old (RFC 2661 section 5.8).
type delivery struct {
	// Sending. queue[0] has Ns una; everything before high has been on the wire at least once; the first sent messages of
	// the queue are since the last loss.
	una, high uint16
	queue     []outgoing
	sent      int
	tries     int       // transmissions of queue[0]
	firstAt   time.Time // the first of them
	resendAt  time.Time // zero: nothing in flight

	peerWindow            int
	cwnd, ssthresh, acked int // slow start and congestion avoidance, in messages

	// Receiving.
	nr     uint16 // next expected
	window int
	held   []early
	ackAt  time.Time // zero: no acknowledgement owed

	retransmits uint64
}

func newDelivery(window int) delivery {
	return delivery{window: window, peerWindow: 1, cwnd: 1, ssthresh: 1}
}

// setPeerWindow obeys the peer's Receive Window Size. Zero is no window one could work with: it is read as one.
func (d *delivery) setPeerWindow(n int) {
	d.peerWindow = max(n, 1)
	d.ssthresh = d.peerWindow
}

// push queues a message built with an open sequence number.
func (d *delivery) push(msg []byte, kind MessageType) {
	d.queue = append(d.queue, outgoing{msg, kind})
}

// dropUnsent forgets what was never on the wire, to make room for a last word.
func (d *delivery) dropUnsent() {
	n := int(d.high - d.una)
	clear(d.queue[n:])
	d.queue = d.queue[:n]
}

// next returns the next message that the window lets out, with its sequence numbers in place; nil if there is none. The
// message may be sent again later: it must not be kept or changed.
func (d *delivery) next(now time.Time, r retransmission) []byte {
	if d.sent >= len(d.queue) || d.sent >= min(d.cwnd, d.peerWindow) {
		return nil
	}
	msg, ns := d.queue[d.sent].msg, d.una+uint16(d.sent)
	if d.sent == 0 {
		d.tries++
		if d.tries == 1 {
			d.firstAt = now
		}
		d.resendAt = now.Add(r.timeout(d.tries))
	}
	d.sent++
	if ns == d.high {
		d.high++
	} else {
		d.retransmits++
	}
	setSequence(msg, ns, d.nr)
	d.ackAt = time.Time{}
	return msg
}

// acknowledge takes the peer's Nr. Numbers of messages that were never sent are ignored.
func (d *delivery) acknowledge(now time.Time, nr uint16, r retransmission) {
	n := int(nr - d.una)
	if n == 0 || n > int(d.high-d.una) {
		return
	}
	d.una = nr
	left := copy(d.queue, d.queue[n:])
	clear(d.queue[left:])
	d.queue = d.queue[:left]
	d.sent = max(d.sent-n, 0)
	d.tries, d.resendAt = 0, time.Time{}
	if d.sent > 0 {
		d.tries, d.firstAt = 1, now
		d.resendAt = now.Add(r.timeout(1))
	}
	if d.cwnd < d.ssthresh {
		d.cwnd++
	} else if d.acked++; d.acked >= d.cwnd {
		d.cwnd, d.acked = d.cwnd+1, 0
	}
	d.cwnd = min(d.cwnd, d.peerWindow)
}

// expire is called when resendAt has passed: everything unacknowledged will go out again, one message first (a peer
// without a reorder queue has thrown the rest away). It is false when the peer has been given up.
func (d *delivery) expire(now time.Time, r retransmission) bool {
	if d.tries >= r.tries && !(d.queue[0].kind == HELLO && now.Sub(d.firstAt) < helloPatience) {
		return false
	}
	d.ssthresh = max(min(d.cwnd, d.peerWindow)/2, 1)
	d.cwnd, d.acked, d.sent = 1, 0, 0
	return true
}

type verdict uint8

const (
	inOrder   verdict = iota
	duplicate         // acknowledged before: the acknowledgement was lost
	ahead             // in the window, but something before it is missing
	outside
)

func (d *delivery) judge(ns uint16) verdict {
	switch n := ns - d.nr; {
	case n == 0:
		return inOrder
	case n >= 0x8000:
		return duplicate
	case int(n) < d.window:
		return ahead
	}
	return outside
}

// plausible says whether a header can belong to this connection, before anything is changed for it.
func (d *delivery) plausible(hdr Header, zlb bool) bool {
	if int(d.high-hdr.Nr) > 0x7fff {
		return false // acknowledges what was never sent
	}
	return zlb || d.judge(hdr.Ns) != outside
}

// hold keeps a message that came too early. It is bounded by our window in number and maxEarly in size.
func (d *delivery) hold(hdr Header, body []byte) {
	if len(body) > maxEarly || len(d.held) >= d.window {
		return
	}
	for _, e := range d.held {
		if e.ns == hdr.Ns {
			return
		}
	}
	d.held = append(d.held, early{hdr.Ns, append([]byte(nil), body...), hdr})
}

// release takes out the held message whose turn it is.
func (d *delivery) release() (early, bool) {
	for i, e := range d.held {
		if e.ns == d.nr {
			d.held = append(d.held[:i], d.held[i+1:]...)
			return e, true
		}
	}
	return early{}, false
}

// consume counts a message as received, and owes its acknowledgement. A peer that waits for each acknowledgement
// (Receive Window Size 1, as Android's client has) is not kept waiting.
func (d *delivery) consume(now time.Time) {
	d.nr++
	delay := ackDelay
	if d.peerWindow == 1 {
		delay = 0
	}
	d.oweAck(now.Add(delay))
}

func (d *delivery) oweAck(at time.Time) {
	if d.ackAt.IsZero() || at.Before(d.ackAt) {
		d.ackAt = at
	}
}

// deadline is when the connection wants to be looked at again; zero for never.
func (d *delivery) deadline() time.Time { return earliest(d.resendAt, d.ackAt) }

// earliest is the earlier of two times of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
