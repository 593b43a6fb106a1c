package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
)

// TestEverySuite sends payloads of many lengths both ways, encapsulated and plain, over both families.
func TestEverySuite(t *testing.T) {
	for _, suite := range everySuite() {
		for _, network := range []struct{ server, client string }{{serverAddr, clientAddr}, {"2001:db8::1", "2001:db8:7::7"}} {
			for _, port := range []uint16{0, 40001} {
				t.Run(fmt.Sprintf("%s/%d/%s/%d", suite, suite.ICVBits, network.client, port), func(t *testing.T) {
					c := newChild(markA, network.server, network.client, port, 0x1001, 0x80002001, suite)
					server, client := newEnd(t), newEnd(t)
					server.install(t, c.serverIn, c.serverOut)
					client.install(t, c.clientIn, c.clientOut)
					s, p := netip.AddrPortFrom(c.serverIn.Local, 1701), netip.AddrPortFrom(c.clientIn.Local, 1701)
					var total uint64
					sizes := []int{0, 1, 2, 3, 5, 6, 7, 8, 13, 14, 15, 16, 17, 63, 64, 1000, 1399, 1400, 1460, 4000}
					for i, n := range sizes {
						text := string(bytes.Repeat([]byte{byte(n)}, n))
						if err := client.SendMessage(markA, p, s, []byte(text)); err != nil {
							t.Fatal(err)
						}
						w := client.take()
						if max := n + udpHeader + suite.Overhead(n+udpHeader); len(w) != 1 || len(w[0].packet) > max {
							t.Fatalf("%d octets became %d packets, of %d octets, at most %d expected", n, len(w), len(w[0].packet), max)
						}
						if binary.BigEndian.Uint32(w[0].packet) != uint32(c.clientOut.SPI) || binary.BigEndian.Uint32(w[0].packet[4:]) != uint32(i+1) {
							t.Fatalf("header %x", w[0].packet[:8])
						}
						server.receive(w...)
						if err := server.SendMessage(markA, s, p, []byte("re: "+text)); err != nil {
							t.Fatal(err)
						}
						client.receive(server.take()...)
						if len(server.up) != 1 || server.up[0] != (delivery{markA, s, p, text}) {
							t.Fatalf("%d octets: server got %d, drops %+v", n, len(server.up), server.Drops())
						}
						if len(client.up) != 1 || client.up[0] != (delivery{markA, p, s, "re: " + text}) {
							t.Fatalf("%d octets: client got %d, drops %+v", n, len(client.up), client.Drops())
						}
						server.up, client.up = nil, nil
						total += uint64(n + udpHeader)
					}
					u, err := server.Usage(c.serverIn.ID())
					if err != nil || u.Packets != uint64(len(sizes)) || u.Bytes != total || !u.LastUsed.Equal(server.now) {
						t.Errorf("usage %+v, error %v, want %d octets", u, err, total)
					}
					if ev := append(server.queued(), client.queued()...); len(ev) != 0 || server.Drops() != (Drops{}) || client.Drops() != (Drops{}) {
						t.Errorf("events %v, drops %+v and %+v", ev, server.Drops(), client.Drops())
					}
				})
			}
		}
	}
}

// TestPacketLayout opens a packet by hand, with nothing of this package's receiving side.
func TestPacketLayout(t *testing.T) {
	_, client, c := pair(t, func(c *child) {
		*c = newChild(markA, serverAddr, clientAddr, 40001, 0x1001, 0x2001, ipsec.Suite{Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128})
	})
	w := client.say(t, "hello")
	if w.path != (ipsec.Path{Local: netip.MustParseAddrPort("198.51.100.7:40001"), Remote: netip.MustParseAddrPort("192.0.2.1:4500")}) {
		t.Errorf("path %s", w.path)
	}
	// 8 of header, 8 of IV, 8+5 of UDP, 1 of padding, 2 of trailer, 16 of ICV.
	if len(w.packet) != 48 || !bytes.Equal(w.packet[:16], []byte{0, 0, 0x10, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}) {
		t.Errorf("packet %x", w.packet)
	}
	s := New(Options{Deliver: func(ipsec.Mark, netip.AddrPort, netip.AddrPort, []byte) {}})
	defer s.Close()
	if err := s.Install(c.serverIn); err != nil {
		t.Fatal(err)
	}
	in := s.tables.Load().in[c.serverIn.SPI]
	if err := in.crypt.Open(w.packet, 1); err != nil {
		t.Fatal(err)
	}
	if want := append([]byte{6, 0xa5, 6, 0xa5, 0, 13, 0, 0}, "hello\x01\x01\x11"...); !bytes.Equal(w.packet[16:32], want) {
		t.Errorf("text %x, want %x", w.packet[16:32], want)
	}
}

