package user

import (
	"bytes"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"culvert/l2tp"
)

// The data header as the Linux kernel sends it, too: no length, no offset (RFC 2661 section 3.1).
const (
	flagSequence = 0x0800
	version      = 2

	headerLen         = 6
	sequenceHeaderLen = 10
	allStations, ui   = 0xff, 0x03 // PPP's address and control field (RFC 1662 section 3.1)
)

// flags of a session.
const (
	sendSeq = 1 << iota
	requireSeq
	weDecide // LNS: sequence numbers are not the peer's to switch
)

// Frames that arrive before the session is served are kept, so that the peer need not send them again.
const (
	maxEarly      = 8
	maxEarlyOctet = 1536
)

// Session is one session's path. Its methods may be called from any goroutine.
type Session struct {
	plane  *Plane
	tunnel *tunnel
	remote l2tp.SessionID
	done   chan struct{}

	flags atomic.Uint32
	ns    atomic.Uint32 // of the next message we send
	nr    sequence      // of those that come
	upper atomic.Pointer[upper]

	mu    sync.Mutex
	early [][]byte // until upper is there

	txPackets, txBytes, txErrors, rxPackets, rxBytes, rxSeqDrops, rxOutOfSeq, rxErrors atomic.Uint64
}

type upper struct {
	deliver func(frame []byte, more bool)
	flush   func()
}

func (s *Session) setFlags(spec l2tp.SessionSpec) {
	var f uint32
	if spec.SendSeq {
		f |= sendSeq
	}
	if spec.RequireSeq {
		f |= requireSeq
	}
	if spec.LNS {
		f |= weDecide
	}
	s.flags.Store(f)
}

// Receive says who gets the session's PPP frames: deliver is called with each, on the goroutine that read it, and the
// frame is valid only during the call. With more set, further frames may follow at once, and flush comes when they have;
// deliver may put off its work until then. Frames that came earlier are delivered before Receive returns. It is called once.
func (s *Session) Receive(deliver func(frame []byte, more bool), flush func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.early {
		deliver(f, false)
	}
	s.early = nil
	s.upper.Store(&upper{deliver, flush})
}

// Done is closed when the session ends.
func (s *Session) Done() <-chan struct{} { return s.done }

func (s *Session) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Send sends the PPP frame buf[at:], which begins with the protocol. It takes at least Headroom octets in front of the
// frame, and writes there; see Options.Send for the rest. Nothing of buf is kept.
func (s *Session) Send(buf []byte, at int) error {
	if s.ended() {
		return ErrClosed
	}
	if at < Headroom || at > len(buf) {
		return ErrHeadroom
	}
	s.txPackets.Add(1)
	s.txBytes.Add(uint64(len(buf) - at))
	err := s.plane.opt.Send(*s.tunnel.peer.Load(), buf, s.push(buf, at, s.flags.Load()))
	if err != nil {
		s.txErrors.Add(1)
	}
	return err
}

// SendBatch is Send for several frames, each beginning at the same place in its buffer, in order. The elements of bufs are
// not the frames any more when it returns. An error costs the
// frames from the one that failed on only where Options.SendBatch is in use; the number lost is in the Stats.
func (s *Session) SendBatch(bufs [][]byte, at int) error {
	if s.ended() {
		return ErrClosed
	}
	if at < Headroom {
		return ErrHeadroom
	}
	for _, b := range bufs {
		if at > len(b) {
			return ErrHeadroom
		}
	}
	// One reading of the flags: the batch has one length of header, whatever the peer asks for meanwhile.
	flags, start, octets := s.flags.Load(), at, 0
	for _, b := range bufs {
		octets += len(b) - at
		start = s.push(b, at, flags)
	}
	s.txPackets.Add(uint64(len(bufs)))
	s.txBytes.Add(uint64(octets))
	peer := *s.tunnel.peer.Load()
	if batch := s.plane.opt.SendBatch; batch != nil {
		sent, err := batch(peer, bufs, start)
		if err != nil && sent < len(bufs) {
			s.txErrors.Add(uint64(len(bufs) - max(sent, 0)))
		}
		return err
	}
	var failed error
	for _, b := range bufs {
		if err := s.plane.opt.Send(peer, b, start); err != nil {
			s.txErrors.Add(1)
			failed = err
		}
	}
	return failed
}

// push writes the header in front of the frame and tells where the datagram begins.
func (s *Session) push(buf []byte, at int, flags uint32) int {
	at -= 2
	buf[at], buf[at+1] = allStations, ui
	word := uint16(version)
	if flags&sendSeq != 0 {
		word |= flagSequence
		at -= sequenceHeaderLen
		// Nr has no meaning in data messages (RFC 2661 section 5.4).
		binary.BigEndian.PutUint32(buf[at+headerLen:], (s.ns.Add(1)-1)<<16)
	} else {
		at -= headerLen
	}
	binary.BigEndian.PutUint16(buf[at:], word)
	binary.BigEndian.PutUint16(buf[at+2:], uint16(s.tunnel.remote))
	binary.BigEndian.PutUint16(buf[at+4:], uint16(s.remote))
	return at
}

// Stats reads the counters.
func (s *Session) Stats() Stats {
	return Stats{s.txPackets.Load(), s.txBytes.Load(), s.txErrors.Load(),
		s.rxPackets.Load(), s.rxBytes.Load(), s.rxSeqDrops.Load(), s.rxOutOfSeq.Load(), s.rxErrors.Load()}
}

// hold keeps a frame for which nobody is there yet.
func (s *Session) hold(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.upper.Load(); u != nil { // came meanwhile
		u.deliver(frame, false)
		return
	}
	if len(s.early) == maxEarly || len(frame) > maxEarlyOctet {
		s.rxErrors.Add(1)
		return
	}
	s.early = append(s.early, bytes.Clone(frame))
}
