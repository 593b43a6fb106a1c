package ikev1

import (
	"bytes"
	"crypto/hmac"
	"fmt"
	"net/netip"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// Phase 1 as initiator: what main mode and aggressive mode share. Nothing that the server says is authentic before its
// HASH_R has been verified, so an error in the clear, or a message that does not verify, ends nothing by itself: it is
// noted, and when a moment later nothing better has come, it is the explanation.

// phase1Retries is when an unanswered message is sent again; after the last the exchange has failed.
// Their distance stays small, so that a server that comes back finds us soon.
var phase1Retries = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second, 4 * time.Second}

const refusalGrace = 1500 * time.Millisecond // how long an unauthenticated refusal may be outdone by an answer

// announcements of ours as initiator: all dialects of NAT traversal that we speak, the best first.
var ourDialects = []isakmp.VendorID{isakmp.VendorRFC3947, isakmp.VendorNATTDraft03, isakmp.VendorNATTDraft02N, isakmp.VendorNATTDraft02}

func (sa *phase1) presents() (out []isakmp.Payload) {
	if sa.peer.Profile.NATTraversal {
		for _, id := range ourDialects {
			out = append(out, id.Payload())
		}
	}
	return append(out, isakmp.VendorDPD.Payload(), fragmentationID(true), isakmp.VendorCulvert.Payload())
}

// transmit sends our next message and sees to it that it is sent again.
func (sa *phase1) transmit(now time.Time, msg []byte) {
	sa.out, sa.tries, sa.refused, sa.doubt = msg, 0, 0, false
	sa.e.timers.set(&sa.retry, now.Add(sa.e.jitter(sa.dial.patience(now, phase1Retries[0]))))
	sa.send(sa.path, msg)
}

// resend sends our last message again, or gives up.
func (sa *phase1) resend(now time.Time) {
	if sa.tries++; sa.refused != 0 || sa.doubt && sa.tries > 1 || sa.tries >= len(phase1Retries) || sa.out == nil {
		sa.dial.failed(now, sa, sa.problem())
		return
	}
	sa.e.timers.set(&sa.retry, now.Add(sa.e.jitter(sa.dial.patience(now, phase1Retries[sa.tries]))))
	sa.send(sa.path, sa.out)
}

// compute runs work on a worker while the exchange waits in stateComputing. False means that it is busy: the exchange is
// as it was, and the server's message will come again with ours.
func (sa *phase1) compute(now time.Time, work func() (commit func(now time.Time))) bool {
	before := sa.state
	sa.state = stateComputing
	at := sa.retry.at
	sa.e.timers.set(&sa.retry, now.Add(computeTimeout))
	ok := sa.e.offload(now, func() func(time.Time) {
		commit := work()
		return func(now time.Time) {
			if sa.state == stateComputing {
				sa.state = before
				commit(now)
			}
		}
	})
	if !ok && sa.state == stateComputing {
		sa.state = before
		sa.e.timers.set(&sa.retry, at)
	}
	return ok
}

// answered takes what comes to an exchange of ours that the server's cookie is not known of yet, and what comes in the
// clear.
func (sa *phase1) answered(now time.Time, m *message) {
	e := sa.e
	switch {
	case m.Exchange == isakmp.Informational:
		sa.informedEarly(now, m)
	case m.Header.Responder.IsZero():
		e.drop(DropState, m.path, "problem", "our own message, reflected")
	case m.Exchange == isakmp.Main, m.Exchange == isakmp.Aggressive:
		sa.receivePhase1(now, m)
	default:
		e.drop(DropState, m.path, "exchange", m.Exchange)
	}
}

// informedEarly notes an error that came before the server has proved itself.
func (sa *phase1) informedEarly(now time.Time, m *message) {
	e := sa.e
	e.drop(DropUnauth, m.path, "state", sa.state)
	if sa.state == stateEstablished || sa.state == stateDead || m.path.Remote.Addr() != sa.path.Remote.Addr() {
		return
	}
	if m.encrypted() {
		if sa.state == stateAuth && sa.chosen.method.signed() {
			if t := sa.refusal(m); t != 0 && sa.refused == 0 {
				sa.refused = t
				sa.hasten(now)
			}
		} else if sa.state == stateAuth { // it has keys, and they are not ours
			sa.suspect(now)
		}
		return
	}
	payloads, _, err := isakmp.ParsePayloads(m.Next, m.body(), false)
	if err != nil {
		return
	}
	for _, p := range payloads {
		if p.Type != isakmp.PayloadNotify {
			continue
		}
		if n, err := isakmp.ParseNotification(p.Body); err == nil && n.Type.IsError() && n.Type != 0 {
			e.log.Debug("refused in the clear", "remote", m.path.Remote, "notify", n.Type)
			if sa.refused == 0 && sa.state != stateComputing {
				sa.refused = n.Type
				sa.hasten(now)
			}
		}
	}
}