func TestShuffleLosesNothing(t *testing.T) {
	for _, window := range []int{0, 64, 1024, ipsec.MaxReplay} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			server, client, _ := pair(t, func(c *child) {
				c.serverIn.Replay = window
				c.serverIn.Suite = ipsec.Suite{Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128}
				c.serverIn.Keys = ipsectest.Keys(c.serverIn.Suite, 3)
				c.clientOut.Suite, c.clientOut.Keys = c.serverIn.Suite, c.serverIn.Keys
			})
			n := 10000
			packets := make([]wirePacket, n)
			for i := range packets {
				packets[i] = client.say(t, fmt.Sprint(i))
			}
			size := max(window, defaultReplay*btoi(window == 0))
			// Blocks of a window's length, each shuffled: no packet is ever older than the window.
			r := rand.New(rand.NewPCG(1, uint64(window)))
			for at := 0; at < n; at += size {
				block := packets[at:min(at+size, n)]
				r.Shuffle(len(block), func(i, j int) { block[i], block[j] = block[j], block[i] })
			}
			server.receive(packets...)
			if len(server.up) != n {
				t.Errorf("%d of %d arrived, drops %+v", len(server.up), n, server.Drops())
			}
			// Every one again: none passes.
			server.receive(packets...)
			if len(server.up) != n || server.Drops().Replayed != uint64(n) {
				t.Errorf("after a replay of all %d arrived, drops %+v", len(server.up), server.Drops())
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestLateAndDuplicatePackets(t *testing.T) {
	server, client, _ := pair(t, func(c *child) { c.serverIn.Replay = 64 })
	var packets []wirePacket
	for i := range 200 {
		packets = append(packets, client.say(t, fmt.Sprint(i)))
	}
	server.receive(packets[199], packets[199], packets[136], packets[135], packets[136], packets[0])
	if len(server.up) != 2 || server.up[1].payload != "136" || server.Drops().Replayed != 4 {
		t.Errorf("arrived %v, drops %+v", server.up, server.Drops())
	}
}

// TestUnauthenticPacketsChangeNothing spoils every octet and cuts at every length, then sends the good packet.
func TestUnauthenticPacketsChangeNothing(t *testing.T) {
	for _, suite := range everySuite() {
		c := newChild(markA, serverAddr, clientAddr, 40001, 0x1001, 0x2001, suite)
		server, client := newEnd(t), newEnd(t)
		server.install(t, c.serverIn)
		client.install(t, c.clientOut)
		good := client.say(t, "hello")
		elsewhere := good
		elsewhere.path.Local = netip.MustParseAddrPort("203.0.113.9:9")
		before := server.Snapshot()
		for i := range good.packet {
			b := bytes.Clone(good.packet)
			b[i] ^= 1 << (i % 8)
			server.receive(wirePacket{elsewhere.path, b}, wirePacket{good.path, b})
		}
		for n := range good.packet {
			server.receive(wirePacket{good.path, good.packet[:n]})
		}
		if n := len(server.up); n != 0 {
			t.Fatalf("%s: %d spoilt packets were delivered", suite, n)
		}
		after := server.Snapshot()
		if after[0].Usage.IntegrityFailed == 0 {
			t.Errorf("%s: no integrity failure was counted", suite)
		}
		after[0].Usage.IntegrityFailed = 0
		if after[0] != before[0] {
			t.Errorf("%s: state before %+v, after %+v", suite, before[0], after[0])
		}
		if ev := server.queued(); len(ev) != 0 {
			t.Errorf("%s: events %v", suite, ev)
		}
		// A forged higher sequence number has not moved the window.
		server.receive(good)
		if len(server.up) != 1 {
			t.Errorf("%s: the good packet was dropped: %+v", suite, server.Drops())
		}
	}
}

func TestSequenceNumbersRunOut(t *testing.T) {
	server, client, c := pair(t, nil)
	out := client.tables.Load().out[markA]
	out.seq = math.MaxUint32 - 2
	out.softTold = true // long ago, at 0xf0000000 packets
	a, b := client.say(t, "last but one"), client.say(t, "last")
	server.receive(a, b)
	if len(server.up) != 2 || server.Snapshot()[0].Sequence != math.MaxUint32 {
		t.Errorf("arrived %v", server.up)
	}
	for range 3 {
		if err := client.SendMessage(markA, clientL2TP, serverL2TP, nil); !errors.Is(err, ErrExpired) {
			t.Errorf("one more: error %v", err)
		}
	}
	if ev := client.queued(); len(ev) != 1 || ev[0] != (ipsec.Event{Kind: ipsec.EventHardExpire, ID: c.clientOut.ID()}) {
		t.Errorf("events %v", ev)
	}
	if len(client.take()) != 0 {
		t.Error("something was sent")
	}
	// A new SA carries on.
	young := newChild(markA, serverAddr, clientAddr, 40001, 0x1002, 0x2002, ipsectest.AESSHA1)
	client.install(t, young.clientOut)
	client.say(t, "again")
	// And a soft limit of packets stands in for what nobody configured.
	if got := client.tables.Load().out[markA].soft.Packets; got != softPackets {
		t.Errorf("soft limit %d", got)
	}
}

func TestLifetimes(t *testing.T) {
	for name, tc := range map[string]struct {
		soft, hard   ipsec.Lifetime
		say          int // packets of 8+12 octets
		wantSoft     bool
		wantHard     bool
		wantDelivery int
	}{
		"packets, none":  {ipsec.Lifetime{Packets: 5}, ipsec.Lifetime{Packets: 7}, 4, false, false, 4},
		"packets, soft":  {ipsec.Lifetime{Packets: 5}, ipsec.Lifetime{Packets: 7}, 7, true, false, 7},
		"packets, hard":  {ipsec.Lifetime{Packets: 5}, ipsec.Lifetime{Packets: 7}, 20, true, true, 7},
		"bytes, soft":    {ipsec.Lifetime{Bytes: 60}, ipsec.Lifetime{Bytes: 100}, 3, true, false, 3},
		"bytes, hard":    {ipsec.Lifetime{Bytes: 60}, ipsec.Lifetime{Bytes: 100}, 9, true, true, 5},
		"no limit":       {ipsec.Lifetime{}, ipsec.Lifetime{}, 50, false, false, 50},
		"hard, not soft": {ipsec.Lifetime{}, ipsec.Lifetime{Packets: 2}, 5, false, true, 2},
	} {
		for _, receiver := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, receiver %t", name, receiver), func(t *testing.T) {
				server, client, c := pair(t, func(c *child) {
					sa := &c.clientOut
					if receiver {
						sa = &c.serverIn
					}
					sa.Soft, sa.Hard = tc.soft, tc.hard
				})
				for range tc.say {
					client.SendMessage(markA, clientL2TP, serverL2TP, []byte("twelve chars"))
				}
				server.receive(client.take()...)
				e, id := client, c.clientOut.ID()
				if receiver {
					e, id = server, c.serverIn.ID()
				}
				var want []ipsec.Event
				if tc.wantSoft {
					want = append(want, ipsec.Event{Kind: ipsec.EventSoftExpire, ID: id})
				}
				if tc.wantHard {
					want = append(want, ipsec.Event{Kind: ipsec.EventHardExpire, ID: id})
				}
				if got := e.queued(); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("events %v, want %v", got, want)
				}
				if len(server.up) != tc.wantDelivery {
					t.Errorf("%d delivered, want %d", len(server.up), tc.wantDelivery)
				}
			})
		}
	}
}

