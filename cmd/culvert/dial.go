package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"time"

	"culvert/cmd/culvert/internal/config"
	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/l2tp"
	"culvert/l2tp/sock"
	"culvert/ppp"
	"culvert/ppp/aaa"
	"culvert/ppp/netif"
)

// dialer keeps one `[l2tp.client.NAME]` connected: the server's name becomes an address, IKE makes the SAs, L2TP calls
// inside them, PPP logs in; and when any of that fails or ends, everything is taken down in order and done again. Its
// methods run on the loop. Events only note what happened: what follows from it is done by Tick, outside of the engine
// that told it.
type dialer struct {
	d    *daemon
	cfg  config.Client  // of the attempt under way
	want *config.Client // by the configuration in force; nil: not to be dialled any more
	log  *slog.Logger
	lane lane

	redial  redial
	stage   dialStage
	by      time.Time // when the stage has to be looked at
	attempt int       // counts them: a late answer to an earlier one is dropped

	remote  netip.Addr
	local   netip.AddrPort
	socket  *sock.Socket // of this dialer's own, where it does not call from port 1701
	mark    ipsec.Mark   // that IKE has given, until it is down
	held    ipsec.Mark   // that the kernel holds back in the clear
	tunnel  l2tp.TunnelID
	hungUp  bool      // the tunnel has been told, or told us
	giveUp  time.Time // when its last acknowledgement is waited for no longer
	session *session  // until nothing of it is left

	demand // with dial-on-demand

	server netip.Addr // where it was last
	way    netif.Way  // to it
	looks  lane       // not to wait for a name server
	forget func()     // ends the look-up of the server's name, which would keep the next one waiting
	hasty  bool       // the end had a cause of our own that is over: no reason to wait

	offered ipsec.Suite // first, where no proposal is configured

	problem string // that IKE told before it ended the call
	refused bool   // the server has answered, and will not have us
	reason  string // why the last attempt or connection ended
}

type dialStage uint8

const (
	dialWaiting   dialStage = iota // for the next attempt
	dialArming                     // the interface that waits for a packet is being set up
	dialArmed                      // waiting for a packet
	dialResolving                  // the server's name
	dialSecuring                   // by IKE
	dialCalling                    // by L2TP
	dialLink                       // PPP negotiates, or is up
	dialEnding                     // goodbyes are said
)

const (
	resolveTime = 15 * time.Second
	secureTime  = 3 * time.Minute // IKE has given up by then: this is only to be sure
	callTime    = 2 * time.Minute // likewise L2TP
	hangUpTime  = 2 * time.Second // for the acknowledgement of the tunnel's goodbye
)

// reconcile makes the dialers those of the configuration. One whose settings have changed calls anew.
func (d *daemon) reconcile(now time.Time) {
	want := make(map[string]*config.Client)
	for i := range d.cfg.Clients {
		if c := &d.cfg.Clients[i]; c.Dialled() {
			want[c.Name] = c
		}
	}
	for name, dl := range d.dialers {
		dl.want = want[name]
		switch {
		case dl.want == nil:
			dl.end(now, "removed or disabled")
		case !reflect.DeepEqual(*dl.want, dl.cfg):
			dl.end(now, "its settings have changed")
		}
	}
	d.leaveVRFs()
	for name, c := range want {
		if d.dialers[name] == nil {
			dl := &dialer{d: d, cfg: *c, want: c, log: d.logger("l2tp").With("client", name), lane: lane{l: d.loop}, looks: lane{l: d.loop}}
			dl.redial.at = now
			d.dialers[name] = dl
			d.loop.add(dl)
		}
	}
	d.watch()
}

func (d *daemon) dialerOf(m ipsec.Mark) *dialer {
	for _, dl := range d.dialers {
		if m != 0 && dl.mark == m {
			return dl
		}
	}
	return nil
}