// suspect notes that something did not verify.
func (sa *phase1) suspect(now time.Time) {
	if sa.badAuth++; sa.badAuth > maxBadAuth || sa.doubt {
		return
	}
	sa.doubt = true
	sa.hasten(now)
}

// hasten brings the decision forward.
func (sa *phase1) hasten(now time.Time) {
	if at := now.Add(refusalGrace); at.Before(sa.retry.at) {
		sa.e.timers.set(&sa.retry, at)
	}
}

// problem explains a failure.
func (sa *phase1) problem() *DialError {
	err := &DialError{Notify: sa.refused}
	by := ""
	if sa.refused != 0 {
		by = " (" + sa.refused.String() + ")"
	}
	switch {
	case sa.chosen.method.signed() && (sa.state == stateAuth || sa.doubt):
		err.Cause, err.Reason = DialCertificate, sa.signedProblem(by)
	case sa.state == stateAuth, sa.doubt:
		err.Cause = DialSecret
		err.Reason = "the server does not accept our proof" + by + ": the pre-shared key differs, or the server has none for this address; set the same secret on both sides"
		if sa.doubt && sa.aggressive {
			err.Reason = "the server's proof cannot be verified: the pre-shared key differs; set the same secret on both sides"
		}
	case sa.state == stateSA && (sa.refused == isakmp.NoProposalChosen || sa.refused == isakmp.AttributesNotSupported || sa.refused == isakmp.BadProposalSyntax):
		err.Cause = DialNoProposal
		err.Reason = "no common phase 1 proposal" + by + ": the server accepts none of " + describeChoices(sa.offer) + "; set the profile to what the server has"
	case sa.refused != 0:
		err.Cause = DialRefused
		err.Reason = "the server refuses phase 1: " + sa.refused.String()
		if sa.refused == isakmp.AuthenticationFailed || sa.refused == isakmp.InvalidIDInformation || sa.refused == isakmp.UnsupportedExchangeType {
			err.Reason += "; its configuration must have a peer for our address, with this exchange mode and a pre-shared key"
		}
	case sa.state == stateSA:
		err.Cause = DialNoAnswer
		err.Reason = fmt.Sprintf("no answer from %s: check the address, that UDP 500 and 4500 pass, and that the server allows calls from here", sa.path.Remote)
	default:
		err.Cause = DialSilence
		err.Reason = fmt.Sprintf("%s answered and then fell silent: large datagrams or UDP 4500 may not pass, or the server has no pre-shared key for us", sa.path.Remote)
	}
	return err
}

// answeredPhase1 takes the server's next message.
func (sa *phase1) answeredPhase1(now time.Time, m *message) {
	switch {
	case sa.state == stateSA && sa.aggressive:
		sa.aggressiveAnswered(now, m)
	case sa.state == stateSA:
		sa.answeredSA(now, m)
	case sa.state == stateKE:
		sa.answeredKE(now, m)
	case sa.state == stateAuth:
		sa.answeredAuth(now, m)
	default:
		sa.e.drop(DropState, m.path, "state", sa.state)
	}
}

// accept reads the server's choice in its first message.
func (sa *phase1) accept(m *message, payloads []isakmp.Payload) (c phase1Choice, v vendors, ok bool) {
	e := sa.e
	body, one := single(payloads, isakmp.PayloadSA)
	answer, err := isakmp.ParseSA(body)
	if !one || err != nil {
		e.drop(DropPayload, m.path, "problem", "no SA payload, or a malformed one", "error", err)
		return c, v, false
	}
	if c, ok = takenPhase1(sa.offer, sa.peer.Profile.Lifetime, answer); !ok {
		e.drop(DropProposal, m.path, "problem", "the server chose what was not offered", "answer", describeOffer(answer))
		return c, v, false
	}
	v = sa.vendors
	v.read(payloads)
	return c, v, true
}

