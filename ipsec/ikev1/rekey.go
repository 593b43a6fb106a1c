package ikev1

import (
	"bytes"
	"crypto/hmac"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// Replacing a child ourselves. The initiator of phase 1 does this in good time, so we wait for it, except where a limit
// comes that only our side sees: the sequence numbers of our outbound SA, or the negotiated volume. Then we begin a quick
// mode that offers exactly what the client itself offered before:
//
//	1 ->  HDR*, HASH(1), SA, Ni [, KE] [, IDci, IDcr]      the identities in reverse order: we are the initiator here
//	2 <-  HDR*, HASH(2), SA, Nr [, KE] [, IDci, IDcr]
//	3 ->  HDR*, HASH(3)

// rekeying is what a quick mode that we began keeps until message 2.
type rekeying struct {
	old   *child
	in    ipsec.SPI
	key   *dhKey // nil without perfect forward secrecy
	offer isakmp.SA
}

// softExpired begins the replacement of a pair, once.
func (c *child) softExpired(now time.Time) {
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
	prop := old.choice.proposal
	prop.Number, prop.SPI = 1, be32(uint32(in))
	q.start.offer = isakmp.NewSA(prop)
	sa.quicks[mid] = q
	sa.seen.add(mid)
	e.timers.set(&q.timer, now.Add(computeTimeout))
	if old.choice.group == 0 {
		q.sendFirst(now, nil)
		return nil
	}
	if q.start.key, err = newDHKey(old.choice.group, e.env.Rand); err != nil {
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
		old.rekeyed = false
		e.drops[DropBusy]++
	}
	return nil
}

func (q *quick) sendFirst(now time.Time, public []byte) {
	sa, old := q.sa, q.start.old
	payloads := []isakmp.Payload{{Type: isakmp.PayloadSA, Body: q.start.offer.Append(nil)}, {Type: isakmp.PayloadNonce, Body: q.ni}}
	if public != nil {
		payloads = append(payloads, isakmp.Payload{Type: isakmp.PayloadKE, Body: public})
	}
	if old.ids[0] != nil {
		payloads = append(payloads, isakmp.Payload{Type: isakmp.PayloadID, Body: old.ids[1]}, isakmp.Payload{Type: isakmp.PayloadID, Body: old.ids[0]})
	}
	if len(old.private) > 0 && sa.natt != nil {
		payloads = append(payloads, sa.natOriginal()...)
	}
	msg, next := sa.hashed(isakmp.Quick, q.mid, sa.exchangeIV(q.mid), payloads, func(rest []byte) []byte { return sa.keys.hash1(q.mid, rest) })
	q.iv = next
	q.state = quickSent
	q.reply = reply{answer: msg} // sent again by time, not by question
	sa.e.log.Info("rekeying: the SA reaches its limit", "mark", sa.client.mark, "spi-out", old.out)
	sa.e.timers.set(&q.timer, now.Add(quickRetries[0]))
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
	choice, ok4 := q.start.accepted(answer)
	if !ok1 || !ok2 || err != nil || !validNonce(nonce) || !ok4 || ok3 != (q.start.key != nil) {
		e.drop(DropPayload, m.path, "problem", "message 2 is not an answer to our offer")
		q.close()
		return
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
			default:
				q.finish(now, question, next, choice, secret)
			}
		}
	}) {
		e.drop(DropBusy, m.path)
		q.state = quickSent
	}
}

// accepted checks that the answer is our one offer, with the peer's SPI.
func (r *rekeying) accepted(answer isakmp.SA) (c phase2Choice, ok bool) {
	if len(answer.Proposals) != 1 || len(answer.Proposals[0].Transforms) != 1 || len(answer.Proposals[0].SPI) != 4 {
		return c, false
	}
	got, want := answer.Proposals[0], r.old.choice
	decoded, ok := decodePhase2(got.Transforms[0])
	if !ok || got.Protocol != isakmp.ProtoESP || decoded.suite.Cipher != want.suite.Cipher || decoded.suite.KeyBits != want.suite.KeyBits ||
		decoded.suite.Integrity != want.suite.Integrity || decoded.encap != want.encap || decoded.group != want.group {
		return c, false
	}
	want.spi = ipsec.SPI(beUint32(got.SPI))
	return want, want.spi >= 256
}

// finish installs the pair and sends message 3.
func (q *quick) finish(now time.Time, question, iv []byte, choice phase2Choice, secret []byte) {
	sa, e := q.sa, q.sa.e
	c := sa.newChild(now, q.start.in, choice, q.start.old.selector)
	c.ids, c.private = q.start.old.ids, q.start.old.private
	c.keysIn = sa.keys.keymat(choice.suite, c.in, secret, q.ni, q.nr)
	c.keysOut = sa.keys.keymat(choice.suite, c.out, secret, q.ni, q.nr)
	clear(secret)
	if err := c.installIn(); err != nil {
		e.drop(DropBackend, sa.path)
		e.log.Error("data plane refuses the inbound SA", "mark", c.client.mark, "error", err)
		q.close()
		return
	}
	c.enter(now, q)
	msg, _ := sa.sealed(isakmp.Quick, q.mid, iv, []isakmp.Payload{{Type: isakmp.PayloadHash, Body: sa.keys.hash3(q.mid, q.ni, q.nr)}})
	q.state = quickDone
	q.reply.set(question, msg)
	c.quick, q.child = nil, nil
	e.timers.set(&q.timer, now.Add(retirement))
	c.state, c.confirmed = childConfirmed, now
	sa.send(sa.path, msg)
	c.activate(now)
}
