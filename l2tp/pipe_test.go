package l2tp

import (
	"bytes"
	"container/heap"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"net/netip"
	"os"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// plane is a DataPlane that only checks the order it is called in.
type plane struct {
	t        *testing.T
	tunnels  map[TunnelID]TunnelSpec
	sessions map[SessionID]SessionSpec
	fail     error
	log      []string
}

func newPlane(t *testing.T) *plane {
	return &plane{t: t, tunnels: map[TunnelID]TunnelSpec{}, sessions: map[SessionID]SessionSpec{}}
}

func (p *plane) OpenTunnel(s TunnelSpec) error {
	if _, ok := p.tunnels[s.Local]; ok {
		p.t.Errorf("tunnel %d opened twice", s.Local)
	}
	p.tunnels[s.Local] = s
	p.log = append(p.log, "open tunnel")
	return nil
}

func (p *plane) CloseTunnel(s TunnelSpec) {
	if p.tunnels[s.Local] != s {
		p.t.Errorf("close of %+v, open is %+v", s, p.tunnels[s.Local])
	}
	for _, c := range p.sessions {
		if c.Tunnel.Local == s.Local {
			p.t.Errorf("tunnel %d closed before session %d", s.Local, c.Local)
		}
	}
	delete(p.tunnels, s.Local)
	p.log = append(p.log, "close tunnel")
}

func (p *plane) OpenSession(s SessionSpec) error {
	if p.fail != nil {
		return p.fail
	}
	if p.tunnels[s.Tunnel.Local] != s.Tunnel {
		p.t.Errorf("session of a tunnel that is not open: %+v", s)
	}
	if s.Local == 0 || s.Remote == 0 || s.Tunnel.Remote == 0 {
		p.t.Errorf("zero id: %+v", s)
	}
	p.sessions[s.Local] = s
	p.log = append(p.log, "open session")
	return nil
}

func (p *plane) CloseSession(s SessionSpec) {
	if p.sessions[s.Local] != s {
		p.t.Errorf("close of %+v, open is %+v", s, p.sessions[s.Local])
	}
	delete(p.sessions, s.Local)
	p.log = append(p.log, "close session")
}

func (p *plane) MoveTunnel(s TunnelSpec) error {
	if _, ok := p.tunnels[s.Local]; !ok {
		p.t.Errorf("move of an unknown tunnel: %+v", s)
	}
	p.tunnels[s.Local] = s
	for id, c := range p.sessions {
		if c.Tunnel.Local == s.Local {
			c.Tunnel = s
			p.sessions[id] = c
		}
	}
	return nil
}

func (p *plane) SetSequence(s SessionSpec) error {
	if _, ok := p.sessions[s.Local]; !ok {
		p.t.Errorf("sequence of an unknown session: %+v", s)
	}
	p.sessions[s.Local] = s
	return nil
}

// end is an engine with what it did.
type end struct {
	*Engine
	addr      netip.AddrPort
	plane     *plane
	up        map[SessionID]SessionInfo
	down      map[SessionID]Cause
	tunnelsUp map[TunnelID]TunnelInfo
	tunnelEnd map[TunnelID]Cause
	released  map[TunnelInfo]bool
	sent      [][]byte // with keep
	keep      bool
	via       Via
	send      func(p Peer, msg []byte)
}

func testLog(t *testing.T) *slog.Logger {
	var w io.Writer = io.Discard
	level := slog.LevelInfo
	if os.Getenv("L2TP_LOG") != "" {
		w, level = os.Stderr, slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level})).With("test", t.Name())
}

func newEnd(t *testing.T, addr string, cfg Config, seed int64) *end {
	n := &end{addr: netip.MustParseAddrPort(addr), plane: newPlane(t), up: map[SessionID]SessionInfo{},
		down: map[SessionID]Cause{}, tunnelsUp: map[TunnelID]TunnelInfo{}, tunnelEnd: map[TunnelID]Cause{},
		released: map[TunnelInfo]bool{}}
	n.Engine = New(cfg, Env{
		Send: func(p Peer, msg []byte) {
			if n.keep {
				n.sent = append(n.sent, bytes.Clone(msg))
			}
			if n.send != nil {
				n.send(p, msg)
			}
		},
		Plane: n.plane,
		Rand:  rand.New(rand.NewSource(seed)),
		Log:   testLog(t),
		SessionUp: func(i SessionInfo) {
			if _, ok := n.up[i.Local]; ok {
				t.Errorf("session %d up twice", i.Local)
			}
			if _, ok := n.plane.sessions[i.Local]; !ok {
				t.Errorf("session %d up without a data path", i.Local)
			}
			n.up[i.Local] = i
			n.plane.log = append(n.plane.log, "session up")
		},
		SessionDown: func(i SessionInfo, c Cause) {
			if _, ok := n.up[i.Local]; !ok {
				t.Errorf("session %d down that was not up", i.Local)
			}
			if _, ok := n.plane.sessions[i.Local]; !ok {
				t.Errorf("session %d: data path closed before SessionDown", i.Local)
			}
			if _, ok := n.down[i.Local]; ok {
				t.Errorf("session %d down twice", i.Local)
			}
			n.down[i.Local] = c
			n.plane.log = append(n.plane.log, "session down")
		},
		TunnelUp: func(i TunnelInfo) { n.tunnelsUp[i.Local] = i; n.plane.log = append(n.plane.log, "tunnel up") },
		TunnelDown: func(i TunnelInfo, c Cause) {
			if _, ok := n.tunnelEnd[i.Local]; ok {
				t.Errorf("tunnel %d down twice", i.Local)
			}
			n.tunnelEnd[i.Local] = c
			n.plane.log = append(n.plane.log, "tunnel down")
		},
		Released: func(i TunnelInfo) {
			if n.released[i] {
				t.Errorf("tunnel %d released twice", i.Local)
			}
			n.released[i] = true
		},
	})
	return n
}

