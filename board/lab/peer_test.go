package lab

import (
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The lab's clients against the reference server: direct and behind a NAT, with port 1701 and with an ephemeral one.
func TestLabPeers(t *testing.T) {
	Run(t, func(t *testing.T, l *L) {
		in := l.Internet()
		server := in.Host("server", "192.0.2.1")
		nat := in.NAT("nat", "203.0.113.1")
		clients := map[string]*Node{"direct": in.Host("direct", "198.51.100.2"), "nat": nat.Host("hidden", "10.0.0.2")}
		ike := IKE{PSK: "a shared secret", Proposals: "aes128-sha1-modp2048", ESP: "aes128-sha1"}
		ref := ReferenceServer(server, ike, LNS{Local: "192.168.99.1", Pool: "192.168.99.2-192.168.99.9", Users: map[string]string{"user1": "s3cret"}})
		outside := server.Capture("eth0", func(p Packet) bool { return !p.IKE() && p.Src.Addr().Is4() })
		for _, where := range []string{"direct", "nat"} {
			for _, port := range []int{1701, 0} {
				ike.Port = port
				c := NewClient(clients[where], ClientConfig{Server: server.Up.Addrs[0], User: "user1", Password: "s3cret", IKE: ike})
				start := time.Now()
				addr, err := c.Connect(t.Context())
				if err != nil {
					t.Fatalf("%s, port %d: %v", where, port, err)
				}
				took := time.Since(start)
				inner := netip.MustParseAddr("192.168.99.1")
				if c.Inner() != inner {
					t.Errorf("the server is %v inside", c.Inner())
				}
				if _, err := c.Ping(inner, 5*time.Second); err != nil {
					t.Error(err)
				}
				if _, err := server.Ping(addr, 5*time.Second); err != nil {
					t.Error(err)
				}
				rate, err := c.Transfer(server, inner, 10<<20)
				if err != nil {
					t.Error(err)
				}
				t.Logf("%s, port %d: %v after %.2f s, %.0f Mbit/s", where, port, addr, took.Seconds(), rate)
				start = time.Now()
				if err := c.Disconnect(t.Context()); err != nil {
					t.Error(err)
				}
				if s := c.IPsecState(); s != "" {
					t.Errorf("left on the client: %s", s)
				}
				t.Logf("disconnected in %.2f s", time.Since(start).Seconds())
				c.Kill()
			}
		}
		if got := outside.Stop(); len(got) > 0 {
			t.Errorf("%d packets outside of IPsec, the first %v", len(got), got[0])
		}
		ref.Stop()
	})
}

// The lab's own dialler and its fast way to make charon negotiate, against the reference server.
func TestLabDialler(t *testing.T) {
	Run(t, func(t *testing.T, l *L) {
		in := l.Internet()
		server := in.Host("server", "192.0.2.1")
		client := in.Host("client", "198.51.100.2")
		ike := IKE{PSK: "a shared secret", Proposals: "aes128-sha1-modp2048", ESP: "aes128-sha1"}
		ref := ReferenceServer(server, ike, LNS{Local: "192.168.99.1", Pool: "192.168.99.2-192.168.99.99", Auth: "pap", Users: map[string]string{"user1": "s3cret"}})
		start := time.Now()
		const n = 5
		for range n {
			d, err := client.DialL2TP(t.Context(), netip.AddrPortFrom(server.Up.Addrs[0], 1701), "user1", "s3cret")
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
		}
		t.Logf("%d sessions in %.2f s, %.1f MB", n, time.Since(start).Seconds(), float64(ref.Memory())/(1<<20))
		charon, err := client.Charon()
		l.Must(err, "charon")
		l.Must(charon.Load(t.Context(), server.Up.Addrs[0], ike), "load")
		start = time.Now()
		l.Must(charon.Exchange(n), "exchange")
		t.Logf("%d times both phases in %.2f s, the server's CPU so far %v", n, time.Since(start).Seconds(), ref.CPU())
	}, Kernels("6.12"))
}

// The lab's clients against SoftEther: with IPsec directly and behind a NAT, and plain.
func TestLabSoftEther(t *testing.T) {
	Run(t, func(t *testing.T, l *L) {
		in := l.Internet()
		server := in.Host("server", "192.0.2.1")
		nat := in.NAT("nat", "203.0.113.1")
		clients := map[string]*Node{"direct": in.Host("direct", "198.51.100.2"), "nat": nat.Host("hidden", "10.0.0.2")}
		ike := IKE{PSK: "a shared secret", Proposals: "aes128-sha1-modp2048", ESP: "aes128-sha1"}
		lns := LNS{Local: "192.168.99.1", Pool: "192.168.99.2-192.168.99.9", Users: map[string]string{"user1": "s3cret"}}
		start := time.Now()
		se := SoftEtherServer(server, ike, lns)
		t.Logf("serves after %.2f s, %.1f MB", time.Since(start).Seconds(), float64(se.Memory())/(1<<20))
		for _, where := range []string{"direct", "nat"} {
			// It asks every client for its NetBIOS name in the clear, which is refused: only the tunnel's own is looked for.
			outside := server.Capture("eth0", func(p Packet) bool { return p.port(1701) || p.Proto == unix.IPPROTO_TCP })
			c := NewClient(clients[where], ClientConfig{Server: server.Up.Addrs[0], User: "user1", Password: "s3cret", IKE: ike})
			addr, err := c.Connect(t.Context())
			if err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			c.IP("route add " + se.Local.String() + " dev ppp0")
			if _, err := c.Ping(se.Local, 5*time.Second); err != nil {
				t.Error(err)
			}
			if _, err := server.Ping(addr, 5*time.Second); err != nil {
				t.Error(err)
			}
			rate, err := c.Transfer(server, se.Local, 4<<20)
			if err != nil {
				t.Error(err)
			}
			t.Logf("%s: %v, %.0f Mbit/s", where, addr, rate)
			if len(server.IPsecState()) > 0 {
				t.Errorf("the server's kernel has SAs: %s", server.IPsecState())
			}
			if got := outside.Stop(); len(got) > 0 {
				t.Errorf("%d packets outside of IPsec, the first %v", len(got), got[0])
			}
			if err := c.Disconnect(t.Context()); err != nil {
				t.Error(err)
			}
			c.Kill()
		}
		se.Stop()
		if left := server.Processes(); len(left) > 0 {
			t.Errorf("processes left: %v", left)
		}
	}, Kernels("6.12"))
}
