package ikev1

import (
	"errors"

	"net/netip"
	"slices"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// childState is what of a pair is in use.
type childState uint8

const (
	childLarval    childState = iota // inbound SA installed, the peer's message 3 outstanding
	childConfirmed                   // the peer has the keys; an older pair still sends
	childActive                      // both SAs installed
)

var childStates = [...]string{"larval", "confirmed", "active"}

func (s childState) String() string { return childStates[s] }

const (
	pollInterval = 500 * time.Millisecond // how often a new inbound SA is looked at for its first packet
	takeover     = 5 * time.Second        // how long an older pair goes on sending at most, once its successor is confirmed
	retirement   = 30 * time.Second       // how long a superseded outbound SA stays, should the peer delete its successor
	// Without extended sequence numbers an SA ends after 2^32-1 packets (RFC 4303 section 3.3.3).
	softPackets = 0xf0000000
	hardPackets = 0xffffff00
)

// child is a pair of ESP SAs. It belongs to a client and outlives the ISAKMP SA that made it.
type child struct {
	client  *client
	maker   cookies
	in, out ipsec.SPI
	choice  phase2Choice
	// keysIn and keysOut are wiped when they have been handed to the Backend.
	keysIn, keysOut ipsec.Keys
	selector        ipsec.Selector
	ids             [2][]byte // as the initiator sent them, nil for none
	private         []netip.Addr
	state           childState
	outGone         bool // superseded and its outbound SA removed
	rekeyed         bool // a soft limit has been acted on
	quick           *quick
	since           time.Time
	until           time.Time // of the negotiated lifetime
	confirmed       time.Time
	poll, hard      timer
	renew           timer  // when we begin its replacement, where that is up to us
	packets         uint64 // inbound, when last looked at
	heard           time.Time
}

// newChild makes a pair that nobody knows yet.
func (sa *phase1) newChild(now time.Time, in ipsec.SPI, choice phase2Choice, s ipsec.Selector) *child {
	c := &child{
		client: sa.client, maker: sa.id, in: in, out: choice.spi, choice: choice, selector: s,
		since: now, until: now.Add(choice.lifetime),
	}
	c.poll.fire = c.look
	c.hard.fire = c.expired
	c.renew.fire = c.renewDue
	return c
}

// enter makes the pair findable and starts its clocks.
func (c *child) enter(now time.Time, q *quick) {
	e := c.client.e
	e.children[c.in] = c
	c.client.children = append(c.client.children, c)
	if len(c.client.children) == 1 {
		c.client.pace(now)
	}
	c.quick, q.child = q, c
	e.timers.set(&c.hard, now.Add(withGrace(c.choice.lifetime)))
	e.timers.set(&c.poll, now.Add(pollInterval))
	if d := c.client.dial; d != nil {
		e.timers.set(&c.renew, now.Add(d.early(c.choice.lifetime)))
	}
}

// newSPI draws an SPI that is free and not reserved.
func (e *Engine) newSPI() (ipsec.SPI, error) {
	for range 64 {
		b, err := e.random(4)
		if err != nil {
			return 0, err
		}
		spi := ipsec.SPI(beUint32(b))
		if _, taken := e.children[spi]; spi >= 256 && !taken {
			return spi, nil
		}
	}
	return 0, errRandom
}

// sa describes one direction to the Backend.
func (c *child) sa(d ipsec.Direction) ipsec.SA {
	p := c.client.path
	sa := ipsec.SA{
		Dir: d, SPI: c.in, Mark: c.client.mark, Local: p.Local.Addr(), Remote: p.Remote.Addr(), Mode: ipsec.Transport,
		Suite: c.choice.suite, Keys: c.keysIn, Selector: c.selector, ESN: c.choice.esn,
		Soft: ipsec.Lifetime{Bytes: c.choice.bytes()}, // time is ours to watch, bytes the initiator's
	}
	if limit := c.client.peer.Proposal.Bytes; limit != 0 && (sa.Soft.Bytes == 0 || limit < sa.Soft.Bytes) {
		sa.Soft.Bytes = limit
	}
	if !sa.ESN {
		sa.Soft.Packets, sa.Hard.Packets = softPackets, hardPackets
	}
	if c.choice.udp() {
		sa.Encap = ipsec.Encap{Local: p.Local.Port(), Remote: p.Remote.Port()}
	}
	if d == ipsec.Out {
		sa.SPI, sa.Keys = c.out, c.keysOut
	}
	return sa
}

// bytes is the negotiated volume, 0 for unbounded.
func (c *phase2Choice) bytes() uint64 {
	if c.kilobytes > 1<<50 {
		return 0
	}
	return c.kilobytes << 10
}

func (c *child) installIn() error {
	err := c.client.e.env.Backend.Install(c.sa(ipsec.In))
	c.keysIn = ipsec.Keys{} // the Backend keeps what it needs
	return err
}

// look is the poll: has the new inbound SA carried anything?
func (c *child) look(now time.Time) {
	e := c.client.e
	switch {
	case c.state == childActive && c.preferred(now): // both sides may have made a successor, and each uses another one
		e.timers.set(&c.poll, now.Add(retirement))
		return
	case c.state == childActive && c.client.dial != nil: // superseded, retirement over, and ours to clear away
		c.sayDelete(now)
		c.remove(now, "superseded")
		return
	case c.state == childActive: // superseded, retirement over
		e.remove(ipsec.SAID{Dir: ipsec.Out, SPI: c.out, Mark: c.client.mark})
		c.outGone = true
		return
	case c.traffic(now):
		if c.state == childLarval { // as good as message 3
			if c.quick != nil {
				c.quick.close()
			}
			c.client.touch(now)
		}
		c.activate(now)
		return
	case c.state == childConfirmed && now.Sub(c.confirmed) >= takeover:
		c.activate(now)
		return
	}
	e.timers.set(&c.poll, now.Add(pollInterval))
}

// preferred says that the peer goes on sending through a superseded pair, and not through any of its successors: what it
// sends would be lost until it hears that the pair is gone, and should it delete the successor, this is what is left.
func (c *child) preferred(now time.Time) bool {
	c.traffic(now)
	if now.Sub(c.heard) > retirement {
		return false
	}
	for _, o := range c.client.children {
		o.traffic(now)
		if o != c && o.state == childActive && !o.outGone && o.poll.pos == 0 && !o.heard.Before(c.heard) {
			return false
		}
	}
	return true
}

// traffic says whether the inbound SA has carried packets since it was last asked, and notes when.
func (c *child) traffic(now time.Time) bool {
	u, err := c.client.e.env.Backend.Usage(ipsec.SAID{Dir: ipsec.In, SPI: c.in, Mark: c.client.mark})
	if err != nil || u.Packets <= c.packets {
		return false
	}
	c.packets = u.Packets
	if c.heard = u.LastUsed; c.heard.IsZero() || c.heard.After(now) {
		c.heard = now
	}
	return true
}

// confirm takes the peer's message 3: it has the keys. The first pair sends at once; a successor waits until the peer
// uses it, for some peers install a moment after they have sent message 3.
func (c *child) confirm(now time.Time) {
	if c.state != childLarval {
		return
	}
	c.state, c.confirmed = childConfirmed, now
	for _, o := range c.client.children {
		if o.state == childActive && !o.outGone {
			return
		}
	}
	c.activate(now)
}

// activate installs the outbound SA, which takes over from older ones.
func (c *child) activate(now time.Time) {
	cl, e := c.client, c.client.e
	if c.state == childActive {
		return
	}
	err := e.env.Backend.Install(c.sa(ipsec.Out))
	c.keysOut = ipsec.Keys{}
	if err != nil {
		e.drops[DropBackend]++
		e.log.Error("data plane refuses the outbound SA", "mark", cl.mark, "suite", c.choice.suite, "error", err)
		c.sayDelete(now)
		c.remove(now, "data plane refuses the outbound SA")
		return
	}
	c.state = childActive
	e.timers.stop(&c.poll)
	for _, o := range cl.children {
		if o != c && o.state == childActive && !o.outGone && o.poll.pos == 0 {
			e.timers.set(&o.poll, now.Add(retirement))
		}
	}
	sa := c.sa(ipsec.Out)
	e.log.Info("SA pair installed", "mark", cl.mark, "remote", cl.path.Remote, "suite", c.choice.suite, "spi-in", c.in, "spi-out", c.out,
		"udp", sa.Encap != ipsec.Encap{}, "pfs", pfsName(c.choice.group), "esn", c.choice.esn, "lifetime", c.choice.lifetime)
	if !cl.up {
		cl.up = true
		if f := e.env.PeerUp; f != nil {
			info := cl.info(c)
			e.later(func() { f(info) })
		}
	}
}

func pfsName(g Group) string {
	if g == 0 {
		return "none"
	}
	return g.String()
}

// remove takes both SAs out of the Backend. With a client's last pair the client is down.
func (c *child) remove(now time.Time, reason string) {
	cl, e := c.client, c.client.e
	if e.children[c.in] != c {
		return
	}
	delete(e.children, c.in)
	cl.children = slices.DeleteFunc(cl.children, func(x *child) bool { return x == c })
	e.timers.stop(&c.poll)
	e.timers.stop(&c.hard)
	e.timers.stop(&c.renew)
	if c.quick != nil {
		c.quick.close()
	}
	e.remove(ipsec.SAID{Dir: ipsec.In, SPI: c.in, Mark: cl.mark})
	if c.state == childActive && !c.outGone {
		e.remove(ipsec.SAID{Dir: ipsec.Out, SPI: c.out, Mark: cl.mark})
	}
	cl.succeed(now)
	e.log.Debug("SA pair removed", "mark", cl.mark, "spi-in", c.in, "spi-out", c.out, "reason", reason)
	if len(cl.children) == 0 {
		cl.pace(now)
	}
	cl.settle(reason)
}

// succeed lets a confirmed pair send at once when no other does any more.
func (cl *client) succeed(now time.Time) {
	var next *child
	for _, c := range cl.children {
		switch {
		case c.state == childActive && !c.outGone:
			return
		case c.state == childConfirmed:
			next = c
		}
	}
	if next != nil {
		next.activate(now)
	}
}

func (e *Engine) remove(id ipsec.SAID) {
	if err := e.env.Backend.Remove(id); err != nil {
		e.log.Error("data plane does not remove an SA", "sa", id, "error", err)
	}
}

// expired ends a pair whose initiator has neither replaced nor deleted it.
func (c *child) expired(now time.Time) {
	c.sayDelete(now)
	c.remove(now, "lifetime over")
}

// sayDelete tells the peer that our inbound SA is gone (RFC 2408 section 3.15).
func (c *child) sayDelete(now time.Time) {
	if sa := c.client.newest(); sa != nil {
		d := isakmp.Delete{DOI: isakmp.DOIIPsec, Protocol: isakmp.ProtoESP, SPIs: [][]byte{be32(uint32(c.in))}}
		sa.inform(isakmp.Payload{Type: isakmp.PayloadDelete, Body: d.Append(nil)})
	}
}

var errQuickForm = errors.New("ikev1: quick mode message lacks a payload, or has one too often")