// meet takes over what the first answer says about the server, which may have another address than the one dialed.
func (sa *phase1) meet(m isakmp.Header, p ipsec.Path, c phase1Choice, v vendors) {
	e := sa.e
	if p.Remote != sa.path.Remote {
		e.log.Info("the server answers from another address", "dialed", sa.path.Remote, "remote", p.Remote)
		sa.path.Remote = p.Remote
	}
	delete(e.sas, sa.id)
	sa.id.responder = m.Responder
	e.sas[sa.id] = sa
	sa.chosen, sa.vendors = c, v
	if sa.peer.Profile.NATTraversal {
		sa.natt = v.dialect()
	}
}

// float moves to the port of NAT traversal where there is a NAT (RFC 3947 section 4).
func (sa *phase1) float() {
	if sa.nat() && sa.path.Local.Port() == ikePort {
		sa.path.Local = netip.AddrPortFrom(sa.path.Local.Addr(), nattPort)
		if sa.path.Remote.Port() == ikePort {
			sa.path.Remote = netip.AddrPortFrom(sa.path.Remote.Addr(), nattPort)
		}
	}
}

const ikePort, nattPort = 500, 4500

// firstContact is what tells the server that whatever else it has of us is void (RFC 2407 section 4.6.3.3).
func (sa *phase1) firstContact() []isakmp.Payload {
	if c := sa.dial.client; !sa.peer.SendInitialContact || c.up || len(c.phase1s) > 0 {
		return nil
	}
	n := isakmp.Notification{
		DOI: isakmp.DOIIPsec, Protocol: isakmp.ProtoISAKMP, SPI: append(sa.id.initiator[:], sa.id.responder[:]...), Type: isakmp.NotifyInitialContact,
	}
	return []isakmp.Payload{{Type: isakmp.PayloadNotify, Body: n.Append(nil)}}
}

// Main mode with a pre-shared key, as initiator; the messages are in main.go.

// mainCall sends message 1.
func (sa *phase1) mainCall(now time.Time) {
	payloads := append([]isakmp.Payload{{Type: isakmp.PayloadSA, Body: sa.saBody}}, sa.presents()...)
	sa.transmit(now, sa.clear(isakmp.Main, payloads))
}

// answeredSA takes message 2 and sends message 3.
func (sa *phase1) answeredSA(now time.Time, m *message) {
	e := sa.e
	payloads, ok := e.inClear(m)
	if !ok {
		return
	}
	choice, v, ok := sa.accept(m, payloads)
	if !ok {
		return
	}
	key, err := newDHKey(choice.group, e.env.Rand)
	if err != nil {
		e.log.Error("no Diffie-Hellman key", "error", err)
		return
	}
	nonce, err := e.random(32)
	if err != nil {
		e.log.Error("no random numbers", "error", err)
		return
	}
	question, head, path := bytes.Clone(m.raw), m.Header, m.path
	if !sa.compute(now, func() func(time.Time) {
		public, err := key.public()
		return func(now time.Time) {
			if err != nil {
				e.log.Error("no Diffie-Hellman key", "error", err)
				return
			}
			sa.meet(head, path, choice, v)
			sa.key, sa.gi, sa.ni = key, public, nonce
			payloads := []isakmp.Payload{{Type: isakmp.PayloadKE, Body: sa.gi}, {Type: isakmp.PayloadNonce, Body: sa.ni}}
			payloads = append(payloads, sa.certRequests()...)
			msg := sa.clear(isakmp.Main, append(payloads, sa.natDetection()...))
			sa.state = stateKE
			sa.reply.set(question, msg)
			sa.transmit(now, msg)
		}
	}) {
		e.drop(DropBusy, m.path)
	}
}

