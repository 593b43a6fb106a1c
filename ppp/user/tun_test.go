package user

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"culvert/l2tp"
	"culvert/ppp/netif"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestLink joins two userspace ends and moves real traffic.
func TestLink(t *testing.T) {
	for _, m := range []mode{{}, {batch: true}, {plain: true}, {sequence: true, batch: true}} {
		t.Run(m.String(), func(t *testing.T) {
			size := 10 << 20
			if m == (mode{batch: true}) && !testing.Short() {
				size = 100 << 20
			}
			wire, ha, hb := newHost(t), newHost(t), newHost(t)
			a, b := newEnd(wire, ha, 1, m), newEnd(wire, hb, 2, m)
			ha.address(a.unit.Interface(), 1, 1400)
			hb.address(b.unit.Interface(), 2, 1400)
			if !m.plain {
				t.Logf("vnet %v, gso %v", a.unit.tun.vnet, a.unit.tun.gso)
			}

			ha.ping("10.0.0.2")
			hb.ping("-s", "1372", "-M", "do", "10.0.0.1") // fills the MTU
			hb.ping("-s", "4000", "10.0.0.1")             // fragments
			ha.ping("-6", "-I", a.unit.Name(), "fe80::2")
			took := transfer(t, ha, hb, "10.0.0.2", 0, size)
			t.Logf("IPv4: %.0f MB/s", float64(size)/1e6/took.Seconds())
			took = transfer(t, hb, ha, "10.0.0.1", 0, size/2)
			t.Logf("IPv4 back: %.0f MB/s", float64(size/2)/1e6/took.Seconds())
			if a.unit.Index() == b.unit.Index() { // so that one zone serves both
				took = transfer(t, ha, hb, "fe80::2", a.unit.Index(), size/2)
				t.Logf("IPv6: %.0f MB/s", float64(size/2)/1e6/took.Seconds())
			} else {
				t.Errorf("indexes %d and %d", a.unit.Index(), b.unit.Index())
			}
			datagrams(t, ha, hb)
			for _, e := range []*end{a, b} {
				s, err := e.unit.Stats()
				if err != nil {
					t.Error(err)
				}
				t.Logf("stats %+v, l2tp %+v", s, e.plane.Drops())
				if s.TxPackets < 100 || s.TxBytes > uint64(s.TxPackets)*1400 || s.RxDropped != 0 {
					t.Errorf("stats %+v", s)
				}
				if xmit, recv, err := e.unit.Idle(); err != nil || xmit > time.Minute || recv > time.Minute {
					t.Errorf("idle %v %v %v", xmit, recv, err)
				}
				if n, ok := e.plane.Received(e.spec.Tunnel); !ok || n < 100 {
					t.Errorf("tunnel received %d %v", n, ok)
				}
				if d := e.plane.Drops(); d.Malformed+d.Unknown+d.Foreign != 0 {
					t.Errorf("drops %+v", d)
				}
			}
			// Control frames pass beside the traffic.
			lcp := []byte{0xc0, 0x21, 9, 1, 0, 8, 0, 0, 0, 0}
			if err := a.Send(lcp); err != nil {
				t.Fatal(err)
			}
			select {
			case f := <-b.frames:
				if !bytes.Equal(f, lcp) {
					t.Errorf("%x", f)
				}
			case <-time.After(patience):
				t.Error("no control frame")
			}
		})
	}
}

// datagrams sends many at once, which the kernel leaves to us to cut where it can (UDP_SEGMENT).
func datagrams(t *testing.T, from, to *host) {
	t.Helper()
	at := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.2:9000"))
	var in, out *net.UDPConn
	to.run(func() (err error) { in, err = net.ListenUDP("udp4", at); return err })
	defer in.Close()
	from.run(func() (err error) { out, err = net.DialUDP("udp4", nil, at); return err })
	defer out.Close()
	const size, count = 1001, 20
	sent := make([]byte, size*count-17)
	for i := range sent {
		sent[i] = byte(i * i >> 4)
	}
	raw, err := out.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) })
	if err != nil {
		t.Logf("no UDP_SEGMENT: %v", err)
		return
	}
	if _, err := out.Write(sent); err != nil {
		t.Fatal(err)
	}
	in.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2048)
	for i := range count {
		n, err := in.Read(buf)
		want := sent[i*size : min((i+1)*size, len(sent))]
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Fatalf("datagram %d: %d octets, %v", i, n, err)
		}
	}
}