func TestLifetimesOfTime(t *testing.T) {
	server, client, c := pair(t, func(c *child) {
		c.serverIn.Soft.Time, c.serverIn.Hard.Time = 50*time.Minute, time.Hour
		c.serverOut.Soft.Time, c.serverOut.Hard.Time = 0, 0
	})
	start := server.now
	step := func(want time.Duration, kinds ...ipsec.EventKind) {
		t.Helper()
		d := server.Deadline()
		if want == 0 {
			if !d.IsZero() {
				t.Fatalf("deadline %s after the start, want none", d.Sub(start))
			}
			return
		}
		if d.Sub(start) != want {
			t.Fatalf("deadline %s after the start, want %s", d.Sub(start), want)
		}
		server.Tick(d.Add(-1))
		if ev := server.queued(); len(ev) != 0 {
			t.Fatalf("events %v before their time", ev)
		}
		server.now = d
		server.Tick(d)
		ev := server.queued()
		if len(ev) != len(kinds) {
			t.Fatalf("events %v", ev)
		}
		for i, k := range kinds {
			if ev[i].Kind != k || ev[i].ID != c.serverIn.ID() {
				t.Errorf("event %v, want %d", ev[i], k)
			}
		}
	}
	step(50*time.Minute, ipsec.EventSoftExpire)
	server.receive(client.say(t, "still good"))
	step(time.Hour, ipsec.EventHardExpire)
	server.receive(client.say(t, "too late"))
	if len(server.up) != 1 || server.Drops().Expired != 1 {
		t.Errorf("arrived %v, drops %+v", server.up, server.Drops())
	}
	if _, err := server.Usage(c.serverIn.ID()); err != nil {
		t.Errorf("usage until removal: %v", err)
	}
	step(0)
}

