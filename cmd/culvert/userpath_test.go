package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/logring"
	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/ipsec/natt"
	"culvert/l2tp"
	"culvert/ppp/netif"
	pppuser "culvert/ppp/user"
)

// The whole path in userspace, from TUN to TUN, as the daemon wires it: two daemons without their engines, in one process,
// whose SAs and sessions are put in by hand. Their sockets are in two network namespaces with a link between them, their
// TUN devices each in one more.

// place is a thread in a network namespace of its own.
type place struct {
	do  chan func()
	net *netif.Netif
}

func newPlace(t testing.TB) *place {
	t.Helper()
	cannot := func(why string) {
		t.Helper()
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	if os.Geteuid() != 0 {
		cannot("needs root: network namespaces and TUN devices")
	}
	if err := pppuser.Probe(); err != nil {
		cannot(err.Error())
	}
	p := &place{do: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with its namespace
		for f := range p.do {
			f()
		}
	}()
	t.Cleanup(func() { close(p.do) })
	p.run(t, func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err == nil {
			p.net, err = netif.New()
		}
		return err
	})
	t.Cleanup(func() { p.net.Close() })
	return p
}

func (p *place) run(t testing.TB, f func() error) {
	t.Helper()
	done := make(chan error)
	p.do <- func() { done <- f() }
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// newWire is two places with a link between them: endA and endB.
func newWire(t testing.TB) (a, b *place) {
	t.Helper()
	a, b = newPlace(t), newPlace(t)
	var ns *os.File
	b.run(t, func() (err error) { ns, err = os.Open("/proc/thread-self/ns/net"); return err })
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "wire"
	a.run(t, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "wire", PeerNamespace: netlink.NsFd(ns.Fd())})
	})
	for p, addr := range map[*place]netip.Addr{a: endA, b: endB} {
		p.run(t, func() error {
			link, err := netlink.LinkByName("wire")
			if err != nil {
				return err
			}
			ip, err := netlink.ParseAddr(addr.String() + "/24")
			if err != nil {
				return err
			}
			return errors.Join(netlink.AddrAdd(link, ip), netlink.LinkSetUp(link))
		})
	}
	// A link takes a moment until it carries what is sent.
	a.run(t, func() error {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			link, err := netlink.LinkByName("wire")
			if err != nil || link.Attrs().OperState == netlink.OperUp {
				return err
			}
		}
		return errors.New("the link does not come up")
	})
	return a, b
}

// end is one daemon's data path with one session.
type end struct {
	*daemon
	t    testing.TB
	home *place
	unit pppUnit
}

const endMTU = 1400

