package ikev1

import (
	"bytes"
	"crypto/hmac"
	"net/netip"
	"slices"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// Quick mode as responder (RFC 2409 section 5.5; NAT-OA from RFC 3947 section 5.2):
//
//	1 ->  HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr] [, NAT-OA...]
//	2 <-  HDR*, HASH(2), SA, Nr [, KE] [, IDci, IDcr] [, NAT-OA...]
//	3 ->  HDR*, HASH(3)
//
// The inbound SA stands when message 2 leaves, for message 3 and the first ESP packet race each other. The outbound SA
// follows with message 3, or with the first ESP packet where message 3 was lost.

// quickState is how far a quick mode has come.
type quickState uint8

const (
	quickComputing quickState = iota
	quickSent                 // our message 2 (as initiator: 1) is out
	quickDone                 // initiator only: our message 3 may be asked for again
)

// quick is one quick mode exchange in progress. When it is over only its message id is remembered.
type quick struct {
	sa     *phase1
	mid    uint32
	state  quickState
	iv     []byte
	reply  reply
	ni, nr []byte
	child  *child
	timer  timer
	tries  int
	start  *rekeying // where we began it ourselves
}

// quickRetries is when an unanswered message of ours is sent again; after the last the exchange has failed.
var quickRetries = [...]time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second}

// receiveQuick takes a quick mode message.
func (sa *phase1) receiveQuick(now time.Time, m *message) {
	e := sa.e
	switch {
	case sa.state != stateEstablished:
		e.drop(DropState, m.path, "state", sa.state)
		return
	case !m.encrypted() || m.MessageID == 0:
		e.drop(DropFlags, m.path)
		return
	}
	q := sa.quicks[m.MessageID]
	if q == nil {
		if sa.seen.has(m.MessageID) { // also the fourth message that some servers send after the third
			e.drop(DropReplay, m.path)
			return
		}
		sa.quickFirst(now, m)
		return
	}
	if answer, repeated := q.reply.again(m.raw); repeated {
		if answer == nil {
			e.drop(DropDuplicate, m.path)
			return
		}
		sa.send(sa.path, answer)
		return
	}
	switch {
	case q.state == quickComputing:
		e.drop(DropDuplicate, m.path)
	case q.start != nil && q.state == quickSent:
		q.second(now, m)
	case q.state == quickSent:
		q.third(now, m)
	default:
		e.drop(DropState, m.path)
	}
}

// quickOffer is what message 1 holds. Its slices are the decrypted message's own.
type quickOffer struct {
	sa       isakmp.SA
	nonce    []byte
	ke       []byte
	ids      [][]byte
	oa       []netip.Addr
	selector ipsec.Selector
}

// quickFirst verifies message 1, chooses, and answers, by way of a worker where there is perfect forward secrecy.
func (sa *phase1) quickFirst(now time.Time, m *message) {
	e := sa.e
	if len(sa.quicks) >= maxOpenQuick {
		e.drop(DropLimit, m.path, "problem", "too many quick modes at once")
		return
	}
	payloads, next, ok := sa.openFirst(m)
	if !ok {
		return
	}
	sa.seen.add(m.MessageID)
	sa.heard(now, m.path, true)
	o, notify, err := sa.readOffer(payloads)
	if err != nil {
		e.drop(DropPayload, m.path, "problem", err)
		sa.refuse(now, notify, isakmp.ProtoESP, nil)
		return
	}
	for _, p := range payloads {
		if p.Type == isakmp.PayloadNotify {
			sa.notified(now, p.Body, m.path)
		}
	}
	if sa.state != stateEstablished {
		return
	}
	if !sa.selects(o) {
		e.drop(DropSelector, m.path)
		e.log.Warn("quick mode is not for L2TP: the client's IPsec policy must select UDP port 1701 of this server",
			"remote", m.path.Remote, "mark", sa.client.mark, "selectors", describeIDs(o.ids))
		sa.refuse(now, isakmp.InvalidIDInformation, isakmp.ProtoESP, firstSPI(o.sa))
		return
	}
	rules := phase2Rules{
		proposal: &sa.peer.Proposal, profile: &sa.peer.Profile, keLen: len(o.ke), nat: sa.nat(), floated: sa.floated(),
		shortSHA256: sa.vendors.fingerprint().shortSHA256, culvert: sa.vendors.culvert, esn: e.cfg.ESN,
	}
	choice, miss, ok := choosePhase2(o.sa, &rules)
	if !ok {
		e.drop(DropProposal, m.path)
		e.log.Warn("quick mode refused: "+miss.String(), "remote", m.path.Remote, "peer", sa.peer.Name, "mark", sa.client.mark,
			"client", sa.vendors.software(), "offered", describeOffer(o.sa), "accepted", sa.peer.Proposal.describe())
		sa.refuse(now, isakmp.NoProposalChosen, isakmp.ProtoESP, firstSPI(o.sa))
		return
	}
	if !sa.client.makeRoom(now) {
		e.drop(DropLimit, m.path, "problem", "too many SAs of one client")
		sa.refuse(now, isakmp.NoProposalChosen, isakmp.ProtoESP, firstSPI(o.sa))
		return
	}
	q := &quick{sa: sa, mid: m.MessageID, iv: next, ni: o.nonce}
	q.timer.fire = q.due
	if q.nr, err = e.random(32); err != nil {
		e.log.Error("no random numbers", "error", err)
		return
	}
	sa.quicks[q.mid] = q
	question := bytes.Clone(m.raw)
	if o.ke == nil {
		q.answer(now, question, o, choice, nil, nil)
		return
	}
	key, err := newDHKey(choice.group, e.env.Rand)
	if err != nil {
		delete(sa.quicks, q.mid)
		e.log.Error("no Diffie-Hellman key", "error", err)
		return
	}
	e.timers.set(&q.timer, now.Add(computeTimeout)) // should the worker never answer
	started := e.offload(now, func() func(time.Time) {
		public, err1 := key.public()
		secret, err2 := key.shared(o.ke)
		return func(now time.Time) {
			if sa.quicks[q.mid] != q || sa.state != stateEstablished {
				return
			}
			if err1 != nil || err2 != nil {
				e.drop(DropKE, sa.path, "group", choice.group)
				q.close()
				sa.refuse(now, isakmp.InvalidKeyInformation, isakmp.ProtoESP, choice.proposal.SPI)
				return
			}
			q.answer(now, question, o, choice, public, secret)
		}
	})
	if !started {
		e.drop(DropBusy, m.path)
		q.close()
		sa.seen.forget(q.mid) // so that the retransmission is heard
	}
}

