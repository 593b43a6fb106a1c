package main

import (
	"net/netip"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/l2tp"
)

// client joins an IKE client and the L2TP tunnels inside its SAs. An SA without a tunnel, and a tunnel without its SA,
// do not last: RFC 3193 section 4.1 wants either to go with the other.
type client struct {
	info ikev1.ClientInfo
	// idle is when the last tunnel went, or the SA came without one; zero while there is a tunnel.
	idle time.Time
	// lived says that there was a tunnel.
	lived bool
}

// An SA without a tunnel is kept this long: a client that dials again at once finds it, and one that died leaves nothing.
const (
	lingerAfterTunnel = 20 * time.Second
	lingerBefore      = 2 * time.Minute
)

// clientUp: an IKE client has its first pair of SAs.
func (d *daemon) clientUp(info ikev1.ClientInfo) {
	c := d.clients[info.Mark]
	if c == nil {
		c = &client{idle: time.Now().Add(lingerBefore - lingerAfterTunnel)}
		d.clients[info.Mark] = c
	}
	c.info = info
	d.hold(info.Mark, info.Remote.Addr())
	d.measureCrypto(info.Suite)
	if dl := d.dialerOf(info.Mark); dl != nil {
		dl.secured(time.Now(), info)
	}
}

// dialFailed: a server that we called cannot be agreed with. clientDown comes next.
func (d *daemon) dialFailed(m ipsec.Mark, err *ikev1.DialError) {
	if dl := d.dialerOf(m); dl != nil {
		dl.problem, dl.refused = err.Reason, err.Cause != ikev1.DialNoAnswer && err.Cause != ikev1.DialSilence
	}
}

// clientDown: its last SA is gone, and with it everything that lived in there.
func (d *daemon) clientDown(m ipsec.Mark, reason string) {
	delete(d.clients, m)
	dl := d.dialerOf(m)
	if dl != nil {
		dl.unsecured(time.Now(), reason)
	}
	d.l2tp.CloseVia(time.Now(), l2tp.Via(m), l2tp.Cause{Reason: l2tp.ReasonVia, Text: reason})
	if dl == nil { // its own is held until it has hung up
		d.unhold(m)
	}
}

// hold keeps what a client's sessions still send when its SAs go from leaving in the clear, where the server lets others do
// that; the kernel's sessions end a moment after them.
func (d *daemon) hold(m ipsec.Mark, remote netip.Addr) {
	if protection(d.cfg) == l2tp.ProtectionRequired || d.dialerOf(m) != nil {
		return
	}
	if err := d.esp.Hold(m, remote); err != nil {
		d.logger("ipsec").Warn("what a client's sessions send is not held back when its SAs go", "mark", m, "error", err)
	}
}

func (d *daemon) unhold(m ipsec.Mark) {
	if err := d.esp.Unhold(m); err != nil {
		d.logger("ipsec").Warn("the mark stays held back", "mark", m, "error", err)
	}
}

// tunnelReleased: nothing more will go through this tunnel, its last acknowledgement included.
func (d *daemon) tunnelReleased(info l2tp.TunnelInfo) {
	if dl := d.dialerOn(info.Local); dl != nil {
		dl.released(time.Now())
	}
	via := info.Peer.Via
	if c := d.clients[ipsec.Mark(via)]; c != nil && !d.l2tp.ViaInUse(via) {
		c.idle, c.lived = time.Now(), true
	}
}

// tunnelDown: a tunnel has ended, or one that we asked for has not come up.
func (d *daemon) tunnelDown(info l2tp.TunnelInfo, cause l2tp.Cause) {
	if dl := d.dialerOn(info.Local); dl != nil {
		dl.tunnelDown(time.Now(), cause)
	}
	if cause.Reason == l2tp.ReasonTimeout && info.Peer.Via != 0 {
		d.engineWatch.suspect(time.Now(), "a tunnel in an SA went silent")
	}
}

// reaper is the core that lets go of SAs which carry nothing.
type reaper struct{ d *daemon }

// Deadline is when the first idle client's time is up.
func (r reaper) Deadline() (next time.Time) {
	for m, c := range r.d.clients {
		if c.idle.IsZero() || r.d.l2tp.ViaInUse(l2tp.Via(m)) {
			continue
		}
		if at := c.idle.Add(lingerAfterTunnel); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

// Tick deletes the SAs of clients that have had no tunnel for their time.
func (r reaper) Tick(now time.Time) {
	for m, c := range r.d.clients {
		if !c.idle.IsZero() && now.Sub(c.idle) >= lingerAfterTunnel && !r.d.l2tp.ViaInUse(l2tp.Via(m)) {
			c.idle = time.Time{} // said once
			if !c.lived {
				r.d.engineWatch.suspect(now, "nothing came out of a client's SA")
			}
			r.d.ike.ClosePeer(now, m, "no L2TP tunnel inside")
		}
	}
}

// backendEvent passes on what the kernel reports of the SAs. When a NAT gave a client another address, its tunnels
// follow.
func (d *daemon) backendEvent(now time.Time, ev ipsec.Event) {
	d.ike.Event(now, ev)
	if ev.Kind == ipsec.EventMapping {
		if c := d.clients[ev.ID.Mark]; c != nil {
			c.info.Remote = ev.Remote
			d.hold(ev.ID.Mark, ev.Remote.Addr())
		}
		if dl := d.dialerOf(ev.ID.Mark); dl != nil {
			dl.moved(ev.Remote.Addr())
		}
		d.l2tp.Move(now, l2tp.Via(ev.ID.Mark), ev.Remote.Addr())
	}
}
