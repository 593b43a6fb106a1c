package ikev1

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// state is how far phase 1 has come, named by what has been sent or is awaited.
type state uint8

const (
	stateSA          state = iota // main: message 2 is out, waiting for 3; as initiator: message 1 is out
	stateComputing                // Diffie-Hellman is running
	stateKE                       // main: message 4 (as initiator: 3) is out; aggressive: 2 is out, waiting for 3
	stateAuth                     // as initiator of main mode: message 5 is out, waiting for 6
	stateEstablished              // both sides authenticated
	stateDead                     // forgotten by the engine; late callbacks must leave it alone
)

var stateNames = [...]string{"sa-sent", "computing", "ke-sent", "auth-sent", "established", "dead"}

func (s state) String() string { return stateNames[s] }

// phase1 is an ISAKMP SA, from its first message on.
type phase1 struct {
	e          *Engine
	id         cookies
	aggressive bool
	first      firstKey   // zero where we are the initiator
	path       ipsec.Path // where the peer was heard last, authenticated once it can be
	arrival    uint16     // local port of the first message
	peer       *Peer
	state      state
	pen        *halfOpenList // nil when established
	chosen     phase1Choice
	saBody     []byte // the initiator's SA payload, which both authentication hashes cover
	vendors    vendors
	natt       *isakmp.NATT // dialect of NAT traversal, nil for none
	// localNAT and peerNAT say which side's address or port was changed on the way.
	localNAT, peerNAT bool

	// What only the initiator has.
	dial    *dialing          // whom we call, nil for a responder
	offer   []phase1Choice    // what we have proposed
	key     *dhKey            // our private value, until the secret is there
	out     []byte            // our last message, while nothing shows that it has arrived
	retry   timer             // when that is sent again
	tries   int               // how often it has been
	refused isakmp.NotifyType // an error that came in the clear, not to be believed at once
	doubt   bool              // something came that did not verify
	renew   timer             // established: when to begin its successor; superseded: when to delete it

	ni, nr, gi, gr []byte
	secret         []byte // g^xy, until the keys are made
	keys           phase1Keys
	crypt          *crypt
	iv             []byte // of the next phase 1 message; once established, the block that other exchanges derive theirs from
	idBody         []byte // the peer's identification payload
	user           string // whose key it was, where the peer has Keys
	badAuth        int
	template       *template // the like of its first message, nil for none
	proof          []byte    // our signature, from when it is made until it is sent
	certs          [][]byte  // the peer's certificate and those above it, verified
	trouble        string    // why its certificate or signature was refused
	farewell       []byte    // IV to say goodbye with to a server that was refused

	reply   reply
	client  *client
	quicks  map[uint32]*quick
	seen    seen
	dpd     dpd
	contact bool // INITIAL-CONTACT has been obeyed
	since   time.Time
	expiry  timer
	rx, tx  uint64

	fragments uint16 // messages sent in pieces
}

// reply is the last answer of an exchange, sent again when the question comes again (RFC 2408 section 3.1, RFC 2409
// section 5). Only an identical question counts: anything else is no retransmission.
type reply struct {
	question [sha256.Size]byte
	answer   []byte
	sent     int
}

func (r *reply) set(question, answer []byte) {
	*r = reply{question: sha256.Sum256(question), answer: answer}
}

// again returns the answer to a repeated question; it is nil once that has been given often enough.
func (r *reply) again(question []byte) (answer []byte, repeated bool) {
	if r.answer == nil || sha256.Sum256(question) != r.question {
		return nil, false
	}
	if r.sent++; r.sent > maxResend {
		return nil, true
	}
	return r.answer, true
}

// seen remembers the message ids that one ISAKMP SA has used, so that a recorded message does nothing a second time.
// The oldest gives way.
type seen struct {
	ids  map[uint32]struct{}
	ring []uint32
	next int
}

func (s *seen) has(mid uint32) bool {
	_, ok := s.ids[mid]
	return ok
}

func (s *seen) add(mid uint32) {
	if s.ids == nil {
		s.ids = make(map[uint32]struct{})
	}
	if s.has(mid) {
		return
	}
	s.ids[mid] = struct{}{}
	if len(s.ring) < maxSeen {
		s.ring = append(s.ring, mid)
		return
	}
	delete(s.ids, s.ring[s.next])
	s.ring[s.next] = mid
	s.next = (s.next + 1) % maxSeen
}

