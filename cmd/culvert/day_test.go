package main

import (
	"bytes"
	"container/heap"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"culvert/cmd/culvert/internal/config"
	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/ipsec/ipsectest"
	"culvert/l2tp"
	"culvert/ppp"
	"culvert/ppp/aaa"
)

// The three cores joined as the daemon joins them, in virtual time: IKE, the L2TP control connection inside its SAs, and
// PPP on the session, between a client behind a NAT and a server.

// dayEnd is one of the two.
type dayEnd struct {
	name  string
	d     *day
	addr  netip.Addr
	ike   *ikev1.Engine
	data  *dayESP
	l2tp  *l2tp.Engine
	link  *ppp.Link
	call  l2tp.SessionInfo
	mark  ipsec.Mark
	ups   int // links
	downs []string
	got   int // packets of the other end's user
}

// dayESP knows which outbound SA is the newest.
type dayESP struct {
	*ipsectest.Fake
	outs []ipsec.SAID
}

func (e *dayESP) Install(sa ipsec.SA) error {
	err := e.Fake.Install(sa)
	if err == nil && sa.Dir == ipsec.Out {
		e.outs = append(e.outs, sa.ID())
	}
	return err
}

func (e *dayESP) Remove(id ipsec.SAID) error {
	e.outs = slices.DeleteFunc(e.outs, func(x ipsec.SAID) bool { return x == id })
	return e.Fake.Remove(id)
}

func (e *dayESP) find(match func(ipsec.SA) bool) (ipsec.SA, bool) {
	for _, sa := range e.SAs() {
		if match(sa) {
			return sa, true
		}
	}
	return ipsec.SA{}, false
}

// dayPacket is a datagram on its way: a message of IKE, or what is in ESP.
type dayPacket struct {
	at       time.Time
	n        int
	to       *dayEnd
	src, dst netip.AddrPort
	ike      []byte
	spi      ipsec.SPI
	key      []byte
	control  []byte // of L2TP
	frame    []byte // of PPP, in a data message
	user     bool   // a packet of the user's, in such
}

type dayQueue []*dayPacket

func (q dayQueue) Len() int { return len(q) }
func (q dayQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].n < q[j].n
}
func (q dayQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *dayQueue) Push(x any)   { *q = append(*q, x.(*dayPacket)) }
func (q *dayQueue) Pop() any {
	x := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return x
}

type day struct {
	t      *testing.T
	now    time.Time
	r      *rand.Rand
	queue  dayQueue
	n      int
	loss   int // in a hundred
	client *dayEnd
	server *dayEnd
	public netip.Addr
	ports  map[uint16]uint16 // of the NAT
	next   uint16
	sent   [2]int               // packets of the users
	used   map[ipsec.SPI]uint64 // packets that came through each SA
}

type dayRand struct{ *rand.Rand }

func (r dayRand) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return len(b), nil
}

// put takes a packet on its way, through the NAT.
func (d *day) put(p dayPacket) {
	if p.to == d.server {
		port := p.src.Port()
		if d.ports[port] == 0 {
			d.next++
			d.ports[port] = d.next
		}
		p.src = netip.AddrPortFrom(d.public, d.ports[port])
	} else {
		inside := uint16(0)
		for in, out := range d.ports {
			if out == p.dst.Port() {
				inside = in
			}
		}
		if inside == 0 {
			return // the NAT knows nothing of it
		}
		p.dst = netip.AddrPortFrom(d.client.addr, inside)
	}
	if d.r.IntN(100) < d.loss {
		return
	}
	d.n++
	p.at, p.n = d.now.Add(20*time.Millisecond+time.Duration(d.r.Int64N(int64(200*time.Millisecond)))), d.n
	heap.Push(&d.queue, &p)
}