// TestEventsAreNotLost fills the queue and has Tick report what did not fit.
func TestEventsAreNotLost(t *testing.T) {
	e := newEnd(t)
	const n = eventQueue + 40
	for i := range n {
		c := newChild(ipsec.Mark(i+1), serverAddr, clientAddr, 40001, ipsec.SPI(0x1000+i), 0x2000, ipsectest.AESSHA1)
		c.serverIn.Soft, c.serverIn.Hard = ipsec.Lifetime{}, ipsec.Lifetime{Time: time.Hour}
		e.install(t, c.serverIn)
	}
	e.now = e.Deadline()
	e.Tick(e.now)
	got := len(e.queued())
	if got != eventQueue {
		t.Fatalf("%d events at first", got)
	}
	d := e.Deadline()
	if d.Sub(e.now) != eventRetry {
		t.Fatalf("next deadline %s later", d.Sub(e.now))
	}
	e.Tick(d)
	if got += len(e.queued()); got != n {
		t.Errorf("%d events in all, want %d", got, n)
	}
	if d := e.Deadline(); !d.IsZero() {
		t.Errorf("still a deadline: %s", d)
	}
}

func TestServeDeliversEvents(t *testing.T) {
	e := newEnd(t)
	c := newChild(markA, serverAddr, clientAddr, 40001, 0x1001, 0x2001, ipsectest.AESSHA1)
	c.serverOut.Hard.Packets = 1
	e.install(t, c.serverOut)
	got := make(chan ipsec.Event, 4)
	e.Serve(func(ev ipsec.Event) { got <- ev })
	for range 2 {
		e.SendMessage(markA, serverL2TP, clientL2TP, nil)
	}
	select {
	case ev := <-got:
		if ev.Kind != ipsec.EventHardExpire || ev.ID != c.serverOut.ID() {
			t.Errorf("event %v", ev)
		}
	case <-time.After(5 * time.Second):
		t.Error("no event")
	}
}

func TestRekeyOverlap(t *testing.T) {
	server, client, old := pair(t, nil)
	late := client.say(t, "sealed with the old one")
	young := newChild(markA, serverAddr, clientAddr, 40001, 0x1002, 0x2002, ipsectest.AESSHA1)
	server.install(t, young.serverIn, young.serverOut)
	client.install(t, young.clientIn, young.clientOut)
	w := client.say(t, "new")
	if spi := binary.BigEndian.Uint32(w.packet); spi != uint32(young.clientOut.SPI) {
		t.Errorf("sent on SPI %x, not on the newest", spi)
	}
	server.receive(w, late)
	if len(server.up) != 2 {
		t.Errorf("arrived %v", server.up)
	}
	for _, s := range client.Snapshot() {
		if s.ID.Dir == ipsec.Out && s.Current != (s.ID == young.clientOut.ID()) {
			t.Errorf("%+v", s)
		}
	}
	// The newest goes first: the older one serves again.
	if err := client.Remove(young.clientOut.ID()); err != nil {
		t.Fatal(err)
	}
	server.receive(client.say(t, "old again"))
	if len(server.up) != 3 {
		t.Errorf("arrived %v", server.up)
	}
	if err := client.Remove(old.clientOut.ID()); err != nil {
		t.Fatal(err)
	}
	if err := client.SendMessage(markA, clientL2TP, serverL2TP, []byte("in clear?")); !errors.Is(err, ipsec.ErrNoSA) || len(client.take()) != 0 {
		t.Errorf("without an SA: error %v", err)
	}
}

func TestTwoClientsBehindOneNAT(t *testing.T) {
	server := newEnd(t)
	a := newChild(markA, serverAddr, clientAddr, 40001, 0x1001, 0x2001, ipsectest.AESSHA1)
	b := newChild(markB, serverAddr, clientAddr, 40002, 0x1002, 0x2001, ipsectest.AESSHA1)
	b.serverOut.Keys, b.clientIn.Keys = ipsectest.Keys(ipsectest.AESSHA1, 99), ipsectest.Keys(ipsectest.AESSHA1, 99)
	server.install(t, a.serverIn, a.serverOut, b.serverIn, b.serverOut)
	for _, c := range []struct {
		mark ipsec.Mark
		child
	}{{markA, a}, {markB, b}} {
		client := newEnd(t)
		client.install(t, c.clientIn, c.clientOut)
		if err := client.SendMessage(c.mark, clientL2TP, serverL2TP, []byte("x")); err != nil {
			t.Fatal(err)
		}
		server.receive(client.take()...)
		if d := server.up[len(server.up)-1]; d.mark != c.mark {
			t.Errorf("mark %s, want %s", d.mark, c.mark)
		}
		server.SendMessage(c.mark, serverL2TP, clientL2TP, []byte("y"))
		w := server.take()
		if w[0].path.Remote.Port() != c.serverOut.Encap.Remote {
			t.Errorf("sent to %s", w[0].path.Remote)
		}
		client.receive(w...)
		if len(client.up) != 1 {
			t.Errorf("drops %+v", client.Drops())
		}
	}
}

