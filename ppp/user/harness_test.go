package user

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"time"

	"culvert/l2tp"
	l2tpuser "culvert/l2tp/user"
	"culvert/ppp/netif"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// patience is how long anything may take that takes no time.
const patience = 10 * time.Second

func cannot(t testing.TB, reason any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// host is a thread in a network namespace of its own.
type host struct {
	t   testing.TB
	do  chan func()
	net *netif.Netif
}

func newHost(t testing.TB) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root, to make network namespaces")
	}
	if err := Probe(); err != nil {
		cannot(t, err)
	}
	h := &host{t: t, do: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with its namespace
		for f := range h.do {
			f()
		}
	}()
	t.Cleanup(func() { close(h.do) })
	if err := h.try(func() error { return unix.Unshare(unix.CLONE_NEWNET) }); err != nil {
		cannot(t, fmt.Sprintf("no network namespace: %v", err))
	}
	h.run(func() error {
		lo, err := netlink.LinkByName("lo")
		if err == nil {
			err = netlink.LinkSetUp(lo)
		}
		if err == nil {
			h.net, err = netif.New()
		}
		return err
	})
	t.Cleanup(func() { h.net.Close() })
	return h
}

// try calls f on the host's thread.
func (h *host) try(f func() error) error {
	done := make(chan error)
	h.do <- func() { done <- f() }
	return <-done
}

func (h *host) run(f func() error) {
	h.t.Helper()
	if err := h.try(f); err != nil {
		h.t.Fatal(err)
	}
}

// mode is how a userspace end works.
type mode struct {
	plain    bool // no offloads
	batch    bool // recvmmsg and sendmmsg
	sequence bool
}

func (m mode) String() string {
	s := "offload"
	if m.plain {
		s = "plain"
	}
	if m.batch {
		s += "-batch"
	}
	if m.sequence {
		s += "-sequence"
	}
	return s
}

// end is one userspace end of a link: a UDP socket on the wire's loopback, the data plane, the channel and the unit.
type end struct {
	*Channel
	host   *host
	plane  *l2tpuser.Plane
	unit   *Unit
	spec   l2tp.SessionSpec
	frames chan []byte
	ended  chan error
	conn   *net.UDPConn
	wg     sync.WaitGroup
}

// specFor describes the one session between 127.0.0.1 and 127.0.0.2 as the end with that number sees it.
func specFor(number int, sequence bool) l2tp.SessionSpec {
	at := func(n int) netip.AddrPort { return netip.MustParseAddrPort(fmt.Sprintf("127.0.0.%d:1701", n)) }
	id := func(n int) l2tp.TunnelID { return l2tp.TunnelID(0x0a00 + n) }
	return l2tp.SessionSpec{
		Tunnel: l2tp.TunnelSpec{Peer: l2tp.Peer{Local: at(number), Remote: at(3 - number)}, Local: id(number), Remote: id(3 - number)},
		Local:  l2tp.SessionID(0x0b00 + number), Remote: l2tp.SessionID(0x0b00 + 3 - number),
		SendSeq: sequence, RequireSeq: sequence, LNS: number == 1,
	}
}

func newEnd(wire, h *host, number int, m mode) *end {
	t := h.t
	t.Helper()
	e := &end{host: h, spec: specFor(number, m.sequence), frames: make(chan []byte, 16), ended: make(chan error, 1)}
	peer := e.spec.Tunnel.Peer
	wire.run(func() (err error) {
		e.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(peer.Local))
		return err
	})
	roomy(t, e.conn)
	opt := l2tpuser.Options{Send: func(p l2tp.Peer, buf []byte, at int) error {
		_, err := e.conn.WriteToUDPAddrPort(buf[at:], p.Remote)
		return err
	}}
	if m.batch {
		opt.SendBatch = newBatchSender(t, e.conn).send
	}
	e.plane = l2tpuser.New(opt)
	if err := e.plane.OpenTunnel(e.spec.Tunnel); err != nil {
		t.Fatal(err)
	}
	if err := e.plane.OpenSession(e.spec); err != nil {
		t.Fatal(err)
	}
	session, ok := e.plane.Session(e.spec.Tunnel.Local, e.spec.Local)
	if !ok {
		t.Fatal("no session")
	}
	var err error
	if e.Channel, err = Attach(session); err != nil {
		t.Fatal(err)
	}
	h.run(func() (err error) {
		e.unit, err = e.OpenUnit(Options{IPv6: true, Net: h.net, plain: m.plain})
		return err
	})
	e.wg.Go(func() { e.ended <- e.Serve(e.keep) })
	for served := false; !served; runtime.Gosched() {
		e.mu.Lock()
		served = e.recv != nil
		e.mu.Unlock()
	}
	e.wg.Go(func() {
		if m.batch {
			e.readBatches(peer)
		} else {
			e.read(peer.Local)
		}
	})
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		e.conn.Close()
		e.plane.Close()
		e.wg.Wait()
	})
	return e
}

