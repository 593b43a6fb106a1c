package ikev1

import (
	"errors"
	"slices"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// Phase 2 of a call: what to propose, what the server may change in it, and when to do it again.

// propose fills in what message 1 of a quick mode offers: everything the first time, then what was agreed.
func (d *dialing) propose(sa *phase1, r *rekeying) {
	r.group = d.pfs
	suites := d.suites
	if r.old != nil {
		suites, r.group = []ipsec.Suite{r.old.choice.suite}, r.old.choice.group
	}
	life := d.peer.Proposal.Lifetime
	for _, s := range suites {
		c := phase2Choice{
			suite: s, group: r.group, encap: sa.encapsulation(), lifetime: time.Duration(seconds(life, defaultPhase2)) * time.Second,
			kilobytes: d.peer.Proposal.Bytes >> 10,
		}
		if s.Cipher == ipsec.ChaCha20Poly1305 && !sa.vendors.culvert {
			continue // nobody else knows the number
		}
		if sa.vendors.culvert && sa.e.cfg.ESN { // others may not like the attribute
			long := c
			long.esn = true
			r.choices = append(r.choices, long)
		}
		r.choices = append(r.choices, c)
	}
	most := maxOffer
	if sa.vendors.culvert {
		most *= 2
	}
	r.choices = r.choices[:min(len(r.choices), most)]
	r.offer = phase2Offer(r.choices, r.in)
	local, remote := sa.path.Local.Addr(), sa.path.Remote.Addr()
	r.ids = [2][]byte{isakmp.IDFromAddr(local, udp, d.port).Append(nil), isakmp.IDFromAddr(remote, udp, defaultPort).Append(nil)}
	r.selector = ipsec.Selector{Local: host(local), Remote: host(remote), Proto: udp, LocalPort: d.port, RemotePort: defaultPort}
	r.original = sa.nat()
}

// encapsulation is the mode to propose (RFC 3947 section 5.1).
func (sa *phase1) encapsulation() uint64 {
	if sa.nat() {
		return uint64(sa.natt.EncapTransport)
	}
	return isakmp.EncapTransport
}

// narrow looks at the identities in message 2, which some servers put their own into, address and all. The ports must
// leave L2TP room; where we had left our port open, the server may settle it.
func (d *dialing) narrow(payloads []isakmp.Payload, s *ipsec.Selector) bool {
	var ids [][]byte
	for _, p := range payloads {
		if p.Type == isakmp.PayloadID {
			ids = append(ids, p.Body)
		}
	}
	if len(ids) == 0 {
		return true
	}
	if len(ids) != 2 || len(ids[0]) < 4 || len(ids[1]) < 4 {
		return false
	}
	local, ok1 := udpPort(ids[0])
	remote, ok2 := udpPort(ids[1])
	if !ok1 || !ok2 || remote != 0 && remote != defaultPort || local != 0 && d.port != 0 && local != d.port {
		return false
	}
	if d.port == 0 {
		s.LocalPort = local
	}
	return true
}

// covers checks a quick mode that the server has begun: it may renew what we asked for and nothing more.
func (d *dialing) covers(s *ipsec.Selector) bool {
	if s.RemotePort != 0 && s.RemotePort != defaultPort || s.LocalPort != 0 && d.port != 0 && s.LocalPort != d.port {
		return false
	}
	s.RemotePort = defaultPort
	if d.port != 0 {
		s.LocalPort = d.port
	}
	return true
}

// renewDue begins the replacement of a pair, unless it has been or is being replaced.
func (c *child) renewDue(now time.Time) {
	d, e := c.client.dial, c.client.e
	if d == nil || d.over {
		return
	}
	e.timers.set(&c.renew, now.Add(e.jitter(firstBackoff))) // to look whether anything has come of it
	if c.superseded() || c.state != childActive {
		return
	}
	c.replace(now)
}

// replace begins the quick mode of a pair's successor, or first of all the phase 1 that it needs.
func (c *child) replace(now time.Time) {
	d, e := c.client.dial, c.client.e
	if d.negotiating() {
		return
	}
	sa := c.client.newest()
	if sa == nil {
		d.begin(now)
		return
	}
	if err := sa.quickStart(now, c); err != nil {
		if !errors.Is(err, errBusy) {
			e.log.Error("no rekeying", "mark", c.client.mark, "error", err)
		}
	}
}

// Renew replaces the SAs of a call at once, because nothing comes through them although their limits are far: the server
// may send to where a NAT used to have us, or have lost the pair and kept phase 1. What a quick mode makes goes to where
// that came from. Phase 1 begins anew beside it, for the server may answer nothing under the old one. A mark that is not a
// call's is ignored.
func (e *Engine) Renew(now time.Time, m ipsec.Mark) {
	e.at = now
	defer e.flush()
	c := e.clients[m]
	if c == nil || c.dial == nil || c.dial.over || len(c.children) == 0 {
		return
	}
	e.log.Info("nothing comes through the SAs, renewing them", "mark", m, "server", c.path.Remote)
	c.dial.pressed = now.Add(pressing)
	// A successor that the server is making may have been lost with the others: one whose message 3 is still to come would
	// take over from what is made now; one that it has confirmed may as well be what it waits for us to use.
	var newest *child
	for _, o := range slices.Clone(c.children) {
		switch {
		case o.state == childLarval:
			o.sayDelete(now)
			o.remove(now, "nothing comes through its like")
		case newest == nil || o.since.After(newest.since):
			newest = o
		}
	}
	if newest != nil {
		newest.activate(now)
		if e.children[newest.in] == newest {
			newest.replace(now)
		}
	}
	c.dial.begin(now)
}

// patience is how long to wait for an answer before a message is sent again: half as long while PPP waits too.
func (d *dialing) patience(now time.Time, usual time.Duration) time.Duration {
	if d != nil && now.Before(d.pressed) {
		return usual / 2
	}
	return usual
}

// carryAfter leaves the server the time to hear the last message of phase 1.
const carryAfter = 100 * time.Millisecond

// carryOver begins anew, under a new phase 1, the renewals that a server has not answered under an older one: it may have
// forgotten that, or be replacing it and answer nothing meanwhile.
func (d *dialing) carryOver(now time.Time, sa *phase1) {
	e := d.client.e
	for _, o := range d.client.phase1s {
		for _, q := range o.quicks {
			if o == sa || q.start == nil || q.state != quickSent {
				continue
			}
			if old := q.start.old; old != nil && e.children[old.in] == old {
				q.close()
				e.timers.set(&old.renew, now.Add(carryAfter))
			}
		}
	}
}

// superseded says whether a later pair is in use or about to be.
func (c *child) superseded() bool {
	for _, o := range c.client.children {
		if o != c && o.since.After(c.since) {
			return true
		}
	}
	return false
}

// quickFailed draws the conclusion from a quick mode of ours that led to nothing. The first one is tried with perfect
// forward secrecy too; the renewal of a pair is tried again as long as the pair lives.
func (d *dialing) quickFailed(now time.Time, q *quick, cause DialCause, detail string) {
	c, e := d.client, d.client.e
	if d.over {
		return
	}
	if len(c.children) > 0 {
		e.log.Warn("the server does not renew the SAs, trying again", "mark", c.mark, "server", c.path.Remote, "problem", detail)
		if cause == DialSilence && q.sa == c.newest() {
			d.begin(now) // it may have lost phase 1
		}
		return
	}
	if d.peer.Proposal.PFS == 0 && !d.pfsTried && (cause == DialNoSuite || cause == DialSilence) {
		d.pfsTried = true
		d.pfs = q.sa.chosen.group
		if sa := c.newest(); sa != nil {
			e.log.Info("trying phase 2 with perfect forward secrecy", "mark", c.mark, "group", d.pfs, "problem", detail)
			switch err := sa.quickStart(now, nil); {
			case err == nil:
				return
			case errors.Is(err, errBusy):
				d.soon(now)
				return
			}
		}
	}
	err := &DialError{Cause: cause, Notify: q.start.refused}
	switch cause {
	case DialNoSuite:
		err.Reason = "no common phase 2 proposal (" + detail + "): the server accepts none of " + describeSuites(d.suites, d.pfs) +
			"; set the proposal's enc-algorithms, auth-algorithms and pfs-group to what the server has"
	case DialSelector:
		err.Reason = "the server does not let UDP 1701 through its SAs (" + detail + "): it may insist on source port 1701, or not be an L2TP server"
	case DialSilence:
		err.Reason = "phase 1 is up and the server does not answer quick mode (" + detail + "): its log knows what it dislikes"
	default:
		err.Reason = "the SAs cannot be installed here: " + detail
	}
	d.end(now, err)
}
