package ikev1

import (
	"bytes"
	"container/heap"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
	"culvert/ipsec/isakmp"
)

// side is one of two engines that talk to each other.
type side struct {
	e     *Engine
	data  *recorder
	ups   []ClientInfo
	downs []string
	marks []ipsec.Mark // of downs
	fails []*DialError
	log   *strings.Builder
}

// recorder knows in which order outbound SAs were installed: the newest carries the traffic.
type recorder struct {
	*ipsectest.Fake
	outs []ipsec.SAID
}

func (r *recorder) Install(sa ipsec.SA) error {
	err := r.Fake.Install(sa)
	if err == nil && sa.Dir == ipsec.Out {
		r.outs = append(r.outs, sa.ID())
	}
	return err
}

func (r *recorder) Remove(id ipsec.SAID) error {
	r.outs = slices.DeleteFunc(r.outs, func(x ipsec.SAID) bool { return x == id })
	return r.Fake.Remove(id)
}

func (r *recorder) find(id ipsec.SAID) (ipsec.SA, bool) {
	for _, sa := range r.SAs() {
		if sa.ID() == id {
			return sa, true
		}
	}
	return ipsec.SA{}, false
}

// cable joins a caller and a server in virtual time, with a NAT before the caller or none. It may lose, repeat and delay.
type cable struct {
	t       *testing.T
	now     time.Time
	r       *rand.Rand
	a, b    *side // a calls b
	aAddr   netip.Addr
	bAddr   netip.Addr
	public  netip.Addr // of the NAT
	ports   map[uint16]uint16
	next    uint16 // port of the NAT
	loss    int    // in a hundred
	dup     int
	jitter  time.Duration
	queue   cableQueue
	n       int
	toA     func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) // tampering; nil drops
	toB     func(p ipsec.Path, msg []byte) (ipsec.Path, []byte)
	keeps   int
	packets [2]map[ipsec.SAID]uint64
	blocked bool
}

type cableItem struct {
	at   time.Time
	n    int
	toB  bool
	path ipsec.Path
	msg  []byte
}

type cableQueue []*cableItem

func (q cableQueue) Len() int { return len(q) }
func (q cableQueue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].n < q[j].n
}
func (q cableQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *cableQueue) Push(x any)   { *q = append(*q, x.(*cableItem)) }
func (q *cableQueue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

func newSide(seed uint64, cfg Config, send func(ipsec.Path, []byte), keep func(ipsec.Path)) *side {
	s := &side{data: &recorder{Fake: ipsectest.NewFake()}, log: &strings.Builder{}}
	s.e = New(cfg, Env{
		Backend: s.data, Rand: seeded{rand.New(rand.NewPCG(seed, 5))}, Send: send, Keepalive: keep,
		Log:        slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
		PeerUp:     func(i ClientInfo) { s.ups = append(s.ups, i) },
		PeerDown:   func(m ipsec.Mark, why string) { s.downs, s.marks = append(s.downs, why), append(s.marks, m) },
		DialFailed: func(m ipsec.Mark, err *DialError) { s.fails = append(s.fails, err) },
	})
	return s
}

// newCable makes the two; nat puts the caller behind one. change may alter the server's configuration.
func newCable(t *testing.T, seed uint64, nat bool, change func(*Config)) *cable {
	c := &cable{
		t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), r: rand.New(rand.NewPCG(seed, 3)),
		aAddr: netip.MustParseAddr("203.0.113.9"), bAddr: serverAddr, ports: make(map[uint16]uint16), next: 20000,
		packets: [2]map[ipsec.SAID]uint64{{}, {}},
	}
	if nat {
		c.public, c.aAddr = c.aAddr, netip.MustParseAddr("192.168.1.34")
	}
	cfg := testConfig()
	cfg.Peers[0].Profile.Groups = []Group{ECP256, X25519, MODP2048, MODP1024}
	if change != nil {
		change(&cfg)
	}
	c.a = newSide(seed*2+1, Config{}, func(p ipsec.Path, msg []byte) { c.put(true, p, msg) }, func(p ipsec.Path) {
		c.keeps++
		if c.public.IsValid() {
			c.mapped(p.Local.Port())
		}
	})
	c.b = newSide(seed*2+2, cfg, func(p ipsec.Path, msg []byte) { c.put(false, p, msg) }, nil)
	return c
}

func (c *cable) mapped(port uint16) uint16 {
	if c.ports[port] == 0 {
		c.next++
		c.ports[port] = c.next
	}
	return c.ports[port]
}

// rebind lets the NAT forget its mappings.
func (c *cable) rebind() { clear(c.ports) }