// roomy lets a socket hold the bursts that large packets become, past the limit for ordinary users.
func roomy(t testing.TB, c *net.UDPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		for _, o := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o, 4<<20); err != nil {
				t.Errorf("socket buffer: %v", err)
			}
		}
	})
}

func (e *end) keep(f []byte) {
	select {
	case e.frames <- bytes.Clone(f):
	default:
	}
}

func (e *end) read(local netip.AddrPort) {
	buf := make([]byte, 4096)
	for {
		n, from, err := e.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		e.plane.Deliver(l2tp.Peer{Local: local, Remote: from}, buf[:n])
	}
}

func (e *end) readBatches(peer l2tp.Peer) {
	r := e.plane.Receiver()
	receiveBatches(e.host.t, e.conn, func(msgs [][]byte) {
		for _, m := range msgs {
			r.Deliver(peer, m) // the socket is bound to one address, and there is one peer
		}
		r.Flush()
	})
}

// address gives a unit's interface its addresses: 10.0.0.N and fe80::N.
func (h *host) address(i *netif.Interface, number, mtu int) {
	h.t.Helper()
	v4 := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }
	v6 := func(n int) netip.Addr { return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(n)}) }
	h.run(func() error {
		if err := i.EnableIPv6(v6(number), v6(3-number), false); err != nil {
			return err
		}
		return i.SetUp(v4(number), v4(3-number), mtu)
	})
}

// ping runs the system's.
func (h *host) ping(args ...string) {
	h.t.Helper()
	h.run(func() error {
		out, err := exec.Command("ping", append([]string{"-n", "-c", "3", "-i", "0.05", "-W", "5"}, args...)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ping %v: %w\n%s", args, err, out)
		}
		return nil
	})
}

// transfer sends size octets over TCP and compares what arrives; it tells the time it took.
func transfer(t testing.TB, from, to *host, addr string, zone int, size int) time.Duration {
	t.Helper()
	rnd := rand.NewChaCha8([32]byte{1})
	return pump(t, from, to, addr, zone, size, func(b []byte) { rnd.Read(b) }, sha256.New(), sha256.New())
}

// pump sends what fill makes; out and in hash what is sent and what arrives.
func pump(t testing.TB, from, to *host, addr string, zone int, size int, fill func([]byte), out, in hash.Hash) time.Duration {
	t.Helper()
	// Zones are numbers of interfaces, which differ at the two ends.
	at := func(h *host, index int) string {
		if index == 0 {
			return net.JoinHostPort(addr, "7000")
		}
		return fmt.Sprintf("[%s%%%d]:7000", addr, index)
	}
	var l net.Listener
	to.run(func() (err error) {
		l, err = net.Listen("tcp", at(to, zone))
		return err
	})
	defer l.Close()
	type result struct {
		n   int64
		sum [32]byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		defer func() { done <- r }()
		c, err := l.Accept()
		if err != nil {
			r.err = err
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(100 * time.Second))
		r.n, r.err = io.CopyBuffer(in, struct{ io.Reader }{c}, make([]byte, 256<<10))
		in.Sum(r.sum[:0])
	}()
	var c net.Conn
	from.run(func() (err error) {
		c, err = (&net.Dialer{Timeout: patience}).Dial("tcp", at(from, zone))
		return err
	})
	c.SetDeadline(time.Now().Add(100 * time.Second))
	start := time.Now()
	buf := make([]byte, 256<<10)
	for left := size; left > 0; {
		b := buf[:min(left, len(buf))]
		fill(b)
		out.Write(b)
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		left -= len(b)
	}
	c.Close()
	r := <-done
	if r.err != nil || r.n != int64(size) || !bytes.Equal(r.sum[:out.Size()], out.Sum(nil)) {
		t.Fatalf("%d of %d octets arrived, or not as they were sent: %v", r.n, size, r.err)
	}
	return time.Since(start)
}
