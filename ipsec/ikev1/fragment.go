package ikev1

import (
	"container/list"
	"net/netip"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// IKE fragmentation ([MS-IKEE] section 3.1.5.1, the same in Cisco's and racoon's): a long message goes in pieces, each in
// a datagram of its own behind an ISAKMP header, for networks that lose fragments of IP. Nothing of it is authenticated
// before the whole message is, so everything about it is bounded.

const (
	// DefaultFragment is the longest datagram, IP and UDP headers included, that carries a message in one piece to a peer
	// that can put pieces together: what IPv6 guarantees, and what IPv4 networks carry.
	DefaultFragment = 1280
	minFragment     = 576 - 60

	maxFragments    = 64               // of one message
	reassemblyTime  = 15 * time.Second // from the first piece to the last
	maxReassembly   = 64               // messages of known exchanges in pieces, of up to maxMessage octets each
	maxReassembly1  = 16               // first messages in pieces, of up to maxFirst octets each
	maxReassembly1A = 2                // of these from one address
	fragmentHead    = 20 + 8 + 4 + isakmp.HeaderLen + 4 + 4
	fragmentHead6   = fragmentHead + 20
)

// reassembly holds messages that have come in part, the oldest first.
type reassembly struct {
	e       *Engine
	limit   int // messages
	octets  int // of one message
	perAddr int // messages from one address, 0 for no bound of its own
	byKey   map[assemblyKey]*list.Element
	order   list.List
	timer   timer
}

type assemblyKey struct {
	id     cookies
	remote netip.AddrPort
}

// assembly is one message in part.
type assembly struct {
	key   assemblyKey
	id    uint16
	parts [maxFragments][]byte
	last  int // number of the last piece, 0 until it has come
	have  int
	size  int
	until time.Time
}

func newReassembly(e *Engine, limit, octets, perAddr int) *reassembly {
	r := &reassembly{e: e, limit: limit, octets: octets, perAddr: perAddr, byKey: make(map[assemblyKey]*list.Element)}
	r.timer.fire = r.expire
	return r
}

// fragment takes one piece, and the whole message when it is the one that was missing.
func (e *Engine) fragment(now time.Time, m *message) {
	r := e.pieces
	id := cookies{m.Header.Initiator, m.Header.Responder}
	mine := e.ours[id.initiator]
	switch {
	case e.sas[id] != nil || mine != nil && (id.responder.IsZero() || mine.id.responder.IsZero()):
	case id.responder.IsZero() && e.knocks(m):
		r = e.pieces1
	default:
		e.drop(DropUnknownCookie, m.path, "exchange", m.Exchange)
		return
	}
	payloads, _, err := isakmp.ParsePayloads(m.Next, m.body(), false)
	if err != nil || len(payloads) != 1 || m.encrypted() {
		e.drop(DropFragment, m.path, "problem", "not one fragment in the clear")
		return
	}
	f, err := isakmp.ParseFragment(payloads[0].Body)
	if err != nil {
		e.drop(DropFragment, m.path, "problem", err)
		return
	}
	whole, problem := r.add(now, assemblyKey{id, m.path.Remote}, f)
	if problem != "" {
		e.drop(DropFragment, m.path, "problem", problem, "number", f.Number)
		return
	}
	if whole == nil {
		return
	}
	h, err := isakmp.ParseHeader(whole)
	if err != nil || h.Initiator != id.initiator || h.Responder != id.responder || h.Next == isakmp.PayloadFragment {
		e.drop(DropFragment, m.path, "problem", "the pieces are no message of this exchange")
		return
	}
	e.receive(now, m.path, whole)
}

// knocks says whether a first message may come in pieces: from where an answer is due at all.
func (e *Engine) knocks(m *message) bool {
	return (m.Exchange == isakmp.Main || m.Exchange == isakmp.Aggressive) && e.peerFor(m.path.Remote.Addr(), m.Exchange == isakmp.Aggressive) != nil
}

// add puts a piece in its place. Pieces of another message, or a piece that differs from what was there, begin anew: some
// senders number all their messages alike.
func (r *reassembly) add(now time.Time, key assemblyKey, f isakmp.Fragment) (whole []byte, problem string) {
	n := int(f.Number)
	if n > maxFragments {
		return nil, "too many pieces"
	}
	var a *assembly
	if el := r.byKey[key]; el != nil {
		a = el.Value.(*assembly)
		old := a.parts[n-1]
		switch {
		case a.id == f.ID && old != nil && string(old) == string(f.Data) && f.Last == (n == a.last):
			return nil, "" // a retransmission
		case a.id != f.ID || old != nil || a.last != 0 && (n > a.last || f.Last) || f.Last && a.above(n):
			r.remove(el)
			a = nil
		}
	}
	if a == nil {
		a = r.admit(now, key, f.ID)
	}
	if a.size+len(f.Data) > r.octets {
		r.remove(r.byKey[key])
		return nil, "too long"
	}
	a.parts[n-1] = append([]byte(nil), f.Data...)
	a.size += len(f.Data)
	a.have++
	if f.Last {
		a.last = n
	}
	if a.have != a.last {
		return nil, ""
	}
	whole = make([]byte, 0, a.size)
	for _, p := range a.parts[:a.last] {
		whole = append(whole, p...)
	}
	r.remove(r.byKey[key])
	return whole, ""
}

// above says whether a piece with a higher number has come.
func (a *assembly) above(n int) bool {
	for _, p := range a.parts[n:] {
		if p != nil {
			return true
		}
	}
	return false
}

// admit begins a message; another one gives way where there is no room.
func (r *reassembly) admit(now time.Time, key assemblyKey, id uint16) *assembly {
	if r.perAddr > 0 {
		var own []*list.Element
		block := addressBlock(key.remote.Addr())
		for el := r.order.Front(); el != nil; el = el.Next() {
			if addressBlock(el.Value.(*assembly).key.remote.Addr()) == block {
				own = append(own, el)
			}
		}
		if len(own) >= r.perAddr {
			r.remove(own[0])
		}
	}
	if r.order.Len() >= r.limit {
		r.remove(r.order.Front())
	}
	a := &assembly{key: key, id: id, until: now.Add(reassemblyTime)}
	r.byKey[key] = r.order.PushBack(a)
	r.arm()
	return a
}

func (r *reassembly) remove(el *list.Element) {
	delete(r.byKey, el.Value.(*assembly).key)
	r.order.Remove(el)
	r.arm()
}

func (r *reassembly) arm() {
	if el := r.order.Front(); el != nil {
		r.e.timers.set(&r.timer, el.Value.(*assembly).until)
	} else {
		r.e.timers.stop(&r.timer)
	}
}

// expire gives up what did not come whole in time.
func (r *reassembly) expire(now time.Time) {
	for el := r.order.Front(); el != nil && !el.Value.(*assembly).until.After(now); el = r.order.Front() {
		r.e.drop(DropFragment, ipsec.Path{Remote: el.Value.(*assembly).key.remote}, "problem", "pieces missing")
		r.remove(el)
	}
}

// fragmentationID announces that we put pieces together. The capabilities go to peers that send theirs, and to servers,
// which know both forms.
func fragmentationID(word bool) isakmp.Payload {
	p := isakmp.VendorFragmentation.Payload()
	if !word {
		p.Body = p.Body[:16]
	}
	return p
}

// emit sends a message, in pieces if it is long and the peer has said that it can put them together. The pieces
// bear the exchange type and the message id of phase 1, whatever they are of: that is what is understood everywhere.
func (sa *phase1) emit(p ipsec.Path, msg []byte) {
	head := fragmentHead
	if p.Remote.Addr().Is6() {
		head = fragmentHead6
	}
	limit := sa.e.cfg.Fragment
	if room := limit - head + isakmp.HeaderLen + 8; !sa.vendors.fragmentation || len(msg) <= room {
		sa.e.env.Send(p, msg)
		return
	}
	size := limit - head
	if (len(msg)+size-1)/size > maxFragments {
		sa.e.env.Send(p, msg)
		return
	}
	sa.fragments++
	exchange := isakmp.Main
	if sa.aggressive {
		exchange = isakmp.Aggressive
	}
	for n := uint8(1); len(msg) > 0; n++ {
		data := msg[:min(size, len(msg))]
		msg = msg[len(data):]
		f := isakmp.Fragment{ID: sa.fragments, Number: n, Last: len(msg) == 0, Data: data}
		piece := sa.clear(exchange, []isakmp.Payload{{Type: isakmp.PayloadFragment, Body: f.Append(nil)}})
		sa.e.env.Send(p, piece)
	}
}
