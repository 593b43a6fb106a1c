package ikev1

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"errors"
	"slices"
	"time"

	"culvert/ipsec/isakmp"
)

// Main mode with signatures (RFC 2409 section 5.1). Messages 1 to 4 are those of main.go, with certificate requests in 3
// and 4; then
//
//	5 ->  HDR*, IDii, CERT..., SIG_I
//	6 <-  HDR*, IDir, CERT..., SIG_R
//
// Verifying and signing are slow on a small board, so they are done on a worker, as Diffie-Hellman is. A peer's chain is
// bounded, it is verified before its signature is, and we sign only for who has signed.
//
// Aggressive mode has no signatures here: its answer would send a chain of certificates to an address that has proved
// nothing, and no client asks for it.

// Credentials are what certificates need: ours, and whom we trust. Everything in it may be used by workers.
type Credentials struct {
	Chain [][]byte      // our certificate, and those between it and a root, DER
	Key   crypto.Signer // RSA, or ECDSA on P-256, P-384 or P-521
	ID    isakmp.ID     // how we show ourselves: something that the certificate says
	Trust Trust
}

// Trust judges peers' certificates.
type Trust interface {
	// Verify holds what a peer has sent against the identity that it shows. It returns the key that its signature has to
	// be made with, and the chain that was followed. The error is for an operator: what is wrong, and what mends it.
	Verify(now time.Time, offered []isakmp.Cert, id isakmp.ID) (key crypto.PublicKey, chain [][]byte, err error)
	// Authorities are the DER names of those whose certificates are accepted.
	Authorities() [][]byte
}

const (
	maxCerts = 8 // CERT payloads in one message
	// signatureWork is what admission measures the cost of verifying and signing by: no group has this number.
	signatureWork = Group(255)
	maxRequests   = 8 // CERTREQ payloads that we send; with more authorities, one that names none
)

// methods are how a peer may be authenticated, the best first. Where there is no way, it is one that nobody offers: an
// empty key is none.
func (p *Peer) methods(aggressive bool) (out []AuthMethod) {
	if p.Credentials != nil && !aggressive {
		if m, err := MethodOf(p.Credentials.Key.Public()); err == nil {
			out = append(out, m)
		}
	}
	if len(p.Secret)+len(p.Keys) > 0 {
		out = append(out, PreSharedKey)
	}
	if len(out) == 0 {
		out = append(out, noMethod)
	}
	return out
}

// mendProposal says what would let an offer pass that did not.
func (p *Peer) mendProposal(offer isakmp.SA, aggressive bool) string {
	offered := make(map[AuthMethod]bool)
	for _, prop := range offer.Proposals {
		for _, t := range prop.Transforms {
			if c, ok := decodePhase1(t); ok && prop.Protocol == isakmp.ProtoISAKMP {
				offered[c.method] = true
			}
		}
	}
	ours := p.methods(aggressive)
	if len(offered) > 0 && !slices.ContainsFunc(ours, func(m AuthMethod) bool { return offered[m] }) {
		switch {
		case aggressive && p.Credentials != nil:
			return "certificates are used in main mode only: let the client use that"
		case offered[PreSharedKey]:
			return "the client has a pre-shared key and certificates are asked for: set ipsec-secret, or give the client a certificate"
		case ours[0] == PreSharedKey:
			return "the client has a certificate and a pre-shared key is asked for: set auth-method = \"digital-signature\" with certificate, key and ca in the identity, or give the client the key"
		}
		return "the client's certificate has a key of another kind than ours: in IKEv1 both are RSA, or both ECDSA on the same curve"
	}
	return "add one of the offered to the profile's enc-algorithm, hash-algorithm and dh-group"
}

// certRequests ask for a certificate of one of our authorities: clients choose by it (RFC 2408 section 3.10).
func (sa *phase1) certRequests() (out []isakmp.Payload) {
	if !sa.chosen.method.signed() {
		return nil
	}
	names := sa.peer.Credentials.Trust.Authorities()
	if len(names) > maxRequests {
		names = [][]byte{nil}
	}
	for _, name := range names {
		out = append(out, isakmp.Payload{Type: isakmp.PayloadCertRequest, Body: isakmp.Cert{Encoding: isakmp.CertX509Signature, Data: name}.Append(nil)})
	}
	return out
}

