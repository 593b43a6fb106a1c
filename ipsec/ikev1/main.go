package ikev1

import (
	"bytes"
	"crypto/hmac"
	"net/netip"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// Main mode with a pre-shared key, as responder (RFC 2409 section 5.4; NAT-D from RFC 3947 section 3.2):
//
//	1 ->  HDR, SA, VID...
//	2 <-  HDR, SA, VID...
//	3 ->  HDR, KE, Ni, NAT-D, NAT-D...
//	4 <-  HDR, KE, Nr, NAT-D, NAT-D
//	5 ->  HDR*, IDii, HASH_I
//	6 <-  HDR*, IDir, HASH_R
//
// The key is chosen by source address, for it is needed to read message 5, which is where the identity is. Where users
// have keys of their own, all of them are tried (keyring.go).

// mainFirst answers message 1 with the chosen transform and what we can do.
func (sa *phase1) mainFirst(now time.Time, m *message, answer isakmp.SA) {
	msg := sa.mainSecond(answer, len(m.raw))
	sa.state = stateSA
	sa.register(now)
	sa.reply.set(m.raw, msg)
	sa.send(m.path, msg)
}

// mainSecond is message 2. It is no longer than the question, so that nobody gains by asking in another's name: vendor
// ids that do not fit are left out, the last first.
func (sa *phase1) mainSecond(answer isakmp.SA, room int) []byte {
	payloads := append([]isakmp.Payload{{Type: isakmp.PayloadSA, Body: answer.Append(nil)}}, sa.announcements()...)
	msg := sa.clear(isakmp.Main, payloads)
	for len(msg) > room && len(payloads) > 1 {
		payloads = payloads[:len(payloads)-1]
		msg = sa.clear(isakmp.Main, payloads)
	}
	return msg
}

// announcements are our vendor ids: the one dialect of NAT traversal we choose (a client that sees several may pick
// another), and dead peer detection.
func (sa *phase1) announcements() (out []isakmp.Payload) {
	if sa.natt != nil {
		out = append(out, sa.vendors.natt.Payload())
	}
	if sa.vendors.fragmentation {
		out = append(out, fragmentationID(sa.vendors.fragWord))
	}
	if sa.vendors.culvert {
		out = append(out, isakmp.VendorCulvert.Payload())
	}
	return append(out, isakmp.VendorDPD.Payload())
}

// receivePhase1 takes a main or aggressive mode message of a known exchange.
func (sa *phase1) receivePhase1(now time.Time, m *message) {
	if (m.Exchange == isakmp.Aggressive) != sa.aggressive || m.MessageID != 0 {
		sa.e.drop(DropState, m.path, "exchange", m.Exchange)
		return
	}
	if answer, repeated := sa.reply.again(m.raw); repeated {
		if answer == nil || sa.state == stateComputing {
			sa.e.drop(DropDuplicate, m.path)
			return
		}
		if sa.dial != nil {
			sa.send(sa.path, answer) // the question may have come before the float
			return
		}
		sa.send(m.path, answer)
		return
	}
	switch {
	case sa.dial != nil:
		sa.answeredPhase1(now, m)
	case sa.state == stateSA:
		sa.mainThird(now, m)
	case sa.state == stateKE && sa.aggressive:
		sa.aggressiveThird(now, m)
	case sa.state == stateKE:
		sa.mainFifth(now, m)
	default:
		sa.e.drop(DropState, m.path, "state", sa.state)
	}
}

// mainThird takes the initiator's public value and nonce, and computes ours on a worker.
func (sa *phase1) mainThird(now time.Time, m *message) {
	e := sa.e
	if m.path.Remote.Addr() != sa.path.Remote.Addr() {
		e.drop(DropState, m.path, "problem", "message 3 comes from another address than message 1")
		return
	}
	payloads, ok := e.inClear(m)
	if !ok {
		return
	}
	ke, ok1 := single(payloads, isakmp.PayloadKE)
	ni, ok2 := single(payloads, isakmp.PayloadNonce)
	if !ok1 || !ok2 || !validNonce(ni) {
		e.drop(DropPayload, m.path, "problem", "message 3 needs one KE and one nonce of 8 to 256 octets")
		return
	}
	if len(ke) != sa.chosen.group.publicLen() {
		e.drop(DropKE, m.path, "octets", len(ke), "group", sa.chosen.group)
		e.refuseClear(now, m, isakmp.InvalidKeyInformation)
		return
	}
	if !e.exchanges.take(now, m.path.Remote.Addr()) {
		e.drop(DropLimit, m.path, "problem", "too many exchanges from this address")
		return
	}
	question := bytes.Clone(m.raw) // payloads alias the caller's buffer
	ke, ni = bytes.Clone(ke), bytes.Clone(ni)
	vendors := sa.vendors
	vendors.read(payloads)
	hashes := natDetections(payloads, sa.natt)
	path := m.path
	head := m.Header
	started := sa.exchangeKeys(now, ke, func(now time.Time, ok bool) {
		if sa.state != stateComputing {
			return
		}
		if !ok {
			sa.state = stateSA // a correct message 3 may still come
			sa.enter(penFirst)
			e.drop(DropKE, path, "group", sa.chosen.group)
			e.refuseClear(now, &message{Header: head, path: path, raw: question}, isakmp.InvalidKeyInformation)
			return
		}
		sa.ni, sa.gi, sa.path = ni, ke, path
		sa.vendors = vendors
		sa.detectNAT(hashes, path)
		sa.mainFourth(now, question)
	}, func(time.Time) {
		sa.state = stateSA
		sa.enter(penFirst)
		e.drop(DropBusy, path)
	})
	if started {
		return
	}
	e.drop(DropBusy, m.path)
}

// exchangeKeys draws our private value and nonce and lets a worker compute the public value and the secret; done gets
// to know whether the peer's value was good, refused is called instead if it had to wait too long. False means that the
// workers are busy and nothing has changed.
func (sa *phase1) exchangeKeys(now time.Time, peer []byte, done func(now time.Time, ok bool), refused func(now time.Time)) bool {
	key, err := newDHKey(sa.chosen.group, sa.e.env.Rand)
	if err != nil {
		sa.e.log.Error("no Diffie-Hellman key", "error", err)
		return false
	}
	nonce, err := sa.e.random(32)
	if err != nil {
		sa.e.log.Error("no random numbers", "error", err)
		return false
	}
	before := sa.state
	sa.state = stateComputing
	sa.enter(penWorking)
	sa.e.timers.set(&sa.expiry, now.Add(computeTimeout))
	ok := sa.e.admission.submit(now, &job{
		group: sa.chosen.group,
		work: func() func(time.Time) {
			public, err1 := key.public()
			secret, err2 := key.shared(peer)
			return func(now time.Time) {
				if err1 != nil || err2 != nil {
					done(now, false)
					return
				}
				sa.nr, sa.gr, sa.secret = nonce, public, secret
				done(now, true)
			}
		},
		alive:   func() bool { return sa.state == stateComputing },
		refused: refused,
	})
	if !ok {
		sa.state = before
		sa.enter(penFirst)
	}
	return ok
}

// derive makes the keys once both nonces and the secret are there.
func (sa *phase1) derive() error {
	c, h := sa.chosen.cipher, sa.chosen.hash
	sa.iv = phase1IV(c, h, sa.gi, sa.gr)
	switch {
	case sa.chosen.method.signed():
		sa.keys = deriveSigned(c, h, sa.chosen.method, sa.ni, sa.nr, sa.secret, sa.id.initiator, sa.id.responder)
	case sa.ring() && !sa.aggressive:
		return nil // message 5 will show which key it is
	default:
		var secret ipsec.Secret
		secret, sa.user = sa.namedKey()
		sa.keys = derivePhase1(c, h, secret, sa.ni, sa.nr, sa.secret, sa.id.initiator, sa.id.responder)
	}
	clear(sa.secret) // the keys replace it
	sa.secret = nil
	var err error
	sa.crypt, err = newCrypt(c, sa.keys.enc)
	return err
}

// mainFourth answers message 3.
func (sa *phase1) mainFourth(now time.Time, question []byte) {
	if err := sa.derive(); err != nil {
		sa.e.log.Error("phase 1 keys", "error", err)
		sa.remove()
		return
	}
	payloads := []isakmp.Payload{{Type: isakmp.PayloadKE, Body: sa.gr}, {Type: isakmp.PayloadNonce, Body: sa.nr}}
	payloads = append(append(payloads, sa.certRequests()...), sa.natDetection()...)
	msg := sa.clear(isakmp.Main, payloads)
	sa.state = stateKE
	sa.enter(penProven)
	sa.e.timers.set(&sa.expiry, now.Add(halfOpenTimeout))
	sa.reply.set(question, msg)
	sa.send(sa.path, msg)
}

// mainFifth verifies the initiator and answers with our own proof.
func (sa *phase1) mainFifth(now time.Time, m *message) {
	e := sa.e
	if !m.encrypted() {
		e.drop(DropFlags, m.path)
		return
	}
	if sa.chosen.method.signed() {
		sa.signedFifth(now, m)
		return
	}
	if sa.crypt == nil {
		sa.tryKeys(now, m)
		return
	}
	plain, next, err := sa.crypt.open(sa.iv, m.body())
	if err != nil {
		e.drop(DropDecrypt, m.path, "problem", err)
		return
	}
	if sa.badAuth >= maxBadAuth {
		e.drop(DropHash, m.path)
		return
	}
	payloads, _, err := isakmp.ParsePayloads(m.Next, plain, true)
	if err != nil {
		e.drop(DropDecrypt, m.path, "problem", err)
		sa.wrongSecret(now, m, "message 5 does not decrypt: the pre-shared keys differ")
		return
	}
	id, ok1 := single(payloads, isakmp.PayloadID)
	hash, ok2 := single(payloads, isakmp.PayloadHash)
	if !ok1 || !ok2 || len(id) < 4 {
		e.drop(DropDecrypt, m.path, "problem", "no identity or no hash")
		sa.wrongSecret(now, m, "message 5 does not decrypt: the pre-shared keys differ")
		return
	}
	if !hmac.Equal(hash, sa.keys.authHash(sa.gi, sa.gr, sa.id.initiator, sa.id.responder, sa.saBody, id)) {
		e.drop(DropHash, m.path)
		sa.wrongSecret(now, m, "message 5 has a wrong hash: the pre-shared keys differ")
		return
	}
	sa.idBody = id // decrypted into a buffer of its own
	if !sa.identified(now, m) {
		return
	}
	sa.vendors.read(payloads)

	mine := sa.localID(m.path).Append(nil)
	proof := sa.keys.authHash(sa.gr, sa.gi, sa.id.responder, sa.id.initiator, sa.saBody, mine)
	msg, last := sa.sealed(isakmp.Main, 0, next, []isakmp.Payload{{Type: isakmp.PayloadID, Body: mine}, {Type: isakmp.PayloadHash, Body: proof}})
	sa.iv = last
	sa.reply.set(m.raw, msg)
	sa.send(m.path, msg)
	sa.established(now, m.path, hasInitialContact(payloads))
}

// wrongSecret says once per exchange what is the matter. The exchange waits on: whoever saw our message 4 can forge
// this one, and must not be able to end what the right client has begun.
func (sa *phase1) wrongSecret(now time.Time, m *message, cause string) {
	if sa.badAuth++; sa.badAuth > 1 {
		return
	}
	sa.e.failed(now, m.path.Remote.Addr())
	sa.e.warn(now, cause+": set the same secret on both sides", "remote", m.path.Remote, "peer", sa.peer.Name, "client", sa.vendors.software())
	sa.e.refuseClear(now, m, isakmp.AuthenticationFailed)
}

// localID is how we show ourselves: as the address that the peer dialled, which every client accepts, unless the
// configuration says otherwise.
func (sa *phase1) localID(p ipsec.Path) isakmp.ID {
	if id, err := parseIdentity(sa.peer.ID, p.Local.Addr()); err == nil {
		return id
	}
	return isakmp.IDFromAddr(p.Local.Addr(), 0, 0)
}

// identified says whether an authenticated peer shows itself as the configuration wants it. Main mode goes by addresses,
// but behind a NAT a peer knows only its private one.
func (sa *phase1) identified(now time.Time, m *message) bool {
	id, err := isakmp.ParseID(sa.idBody)
	remote := m.path.Remote.Addr()
	switch {
	case err != nil:
	case sa.peer.RemoteID != "":
		if want, err := parseIdentity(sa.peer.RemoteID, remote); err == nil && want.Type == id.Type && bytes.Equal(want.Data, id.Data) {
			return true
		}
	case sa.peer.Exchange == Main:
		if a, ok := id.Addr(); ok && (a == remote || sa.nat()) {
			return true
		}
	default:
		return true
	}
	sa.e.drop(DropHash, m.path, "problem", "identity")
	if sa.badAuth++; sa.badAuth == 1 {
		sa.e.warn(now, "identity refused: set the client's identity, or remote-id and exchange-mode = \"main-l2tp\" here",
			"remote", m.path.Remote, "peer", sa.peer.Name, "identity", identity(sa.idBody), "remote-id", sa.peer.RemoteID)
		sa.e.refuseClear(now, m, isakmp.InvalidIDInformation)
	}
	return false
}

// ValidIdentity says whether s can be an ID or RemoteID of a Peer.
func ValidIdentity(s string) error {
	_, err := parseIdentity(s, netip.IPv4Unspecified())
	return err
}

// established ends phase 1: the exchange becomes an ISAKMP SA of a client.
func (sa *phase1) established(now time.Time, p ipsec.Path, contact bool) {
	e := sa.e
	if sa.pen != nil {
		sa.pen.remove(sa)
	}
	sa.state = stateEstablished
	if sa.template != nil {
		sa.template.proved = true
		sa.template = nil
	}
	sa.path = p
	sa.since = now
	sa.ni, sa.nr, sa.gi, sa.gr, sa.saBody = nil, nil, nil, nil, nil
	sa.quicks = make(map[uint32]*quick)
	if sa.dial != nil {
		sa.dial.attach(now, sa)
	} else if !e.attach(now, sa, contact) {
		sa.sayDelete(now)
		sa.remove()
		return
	}
	if id, err := isakmp.ParseID(sa.idBody); err != nil || !usualIDPort(id) {
		e.log.Debug("unusual identity", "remote", p.Remote, "identity", identity(sa.idBody))
	}
	if d := sa.client.dial; d != nil {
		d.carryOver(now, sa)
	}
	sa.armDPD(now)
	args := []any{"remote", p.Remote, "peer", sa.peer.Name, "identity", identity(sa.idBody), "client", sa.vendors.software(),
		"proposal", sa.chosen, "nat", sa.natSides(), "mark", sa.client.mark, "role", sa.role()}
	if sa.user != "" {
		args = append(args, "user", sa.user)
	}
	e.log.Info("phase 1 up", args...)
}

// lifetime is the initiator's, but no longer than the profile allows.
func (sa *phase1) lifetime() time.Duration {
	d := sa.chosen.lifetime
	if limit := sa.peer.Profile.Lifetime; limit > 0 && d > limit {
		d = limit
	}
	return d
}

// withGrace adds what a peer needs that is slow to rekey: a tenth, at least five minutes.
func withGrace(d time.Duration) time.Duration { return d + max(d/10, 5*time.Minute) }

// usualIDPort is what identities of phase 1 carry as protocol and port (RFC 2407 section 4.6.2), and after the float.
func usualIDPort(id isakmp.ID) bool {
	return id.Protocol == 0 && id.Port == 0 || id.Protocol == 17 && (id.Port == 0 || id.Port == 500 || id.Port == 4500)
}

// identity shows an identification payload for the log.
func identity(body []byte) string {
	id, err := isakmp.ParseID(body)
	if err != nil {
		return "unreadable"
	}
	return id.String()
}
