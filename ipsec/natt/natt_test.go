package natt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
)

type received struct {
	path ipsec.Path
	msg  []byte
}

// open binds a pair of free high ports on the addresses.
func open(t *testing.T, o Options) *Conns {
	t.Helper()
	for range 50 {
		o.IKEPort = uint16(20000 + rand.IntN(20000))
		o.NATTPort = o.IKEPort + 1
		c, err := Open(o)
		if errors.Is(err, ErrPortTaken) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	t.Fatal("no free ports")
	return nil
}

func ports(c *Conns) (ike, natt uint16) {
	for _, s := range c.socks {
		if s.marker {
			natt = s.local.Port()
		} else {
			ike = s.local.Port()
		}
	}
	return ike, natt
}

func serve(c *Conns) chan received {
	ch := make(chan received, 16)
	c.Serve(func(p ipsec.Path, msg []byte) { ch <- received{p, bytes.Clone(msg)} }, nil)
	return ch
}

func next(t *testing.T, ch chan received) received {
	t.Helper()
	select {
	case r := <-ch:
		return r
	case <-time.After(5 * time.Second):
		t.Fatal("nothing arrived")
		return received{}
	}
}

// haveIPv6 says whether the test host has ::1.
func haveIPv6() bool {
	c, err := net.ListenPacket("udp6", "[::1]:0")
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func TestAnswersFromTheAddressAsked(t *testing.T) {
	for name, at := range map[string]string{"ipv4": "127.0.0.9", "ipv6": "::1"} {
		t.Run(name, func(t *testing.T) {
			if name == "ipv6" && !haveIPv6() {
				t.Skip("no IPv6 on this host")
			}
			server := open(t, Options{})
			got := serve(server)
			addr := netip.MustParseAddr(at)
			ike, natt := ports(server)
			for _, port := range []uint16{ike, natt} {
				client, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				msg := bytes.Repeat([]byte{0xa5}, 40)
				wire := msg
				if port == natt {
					wire = append(make([]byte, markerLen), msg...)
				}
				if _, err := client.Write(wire); err != nil {
					t.Fatal(err)
				}
				r := next(t, got)
				if want := netip.AddrPortFrom(addr, port); r.path.Local != want || r.path.Remote != client.LocalAddr().(*net.UDPAddr).AddrPort() {
					t.Errorf("path %s, want %s<-%s", r.path, want, client.LocalAddr())
				}
				if !bytes.Equal(r.msg, msg) {
					t.Errorf("message %x", r.msg)
				}
				// The client is connected: an answer from another address would never reach it.
				if err := server.Send(r.path, msg); err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 100)
				client.SetReadDeadline(time.Now().Add(5 * time.Second))
				n, err := client.Read(buf)
				if err != nil || !bytes.Equal(buf[:n], wire) {
					t.Errorf("answer %x, error %v; want %x", buf[:n], err, wire)
				}
			}
		})
	}
}

func TestKeepaliveAndESPOnTheWire(t *testing.T) {
	server := open(t, Options{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	client, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ike, natt := ports(server)
	path := ipsec.Path{
		Local:  netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), natt),
		Remote: client.LocalAddr().(*net.UDPAddr).AddrPort(),
	}
	packet := []byte{0, 0, 1, 1, 0, 0, 0, 1, 9}
	for _, step := range []struct {
		send func() error
		want []byte
	}{
		{func() error { return server.Keepalive(path) }, []byte{0xff}},
		{func() error { return server.SendESP(path, packet) }, packet},
	} {
		if err := step.send(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		client.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, from, err := client.ReadFromUDPAddrPort(buf)
		if err != nil || !bytes.Equal(buf[:n], step.want) || from != path.Local {
			t.Errorf("%x from %s, error %v; want %x from %s", buf[:n], from, err, step.want, path.Local)
		}
	}
	path.Local = netip.AddrPortFrom(path.Local.Addr(), ike)
	if err := server.Keepalive(path); !errors.Is(err, ErrNoPath) {
		t.Errorf("keepalive on the IKE port: error %v, want ErrNoPath", err)
	}
	path.Local = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), natt)
	if err := server.Send(path, packet); !errors.Is(err, ErrNoPath) {
		t.Errorf("an address not listened on: error %v, want ErrNoPath", err)
	}
}

