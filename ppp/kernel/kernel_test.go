package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"culvert/ppp/netif"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// These tests want a kernel with PPP and L2TP, root, and namespaces of their own to make: compile them with go test -c
// and run the binary in a lab guest.

func requirePPP(t *testing.T) {
	t.Helper()
	err := Probe()
	if err == nil {
		var fd int
		if fd, err = unix.Socket(unix.AF_PPPOX, unix.SOCK_DGRAM, pxProtoOL2TP); err == nil {
			unix.Close(fd)
			return
		}
		err = fmt.Errorf("no pppol2tp sockets: %w: modprobe l2tp_ppp", err)
	}
	// A development machine's kernel may well have none; the lab runs this binary in a guest that has.
	if os.Getenv("CULVERT_LAB_KERNEL") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
}

const pxProtoOL2TP = 1 // include/uapi/linux/if_pppox.h

// end is one of two hosts: a thread in a network namespace of its own, one L2TP tunnel, and sessions in it.
type end struct {
	t          *testing.T
	do         chan func()
	ns         int
	addr, peer netip.Addr
	tunnel     uint16
	udp, mgmt  int
	net        *netif.Netif
}

// run calls f on the end's thread.
func (e *end) run(f func() error) {
	e.t.Helper()
	done := make(chan error)
	e.do <- func() { done <- f() }
	if err := <-done; err != nil {
		e.t.Fatal(err)
	}
}

// newEnds makes two namespaces joined by a veth, and a tunnel between them.
func newEnds(t *testing.T) (a, b *end) {
	t.Helper()
	requirePPP(t)
	a = newEnd(t, "192.0.2.1", "192.0.2.2", 10)
	b = newEnd(t, "192.0.2.2", "192.0.2.1", 20)
	a.run(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "under"}, PeerName: "under", PeerNamespace: netlink.NsFd(b.ns)}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("veth: %w", err)
		}
		return nil
	})
	for _, e := range []*end{a, b} {
		e.run(e.join)
	}
	a.run(func() error { return a.connect(20) })
	b.run(func() error { return b.connect(10) })
	return a, b
}

func newEnd(t *testing.T, addr, peer string, tunnel uint16) *end {
	e := &end{t: t, do: make(chan func()), addr: netip.MustParseAddr(addr), peer: netip.MustParseAddr(peer), tunnel: tunnel, ns: -1, udp: -1, mgmt: -1}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with its namespace
		for f := range e.do {
			f()
		}
	}()
	e.run(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("network namespace: %w", err)
		}
		if e.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		e.net, err = netif.New()
		return err
	})
	t.Cleanup(func() {
		for _, fd := range []int{e.mgmt, e.udp, e.ns} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
		e.net.Close()
		close(e.do)
	})
	return e
}

// join brings the link up and opens the tunnel's UDP socket.
func (e *end) join() error {
	link, err := netlink.LinkByName("under")
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: e.addr.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	if e.udp, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err := unix.Bind(e.udp, &unix.SockaddrInet4{Port: 1701, Addr: e.addr.As4()}); err != nil {
		return err
	}
	return unix.Connect(e.udp, &unix.SockaddrInet4{Port: 1701, Addr: e.peer.As4()})
}

func (e *end) connect(peerTunnel uint16) (err error) {
	e.mgmt, err = e.pppol2tp(0, peerTunnel, 0)
	return err
}

// pppol2tp connects a socket of L2TPv2 (include/uapi/linux/if_pppol2tp.h); session 0 makes the tunnel.
func (e *end) pppol2tp(session, peerTunnel, peerSession uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_PPPOX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, pxProtoOL2TP)
	if err != nil {
		return -1, err
	}
	ne := binary.NativeEndian
	sa := ne.AppendUint16(nil, unix.AF_PPPOX)
	sa = ne.AppendUint32(sa, pxProtoOL2TP)
	sa = ne.AppendUint32(sa, 0) // pid
	sa = ne.AppendUint32(sa, uint32(e.udp))
	sa = ne.AppendUint16(sa, unix.AF_INET)
	sa = binary.BigEndian.AppendUint16(sa, 1701)
	sa = append(sa, e.peer.AsSlice()...)
	sa = append(sa, make([]byte, 8)...)
	for _, id := range []uint16{e.tunnel, session, peerTunnel, peerSession} {
		sa = ne.AppendUint16(sa, id)
	}
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa[0])), uintptr(len(sa))); errno != 0 {
		unix.Close(fd)
		return -1, fmt.Errorf("pppol2tp session %d: %w", session, errno)
	}
	return fd, nil
}