func TestMoveKeepsSequenceNumbers(t *testing.T) {
	server, client, c := pair(t, nil)
	first := client.say(t, "1")
	server.receive(first)
	server.SendMessage(markA, serverL2TP, clientL2TP, []byte("1"))
	client.receive(server.take()...)

	// The NAT gives the client another port: its packets are taken and the change is reported, once a second.
	moved := func(text string) wirePacket {
		w := client.say(t, text)
		w.path.Local = netip.MustParseAddrPort("198.51.100.7:50005")
		return w
	}
	server.receive(moved("2"), moved("3"))
	want := ipsec.Event{Kind: ipsec.EventMapping, ID: c.serverIn.ID(), Remote: netip.MustParseAddrPort("198.51.100.7:50005")}
	if ev := server.queued(); len(ev) != 1 || ev[0] != want {
		t.Fatalf("events %v, want %v", ev, want)
	}
	server.now = server.now.Add(mappingEvery)
	server.receive(moved("4"))
	if ev := server.queued(); len(ev) != 1 {
		t.Errorf("a second later: events %v", ev)
	}
	if len(server.up) != 4 {
		t.Errorf("arrived %v", server.up)
	}
	if err := server.Move(markA, want.Remote); err != nil {
		t.Fatal(err)
	}
	server.SendMessage(markA, serverL2TP, clientL2TP, []byte("2"))
	w := server.take()
	if w[0].path.Remote != want.Remote || binary.BigEndian.Uint32(w[0].packet[4:]) != 2 {
		t.Errorf("after the move: to %s, sequence %x", w[0].path.Remote, w[0].packet[4:8])
	}
	// What was under way on the old path arrives late, is delivered, and does not move the client back.
	late := client.say(t, "late")
	server.receive(moved("5"), late)
	if ev := server.queued(); len(ev) != 0 || server.up[len(server.up)-1].payload != "late" {
		t.Errorf("events %v, arrived %v", ev, server.up)
	}
	server.receive(first, moved("6"))
	if d := server.Drops(); d.Replayed != 1 || len(server.up) != 7 {
		t.Errorf("drops %+v, arrived %v", d, server.up)
	}
	// Another address must first be moved to: the selector names the old one.
	far := client.say(t, "far")
	far.path.Local = netip.MustParseAddrPort("203.0.113.9:7")
	server.receive(far)
	if ev := server.queued(); len(ev) != 1 || ev[0].Remote != far.path.Local || server.Drops().Selector != 1 {
		t.Errorf("events %v, drops %+v", ev, server.Drops())
	}
	if err := server.Move(markA, far.path.Local); err != nil {
		t.Fatal(err)
	}
	far = client.say(t, "far again")
	far.path.Local = netip.MustParseAddrPort("203.0.113.9:7")
	server.receive(far)
	if d := server.up[len(server.up)-1]; d.payload != "far again" || d.remote != netip.MustParseAddrPort("203.0.113.9:1701") {
		t.Errorf("last %+v", d)
	}
}

