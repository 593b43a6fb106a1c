package ikev1

import (
	"container/list"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
	"time"

	"culvert/ipsec/isakmp"
)

// A first answer without state. HASH_I covers the initiator's SA payload, which message 5 does not repeat, so a responder
// of main mode has to remember it; but clients of one kind all send the same. Under load the first message is looked up
// among those that have been seen, and the responder cookie of the answer holds the number of that one and proves, when
// message 3 brings it back, that we gave it to this address: only then is anything kept. A first message that nobody has
// sent before, and those of a flood that makes up new ones, go the way of halfOpenList.

const (
	maxTemplates  = 128 // first messages remembered, of maxFirst octets each at the most, some 400 as a rule
	statelessLoad = 4   // the fraction of Config.HalfOpen that may be half open before first answers are stateless
	epochLength   = 64  // seconds; a cookie is good in its own epoch and the next
)

// template is a first message without its header, and all that follows from it.
type template struct {
	hash     [sha256.Size]byte
	slot     uint8
	peer     *Peer
	saBody   []byte
	vendors  vendors
	chosen   phase1Choice
	answer   isakmp.SA
	second   []byte // the answer that has been given without state, but for its cookies
	proved   bool   // a client that sent this has authenticated
	position *list.Element
}

// templates are the first messages that were answerable, of which those that led to a client stay longest.
type templates struct {
	mac     hash.Hash // keyed by a secret of our own
	scratch []byte
	slots   [maxTemplates]*template
	byHash  map[[sha256.Size]byte]*template
	order   list.List // the latest used last
}

// templateHash names a first message as far as it does not differ between clients of one kind.
func templateHash(p *Peer, m *message) (sum [sha256.Size]byte) {
	h := sha256.New()
	h.Write([]byte(p.Name))
	h.Write([]byte{0, byte(m.Exchange), byte(m.Next)})
	h.Write(m.body())
	h.Sum(sum[:0])
	return sum
}

func (t *templates) find(hash [sha256.Size]byte) *template {
	x := t.byHash[hash]
	if x != nil {
		t.order.MoveToBack(x.position)
	}
	return x
}

// learn remembers a first message that could be answered.
func (t *templates) learn(x *template) *template {
	if t.byHash == nil {
		t.byHash = make(map[[sha256.Size]byte]*template)
	}
	if t.order.Len() < maxTemplates {
		x.slot = uint8(t.order.Len())
	} else {
		old := t.order.Front()
		for el := old; el != nil; el = el.Next() {
			if !el.Value.(*template).proved {
				old = el
				break
			}
		}
		gone := old.Value.(*template)
		x.slot = gone.slot
		delete(t.byHash, gone.hash)
		t.order.Remove(old)
	}
	t.slots[x.slot] = x
	t.byHash[x.hash] = x
	x.position = t.order.PushBack(x)
	return x
}

// forget begins anew, with a new secret: what was given out before is good no more.
func (t *templates) forget(e *Engine) {
	secret, _ := e.random(sha256.Size)
	*t = templates{mac: hmac.New(sha256.New, secret)}
}

// loaded says whether there are so many half-open exchanges that no more state is kept of those which come.
func (e *Engine) loaded() bool {
	return e.halfOpen[0].order.Len() >= max(1, e.cfg.HalfOpen/statelessLoad)
}

// stateless answers message 1 of main mode and keeps nothing.
func (e *Engine) stateless(now time.Time, m *message, t *template) {
	id := cookies{m.Header.Initiator, e.templates.cookie(uint8(now.Unix()/epochLength), t, m)}
	if id.responder.IsZero() {
		return // one in 2^64
	}
	e.answers++
	e.warn(now, "under load: first messages are answered without keeping anything", "half-open", e.halfOpen[0].order.Len())
	if t.second == nil {
		t.second = e.fromTemplate(t, m).mainSecond(t.answer, len(m.raw))
	}
	copy(t.second, id.initiator[:])
	copy(t.second[len(id.initiator):], id.responder[:])
	e.env.Send(m.path, t.second)
}

// fromTemplate is the exchange that a first message begins.
func (e *Engine) fromTemplate(t *template, m *message) *phase1 {
	sa := &phase1{
		e: e, id: cookies{initiator: m.Header.Initiator}, first: firstKey{m.path.Remote, m.Header.Initiator}, path: m.path,
		arrival: m.path.Local.Port(), peer: t.peer, saBody: t.saBody, vendors: t.vendors, chosen: t.chosen, template: t,
	}
	if t.peer.Profile.NATTraversal {
		sa.natt = sa.vendors.dialect()
	}
	return sa
}

// cookie is the responder's for an exchange of which nothing is kept: epoch, number of the template, and a proof over
// both, the template and the addresses.
func (t *templates) cookie(epoch uint8, x *template, m *message) (c isakmp.Cookie) {
	copy(c[2:], t.proof(epoch, x.slot, x.hash[:], m))
	c[0], c[1] = epoch, x.slot
	return c
}

// proof is a keyed hash of a first message's hash, its initiator cookie and its addresses. It is valid until the next.
func (t *templates) proof(epoch, slot uint8, hash []byte, m *message) []byte {
	b := append(t.scratch[:0], epoch, slot)
	b = append(append(b, hash...), m.Header.Initiator[:]...)
	for _, a := range [2]netip.AddrPort{m.path.Local, m.path.Remote} {
		ip := a.Addr().As16()
		b = binary.BigEndian.AppendUint16(append(b, ip[:]...), a.Port())
	}
	t.mac.Reset()
	t.mac.Write(b)
	t.scratch = t.mac.Sum(b)
	return t.scratch[len(b):]
}

// recall makes the exchange that a message 3 belongs to whose message 1 was answered without keeping anything; nil if it
// is none.
func (e *Engine) recall(now time.Time, m *message) *phase1 {
	if m.Exchange != isakmp.Main || m.encrypted() || m.MessageID != 0 {
		return nil
	}
	c := m.Header.Responder
	epoch := uint8(now.Unix() / epochLength)
	if c[1] >= maxTemplates || c[0] != epoch && c[0] != epoch-1 {
		return nil
	}
	t := e.templates.slots[c[1]]
	if t == nil {
		return nil
	}
	if want := e.templates.cookie(c[0], t, m); !hmac.Equal(want[:], c[:]) {
		return nil
	}
	sa := e.fromTemplate(t, m)
	if e.firsts[sa.first] != nil || e.barred(m.path.Remote.Addr()) {
		return nil
	}
	sa.id.responder = c
	sa.state = stateSA
	sa.register(now)
	return sa
}