// packet is on its way through a pipe.
type packet struct {
	at  time.Time
	seq int
	to  *end
	p   Peer
	msg []byte
}

type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	return p[i].at.Before(p[j].at) || p[i].at.Equal(p[j].at) && p[i].seq < p[j].seq
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}

// pipe joins ends in virtual time.
type pipe struct {
	t             *testing.T
	now           time.Time
	rng           *rand.Rand
	ends          []*end
	flying        packets
	seq           int
	loss, dup     float64
	jitter, delay time.Duration
	seen          func(from *end, msg []byte)
}

func newPipe(t *testing.T, seed int64, ends ...*end) *pipe {
	p := &pipe{t: t, now: start, rng: rand.New(rand.NewSource(seed)), ends: ends, delay: 10 * time.Millisecond}
	for _, n := range ends {
		n.send = func(to Peer, msg []byte) { p.carry(n, to, msg) }
	}
	return p
}

func (p *pipe) carry(from *end, to Peer, msg []byte) {
	if p.seen != nil {
		p.seen(from, msg)
	}
	for _, n := range p.ends {
		if n.addr != to.Remote || n == from {
			continue
		}
		copies := 1
		if p.rng.Float64() < p.loss {
			copies = 0
		}
		if p.rng.Float64() < p.dup {
			copies++
		}
		for range copies {
			at := p.now.Add(p.delay)
			if p.jitter > 0 {
				at = at.Add(time.Duration(p.rng.Int63n(int64(p.jitter))))
			}
			p.seq++
			heap.Push(&p.flying, packet{at, p.seq, n, Peer{Local: n.addr, Remote: from.addr, Via: to.Via}, bytes.Clone(msg)})
		}
	}
}

// run lets time pass until nothing is due before the end.
func (p *pipe) run(d time.Duration) {
	end := p.now.Add(d)
	for range 100000 {
		next := end
		if len(p.flying) > 0 && p.flying[0].at.Before(next) {
			next = p.flying[0].at
		}
		for _, n := range p.ends {
			if at := n.Deadline(); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		if next.After(p.now) {
			p.now = next
		}
		idle := true
		for _, n := range p.ends {
			if at := n.Deadline(); !at.IsZero() && !at.After(p.now) {
				n.Tick(p.now)
				idle = false
				if at := n.Deadline(); !at.IsZero() && !at.After(p.now) {
					p.t.Fatalf("Tick left the deadline %v in the past", at)
				}
			}
		}
		for len(p.flying) > 0 && !p.flying[0].at.After(p.now) {
			pk := heap.Pop(&p.flying).(packet)
			pk.to.Receive(p.now, pk.p, pk.msg)
			idle = false
		}
		if idle && !p.now.Before(end) {
			return
		}
	}
	p.t.Fatal("the pipe never falls silent")
}

// pair is a server and a client.
func pair(t *testing.T, seed int64, server, client Config) (*end, *end, *pipe) {
	s := newEnd(t, "192.0.2.1:1701", server, seed)
	c := newEnd(t, "198.51.100.7:1701", client, seed+1000)
	return s, c, newPipe(t, seed, s, c)
}

func (n *end) call(t *testing.T, now time.Time, to *end, opt Dial) TunnelID {
	t.Helper()
	id, err := n.Dial(now, Peer{Local: n.addr, Remote: to.addr, Via: n.via}, opt)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCall(t *testing.T) {
	for _, hide := range []bool{false, true} {
		t.Run(fmt.Sprint("hide=", hide), func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.HostName = "lns"
			cfg.Secret = "tunnel secret"
			cfg.HideAVPs = hide
			s, c, p := pair(t, 1, cfg, DefaultConfig())
			c.call(t, p.now, s, Dial{Secret: "tunnel secret", Calling: "12345", Called: "678", Sequence: true})
			p.run(time.Second)
			if len(s.up) != 1 || len(c.up) != 1 {
				t.Fatalf("sessions up: server %d, client %d", len(s.up), len(c.up))
			}
			for id, i := range s.up {
				if i.Calling != "12345" || i.Called != "678" || i.TxSpeed != defaultTxSpeed || !i.Spec.LNS {
					t.Errorf("%+v", i)
				}
				if !s.plane.sessions[id].SendSeq {
					t.Error("the LAC required sequence numbers")
				}
				j := c.up[i.Remote]
				if j.Remote != id || j.Local != i.Remote || j.Spec.Tunnel.Remote != i.Spec.Tunnel.Local || !j.Dialed {
					t.Errorf("ids do not match: %+v and %+v", i, j)
				}
				s.CloseSession(p.now, i.Tunnel.Local, id, Cause{Reason: ReasonLink})
			}
			p.run(time.Minute)
			for _, cause := range c.down {
				if cause.Reason != ReasonPeer || cause.Result != CDNCarrierLost {
					t.Errorf("client saw %v", cause)
				}
			}
			if len(s.down) != 1 || len(c.down) != 1 || !s.Drained() || !c.Drained() {
				t.Errorf("left over: %d %d, %+v %+v", len(s.down), len(c.down), s.Snapshot(p.now), c.Snapshot(p.now))
			}
			want := "[tunnel up open tunnel open session session up session down close session close tunnel tunnel down]"
			if got := fmt.Sprint(s.plane.log); got != want {
				t.Errorf("order of calls\n got %s\nwant %s", got, want)
			}
		})
	}
}
