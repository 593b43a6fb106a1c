//go:build linux

package sock

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

func open(t *testing.T, listen string, o Options) *Socket {
	t.Helper()
	o.Listen = netip.MustParseAddrPort(listen)
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

type got struct {
	d Datagram
	b string
}

func serve(t *testing.T, s *Socket) <-chan got {
	c := make(chan got, 16)
	done := make(chan error, 1)
	go func() { done <- s.Serve(func(d Datagram, b []byte) { c <- got{d, string(b)} }, nil) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func next(t *testing.T, c <-chan got) got {
	t.Helper()
	select {
	case g := <-c:
		return g
	case <-time.After(5 * time.Second):
		t.Fatal("nothing arrived")
		return got{}
	}
}

func TestAddresses(t *testing.T) {
	for _, tt := range []struct{ listen, addr string }{{"0.0.0.0:0", "127.0.0.9"}, {"[::]:0", "::1"}} {
		t.Run(tt.listen, func(t *testing.T) {
			if tt.addr == "::1" {
				if c, err := net.Listen("tcp6", "[::1]:0"); err != nil {
					t.Skip("no IPv6 here")
				} else {
					c.Close()
				}
			}
			server := open(t, tt.listen, Options{Reuse: true, Marks: true})
			in := serve(t, server)
			client := open(t, netip.AddrPortFrom(netip.MustParseAddr(tt.addr), 0).String(), Options{})
			answers := serve(t, client)
			to := netip.AddrPortFrom(netip.MustParseAddr(tt.addr), server.LocalAddr().Port())
			if err := client.Send(Datagram{Remote: to}, []byte("question")); err != nil {
				t.Fatal(err)
			}
			g := next(t, in)
			if g.d != (Datagram{Local: to, Remote: client.LocalAddr()}) || g.b != "question" {
				t.Fatalf("%+v", g)
			}
			if err := server.Send(g.d, []byte("answer")); err != nil {
				t.Fatal(err)
			}
			if g := next(t, answers); g.d.Remote != to || g.b != "answer" {
				t.Fatalf("answer from %+v, want %s", g, to)
			}
			if c := server.Counters(); c.Received != 1 || c.Sent != 1 || c.SendErrors != 0 {
				t.Errorf("%+v", c)
			}
			if err := server.Send(g.d, make([]byte, 70000)); err == nil {
				t.Error("a datagram of 70000 octets was sent")
			}
			if c := server.Counters(); c.SendErrors != 1 {
				t.Errorf("%+v", c)
			}
			client.Send(Datagram{Remote: to}, make([]byte, bufferLen+1))
			client.Send(Datagram{Remote: to}, []byte("after"))
			if g := next(t, in); g.b != "after" || server.Counters().Truncated != 1 {
				t.Errorf("%d octets, %+v", len(g.b), server.Counters())
			}
		})
	}
}

// A mark set on loopback stays with the datagram, so one socket sees what the other sent.
func TestMarks(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("SO_MARK needs root")
	}
	server := open(t, "0.0.0.0:0", Options{Marks: true})
	if !server.Marks() {
		t.Skip("this kernel has no SO_RCVMARK")
	}
	in := serve(t, server)
	client := open(t, "127.0.0.1:0", Options{})
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), server.LocalAddr().Port())
	for _, mark := range []uint32{0, 7, 0xfedcba98} {
		if err := client.Send(Datagram{Remote: to, Mark: mark, Local: client.LocalAddr()}, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if g := next(t, in); g.d.Mark != mark {
			t.Errorf("mark %#x arrived as %#x", mark, g.d.Mark)
		}
	}
}

// Sockets connected on the same port take their peer's datagrams, the shared one all others.
func TestReuse(t *testing.T) {
	server := open(t, "0.0.0.0:0", Options{Reuse: true})
	in := serve(t, server)
	port := server.LocalAddr().Port()
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	second, err := Open(Options{Listen: to, Reuse: true})
	if err != nil {
		t.Fatalf("the port is not shared: %v", err)
	}
	second.Close()
	client := open(t, "127.0.0.1:0", Options{})
	client.Send(Datagram{Remote: to}, []byte("x"))
	next(t, in)
	if _, err := Open(Options{Listen: to}); err == nil {
		t.Error("the port was taken without asking")
	}
}

func TestNoAllocation(t *testing.T) {
	server := open(t, "127.0.0.1:0", Options{Marks: true})
	c := make(chan struct{})
	go server.Serve(func(Datagram, []byte) { c <- struct{}{} }, nil)
	client := open(t, "127.0.0.1:0", Options{})
	d := Datagram{Local: client.LocalAddr(), Remote: server.LocalAddr()}
	msg := make([]byte, 100)
	if n := testing.AllocsPerRun(200, func() {
		if err := client.Send(d, msg); err != nil {
			t.Fatal(err)
		}
		<-c
	}); n > 0 {
		t.Errorf("%v allocations per datagram", n)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(Options{}); err == nil {
		t.Error("no address")
	}
	if _, err := Open(Options{Listen: netip.MustParseAddrPort("192.0.2.55:1701")}); err == nil {
		t.Error("an address that is not ours")
	}
}