// answeredKE takes message 4 and sends message 5, from the other port where there is a NAT.
func (sa *phase1) answeredKE(now time.Time, m *message) {
	e := sa.e
	if m.path.Remote.Addr() != sa.path.Remote.Addr() {
		e.drop(DropState, m.path, "problem", "message 4 comes from another address than message 2")
		return
	}
	payloads, ok := e.inClear(m)
	if !ok {
		return
	}
	ke, ok1 := single(payloads, isakmp.PayloadKE)
	nr, ok2 := single(payloads, isakmp.PayloadNonce)
	if !ok1 || !ok2 || !validNonce(nr) || len(ke) != sa.chosen.group.publicLen() {
		e.drop(DropPayload, m.path, "problem", "message 4 needs one KE of the group's length and one nonce of 8 to 256 octets")
		return
	}
	if bytes.Equal(ke, sa.gi) {
		e.drop(DropKE, m.path, "problem", "our own message, reflected")
		return
	}
	question := bytes.Clone(m.raw)
	ke, nr = bytes.Clone(ke), bytes.Clone(nr)
	v := sa.vendors
	v.read(payloads)
	hashes := natDetections(payloads, sa.natt)
	path := m.path
	prove := sa.proving(ke, nr)
	if !sa.compute(now, func() func(time.Time) {
		secret, err := sa.key.shared(ke)
		var proof []byte
		var unsigned error
		if err == nil {
			proof, unsigned = prove(secret)
		}
		return func(now time.Time) {
			if unsigned != nil {
				sa.dial.failed(now, sa, &DialError{Cause: DialCertificate, Reason: "our key does not sign: " + unsigned.Error()})
				return
			}
			if err != nil {
				e.drop(DropKE, path, "group", sa.chosen.group)
				sa.e.timers.set(&sa.retry, now.Add(phase1Retries[0])) // a correct message 4 may still come
				return
			}
			sa.nr, sa.gr, sa.secret, sa.vendors = nr, ke, secret, v
			sa.proof = proof
			sa.detectNAT(hashes, path)
			sa.mainProve(now, question)
		}
	}) {
		e.drop(DropBusy, m.path)
	}
}

// mainProve sends message 5.
func (sa *phase1) mainProve(now time.Time, question []byte) {
	if err := sa.derive(); err != nil {
		sa.e.log.Error("phase 1 keys", "error", err)
		sa.dial.failed(now, sa, sa.problem())
		return
	}
	sa.key = nil
	sa.float()
	payloads := sa.signedProof(sa.dial.id)
	if !sa.chosen.method.signed() {
		proof := sa.keys.authHash(sa.gi, sa.gr, sa.id.initiator, sa.id.responder, sa.saBody, sa.dial.id)
		payloads = []isakmp.Payload{{Type: isakmp.PayloadID, Body: sa.dial.id}, {Type: isakmp.PayloadHash, Body: proof}}
	}
	msg, next := sa.sealed(isakmp.Main, 0, sa.iv, append(payloads, sa.firstContact()...))
	sa.iv = next
	sa.state = stateAuth
	sa.reply.set(question, msg)
	sa.transmit(now, msg)
}

// answeredAuth verifies message 6: the server has the same pre-shared key.
func (sa *phase1) answeredAuth(now time.Time, m *message) {
	e := sa.e
	if !m.encrypted() {
		e.drop(DropFlags, m.path)
		return
	}
	if sa.badAuth >= maxBadAuth {
		e.drop(DropHash, m.path)
		return
	}
	if sa.chosen.method.signed() {
		sa.signedSixth(now, m)
		return
	}
	plain, next, err := sa.crypt.open(sa.iv, m.body())
	if err != nil {
		e.drop(DropDecrypt, m.path, "problem", err)
		return
	}
	payloads, _, err := isakmp.ParsePayloads(m.Next, plain, true)
	if err != nil {
		e.drop(DropDecrypt, m.path, "problem", err)
		sa.suspect(now)
		return
	}
	id, ok1 := single(payloads, isakmp.PayloadID)
	hash, ok2 := single(payloads, isakmp.PayloadHash)
	if !ok1 || !ok2 || len(id) < 4 || !hmac.Equal(hash, sa.keys.authHash(sa.gr, sa.gi, sa.id.responder, sa.id.initiator, sa.saBody, id)) {
		e.drop(DropHash, m.path)
		sa.suspect(now)
		return
	}
	sa.idBody = id // decrypted into a buffer of its own
	sa.vendors.read(payloads)
	if d, ok := responderLifetime(payloads, isakmp.ProtoISAKMP); ok {
		sa.chosen.lifetime = min(sa.chosen.lifetime, d)
	}
	sa.iv = next
	sa.reply = reply{}
	sa.established(now, m.path, false)
}

// Aggressive mode with a pre-shared key, as initiator; the messages are in aggressive.go.