// protect puts a packet into the newest outbound SA of a mark; without one it does not leave.
func (e *dayEnd) protect(m ipsec.Mark, p dayPacket) {
	if len(e.data.outs) == 0 {
		return
	}
	id := e.data.outs[len(e.data.outs)-1]
	sa, ok := e.data.find(func(sa ipsec.SA) bool { return sa.ID() == id && sa.Mark == m })
	if !ok {
		return
	}
	p.to, p.spi, p.key = e.other(), sa.SPI, sa.Keys.Enc
	p.src, p.dst = netip.AddrPortFrom(sa.Local, sa.Encap.Local), netip.AddrPortFrom(sa.Remote, sa.Encap.Remote)
	e.d.put(p)
}

func (e *dayEnd) other() *dayEnd {
	if e == e.d.client {
		return e.d.server
	}
	return e.d.client
}

// receive is what the sockets and the data path do with a packet.
func (e *dayEnd) receive(p *dayPacket) {
	d := e.d
	if p.ike != nil {
		e.ike.Receive(d.now, ipsec.Path{Local: p.dst, Remote: p.src}, p.ike)
		return
	}
	sa, ok := e.data.find(func(sa ipsec.SA) bool { return sa.Dir == ipsec.In && sa.SPI == p.spi })
	switch {
	case !ok:
		return // under way while its SA went
	case !bytes.Equal(sa.Keys.Enc, p.key):
		d.t.Fatalf("%s: %v has another key", e.name, p.spi)
	case sa.Encap.Remote != p.src.Port():
		e.ike.Event(d.now, ipsec.Event{Kind: ipsec.EventMapping, ID: sa.ID(), Remote: p.src})
		e.l2tp.Move(d.now, l2tp.Via(sa.Mark), p.src.Addr())
	}
	d.used[p.spi]++
	e.data.SetUsage(sa.ID(), ipsec.Usage{Packets: d.used[p.spi], Bytes: 100 * d.used[p.spi], LastUsed: d.now})
	switch {
	case p.control != nil:
		peer := l2tp.Peer{Local: netip.AddrPortFrom(p.dst.Addr(), l2tpPort), Remote: netip.AddrPortFrom(p.src.Addr(), l2tpPort), Via: l2tp.Via(sa.Mark)}
		e.l2tp.Receive(d.now, peer, p.control)
	case e.link == nil:
	case p.user:
		e.got++
	default:
		e.link.Receive(d.now, p.frame)
	}
}

// dayPlane carries nothing by itself.
type dayPlane struct{}

func (dayPlane) OpenTunnel(l2tp.TunnelSpec) error   { return nil }
func (dayPlane) CloseTunnel(l2tp.TunnelSpec)        {}
func (dayPlane) OpenSession(l2tp.SessionSpec) error { return nil }
func (dayPlane) CloseSession(l2tp.SessionSpec)      {}
func (dayPlane) MoveTunnel(l2tp.TunnelSpec) error   { return nil }