// newEnd opens the data path of one daemon, whose packets go from TUN to wire.
func newEnd(t testing.TB, wire, home *place, local, remote netip.Addr, suite ipsec.Suite, encap bool) *end {
	t.Helper()
	cfg, err := config.Parse("test.toml", []byte("[system]\ncrypto-engine = \"software\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	logs, err := logring.New(cfg.Log, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{cfg: cfg, logs: logs, loop: newLoop(), started: time.Now(), path: dataPath{inUserspace, inUserspace}, mask: ikev1.DefaultMarkMask}
	e := &end{daemon: d, t: t, home: home}
	d.makeUserL2TP()
	wire.run(t, func() error {
		o := d.nattOptions(slog.New(slog.DiscardHandler))
		o.Listen = []netip.Addr{local}
		if d.natt, err = natt.Open(o); err != nil {
			return err
		}
		return d.openUserESP(slog.New(slog.DiscardHandler))
	})
	t.Cleanup(func() { d.esp.Close(); d.natt.Close() })
	const mark = 0x10000
	for _, dir := range []ipsec.Direction{ipsec.In, ipsec.Out} {
		sa := ipsec.SA{Dir: dir, SPI: spiOf(local), Mark: mark, Local: local, Remote: remote, Mode: ipsec.Transport, Suite: suite,
			Keys: ipsec.Keys{Enc: make(ipsec.Secret, suite.EncLen()), Auth: make(ipsec.Secret, suite.AuthLen())}}
		if dir == ipsec.Out {
			sa.SPI = spiOf(remote)
		}
		if encap {
			sa.Encap = ipsec.Encap{Local: natt.NATTPort, Remote: natt.NATTPort}
		}
		if err := d.esp.Install(sa); err != nil {
			t.Fatal(err)
		}
	}
	d.natt.Serve(func(ipsec.Path, []byte) {}, nil)
	d.serveUserESP()

	spec := l2tp.TunnelSpec{Local: 1, Remote: 1, Peer: l2tp.Peer{Local: netip.AddrPortFrom(local, l2tpPort),
		Remote: netip.AddrPortFrom(remote, l2tpPort), Via: mark}}
	if err := d.userL2TP.OpenTunnel(spec); err != nil {
		t.Fatal(err)
	}
	if err := d.userL2TP.OpenSession(l2tp.SessionSpec{Tunnel: spec, Local: 1, Remote: 1}); err != nil {
		t.Fatal(err)
	}
	channel, err := d.attach(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { channel.Close() })
	go channel.Serve(func([]byte) {})
	home.run(t, func() error {
		e.unit, err = channel.openUnit("", endMTU, false, home.net, nil)
		return err
	})
	return e
}

func spiOf(a netip.Addr) ipsec.SPI { return ipsec.SPI(0x1000 + int(a.As4()[3])) }

// up gives the interface its address.
func (e *end) up(local, remote string) {
	e.t.Helper()
	e.home.run(e.t, func() error {
		return e.unit.Interface().SetUp(netip.MustParseAddr(local), netip.MustParseAddr(remote), endMTU)
	})
}

var (
	endA, endB = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

	suiteCBC = ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA1, ICVBits: 96}
	suiteGCM = ipsec.Suite{Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128}
)

// joined is both ends, connected: 10.0.0.1 and 10.0.0.2.
func joined(t testing.TB, suite ipsec.Suite, encap bool) (a, b *end) {
	t.Helper()
	wireA, wireB := newWire(t)
	a = newEnd(t, wireA, newPlace(t), endA, endB, suite, encap)
	b = newEnd(t, wireB, newPlace(t), endB, endA, suite, encap)
	a.up("10.0.0.1", "10.0.0.2")
	b.up("10.0.0.2", "10.0.0.1")
	return a, b
}

// Nothing is allocated for a packet from TUN to TUN: neither on the way out nor on the way in.
func TestUserPathAllocations(t *testing.T) {
	for _, suite := range []ipsec.Suite{suiteCBC, suiteGCM} {
		for _, encap := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/encap=%v", suite, encap), func(t *testing.T) {
				a, b := joined(t, suite, encap)
				var conn *net.UDPConn
				a.home.run(t, func() (err error) {
					conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.2:9")))
					return err
				})
				defer conn.Close()
				var sink *net.UDPConn
				b.home.run(t, func() (err error) { sink, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 9}); return err })
				defer sink.Close()
				sink.SetReadDeadline(time.Now().Add(20 * time.Second))
				payload, got := make([]byte, 1000), make([]byte, 1500)
				send := func() {
					conn.Write(payload)
					if n, _, err := sink.ReadFromUDPAddrPort(got); n != len(payload) || err != nil {
						t.Fatalf("%d octets, %v; %+v, %+v", n, err, a.userESP.Drops(), b.userESP.Drops())
					}
				}
				send()
				if n := testing.AllocsPerRun(500, send); n > 0 {
					t.Errorf("%v allocations per packet", n)
				}
			})
		}
	}
}

// userStats is how many data messages have come.
func (e *end) userStats() uint64 {
	s, err := e.userL2TP.SessionStats(1, 1)
	if err != nil {
		e.t.Fatal(err)
	}
	return s.RxPackets
}