// aggressiveCall computes our public value and sends message 1.
func (sa *phase1) aggressiveCall(now time.Time) {
	e, group := sa.e, sa.offer[0].group
	key, err := newDHKey(group, e.env.Rand)
	var nonce []byte
	if err == nil {
		nonce, err = e.random(32)
	}
	if err != nil {
		e.log.Error("no Diffie-Hellman key", "error", err)
		sa.dial.failed(now, sa, &DialError{Cause: DialBackend, Reason: "no random numbers"})
		return
	}
	if !sa.compute(now, func() func(time.Time) {
		public, err := key.public()
		return func(now time.Time) {
			if err != nil {
				e.log.Error("no Diffie-Hellman key", "error", err)
				return
			}
			sa.key, sa.gi, sa.ni = key, public, nonce
			payloads := []isakmp.Payload{
				{Type: isakmp.PayloadSA, Body: sa.saBody}, {Type: isakmp.PayloadKE, Body: sa.gi}, {Type: isakmp.PayloadNonce, Body: sa.ni},
				{Type: isakmp.PayloadID, Body: sa.dial.id},
			}
			sa.transmit(now, sa.clear(isakmp.Aggressive, append(payloads, sa.presents()...)))
		}
	}) {
		e.drops[DropBusy]++
		sa.remove()
		sa.dial.soon(now)
	}
}

// aggressiveAnswered verifies message 2, which proves the server, and sends message 3.
func (sa *phase1) aggressiveAnswered(now time.Time, m *message) {
	e := sa.e
	if sa.badAuth >= maxBadAuth {
		e.drop(DropHash, m.path)
		return
	}
	payloads, ok := e.inClear(m)
	if !ok {
		return
	}
	choice, v, ok := sa.accept(m, payloads)
	if !ok {
		return
	}
	ke, ok1 := single(payloads, isakmp.PayloadKE)
	nr, ok2 := single(payloads, isakmp.PayloadNonce)
	id, ok3 := single(payloads, isakmp.PayloadID)
	hash, ok4 := single(payloads, isakmp.PayloadHash)
	if !ok1 || !ok2 || !ok3 || !ok4 || !validNonce(nr) || len(id) < 4 || len(ke) != choice.group.publicLen() {
		e.drop(DropPayload, m.path, "problem", "message 2 of aggressive mode needs SA, KE of the group's length, nonce, identity and hash")
		return
	}
	question := bytes.Clone(m.raw)
	ke, nr, id, hash = bytes.Clone(ke), bytes.Clone(nr), bytes.Clone(id), bytes.Clone(hash)
	copies := make([]isakmp.Payload, 0, len(payloads)) // for what is read once they are verified
	for _, p := range payloads {
		copies = append(copies, isakmp.Payload{Type: p.Type, Body: bytes.Clone(p.Body)})
	}
	head, path := m.Header, m.path
	if !sa.compute(now, func() func(time.Time) {
		secret, err := sa.key.shared(ke)
		return func(now time.Time) {
			keys := phase1Keys{}
			if err == nil {
				keys = derivePhase1(choice.cipher, choice.hash, sa.peer.Secret, sa.ni, nr, secret, sa.id.initiator, head.Responder)
			}
			if err != nil || !hmac.Equal(hash, keys.authHash(ke, sa.gi, head.Responder, sa.id.initiator, sa.saBody, id)) {
				e.drop(DropHash, path)
				sa.e.timers.set(&sa.retry, now.Add(phase1Retries[0]))
				sa.suspect(now)
				return
			}
			sa.meet(head, path, choice, v)
			sa.nr, sa.gr, sa.secret, sa.idBody = nr, ke, secret, id
			if err := sa.derive(); err != nil {
				e.log.Error("phase 1 keys", "error", err)
				sa.dial.failed(now, sa, sa.problem())
				return
			}
			sa.detectNAT(natDetections(copies, sa.natt), path)
			sa.float()
			if d, ok := responderLifetime(copies, isakmp.ProtoISAKMP); ok {
				sa.chosen.lifetime = min(sa.chosen.lifetime, d)
			}
			sa.aggressiveProve(now, question)
		}
	}) {
		e.drop(DropBusy, m.path)
	}
}

// aggressiveProve sends message 3. Nothing answers it: it goes again when the server repeats message 2, and with our
// quick mode while that has no answer.
func (sa *phase1) aggressiveProve(now time.Time, question []byte) {
	proof := sa.keys.authHash(sa.gi, sa.gr, sa.id.initiator, sa.id.responder, sa.saBody, sa.dial.id)
	payloads := append([]isakmp.Payload{{Type: isakmp.PayloadHash, Body: proof}}, sa.natDetection()...)
	msg, next := sa.sealed(isakmp.Aggressive, 0, sa.iv, append(payloads, sa.firstContact()...))
	sa.iv = next
	sa.reply.set(question, msg)
	sa.send(sa.path, msg)
	sa.established(now, sa.path, false)
}
