package ikev1

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/board/lab"
	"culvert/ipsec"
	"culvert/ipsec/natt"
	"culvert/ipsec/xfrm"
)

// live is an engine on a node of the lab, with real sockets and the kernel's ESP.
type live struct {
	t     *testing.T
	node  *lab.Node
	e     *Engine
	xfrm  *xfrm.Backend
	inbox chan func(now time.Time)
	quit  chan struct{}

	mu    sync.Mutex
	log   strings.Builder
	ups   []ClientInfo
	downs []string
	fails []*DialError
}

func (v *live) Write(b []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.log.Write(b)
}

func newLive(t *testing.T, node *lab.Node) *live {
	v := &live{t: t, node: node, inbox: make(chan func(time.Time), 64), quit: make(chan struct{})}
	log := slog.New(slog.NewTextHandler(v, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var conns *natt.Conns
	var err error
	node.Do(func() {
		if conns, err = natt.Open(natt.Options{Encap: true, Log: log}); err == nil {
			v.xfrm, err = xfrm.New(xfrm.Options{Log: log})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	v.e = New(Config{}, Env{
		Backend: v.xfrm, Rand: rand.Reader, Log: log,
		Send:       func(p ipsec.Path, msg []byte) { conns.Send(p, msg) },
		Keepalive:  func(p ipsec.Path) { conns.Keepalive(p) },
		Offload:    func(work func() func(time.Time)) bool { go func() { done := work(); v.inbox <- done }(); return true },
		PeerUp:     func(i ClientInfo) { v.mu.Lock(); v.ups = append(v.ups, i); v.mu.Unlock() },
		PeerDown:   func(_ ipsec.Mark, why string) { v.mu.Lock(); v.downs = append(v.downs, why); v.mu.Unlock() },
		DialFailed: func(_ ipsec.Mark, err *DialError) { v.mu.Lock(); v.fails = append(v.fails, err); v.mu.Unlock() },
	})
	conns.Serve(func(p ipsec.Path, msg []byte) {
		msg = append([]byte(nil), msg...)
		v.inbox <- func(now time.Time) { v.e.Receive(now, p, msg) }
	}, nil)
	v.xfrm.Serve(func(ev ipsec.Event) { v.inbox <- func(now time.Time) { v.e.Event(now, ev) } })
	go v.loop()
	t.Cleanup(func() {
		v.do(func(now time.Time) { v.e.Close(now) })
		conns.Close()
		v.xfrm.Close()
		close(v.quit)
		if t.Failed() {
			v.mu.Lock()
			t.Logf("the caller's log:\n%s", v.log.String())
			v.mu.Unlock()
		}
	})
	return v
}

func (v *live) loop() {
	timer := time.NewTimer(0)
	for {
		select {
		case f := <-v.inbox:
			f(time.Now())
		case now := <-timer.C:
			v.e.Tick(now)
		case <-v.quit:
			return
		}
		timer.Stop()
		if at := v.e.Deadline(); !at.IsZero() {
			timer.Reset(time.Until(at))
		}
	}
}

// do runs f on the loop.
func (v *live) do(f func(now time.Time)) {
	done := make(chan struct{})
	v.inbox <- func(now time.Time) { defer close(done); f(now) }
	<-done
}

func (v *live) snapshot() (s Snapshot) {
	v.do(func(now time.Time) { s = v.e.Snapshot(now) })
	return s
}

func (v *live) counts() (ups, downs int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.ups), len(v.downs)
}

// l2tp is the UDP socket of a client's L2TP, which sends with the mark of its SAs.
func (v *live) l2tp(local netip.AddrPort, m ipsec.Mark) *net.UDPConn {
	v.t.Helper()
	conn, err := v.node.ListenUDP(local)
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { conn.Close() })
	raw, err := conn.SyscallConn()
	if err != nil {
		v.t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, int(m)) })
	if err != nil {
		v.t.Fatal(err)
	}
	return conn
}

// echo sends a datagram to the server's port 1701 and waits for it to come back; both ways go through ESP.
func echo(conn *net.UDPConn, server netip.AddrPort, n int) error {
	text := fmt.Sprintf("datagram %d", n)
	buf := make([]byte, 100)
	for range 40 {
		if _, err := conn.WriteToUDPAddrPort([]byte(text), server); err != nil {
			return err
		}
		conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
		for {
			k, _, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				break
			}
			if string(buf[:k]) == text {
				return nil
			}
		}
	}
	return fmt.Errorf("%s does not come back", text)
}

