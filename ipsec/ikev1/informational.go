package ikev1

import (
	"bytes"
	"encoding/binary"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

func beUint32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// receiveInformational takes a notification or deletion (RFC 2409 section 5.7). Nothing in it counts before its HASH has
// been verified, and what comes in the clear never counts: anybody can send that.
func (sa *phase1) receiveInformational(now time.Time, m *message) {
	e := sa.e
	if sa.dial != nil && sa.state != stateEstablished {
		sa.answered(now, m)
		return
	}
	if !m.encrypted() || sa.state != stateEstablished {
		e.drop(DropUnauth, m.path, "state", sa.state)
		return
	}
	if m.MessageID == 0 || sa.seen.has(m.MessageID) {
		e.drop(DropReplay, m.path)
		return
	}
	payloads, _, ok := sa.openFirst(m)
	if !ok {
		return
	}
	sa.seen.add(m.MessageID)
	sa.heard(now, m.path, false)
	for _, p := range payloads {
		if sa.state != stateEstablished { // a deletion in front has ended it
			return
		}
		switch p.Type {
		case isakmp.PayloadNotify:
			sa.notified(now, p.Body, m.path)
		case isakmp.PayloadDelete:
			sa.deleted(now, p.Body, m.path)
		}
	}
}

// notified acts on an authenticated notification.
func (sa *phase1) notified(now time.Time, body []byte, p ipsec.Path) {
	e := sa.e
	n, err := isakmp.ParseNotification(body)
	if err != nil {
		e.drop(DropPayload, p, "problem", err)
		return
	}
	switch {
	case n.Type == isakmp.NotifyInitialContact:
		sa.announced(now)
	case n.Type == isakmp.NotifyRUThere:
		sa.probed(now, n, p)
	case n.Type == isakmp.NotifyRUThereAck:
		sa.probeAnswered(now, n, p)
	case n.Type.IsError():
		e.log.Info("peer reports an error", "remote", p.Remote, "mark", sa.client.mark, "notify", n.Type)
		if q := sa.refusedQuick(n.SPI); q != nil {
			q.refused(now, n.Type)
		}
	default:
		e.log.Debug("notification", "remote", p.Remote, "notify", n.Type)
	}
}

// deleted acts on an authenticated deletion.
func (sa *phase1) deleted(now time.Time, body []byte, p ipsec.Path) {
	e := sa.e
	d, err := isakmp.ParseDelete(body)
	if err != nil {
		e.drop(DropPayload, p, "problem", err)
		return
	}
	for _, spi := range d.SPIs {
		switch d.Protocol {
		case isakmp.ProtoESP:
			sa.deletedChild(now, ipsec.SPI(beUint32(spi)))
		case isakmp.ProtoISAKMP:
			sa.deletedPhase1(now, spi)
		}
	}
}

// deletedChild removes the client's pair with this SPI: the sender's inbound one, which is our outbound one. Some peers
// name the receiver's instead.
func (sa *phase1) deletedChild(now time.Time, spi ipsec.SPI) {
	for _, c := range sa.client.children {
		if c.out == spi {
			c.remove(now, "deleted by the peer")
			return
		}
	}
	for _, c := range sa.client.children {
		if c.in == spi {
			c.remove(now, "deleted by the peer")
			return
		}
	}
}

// deletedPhase1 removes the ISAKMP SA with these cookies, if it is one of the client's. Its children stay: clients exist
// that delete an idle ISAKMP SA and go on sending, and those that leave delete the children as well.
func (sa *phase1) deletedPhase1(now time.Time, spi []byte) {
	for _, x := range sa.client.phase1s {
		if bytes.Equal(spi, append(x.id.initiator[:], x.id.responder[:]...)) {
			x.e.log.Debug("phase 1 deleted by the peer", "remote", x.path.Remote, "mark", x.client.mark)
			x.remove()
			return
		}
	}
}

// hasInitialContact looks for the notification in the last message of phase 1.
func hasInitialContact(payloads []isakmp.Payload) bool {
	for _, p := range payloads {
		if p.Type != isakmp.PayloadNotify {
			continue
		}
		if n, err := isakmp.ParseNotification(p.Body); err == nil && n.Type == isakmp.NotifyInitialContact {
			return true
		}
	}
	return false
}

// inform sends one informational message, authenticated and encrypted.
func (sa *phase1) inform(p ...isakmp.Payload) {
	if sa.state != stateEstablished {
		return
	}
	if msg, mid := sa.prepared(p...); msg != nil {
		sa.seen.add(mid) // or it could be reflected to us
		sa.send(sa.path, msg)
	}
}

// prepared makes an authenticated informational message; nil without random numbers.
func (sa *phase1) prepared(p ...isakmp.Payload) (msg []byte, mid uint32) {
	mid, err := sa.newMessageID()
	if err != nil {
		sa.e.log.Error("no random numbers", "error", err)
		return nil, 0
	}
	msg, _ = sa.hashed(isakmp.Informational, mid, sa.exchangeIV(mid), p, func(rest []byte) []byte { return sa.keys.hash1(mid, rest) })
	return msg, mid
}

// newMessageID draws a message id that this ISAKMP SA has not used.
func (sa *phase1) newMessageID() (uint32, error) {
	for range 8 {
		b, err := sa.e.random(4)
		if err != nil {
			return 0, err
		}
		if mid := beUint32(b); mid != 0 && !sa.seen.has(mid) && sa.quicks[mid] == nil {
			return mid, nil
		}
	}
	return 0, errRandom
}

// refuse tells an authenticated peer what was wrong.
func (sa *phase1) refuse(now time.Time, t isakmp.NotifyType, proto isakmp.Protocol, spi []byte) {
	n := isakmp.Notification{DOI: isakmp.DOIIPsec, Protocol: proto, SPI: spi, Type: t}
	sa.inform(isakmp.Payload{Type: isakmp.PayloadNotify, Body: n.Append(nil)})
}

// sayDelete tells the peer that this ISAKMP SA is gone.
func (sa *phase1) sayDelete(now time.Time) { sa.inform(sa.deletion()) }

// deletion is the payload that takes the ISAKMP SA down.
func (sa *phase1) deletion() isakmp.Payload {
	d := isakmp.Delete{
		DOI: isakmp.DOIIPsec, Protocol: isakmp.ProtoISAKMP, SPIs: [][]byte{append(sa.id.initiator[:], sa.id.responder[:]...)},
	}
	return isakmp.Payload{Type: isakmp.PayloadDelete, Body: d.Append(nil)}
}