func TestDemultiplexing(t *testing.T) {
	ikeMsg := bytes.Repeat([]byte{0x11}, minIKE)
	for _, tc := range []struct {
		name   string
		marker bool
		in     []byte
		want   Stats
		msg    []byte
		esp    bool
	}{
		{"IKE on 500", false, ikeMsg, Stats{IKE: 1}, ikeMsg, false},
		{"short IKE on 500", false, ikeMsg[:minIKE-1], Stats{Runts: 1}, nil, false},
		{"empty on 500", false, nil, Stats{Runts: 1}, nil, false},
		{"IKE on 4500", true, append(make([]byte, 4), ikeMsg...), Stats{IKE: 1}, ikeMsg, false},
		{"short IKE on 4500", true, append(make([]byte, 4), ikeMsg[1:]...), Stats{Runts: 1}, nil, false},
		{"marker alone", true, make([]byte, 4), Stats{Runts: 1}, nil, false},
		{"keepalive", true, []byte{0xff}, Stats{Keepalives: 1}, nil, false},
		{"keepalive on 500", false, []byte{0xff}, Stats{Runts: 1}, nil, false},
		{"one other octet", true, []byte{0}, Stats{Runts: 1}, nil, false},
		{"empty on 4500", true, nil, Stats{Runts: 1}, nil, false},
		{"three octets", true, []byte{1, 2, 3}, Stats{Runts: 1}, nil, false},
		{"ESP", true, []byte{0, 0, 1, 0, 0, 0, 0, 1, 7}, Stats{ESP: 1}, nil, true},
		{"short ESP", true, []byte{0, 0, 1, 0, 0, 0, 0}, Stats{Runts: 1}, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var msg, esp []byte
			c := &Conns{}
			in := input{c: c, s: &sock{marker: tc.marker}, esp: func(_ ipsec.Path, b []byte) { esp = b }, recv: func(_ ipsec.Path, b []byte) { msg = b }}
			in.deliver(ipsec.Path{}, tc.in)
			if got := c.Stats(); got != tc.want {
				t.Errorf("stats %+v, want %+v", got, tc.want)
			}
			if !bytes.Equal(msg, tc.msg) || (esp != nil) != tc.esp {
				t.Errorf("message %x, ESP %x", msg, esp)
			}
		})
	}
}

func TestTruncatedIsDropped(t *testing.T) {
	server := open(t, Options{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	got := serve(server)
	client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(server.Locals()[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.Write(make([]byte, MaxMessage+1))
	client.Write(make([]byte, MaxMessage))
	if r := next(t, got); len(r.msg) != MaxMessage {
		t.Errorf("%d octets arrived", len(r.msg))
	}
	if s := server.Stats(); s.Truncated != 1 || s.IKE != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestPortTaken(t *testing.T) {
	first := open(t, Options{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	ike, natt := ports(first)
	_, err := Open(Options{Listen: []netip.Addr{netip.MustParseAddr("0.0.0.0")}, IKEPort: ike, NATTPort: natt})
	if !errors.Is(err, ErrPortTaken) || !strings.Contains(err.Error(), "charon") {
		t.Errorf("error %v, want ErrPortTaken that names the culprit", err)
	}
	// The half-open rest was closed again.
	if _, err := Open(Options{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.3"), netip.MustParseAddr("127.0.0.1")}, IKEPort: ike, NATTPort: natt}); !errors.Is(err, ErrPortTaken) {
		t.Errorf("error %v", err)
	}
	c, err := Open(Options{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.3")}, IKEPort: ike, NATTPort: natt})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := Open(Options{IKEPort: 4500}); err == nil {
		t.Error("one port for both was accepted")
	}
}

func TestNoAllocationPerPacket(t *testing.T) {
	received, flushed := 0, 0
	c := open(t, Options{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, ESP: func() (func(ipsec.Path, []byte), func()) {
		return func(ipsec.Path, []byte) { received++ }, func() { flushed++ }
	}})
	_, natt := ports(c)
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), natt)
	self := ipsec.Path{Local: at, Remote: at}
	in := c.input(c.find(self), func(ipsec.Path, []byte) {}, nil)
	msg := make([]byte, 300)
	packets := [][]byte{bytes.Repeat([]byte{7}, 300), bytes.Repeat([]byte{8}, 300), bytes.Repeat([]byte{9}, 100)}
	want := 0
	allocs := testing.AllocsPerRun(200, func() {
		if err := c.Send(self, msg); err != nil {
			t.Fatal(err)
		}
		if err := in.read(); err != nil {
			t.Fatal(err)
		}
		if n, err := c.SendESPBatch(self, packets); err != nil || n != len(packets) {
			t.Fatal(n, err)
		}
		for want += len(packets); received < want; {
			if err := in.read(); err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocs != 0 || received != want || flushed < 2 {
		t.Errorf("%v allocations for datagrams sent and received (%d of %d received, %d flushes)", allocs, received, want, flushed)
	}
}

func TestBypassPolicyLayout(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the golden is little-endian")
	}
	want := strings.Repeat("00", 40) + "0200" + strings.Repeat("00", 14) + strings.Repeat("ff", 32) + strings.Repeat("00", 72) + "01" + "00" + strings.Repeat("00", 6)
	if got := hex.EncodeToString([]byte(bypassPolicy(false, policyOut))); got != want {
		t.Errorf("got\n%s, want\n%s", got, want)
	}
}

func TestEncapOption(t *testing.T) {
	c, err := Open(Options{Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, IKEPort: 45001, NATTPort: 45002, Encap: true})
	if err == nil {
		c.Close()
		return
	}
	if !errors.Is(err, unix.ENOPROTOOPT) || !strings.Contains(err.Error(), "esp4") {
		t.Errorf("error %v: it must say what the kernel lacks", err)
	}
	if os.Getenv("CULVERT_LAB") == "guest" {
		t.Errorf("the lab's kernel: %v", err)
	}
}