// link is one end's Channel, served, with the frames that came.
type link struct {
	*Channel
	socket int
	frames chan []byte
	ended  chan error
}

func (e *end) attach(session, peerTunnel, peerSession uint16) *link {
	e.t.Helper()
	l := &link{frames: make(chan []byte, 64), ended: make(chan error, 1)}
	e.run(func() (err error) {
		if l.socket, err = e.pppol2tp(session, peerTunnel, peerSession); err != nil {
			return err
		}
		l.Channel, err = Attach(l.socket)
		return err
	})
	e.t.Cleanup(func() {
		l.Close()
		if l.socket >= 0 {
			unix.Close(l.socket)
		}
	})
	go func() {
		l.ended <- l.Serve(func(f []byte) {
			select {
			case l.frames <- bytes.Clone(f):
			default:
			}
		})
	}()
	return l
}

func (e *end) open(l *link, o Options) *Unit {
	e.t.Helper()
	var u *Unit
	o.Net = e.net
	e.run(func() (err error) { u, err = l.OpenUnit(o); return err })
	return u
}

const patience = 5 * time.Second

func (l *link) expect(t *testing.T, want []byte) {
	t.Helper()
	select {
	case got := <-l.frames:
		if !bytes.Equal(got, want) {
			t.Fatalf("frame %x, want %x", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("no frame, want %x", want)
	}
}

func (l *link) expectEnd(t *testing.T, want error) {
	t.Helper()
	select {
	case err := <-l.ended:
		if !errors.Is(err, want) {
			t.Fatalf("Serve ended with %v, want %v", err, want)
		}
	case <-time.After(patience):
		t.Fatal("Serve does not end")
	}
}

// udpPair has a socket at either end of the PPP link.
func udpPair(t *testing.T, a, b *end, from, to string) (*net.UDPConn, *net.UDPConn) {
	t.Helper()
	var x, y *net.UDPConn
	a.run(func() (err error) {
		x, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
		return err
	})
	b.run(func() (err error) {
		y, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)))
		return err
	})
	t.Cleanup(func() { x.Close(); y.Close() })
	return x, y
}

func roundTrip(t *testing.T, x, y *net.UDPConn, size int) {
	t.Helper()
	out, in := bytes.Repeat([]byte("culvert!"), size/8), make([]byte, 4096)
	for _, p := range [][2]*net.UDPConn{{x, y}, {y, x}} {
		if _, err := p[0].Write(out); err != nil {
			t.Fatal(err)
		}
		p[1].SetReadDeadline(time.Now().Add(patience))
		n, err := p[1].Read(in)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(in[:n], out) {
			t.Fatalf("%d octets came as %d others", len(out), n)
		}
	}
}

// settled waits until packets pass both ways: a worker of the kernel's makes an IPv6 address ready a moment after it is there.
func settled(t *testing.T, x, y *net.UDPConn) {
	t.Helper()
	in := make([]byte, 4096)
	for _, p := range [][2]*net.UDPConn{{x, y}, {y, x}} {
		for end := time.Now().Add(patience); ; {
			p[0].Write([]byte("ready?"))
			p[1].SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := p[1].Read(in); err == nil {
				break
			} else if time.Now().After(end) {
				t.Fatal(err)
			}
		}
		for { // what came late
			p[1].SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := p[1].Read(in); err != nil {
				break
			}
		}
	}
}

func TestProbe(t *testing.T) {
	if err := Probe(); err != nil && !strings.Contains(err.Error(), device.Path) {
		t.Error(err)
	}
	if _, err := Attach(-1); err == nil || !strings.Contains(err.Error(), "PPPoX") {
		t.Errorf("%v", err)
	}
}

func TestLink(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		t.Run(map[bool]string{false: "rtnetlink", true: "ioctl"}[legacy], func(t *testing.T) { testLink(t, legacy) })
	}
}

