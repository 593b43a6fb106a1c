package xfrm

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
)

const (
	markA = ipsectest.MarkA
	markB = ipsectest.MarkB
)

// child is one client's SAs as its server sees them, and as the client does.
type child struct{ serverIn, serverOut, clientIn, clientOut ipsec.SA }

// newChild makes up a child SA between a server and a client's address and port; port 0 means plain ESP.
func newChild(m ipsec.Mark, server, client string, port uint16, spiIn, spiOut ipsec.SPI, suite ipsec.Suite) child {
	var c child
	local, remote := netip.MustParseAddr(server), netip.MustParseAddr(client)
	c.serverIn, c.serverOut = ipsectest.Pair(m, local, netip.AddrPortFrom(remote, port), spiIn, spiOut)
	for _, sa := range []*ipsec.SA{&c.serverIn, &c.serverOut} {
		sa.Suite, sa.Keys = suite, ipsectest.Keys(suite, byte(sa.SPI))
		if port == 0 {
			sa.Encap = ipsec.Encap{}
		}
	}
	c.clientIn, c.clientOut = mirror(c.serverOut), mirror(c.serverIn)
	return c
}

// mirror is the same SA seen from the other end.
func mirror(sa ipsec.SA) ipsec.SA {
	sa.Dir = ipsec.In + ipsec.Out - sa.Dir
	sa.Local, sa.Remote = sa.Remote, sa.Local
	sa.Encap.Local, sa.Encap.Remote = sa.Encap.Remote, sa.Encap.Local
	s := &sa.Selector
	s.Local, s.Remote = s.Remote, s.Local
	s.LocalPort, s.RemotePort = s.RemotePort, s.LocalPort
	return sa
}

func install(t *testing.T, b *Backend, sas ...ipsec.SA) {
	t.Helper()
	for _, sa := range sas {
		if err := b.Install(sa); err != nil {
			t.Fatal(err)
		}
	}
}

func packets(t *testing.T, b *Backend, id ipsec.SAID) uint64 {
	t.Helper()
	u, err := b.Usage(id)
	if err != nil {
		t.Fatal(err)
	}
	return u.Packets
}

