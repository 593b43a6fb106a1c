package main

import (
	"time"

	"culvert/ppp"
)

// stopping walks through the goodbyes from the top down: PPP terminates, then L2TP, then the SAs go. Each layer gets a
// moment to be answered, so that no client is left waiting for a timeout of its own.
type stopping struct {
	stage    stage
	deadline time.Time // of the stage
}

type stage uint8

const (
	running stage = iota
	closingLinks
	closingTunnels
	closed
)

const (
	linkGoodbye   = 2 * time.Second
	tunnelGoodbye = 3 * time.Second
)

// stop begins the goodbyes.
func (d *daemon) stop(now time.Time) {
	if d.stopping.stage != running {
		return
	}
	d.logger("system").Info("stopping", "sessions", len(d.sessions))
	d.stopping = stopping{closingLinks, now.Add(linkGoodbye)}
	for _, dl := range d.dialers {
		dl.want = nil
		dl.end(now, "shutting down")
	}
	for _, s := range d.sessions {
		if !s.closed {
			s.link.Close(now, ppp.Cause{Code: ppp.CauseAdmin, Text: "shutting down"})
		}
	}
}

// stopped moves the goodbyes on, and says when the last one is done. The loop asks after every turn.
func (d *daemon) stopped(now time.Time) bool {
	st := &d.stopping
	switch late := !now.Before(st.deadline); st.stage {
	case closingLinks:
		if !late && len(d.sessions) > 0 {
			return false
		}
		*st = stopping{closingTunnels, now.Add(tunnelGoodbye)}
		d.l2tp.Close(now)
	case closingTunnels:
		if !late && (len(d.sessions) > 0 || len(d.dialers) > 0 || !d.l2tp.Drained()) {
			return false
		}
		st.stage = closed
		if d.ike != nil {
			d.ike.Close(now)
		}
		return true
	}
	return false
}

// Deadline and Tick make the daemon a core, so that a stage's end wakes the loop.
func (d *daemon) Deadline() time.Time {
	if d.stopping.stage == closingLinks || d.stopping.stage == closingTunnels {
		return d.stopping.deadline
	}
	return time.Time{}
}

// Tick has nothing to do: stopped is asked after it.
func (d *daemon) Tick(time.Time) {}

// release gives back what open took, as far as it came. The engines have said goodbye by now.
func (d *daemon) release() {
	for _, s := range d.sessions {
		s.channel.Close()
	}
	if d.l2tp != nil {
		d.plane.Close()
	}
	d.socks.close()
	d.closeIPsec()
	d.closeFirewall()
	if d.netif != nil {
		d.netif.Close()
	}
}

// closeIPsec gives back what openIPsec took.
func (d *daemon) closeIPsec() {
	if d.esp != nil {
		if err := d.esp.Close(); err != nil {
			d.logger("ipsec").Warn("SAs or policies left in the kernel", "error", err)
		}
		d.esp, d.xfrm = nil, nil
	}
	d.closePortmap() // after the SAs that it serves
	d.closeVRFs()
	if d.natt != nil {
		d.natt.Close()
		d.natt = nil
	}
}
