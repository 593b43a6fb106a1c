package main

import (
	"net/netip"
	"sync/atomic"
	"time"

	"culvert/ppp"
	"culvert/ppp/netif"
)

// watcher tells the clients when something outside has changed that may have been in their way, or has pulled it from
// under them: a link that came up again, another address, another default route.
type watcher struct {
	d       *daemon
	stop    func()
	pending atomic.Bool
}

// settleTime is how long to let changes come to rest: a DHCP client makes several.
const settleTime = 300 * time.Millisecond

// watch begins or ends it, as there are clients or not.
func (d *daemon) watch() {
	switch {
	case len(d.dialers) == 0 && d.watcher != nil:
		d.watcher.stop()
		d.watcher = nil
	case len(d.dialers) > 0 && d.watcher == nil && d.netif != nil:
		w := &watcher{d: d}
		stop, err := d.netif.Watch(w.changed)
		if err != nil {
			d.logger("system").Warn("changes of the network will not be noticed at once", "error", err)
			return
		}
		w.stop, d.watcher = stop, w
	}
}

// changed runs on the watcher's goroutine.
func (w *watcher) changed() {
	if !w.pending.CompareAndSwap(false, true) {
		return
	}
	time.AfterFunc(settleTime, func() {
		w.pending.Store(false)
		w.d.loop.offer(func(now time.Time) {
			for _, dl := range w.d.dialers {
				dl.look(dl.weigh)
			}
		})
	})
}

// look finds out which way the server is, or, where its address is not known, which way any would be.
func (dl *dialer) look(then func(now time.Time, w netif.Way)) {
	dst, vrf := dl.server, dl.cfg.VRF
	if !dst.IsValid() {
		dst = anywhere
	}
	var w netif.Way
	dl.looks.do(func() (err error) {
		w, err = dl.d.netif.Way(dst, vrf)
		return err
	}, func(now time.Time, err error) {
		if err == nil && dl.d.dialers[dl.cfg.Name] == dl {
			then(now, w)
		}
	})
}

// anywhere is an address of which only the way to it is of interest.
var anywhere = netip.AddrFrom4([4]byte{192, 0, 0, 8})

// remember notes the way that an attempt went.
func (dl *dialer) remember(_ time.Time, w netif.Way) { dl.way = w }

// weigh draws the conclusion from the way to the server as it is now.
func (dl *dialer) weigh(now time.Time, w netif.Way) {
	changed := w != dl.way
	dl.way = w
	reachable := w.Index != 0 && w.Running
	own := dl.session != nil && dl.session.unit != nil && w.Index == dl.session.unit.Interface().Index() ||
		dl.standby != nil && w.Index == dl.standby.Interface().Index()
	src := !dl.cfg.SrcAddress.IsValid() && dl.local.IsValid() && w.Source.IsValid() && w.Source != dl.local.Addr()
	lose := func(why string) {
		dl.hasty = true
		if s := dl.session; s != nil && !s.closed {
			// The server cannot be told: what it would be told by is gone.
			s.link.Lost(now, ppp.Cause{Code: ppp.CauseNoCarrier, Text: why})
			return
		}
		dl.end(now, why)
	}
	switch dl.stage {
	case dialWaiting:
		if changed && reachable && !own && !dl.refused {
			dl.redial.hurry(now)
		}
	case dialResolving, dialSecuring, dialCalling:
		if changed && reachable && !own {
			lose("the way to the server has changed")
		}
	case dialArmed:
		if changed && dl.unpin != nil {
			lose("the way to the server has changed")
		}
	case dialLink:
		switch {
		case own:
			lose("the way to the server is gone")
		case src:
			lose("our address has changed: " + dl.local.Addr().String() + " is not the one to the server any more")
		}
	}
}