// TestTraffic sends through every suite, both families, plain and encapsulated.
func TestTraffic(t *testing.T) {
	a, z := cable(t)
	var suites []ipsec.Suite
	a.run(func() { suites, _ = Suites() })
	if len(suites) == 0 {
		t.Fatal("no suites")
	}
	suites = append(suites, ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA256, ICVBits: 96})
	server, client := a.backend(Options{Require: true}), z.backend(Options{Require: true})
	a.encap(4500)
	z.encap(40001)
	onWire := a.sniff()
	for _, network := range []struct{ server, client, any string }{{"10.7.0.1", "10.7.0.2", "0.0.0.0:1701"}, {"fd07::1", "fd07::2", "[::]:1701"}} {
		s, c := a.endpoint(network.any), z.endpoint(network.any)
		to := netip.AddrPortFrom(netip.MustParseAddr(network.server), 1701).String()
		for i, suite := range suites {
			for _, port := range []uint16{0, 40001} {
				name := fmt.Sprintf("%s %s port %d", network.client, suite, port)
				ch := newChild(markA, network.server, network.client, port, ipsec.SPI(0x1000+i), 0x80002000+ipsec.SPI(i), suite)
				install(t, server, ch.serverIn, ch.serverOut)
				install(t, client, ch.clientIn, ch.clientOut)
				if err := c.send(to, markA, name); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				d := s.expect(name, markA)
				if err := s.send(d.from.String(), d.mark, "re: "+name); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				c.expect("re: "+name, markA)
				u, err := server.Usage(ch.serverIn.ID())
				if err != nil || u.Packets != 1 || u.Bytes == 0 || time.Since(u.LastUsed).Abs() > time.Minute && !u.LastUsed.IsZero() {
					t.Errorf("%s: usage %+v, error %v", name, u, err)
				}
				for _, sa := range []ipsec.SA{ch.serverIn, ch.serverOut} {
					if err := server.Remove(sa.ID()); err != nil {
						t.Fatal(err)
					}
				}
				for _, sa := range []ipsec.SA{ch.clientIn, ch.clientOut} {
					if err := client.Remove(sa.ID()); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	time.Sleep(50 * time.Millisecond) // let the sniffer read on
	if n := onWire.count("udp 1701"); n != 0 {
		t.Errorf("%d datagrams of L2TP were seen in clear", n)
	}
	if onWire.count("esp") < len(suites) || onWire.count("udp 4500") < len(suites) {
		t.Errorf("seen on the wire: %v", onWire.frames)
	}
}

// TestTwoClientsBehindOneNAT has two clients that differ by nothing but the port of their encapsulation: same address,
// same L2TP ports, and the same SPI for what the server sends them.
func TestTwoClientsBehindOneNAT(t *testing.T) {
	a, z := cable(t)
	server, client := a.backend(Options{Require: true}), z.backend(Options{})
	a.encap(4500)
	z.encap(40001)
	z.encap(40002)
	s, c := a.endpoint("10.7.0.1:1701"), z.endpoint("10.7.0.2:1701")
	ca := newChild(markA, "10.7.0.1", "10.7.0.2", 40001, 0x1001, 0x2001, ipsectest.AESSHA1)
	cb := newChild(markB, "10.7.0.1", "10.7.0.2", 40002, 0x1002, 0x2001, ipsectest.AESSHA1)
	// Here both clients are one host, whose inbound SPIs cannot be the same: the second has its own, and what the server
	// sends to it is seen to leave in the right SA.
	install(t, server, ca.serverIn, ca.serverOut, cb.serverIn, cb.serverOut)
	install(t, client, ca.clientIn, ca.clientOut, cb.clientOut)
	for _, m := range []ipsec.Mark{markA, markB, markA, markB} {
		if err := c.send("10.7.0.1:1701", m, m.String()); err != nil {
			t.Fatal(err)
		}
		s.expect(m.String(), m)
	}
	if err := s.send("10.7.0.2:1701", markA, "for A"); err != nil {
		t.Fatal(err)
	}
	c.expect("for A", markA)
	if err := s.send("10.7.0.2:1701", markB, "for B"); err != nil {
		t.Fatal(err)
	}
	if na, nb := packets(t, server, ca.serverOut.ID()), packets(t, server, cb.serverOut.ID()); na != 1 || nb != 1 {
		t.Errorf("the server sent %d packets to A and %d to B, want one each", na, nb)
	}
	c.expectNothing() // B's keys are not A's
}

// TestRekey checks that a new outbound SA carries the traffic at once, while the old one is still there.
func TestRekey(t *testing.T) {
	a, z := cable(t)
	server, client := a.backend(Options{Require: true}), z.backend(Options{Require: true})
	a.encap(4500)
	z.encap(40001)
	s, c := a.endpoint("10.7.0.1:1701"), z.endpoint("10.7.0.2:1701")
	old := newChild(markA, "10.7.0.1", "10.7.0.2", 40001, 0x1001, 0x2001, ipsectest.AESSHA1)
	install(t, server, old.serverIn, old.serverOut)
	install(t, client, old.clientIn, old.clientOut)
	exchange := func(text string) {
		t.Helper()
		if err := s.send("10.7.0.2:1701", markA, text); err != nil {
			t.Fatal(err)
		}
		c.expect(text, markA)
		if err := c.send("10.7.0.1:1701", markA, text); err != nil {
			t.Fatal(err)
		}
		s.expect(text, markA)
	}
	exchange("old")
	young := newChild(markA, "10.7.0.1", "10.7.0.2", 40001, 0x1002, 0x2002, ipsectest.AESSHA1)
	install(t, server, young.serverIn, young.serverOut)
	install(t, client, young.clientIn, young.clientOut)
	exchange("young")
	if n := packets(t, server, young.serverOut.ID()); n != 1 {
		t.Errorf("the new SA sent %d packets, want 1 (the old one %d)", n, packets(t, server, old.serverOut.ID()))
	}
	for _, sa := range []ipsec.SA{old.serverIn, old.serverOut} {
		if err := server.Remove(sa.ID()); err != nil {
			t.Fatal(err)
		}
	}
	for _, sa := range []ipsec.SA{old.clientIn, old.clientOut} {
		if err := client.Remove(sa.ID()); err != nil {
			t.Fatal(err)
		}
	}
	exchange("after")
}

func TestGuardDropsCleartext(t *testing.T) {
	a, z := cable(t)
	server := a.backend(Options{Require: true, Ports: []uint16{1701, 1702}})
	for _, at := range []struct{ server, client string }{
		{"10.7.0.1:1701", "10.7.0.2:1701"}, {"10.7.0.1:1702", "10.7.0.2:5000"}, {"[fd07::1]:1701", "[fd07::2]:1701"},
	} {
		s, c := a.endpoint(at.server), z.endpoint(at.client)
		if err := c.send(at.server, 0, "in clear"); err != nil {
			t.Fatal(err)
		}
		s.expectNothing()
		for _, m := range []ipsec.Mark{0, markA} {
			if err := s.send(at.client, m, "in clear"); !errors.Is(err, unix.EPERM) {
				t.Errorf("%s: sending in clear with mark %s: error %v, want EPERM", at.server, m, err)
			}
		}
		if err := server.Guard(false); err != nil {
			t.Fatal(err)
		}
		if err := c.send(at.server, 0, "now allowed"); err != nil {
			t.Fatal(err)
		}
		s.expect("now allowed", 0)
		if err := server.Guard(true); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHold has a mark of which nothing leaves in the clear: before its first SA, after its last, and until it is given up.
func TestHold(t *testing.T) {
	for _, network := range []struct{ server, client string }{{"10.7.0.1", "10.7.0.2"}, {"fd07::1", "fd07::2"}} {
		t.Run(network.server, func(t *testing.T) {
			a, z := cable(t)
			server, client := a.backend(Options{}), z.backend(Options{})
			a.encap(4500)
			z.encap(40001)
			addr := netip.MustParseAddr(network.server)
			at := func(a string) string { return netip.AddrPortFrom(netip.MustParseAddr(a), 1701).String() }
			s, c := a.endpoint(at(network.server)), z.endpoint(at(network.client))
			refused := func(when string) {
				t.Helper()
				if err := c.send(at(network.server), markA, when); !errors.Is(err, unix.EPERM) {
					t.Errorf("%s: error %v, want EPERM", when, err)
				}
				s.expectNothing()
			}
			for range 2 { // twice is once
				if err := client.Hold(markA, addr); err != nil {
					t.Fatal(err)
				}
			}
			refused("before the SA")
			for _, m := range []ipsec.Mark{0, markB} { // nobody else is concerned
				if err := c.send(at(network.server), m, "in clear"); err != nil {
					t.Fatal(err)
				}
				s.expect("in clear", 0)
			}
			ch := newChild(markA, network.server, network.client, 40001, 0x1001, 0x2001, ipsectest.AESSHA1)
			install(t, server, ch.serverIn, ch.serverOut)
			install(t, client, ch.clientIn, ch.clientOut)
			if err := c.send(at(network.server), markA, "protected"); err != nil {
				t.Fatal(err)
			}
			s.expect("protected", markA)
			for _, sa := range []ipsec.SA{ch.clientIn, ch.clientOut} {
				if err := client.Remove(sa.ID()); err != nil {
					t.Fatal(err)
				}
			}
			refused("after the SA")
			for range 2 {
				if err := client.Unhold(markA); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.send(at(network.server), markA, "given up"); err != nil {
				t.Fatal(err)
			}
			s.expect("given up", 0)
			if err := client.Hold(1, addr); err == nil {
				t.Error("a mark outside of the mask is held")
			}
		})
	}
}

// TestProtectSocket has a socket that takes one client's packets only, without any guard.
func TestProtectSocket(t *testing.T) {
	for _, network := range []struct{ server, client string }{{"10.7.0.1", "10.7.0.2"}, {"fd07::1", "fd07::2"}} {
		t.Run(network.server, func(t *testing.T) {
			a, z := cable(t)
			server, client := a.backend(Options{}), z.backend(Options{})
			a.encap(4500)
			z.encap(40001)
			z.encap(40002)
			sAt, cAt := netip.AddrPortFrom(netip.MustParseAddr(network.server), 1701), netip.AddrPortFrom(netip.MustParseAddr(network.client), 1701)
			s, c := a.endpoint(sAt.String()), z.endpoint(cAt.String())
			if err := unix.Connect(s.fd, sockaddr(cAt)); err != nil {
				t.Fatal(err)
			}
			for m, port := range map[ipsec.Mark]uint16{markA: 40001, markB: 40002} {
				ch := newChild(m, network.server, network.client, port, ipsec.SPI(0x1000+uint32(port)), ipsec.SPI(0x2000+uint32(port)), ipsectest.AESSHA1)
				install(t, server, ch.serverIn, ch.serverOut)
				install(t, client, ch.clientIn, ch.clientOut)
			}
			send := func() {
				t.Helper()
				for _, m := range []ipsec.Mark{0, markB, markA} {
					if err := c.send(sAt.String(), m, m.String()); err != nil {
						t.Fatal(err)
					}
				}
			}
			send()
			s.expect("0x0", 0) // what the kernel does by itself
			s.expect(markB.String(), markB)
			s.expect(markA.String(), markA)
			if err := server.ProtectSocket(s.fd, markA); err != nil {
				t.Fatal(err)
			}
			send()
			s.expect(markA.String(), markA)
			s.expectNothing()
			if err := server.ProtectSocket(s.fd, 0); err == nil {
				t.Error("no mark was accepted")
			}
		})
	}
}

// events collects what a Backend reports.
func events(b *Backend) chan ipsec.Event {
	ch := make(chan ipsec.Event, 64)
	b.Serve(func(e ipsec.Event) { ch <- e })
	return ch
}

func nextEvent(t *testing.T, ch chan ipsec.Event, wait time.Duration) ipsec.Event {
	t.Helper()
	select {
	case e := <-ch:
		return e
	case <-time.After(wait):
		t.Fatal("no event")
		return ipsec.Event{}
	}
}

func TestMappingAndMove(t *testing.T) {
	a, z := cable(t)
	server, client := a.backend(Options{Require: true}), z.backend(Options{})
	a.encap(4500)
	z.encap(40001)
	z.encap(40009)
	s, c := a.endpoint("10.7.0.1:1701"), z.endpoint("0.0.0.0:1701")
	reports := events(server)
	ch := newChild(markA, "10.7.0.1", "10.7.0.2", 40001, 0x1001, 0x2001, ipsectest.AESSHA1)
	install(t, server, ch.serverIn, ch.serverOut)
	install(t, client, ch.clientIn, ch.clientOut)
	roundTrip := func(text, from string) {
		t.Helper()
		if err := c.send("10.7.0.1:1701", markA, text); err != nil {
			t.Fatal(err)
		}
		s.expect(text, markA)
		if err := s.send(from, markA, "re: "+text); err != nil {
			t.Fatal(err)
		}
		c.expect("re: "+text, markA)
	}
	roundTrip("before", "10.7.0.2:1701")

	// The NAT forgets the mapping and makes another: the client's packets come from port 40009.
	moved := ch.clientOut
	moved.Encap.Local = 40009
	if err := client.kernel.do("rebind", msgUpdSA, client.request(moved).append); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := c.send("10.7.0.1:1701", markA, "rebound"); err != nil {
			t.Fatal(err)
		}
		s.expect("rebound", markA)
	}
	want := ipsec.Event{Kind: ipsec.EventMapping, ID: ch.serverIn.ID(), Remote: netip.MustParseAddrPort("10.7.0.2:40009")}
	if e := nextEvent(t, reports, time.Second); e != want {
		t.Fatalf("event %+v, want %+v", e, want)
	}
	select {
	case e := <-reports:
		t.Errorf("reported again: %+v", e)
	default:
	}
	if err := server.Move(markA, want.Remote); err != nil {
		t.Fatal(err)
	}
	// Both ends' SAs take part: sequence numbers go on, or the replay windows would drop these.
	back := ch.clientIn
	back.Encap.Local = 40009
	if err := client.kernel.do("rebind", msgUpdSA, client.request(back).append); err != nil {
		t.Fatal(err)
	}
	roundTrip("after the port", "10.7.0.2:1701")
	if st := a.ip("xfrm state"); strings.Count(st, "40009") != 2 || strings.Contains(st, "40001") {
		t.Errorf("SAs after the move:\n%s", st)
	}

	// And another address. The client's own SAs are made anew there, going on with its sequence number.
	st, err := client.getSA(client.request(ch.clientOut).key())
	if err != nil {
		t.Fatal(err)
	}
	again := newChild(markA, "10.7.0.1", "10.7.0.3", 40009, 0x1001, 0x2001, ipsectest.AESSHA1)
	r := client.request(again.clientOut)
	r.replay, r.replayESN = slices.Clone(st.replay), st.replayESN
	for _, sa := range []ipsec.SA{ch.clientIn, ch.clientOut} {
		if err := client.Remove(sa.ID()); err != nil {
			t.Fatal(err)
		}
	}
	install(t, client, again.clientIn)
	if err := client.add(r); err != nil {
		t.Fatal(err)
	}
	cl := client.clients[markA]
	cl.sas = append(cl.sas, &entry{sa: again.clientOut})
	if err := client.steer(cl, r); err != nil {
		t.Fatal(err)
	}
	c3 := z.endpoint("10.7.0.3:1701")
	for range 12 { // the kernel does not repeat itself within a second or two, as the port is the same
		if err := c3.send("10.7.0.1:1701", markA, "from elsewhere"); err != nil {
			t.Fatal(err)
		}
		s.expectNothing() // the selector holds the client to its address until the move
		if len(reports) > 0 {
			break
		}
	}
	want.Remote = netip.MustParseAddrPort("10.7.0.3:40009")
	if e := nextEvent(t, reports, time.Second); e != want {
		t.Fatalf("event %+v, want %+v", e, want)
	}
	before, err := server.Usage(ch.serverOut.ID())
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Move(markA, want.Remote); err != nil {
		t.Fatal(err)
	}
	after, err := server.Usage(ch.serverOut.ID())
	if err != nil || after.Packets != before.Packets || after.Bytes != before.Bytes {
		t.Errorf("usage %+v became %+v (error %v) by a move", before, after, err)
	}
	c = c3
	roundTrip("after the address", "10.7.0.3:1701")
	if out := a.ip("xfrm state"); strings.Contains(out, "10.7.0.2") {
		t.Errorf("SAs of the old address:\n%s", out)
	}
	if out := a.ip("xfrm policy"); strings.Contains(out, "10.7.0.2") {
		t.Errorf("policies of the old address:\n%s", out)
	}
}

func TestReplayWindowSurvivesMove(t *testing.T) {
	a, z := cable(t)
	server, client := a.backend(Options{}), z.backend(Options{})
	a.encap(4500)
	z.encap(40001)
	s, c := a.endpoint("10.7.0.1:1701"), z.endpoint("10.7.0.2:1701")
	ch := newChild(markA, "10.7.0.1", "10.7.0.2", 40001, 0x1001, 0x2001, ipsectest.AESSHA1)
	install(t, server, ch.serverIn, ch.serverOut)
	install(t, client, ch.clientIn, ch.clientOut)
	for i := range 5 {
		text := fmt.Sprint("packet ", i)
		if err := c.send("10.7.0.1:1701", markA, text); err != nil {
			t.Fatal(err)
		}
		s.expect(text, markA)
	}
	// There and back again.
	for _, to := range []string{"10.7.0.3:40001", "10.7.0.2:40001"} {
		if err := server.Move(markA, netip.MustParseAddrPort(to)); err != nil {
			t.Fatal(err)
		}
	}
	// The client starts again at sequence number 1 with the same keys: a replay, as far as the server can tell.
	if err := client.Remove(ch.clientOut.ID()); err != nil {
		t.Fatal(err)
	}
	install(t, client, ch.clientOut)
	if err := c.send("10.7.0.1:1701", markA, "packet 0"); err != nil {
		t.Fatal(err)
	}
	s.expectNothing()
	if u, err := server.Usage(ch.serverIn.ID()); err != nil || u.Replayed == 0 {
		t.Errorf("usage %+v, error %v: want a replay counted", u, err)
	}
}

// SAs that are made anew go on where they were, at both ends, without the peer's help.
func TestRenew(t *testing.T) {
	a, z := cable(t)
	server, client := a.backend(Options{}), z.backend(Options{})
	s, c := a.endpoint("10.7.0.1:1701"), z.endpoint("10.7.0.2:1701")
	ch := newChild(markA, "10.7.0.1", "10.7.0.2", 0, 0x1001, 0x2001, ipsectest.AESSHA1)
	ch.serverIn.Hard = ipsec.Lifetime{Packets: 1000}
	install(t, server, ch.serverIn, ch.serverOut)
	install(t, client, ch.clientIn, ch.clientOut)
	const packets = 5
	exchange := func() {
		t.Helper()
		for i := range packets {
			text := fmt.Sprint("packet ", i)
			if err := c.send("10.7.0.1:1701", markA, text); err != nil {
				t.Fatal(err)
			}
			s.expect(text, markA)
			if err := s.send("10.7.0.2:1701", markA, text); err != nil {
				t.Fatal(err)
			}
			c.expect(text, markA)
		}
	}
	exchange()
	before := a.ip("xfrm policy")
	for i := range 3 {
		if lost, err := server.Renew(); err != nil || len(lost) != 0 {
			t.Fatalf("lost %v, error %v", lost, err)
		}
		exchange()
		for _, sa := range []ipsec.SA{ch.serverIn, ch.serverOut} {
			if u, err := server.Usage(sa.ID()); err != nil || u.Packets != uint64((i+2)*packets) || u.Replayed != 0 {
				t.Errorf("%s: usage %+v, error %v", sa.Dir, u, err)
			}
		}
	}
	if after := a.ip("xfrm policy"); after != before {
		t.Errorf("policies before:\n%s\nafter:\n%s", before, after)
	}
	// What came in before does not come in again.
	if err := client.Remove(ch.clientOut.ID()); err != nil {
		t.Fatal(err)
	}
	install(t, client, ch.clientOut)
	if err := c.send("10.7.0.1:1701", markA, "packet 0"); err != nil {
		t.Fatal(err)
	}
	s.expectNothing()
	// Those that are gone stay gone.
	if err := server.Remove(ch.serverIn.ID()); err != nil {
		t.Fatal(err)
	}
	if lost, err := server.Renew(); err != nil || len(lost) != 0 {
		t.Errorf("lost %v, error %v", lost, err)
	}
	if out := a.ip("xfrm state"); strings.Contains(out, "0x00001001") || !strings.Contains(out, "0x00002001") {
		t.Errorf("SAs:\n%s", out)
	}
}

// TestESN goes on beyond 2^32 packets, also when a client gets another address there, with every kind of suite.
func TestESN(t *testing.T) {
	a, z := cable(t)
	server, client := a.backend(Options{}), z.backend(Options{})
	var able bool
	a.run(func() {
		if b, err := trialBackend(); err == nil {
			able = b.ESN()
			b.kernel.Close()
		}
	})
	if !able {
		t.Fatal("the kernel does not do extended sequence numbers")
	}
	a.encap(4500)
	z.encap(40001)
	s, c := a.endpoint("10.7.0.1:1701"), z.endpoint("10.7.0.2:1701")
	suites := []ipsec.Suite{ipsectest.AESSHA1, {Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA256, ICVBits: 128},
		{Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128}, {Cipher: ipsec.ChaCha20Poly1305, KeyBits: 256, ICVBits: 128}}
	for i, suite := range suites {
		ch := newChild(markA, "10.7.0.1", "10.7.0.2", 40001, ipsec.SPI(0x1001+i), ipsec.SPI(0x2001+i), suite)
		for _, sa := range []*ipsec.SA{&ch.serverIn, &ch.serverOut, &ch.clientIn, &ch.clientOut} {
			sa.ESN = true
		}
		install(t, server, ch.serverIn, ch.serverOut)
		install(t, client, ch.clientIn, ch.clientOut)
		// As after some four thousand million packets.
		advance := func(b *Backend, sa ipsec.SA, off int) {
			t.Helper()
			r := b.request(sa)
			st, err := b.getSA(r.key())
			if err != nil {
				t.Fatal(err)
			}
			if !st.replayESN {
				t.Fatal("the kernel does not report extended numbers")
			}
			r.replay, r.replayESN = slices.Clone(st.replay), true
			host.PutUint32(r.replay[off:], 0xfffffffa)
			if err := b.deleteSA(r.key(), r.reqid); err != nil {
				t.Fatal(err)
			}
			if err := b.add(r); err != nil {
				t.Fatal(err)
			}
		}
		advance(client, ch.clientOut, 4)
		advance(server, ch.serverIn, 8)
		for n := range 12 {
			text := fmt.Sprintf("%s %d", suite, n)
			if err := c.send("10.7.0.1:1701", markA, text); err != nil {
				t.Fatal(err)
			}
			s.expect(text, markA)
		}
		high := func(b *Backend, sa ipsec.SA, off int) uint32 {
			st, err := b.getSA(b.request(sa).key())
			if err != nil {
				t.Fatal(err)
			}
			return host.Uint32(st.replay[off:])
		}
		if out, in := high(client, ch.clientOut, 12), high(server, ch.serverIn, 16); out != 1 || in != 1 {
			t.Errorf("%s: the upper halves are %d and %d", suite, out, in)
		}
		for _, to := range []string{"10.7.0.3:40001", "10.7.0.2:40001"} { // made anew, and again
			if err := server.Move(markA, netip.MustParseAddrPort(to)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.send("10.7.0.1:1701", markA, "moved"); err != nil {
			t.Fatal(err)
		}
		s.expect("moved", markA)
		if err := s.send("10.7.0.2:1701", markA, "back"); err != nil {
			t.Fatal(err)
		}
		c.expect("back", markA)
		for _, sa := range []ipsec.SA{ch.serverIn, ch.serverOut} {
			if err := server.Remove(sa.ID()); err != nil {
				t.Fatal(err)
			}
		}
		for _, sa := range []ipsec.SA{ch.clientIn, ch.clientOut} {
			if err := client.Remove(sa.ID()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestIntegrityFailureIsCounted(t *testing.T) {
	a, z := cable(t)
	server, client := a.backend(Options{}), z.backend(Options{})
	s, c := a.endpoint("10.7.0.1:1701"), z.endpoint("10.7.0.2:1701")
	ch := newChild(markA, "10.7.0.1", "10.7.0.2", 0, 0x1001, 0x2001, ipsectest.AESSHA1)
	install(t, server, ch.serverIn, ch.serverOut)
	ch.clientOut.Keys = ipsectest.Keys(ch.clientOut.Suite, 99)
	install(t, client, ch.clientOut)
	if err := c.send("10.7.0.1:1701", markA, "forged"); err != nil {
		t.Fatal(err)
	}
	s.expectNothing()
	if u, err := server.Usage(ch.serverIn.ID()); err != nil || u.IntegrityFailed != 1 {
		t.Errorf("usage %+v, error %v: want an integrity failure", u, err)
	}
}

func TestSelectorHoldsClientToItsPort(t *testing.T) {
	a, z := cable(t)
	server, client := a.backend(Options{}), z.backend(Options{})
	ch := newChild(markA, "10.7.0.1", "10.7.0.2", 0, 0x1001, 0x2001, ipsectest.AESSHA1)
	install(t, server, ch.serverIn, ch.serverOut)
	ch.clientOut.Selector.RemotePort = 0
	ch.clientOut.Selector.Proto = 0
	install(t, client, ch.clientOut)
	s, other, c := a.endpoint("10.7.0.1:1701"), a.endpoint("10.7.0.1:161"), z.endpoint("10.7.0.2:1701")
	for _, to := range []string{"10.7.0.1:161", "10.7.0.1:1701"} {
		if err := c.send(to, markA, to); err != nil {
			t.Fatal(err)
		}
	}
	other.expectNothing()
	s.expect("10.7.0.1:1701", markA)
}

func TestExpiry(t *testing.T) {
	a, z := cable(t)
	server, client := a.backend(Options{Require: true}), z.backend(Options{})
	reports := events(server)
	s, c := a.endpoint("10.7.0.1:1701"), z.endpoint("10.7.0.2:1701")
	ch := newChild(markA, "10.7.0.1", "10.7.0.2", 0, 0x1001, 0x2001, ipsectest.AESSHA1)
	ch.serverIn.Soft, ch.serverIn.Hard = ipsec.Lifetime{Packets: 2}, ipsec.Lifetime{Packets: 4}
	ch.serverOut.Soft, ch.serverOut.Hard = ipsec.Lifetime{Time: time.Second}, ipsec.Lifetime{Time: 3 * time.Second}
	install(t, server, ch.serverIn, ch.serverOut)
	install(t, client, ch.clientIn, ch.clientOut)
	in, out := ch.serverIn.ID(), ch.serverOut.ID()
	for range 5 {
		if err := c.send("10.7.0.1:1701", markA, "counted"); err != nil {
			t.Fatal(err)
		}
	}
	for {
		if _, ok := s.receive(); !ok {
			break
		}
	}
	seen := make(map[ipsec.Event]int)
	for range 4 {
		seen[nextEvent(t, reports, 10*time.Second)]++
	}
	for _, e := range []ipsec.Event{
		{Kind: ipsec.EventSoftExpire, ID: in}, {Kind: ipsec.EventHardExpire, ID: in},
		{Kind: ipsec.EventSoftExpire, ID: out}, {Kind: ipsec.EventHardExpire, ID: out},
	} {
		if seen[e] != 1 {
			t.Errorf("%+v was reported %d times, all: %v", e, seen[e], seen)
		}
	}
	for _, id := range []ipsec.SAID{in, out} {
		if _, err := server.Usage(id); !errors.Is(err, ipsec.ErrNoSA) {
			t.Errorf("usage of %s: %v, want ErrNoSA", id, err)
		}
	}
	onWire := z.sniff()
	s.send("10.7.0.2:1701", markA, "in clear?") // the kernel takes it and drops it
	c.expectNothing()
	if n := onWire.count("udp 1701"); n != 0 {
		t.Error("after the SA expired L2TP was sent in clear")
	}
	// The same names can be used again, and the policy goes when its owner says so.
	install(t, server, ch.serverIn, ch.serverOut)
	for _, id := range []ipsec.SAID{in, out} {
		if err := server.Remove(id); err != nil {
			t.Fatal(err)
		}
	}
	if len(server.clients) != 0 {
		t.Errorf("left: %+v", server.clients)
	}
}

// TestLostReports takes SAs away without a report, as after an overflow.
func TestLostReports(t *testing.T) {
	a, _ := cable(t)
	server := a.backend(Options{})
	ch := newChild(markA, "10.7.0.1", "10.7.0.2", 0, 0x1001, 0x2001, ipsectest.AESSHA1)
	ch.serverOut.Soft = ipsec.Lifetime{Time: time.Nanosecond} // rounds up to a second
	install(t, server, ch.serverIn, ch.serverOut)
	if err := server.deleteSA(server.request(ch.serverIn).key(), server.request(ch.serverIn).reqid); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond)
	var got []ipsec.Event
	for range 2 {
		server.resync(func(e ipsec.Event) { got = append(got, e) })
	}
	want := []ipsec.Event{{Kind: ipsec.EventHardExpire, ID: ch.serverIn.ID()}, {Kind: ipsec.EventSoftExpire, ID: ch.serverOut.ID()}}
	if !slices.Equal(got, want) {
		t.Errorf("events %+v, want %+v", got, want)
	}
}

// TestIKEPassesPolicies has policies that stop all UDP, and IKE, which makes what policies wait for, goes on.
func TestIKEPassesPolicies(t *testing.T) {
	a, z := cable(t)
	server, client := a.encap(4500), z.encap(4500)
	for _, dir := range []string{"in", "out"} {
		a.ip("xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dir %s action block", dir)
		a.ip("xfrm policy add src ::/0 dst ::/0 proto udp dir %s action block", dir)
	}
	arrived := make(chan ipsec.Path, 8)
	server.Serve(func(p ipsec.Path, msg []byte) { arrived <- p; server.Send(p, msg) }, nil)
	answered := make(chan ipsec.Path, 8)
	client.Serve(func(p ipsec.Path, _ []byte) { answered <- p }, nil)
	for _, path := range []ipsec.Path{
		{Local: netip.MustParseAddrPort("10.7.0.3:500"), Remote: netip.MustParseAddrPort("10.7.0.1:500")},
		{Local: netip.MustParseAddrPort("10.7.0.3:4500"), Remote: netip.MustParseAddrPort("10.7.0.1:4500")},
		{Local: netip.MustParseAddrPort("[fd07::2]:4500"), Remote: netip.MustParseAddrPort("[fd07::1]:4500")},
	} {
		if err := client.Send(path, make([]byte, 28)); err != nil {
			t.Fatal(err)
		}
		for name, ch := range map[string]chan ipsec.Path{"message": arrived, "answer": answered} {
			select {
			case p := <-ch:
				if ch == arrived && (p.Local != path.Remote || p.Remote != path.Local) || ch == answered && p != path {
					t.Errorf("%s on %s, sent on %s", name, p, path)
				}
			case <-time.After(2 * time.Second):
				t.Fatalf("no %s on %s", name, path)
			}
		}
	}
	s, c := a.endpoint("10.7.0.1:1701"), z.endpoint("10.7.0.2:1701")
	if err := c.send("10.7.0.1:1701", 0, "stopped"); err != nil {
		t.Fatal(err)
	}
	s.expectNothing()
}

// TestFlood has more expiries at once than the kernel can queue: each is reported once nevertheless.
func TestFlood(t *testing.T) {
	a, _ := cable(t)
	server := a.backend(Options{})
	const clients = 400
	ch := newChild(markA, "10.7.0.1", "10.7.0.2", 0, 0x1001, 0x2001, ipsectest.AESSHA1)
	ch.serverIn.Soft, ch.serverIn.Hard = ipsec.Lifetime{}, ipsec.Lifetime{Time: 2 * time.Second}
	for i := range clients {
		sa := ch.serverIn
		sa.SPI += ipsec.SPI(i)
		sa.Mark = ipsec.Mark(i+1) << 16
		install(t, server, sa)
	}
	raw, err := server.monitor.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1) })
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(4500 * time.Millisecond) // nobody reads meanwhile
	reports := events(server)
	seen := make(map[ipsec.SAID]bool)
	for range clients {
		e := nextEvent(t, reports, 5*time.Second)
		if e.Kind != ipsec.EventHardExpire || seen[e.ID] {
			t.Fatalf("after %d: %+v", len(seen), e)
		}
		seen[e.ID] = true
	}
	// And it goes on hearing.
	ch.serverIn.SPI, ch.serverIn.Hard = 0x9001, ipsec.Lifetime{Time: time.Second}
	install(t, server, ch.serverIn)
	if e := nextEvent(t, reports, 5*time.Second); e.ID != ch.serverIn.ID() {
		t.Errorf("event %+v", e)
	}
}

// TestLabKernel runs what needs a kernel with IPsec in the lab's guests, with both of its kernels.
func TestLabKernel(t *testing.T) {
	lab.Run(t, func(t *testing.T, _ *lab.L) {
		for _, test := range []struct {
			name string
			f    func(*testing.T)
		}{
			{"ProbeAndSuites", TestProbeAndSuites},
			{"BackendConforms", TestBackendConforms},
			{"Traffic", TestTraffic},
			{"TwoClientsBehindOneNAT", TestTwoClientsBehindOneNAT},
			{"Rekey", TestRekey},
			{"GuardDropsCleartext", TestGuardDropsCleartext},
			{"ProtectSocket", TestProtectSocket},
			{"Hold", TestHold},
			{"MappingAndMove", TestMappingAndMove},
			{"ReplayWindowSurvivesMove", TestReplayWindowSurvivesMove},
			{"ESN", TestESN},
			{"IntegrityFailureIsCounted", TestIntegrityFailureIsCounted},
			{"SelectorHoldsClientToItsPort", TestSelectorHoldsClientToItsPort},
			{"Expiry", TestExpiry},
			{"LostReports", TestLostReports},
			{"IKEPassesPolicies", TestIKEPassesPolicies},
			{"Flood", TestFlood},
			{"CrashLeavesNothing", TestCrashLeavesNothing},
			{"LeftoversInTheWay", TestLeftoversInTheWay},
		} {
			t.Run(test.name, test.f)
		}
	})
}

// TestMain lets the test binary be a daemon that crashes.
func TestMain(m *testing.M) {
	if os.Getenv("XFRM_TEST_CRASH") != "" {
		crash()
	}
	os.Exit(m.Run())
}

// crash installs things, says so and waits for its end.
func crash() {
	b, err := New(Options{Require: true, MarkMask: 0x00ff0000})
	if err == nil {
		for _, m := range []ipsec.Mark{0x00010000, 0x00020000} {
			ch := newChild(m, "10.7.0.1", "10.7.0.2", 40001, ipsec.SPI(0x1000+m>>16), 0x2001, ipsectest.AESSHA1)
			err = errors.Join(err, b.Install(ch.serverIn), b.Install(ch.serverOut), b.Hold(m, netip.MustParseAddr("10.7.0.2")))
		}
	}
	fmt.Println("ready", err)
	time.Sleep(time.Minute)
	os.Exit(1)
}

func TestCrashLeavesNothing(t *testing.T) {
	a, _ := cable(t)
	// Somebody else's, some of it much like ours.
	a.ip("xfrm state add src 10.7.0.2 dst 10.7.0.1 proto esp spi 0x5001 reqid 17 mode transport auth-trunc hmac(sha1) 0x%040x 96 enc cbc(aes) 0x%032x output-mark 0x10000 mask 0xff0000", 1, 2)
	a.ip("xfrm state add src 10.7.0.1 dst 10.7.0.2 proto esp spi 0x2001 reqid 18 mode transport mark 0x990000 mask 0xff0000 auth-trunc hmac(sha1) 0x%040x 96 enc cbc(aes) 0x%032x", 1, 2)
	a.ip("xfrm state add src 10.7.0.2 dst 10.7.0.1 proto esp spi 0x5002 reqid 19 mode tunnel auth-trunc hmac(sha1) 0x%040x 96 enc cbc(aes) 0x%032x", 1, 2)
	a.ip("xfrm policy add src 10.7.0.0/24 dst 10.8.0.0/24 dir out priority 49521 tmpl src 10.7.0.1 dst 10.7.0.2 proto esp reqid 19 mode tunnel")
	a.ip("xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 proto udp sport 1701 dir out priority 7 mark 0x990000 mask 0xff0000 tmpl proto esp reqid 18 mode transport")
	a.ip("xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport 1703 dir in priority 49522 tmpl proto esp reqid 18 mode transport")
	foreign := func() (string, int) {
		var lines []string
		out := a.ip("xfrm state") + a.ip("xfrm policy")
		for l := range strings.Lines(out) {
			if !strings.Contains(l, "socket") { // of the IKE sockets
				lines = append(lines, l)
			}
		}
		return strings.Join(lines, ""), strings.Count(out, "dst ")
	}
	before, count := foreign()

	var cmd *exec.Cmd
	var line string
	a.run(func() {
		cmd = exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "XFRM_TEST_CRASH=1")
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Error(err)
			return
		}
		line, _ = bufio.NewReader(out).ReadString('\n')
	})
	if line != "ready <nil>\n" {
		t.Fatalf("the daemon says %q", line)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if _, n := foreign(); n <= count {
		t.Fatal("the crashed daemon left nothing to clean")
	}
	// The successor has another configuration.
	b := a.backend(Options{Require: false})
	if now, _ := foreign(); now != before {
		t.Errorf("after a new start:\n%s\nwant\n%s", now, before)
	}
	ch := newChild(markA, "10.7.0.1", "10.7.0.2", 40001, 0x1001, 0x2001, ipsectest.AESSHA1)
	install(t, b, ch.serverIn, ch.serverOut)
	if err := b.Guard(true); err != nil {
		t.Fatal(err)
	}
	taken := ch.serverIn
	taken.SPI = 0x5001
	if err := b.Install(taken); !errors.Is(err, ipsec.ErrSAExists) {
		t.Errorf("an SPI that another daemon has: error %v, want ErrSAExists", err)
	}
	if err := b.Remove(taken.ID()); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if now, _ := foreign(); now != before {
		t.Errorf("after the end:\n%s\nwant\n%s", now, before)
	}
}

// TestLeftoversInTheWay installs what a predecessor has left under the same names, after New did not see it.
func TestLeftoversInTheWay(t *testing.T) {
	a, _ := cable(t)
	second := a.backend(Options{})
	first := a.backend(Options{})
	ch := newChild(markA, "10.7.0.1", "10.7.0.2", 40001, 0x1001, 0x2001, ipsectest.AESSHA1)
	install(t, first, ch.serverIn, ch.serverOut)
	install(t, second, ch.serverIn, ch.serverOut)
	if err := errors.Join(first.Guard(true), second.Guard(true)); err != nil {
		t.Error(err)
	}
	a.ip("xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport 1709 dir in priority 5 tmpl proto esp reqid 18 mode transport")
	a.run(func() {
		_, err := New(Options{Ports: []uint16{1709}, Require: true})
		if err == nil || !strings.Contains(err.Error(), "another program") {
			t.Errorf("a guard in whose place another program's policy is: error %v", err)
		}
	})
}