func (d *daemon) dialerOn(t l2tp.TunnelID) *dialer {
	for _, dl := range d.dialers {
		if t != 0 && dl.tunnel == t {
			return dl
		}
	}
	return nil
}

// Deadline is when the stage is over, or the next attempt due.
func (dl *dialer) Deadline() time.Time {
	if dl.stage == dialWaiting {
		return dl.redial.at
	}
	return dl.by
}

// Tick does what has become due.
func (dl *dialer) Tick(now time.Time) {
	switch dl.stage {
	case dialWaiting:
		switch {
		case !dl.redial.due(now):
		case dl.cfg.DialOnDemand && !(dl.armed() && dl.traffic):
			dl.arm(now)
		default:
			dl.begin(now)
		}
	case dialEnding:
		dl.settle(now)
	case dialSecuring, dialCalling:
		dl.end(now, "not connected in time")
	default:
		dl.by = time.Time{}
	}
}

// begin looks the server up, and which of our addresses leads there.
func (dl *dialer) begin(now time.Time) {
	dl.redial.begun(now)
	dl.stage, dl.by, dl.problem, dl.refused, dl.hasty, dl.hungUp, dl.giveUp = dialResolving, time.Time{}, "", false, false, false, time.Time{}
	dl.attempt++
	attempt, cfg := dl.attempt, dl.cfg
	dl.log.Debug("dialing", "server", cfg.ConnectTo)
	if dl.known.remote.IsValid() { // by now the routes lead through the tunnel
		dl.secure(now, dl.known.local, dl.known.remote)
		return
	}
	var local, remote netip.Addr
	ctx := dl.lookUp()
	dl.lane.do(func() (err error) {
		local, remote, err = resolve(ctx, cfg, attempt)
		return err
	}, func(now time.Time, err error) {
		switch {
		case dl.attempt != attempt || dl.stage != dialResolving:
		case err != nil:
			dl.end(now, err.Error())
		default:
			dl.secure(now, local, remote)
		}
	})
}

// lookUp bounds the look-up that is about to begin: it ends with the attempt.
func (dl *dialer) lookUp() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	dl.forget = cancel
	return ctx
}

// resolve finds an address of the server, another one with each attempt, and the one of ours that packets to it leave by.
func resolve(ctx context.Context, cfg config.Client, attempt int) (local, remote netip.Addr, err error) {
	host, src := cfg.ConnectTo, cfg.SrcAddress
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	family := "ip"
	switch {
	case src.Is4():
		family = "ip4"
	case src.IsValid():
		family = "ip6"
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, family, host)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no such name")
	}
	if err != nil {
		return local, remote, fmt.Errorf("connect-to: %s has no address: %w: correct the name, or see that the name server answers", host, err)
	}
	remote = addrs[(attempt-1)%len(addrs)].Unmap()
	var from net.Addr
	if src.IsValid() {
		from = net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
	}
	// Connecting a UDP socket sends nothing: it asks the routing table.
	dialer := net.Dialer{LocalAddr: from}
	if cfg.VRF != "" {
		dialer.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			cerr := raw.Control(func(fd uintptr) { err = intoVRF(int(fd), cfg.VRF) })
			return errors.Join(err, cerr)
		}
	}
	conn, err := dialer.DialContext(ctx, "udp", netip.AddrPortFrom(remote, l2tpPort).String())
	if err != nil {
		return local, remote, fmt.Errorf("no way to the server: %w: see that the address and the route are there", err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), remote, nil
}