// What is not for the tunnel that the SA was made for, or comes by another way, reaches nothing.
func TestUserPathRefusesForeign(t *testing.T) {
	a, b := joined(t, suiteCBC, true)
	peer := netip.AddrPortFrom(endB, l2tpPort)
	message := []byte{0, 2, 0, 1, 0, 1, 0xff, 0x03, 0, 0x21, 0}                               // of tunnel 1, session 1; no packet
	data := func() []byte { return append(make([]byte, l2tpRoom, l2tpRoom+200), message...) } // which is sealed in place
	before := b.userStats()
	if err := a.sendData(l2tp.Peer{Local: netip.AddrPortFrom(endA, l2tpPort), Remote: peer, Via: 0x10000}, data(), l2tpRoom); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return b.userStats() == before+1 })
	// From another port inside the same SA: the SA is the peer's, the tunnel is not.
	if err := a.sendData(l2tp.Peer{Local: netip.AddrPortFrom(endA, 1702), Remote: peer, Via: 0x10000}, data(), l2tpRoom); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return b.userL2TP.Drops().Foreign == 1 })
	// Without an SA nothing leaves: neither with a mark that has none, nor in the clear.
	for _, via := range []l2tp.Via{0x20000, 0} {
		p := l2tp.Peer{Local: netip.AddrPortFrom(endA, l2tpPort), Remote: peer, Via: via}
		if err := a.sendData(p, data(), l2tpRoom); err == nil {
			t.Errorf("via %#x: a packet was sent", via)
		}
		if n, err := a.sendDataBatch(p, [][]byte{data(), data()}, l2tpRoom); err == nil || n != 0 {
			t.Errorf("via %#x: %d packets were sent", via, n)
		}
	}
	// In the clear, by a socket of L2TP.
	foreign := l2tp.Peer{Local: peer, Remote: netip.AddrPortFrom(endA, l2tpPort)}
	if taken := b.userL2TP.Deliver(foreign, message); !taken || b.userL2TP.Drops().Foreign != 2 {
		t.Errorf("taken %v, %+v", taken, b.userL2TP.Drops())
	}
	if n := b.userStats(); n != before+1 {
		t.Errorf("%d data messages came in, want 1", n-before)
	}
}

// l2tpRoom is room for what ESP puts in front.
const l2tpRoom = 64

func waitUntil(t testing.TB, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

// pour sends size octets by TCP from one place to an address in the other, and says how long it took.
func pour(t testing.TB, from, to *place, addr string, size int64) time.Duration {
	t.Helper()
	var l net.Listener
	to.run(t, func() (err error) { l, err = net.Listen("tcp4", addr+":0"); return err })
	defer l.Close()
	got := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		defer c.Close()
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
		got <- n
	}()
	var c net.Conn
	from.run(t, func() (err error) {
		c, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.Background(), "tcp4", l.Addr().String())
		return err
	})
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	block := make([]byte, 256<<10)
	start := time.Now()
	for sent := int64(0); sent < size; sent += int64(len(block)) {
		if _, err := c.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if n := <-got; n < size {
		t.Fatalf("%d of %d octets arrived", n, size)
	}
	return time.Since(start)
}

// Where the path is narrower than the packets, they go in fragments; what the kernel cannot cut for us goes one by one.
func TestUserPathNarrow(t *testing.T) {
	for _, encap := range []bool{true, false} {
		wireA, wireB := newWire(t)
		a := newEnd(t, wireA, newPlace(t), endA, endB, suiteCBC, encap)
		b := newEnd(t, wireB, newPlace(t), endB, endA, suiteCBC, encap)
		a.up("10.0.0.1", "10.0.0.2")
		b.up("10.0.0.2", "10.0.0.1")
		pour(t, a.home, b.home, "10.0.0.2", 1<<20)
		for _, p := range []*place{wireA, wireB} {
			p.run(t, func() error {
				link, err := netlink.LinkByName("wire")
				if err != nil {
					return err
				}
				return netlink.LinkSetMTU(link, 1000)
			})
		}
		took := pour(t, a.home, b.home, "10.0.0.2", 4<<20)
		if n := a.userESP.Drops().Send + b.userESP.Drops().Send; n > 0 {
			t.Errorf("encap %v: %d packets were not sent", encap, n)
		}
		t.Logf("encap %v: 4 MB in fragments in %v", encap, took)
	}
}