func testLink(t *testing.T, legacy bool) {
	ea, eb := newEnds(t)
	a, b := ea.attach(1, 20, 2), eb.attach(2, 10, 1)

	// LCP and authentication on the channel, before there is a unit.
	lcp := []byte{0xc0, 0x21, 1, 1, 0, 4}
	for range 3 {
		if err := a.Send(lcp); err != nil {
			t.Fatal(err)
		}
		b.expect(t, lcp)
	}
	chap := append([]byte{0xc2, 0x23, 1, 9, 0, 44}, bytes.Repeat([]byte{7}, 40)...)
	if err := b.Send(chap); err != nil {
		t.Fatal(err)
	}
	a.expect(t, chap)
	ipcp := []byte{0x80, 0x21, 1, 1, 0, 4}
	if err := a.Send(ipcp); err != ErrNoUnit {
		t.Errorf("IPCP without a unit: %v", err)
	}
	if err := a.Send(nil); err == nil {
		t.Error("empty frame sent")
	}
	// A frame that no buffer holds is dropped, and the next one comes.
	if err := a.Send(append([]byte{0xc0, 0x21}, make([]byte, readSize)...)); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(lcp); err != nil {
		t.Fatal(err)
	}
	b.expect(t, lcp)
	if b.Dropped() != 1 {
		t.Errorf("%d dropped", b.Dropped())
	}

	ua := ea.open(a, Options{Name: "<l2tp-bob>", MRU: 1450, IPv6: true, newUnit: legacy})
	ub := eb.open(b, Options{IPv6: true, newUnit: legacy})
	if ua.Name() != "<l2tp-bob>" || ub.Name() != fmt.Sprintf("ppp%d", ub.Number()) || ua.Index() <= 0 {
		t.Errorf("names %q, %q", ua.Name(), ub.Name())
	}
	if err := a.Send(ipcp); err != nil {
		t.Fatal(err)
	}
	b.expect(t, ipcp)
	if err := b.Send(lcp); err != nil { // echoes go on
		t.Fatal(err)
	}
	a.expect(t, lcp)

	ea.run(func() error {
		if err := ua.Interface().EnableIPv6(netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2"), false); err != nil {
			return err
		}
		return ua.Interface().SetUp(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1400)
	})
	eb.run(func() error {
		if err := ub.Interface().EnableIPv6(netip.MustParseAddr("fe80::2"), netip.MustParseAddr("fe80::1"), false); err != nil {
			return err
		}
		return ub.Interface().SetUp(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"), 1400)
	})
	x, y := udpPair(t, ea, eb, "10.0.0.1:9", "10.0.0.2:9")
	roundTrip(t, x, y, 64)
	roundTrip(t, x, y, 1368) // fills the MTU
	x6, y6 := udpPair(t, ea, eb, fmt.Sprintf("[fe80::1%%%d]:9", ua.Index()), fmt.Sprintf("[fe80::2%%%d]:9", ub.Index()))
	settled(t, x6, y6)
	roundTrip(t, x6, y6, 64)
	if s, err := ua.Stats(); err != nil || s.RxPackets < 2 || s.TxPackets < 2 || s.RxBytes < 1432 || s.TxBytes < 1432 {
		t.Errorf("stats %+v, %v", s, err)
	}
	if xmit, recv, err := ua.Idle(); err != nil || xmit > time.Minute || recv > time.Minute {
		t.Errorf("idle %v, %v, %v", xmit, recv, err)
	}
	if err := ua.SetMRU(1400); err != nil {
		t.Error(err)
	}
	select {
	case f := <-a.frames:
		if !bytes.HasPrefix(f, []byte{0x80}) {
			t.Errorf("an IP packet came up: %x", f)
		}
	default:
	}

	// No allocation per frame in either direction.
	if n := testing.AllocsPerRun(100, func() { a.Send(ipcp) }); n != 0 {
		t.Errorf("Send allocates %v times", n)
	}

	for range 2 {
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a.expectEnd(t, nil)
	if err := a.Send(lcp); err != ErrClosed {
		t.Errorf("Send after Close: %v", err)
	}
	if err := a.Send(ipcp); err != ErrClosed {
		t.Errorf("Send after Close: %v", err)
	}
	if _, _, err := ua.Idle(); err != ErrClosed {
		t.Errorf("Idle after Close: %v", err)
	}
	ea.run(func() error {
		if _, err := ea.net.ByName("<l2tp-bob>"); !errors.Is(err, netif.ErrGone) {
			return fmt.Errorf("the interface is still there: %v", err)
		}
		if _, err := a.OpenUnit(Options{Net: ea.net}); err != ErrClosed {
			return fmt.Errorf("OpenUnit after Close: %v", err)
		}
		return nil
	})
	// The L2TP session ends under b.
	unix.Close(b.socket)
	b.socket = -1
	b.expectEnd(t, ErrGone)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// The channel can be attached again, after its first user has closed it.
func TestAttachAgain(t *testing.T) {
	ea, eb := newEnds(t)
	a, b := ea.attach(1, 20, 2), eb.attach(2, 10, 1)
	for range 3 {
		ea.open(a, Options{Name: "again"})
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		a.expectEnd(t, nil)
		ea.run(func() (err error) { a.Channel, err = Attach(a.socket); return err })
		go func(c *Channel) { a.ended <- c.Serve(func([]byte) {}) }(a.Channel)
		lcp := []byte{0xc0, 0x21, 1, 1, 0, 4}
		if err := a.Send(lcp); err != nil {
			t.Fatal(err)
		}
		b.expect(t, lcp)
	}
}

func TestNameTaken(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		ea, _ := newEnds(t)
		a := ea.attach(1, 20, 2)
		ea.run(func() error {
			for _, name := range []string{"under", "lo"} {
				if _, err := a.OpenUnit(Options{Name: name, Net: ea.net, newUnit: legacy}); !errors.Is(err, netif.ErrExists) {
					return fmt.Errorf("name %s: %v", name, err)
				}
			}
			if _, err := a.OpenUnit(Options{Name: "a/b", Net: ea.net}); err == nil {
				return errors.New("impossible name accepted")
			}
			links, err := netlink.LinkList()
			for _, l := range links {
				if strings.HasPrefix(l.Attrs().Name, "ppp") {
					return fmt.Errorf("%s was left behind", l.Attrs().Name)
				}
			}
			return err
		})
		// The next attempt is as good as the first, and a second unit on one channel is refused.
		ea.open(a, Options{Name: "good", newUnit: legacy})
		ea.run(func() error {
			if _, err := a.OpenUnit(Options{Net: ea.net}); err == nil {
				return errors.New("two units on one channel")
			}
			return nil
		})
	}
}

// IPv6 is dropped on a unit that did not ask for it, even where the system would take it.
func TestIPv6Dropped(t *testing.T) {
	ea, eb := newEnds(t)
	a, b := ea.attach(1, 20, 2), eb.attach(2, 10, 1)
	ua, ub := ea.open(a, Options{Name: "six", IPv6: true}), eb.open(b, Options{Name: "six"})
	up := func(e *end, u *Unit, local, remote string) {
		e.run(func() error {
			if err := u.Interface().EnableIPv6(netip.MustParseAddr(local), netip.MustParseAddr(remote), false); err != nil {
				return err
			}
			return u.Interface().SetUp(netip.Addr{}, netip.Addr{}, 1400)
		})
	}
	up(ea, ua, "fe80::1", "fe80::2")
	up(eb, ub, "fe80::2", "fe80::1")
	x, y := udpPair(t, ea, eb, fmt.Sprintf("[fe80::1%%%d]:9", ua.Index()), fmt.Sprintf("[fe80::2%%%d]:9", ub.Index()))
	before, _ := ua.Stats()
	if _, err := x.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	y.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := y.Read(make([]byte, 64)); err == nil {
		t.Errorf("%d octets came through", n)
	}
	if after, _ := ua.Stats(); after.TxPackets == before.TxPackets {
		t.Error("nothing was sent")
	}
}

func TestMPPE(t *testing.T) {
	ea, eb := newEnds(t)
	a, b := ea.attach(1, 20, 2), eb.attach(2, 10, 1)
	ua, ub := ea.open(a, Options{Name: "mppe"}), eb.open(b, Options{Name: "mppe"})
	key1, key2 := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 16)
	const stateless128 = 0x01000040
	for _, c := range []struct {
		u        *Unit
		transmit bool
		key      []byte
	}{{ua, true, key1}, {ub, false, key1}, {ub, true, key2}, {ua, false, key2}} {
		if err := c.u.SetMPPE(c.transmit, stateless128, c.key); err != nil {
			t.Fatal(err)
		}
	}
	if err := ua.SetMPPE(true, stateless128, key1[:8]); err == nil {
		t.Error("short key accepted")
	}
	ccp := func(open, up, must bool) {
		t.Helper()
		for _, u := range []*Unit{ua, ub} {
			if err := u.SetCCP(open, up, must); err != nil {
				t.Fatal(err)
			}
		}
	}
	ccp(true, false, false)
	ack := []byte{0x80, 0xfd, 2, 1, 0, 10, 18, 6, 0x01, 0, 0, 0x40}
	for _, p := range [][2]*link{{a, b}, {b, a}} {
		if err := p[0].Send(ack); err != nil {
			t.Fatal(err)
		}
		p[1].expect(t, ack)
	}
	ccp(true, true, true)
	ea.run(func() error {
		return ua.Interface().SetUp(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1396)
	})
	eb.run(func() error {
		return ub.Interface().SetUp(netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"), 1396)
	})
	x, y := udpPair(t, ea, eb, "10.0.0.1:9", "10.0.0.2:9")
	for range 3 {
		roundTrip(t, x, y, 512)
	}
	// Once b has forgotten its keys, what a sends is a protocol that b does not know, and so comes up: encrypted it was.
	if err := ub.SetCCP(false, false, false); err != nil {
		t.Fatal(err)
	}
	hello := []byte("hello, hello, hello")
	if _, err := x.Write(hello); err != nil {
		t.Fatal(err)
	}
	select {
	case f := <-b.frames:
		if !bytes.HasPrefix(f, []byte{0x00, 0xfd}) || bytes.Contains(f, hello) {
			t.Errorf("frame %x", f)
		}
	case <-time.After(patience):
		t.Error("nothing came")
	}
}

// Fifty waiting links must cost goroutines, not threads, and go in any order, Close from within recv included.
func TestManyLinks(t *testing.T) {
	const links = 50
	ea, eb := newEnds(t)
	var as, bs []*link
	for i := range uint16(links) {
		a, b := ea.attach(i+1, 20, i+101), eb.attach(i+101, 10, i+1)
		ea.open(a, Options{})
		eb.open(b, Options{})
		as, bs = append(as, a), append(bs, b)
	}
	lcp := []byte{0xc0, 0x21, 9, 0, 0, 4}
	for i := range as {
		if err := as[i].Send(lcp); err != nil {
			t.Fatal(err)
		}
		bs[i].expect(t, lcp)
	}
	if n := threads(t); n > 25 {
		t.Errorf("%d threads for %d links", n, 2*links)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	t.Logf("%d threads, %d goroutines, heap %d KiB, stacks %d KiB", threads(t), runtime.NumGoroutine(), m.HeapInuse>>10, m.StackInuse>>10)
	for i := range as {
		if err := as[links-1-i].Close(); err != nil {
			t.Fatal(err)
		}
		as[links-1-i].expectEnd(t, nil)
	}
	for i := range bs {
		if err := bs[i].Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCloseInRecv(t *testing.T) {
	ea, eb := newEnds(t)
	b := eb.attach(2, 10, 1)
	for _, frame := range [][]byte{{0xc0, 0x21, 5, 0, 0, 4}, {0x80, 0x21, 5, 0, 0, 4}} {
		var c *Channel
		var socket int
		ended := make(chan error, 1)
		ea.run(func() (err error) {
			if socket, err = ea.pppol2tp(1, 20, 2); err != nil {
				return err
			}
			if c, err = Attach(socket); err != nil {
				return err
			}
			_, err = c.OpenUnit(Options{Net: ea.net}) // before Serve: its reader waits for it
			return err
		})
		go func() {
			ended <- c.Serve(func([]byte) {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}()
		if frame[0] < 0xc0 && b.Unit() == nil {
			eb.open(b, Options{})
		}
		if err := b.Send(frame); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("Serve does not end")
		}
		unix.Close(socket)
	}
}

func threads(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
