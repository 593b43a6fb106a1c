package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"culvert/cmd/culvert/internal/config"
	"culvert/l2tp"
	"culvert/ppp"
	"culvert/ppp/aaa"
	"culvert/ppp/netif"
)

// session is one user's link: the PPP automata, the L2TP session under them, and what carries both. Its
// fields belong to the loop; the kernel's slow work goes through the lane.
type session struct {
	d       *daemon
	number  uint32 // ours, unique for the life of the daemon
	l2tp    l2tp.SessionInfo
	log     *slog.Logger
	link    *ppp.Link
	channel pppChannel
	unit    pppUnit
	lane    lane
	grant   *aaa.Grant
	since   time.Time // when the link came up
	up      bool
	closed  bool     // PPP has ended: nothing goes to the channel any more
	gone    []func() // to call when nothing of it is left

	dialer *dialer      // whose call it is; nil if the peer called us
	ppp    ppp.Config   // what the link negotiates towards
	unpin  func() error // takes back the route that keeps the tunnel out of itself
	dnsSet bool         // the server's name servers are in use
}

type sessionKey struct {
	tunnel  l2tp.TunnelID
	session l2tp.SessionID
}

// sessionUp starts PPP on an L2TP session whose data path the kernel has just opened.
func (d *daemon) sessionUp(info l2tp.SessionInfo) {
	now := time.Now()
	d.lastSession++
	s := &session{d: d, number: d.lastSession, l2tp: info, lane: lane{l: d.loop}}
	s.log = d.logger("ppp").With("remote", info.Tunnel.Peer.Remote, "session", info.Local)
	var auth aaa.Authenticator = d.users
	s.ppp = d.cfg.Server.PPP
	if info.Dialed {
		if s.dialer = d.dialerOn(info.Tunnel.Local); s.dialer == nil {
			d.l2tp.CloseSession(now, info.Tunnel.Local, info.Local, l2tp.Cause{Reason: l2tp.ReasonAdmin})
			return
		}
		s.ppp, auth = s.dialer.ppp(), nil
	}
	if auth != nil {
		auth = watched{auth, d.bans, info.Tunnel.Peer.Remote.Addr()}
	}
	if user := d.keyHolder(info.Tunnel.Peer.Via); user != "" && auth != nil {
		auth = keyBound{auth, user}
	}
	s.ppp = d.fit(s.ppp, info)
	var err error
	if s.channel, err = d.attach(info.Tunnel.Local, info.Local); err != nil {
		s.log.Error("no PPP channel on the L2TP session", "error", err)
		d.l2tp.CloseSession(now, info.Tunnel.Local, info.Local, l2tp.Cause{Reason: l2tp.ReasonResources})
		return
	}
	env := ppp.Env{
		Send:     s.send,
		Auth:     auth,
		Rand:     d.rand,
		Log:      s.log,
		OpenUnit: s.openUnit,
		IPUp:     s.ipUp,
		IPDown:   s.ipDown,
		IPv6Up:   s.ipv6Up,
		Up:       s.linkUp,
		Down:     s.linkDown,
		Traffic:  s.traffic,
	}
	if s.dialer != nil && s.dialer.mark != 0 { // clients mend their IPsec themselves
		env.Silent = s.silent
	}
	s.link = ppp.New(s.ppp, s.caller(), env)
	d.sessions[s.key()] = s
	if s.dialer != nil {
		s.dialer.attach(s)
	}
	d.loop.add(s.link)
	go s.serve()
	s.link.Start(now)
}

// serve hands on what PPP receives until the channel is closed, or ends by itself.
func (s *session) serve() {
	err := s.channel.Serve(func(frame []byte) {
		frame = append([]byte(nil), frame...)
		s.d.loop.offer(func(now time.Time) {
			if !s.closed {
				s.link.Receive(now, frame)
			}
		})
	})
	if err == nil {
		return
	}
	s.d.loop.post(func(now time.Time) {
		switch {
		case s.closed:
		case errors.Is(err, netif.ErrGone): // somebody has taken the interface away, and the peer can still be told
			s.link.Close(now, ppp.Cause{Code: ppp.CauseInterface, Text: err.Error()})
		default:
			s.link.Lost(now, ppp.Cause{Code: ppp.CauseNoCarrier, Text: err.Error()})
		}
	})
}

