package ppp

import (
	"net/netip"
	"time"

	"culvert/ppp/aaa"
)

// Snapshot is what operators and tests see of a link.
type Snapshot struct {
	Phase             Phase
	LCP, IPCP, IPV6CP State
	User              string // printable
	Profile           string
	Method            aaa.Method
	CallerID          string
	Service           string

	Local, Remote     netip.Addr
	LocalID, RemoteID InterfaceID
	DNS               []netip.Addr
	MTU, MRU          int
	PeerMRU           int
	Magic, PeerMagic  uint32
	PeerACCM          uint32
	PeerPFC, PeerACFC bool
	Encoding          string // of PPP's own; always empty without MPPE

	Uptime, Idle       time.Duration // Uptime is zero until the link is up
	EchoSent, EchoLost uint64
	Drops              uint64 // malformed frames
	Cause              Cause  // why it ends or ended
}

// Snapshot reads the data path's counters for Idle, if it can, and changes nothing else.
func (l *Link) Snapshot(now time.Time) Snapshot {
	s := Snapshot{
		Phase: l.phase, LCP: l.lcp.state, IPCP: l.ipcp.state,
		User: printable(l.user), Method: l.method(), CallerID: printable(l.caller.CallerID), Service: l.caller.Service,
		MTU: min(l.cfg.MTU, l.lcpOpts.mru.peer), MRU: l.lcpOpts.mru.ours, PeerMRU: l.lcpOpts.mru.peer,
		Magic: l.lcpOpts.magic.ours, PeerMagic: l.lcpOpts.magic.peer, PeerACCM: l.lcpOpts.accm.peer,
		PeerPFC: l.lcpOpts.pfc.peer, PeerACFC: l.lcpOpts.acfc.peer,
		EchoSent: l.echo.sent, EchoLost: l.echo.lost, Drops: l.drops, Cause: l.cause,
	}
	if l.grant != nil {
		s.Profile = l.grant.Profile
	}
	if l.ipUp {
		s.Local, s.Remote, s.DNS = l.network.Local, l.network.Remote, l.network.DNS
	}
	if l.ipv6cp != nil {
		s.IPV6CP = l.ipv6cp.state
		s.LocalID, s.RemoteID = l.ipv6Opts.ours, l.ipv6Opts.peer
	}
	if l.announced && !l.dead {
		s.Uptime = now.Sub(l.upAt)
		m := l.meter
		m.poll(now, l.env.Traffic)
		s.Idle = now.Sub(m.last())
	}
	return s
}