// secure calls by IKE; without use-ipsec there is nothing to secure.
func (dl *dialer) secure(now time.Time, local, remote netip.Addr) {
	d := dl.d
	if dl.cfg.UseIPsec && d.ike == nil {
		dl.end(now, "this router has no IPsec: its log says why")
		return
	}
	dl.remote, dl.server = remote, remote
	d.bans.pardon(now, sourceOf(remote)) // its answers have to come through
	dl.look(dl.remember)
	if err := d.enterVRF(dl.cfg.VRF); err != nil {
		dl.end(now, err.Error())
		return
	}
	if err := dl.openSocket(local); err != nil {
		dl.end(now, err.Error())
		return
	}
	d.learnVRFs()
	if !dl.cfg.UseIPsec {
		dl.call(now, 0)
		return
	}
	dl.stage, dl.by = dialSecuring, now.Add(secureTime)
	call := ikev1.Dial{
		Peer:      dl.peer(),
		ID:        dl.cfg.Peer.ID,
		Path:      ipsec.Path{Local: netip.AddrPortFrom(local, ikePort), Remote: netip.AddrPortFrom(remote, ikePort)},
		LocalPort: dl.local.Port(),
	}
	if dl.second() {
		// Under one identity the server would take the second call for the first one begun anew.
		call.ID, call.Peer.SendInitialContact = cmp.Or(call.ID, "keyid:"+dl.cfg.Name), false
	}
	mark, err := d.ike.Dial(now, call)
	if err != nil {
		dl.end(now, err.Error())
		return
	}
	// From here on nothing with this mark leaves but through its SAs, until it is given up.
	dl.mark, dl.held = mark, mark
	if err := d.esp.Hold(mark, remote); err != nil {
		dl.end(now, err.Error())
	}
}

const ikePort = 500

// peer is the server, without the suites that our ESP cannot do.
func (dl *dialer) peer() ikev1.Peer {
	p := dl.cfg.Peer
	if len(p.Proposal.Suites) == 0 {
		var why string
		p.Proposal.Suites, why = dl.d.callOffer()
		if first := p.Proposal.Suites[0]; first != dl.offered {
			dl.offered = first
			dl.log.Info("offered first for ESP", "suite", first, "reason", why)
		}
	}
	if all := p.Proposal.Suites; len(all) > 0 {
		p.Proposal.Suites = slices.DeleteFunc(slices.Clone(all), func(s ipsec.Suite) bool {
			return !slices.ContainsFunc(dl.d.suites, func(k ipsec.Suite) bool { return sameAlgorithms(k, s) })
		})
		if len(p.Proposal.Suites) == 0 {
			dl.log.Error("none of the proposal's algorithms can be done here: load the modules of one, or name others", "proposal", all)
			p.Proposal.Suites = all
		}
	}
	return p
}

// secured: the SAs stand.
func (dl *dialer) secured(now time.Time, info ikev1.ClientInfo) {
	if dl.stage != dialSecuring {
		return
	}
	// The server may have answered from another address, and IKE chosen it.
	if remote := info.Remote.Addr().Unmap(); remote != dl.remote {
		dl.remote = remote
		dl.d.learnVRFs()
		if err := dl.d.esp.Hold(info.Mark, remote); err != nil {
			dl.end(now, err.Error())
			return
		}
	}
	dl.call(now, l2tp.Via(info.Mark))
}

// moved: the server's address has changed, and the SAs followed.
func (dl *dialer) moved(remote netip.Addr) {
	if err := dl.d.esp.Hold(dl.mark, remote); err != nil {
		dl.log.Error("the server's new address is not held back in the clear", "remote", remote, "error", err)
	}
}

// unsecured: IKE has ended the call, or the server has.
func (dl *dialer) unsecured(now time.Time, reason string) {
	dl.mark = 0
	dl.end(now, cmp.Or(dl.problem, "IPsec: "+reason))
}

// second says whether another client calls the same server already, from L2TP's own port.
func (dl *dialer) second() bool {
	for _, other := range dl.d.dialers {
		if other != dl && other.stage > dialResolving && other.remote == dl.remote && other.local == netip.AddrPortFrom(dl.local.Addr(), l2tpPort) {
			return true
		}
	}
	return false
}

