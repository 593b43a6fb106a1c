package user

import "culvert/l2tp"

// Deliver takes a datagram that came from peer, its addresses unmapped, and hands the frame in it to its session, during
// the call. False means that it is a control message, which is the engine's. The order of a session's frames is that of
// the calls: one goroutine delivers what one peer sends.
func (p *Plane) Deliver(peer l2tp.Peer, datagram []byte) (taken bool) {
	if len(datagram) > 0 && datagram[0]&0x80 != 0 {
		return false
	}
	if s, frame := p.accept(&peer, datagram); s != nil {
		s.deliver(frame, false)
	}
	return true
}

// Receiver delivers datagrams that were read in batches, so that what is above can handle a batch at once: call Deliver
// for each and Flush at the end. Its methods are for one goroutine, the reader's.
type Receiver struct {
	plane *Plane
	dirty []*Session // to flush
}

// maxDirty bounds how many sessions wait for a Flush.
const maxDirty = 64

// Receiver makes a receiver for one reader.
func (p *Plane) Receiver() *Receiver {
	return &Receiver{plane: p, dirty: make([]*Session, 0, maxDirty)}
}

// Deliver is Plane.Deliver with more to come.
func (r *Receiver) Deliver(peer l2tp.Peer, datagram []byte) (taken bool) {
	if len(datagram) > 0 && datagram[0]&0x80 != 0 {
		return false
	}
	s, frame := r.plane.accept(&peer, datagram)
	if s == nil {
		return true
	}
	if !r.waits(s) {
		if len(r.dirty) == maxDirty {
			r.Flush()
		}
		r.dirty = append(r.dirty, s)
	}
	s.deliver(frame, true)
	return true
}

func (r *Receiver) waits(s *Session) bool {
	for i := len(r.dirty) - 1; i >= 0; i-- { // the last is the likeliest
		if r.dirty[i] == s {
			return true
		}
	}
	return false
}

// Flush ends a batch.
func (r *Receiver) Flush() {
	for _, s := range r.dirty {
		if u := s.upper.Load(); u != nil && u.flush != nil {
			u.flush()
		}
	}
	clear(r.dirty)
	r.dirty = r.dirty[:0]
}

// accept finds the session that a data message is for, and the frame in it; nil when it is to be dropped.
func (p *Plane) accept(peer *l2tp.Peer, datagram []byte) (*Session, []byte) {
	h, frame, err := l2tp.ParseHeader(datagram)
	if err != nil {
		p.malformed.Add(1)
		return nil, nil
	}
	s, ok := p.Session(h.Tunnel, h.Session)
	if !ok {
		p.unknown.Add(1)
		return nil, nil
	}
	if *s.tunnel.peer.Load() != *peer {
		p.foreign.Add(1)
		return nil, nil
	}
	if len(frame) == 0 {
		s.rxErrors.Add(1)
		return nil, nil
	}
	if !s.inOrder(&h) {
		return nil, nil
	}
	return s, frame
}

// inOrder minds the sequence number, or its absence.
func (s *Session) inOrder(h *l2tp.Header) bool {
	flags := s.flags.Load()
	if !h.HasSeq {
		if flags&requireSeq != 0 {
			s.rxSeqDrops.Add(1)
			return false
		}
		// The LNS has switched them off (RFC 2661 section 5.4). What we decide stays, and a LAC that has not followed yet
		// is heard all the same.
		if flags&(weDecide|sendSeq) == sendSeq {
			s.flags.CompareAndSwap(flags, flags&^sendSeq)
		}
		return true
	}
	if flags&(weDecide|sendSeq) == 0 { // the LNS has switched them on
		s.flags.CompareAndSwap(flags, flags|sendSeq)
	}
	ok, gap := s.nr.accept(h.Ns)
	if gap {
		s.rxOutOfSeq.Add(1)
	}
	if !ok {
		s.rxSeqDrops.Add(1)
	}
	return ok
}

func (s *Session) deliver(frame []byte, more bool) {
	s.rxPackets.Add(1)
	s.rxBytes.Add(uint64(len(frame)))
	if u := s.upper.Load(); u != nil {
		u.deliver(frame, more)
		return
	}
	s.hold(frame)
}