// copyEnd is the plainest tunnel there is: what the TUN gives goes into a UDP socket, packet by packet, and back.
func copyEnd(t testing.TB, wire, home *place, local, remote netip.Addr, inner, peer string) {
	t.Helper()
	var tun *os.File
	home.run(t, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq("copy0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return err
		}
		tun = os.NewFile(uintptr(fd), "tun")
		i, err := home.net.ByName("copy0")
		if err != nil {
			return err
		}
		return i.SetUp(netip.MustParseAddr(inner), netip.MustParseAddr(peer), endMTU)
	})
	var conn *net.UDPConn
	wire.run(t, func() (err error) {
		conn, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 7000)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 7000)))
		if err == nil {
			err = conn.SetReadBuffer(1 << 20)
		}
		return err
	})
	t.Cleanup(func() { tun.Close(); conn.Close() })
	move := func(to io.Writer, from io.Reader) {
		b := make([]byte, 2048)
		for {
			n, err := from.Read(b)
			if n > 0 {
				to.Write(b[:n])
			}
			if err != nil && !errors.Is(err, unix.ECONNREFUSED) { // while the other end is not there yet
				return
			}
		}
	}
	go move(conn, tun)
	go move(tun, conn)
}

// processor is the time that this process has spent on processors, in the kernel's network stack too.
func processor() time.Duration {
	var r unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// TestBenchUserPath compares the whole path, from TUN to TUN, with the plainest tunnel there is: a loop that copies packets
// between a TUN device and a UDP socket, and protects nothing. Both share the machine with the TCP that they carry.
func TestBenchUserPath(t *testing.T) {
	if os.Getenv("CULVERT_BENCH") == "" {
		t.Skip("a benchmark: make bench")
	}
	const size, times = 64 << 20, 7
	type contender struct {
		name         string
		from, to     *place
		rates, costs []float64 // of each round, to the copy loop's
	}
	wireA, wireB := newWire(t)
	one, two := newPlace(t), newPlace(t)
	copyEnd(t, wireA, one, endA, endB, "10.0.0.1", "10.0.0.2")
	copyEnd(t, wireB, two, endB, endA, "10.0.0.2", "10.0.0.1")
	all := []*contender{{name: "copy loop, no protection at all", from: one, to: two}}
	for _, suite := range []ipsec.Suite{suiteGCM, suiteCBC, {Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA256, ICVBits: 128}} {
		for _, encap := range []bool{true, false} {
			x, y := joined(t, suite, encap)
			name := suite.String() + ", protocol 50"
			if encap {
				name = suite.String() + ", in UDP"
			}
			all = append(all, &contender{name: name, from: x.home, to: y.home})
		}
	}
	for round := range times + 1 {
		for _, c := range all {
			used := processor()
			took := pour(t, c.from, c.to, "10.0.0.2", size)
			if round == 0 {
				continue // to warm up
			}
			c.rates = append(c.rates, size*8/1e6/took.Seconds())
			c.costs = append(c.costs, size*8/1e6/(processor()-used).Seconds())
		}
	}
	ratio := func(v, reference []float64) float64 {
		var r []float64
		for i := range v {
			r = append(r, v[i]/reference[i])
		}
		return median(r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "the whole path in userspace, TUN to TUN, one TCP connection\n  %-34s %12s %8s %20s %8s\n", "", "Mbit/s", "ratio", "Mbit per CPU second", "ratio")
	for _, c := range all {
		fmt.Fprintf(&b, "  %-34s %12.0f %8.2f %20.0f %8.2f\n", c.name, median(c.rates), ratio(c.rates, all[0].rates), median(c.costs), ratio(c.costs, all[0].costs))
	}
	fmt.Println(b.String())
}
