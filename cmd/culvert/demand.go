package main

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"culvert/ppp/netif"
)

// demand is what a client with dial-on-demand has besides: its interface exists from the beginning, with an address that
// stands for the one to come, and the first packet that is sent through it starts the call. What is sent until the call
// has succeeded is held, and goes through the tunnel then.
type demand struct {
	standby standby
	gateway netip.Addr // the placeholder of the other end
	traffic bool       // a packet waits
	idle    bool       // hung up because none came for the profile's idle-timeout
	known   struct {   // where the server is, found out before the default route led through the tunnel
		local, remote netip.Addr
	}
	unpin func() error // takes back the route that keeps the tunnel out of itself
	asked atomic.Bool  // a packet has been told of
	leave bool         // what outlasts no call is being taken back
}

var (
	// placeholder is our end of a link that waits, and the first of the other ends; RouterOS takes them from the same
	// network.
	placeholder  = netip.AddrFrom4([4]byte{10, 112, 112, 1})
	firstGateway = standIn
	everything   = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
)

// armed says that the interface is there.
func (dl *dialer) armed() bool { return dl.standby != nil }

// arm sets the interface up to wait for a packet. With the default route through it, the server is looked up before.
func (dl *dialer) arm(now time.Time) {
	dl.redial.begun(now)
	dl.stage, dl.by, dl.idle, dl.traffic = dialArming, time.Time{}, false, false
	attempt, cfg, d := dl.attempt+1, dl.cfg, dl.d
	if !dl.gateway.IsValid() {
		dl.gateway = d.freeGateway()
	}
	gateway, made, pinned, wanted := dl.gateway, dl.standby, dl.unpin, dl.routes()
	var local, remote netip.Addr
	ctx := dl.lookUp()
	dl.lane.do(func() (err error) {
		if made == nil {
			if made, err = d.openStandby(cfg.Name, func() { dl.packet() }); err != nil {
				return err
			}
		}
		var routes []netif.Route
		if cfg.AddDefaultRoute && pinned == nil {
			if err = made.Interface().SetRoutes(nil); err != nil {
				return err
			}
			if local, remote, err = resolve(ctx, cfg, attempt); err != nil {
				return err
			}
			if cfg.VRF == "" {
				if pinned, err = d.netif.Pin(remote); err != nil {
					return err
				}
			}
		}
		for _, r := range wanted {
			if !r.Gateway.IsValid() { // one that is named may be on no link yet
				routes = append(routes, netif.Route{Dst: r.Dst, Metric: r.Metric})
			}
		}
		iface := made.Interface()
		if err = iface.DisableIPv6(); err != nil {
			return err
		}
		if err = iface.SetUp(placeholder, gateway, cfg.MTU); err != nil {
			return err
		}
		return iface.SetRoutes(routes)
	}, func(now time.Time, err error) {
		dl.standby, dl.unpin = made, pinned
		if remote.IsValid() {
			dl.known.local, dl.known.remote = local, remote
		}
		switch {
		case dl.stage != dialArming:
		case err != nil:
			dl.end(now, err.Error())
		default:
			dl.stage = dialArmed
			dl.log.Debug("waiting for packets", "gateway", gateway)
			if dl.traffic {
				dl.begin(now)
			}
		}
	})
}

// packet is told of each packet that is held, by whoever read it.
func (dl *dialer) packet() {
	if dl.asked.CompareAndSwap(false, true) && !dl.d.loop.offer(dl.wanted) {
		dl.asked.Store(false) // the next one tells
	}
}

// wanted starts the call, unless it is under way.
func (dl *dialer) wanted(now time.Time) {
	dl.asked.Store(false)
	dl.traffic = true
	if dl.stage == dialArmed {
		dl.log.Info("dialing on demand")
		dl.begin(now)
	}
}

// disarm takes back, after a call, what must not outlast it, and says whether that is all done. The interface stays
// where calls go on being made on demand. Where the default route leads through it the name of the server is looked up
// anew for the next one, outside of the tunnel.
func (dl *dialer) disarm(now time.Time) (done bool) {
	switch {
	case dl.leave:
		return false
	case dl.standby == nil && dl.unpin == nil:
		return true
	}
	keep := dl.want != nil && dl.want.Name == dl.cfg.Name && dl.want.DialOnDemand && dl.d.stopping.stage == running
	if keep && dl.idle {
		return true // everything is where it was
	}
	s, unpin := dl.standby, dl.unpin
	dl.known.local, dl.known.remote, dl.unpin = netip.Addr{}, netip.Addr{}, nil
	if s != nil && !dl.traffic {
		s.Forget()
	}
	if !keep {
		dl.standby = nil
	}
	dl.by, dl.leave = time.Time{}, true
	dl.lane.do(func() (err error) {
		switch {
		case s == nil:
		case keep:
			err = s.Interface().SetRoutes(nil)
		default:
			err = errors.Join(s.Interface().Down(), s.Close())
		}
		if unpin != nil {
			if uerr := unpin(); err == nil {
				err = uerr
			}
		}
		return err
	}, func(now time.Time, err error) {
		if err != nil {
			dl.log.Warn("the interface that waited for packets is not taken down", "error", err)
		}
		dl.leave = false
		dl.again(now)
	})
	return false
}

// freeGateway is a placeholder that no other client uses.
func (d *daemon) freeGateway() netip.Addr {
	for a := firstGateway; ; a = a.Next() {
		used := false
		for _, dl := range d.dialers {
			used = used || dl.gateway == a
		}
		if !used {
			return a
		}
	}
}