// put takes a message on its way.
func (c *cable) put(toB bool, p ipsec.Path, msg []byte) {
	x := cableItem{toB: toB, msg: bytes.Clone(msg)}
	src, dst := p.Local, p.Remote
	if toB && c.public.IsValid() {
		src = netip.AddrPortFrom(c.public, c.mapped(src.Port()))
	}
	if !toB && c.public.IsValid() {
		local := uint16(0)
		for in, out := range c.ports {
			if out == dst.Port() {
				local = in
			}
		}
		if local == 0 || dst.Addr() != c.public {
			return
		}
		dst = netip.AddrPortFrom(c.aAddr, local)
	}
	x.path = ipsec.Path{Local: dst, Remote: src}
	if c.blocked {
		return
	}
	for range 1 + btoi(c.r.IntN(100) < c.dup) {
		if c.r.IntN(100) < c.loss {
			continue
		}
		y := x
		y.at, y.n = c.now.Add(20*time.Millisecond), c.n
		if c.jitter > 0 {
			y.at = y.at.Add(time.Duration(c.r.Int64N(int64(c.jitter))))
		}
		c.n++
		heap.Push(&c.queue, &y)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// run lets time pass.
func (c *cable) run(d time.Duration) {
	c.t.Helper()
	end := c.now.Add(d)
	for n := 0; ; n++ {
		if n > 1_000_000 {
			c.t.Fatal("time does not pass")
		}
		at := end
		for _, s := range []*side{c.a, c.b} {
			if x := s.e.Deadline(); !x.IsZero() && x.Before(at) {
				at = x
			}
		}
		if len(c.queue) > 0 && c.queue[0].at.Before(at) {
			at = c.queue[0].at
		}
		if at.After(c.now) {
			c.now = at
		}
		for len(c.queue) > 0 && !c.queue[0].at.After(c.now) {
			x := heap.Pop(&c.queue).(*cableItem)
			s, tamper := c.a, c.toA
			if x.toB {
				s, tamper = c.b, c.toB
			}
			p, msg := x.path, x.msg
			if tamper != nil {
				if p, msg = tamper(p, msg); msg == nil {
					continue
				}
			}
			s.e.Receive(c.now, p, msg)
			for i := range msg { // nothing of it may be kept
				msg[i] = 0xee
			}
		}
		c.a.e.Tick(c.now)
		c.b.e.Tick(c.now)
		if !c.now.Before(end) {
			return
		}
	}
}

// caller is how most tests dial.
func (c *cable) caller() Dial {
	p := NewServer("office", ipsec.Secret("mySecret"))
	p.Profile.Ciphers, p.Profile.Hashes, p.Profile.Groups = []Cipher{AES256}, []Hash{SHA256}, []Group{ECP256}
	return Dial{Peer: p, LocalPort: 1701, Path: ipsec.Path{Local: netip.AddrPortFrom(c.aAddr, 500), Remote: netip.AddrPortFrom(c.bAddr, 500)}}
}

func (c *cable) dial(d Dial) ipsec.Mark {
	c.t.Helper()
	m, err := c.a.e.Dial(c.now, d)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// traffic sends a packet either way through the newest SAs and says what is wrong with that.
func (c *cable) traffic() error {
	if err := c.through(c.a, c.b, 1); err != nil {
		return fmt.Errorf("to the server: %w", err)
	}
	if err := c.through(c.b, c.a, 0); err != nil {
		return fmt.Errorf("to the caller: %w", err)
	}
	return nil
}

func (c *cable) through(from, to *side, n int) error {
	if len(from.data.outs) == 0 {
		return fmt.Errorf("no outbound SA at %v", c.now)
	}
	out, _ := from.data.find(from.data.outs[len(from.data.outs)-1])
	for _, in := range to.data.SAs() {
		if in.Dir != ipsec.In || in.SPI != out.SPI {
			continue
		}
		if !bytes.Equal(in.Keys.Enc, out.Keys.Enc) || !bytes.Equal(in.Keys.Auth, out.Keys.Auth) || in.Suite != out.Suite || (in.Encap == ipsec.Encap{}) != (out.Encap == ipsec.Encap{}) {
			return fmt.Errorf("%v: the two sides differ", out.SPI)
		}
		if to == c.b && c.public.IsValid() {
			if at := netip.AddrPortFrom(c.public, c.mapped(out.Encap.Local)); at.Port() != in.Encap.Remote {
				to.e.Event(c.now, ipsec.Event{Kind: ipsec.EventMapping, ID: in.ID(), Remote: at})
			}
		}
		if to == c.a && c.public.IsValid() && out.Encap.Remote != c.ports[in.Encap.Local] {
			return fmt.Errorf("the server sends to port %d, the NAT has %v", out.Encap.Remote, c.ports)
		}
		c.packets[n][in.ID()]++
		to.data.SetUsage(in.ID(), ipsec.Usage{Packets: c.packets[n][in.ID()], Bytes: 100, LastUsed: c.now})
		return nil
	}
	return fmt.Errorf("%v: the other side has no SA for it at %v", out.SPI, c.now)
}

// up dials and waits.
func (c *cable) up(d Dial) ipsec.Mark {
	c.t.Helper()
	m := c.dial(d)
	c.run(10 * time.Second)
	if len(c.a.ups) != 1 || len(c.b.ups) != 1 {
		c.t.Fatalf("not up: %v %v\ncaller %v\n%s\nserver %v\n%s", c.a.downs, c.a.fails, c.a.e.Snapshot(c.now).Drops, c.a.log, c.b.e.Snapshot(c.now).Drops, c.b.log)
	}
	if err := c.traffic(); err != nil {
		c.t.Fatal(err)
	}
	return m
}

// phase1 is the caller's newest ISAKMP SA.
func (c *cable) phase1(s *side) *phase1 {
	for _, cl := range s.e.clients {
		if sa := cl.newest(); sa != nil {
			return sa
		}
	}
	for _, sa := range s.e.sas {
		return sa
	}
	return nil
}

// empty checks that a call has left nothing behind.
func (c *cable) empty(s *side) {
	c.t.Helper()
	if x := s.e.Snapshot(c.now); x.Clients != 0 || len(x.Peers) != 0 || len(x.SAs) != 0 || len(s.e.ours) != 0 || len(s.e.byKey) != 0 || !s.e.Deadline().IsZero() {
		c.t.Errorf("something stays: %+v, %d of ours, deadline %v", x, len(s.e.ours), s.e.Deadline())
	}
	if n := len(s.data.SAs()); n != 0 {
		c.t.Errorf("%d SAs stay installed", n)
	}
}

func exchangeOf(msg []byte) (h isakmp.Header) {
	h, _ = isakmp.ParseHeader(msg)
	return h
}