// readOffer checks message 1 for form. The notify code says how to refuse it.
func (sa *phase1) readOffer(payloads []isakmp.Payload) (o *quickOffer, notify isakmp.NotifyType, err error) {
	saBody, ok1 := single(payloads, isakmp.PayloadSA)
	nonce, ok2 := single(payloads, isakmp.PayloadNonce)
	if !ok1 || !ok2 || !validNonce(nonce) || payloads[0].Type != isakmp.PayloadSA {
		return nil, isakmp.PayloadMalformed, errQuickForm
	}
	o = &quickOffer{nonce: nonce}
	if o.sa, err = isakmp.ParseSA(saBody); err != nil {
		return nil, isakmp.RefuseWith(err), err
	}
	switch count(payloads, isakmp.PayloadKE) {
	case 0:
	case 1:
		if o.ke, _ = single(payloads, isakmp.PayloadKE); len(o.ke) == 0 {
			return nil, isakmp.InvalidKeyInformation, errQuickForm
		}
	default:
		return nil, isakmp.PayloadMalformed, errQuickForm
	}
	for _, p := range payloads {
		switch {
		case p.Type == isakmp.PayloadID:
			if len(p.Body) < 4 || len(o.ids) == 2 {
				return nil, isakmp.InvalidIDInformation, errQuickForm
			}
			o.ids = append(o.ids, p.Body)
		case sa.natt != nil && p.Type == sa.natt.OA:
			if a, err := isakmp.ParseNATOA(p.Body); err == nil && len(o.oa) < 2 {
				o.oa = append(o.oa, a)
			}
		}
	}
	if len(o.ids) == 1 {
		return nil, isakmp.InvalidIDInformation, errQuickForm
	}
	return o, 0, nil
}

// selects works out what traffic the SAs are to carry, false if it is anything but L2TP. The addresses in the identities
// are those of the client's own world, private or a name: what counts are the outer addresses (RFC 3193 section 4.2
// leaves the initiator's port open; zero is any).
func (sa *phase1) selects(o *quickOffer) bool {
	s := ipsec.Selector{
		Local: host(sa.path.Local.Addr()), Remote: host(sa.path.Remote.Addr()), Proto: udp,
	}
	if len(o.ids) == 2 {
		var ok1, ok2 bool
		s.RemotePort, ok1 = udpPort(o.ids[0])
		s.LocalPort, ok2 = udpPort(o.ids[1])
		if !ok1 || !ok2 {
			return false
		}
		if d := sa.client.dial; d != nil {
			o.selector = s
			return d.covers(&o.selector)
		}
		if s.LocalPort != 0 && !slices.Contains(sa.e.cfg.Ports, s.LocalPort) {
			return false
		}
	} else if d := sa.client.dial; d != nil {
		o.selector = s
		return d.covers(&o.selector)
	}
	o.selector = s
	return true
}

const udp = 17 // IP protocol number