func TestSelector(t *testing.T) {
	for name, tc := range map[string]struct {
		change         func(*child)
		sport, dport   uint16
		local, deliver bool // admitted by the sender's selector, and by the receiver's
	}{
		"as agreed":        {nil, 1701, 1701, true, true},
		"any peer port":    {nil, 50000, 1701, true, true},
		"wrong port":       {nil, 1701, 1702, true, false},
		"sender's port":    {func(c *child) { c.clientOut.Selector.LocalPort = 1701 }, 5, 1701, false, false},
		"no selector":      {func(c *child) { c.serverIn.Selector = ipsec.Selector{} }, 9, 9, true, true},
		"another protocol": {func(c *child) { c.serverIn.Selector = ipsec.Selector{Proto: 115} }, 1701, 1701, true, false},
		"another address":  {func(c *child) { c.serverIn.Selector.Remote = netip.MustParsePrefix("198.51.100.8/32") }, 1701, 1701, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			server, client, _ := pair(t, func(c *child) {
				c.clientOut.Selector = ipsec.Selector{Proto: 17}
				if tc.change != nil {
					tc.change(c)
				}
			})
			err := client.SendMessage(markA, netip.AddrPortFrom(clientL2TP.Addr(), tc.sport), netip.AddrPortFrom(serverL2TP.Addr(), tc.dport), []byte("x"))
			if (err == nil) != tc.local || err != nil && !errors.Is(err, ErrSelector) {
				t.Fatalf("send: %v", err)
			}
			server.receive(client.take()...)
			if (len(server.up) == 1) != tc.deliver || tc.local && !tc.deliver && server.Drops().Selector != 1 {
				t.Errorf("arrived %v, drops %+v", server.up, server.Drops())
			}
		})
	}
}

func TestPeerPortIsHeldTo(t *testing.T) {
	server, client, c := pair(t, nil)
	server.o.PeerPort = true
	c.serverIn.Selector.RemotePort, c.serverIn.SPI = 1701, 0x1009
	c.clientOut.SPI = 0x1009
	server.install(t, c.serverIn)
	client.install(t, c.clientOut)
	for _, port := range []uint16{1701, 1702} {
		client.SendMessage(markA, netip.AddrPortFrom(clientL2TP.Addr(), port), serverL2TP, nil)
	}
	server.receive(client.take()...)
	if len(server.up) != 1 || server.Drops().Selector != 1 {
		t.Errorf("arrived %v, drops %+v", server.up, server.Drops())
	}
}

// TestAuthenticNonsense has a peer with the right keys send what makes no sense.
func TestAuthenticNonsense(t *testing.T) {
	udp := func(length int, payload string) []byte {
		b := []byte{6, 0xa5, 6, 0xa5, byte(length >> 8), byte(length), 0, 0}
		return append(b, payload...)
	}
	// trailer pads to 48 octets.
	trailer := func(b []byte, next byte) []byte {
		pad := 48 - len(b) - 2
		return append(append(b, make([]byte, pad)...), byte(pad), next)
	}
	for name, tc := range map[string]struct {
		text []byte
		want Drops
		up   string
	}{
		"padding beyond RFC 4303 2.4": {trailer(udp(11, "abc"), 17), Drops{}, "abc"},
		"traffic flow padding":        {append(append(udp(11, "abc"), make([]byte, 35)...), 0, 17), Drops{}, "abc"},
		"dummy":                       {trailer(nil, 59), Drops{Dummy: 1}, ""},
		"tunnel mode":                 {trailer(udp(8, ""), 4), Drops{NotUDP: 1}, ""},
		"pad length too long":         {append(make([]byte, 46), 47, 17), Drops{Malformed: 1}, ""},
		"nothing but padding":         {append(make([]byte, 46), 46, 17), Drops{Malformed: 1}, ""},
		"half a UDP header":           {append(make([]byte, 46), 39, 17), Drops{Malformed: 1}, ""},
		"UDP length too long":         {trailer(udp(12, "abc"), 17), Drops{Malformed: 1}, ""},
		"UDP length too short":        {trailer(udp(7, "abc"), 17), Drops{Malformed: 1}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server, client, _ := pair(t, nil)
			w := client.craft(t, tc.text)
			server.receive(w)
			if got := server.Drops(); got != tc.want {
				t.Errorf("drops %+v, want %+v", got, tc.want)
			}
			if tc.up != "" && (len(server.up) != 1 || server.up[0].payload != tc.up) || tc.up == "" && len(server.up) != 0 {
				t.Errorf("arrived %v", server.up)
			}
		})
	}
}