// openSocket chooses the port to call from: L2TP's own, which some servers insist on, unless somebody else there needs it.
func (dl *dialer) openSocket(local netip.Addr) (err error) {
	d := dl.d
	dl.local = netip.AddrPortFrom(local, l2tpPort)
	if dl.second() {
		return dl.openOwn(netip.AddrPortFrom(local, 0)) // the kernel tells tunnels apart by their addresses and ports
	}
	if dl.cfg.VRF != "" {
		return dl.openOwn(dl.local)
	}
	if !dl.cfg.UseIPsec && protection(d.cfg) == l2tp.ProtectionRequired && slices.Contains(d.ports(), l2tpPort) {
		return dl.openOwn(netip.AddrPortFrom(local, 0)) // nothing passes 1701 in the clear, by order of the server's settings
	}
	peer := l2tp.Peer{Local: dl.local, Remote: netip.AddrPortFrom(dl.remote, l2tpPort)}
	if s := d.socks.find(peer); s != nil {
		if dl.cfg.UseIPsec && d.blind(s) {
			return errNoMarks
		}
		return nil
	}
	everywhere := netip.IPv4Unspecified()
	if local.Is6() {
		everywhere = netip.IPv6Unspecified()
	}
	if _, err := d.listen(netip.AddrPortFrom(everywhere, l2tpPort), ""); err != nil {
		dl.log.Info("UDP port 1701 is not to be had, calling from another", "error", err)
		return dl.openOwn(netip.AddrPortFrom(local, 0))
	}
	return nil
}

func (dl *dialer) openOwn(local netip.AddrPort) (err error) {
	if dl.socket, err = dl.d.listen(local, dl.cfg.VRF); err != nil {
		return err
	}
	dl.local = dl.socket.LocalAddr()
	return nil
}

// call begins L2TP.
func (dl *dialer) call(now time.Time, via l2tp.Via) {
	id, err := dl.d.l2tp.Dial(now, l2tp.Peer{Local: dl.local, Remote: netip.AddrPortFrom(dl.remote, l2tpPort), Via: via}, l2tp.Dial{Secret: dl.cfg.TunnelSecret})
	if err != nil {
		dl.end(now, err.Error())
		return
	}
	dl.stage, dl.by, dl.tunnel = dialCalling, now.Add(callTime), id
}

// tunnelDown: L2TP did not come up, or has ended. With a session PPP tells why.
func (dl *dialer) tunnelDown(now time.Time, cause l2tp.Cause) {
	dl.hungUp = true
	dl.end(now, dl.explainL2TP(cause))
}

// released: nothing of the tunnel is left to say.
func (dl *dialer) released(now time.Time) {
	dl.tunnel, dl.hungUp = 0, true
	dl.end(now, "the tunnel is gone")
	dl.by = now
}

// attach gives the dialer its link, which is about to start.
func (dl *dialer) attach(s *session) {
	dl.stage, dl.by, dl.session = dialLink, time.Time{}, s
	s.gone = append(s.gone, func() {
		dl.session = nil
		dl.by = time.Now()
	})
}

// ppp is what the link negotiates towards.
func (dl *dialer) ppp() ppp.Config {
	p := dl.profile()
	c := ppp.DefaultConfig()
	c.Name, c.Auth = dl.d.cfg.Server.PPP.Name, nil
	c.User, c.Password, c.Allow = dl.cfg.User, dl.cfg.Password, dl.cfg.Allow
	c.MTU, c.MRU, c.Keepalive = dl.cfg.MTU, dl.cfg.MRU, dl.cfg.Keepalive
	c.PeerDNS = dl.cfg.UsePeerDNS != "no" || p.OnUp != "" // its script is told them
	c.IPv6, c.Encrypt = p.UseIPv6, p.Encrypt
	return c
}

func (dl *dialer) profile() aaa.Profile { return dl.d.cfg.AAA.Profiles[dl.cfg.Profile] }

// grant adds to what the server has let us have what our own settings want.
func (dl *dialer) grant(g *aaa.Grant) {
	p := dl.profile()
	g.Interface, g.Profile, g.OnUp, g.OnDown = dl.cfg.Name, dl.cfg.Profile, p.OnUp, p.OnDown
	g.SessionTimeout, g.IdleTimeout, g.ChangeMSS = p.SessionTimeout, p.IdleTimeout, p.ChangeMSS
	g.Routes = append(g.Routes, dl.routes()...)
}

