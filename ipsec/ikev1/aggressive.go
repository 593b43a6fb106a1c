package ikev1

import (
	"bytes"
	"crypto/hmac"
	"time"

	"culvert/ipsec/isakmp"
)

// Aggressive mode with a pre-shared key, as responder (RFC 2409 section 5.4; NAT-D from RFC 3947 section 3.2):
//
//	1 ->  HDR, SA, KE, Ni, IDii, VID...
//	2 <-  HDR, SA, KE, Nr, IDir, HASH_R, NAT-D, NAT-D, VID...
//	3 ->  HDR*, HASH_I, NAT-D...
//
// Message 2 lets whoever asks guess at the secret offline, so only peers configured for this mode get it.

// aggressiveFirst takes message 1; the answer needs Diffie-Hellman at once.
func (sa *phase1) aggressiveFirst(now time.Time, m *message, payloads []isakmp.Payload, answer isakmp.SA) {
	e := sa.e
	ke, ok1 := single(payloads, isakmp.PayloadKE)
	ni, ok2 := single(payloads, isakmp.PayloadNonce)
	id, ok3 := single(payloads, isakmp.PayloadID)
	if !ok1 || !ok2 || !ok3 || !validNonce(ni) || len(id) < 4 {
		e.drop(DropPayload, m.path, "problem", "message 1 of aggressive mode needs SA, KE, nonce and identity")
		return
	}
	if !e.exchanges.take(now, m.path.Remote.Addr()) {
		e.drop(DropLimit, m.path, "problem", "too many exchanges from this address")
		return
	}
	sa.ni, sa.gi, sa.idBody = bytes.Clone(ni), bytes.Clone(ke), bytes.Clone(id)
	chosen := answer.Append(nil)
	question := bytes.Clone(m.raw)
	sa.register(now)
	started := sa.exchangeKeys(now, sa.gi, func(now time.Time, ok bool) {
		switch {
		case sa.state != stateComputing:
		case !ok:
			e.drop(DropKE, sa.path, "group", sa.chosen.group)
			e.refuseClear(now, &message{Header: isakmp.Header{Initiator: sa.id.initiator}, path: sa.path, raw: question}, isakmp.InvalidKeyInformation)
			sa.remove()
		default:
			sa.aggressiveSecond(now, question, chosen)
		}
	}, func(time.Time) {
		e.drop(DropBusy, sa.path)
		sa.remove()
	})
	if !started {
		e.drop(DropBusy, m.path)
		sa.remove()
	}
}

// aggressiveSecond answers message 1. Its sender has proved nothing yet, so that vendor ids which would make the answer
// longer than the question are left out; where it is longer all the same, it goes to an address only now and then.
func (sa *phase1) aggressiveSecond(now time.Time, question, chosen []byte) {
	if err := sa.derive(); err != nil {
		sa.e.log.Error("phase 1 keys", "error", err)
		sa.remove()
		return
	}
	mine := sa.localID(sa.path).Append(nil)
	proof := sa.keys.authHash(sa.gr, sa.gi, sa.id.responder, sa.id.initiator, sa.saBody, mine)
	payloads := []isakmp.Payload{
		{Type: isakmp.PayloadSA, Body: chosen}, {Type: isakmp.PayloadKE, Body: sa.gr}, {Type: isakmp.PayloadNonce, Body: sa.nr},
		{Type: isakmp.PayloadID, Body: mine}, {Type: isakmp.PayloadHash, Body: proof},
	}
	payloads = append(payloads, sa.natDetection()...)
	payloads = append(payloads, sa.announcements()...)
	keep := len(payloads) - len(sa.announcements())
	if sa.natt != nil {
		keep++ // without it there would be no NAT traversal
	}
	msg := sa.clear(isakmp.Aggressive, payloads)
	for len(msg) > len(question) && len(payloads) > keep {
		payloads = payloads[:len(payloads)-1]
		msg = sa.clear(isakmp.Aggressive, payloads)
	}
	if len(msg) > len(question) && !sa.e.loud.take(now, sa.path.Remote.Addr()) {
		sa.e.drop(DropLimit, sa.path, "problem", "the answer is longer than the question, and this address has had some")
		sa.remove()
		return
	}
	sa.state = stateKE
	sa.e.timers.set(&sa.expiry, now.Add(halfOpenTimeout))
	sa.reply.set(question, msg)
	sa.send(sa.path, msg)
}

// aggressiveThird verifies the initiator. Its message is encrypted, though RFC 2409 leaves that open.
func (sa *phase1) aggressiveThird(now time.Time, m *message) {
	e := sa.e
	body, next := m.body(), sa.iv
	if m.encrypted() {
		var err error
		if body, next, err = sa.crypt.open(sa.iv, body); err != nil {
			e.drop(DropDecrypt, m.path, "problem", err)
			return
		}
	}
	if sa.badAuth >= maxBadAuth {
		e.drop(DropHash, m.path)
		return
	}
	payloads, _, err := isakmp.ParsePayloads(m.Next, body, m.encrypted())
	if err != nil {
		e.drop(DropDecrypt, m.path, "problem", err)
		sa.wrongSecret(now, m, "message 3 does not decrypt: the pre-shared keys differ")
		return
	}
	hash, ok := single(payloads, isakmp.PayloadHash)
	if !ok || !hmac.Equal(hash, sa.keys.authHash(sa.gi, sa.gr, sa.id.initiator, sa.id.responder, sa.saBody, sa.idBody)) {
		e.drop(DropHash, m.path)
		sa.wrongSecret(now, m, "message 3 has a wrong hash: the pre-shared keys differ")
		return
	}
	sa.detectNAT(natDetections(payloads, sa.natt), m.path, sa.path)
	if !sa.identified(now, m) {
		return
	}
	sa.vendors.read(payloads)
	sa.iv = next
	sa.reply = reply{}
	sa.established(now, m.path, hasInitialContact(payloads))
}