// TestLabDial calls charon, with ESP in the kernel on both sides.
func TestLabDial(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) {
		const secret = "the shared secret"
		ctx := context.Background()
		internet := l.Internet()
		server := internet.Host("server", "192.0.2.1")
		open := internet.Host("client", "198.51.100.2")
		nat := internet.NAT("nat", "203.0.113.1")
		hidden := nat.Host("hidden", "10.0.0.2")
		charon, err := server.Charon()
		l.Must(err, "charon")
		at := netip.MustParseAddrPort("192.0.2.1:1701")
		conn, err := server.ListenUDP(at)
		l.Must(err, "echo")
		go func() { // what comes to 1701 goes back
			buf := make([]byte, 2000)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				conn.WriteToUDPAddrPort(buf[:n], from)
			}
		}()
		t.Cleanup(func() { conn.Close() })

		swanctl := func(t *testing.T, args ...string) {
			t.Helper()
			if out, err := server.Command(ctx, append([]string{"swanctl"}, args...)...).CombinedOutput(); err != nil {
				t.Fatalf("swanctl %v: %v\n%s", args, err, out)
			}
		}
		for _, x := range []struct {
			name   string
			ike    lab.IKE
			hidden bool
			set    func(*Dial)
			port   uint16
			renew  bool
			cause  DialCause
		}{
			{name: "main", ike: lab.IKE{Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha1"}, port: 1701, renew: true},
			{name: "main behind NAT", hidden: true, ike: lab.IKE{Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha1"}, port: 1701, renew: true},
			{name: "ephemeral port", hidden: true, ike: lab.IKE{Proposals: "aes128-sha1-ecp256", ESP: "aes128-sha1"}, port: 40123},
			{name: "PFS demanded", hidden: true, ike: lab.IKE{Proposals: "aes256-sha1-ecp384", ESP: "aes256-sha256-ecp384"}, port: 1701, renew: true},
			{name: "PFS", ike: lab.IKE{Proposals: "aes256-sha256-x25519", ESP: "aes256gcm16-x25519"}, port: 1701, set: func(d *Dial) {
				d.Peer.Profile.Ciphers, d.Peer.Profile.Hashes, d.Peer.Profile.Groups = []Cipher{AES256}, []Hash{SHA256}, []Group{X25519}
				d.Peer.Proposal = Proposal{Suites: []ipsec.Suite{{Cipher: ipsec.AESGCM, KeyBits: 256, ICVBits: 128}}, PFS: X25519}
			}},
			{name: "aggressive", ike: lab.IKE{Aggressive: true, Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha1"}, port: 1701, set: func(d *Dial) { d.Peer.Exchange = Aggressive }},
			{name: "aggressive behind NAT", hidden: true, renew: true, ike: lab.IKE{Aggressive: true, Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha1"}, port: 1701, set: func(d *Dial) { d.Peer.Exchange = Aggressive; d.ID = "branch@example.com" }},
			{name: "old algorithms", hidden: true, ike: lab.IKE{Proposals: "3des-sha1-modp1024", ESP: "3des-sha1"}, port: 1701},
			{name: "wrong secret", ike: lab.IKE{Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha1"}, set: func(d *Dial) { d.Peer.Secret = ipsec.Secret("guess") }, cause: DialSecret},
			{name: "no common proposal", ike: lab.IKE{Proposals: "aes256-sha512-modp4096", ESP: "aes256-sha1"}, cause: DialNoProposal},
			{name: "no common suite", hidden: true, ike: lab.IKE{Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha512"}, cause: DialNoSuite},
		} {
			t.Run(x.name, func(t *testing.T) {
				from := "198.51.100.2"
				node := open
				if x.hidden {
					from, node = "10.0.0.2", hidden
				}
				x.ike.PSK = secret
				if err := charon.Load(ctx, netip.Addr{}, x.ike); err != nil {
					t.Fatal(err)
				}
				v := newLive(t, node)
				local := netip.AddrPortFrom(netip.MustParseAddr(from), 500)
				d := Dial{Peer: NewServer("lab", ipsec.Secret(secret)), Path: ipsec.Path{Local: local, Remote: netip.AddrPortFrom(at.Addr(), 500)}, LocalPort: x.port}
				if x.set != nil {
					x.set(&d)
				}
				var mark ipsec.Mark
				v.do(func(now time.Time) { mark, err = v.e.Dial(now, d) })
				if err != nil {
					t.Fatal(err)
				}
				l.WaitFor(time.Minute, func() bool { up, down := v.counts(); return up+down > 0 })
				if x.cause != 0 {
					v.mu.Lock()
					defer v.mu.Unlock()
					if len(v.fails) != 1 || v.fails[0].Cause != x.cause {
						t.Fatalf("fails %v", v.fails)
					}
					t.Log(v.fails[0])
					return
				}
				if up, down := v.counts(); up != 1 || down != 0 {
					t.Fatalf("not up: %v", v.downs)
				}
				t.Logf("%+v", v.ups[0])
				if v.ups[0].UDP != x.hidden {
					t.Errorf("UDP encapsulation: %v", v.ups[0].UDP)
				}
				conn := v.l2tp(netip.AddrPortFrom(local.Addr(), x.port), mark)
				n := 0
				check := func(what string) {
					t.Helper()
					for range 3 {
						n++
						if err := echo(conn, at, n); err != nil {
							t.Fatalf("%s: %v\n%s", what, err, charon.SAs(ctx))
						}
					}
				}
				check("at first")
				var packets uint64
				for _, sa := range v.snapshot().SAs {
					packets += sa.Usage.Packets
				}
				if packets < 6 {
					t.Errorf("the SAs have carried %d packets", packets)
				}
				if x.renew {
					children := func() int { return len(v.snapshot().SAs) / 2 }
					v.do(func(now time.Time) { cl := v.e.clients[mark]; cl.children[len(cl.children)-1].renewDue(now) })
					if !l.WaitFor(30*time.Second, func() bool { return children() == 2 }) {
						t.Fatal("no second pair by our renewal")
					}
					check("renewed by us")
					swanctl(t, "--rekey", "--child", "l2tp")
					if !l.WaitFor(30*time.Second, func() bool { return children() >= 3 }) {
						t.Fatalf("no further pair by charon's renewal: %d\n%s", children(), charon.SAs(ctx))
					}
					check("renewed by charon")
					phase1 := func() (id string) {
						v.do(func(now time.Time) {
							if sa := v.e.clients[mark].newest(); sa != nil {
								id = fmt.Sprint(sa.id)
							}
						})
						return id
					}
					old := phase1()
					v.do(func(now time.Time) { v.e.clients[mark].newest().renewDue(now) })
					if !l.WaitFor(30*time.Second, func() bool { return phase1() != old && phase1() != "" }) {
						t.Fatal("no new phase 1 by us")
					}
					check("phase 1 renewed by us")
					// The older ones go now instead of in 30 s. charon has to hand its pairs over to the new ISAKMP SA before.
					handed := func() bool { // the list's newest ISAKMP SA comes first, its pairs indented below it
						first, _, _ := strings.Cut(strings.TrimSpace(charon.SAs(ctx)), "\nl2tp: #")
						return strings.Contains(first, "\n  l2tp: #")
					}
					if !l.WaitFor(20*time.Second, handed) {
						t.Fatalf("charon's pairs stay with the old ISAKMP SA:\n%s", charon.SAs(ctx))
					}
					v.do(func(now time.Time) {
						cl := v.e.clients[mark]
						for len(cl.phase1s) > 1 {
							cl.phase1s[0].renewDue(now)
						}
						for len(cl.children) > 1 {
							cl.children[0].sayDelete(now)
							cl.children[0].remove(now, "superseded")
						}
					})
					check("older SAs deleted")
					v.do(func(now time.Time) { cl := v.e.clients[mark]; cl.children[0].renewDue(now) })
					if !l.WaitFor(30*time.Second, func() bool { return children() == 2 }) {
						t.Fatal("no pair under the new phase 1")
					}
					check("renewed under the new phase 1")
					if up, down := v.counts(); up != 1 || down != 0 {
						t.Errorf("ups %d downs %v", up, v.downs)
					}
				}
				if x.hidden { // the server leaves, or we do
					if err := charon.Terminate(ctx); err != nil {
						t.Error(err)
					}
				} else {
					v.do(func(now time.Time) { v.e.ClosePeer(now, mark, "enough") })
				}
				if !l.WaitFor(30*time.Second, func() bool { _, down := v.counts(); return down == 1 && len(v.snapshot().Peers) == 0 }) {
					t.Errorf("not down: %+v", v.snapshot())
				}
				if !l.WaitFor(20*time.Second, func() bool { return strings.TrimSpace(charon.SAs(ctx)) == "" }) {
					t.Errorf("charon keeps:\n%s", charon.SAs(ctx))
				}
			})
		}
	}, lab.Timeout(4*time.Minute))
}