// forget lets a message id be used again, where nothing came of its first use.
func (s *seen) forget(mid uint32) { delete(s.ids, mid) }

// first handles a message without responder cookie: the beginning of phase 1, or its retransmission.
func (e *Engine) first(now time.Time, m *message) {
	if m.encrypted() {
		e.drop(DropFlags, m.path)
		return
	}
	if len(m.raw) > maxFirst {
		e.drop(DropTooLong, m.path, "octets", len(m.raw))
		return
	}
	key := firstKey{m.path.Remote, m.Header.Initiator}
	if sa := e.firsts[key]; sa != nil {
		answer, repeated := sa.reply.again(m.raw)
		if !repeated || answer == nil || sa.state == stateEstablished {
			e.drop(DropDuplicate, m.path)
			return
		}
		sa.send(m.path, answer)
		return
	}
	peer := e.peerFor(m.path.Remote.Addr(), m.Exchange == isakmp.Aggressive)
	dialed := e.dialedPeer(m.path.Remote, m.Exchange == isakmp.Aggressive)
	if dialed != nil {
		peer = dialed // a server that renews phase 1 towards its client
	}
	if peer == nil {
		e.drop(DropNoPeer, m.path)
		return
	}
	if e.barred(m.path.Remote.Addr()) {
		e.drop(DropBarred, m.path)
		return
	}
	hash := templateHash(peer, m)
	known := e.templates.find(hash)
	if known != nil && e.loaded() {
		e.stateless(now, m, known)
		return
	}
	if known == nil && dialed == nil && e.mustAskAgain(now, m, hash[:]) {
		e.drop(DropRepeat, m.path)
		return
	}
	payloads, _, err := isakmp.ParsePayloads(m.Next, m.body(), false)
	if err != nil {
		e.drop(DropPayload, m.path, "problem", err)
		return
	}
	saBody, ok := single(payloads, isakmp.PayloadSA)
	if !ok || payloads[0].Type != isakmp.PayloadSA {
		e.drop(DropPayload, m.path, "problem", "no SA payload in front")
		return
	}
	offer, err := isakmp.ParseSA(saBody)
	if err != nil {
		e.drop(DropPayload, m.path, "problem", err)
		e.refuseClear(now, m, isakmp.RefuseWith(err))
		return
	}
	sa := &phase1{
		e: e, id: cookies{initiator: m.Header.Initiator}, first: key, path: m.path, arrival: m.path.Local.Port(),
		aggressive: m.Exchange == isakmp.Aggressive, peer: peer, saBody: bytes.Clone(saBody),
	}
	sa.vendors.read(payloads)
	if peer.Profile.NATTraversal {
		sa.natt = sa.vendors.dialect()
	}
	keLen := 0
	if sa.aggressive {
		ke, ok := single(payloads, isakmp.PayloadKE)
		if !ok || len(ke) == 0 {
			e.drop(DropPayload, m.path, "problem", "aggressive mode without KE")
			return
		}
		keLen = len(ke)
	}
	var answer isakmp.SA
	if sa.chosen, answer, ok = choosePhase1(offer, &peer.Profile, keLen, peer.methods(sa.aggressive)...); !ok {
		e.drop(DropProposal, m.path)
		e.warn(now, "no common phase 1 proposal: "+peer.mendProposal(offer, sa.aggressive),
			"remote", m.path.Remote, "peer", peer.Name, "client", sa.vendors.software(), "offered", describeOffer(offer), "accepted", peer.Profile.describe())
		e.refuseClear(now, m, isakmp.NoProposalChosen)
		return
	}
	if sa.id.responder, err = e.cookie(); err != nil {
		e.log.Error("no random numbers", "error", err)
		return
	}
	if sa.aggressive {
		sa.aggressiveFirst(now, m, payloads, answer)
		return
	}
	if known == nil && peer != e.dialedPeer(m.path.Remote, false) {
		if kept, err := isakmp.ParseSA(answer.Append(nil)); err == nil { // answer aliases the message
			known = e.templates.learn(&template{hash: hash, peer: peer, saBody: sa.saBody, vendors: sa.vendors, chosen: sa.chosen, answer: kept})
		}
	}
	sa.template = known
	sa.mainFirst(now, m, answer)
}

