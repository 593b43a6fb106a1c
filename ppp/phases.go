package ppp

import (
	"time"

	"culvert/ppp/aaa"
)

// lcpUp: the link is established (RFC 1661 section 3.4); on to authentication.
func (l *Link) lcpUp() {
	l.echo.heard(l.now)
	l.phase = PhaseAuthenticate
	l.authBy = l.now.Add(l.cfg.AuthTimeout)
	demand, grant := l.lcpOpts.auth.demand, l.lcpOpts.auth.grant
	l.log.Debug("lcp opened", "mru", l.lcpOpts.mru.ours, "peer-mru", l.lcpOpts.mru.peer, "auth", demand.String(), "peer-auth", grant.String())
	if grant != 0 {
		l.client.start(grant)
	}
	if demand != 0 {
		l.server.start(demand)
	}
	if demand == 0 && grant == 0 {
		l.authProgress()
	}
}

// lcpDown: all that stands on it falls.
func (l *Link) lcpDown() {
	if l.phase == PhaseNetwork && l.cause.Code == CauseNone {
		// Who logged in on the old link need not be who speaks on a new one. The peer dials again.
		l.terminate(Cause{CausePeerTerminated, "the peer started the link over"})
	}
	l.networksDown()
	l.server.stop()
	l.client.stop()
	l.authRun++
	if !l.handedOver {
		release(l.grant)
		l.grant = nil
	}
	l.authBy = time.Time{}
	l.session = time.Time{}
	if l.phase == PhaseAuthenticate {
		l.phase = PhaseEstablish
	}
}

// lcpFinished: goodbyes were said, or given up.
func (l *Link) lcpFinished() {
	if l.cause.Code == CauseNone {
		switch {
		case l.peerBye:
			l.cause = Cause{CausePeerTerminated, "while the link was being negotiated"}
		case l.lcp.rounds > 0 || l.lcp.naks > 0:
			l.cause = Cause{CauseNegotiation, "lcp does not converge"}
		default:
			l.cause = Cause{CauseNoAnswer, "no answer to lcp"}
		}
	}
	l.later(l.finish)
}

// authProgress goes on to the network phase once every login that was agreed on is done.
func (l *Link) authProgress() {
	o := &l.lcpOpts.auth
	if l.phase != PhaseAuthenticate || l.cause.Code != CauseNone ||
		(o.demand != 0 && l.server.state != serverGranted) || (o.grant != 0 && !l.client.done) {
		return
	}
	l.authBy = time.Time{}
	l.phase = PhaseNetwork
	if l.grant == nil {
		l.grant = l.ownGrant()
		l.user = l.grant.User
	}
	g := l.grant
	if g.Encrypt == aaa.EncryptRequired {
		l.terminate(Cause{CauseEncryption, "MPPE is demanded, and is not spoken here"})
		return
	}
	if l.env.OpenUnit == nil {
		l.networkPhase()
		return
	}
	l.handedOver = true
	answered := false
	l.later(func() {
		if l.dead {
			release(g)
			return
		}
		l.env.OpenUnit(g, func(now time.Time, err error) {
			l.enter(now)
			defer l.leave()
			if answered || l.dead || l.cause.Code != CauseNone || l.phase != PhaseNetwork {
				return
			}
			answered = true
			if err != nil {
				l.log.Warn("no network interface", "user", printable(l.user), "error", err)
				l.terminate(Cause{CauseInterface, err.Error()})
				return
			}
			l.networkPhase()
		})
	})
}

// ownGrant stands in where nobody has to log in here.
func (l *Link) ownGrant() *aaa.Grant {
	g := &aaa.Grant{User: l.cfg.User, Local: l.cfg.Local, Remote: l.cfg.Remote, Encrypt: l.cfg.Encrypt, UseIPv6: l.cfg.IPv6, Release: func() {}}
	if l.client.done {
		g.MPPESend, g.MPPERecv = l.client.keys()
	}
	return g
}