func TestUnitLife(t *testing.T) {
	wire, h := newHost(t), newHost(t)
	e := newEnd(wire, h, 1, mode{})
	if e.unit.Name() != "ppp0" {
		t.Errorf("named %s", e.unit.Name())
	}
	if _, err := e.OpenUnit(Options{Net: h.net}); err == nil {
		t.Error("two units on one channel")
	}
	if err := e.Serve(func([]byte) {}); err == nil {
		t.Error("served twice")
	}
	// Names are like those of the kernel's units, and a taken one is said to be so.
	for _, c := range []struct {
		name string
		want error
	}{{"<l2tp-bob>", nil}, {"ppp0", netif.ErrExists}, {"lo", netif.ErrExists}} {
		other, err := Attach(newPipe())
		if err != nil {
			t.Fatal(err)
		}
		var u *Unit
		err = h.try(func() (err error) { u, err = other.OpenUnit(Options{Name: c.name, Net: h.net}); return err })
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && u.Name() != c.name {
			t.Errorf("named %q, wanted %q", u.Name(), c.name)
		}
		for range 2 {
			if err := other.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	h.run(func() error {
		if _, err := h.net.ByName("<l2tp-bob>"); !errors.Is(err, netif.ErrGone) {
			return fmt.Errorf("the interface is still there: %v", err)
		}
		return nil
	})
	// The interface is taken away by somebody else.
	h.address(e.unit.Interface(), 1, 1400)
	h.run(func() error {
		l, err := netlink.LinkByName("ppp0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
	select {
	case err := <-e.ended:
		if !errors.Is(err, netif.ErrGone) {
			t.Errorf("Serve ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Serve does not end")
	}
	unit := e.unit
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := unit.Idle(); err != ErrClosed {
		t.Errorf("Idle after Close: %v", err)
	}
	if err := e.Send([]byte{0xc0, 0x21}); err != ErrClosed {
		t.Errorf("Send after Close: %v", err)
	}
	if _, err := e.OpenUnit(Options{Net: h.net}); err != ErrClosed {
		t.Errorf("OpenUnit after Close: %v", err)
	}
}

// TestSessionEnds: what carries the link goes first.
func TestSessionEnds(t *testing.T) {
	wire, h := newHost(t), newHost(t)
	e := newEnd(wire, h, 1, mode{})
	e.plane.CloseTunnel(l2tp.TunnelSpec{Local: e.spec.Tunnel.Local})
	select {
	case err := <-e.ended:
		if err != ErrGone {
			t.Errorf("Serve ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Serve does not end")
	}
	if err := e.Send([]byte{0xc0, 0x21}); err != ErrGone {
		t.Errorf("Send: %v", err)
	}
}

// TestIPv6Off: neither direction lets IPv6 through, and what claims to be IPv4 has to be.
func TestIPv6Off(t *testing.T) {
	h := newHost(t)
	p := newPipe()
	c, err := Attach(p)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var u *Unit
	h.run(func() (err error) { u, err = c.OpenUnit(Options{Net: h.net}); return err })
	go c.Serve(func([]byte) {})
	<-p.ready
	h.run(func() error {
		return u.Interface().SetUp(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1400)
	})
	v6 := append([]byte{0x60}, make([]byte, 47)...)
	v4 := append([]byte{0x45}, make([]byte, 27)...)
	for _, f := range [][]byte{append([]byte{0, 0x57}, v6...), append([]byte{0x21}, v6...), append([]byte{0, 0x57}, v4...), {0, 0x21}} {
		p.deliver(f, false)
	}
	s, err := u.Stats()
	if err != nil || s.RxDropped != 4 || s.RxPackets != 0 {
		t.Errorf("%+v %v", s, err)
	}
	p.deliver(append([]byte{0xff, 3, 0x21}, v4...), false)
	if s, _ := u.Stats(); s.RxPackets != 1 {
		t.Errorf("%+v", s)
	}
}