// udpPort reads protocol and port of an identity: UDP with any port, or everything.
func udpPort(id []byte) (port uint16, ok bool) {
	proto := id[1]
	port = uint16(id[2])<<8 | uint16(id[3])
	return port, proto == udp || proto == 0 && port == 0
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// answer makes the SAs, installs the inbound one and sends message 2.
func (q *quick) answer(now time.Time, question []byte, o *quickOffer, choice phase2Choice, public, secret []byte) {
	sa, e := q.sa, q.sa.e
	in, err := e.newSPI()
	if err != nil {
		q.close()
		e.log.Error("no SPI", "error", err)
		return
	}
	c := sa.newChild(now, in, choice, o.selector)
	c.ids = [2][]byte{}
	copy(c.ids[:], o.ids)
	c.private = o.oa
	c.keysIn = sa.keys.keymat(choice.suite, in, secret, q.ni, q.nr)
	c.keysOut = sa.keys.keymat(choice.suite, choice.spi, secret, q.ni, q.nr)
	clear(secret)
	if err := c.installIn(); err != nil {
		e.drop(DropBackend, sa.path)
		e.log.Error("data plane refuses the inbound SA", "mark", c.client.mark, "suite", choice.suite, "error", err)
		q.close()
		sa.refuse(now, isakmp.NoProposalChosen, isakmp.ProtoESP, choice.proposal.SPI)
		return
	}
	c.enter(now, q)

	prop := choice.proposal
	prop.SPI = be32(uint32(in))
	reply := isakmp.SA{DOI: o.sa.DOI, Situation: o.sa.Situation, Proposals: []isakmp.Proposal{prop}}
	payloads := []isakmp.Payload{{Type: isakmp.PayloadSA, Body: reply.Append(nil)}, {Type: isakmp.PayloadNonce, Body: q.nr}}
	if public != nil {
		payloads = append(payloads, isakmp.Payload{Type: isakmp.PayloadKE, Body: public})
	}
	for _, id := range o.ids { // unchanged, whatever they say: racoon and Windows compare
		payloads = append(payloads, isakmp.Payload{Type: isakmp.PayloadID, Body: id})
	}
	if len(o.oa) > 0 {
		payloads = append(payloads, sa.natOriginal(false)...)
	}
	msg, next := sa.hashed(isakmp.Quick, q.mid, q.iv, payloads, func(rest []byte) []byte { return sa.keys.hash2(q.mid, q.ni, rest) })
	q.iv = next
	q.state = quickSent
	q.reply.set(question, msg)
	e.timers.set(&q.timer, now.Add(quickRetries[0]))
	sa.send(sa.path, msg)
}

// third verifies message 3.
func (q *quick) third(now time.Time, m *message) {
	sa, e := q.sa, q.sa.e
	_, hash, _, _, why, err := sa.openHashed(q.iv, m)
	if err != nil {
		e.drop(why, m.path, "problem", err)
		return
	}
	if !hmac.Equal(hash, sa.keys.hash3(q.mid, q.ni, q.nr)) {
		e.drop(DropHash, m.path)
		return
	}
	sa.heard(now, m.path, true)
	c := q.child
	q.close()
	c.confirm(now)
}

// due sends our message again, or gives up.
func (q *quick) due(now time.Time) {
	sa := q.sa
	if q.state == quickDone {
		q.done(now)
		return
	}
	if q.state == quickComputing || q.child == nil && q.start == nil {
		q.close()
		if q.start != nil {
			q.failed(now, DialBackend, "the workers did not answer")
		}
		return
	}
	if q.tries++; q.tries < len(quickRetries) {
		if sa.aggressive && sa.out != nil {
			sa.send(sa.path, sa.out) // the server may not know us yet
		}
		sa.send(sa.path, q.reply.answer)
		sa.e.timers.set(&q.timer, now.Add(sa.client.dial.patience(now, quickRetries[q.tries])))
		return
	}
	q.close()
	if q.child != nil {
		sa.e.log.Info("quick mode not finished by the client", "remote", sa.path.Remote, "mark", sa.client.mark)
		q.child.remove(now, "quick mode not finished")
	} else if q.start != nil {
		q.failed(now, DialSilence, "no answer")
	}
}

// close forgets the exchange.
func (q *quick) close() {
	q.sa.e.timers.stop(&q.timer)
	delete(q.sa.quicks, q.mid)
	if q.child != nil {
		q.child.quick = nil
	}
}

// firstSPI names the SA of a refused offer.
func firstSPI(offer isakmp.SA) []byte {
	if len(offer.Proposals) > 0 && len(offer.Proposals[0].SPI) == 4 {
		return offer.Proposals[0].SPI
	}
	return nil
}

// describeIDs shows the selectors that a peer asked for.
func describeIDs(ids [][]byte) string {
	if len(ids) != 2 {
		return "none"
	}
	return identity(ids[0]) + " === " + identity(ids[1])
}