func (d *day) end(name, addr string, seed uint64, ike ikev1.Config, auth aaa.Authenticator, link ppp.Config) *dayEnd {
	e := &dayEnd{name: name, d: d, addr: netip.MustParseAddr(addr), data: &dayESP{Fake: ipsectest.NewFake()}}
	random := dayRand{rand.New(rand.NewPCG(seed, 7))}
	log := slog.New(slog.DiscardHandler)
	e.ike = ikev1.New(ike, ikev1.Env{
		Backend: e.data, Rand: random, Log: log,
		Send: func(p ipsec.Path, msg []byte) {
			d.put(dayPacket{to: e.other(), src: p.Local, dst: p.Remote, ike: bytes.Clone(msg)})
		},
		Keepalive: func(p ipsec.Path) { d.put(dayPacket{to: e.other(), src: p.Local, dst: p.Remote}) },
		PeerUp: func(i ikev1.ClientInfo) {
			if e.mark = i.Mark; i.Dialed {
				peer := l2tp.Peer{Local: netip.AddrPortFrom(i.Local.Addr(), l2tpPort), Remote: netip.AddrPortFrom(i.Remote.Addr(), l2tpPort), Via: l2tp.Via(i.Mark)}
				if _, err := e.l2tp.Dial(d.now, peer, l2tp.Dial{}); err != nil {
					d.t.Fatal(err)
				}
			}
		},
		PeerDown: func(_ ipsec.Mark, why string) { e.downs = append(e.downs, "IKE: "+why) },
	})
	cfg := l2tp.DefaultConfig()
	if name == "server" {
		cfg.Protection = l2tp.ProtectionRequired
	}
	e.l2tp = l2tp.New(cfg, l2tp.Env{
		Send:  func(p l2tp.Peer, msg []byte) { e.protect(ipsec.Mark(p.Via), dayPacket{control: bytes.Clone(msg)}) },
		Plane: dayPlane{}, Rand: random, Log: log,
		SessionUp: func(i l2tp.SessionInfo) {
			e.call = i
			e.link = ppp.New(link, ppp.Caller{CallerID: "203.0.113.9", Service: "l2tp"}, ppp.Env{
				Send: func(frame []byte) { e.protect(ipsec.Mark(i.Tunnel.Peer.Via), dayPacket{frame: bytes.Clone(frame)}) },
				Auth: auth, Rand: random, Log: log,
				IPUp:    func(_ ppp.Network, done func(time.Time, error)) { done(d.now, nil) },
				IPDown:  func() {},
				Traffic: func() ppp.Traffic { return ppp.Traffic{Rx: uint64(e.got), RxIdle: -1, TxIdle: -1} },
				Up:      func(ppp.Info) { e.ups++ },
				Down: func(c ppp.Cause) {
					e.link = nil
					e.downs = append(e.downs, "PPP: "+c.String())
				},
			})
			e.link.Start(d.now)
		},
		SessionDown: func(_ l2tp.SessionInfo, c l2tp.Cause) { e.downs = append(e.downs, "L2TP: "+c.String()) },
		TunnelUp:    func(l2tp.TunnelInfo) {},
		TunnelDown:  func(_ l2tp.TunnelInfo, c l2tp.Cause) { e.downs = append(e.downs, "tunnel: "+c.String()) },
	})
	return e
}

// run lets time pass.
func (d *day) run(until time.Time) {
	d.t.Helper()
	for n := 0; d.now.Before(until); n++ {
		if n > 1_000_000 {
			d.t.Fatal("time does not pass")
		}
		at := until
		var cores []core
		for _, e := range []*dayEnd{d.client, d.server} {
			cores = append(cores, e.ike, e.l2tp)
			if e.link != nil {
				cores = append(cores, e.link)
			}
		}
		for _, c := range cores {
			if x := c.Deadline(); !x.IsZero() && x.Before(at) {
				at = x
			}
		}
		if len(d.queue) > 0 && d.queue[0].at.Before(at) {
			at = d.queue[0].at
		}
		if at.After(d.now) {
			d.now = at
		}
		for len(d.queue) > 0 && !d.queue[0].at.After(d.now) {
			p := heap.Pop(&d.queue).(*dayPacket)
			if p.ike != nil || p.spi != 0 {
				p.to.receive(p)
			}
		}
		for _, c := range cores {
			c.Tick(d.now)
		}
	}
}

// TestDay: for a day, over a line that loses one packet in twenty and delays them differently, behind a NAT that forgets
// its mappings, with both phases renewed again and again, one and the same session stays up.
func TestDay(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { aDay(t, seed) })
	}
}