// register makes an exchange findable, as half open.
func (sa *phase1) register(now time.Time) {
	e := sa.e
	e.sas[sa.id] = sa
	e.firsts[sa.first] = sa
	sa.expiry.fire = sa.expire
	e.timers.set(&sa.expiry, now.Add(halfOpenTimeout))
	sa.enter(penFirst)
}

// The pens of half-open exchanges.
const (
	penFirst   = iota // nothing shows that the initiator is where it says it is
	penProven         // our cookie has reached it, so that a flood of forged first messages cannot push it out
	penWorking        // its Diffie-Hellman is waited for; admission bounds them
)

// enter moves an exchange to another pen.
func (sa *phase1) enter(pen int) {
	if sa.pen != nil {
		sa.pen.remove(sa)
	}
	sa.e.halfOpen[pen].admit(sa, sa.e.cfg.HalfOpen)
}

// expire ends an exchange that did not finish in time, or an ISAKMP SA at the end of its life.
func (sa *phase1) expire(now time.Time) {
	if sa.state != stateEstablished {
		level := slog.LevelDebug
		if sa.state == stateKE && sa.badAuth == 0 && sa.dial == nil { // not from a forged address, and nothing has been said yet
			level = slog.LevelInfo
		}
		sa.e.log.Log(context.Background(), level, "phase 1 not finished", "remote", sa.path.Remote, "state", sa.state, "client", sa.vendors.software(), "nat", sa.natSides())
		sa.remove()
		return
	}
	sa.e.log.Info("phase 1 expired", "remote", sa.path.Remote, "mark", sa.client.mark)
	sa.sayDelete(now)
	sa.remove()
	sa.client.settle("phase 1 expired")
}

// remove forgets an ISAKMP SA; children stay with the client (RFC 2408 section 4.4 leaves it open, and clients that
// delete their ISAKMP SA early count on it).
func (sa *phase1) remove() {
	e := sa.e
	if sa.state == stateDead {
		return
	}
	sa.state = stateDead
	delete(e.sas, sa.id)
	if e.ours[sa.id.initiator] == sa {
		delete(e.ours, sa.id.initiator)
	}
	if sa.dial != nil && sa.dial.trying == sa {
		sa.dial.trying = nil
	}
	if e.firsts[sa.first] == sa {
		delete(e.firsts, sa.first)
	}
	if sa.pen != nil {
		sa.pen.remove(sa)
	}
	e.timers.stop(&sa.expiry)
	e.timers.stop(&sa.dpd.timer)
	e.timers.stop(&sa.retry)
	e.timers.stop(&sa.renew)
	for _, q := range sa.quicks {
		e.timers.stop(&q.timer)
	}
	if sa.client != nil {
		sa.client.forget(sa)
	}
}

// send transmits and counts.
func (sa *phase1) send(p ipsec.Path, msg []byte) {
	sa.tx++
	sa.emit(p, msg)
}

// header begins a message of this ISAKMP SA.
func (sa *phase1) header(x isakmp.Exchange, mid uint32, flags isakmp.Flags, first isakmp.PayloadType) []byte {
	return isakmp.Header{
		Initiator: sa.id.initiator, Responder: sa.id.responder, Next: first, Exchange: x, Flags: flags, MessageID: mid,
	}.Append(make([]byte, 0, 512))
}

// clear composes a message that is not encrypted.
func (sa *phase1) clear(x isakmp.Exchange, payloads []isakmp.Payload) []byte {
	msg := isakmp.AppendPayloads(sa.header(x, 0, 0, payloads[0].Type), payloads)
	isakmp.SetLength(msg)
	return msg
}

// sealed composes an encrypted message; next is the exchange's following IV.
func (sa *phase1) sealed(x isakmp.Exchange, mid uint32, iv []byte, payloads []isakmp.Payload) (msg, next []byte) {
	msg = sa.header(x, mid, isakmp.Encrypted, payloads[0].Type)
	body, next := sa.crypt.seal(iv, isakmp.AppendPayloads(nil, payloads))
	msg = append(msg, body...)
	isakmp.SetLength(msg)
	return msg, next
}

// hashed composes an encrypted message of phase 2 or an informational one: a HASH payload in front, made by hash from
// everything behind it.
func (sa *phase1) hashed(x isakmp.Exchange, mid uint32, iv []byte, payloads []isakmp.Payload, hash func(rest []byte) []byte) (msg, next []byte) {
	sum := hash(isakmp.AppendPayloads(nil, payloads))
	return sa.sealed(x, mid, iv, append([]isakmp.Payload{{Type: isakmp.PayloadHash, Body: sum}}, payloads...))
}