// signedProof is what message 5 or 6 consists of, once the signature has been made.
func (sa *phase1) signedProof(id []byte) (out []isakmp.Payload) {
	if !sa.chosen.method.signed() {
		return nil
	}
	out = []isakmp.Payload{{Type: isakmp.PayloadID, Body: id}}
	for _, der := range sa.peer.Credentials.Chain {
		out = append(out, isakmp.Payload{Type: isakmp.PayloadCert, Body: isakmp.Cert{Encoding: isakmp.CertX509Signature, Data: der}.Append(nil)})
	}
	out = append(out, isakmp.Payload{Type: isakmp.PayloadSignature, Body: sa.proof})
	sa.proof = nil
	return out
}

// evidence is what a peer shows in message 5 or 6.
type evidence struct {
	payloads []isakmp.Payload
	id       []byte // the body of its identification payload
	shown    isakmp.ID
	certs    []isakmp.Cert
	sig      []byte
	next     []byte // IV
}

var (
	errEvidence  = errors.New("needs one identity and one signature")
	errManyCerts = errors.New("more certificates than anyone needs: let the peer send its own and those between it and the root")
)

// openEvidence decrypts and reads message 5 or 6. Its payloads are in a buffer of their own.
func (sa *phase1) openEvidence(m *message) (ev evidence, why Drop, err error) {
	plain, next, err := sa.crypt.open(sa.iv, m.body())
	if err != nil {
		return ev, DropDecrypt, err
	}
	ev.next = next
	if ev.payloads, _, err = isakmp.ParsePayloads(m.Next, plain, true); err != nil {
		return ev, DropDecrypt, err
	}
	var ok1, ok2 bool
	ev.id, ok1 = single(ev.payloads, isakmp.PayloadID)
	ev.sig, ok2 = single(ev.payloads, isakmp.PayloadSignature)
	if !ok1 || !ok2 || len(ev.sig) == 0 {
		return ev, DropPayload, errEvidence
	}
	if ev.shown, err = isakmp.ParseID(ev.id); err != nil {
		return ev, DropPayload, err
	}
	for _, p := range ev.payloads {
		if p.Type != isakmp.PayloadCert {
			continue
		}
		c, err := isakmp.ParseCert(p.Body)
		if err != nil {
			return ev, DropPayload, err
		}
		if len(ev.certs) == maxCerts {
			return ev, DropCertificate, errManyCerts
		}
		ev.certs = append(ev.certs, c)
	}
	return ev, 0, nil
}

// examine verifies a peer's chain and then its signature over hash. It runs on a worker.
func (ev *evidence) examine(now time.Time, c *Credentials, m AuthMethod, hash []byte) (chain [][]byte, err error) {
	key, chain, err := c.Trust.Verify(now, ev.certs, ev.shown)
	if err != nil {
		return nil, err
	}
	return chain, m.verify(key, hash, ev.sig)
}

// signedFifth verifies the initiator's certificate and signature, and answers with ours.
func (sa *phase1) signedFifth(now time.Time, m *message) {
	e := sa.e
	if sa.badAuth >= maxBadAuth {
		e.drop(DropCertificate, m.path)
		return
	}
	ev, why, err := sa.openEvidence(m)
	if err != nil {
		e.drop(why, m.path, "problem", err)
		if why != DropDecrypt {
			sa.refuseEvidence(now, m, &ev, err)
		}
		return
	}
	cred, method := sa.peer.Credentials, sa.chosen.method
	mine := cred.ID.Append(nil)
	theirs := sa.keys.authHash(sa.gi, sa.gr, sa.id.initiator, sa.id.responder, sa.saBody, ev.id)
	ours := sa.keys.authHash(sa.gr, sa.gi, sa.id.responder, sa.id.initiator, sa.saBody, mine)
	held := *m
	held.raw = bytes.Clone(m.raw)
	sa.state = stateComputing
	busy := func(time.Time) {
		if sa.state == stateComputing {
			sa.state = stateKE
			e.drop(DropBusy, held.path)
		}
	}
	if !e.admission.submit(now, &job{group: signatureWork, alive: func() bool { return sa.state == stateComputing }, refused: busy, work: func() func(time.Time) {
		chain, err := ev.examine(now, cred, method, theirs)
		var proof []byte
		var unsigned error
		if err == nil {
			proof, unsigned = method.signature(cred.Key, ours)
		}
		return func(now time.Time) {
			if sa.state != stateComputing {
				return
			}
			sa.state = stateKE
			switch {
			case err != nil:
				e.drop(DropCertificate, held.path, "problem", err)
				sa.refuseEvidence(now, &held, &ev, err)
			case unsigned != nil:
				e.log.Error("our key does not sign", "peer", sa.peer.Name, "error", unsigned)
			default:
				sa.proof, sa.certs = proof, chain
				sa.signedSixthOut(now, &held, &ev, mine)
			}
		}
	}}) {
		busy(now)
	}
}