// sessionDown ends PPP because the L2TP session ended. The kernel's end of the session is closed when this returns.
func (d *daemon) sessionDown(info l2tp.SessionInfo, cause l2tp.Cause) {
	if s := d.sessions[sessionKey{info.Tunnel.Local, info.Local}]; s != nil && !s.closed {
		s.link.Lost(time.Now(), ppp.Cause{Code: ppp.CauseNoCarrier, Text: cause.String()})
	}
}

func (s *session) key() sessionKey { return sessionKey{s.l2tp.Tunnel.Local, s.l2tp.Local} }

// caller is what the secrets' caller-id is compared with.
func (s *session) caller() ppp.Caller {
	c := ppp.Caller{CallerID: s.l2tp.Tunnel.Peer.Remote.Addr().String(), Service: "l2tp", NASPort: uint32(s.l2tp.Local)}
	if s.d.cfg.Server.CallerIDType == config.CallerIDNumber {
		c.CallerID = s.l2tp.Calling
	}
	return c
}

func (s *session) send(frame []byte) {
	if err := s.channel.Send(frame); err != nil && !s.closed {
		s.log.Debug("PPP frame not sent", "error", err)
	}
}

// silent gives a call's IPsec the chance to mend itself before the link is given up.
func (s *session) silent() { s.d.ike.Renew(time.Now(), s.dialer.mark) }

// openUnit makes the network interface of an authenticated user.
func (s *session) openUnit(g *aaa.Grant, done func(now time.Time, err error)) {
	if s.dialer != nil {
		s.dialer.grant(g)
	}
	s.grant = g
	mru, standby := s.ppp.MRU, s.standby()
	var unit pppUnit
	s.lane.do(func() (err error) {
		unit, err = s.channel.openUnit(g.Interface, mru, g.UseIPv6, s.d.netif, standby)
		return err
	}, func(now time.Time, err error) {
		if err == nil {
			s.unit = unit
		}
		done(now, err)
	})
}

// ipUp gives the interface its addresses and the user's routes.
func (s *session) ipUp(n ppp.Network, done func(now time.Time, err error)) {
	var routes []netif.Route
	for _, r := range s.grant.Routes {
		routes = append(routes, netif.Route{Dst: r.Dst, Gateway: r.Gateway, Metric: r.Metric})
	}
	iface, standby := s.unit.Interface(), s.standby()
	outside := s.l2tp.Tunnel.Peer.Remote.Addr()
	if s.dialer != nil && (!n.Remote.IsValid() || n.Remote == outside) {
		n.Remote = standIn // servers out there give none, or the one that the tunnel itself has to reach
	}
	s.lane.do(func() error {
		if err := s.pin(outside); err != nil {
			return err
		}
		if err := iface.SetUp(n.Local, n.Remote, n.MTU); err != nil {
			return err
		}
		// A route that cannot be added is the operator's to mend; it does not cost the user the link.
		if err := iface.SetRoutes(routes); err != nil {
			s.log.Warn("a route of the user's secret could not be added", "user", s.grant.User, "error", err)
		}
		s.reach(iface, n)
		if standby != nil {
			time.Sleep(carryDelay)
			return standby.Carry(placeholder, n.Local)
		}
		return nil
	}, done)
}

// standIn is the other end of the link where the server names none that can be used.
var standIn = netip.AddrFrom4([4]byte{10, 112, 112, 112})

// pin keeps the way to the server as it is, before a default route through the tunnel would send the tunnel into itself.
func (s *session) pin(server netip.Addr) (err error) {
	if s.dialer != nil && s.dialer.cfg.AddDefaultRoute && s.dialer.cfg.VRF == "" && s.unpin == nil {
		s.unpin, err = s.d.netif.Pin(server)
	}
	return err
}

// carryDelay lets the server, which has agreed a moment ago, set up its own end before the packets that were held come in
// at once.
const carryDelay = 200 * time.Millisecond

// standby is the interface that a call on demand uses.
func (s *session) standby() standby {
	if s.dialer == nil {
		return nil
	}
	return s.dialer.standby
}

func (s *session) ipDown() {
	iface, standby := s.unit.Interface(), s.standby()
	s.lane.do(func() error {
		var err error
		if standby == nil { // which goes on without the link
			err = iface.Down()
		}
		if s.unpin != nil {
			err = errors.Join(err, s.unpin())
			s.unpin = nil
		}
		return err
	}, func(_ time.Time, err error) {
		if err != nil {
			s.log.Warn("interface not taken down", "error", err)
		}
	})
}