// routes lead through the tunnel.
func (dl *dialer) routes() []aaa.Route {
	r := slices.Clone(dl.cfg.Routes)
	if dl.cfg.AddDefaultRoute {
		r = append(r, aaa.Route{Dst: everything, Metric: dl.cfg.DefaultRouteDistance})
	}
	return r
}

// connected: the link is up.
func (dl *dialer) connected(now time.Time, info ppp.Info) {
	dl.redial.connected(now)
	dl.traffic = false
	s := dl.session
	dl.log.Info("connected", "server", s.l2tp.Tunnel.Peer.Remote, "user", info.User, "interface", s.unit.Name(),
		"local-address", info.Network.Local, "remote-address", info.Network.Remote, "mtu", info.Network.MTU, "ipsec", dl.mark != 0)
}

// disconnected: the link has ended.
func (dl *dialer) disconnected(now time.Time, cause ppp.Cause) { dl.end(now, dl.explainPPP(cause)) }

// end notes that the attempt or the connection is over, and why. Tick does the rest.
func (dl *dialer) end(now time.Time, reason string) {
	switch dl.stage {
	case dialEnding:
		return
	case dialWaiting:
		dl.redial.begun(now)
	default:
		dl.reason = reason
	}
	dl.stage, dl.by = dialEnding, now
	if dl.forget != nil {
		dl.forget()
		dl.forget = nil
	}
}

// settle takes down what there still is, from the top down: PPP, L2TP, the SAs, the hold on the mark.
func (dl *dialer) settle(now time.Time) {
	d := dl.d
	if dl.session != nil {
		dl.by = time.Time{} // its end calls
		if !dl.session.closed {
			dl.session.link.Close(now, ppp.Cause{Code: ppp.CauseAdmin, Text: dl.reason})
		}
		return
	}
	if dl.tunnel != 0 && !dl.hungUp {
		dl.hungUp = true
		d.l2tp.CloseTunnel(now, dl.tunnel, l2tp.Cause{Reason: l2tp.ReasonAdmin})
	}
	if dl.tunnel != 0 && dl.giveUp.IsZero() {
		dl.giveUp = now.Add(hangUpTime)
	}
	if dl.tunnel != 0 && now.Before(dl.giveUp) {
		dl.by = dl.giveUp
		return
	}
	dl.tunnel = 0
	if dl.mark != 0 {
		d.ike.ClosePeer(now, dl.mark, dl.reason)
		dl.mark = 0
	}
	if dl.held != 0 {
		if err := d.esp.Unhold(dl.held); err != nil {
			dl.log.Warn("the mark stays held back", "mark", dl.held, "error", err)
		}
		dl.held = 0
	}
	if dl.socket != nil {
		d.unlisten(dl.socket)
		dl.socket = nil
	}
	dl.local, dl.remote = netip.AddrPort{}, netip.Addr{}
	d.learnVRFs()
	if dl.disarm(now) {
		dl.again(now)
	}
}

// again arranges what comes after the end.
func (dl *dialer) again(now time.Time) {
	dl.stage, dl.by = dialWaiting, time.Time{}
	switch {
	case dl.want == nil || dl.d.stopping.stage != running:
		dl.log.Info("not dialled any more", "reason", dl.reason)
		dl.d.loop.remove(dl)
		delete(dl.d.dialers, dl.cfg.Name)
		dl.d.leaveVRFs()
		dl.d.watch()
	case !reflect.DeepEqual(*dl.want, dl.cfg):
		dl.cfg, dl.redial = *dl.want, redial{at: now}
	case dl.hasty:
		dl.redial, dl.hasty = redial{at: now}, false
		dl.log.Warn("not connected: "+dl.reason, "server", dl.cfg.ConnectTo)
	case dl.idle:
		dl.redial = redial{at: now}
		dl.log.Info("hung up, waiting for packets", "reason", dl.reason)
	default:
		dl.redial.failed(now, dl.refused, rand.Float64())
		dl.log.Warn("not connected: "+dl.reason, "server", dl.cfg.ConnectTo, "again-in", dl.redial.at.Sub(now).Round(100*time.Millisecond))
	}
}

