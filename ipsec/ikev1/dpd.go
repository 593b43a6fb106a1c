package ikev1

import (
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// dpd is dead peer detection (RFC 3706), in both directions. We ask only peers that announced it: Windows and Apple never
// answer, and silence of theirs means nothing.
type dpd struct {
	timer    timer
	seq      uint32 // of our last probe
	asked    bool   // our last probe is not answered yet
	failures int    // probes since the last sign of life
	theirs   uint32 // sequence number of the peer's last probe
	probed   bool   // theirs is valid
}

const defaultDPDFailures = 5

// armDPD starts or stops probing as the peer's profile says.
func (sa *phase1) armDPD(now time.Time) {
	d := &sa.dpd
	interval := sa.peer.Profile.DPDInterval
	if !sa.vendors.dpd || interval <= 0 {
		sa.e.timers.stop(&d.timer)
		return
	}
	if d.seq == 0 {
		if b, err := sa.e.random(4); err == nil {
			d.seq = beUint32(b) >> 1 // RFC 3706 section 5.4 wants the top bit clear to begin with
		}
	}
	d.timer.fire = sa.probe
	sa.e.timers.set(&d.timer, now.Add(interval))
}

// probe asks a silent peer whether it is there, and draws the conclusion when it was asked often enough. Traffic of any
// kind is an answer.
func (sa *phase1) probe(now time.Time) {
	e, d, c := sa.e, &sa.dpd, sa.client
	interval := sa.peer.Profile.DPDInterval
	limit := sa.peer.Profile.DPDMaxFailures
	if limit <= 0 {
		limit = defaultDPDFailures
	}
	heard := c.lastHeard(now)
	switch {
	case c.newest() != sa: // its successor asks
		e.timers.set(&d.timer, now.Add(interval))
	case now.Sub(heard) < interval:
		d.failures = 0
		e.timers.set(&d.timer, heard.Add(interval))
	case d.failures >= limit:
		e.log.Info("dead peer", "mark", c.mark, "remote", c.path.Remote, "probes", d.failures)
		c.drop(now, "dead peer: no answer")
	default:
		d.failures++
		d.seq++
		d.asked = true
		n := isakmp.NewDPD(isakmp.NotifyRUThere, sa.id.initiator, sa.id.responder, d.seq)
		sa.inform(isakmp.Payload{Type: isakmp.PayloadNotify, Body: n.Append(nil)})
		e.timers.set(&d.timer, now.Add(interval))
	}
}

// probed answers the peer's probe. A sequence number that goes backwards is a replay.
func (sa *phase1) probed(now time.Time, n isakmp.Notification, p ipsec.Path) {
	d := &sa.dpd
	seq, ok := n.DPDSequence()
	if !ok {
		sa.e.drop(DropPayload, p, "problem", "R-U-THERE without sequence number")
		return
	}
	if d.probed && int32(seq-d.theirs) < 0 {
		sa.e.drop(DropReplay, p)
		return
	}
	newer := !d.probed || seq != d.theirs
	d.theirs, d.probed = seq, true
	sa.heard(now, p, newer)
	ack := isakmp.NewDPD(isakmp.NotifyRUThereAck, sa.id.initiator, sa.id.responder, seq)
	sa.inform(isakmp.Payload{Type: isakmp.PayloadNotify, Body: ack.Append(nil)})
}

// probeAnswered takes the answer to our probe.
func (sa *phase1) probeAnswered(now time.Time, n isakmp.Notification, p ipsec.Path) {
	if seq, ok := n.DPDSequence(); ok && seq == sa.dpd.seq && sa.dpd.asked {
		sa.dpd.asked = false
		sa.heard(now, p, true)
	}
}