var errNoHash = errors.New("ikev1: no HASH payload in front")

// openHashed decrypts a message of phase 2 or an informational one as far as its HASH payload. The caller has to verify
// hash over rest before it believes anything.
func (sa *phase1) openHashed(iv []byte, m *message) (payloads []isakmp.Payload, hash, rest, next []byte, why Drop, err error) {
	plain, next, err := sa.crypt.open(iv, m.body())
	if err != nil {
		return nil, nil, nil, nil, DropDecrypt, err
	}
	payloads, used, err := isakmp.ParsePayloads(m.Next, plain, true)
	if err != nil {
		return nil, nil, nil, nil, DropDecrypt, err
	}
	if len(payloads) == 0 || payloads[0].Type != isakmp.PayloadHash {
		return nil, nil, nil, nil, DropHash, errNoHash
	}
	hash = payloads[0].Body
	return payloads[1:], hash, plain[4+len(hash) : used], next, 0, nil
}

// openFirst is openHashed for the first message of an exchange under this ISAKMP SA, with the hash verified.
func (sa *phase1) openFirst(m *message) (payloads []isakmp.Payload, next []byte, ok bool) {
	payloads, hash, rest, next, why, err := sa.openHashed(sa.exchangeIV(m.MessageID), m)
	switch {
	case err != nil:
		sa.e.drop(why, m.path, "problem", err)
	case !hmac.Equal(hash, sa.keys.hash1(m.MessageID, rest)):
		sa.e.drop(DropHash, m.path)
	default:
		return payloads, next, true
	}
	return nil, nil, false
}

// inClear parses a message that nobody encrypts.
func (e *Engine) inClear(m *message) (payloads []isakmp.Payload, ok bool) {
	if m.encrypted() {
		e.drop(DropFlags, m.path)
		return nil, false
	}
	payloads, _, err := isakmp.ParsePayloads(m.Next, m.body(), false)
	if err != nil {
		e.drop(DropPayload, m.path, "problem", err)
		return nil, false
	}
	return payloads, true
}

// exchangeIV is the first IV of another exchange under this ISAKMP SA.
func (sa *phase1) exchangeIV(mid uint32) []byte {
	return exchangeIV(sa.chosen.cipher, sa.chosen.hash, sa.iv, mid)
}

// single returns the body of the only payload of a type; false if there is none or several.
func single(payloads []isakmp.Payload, t isakmp.PayloadType) (body []byte, ok bool) {
	n := 0
	for _, p := range payloads {
		if p.Type == t {
			body = p.Body
			n++
		}
	}
	return body, n == 1
}

// count tells how many payloads of a type there are.
func count(payloads []isakmp.Payload, t isakmp.PayloadType) (n int) {
	for _, p := range payloads {
		if p.Type == t {
			n++
		}
	}
	return n
}

// validNonce is RFC 2409 section 5: 8 to 256 octets.
func validNonce(n []byte) bool { return len(n) >= 8 && len(n) <= 256 }

// refuseClear answers a first message with an error notification, unauthenticated as there is no key yet. It is rate
// limited and no longer than what it answers.
func (e *Engine) refuseClear(now time.Time, m *message, t isakmp.NotifyType) {
	cr := m.Header.Responder
	if cr.IsZero() {
		var err error
		if cr, err = e.cookie(); err != nil {
			return
		}
	}
	n := isakmp.Notification{DOI: isakmp.DOIIPsec, Protocol: isakmp.ProtoISAKMP, Type: t}
	mid, err := e.random(4)
	if err != nil || !e.notifies.take(now) {
		return
	}
	msg := isakmp.Header{
		Initiator: m.Header.Initiator, Responder: cr, Next: isakmp.PayloadNotify, Exchange: isakmp.Informational,
		MessageID: beUint32(mid),
	}.Append(nil)
	msg = isakmp.AppendPayloads(msg, []isakmp.Payload{{Type: isakmp.PayloadNotify, Body: n.Append(nil)}})
	isakmp.SetLength(msg)
	if len(msg) <= len(m.raw) {
		e.env.Send(m.path, msg)
	}
}

// addressBlock is what counts as one address for limits: an IPv6 host owns its /64.
func addressBlock(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}