// ipv6Up gives the interface the link-local addresses that IPV6CP agreed on.
func (s *session) ipv6Up(local, remote ppp.InterfaceID) {
	iface := s.unit.Interface()
	s.lane.do(func() error {
		// A server's router advertisements count where its default route is wanted.
		return iface.EnableIPv6(linkLocal(local), linkLocal(remote), s.dialer != nil && s.dialer.cfg.AddDefaultRoute)
	}, func(_ time.Time, err error) {
		if err != nil {
			s.log.Warn("no IPv6 on the link", "error", err)
		}
	})
}

// linkLocal is fe80::/64 with an interface identifier (RFC 5072 section 5).
func linkLocal(id ppp.InterfaceID) netip.Addr {
	a := [16]byte{0: 0xfe, 1: 0x80}
	copy(a[8:], id[:])
	return netip.AddrFrom16(a)
}

func (s *session) linkUp(info ppp.Info) {
	s.up, s.since = true, time.Now()
	if s.dialer != nil {
		s.dialer.connected(s.since, info)
		s.useDNS(info.Network.DNS)
	}
	s.script(info.Grant.OnUp, info.Network)
}

// linkDown takes everything of the link's away. Its address is free again only when its interface is gone.
func (s *session) linkDown(cause ppp.Cause) {
	now := time.Now()
	s.closed = true
	if s.dialer != nil {
		s.dialer.disconnected(now, cause)
	}
	s.d.loop.remove(s.link)
	s.d.l2tp.CloseSession(now, s.l2tp.Tunnel.Local, s.l2tp.Local, causeFor(cause))
	if s.up {
		snap := s.link.Snapshot(now)
		s.dropDNS()
		if s.dialer == nil {
			s.d.bans.welcomed(now, s.l2tp.Tunnel.Peer.Remote.Addr())
		}
		s.script(s.grant.OnDown, ppp.Network{Local: snap.Local, Remote: snap.Remote, MTU: snap.MTU})
	}
	s.lane.do(s.channel.Close, func(_ time.Time, err error) {
		if err != nil {
			s.log.Warn("PPP channel not closed", "error", err)
		}
		if s.grant != nil {
			s.grant.Release()
		}
		delete(s.d.sessions, s.key())
		for _, f := range s.gone {
			f()
		}
	})
}

// traffic tells when the last packet went by, so that a busy link is not asked whether it lives. It is one ioctl: the
// loop may not wait for the kernel's RTNL lock, which the byte counters need.
func (s *session) traffic() ppp.Traffic {
	t := ppp.Traffic{RxIdle: -1, TxIdle: -1}
	if s.up {
		if tx, rx, err := s.unit.Idle(); err == nil {
			t.RxIdle, t.TxIdle = rx, tx
		}
	}
	return t
}

// causeFor is what the L2TP peer is told (RFC 2661 section 4.4.2) when PPP ended for a reason of its own.
func causeFor(c ppp.Cause) l2tp.Cause {
	switch c.Code {
	case ppp.CauseAdmin:
		return l2tp.Cause{Reason: l2tp.ReasonAdmin, Text: c.Text}
	case ppp.CauseInterface, ppp.CauseNoAddress, ppp.CauseInternal:
		return l2tp.Cause{Reason: l2tp.ReasonResources, Text: c.Code.String()}
	}
	return l2tp.Cause{Reason: l2tp.ReasonLink, Text: c.Code.String()}
}

// scriptTime is how long a script of a profile may run.
const scriptTime = 30 * time.Second

// script runs a profile's on-up or on-down in the session's lane, so that up always ends before down begins.
func (s *session) script(path string, n ppp.Network) {
	if path == "" {
		return
	}
	var dns []string // that the server we called has told
	for _, a := range n.DNS {
		dns = append(dns, a.String())
	}
	env := []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin",
		"INTERFACE=" + s.unit.Name(),
		"USER=" + s.grant.User,
		"LOCAL_ADDRESS=" + addrText(n.Local),
		"REMOTE_ADDRESS=" + addrText(n.Remote),
		"MTU=" + strconv.Itoa(n.MTU),
		"DNS_SERVERS=" + strings.Join(dns, " "),
		"CALLER_ID=" + s.caller().CallerID,
		"REMOTE_ENDPOINT=" + s.l2tp.Tunnel.Peer.Remote.String(),
	}
	s.lane.do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, path)
		cmd.Env = env
		return cmd.Run()
	}, func(_ time.Time, err error) {
		if err != nil {
			s.d.logger("script").Warn("script failed", "script", path, "user", s.grant.User, "error", err)
		}
	})
}

// addrText is an address for a script; one that there is none of is empty.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