func TestWrongPlaces(t *testing.T) {
	server, client, c := pair(t, nil)
	plain := newChild(markB, serverAddr, clientAddr, 0, 0x3001, 0x4001, ipsectest.AESSHA1)
	server.install(t, plain.serverIn)
	client.install(t, plain.clientOut)
	w := client.say(t, "encapsulated")
	client.SendMessage(markB, clientL2TP, serverL2TP, []byte("plain"))
	p := client.take()[0]
	// Each in the other's clothes.
	server.receive(wirePacket{p.path, w.packet}, wirePacket{w.path, p.packet})
	if d := server.Drops(); d.Encap != 2 || len(server.up) != 0 {
		t.Errorf("drops %+v, arrived %v", d, server.up)
	}
	// To another of our addresses.
	other := w
	other.path.Remote = netip.MustParseAddrPort("192.0.2.99:4500")
	server.receive(other)
	if d := server.Drops(); d.Unknown != 1 {
		t.Errorf("drops %+v", d)
	}
	// A socket that does not know the address it was reached at.
	other.path.Remote = netip.MustParseAddrPort("0.0.0.0:4500")
	server.receive(other, p)
	if len(server.up) != 2 {
		t.Errorf("arrived %v, drops %+v", server.up, server.Drops())
	}
	// An SPI nobody knows, and an outbound one.
	server.receive(wirePacket{w.path, make([]byte, 100)}, wirePacket{w.path, append([]byte{0x80, 0, 0x20, 1}, make([]byte, 100)...)})
	if d := server.Drops(); d.Unknown != 3 {
		t.Errorf("drops %+v", d)
	}
	if err := server.Remove(c.serverIn.ID()); err != nil {
		t.Fatal(err)
	}
	server.receive(client.say(t, "gone"))
	if d := server.Drops(); d.Unknown != 4 {
		t.Errorf("drops %+v", d)
	}
}

func TestChecksums(t *testing.T) {
	// A plain SA's checksum is looked at; zero is none.
	c := newChild(markA, "2001:db8::1", "2001:db8:7::7", 0, 0x1001, 0x2001, ipsectest.AESSHA1)
	server, client := newEnd(t), newEnd(t)
	server.install(t, c.serverIn)
	client.install(t, c.clientOut)
	for _, tc := range []struct {
		sum  [2]byte
		good bool
	}{{[2]byte{0, 0}, true}, {[2]byte{1, 2}, false}} {
		server.up = nil
		server.receive(client.craft(t, []byte{6, 0xa5, 6, 0xa5, 0, 8, tc.sum[0], tc.sum[1], 1, 2, 3, 4, 5, 6, 6, 17}))
		if (len(server.up) == 1) != tc.good {
			t.Errorf("checksum %x: arrived %v, drops %+v", tc.sum, server.up, server.Drops())
		}
	}
	// RFC 768 by hand: 2001:db8::1 to ::2, ports 1701, three octets.
	src, dst := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	d := []byte{6, 0xa5, 6, 0xa5, 0, 11, 0, 0, 'a', 'b', 'c'}
	// 2*(2001+0db8)+1+2 + 11 + 11h + 06a5+06a5+000b + 6162+6300
	sum := 2*(0x2001+0x0db8) + 3 + 11 + 0x11 + 0x6a5 + 0x6a5 + 11 + 0x6162 + 0x6300
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if got, want := checksum(src, dst, d), ^uint16(sum); got != want {
		t.Errorf("checksum %04x, want %04x", got, want)
	}
	binary.BigEndian.PutUint16(d[6:], checksum(src, dst, d))
	if !checksumValid(src, dst, d) || checksumValid(src, netip.MustParseAddr("2001:db8::3"), d) {
		t.Error("verification")
	}
}