// networkPhase brings the network protocols up (RFC 1661 section 3.6).
func (l *Link) networkPhase() {
	if t := l.grant.SessionTimeout; t > 0 { // OpenUnit may have set it
		l.session = l.now.Add(t)
	}
	l.unitReady = true
	g := l.grant
	if !g.UseIPv6 {
		l.ipv6cp = nil // refused by Protocol-Reject from here on
	}
	l.ipcpOpts.give(g.Local.Unmap(), g.Remote.Unmap(), g.DNS, g.WINS)
	for _, c := range []*control{l.ipcp, l.ipv6cp} {
		if c == nil {
			continue
		}
		c.handle(l.now, evOpen)
		c.handle(l.now, evUp)
		if b := l.early[c.proto]; b != nil {
			c.receive(b)
		}
	}
	l.early = nil
}

// networksDown is what the end of LCP means to the network protocols.
func (l *Link) networksDown() {
	for _, c := range []*control{l.ipcp, l.ipv6cp} {
		if c != nil {
			c.handle(l.now, evDown)
		}
	}
	l.unitReady = false
	l.early = nil
}

func (l *Link) ipcpUp() {
	o := l.ipcpOpts
	if !o.address.local.Is4() || o.address.refused {
		if len(l.cfg.Auth) == 0 {
			l.terminate(Cause{CauseNoAddress, "the peer gave us no address"})
			return
		}
	}
	remote := o.address.peer
	if !remote.IsValid() {
		remote = o.address.remote // it did not ask: it knows it already
	}
	l.network = Network{
		Local:  o.address.local,
		Remote: remote,
		MTU:    min(l.cfg.MTU, l.lcpOpts.mru.peer),
		MRU:    l.lcpOpts.mru.ours,
		DNS:    o.dns(),
	}
	l.ipUp = true
	l.ipRun++
	run, n := l.ipRun, l.network
	if l.env.IPUp == nil {
		l.later(func() { l.configured(run, nil) })
		return
	}
	l.later(func() {
		if run != l.ipRun || !l.ipUp {
			return
		}
		l.ipTold = true
		l.env.IPUp(n, func(now time.Time, err error) {
			l.enter(now)
			defer l.leave()
			l.configured(run, err)
		})
	})
}

// configured is the answer to IPUp number run.
func (l *Link) configured(run uint32, err error) {
	if run != l.ipRun || !l.ipUp || l.dead || l.cause.Code != CauseNone {
		return
	}
	if err != nil {
		l.log.Warn("no addresses on the interface", "user", printable(l.user), "error", err)
		l.terminate(Cause{CauseInterface, err.Error()})
		return
	}
	if l.announced {
		return
	}
	l.announced = true
	l.upAt = l.now
	l.meter.start(l.now)
	l.lookout.next = l.now.Add(lookAfter)
	l.log.Info("login", "user", printable(l.user), "method", l.method().String(), "address", l.network.Remote.String(),
		"local", l.network.Local.String(), "mtu", l.network.MTU, "caller", printable(l.caller.CallerID))
	if l.env.Up != nil {
		info := Info{User: l.user, Method: l.method(), Grant: l.grant, Network: l.network, Login: l.now.Sub(l.started)}
		l.later(func() {
			if !l.dead {
				l.env.Up(info)
			}
		})
	}
}

// method is how somebody logged in, there or here.
func (l *Link) method() aaa.Method {
	if m := l.lcpOpts.auth.demand; m != 0 {
		return m
	}
	return l.lcpOpts.auth.grant
}

func (l *Link) ipcpDown() {
	if !l.ipUp {
		return
	}
	l.ipUp = false
	l.ipRun++
	l.later(func() {
		if l.ipTold && l.env.IPDown != nil {
			l.env.IPDown()
		}
		l.ipTold = false
	})
}

func (l *Link) ipv6cpUp() {
	l.ipv6Up = true
	if l.env.IPv6Up != nil {
		local, remote := l.ipv6Opts.ours, l.ipv6Opts.peer
		l.later(func() { l.env.IPv6Up(local, remote) })
	}
}

func (l *Link) ipv6cpDown() {
	if !l.ipv6Up {
		return
	}
	l.ipv6Up = false
	if l.env.IPv6Down != nil {
		l.later(l.env.IPv6Down)
	}
}

// ncpFinished: a network protocol gave up or was closed by the peer. A link without IPv4 is of no use.
func (l *Link) ncpFinished() {
	if l.phase != PhaseNetwork || l.ipcp.state > Stopped {
		return
	}
	l.terminate(Cause{CauseNoNetwork, "ipcp did not come up, or was closed by the peer"})
}