// signedSixthOut answers message 5.
func (sa *phase1) signedSixthOut(now time.Time, m *message, ev *evidence, mine []byte) {
	sa.idBody = ev.id
	sa.vendors.read(ev.payloads)
	msg, last := sa.sealed(isakmp.Main, 0, ev.next, sa.signedProof(mine))
	sa.iv = last
	sa.reply.set(m.raw, msg)
	sa.send(m.path, msg)
	if !sa.wanted(ev.payloads) {
		sa.e.log.Info("the client asks for certificates of other authorities than ours, and may refuse: see that it trusts ours", "remote", m.path.Remote,
			"peer", sa.peer.Name, "identity", ev.shown)
	}
	sa.established(now, m.path, hasInitialContact(ev.payloads))
}

// wanted says whether the authorities that a peer names, if it does, include one of ours: an issuer in our chain.
func (sa *phase1) wanted(payloads []isakmp.Payload) bool {
	asked := false
	for _, p := range payloads {
		if p.Type != isakmp.PayloadCertRequest {
			continue
		}
		r, err := isakmp.ParseCertRequest(p.Body)
		if err != nil || r.Encoding != isakmp.CertX509Signature {
			continue
		}
		asked = true
		if len(r.Data) == 0 || slices.ContainsFunc(sa.peer.Credentials.Chain, func(der []byte) bool { return bytes.Contains(der, r.Data) }) {
			return true
		}
	}
	return !asked
}

// refuseEvidence says once per exchange why the peer is not let in. The exchange waits on, as with wrong keys. The peer is
// told under the keys that both have: what comes in the clear, most do not believe.
func (sa *phase1) refuseEvidence(now time.Time, m *message, ev *evidence, err error) {
	if sa.badAuth++; sa.badAuth > 1 {
		return
	}
	sa.e.warn(now, "refused by its certificate: "+err.Error(), "remote", m.path.Remote, "peer", sa.peer.Name, "identity", identity(ev.id),
		"client", sa.vendors.software())
	notify := isakmp.InvalidCertificate
	if errors.Is(err, errSignature) { // somebody else's certificate; what is wrong with one's own is no attack
		sa.e.failed(now, m.path.Remote.Addr())
		notify = isakmp.InvalidSignature
	}
	n := isakmp.Notification{DOI: isakmp.DOIIPsec, Protocol: isakmp.ProtoISAKMP, Type: notify}
	iv := sa.iv
	sa.iv = ev.next // the peer's next exchange goes on from its message 5
	if msg, _ := sa.prepared(isakmp.Payload{Type: isakmp.PayloadNotify, Body: n.Append(nil)}); msg != nil && len(msg) <= len(m.raw) {
		sa.send(m.path, msg)
	}
	sa.iv = iv
}

// proving returns what makes SIG_I out of the Diffie-Hellman secret, on a worker; without signatures it makes nothing.
func (sa *phase1) proving(gr, nr []byte) func(secret []byte) ([]byte, error) {
	method := sa.chosen.method
	if !method.signed() {
		return func([]byte) ([]byte, error) { return nil, nil }
	}
	c, h, id, key := sa.chosen.cipher, sa.chosen.hash, sa.id, sa.peer.Credentials.Key
	ni, gi, saBody, mine := sa.ni, sa.gi, sa.saBody, sa.dial.id
	return func(secret []byte) ([]byte, error) {
		keys := deriveSigned(c, h, method, ni, nr, secret, id.initiator, id.responder)
		return method.signature(key, keys.authHash(gi, gr, id.initiator, id.responder, saBody, mine))
	}
}

