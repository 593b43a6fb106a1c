package ikev1

import (
	"bytes"
	"crypto/hmac"
	"errors"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// Quick mode as initiator:
//
//	1 ->  HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr] [, NAT-OA...]
//	2 <-  HDR*, HASH(2), SA, Nr [, KE] [, IDci, IDcr] [, NAT-OA...]
//	3 ->  HDR*, HASH(3)
//
// With a server that we have dialed this is how the first pair is made, and each of its successors. A client that has
// called us does this itself in good time, so we wait for it, except where a limit comes that only our side sees: the
// sequence numbers of our outbound SA, or the negotiated volume. Then we offer exactly what the client offered before,
// with the identities in reverse order.

// rekeying is what a quick mode that we began keeps until message 2.
type rekeying struct {
	old      *child // to be replaced; nil for a first pair
	in       ipsec.SPI
	key      *dhKey // nil without perfect forward secrecy
	group    Group
	offer    isakmp.SA
	choices  []phase2Choice // what the offer says
	ids      [2][]byte      // IDci and IDcr as we send them, nil for none
	selector ipsec.Selector
	original bool   // NAT-OA payloads go along
	made     *child // what came of it, while message 3 may be lost
	refused  isakmp.NotifyType
}

// softExpired begins the replacement of a pair, once.
func (c *child) softExpired(now time.Time) {
	if c.client.dial != nil {
		c.renewDue(now)
		return
	}
	if c.rekeyed || c.state != childActive {
		return
	}
	for _, o := range c.client.children {
		if o.since.After(c.since) {
			return // its successor is there or coming
		}
	}
	sa := c.client.newest()
	if sa == nil {
		c.client.e.log.Warn("SA reaches its limit and the client has deleted its ISAKMP SA: waiting for it to come back", "mark", c.client.mark)
		return
	}
	c.rekeyed = true
	if err := sa.quickStart(now, c); err != nil {
		c.client.e.log.Error("no rekeying", "mark", c.client.mark, "error", err)
	}
}

// repeat offers a client again what it offered for the child that is to be replaced.
func (r *rekeying) repeat(sa *phase1, old *child) {
	prop := old.choice.proposal
	prop.Number, prop.SPI = 1, be32(uint32(r.in))
	r.offer, r.choices, r.group = isakmp.NewSA(prop), []phase2Choice{old.choice}, old.choice.group
	r.ids, r.selector = [2][]byte{old.ids[1], old.ids[0]}, old.selector
	r.original = len(old.private) > 0 && sa.natt != nil
}

// quickStart computes a public value if need be and sends message 1.
func (sa *phase1) quickStart(now time.Time, old *child) error {
	e := sa.e
	mid, err := sa.newMessageID()
	if err != nil {
		return err
	}
	in, err := e.newSPI()
	if err != nil {
		return err
	}
	q := &quick{sa: sa, mid: mid, start: &rekeying{old: old, in: in}}
	q.timer.fire = q.due
	if q.ni, err = e.random(32); err != nil {
		return err
	}
	if d := sa.client.dial; d != nil {
		d.propose(sa, q.start)
	} else {
		q.start.repeat(sa, old)
	}
	sa.quicks[mid] = q
	sa.seen.add(mid)
	e.timers.set(&q.timer, now.Add(computeTimeout))
	if q.start.group == 0 {
		q.sendFirst(now, nil)
		return nil
	}
	if q.start.key, err = newDHKey(q.start.group, e.env.Rand); err != nil {
		q.close()
		return err
	}
	if !e.offload(now, func() func(time.Time) {
		public, err := q.start.key.public()
		return func(now time.Time) {
			if err == nil && sa.quicks[mid] == q && sa.state == stateEstablished {
				q.sendFirst(now, public)
			}
		}
	}) {
		q.close()
		e.drops[DropBusy]++
		if sa.client.dial != nil {
			return errBusy
		}
		old.rekeyed = false
	}
	return nil
}

func (q *quick) sendFirst(now time.Time, public []byte) {
	sa, start := q.sa, q.start
	payloads := []isakmp.Payload{{Type: isakmp.PayloadSA, Body: start.offer.Append(nil)}, {Type: isakmp.PayloadNonce, Body: q.ni}}
	if public != nil {
		payloads = append(payloads, isakmp.Payload{Type: isakmp.PayloadKE, Body: public})
	}
	if start.ids[0] != nil {
		payloads = append(payloads, isakmp.Payload{Type: isakmp.PayloadID, Body: start.ids[0]}, isakmp.Payload{Type: isakmp.PayloadID, Body: start.ids[1]})
	}
	if start.original {
		payloads = append(payloads, sa.natOriginal(true)...)
	}
	msg, next := sa.hashed(isakmp.Quick, q.mid, sa.exchangeIV(q.mid), payloads, func(rest []byte) []byte { return sa.keys.hash1(q.mid, rest) })
	q.iv = next
	q.state = quickSent
	q.reply = reply{answer: msg} // sent again by time, not by question
	if start.old != nil {
		sa.e.log.Info("rekeying", "mark", sa.client.mark, "spi-out", start.old.out)
	}
	sa.e.timers.set(&q.timer, now.Add(sa.client.dial.patience(now, quickRetries[0])))
	sa.send(sa.path, msg)
}

// second verifies message 2, computes and sends message 3. Both SAs stand before it leaves.
func (q *quick) second(now time.Time, m *message) {
	sa, e := q.sa, q.sa.e
	payloads, hash, rest, next, why, err := sa.openHashed(q.iv, m)
	if err != nil {
		e.drop(why, m.path, "problem", err)
		return
	}
	if !hmac.Equal(hash, sa.keys.hash2(q.mid, q.ni, rest)) {
		e.drop(DropHash, m.path)
		return
	}
	sa.heard(now, m.path, true)
	saBody, ok1 := single(payloads, isakmp.PayloadSA)
	nonce, ok2 := single(payloads, isakmp.PayloadNonce)
	ke, ok3 := single(payloads, isakmp.PayloadKE)
	answer, err := isakmp.ParseSA(saBody)
	choice, ok4 := takenPhase2(q.start.choices, answer)
	if !ok1 || !ok2 || err != nil || !validNonce(nonce) || !ok4 || ok3 != (q.start.key != nil) {
		e.drop(DropPayload, m.path, "problem", "message 2 is not an answer to our offer")
		q.close()
		q.failed(now, DialNoSuite, "its answer is none to our offer: "+describeOffer(answer))
		return
	}
	if d := sa.client.dial; d != nil && !d.narrow(payloads, &q.start.selector) {
		e.drop(DropSelector, m.path)
		q.close()
		q.failed(now, DialSelector, "it changes the selectors to something else than UDP 1701")
		return
	}
	if l, ok := responderLifetime(payloads, isakmp.ProtoESP); ok {
		choice.lifetime = min(choice.lifetime, l)
	}
	q.nr = nonce
	question := bytes.Clone(m.raw)
	if q.start.key == nil {
		q.finish(now, question, next, choice, nil)
		return
	}
	q.state = quickComputing
	e.timers.set(&q.timer, now.Add(computeTimeout))
	if !e.offload(now, func() func(time.Time) {
		secret, err := q.start.key.shared(ke)
		return func(now time.Time) {
			switch {
			case sa.quicks[q.mid] != q || sa.state != stateEstablished:
			case err != nil:
				e.drop(DropKE, sa.path)
				q.close()
				q.failed(now, DialSilence, "its Diffie-Hellman value is invalid")
			default:
				q.finish(now, question, next, choice, secret)
			}
		}
	}) {
		e.drop(DropBusy, m.path)
		q.state = quickSent
	}
}

// finish installs the pair and sends message 3.
func (q *quick) finish(now time.Time, question, iv []byte, choice phase2Choice, secret []byte) {
	sa, e := q.sa, q.sa.e
	c := sa.newChild(now, q.start.in, choice, q.start.selector)
	c.ids = [2][]byte{q.start.ids[1], q.start.ids[0]} // as seen by who initiated phase 1
	if old := q.start.old; old != nil {
		c.ids, c.private = old.ids, old.private
	}
	c.keysIn = sa.keys.keymat(choice.suite, c.in, secret, q.ni, q.nr)
	c.keysOut = sa.keys.keymat(choice.suite, c.out, secret, q.ni, q.nr)
	clear(secret)
	if err := c.installIn(); err != nil {
		e.drop(DropBackend, sa.path)
		e.log.Error("data plane refuses the inbound SA", "mark", c.client.mark, "error", err)
		q.close()
		q.failed(now, DialBackend, err.Error())
		return
	}
	c.enter(now, q)
	msg, _ := sa.sealed(isakmp.Quick, q.mid, iv, []isakmp.Payload{{Type: isakmp.PayloadHash, Body: sa.keys.hash3(q.mid, q.ni, q.nr)}})
	q.state = quickDone
	q.reply.set(question, msg)
	c.quick, q.child = nil, nil
	q.tries, q.start.made = 0, c
	e.timers.set(&q.timer, now.Add(sa.client.dial.patience(now, quickRetries[0])))
	c.state, c.confirmed = childConfirmed, now
	sa.send(sa.path, msg)
	c.activate(now)
}

// done is the time after message 3: until something comes in through the pair, that message may have been lost, and
// not every server asks for it again.
func (q *quick) done(now time.Time) {
	sa, c := q.sa, q.start.made
	if q.tries++; q.tries > len(quickRetries) || sa.e.children[c.in] != c {
		q.close()
		return
	}
	if c.packets == 0 && !c.traffic(now) && q.tries < len(quickRetries) {
		sa.send(sa.path, q.reply.answer)
	}
	sa.e.timers.set(&q.timer, now.Add(c.client.dial.patience(now, quickRetries[min(q.tries, len(quickRetries)-1)])))
}

// failed tells whoever dialed that nothing came of a quick mode of ours.
func (q *quick) failed(now time.Time, cause DialCause, detail string) {
	c := q.sa.client
	if c == nil || c.dial == nil {
		return
	}
	c.dial.quickFailed(now, q, cause, detail)
}

// refusedQuick finds the quick mode of ours that an authenticated error is about.
func (sa *phase1) refusedQuick(spi []byte) (found *quick) {
	for _, q := range sa.quicks {
		if q.start == nil || q.state != quickSent {
			continue
		}
		if len(spi) == 4 && ipsec.SPI(beUint32(spi)) == q.start.in {
			return q
		}
		found = q
	}
	return found
}

// refused ends a quick mode that the server has said no to.
func (q *quick) refused(now time.Time, t isakmp.NotifyType) {
	if q.sa.client.dial == nil {
		return
	}
	q.start.refused = t
	q.close()
	switch t {
	case isakmp.InvalidIDInformation:
		q.failed(now, DialSelector, t.String())
	default:
		q.failed(now, DialNoSuite, t.String())
	}
}

var errBusy = errors.New("ikev1: the workers are busy")
