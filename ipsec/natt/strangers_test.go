package natt

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"culvert/ipsec"
)

// ike is a message with this responder cookie; on the port of NAT traversal with the non-ESP marker.
func ike(cookie uint64, marker bool) []byte {
	b := bytes.Repeat([]byte{0x5a}, 60)
	binary.BigEndian.PutUint64(b[cookieAt:], cookie)
	if marker {
		b = append(make([]byte, markerLen), b...)
	}
	return b
}

// TestStrangersApart: first messages that nobody takes fill a queue of their own; what belongs to an exchange passes them.
func TestStrangersApart(t *testing.T) {
	for name, at := range map[string]string{"ipv4": "127.0.0.1", "ipv6": "::1"} {
		t.Run(name, func(t *testing.T) {
			if name == "ipv6" && !haveIPv6() {
				t.Skip("no IPv6 on this host")
			}
			addr := netip.MustParseAddr(at)
			c := open(t, Options{Listen: []netip.Addr{addr}, Strangers: true})
			got, firsts, release := make(chan received, 16), make(chan int, 4096), make(chan struct{})
			c.Serve(func(p ipsec.Path, msg []byte) { got <- received{p, bytes.Clone(msg)} }, func(list []Message) {
				<-release
				for _, m := range list {
					if !begins(m.Data) {
						t.Errorf("%x is no first message", m.Data)
					}
				}
				firsts <- len(list)
			})
			ports := c.Locals()
			if len(ports) != 2 || len(c.socks) != 4 {
				t.Fatalf("sockets %v of %d", ports, len(c.socks))
			}
			for i, to := range ports {
				client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				for range 2000 {
					client.Write(ike(0, i == 1))
				}
				for _, cookie := range []uint64{1, 1 << 32, 1 << 63} {
					client.Write(ike(cookie, i == 1))
					r := next(t, got)
					if !bytes.Equal(r.msg, ike(cookie, false)) || r.path.Local != to {
						t.Errorf("%v: %x", r.path, r.msg)
					}
				}
			}
			if n := c.Stats().Overrun; n == 0 {
				t.Error("the kernel has dropped nothing")
			}
			close(release)
			most := 0
			for deadline := time.After(5 * time.Second); most < batchFirst; {
				select {
				case n := <-firsts:
					most = max(most, n)
				case <-deadline:
					t.Fatalf("at most %d first messages at once", most)
				}
			}
		})
	}
}

// TestTogether: what is sent meanwhile leaves afterwards, to whom it is for; what cannot leave does not keep the rest.
func TestTogether(t *testing.T) {
	c := open(t, Options{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	locals := c.Locals()
	var peers []*net.UDPConn
	for range batchFirst + 3 {
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		peers = append(peers, u)
	}
	nobody := netip.MustParseAddrPort("127.0.0.1:0") // refused by the kernel
	buf := make([]byte, 100)
	c.Together(func() {
		for i, u := range peers {
			for _, to := range []netip.AddrPort{nobody, u.LocalAddr().(*net.UDPAddr).AddrPort()} {
				if err := c.Send(ipsec.Path{Local: locals[i%2], Remote: to}, ike(uint64(i), false)); err != nil {
					t.Fatal(err)
				}
			}
		}
		peers[0].SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if n, _, err := peers[0].ReadFrom(buf); err == nil {
			t.Errorf("%x left at once", buf[:n])
		}
	})
	for i, u := range peers {
		u.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, from, err := u.ReadFromUDPAddrPort(buf)
		if err != nil || !bytes.Equal(buf[:n], ike(uint64(i), i%2 == 1)) || from != locals[i%2] {
			t.Errorf("%d: %x from %v, error %v", i, buf[:n], from, err)
		}
	}
	if err := c.Send(ipsec.Path{Local: locals[0], Remote: nobody}, ike(1, false)); err == nil {
		t.Error("what is sent afterwards does not leave at once")
	}
}
