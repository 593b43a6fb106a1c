package ikev1

import (
	"cmp"
	"net/netip"
	"sort"
	"time"

	"culvert/ipsec"
)

// ClientInfo is what PeerUp tells about a client.
type ClientInfo struct {
	Mark          ipsec.Mark
	Local, Remote netip.AddrPort
	Identity      string     // as the client showed itself in phase 1
	Private       netip.Addr // the client's own address behind its NAT, if it told (NAT-OA)
	Peer          string     // name in the configuration
	User          string     // whose pre-shared key it has; empty for the shared one, which is nobody's
	Software      string     // what its vendor ids give away, may be empty
	Phase1        string     // "aes-256/sha1/ecp384"
	Suite         ipsec.Suite
	UDP           bool   // ESP is encapsulated
	Dialed        bool   // it is a server that we have called
	LocalPort     uint16 // UDP port on our side that the SAs carry; 0 any. A dialed server may have narrowed it
}

func (c *client) info(ch *child) ClientInfo {
	i := ClientInfo{
		Mark: c.mark, Local: c.path.Local, Remote: c.path.Remote, Identity: identity(c.idBody), Peer: c.peer.Name, User: c.key.user,
		Software: c.software, Suite: ch.choice.suite, UDP: ch.choice.udp(),
		Dialed: c.dial != nil, LocalPort: ch.selector.LocalPort,
	}
	if len(ch.private) > 0 {
		i.Private = ch.private[0]
	}
	if sa := c.newest(); sa != nil {
		i.Phase1 = sa.chosen.String()
	}
	return i
}

// Snapshot is the engine's state at one moment, for people and tests.
type Snapshot struct {
	Peers    []PeerSnapshot // ISAKMP SAs, half-open ones included
	SAs      []SASnapshot   // both directions of every child, by age
	Clients  int
	HalfOpen int
	// Stateless is how many first messages were answered without keeping anything.
	Stateless uint64
	Drops     map[string]uint64 // messages ignored, by reason; only reasons that occurred
}

// PeerSnapshot is one ISAKMP SA.
type PeerSnapshot struct {
	State              string
	Role               string // of ours: "initiator" or "responder"
	Initiator          string // cookies, hexadecimal
	Responder          string
	Local, Remote      netip.AddrPort
	Peer               string // name in the configuration
	Identity           string
	Software           string
	Aggressive         bool
	Cipher             Cipher
	Hash               Hash
	Group              Group
	Auth               AuthMethod
	NATT               string // "unsupported", "none", "peer", "local" or "both": who is behind a NAT
	DPD                bool
	Mark               ipsec.Mark
	Since              time.Time // zero until established
	Expires            time.Time
	RxMessages         uint64
	TxMessages         uint64
	Children           int
	LastHeard          time.Time
	DPDFailures        int
	RemainingLifetime  time.Duration
	NegotiatedLifetime time.Duration
}

// SASnapshot is one direction of a child.
type SASnapshot struct {
	SPI           ipsec.SPI
	Dir           ipsec.Direction
	Mark          ipsec.Mark
	State         string // "larval", "confirmed" or "active"
	Suite         ipsec.Suite
	PFS           Group
	Local, Remote netip.Addr
	Encap         ipsec.Encap
	Selector      ipsec.Selector
	Age           time.Duration
	Lifetime      time.Duration // as negotiated
	Kilobytes     uint64        // as negotiated, 0 for unbounded
	Hard          time.Duration // until we remove it ourselves
	Usage         ipsec.Usage   // zero where the data plane cannot tell
}

// Snapshot describes the engine.
func (e *Engine) Snapshot(now time.Time) Snapshot {
	s := Snapshot{
		Clients: len(e.clients), HalfOpen: e.halfOpen[0].order.Len() + e.halfOpen[1].order.Len() + e.halfOpen[2].order.Len(), Stateless: e.answers, Drops: make(map[string]uint64),
	}
	for why, n := range e.drops {
		if n > 0 {
			s.Drops[Drop(why).String()] = n
		}
	}
	for _, sa := range e.sas {
		s.Peers = append(s.Peers, sa.snapshot(now))
	}
	sort.Slice(s.Peers, func(i, j int) bool {
		a, b := s.Peers[i], s.Peers[j]
		return cmp.Or(a.Since.Compare(b.Since), a.Remote.Compare(b.Remote), cmp.Compare(a.Responder, b.Responder)) < 0
	})
	for _, c := range e.children {
		s.SAs = append(s.SAs, c.snapshot(now, ipsec.In))
		if c.state == childActive && !c.outGone {
			s.SAs = append(s.SAs, c.snapshot(now, ipsec.Out))
		}
	}
	sort.Slice(s.SAs, func(i, j int) bool {
		a, b := s.SAs[i], s.SAs[j]
		return cmp.Or(cmp.Compare(b.Age, a.Age), cmp.Compare(a.Mark, b.Mark), cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.SPI, b.SPI)) < 0
	})
	return s
}

func (sa *phase1) snapshot(now time.Time) PeerSnapshot {
	p := PeerSnapshot{
		State: sa.state.String(), Role: sa.role(), Initiator: sa.id.initiator.String(), Responder: sa.id.responder.String(),
		Local: sa.path.Local, Remote: sa.path.Remote, Peer: sa.peer.Name, Software: sa.vendors.software(), Aggressive: sa.aggressive,
		Cipher: sa.chosen.cipher, Hash: sa.chosen.hash, Group: sa.chosen.group, Auth: sa.chosen.method, NATT: sa.natSides(), DPD: sa.vendors.dpd,
		Since: sa.since, Expires: sa.expiry.at, RxMessages: sa.rx, TxMessages: sa.tx, DPDFailures: sa.dpd.failures,
		RemainingLifetime: sa.expiry.at.Sub(now), NegotiatedLifetime: sa.lifetime(),
	}
	if sa.dial != nil {
		p.Mark = sa.dial.client.mark
	}
	if c := sa.client; c != nil {
		p.Mark, p.Children, p.LastHeard, p.Identity = c.mark, len(c.children), c.lastHeard(now), identity(sa.idBody)
	}
	return p
}

// role is ours in phase 1.
func (sa *phase1) role() string {
	if sa.dial != nil {
		return "initiator"
	}
	return "responder"
}

func (c *child) snapshot(now time.Time, d ipsec.Direction) SASnapshot {
	sa := c.sa(d)
	s := SASnapshot{
		SPI: sa.SPI, Dir: d, Mark: sa.Mark, State: c.state.String(), Suite: sa.Suite, PFS: c.choice.group, Local: sa.Local, Remote: sa.Remote,
		Encap: sa.Encap, Selector: sa.Selector, Age: now.Sub(c.since), Lifetime: c.choice.lifetime, Kilobytes: c.choice.kilobytes,
		Hard: c.hard.at.Sub(now),
	}
	if u, err := c.client.e.env.Backend.Usage(sa.ID()); err == nil {
		s.Usage = u
	}
	return s
}