// signedSixth verifies the server's certificate and signature.
func (sa *phase1) signedSixth(now time.Time, m *message) {
	e := sa.e
	ev, why, err := sa.openEvidence(m)
	if err != nil {
		e.drop(why, m.path, "problem", err)
		sa.trouble = "its last message " + err.Error()
		sa.suspect(now)
		return
	}
	cred, method := sa.peer.Credentials, sa.chosen.method
	theirs := sa.keys.authHash(sa.gr, sa.gi, sa.id.responder, sa.id.initiator, sa.saBody, ev.id)
	path := m.path
	at := sa.retry.at
	if !sa.compute(now, func() func(time.Time) {
		chain, err := ev.examine(now, cred, method, theirs)
		return func(now time.Time) {
			if err != nil {
				e.drop(DropCertificate, path, "problem", err)
				sa.trouble, sa.farewell = err.Error(), ev.next
				e.timers.set(&sa.retry, at)
				sa.suspect(now)
				return
			}
			sa.idBody, sa.certs = ev.id, chain
			sa.vendors.read(ev.payloads)
			if d, ok := responderLifetime(ev.payloads, isakmp.ProtoISAKMP); ok {
				sa.chosen.lifetime = min(sa.chosen.lifetime, d)
			}
			sa.iv = ev.next
			sa.reply = reply{}
			sa.established(now, path, false)
		}
	}) {
		e.drop(DropBusy, m.path)
	}
}

// decline tells a server whose certificate we refuse that its ISAKMP SA is of no use: it has accepted us already.
func (sa *phase1) decline() {
	if sa.farewell == nil || sa.state == stateEstablished {
		return
	}
	sa.iv = sa.farewell
	if msg, _ := sa.prepared(sa.deletion()); msg != nil {
		sa.send(sa.path, msg)
	}
}

// refusal reads the error with which a server refuses our message 5. With signatures both sides have the keys already, so
// it may come encrypted; 0 where it does not verify.
func (sa *phase1) refusal(m *message) isakmp.NotifyType {
	if sa.crypt == nil || m.MessageID == 0 {
		return 0
	}
	payloads, hash, rest, _, _, err := sa.openHashed(sa.exchangeIV(m.MessageID), m)
	if err != nil || !hmac.Equal(hash, sa.keys.hash1(m.MessageID, rest)) {
		return 0
	}
	for _, p := range payloads {
		if p.Type != isakmp.PayloadNotify {
			continue
		}
		if n, err := isakmp.ParseNotification(p.Body); err == nil && n.Type.IsError() {
			return n.Type
		}
	}
	return 0
}

// signedProblem explains a call that certificates have ended; by is what the server refused with.
func (sa *phase1) signedProblem(by string) string {
	if sa.trouble != "" {
		return "the server is refused by its certificate: " + sa.trouble
	}
	return "the server does not accept our certificate" + by + ": its log knows why; it has to trust the authority that issued ours, and know no revocation of it"
}

// disowned says why a client may not stay under its peer's new settings; empty where it may.
func (c *client) disowned(now time.Time, p *Peer) string {
	const changed = "configuration changed"
	if p == nil {
		return changed
	}
	if !c.key.signed {
		if len(p.keyOfUser(c.key.user)) == 0 || !slices.Equal(p.keyOfUser(c.key.user), c.peer.keyOfUser(c.key.user)) {
			return changed
		}
		return ""
	}
	id, err := isakmp.ParseID(c.idBody)
	if p.Credentials == nil || err != nil {
		return changed
	}
	offered := make([]isakmp.Cert, 0, len(c.certs))
	for _, der := range c.certs {
		offered = append(offered, isakmp.Cert{Encoding: isakmp.CertX509Signature, Data: der})
	}
	if _, _, err := p.Credentials.Trust.Verify(now, offered, id); err != nil {
		c.e.log.Warn("no longer accepted: "+err.Error(), "remote", c.path.Remote, "mark", c.mark, "identity", identity(c.idBody))
		return "its certificate is not accepted any more"
	}
	return ""
}