// explainPPP says why the link ended, and what mends it.
func (dl *dialer) explainPPP(c ppp.Cause) string {
	switch c.Code {
	case ppp.CauseAuthFailed:
		dl.refused = true
		return "the server refuses the user or the password: correct them in [l2tp.client." + dl.cfg.Name + "]"
	case ppp.CauseNoCommonAuth:
		dl.refused = true
		return "the server wants another way to log in than `allow` names (" + c.String() + ")"
	case ppp.CauseNoCarrier:
		return "the session below ended: " + c.Text
	case ppp.CauseIdleTimeout:
		dl.idle = true
		return "no packets for the profile's idle-timeout"
	case ppp.CauseKeepalive:
		return "the server has fallen silent (" + c.Text + ")"
	case ppp.CauseNoAnswer:
		return "the server opened the session and does not speak PPP on it: its log knows why"
	}
	return c.String()
}

// explainL2TP does so for the tunnel.
func (dl *dialer) explainL2TP(c l2tp.Cause) string {
	silent := c.Reason == l2tp.ReasonTimeout || c.Reason == l2tp.ReasonSetupTimeout
	switch {
	case silent && dl.cfg.UseIPsec:
		return "IPsec stands, and the server does not answer L2TP in it: see that its L2TP runs, and takes what comes by IPsec"
	case silent:
		return "the server does not answer L2TP on UDP port 1701: see that it runs, that nothing on the way drops it, and whether it wants IPsec (use-ipsec = true)"
	case c.Reason == l2tp.ReasonPeer && c.Result == l2tp.StopNotAuthorized:
		dl.refused = true
		return "the server does not let this router open a tunnel (" + c.String() + "): see who may, in its settings, and with which tunnel-secret"
	case c.Reason == l2tp.ReasonAuthorization:
		dl.refused = true
		return "the tunnel's ends do not have one secret: set tunnel-secret in [l2tp.client." + dl.cfg.Name + "] to the server's"
	}
	return "L2TP: " + c.String()
}

// status is what RouterOS calls the state of a client.
func (dl *dialer) status(now time.Time) string {
	switch dl.stage {
	case dialWaiting:
		return "disconnected"
	case dialArming:
		return "disconnected"
	case dialArmed:
		return "waiting for packets"
	case dialEnding:
		return "terminating"
	case dialLink:
		if s := dl.session; s != nil && s.up {
			return "connected"
		} else if s != nil && s.link.Snapshot(now).Phase >= ppp.PhaseAuthenticate {
			return "verifying password"
		}
	}
	return "dialing"
}

// protection is the server's use-ipsec; none where there is no server.
func protection(cfg *config.Config) l2tp.Protection {
	if !cfg.Server.Enabled {
		return l2tp.ProtectionNone
	}
	return cfg.Server.UseIPsec
}

// usesIPsec says whether the server or a client does.
func usesIPsec(cfg *config.Config) bool {
	return protection(cfg) != l2tp.ProtectionNone ||
		slices.ContainsFunc(cfg.Clients, func(c config.Client) bool { return c.Dialled() && c.UseIPsec })
}

// l2tpConfig is the engine's configuration. Without a server it takes no calls: an invalid prefix is nobody's.
func l2tpConfig(cfg *config.Config) l2tp.Config {
	c := cfg.Server.L2TP
	if !cfg.Server.Enabled {
		c.Protection, c.Allowed = l2tp.ProtectionNone, []netip.Prefix{{}}
	}
	return c
}