func aDay(t *testing.T, seed uint64) {
	const secret = "the shared secret"
	start := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	d := &day{t: t, now: start, r: rand.New(rand.NewPCG(seed, 1)), public: netip.MustParseAddr("203.0.113.9"), ports: make(map[uint16]uint16), next: 20000,
		used: make(map[ipsec.SPI]uint64)}
	profile := config.DefaultProfile()
	profile.Lifetime = time.Hour
	users := aaa.NewLocal(aaa.Config{
		DefaultProfile: "vpn",
		Profiles: map[string]aaa.Profile{"vpn": {Name: "vpn", Local: aaa.Source{Addr: netip.MustParseAddr("192.168.99.1")},
			Remote: aaa.Source{Addr: netip.MustParseAddr("192.168.99.2")}}},
		Secrets: map[string]aaa.Secret{"user1": {Name: "user1", Password: "word", Service: "any"}},
	}, slog.New(slog.DiscardHandler))
	serverLink := ppp.DefaultConfig()
	clientLink := ppp.DefaultConfig()
	clientLink.Auth, clientLink.User, clientLink.Password, clientLink.Allow = nil, "user1", "word", []aaa.Method{aaa.MSCHAP2}
	d.client = d.end("client", "192.168.1.34", 2*seed+1, ikev1.Config{}, nil, clientLink)
	d.server = d.end("server", "192.0.2.1", 2*seed+2, ikev1.Config{Peers: []ikev1.Peer{{
		Name: "l2tp-in", Remote: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, Secret: ipsec.Secret(secret), Exchange: ikev1.MainL2TP,
		Profile: profile, Proposal: config.DefaultProposal(),
	}}}, users, serverLink)

	peer := ikev1.NewServer("office", ipsec.Secret(secret))
	peer.Proposal.PFS = []ikev1.Group{0, ikev1.ECP256}[seed%2]
	peer.Proposal.Lifetime = 20 * time.Minute
	if _, err := d.client.ike.Dial(d.now, ikev1.Dial{Peer: peer, LocalPort: l2tpPort,
		Path: ipsec.Path{Local: netip.AddrPortFrom(d.client.addr, ikePort), Remote: netip.AddrPortFrom(d.server.addr, ikePort)}}); err != nil {
		t.Fatal(err)
	}
	d.run(start.Add(30 * time.Second))
	if d.client.ups != 1 || d.server.ups != 1 {
		t.Fatalf("not up: %v %v", d.client.downs, d.server.downs)
	}
	d.loss = 5
	rebound := start
	for end := start.Add(24 * time.Hour); d.now.Before(end); {
		d.run(d.now.Add(20 * time.Second))
		if d.now.Sub(rebound) > 40*time.Minute {
			rebound = d.now
			clear(d.ports)
		}
		for i, e := range []*dayEnd{d.client, d.server} {
			e.protect(e.mark, dayPacket{user: true})
			d.sent[i]++
		}
		if len(d.client.downs)+len(d.server.downs) > 0 {
			t.Fatalf("after %v: %v %v", d.now.Sub(start), d.client.downs, d.server.downs)
		}
	}
	if d.client.ups != 1 || d.server.ups != 1 {
		t.Errorf("%d and %d links", d.client.ups, d.server.ups)
	}
	// One in twenty is lost on the line, and to the client what was sent before the NAT's new mapping was known.
	for i, e := range []*dayEnd{d.server, d.client} {
		if e.got*100 < d.sent[i]*92 {
			t.Errorf("%s has received %d packets of %d", e.name, e.got, d.sent[i])
		}
	}
	if len(d.used) < 2*24*3 {
		t.Errorf("%d SAs have carried packets", len(d.used))
	}
	for _, e := range []*dayEnd{d.client, d.server} {
		if s := e.ike.Snapshot(d.now); len(s.Peers) > 4 || len(s.SAs) > 8 || s.Clients != 1 {
			t.Errorf("%s: %d ISAKMP SAs, %d SAs of %d clients", e.name, len(s.Peers), len(s.SAs), s.Clients)
		}
	}
	t.Logf("%d SAs, %d and %d packets of %d received", len(d.used), d.server.got, d.client.got, d.sent[0])
}