func TestRoomAndLength(t *testing.T) {
	_, client, _ := pair(t, func(c *child) { c.clientOut.Selector = ipsec.Selector{} })
	send := func(buf []byte, at int) error { return client.Send(markA, clientL2TP, serverL2TP, buf, at) }
	full := make([]byte, Headroom+100, Headroom+100+Tailroom)
	if err := send(full, Headroom); err != nil {
		t.Errorf("enough room: %v", err)
	}
	for name, err := range map[string]error{
		"headroom": send(full, Headroom-1), "tailroom": send(full[:len(full):len(full)], Headroom), "beyond": send(full, len(full)+1),
	} {
		if !errors.Is(err, ErrRoom) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if err := client.SendMessage(markA, clientL2TP, serverL2TP, make([]byte, maxPayload)); err != nil {
		t.Errorf("the longest: %v", err)
	}
	if err := client.SendMessage(markA, clientL2TP, serverL2TP, make([]byte, maxPayload+1)); !errors.Is(err, ErrTooLong) {
		t.Errorf("one more: error %v", err)
	}
	if n, err := client.SendBatch(markA, clientL2TP, serverL2TP, [][]byte{full, full, full[:Headroom:Headroom], full}, Headroom); n != 2 || !errors.Is(err, ErrRoom) {
		t.Errorf("batch: %d, error %v", n, err)
	}
	// Plain ESP needs its socket.
	b := New(Options{})
	defer b.Close()
	var bad *ipsec.SAError
	if err := b.Install(newChild(markA, serverAddr, clientAddr, 0, 0x1001, 0x2001, ipsectest.AESSHA1).serverIn); !errors.As(err, &bad) {
		t.Errorf("plain ESP without a raw socket: error %v", err)
	}
}

func TestNoAllocationPerPacket(t *testing.T) {
	for _, suite := range everySuite() {
		for _, port := range []uint16{0, 40001} {
			c := newChild(markA, serverAddr, clientAddr, port, 0x1001, 0x2001, suite)
			var server *Backend
			n := 0
			server = New(Options{
				SendRaw: func(netip.Addr, netip.Addr, []byte) error { return nil },
				Deliver: func(ipsec.Mark, netip.AddrPort, netip.AddrPort, []byte) { n++ },
			})
			back := ipsec.Path{Local: netip.AddrPortFrom(c.serverIn.Local, c.serverIn.Encap.Local), Remote: netip.AddrPortFrom(c.serverIn.Remote, c.serverIn.Encap.Remote)}
			client := New(Options{
				SendUDP: func(_ ipsec.Path, b []byte) error { server.Receive(back, b); return nil },
				SendRaw: func(_, _ netip.Addr, b []byte) error { server.Receive(back, b); return nil },
			})
			if err := errors.Join(server.Install(c.serverIn), client.Install(c.clientOut)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, Headroom+1400, Headroom+1400+Tailroom)
			if a := testing.AllocsPerRun(100, func() {
				if err := client.Send(markA, clientL2TP, serverL2TP, buf, Headroom); err != nil {
					t.Fatal(err)
				}
			}); a != 0 || n != 101 {
				t.Errorf("%s: %v allocations for a packet sent and received, %d received", suite, a, n)
			}
			if a := testing.AllocsPerRun(100, func() { client.SendMessage(markA, clientL2TP, serverL2TP, buf[:500]) }); a != 0 {
				t.Errorf("%s: %v allocations for a message", suite, a)
			}
			server.Close()
			client.Close()
		}
	}
}

// TestConcurrently has senders, receivers and the loop at work at once, for the race detector.
func TestConcurrently(t *testing.T) {
	var server *Backend
	var mu sync.Mutex
	got := 0
	server = New(Options{
		SendUDP: func(ipsec.Path, []byte) error { return nil },
		Deliver: func(ipsec.Mark, netip.AddrPort, netip.AddrPort, []byte) { mu.Lock(); got++; mu.Unlock() },
	})
	defer server.Close()
	client := New(Options{SendUDP: func(p ipsec.Path, b []byte) error { server.Receive(flip(p), b); return nil }})
	defer client.Close()
	c := newChild(markA, serverAddr, clientAddr, 40001, 0x1001, 0x2001, ipsectest.AESSHA1)
	c.serverIn.Replay = 4096
	if err := errors.Join(server.Install(c.serverIn), client.Install(c.clientOut)); err != nil {
		t.Fatal(err)
	}
	var senders sync.WaitGroup
	const each = 500
	for range 4 {
		senders.Go(func() {
			for range each {
				if err := client.SendMessage(markA, clientL2TP, serverL2TP, []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 200 {
		other := newChild(markB, serverAddr, clientAddr, 40002, ipsec.SPI(0x5000+i), 0x6000, ipsectest.AESSHA1)
		if err := server.Install(other.serverIn); err != nil {
			t.Fatal(err)
		}
		server.Move(markB, netip.AddrPortFrom(c.serverIn.Remote, uint16(50000+i)))
		server.Usage(c.serverIn.ID())
		server.Snapshot()
		server.Tick(time.Now())
		if err := server.Remove(other.serverIn.ID()); err != nil {
			t.Fatal(err)
		}
	}
	senders.Wait()
	if got != 4*each {
		t.Errorf("%d of %d arrived, drops %+v", got, 4*each, server.Drops())
	}
}

func FuzzReceive(f *testing.F) {
	server, client, _ := pair(f, nil)
	f.Add(client.say(f, "hello").packet)
	f.Add([]byte{0, 0, 0x10, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		server.Receive(ipsec.Path{Local: netip.MustParseAddrPort("192.0.2.1:4500"), Remote: netip.MustParseAddrPort("198.51.100.7:40001")}, b)
	})
}

// FuzzAuthentic puts anything inside a packet that is authentic.
func FuzzAuthentic(f *testing.F) {
	server, client, _ := pair(f, nil)
	f.Add([]byte{6, 0xa5, 6, 0xa5, 0, 8, 0, 0, 1, 2, 3, 4, 5, 6, 6, 17})
	f.Add(make([]byte, 16))
	f.Fuzz(func(t *testing.T, text []byte) {
		if n := len(text) / 16 * 16; n > 0 && n < 3000 {
			server.receive(client.craft(t, text[:n]))
			server.up = nil
		}
	})
}
