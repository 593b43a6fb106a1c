package demo

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The wire has to notice what is in the clear: otherwise that it saw none would mean nothing.
func TestWireTellsClearFromSealed(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root: network namespaces")
	}
	n, err := newNetwork()
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	w, err := n.middle.watch(toServer)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	server := serverOutside.Addr()
	if _, err := n.client.ping(t.Context(), server, 10*time.Second); err != nil { // the links need a moment to come up
		t.Fatal(err)
	}
	udp := func(from *namespace, local, remote uint16, size int) func() {
		return func() {
			if err := from.do(func() error {
				c, err := net.DialUDP("udp4", &net.UDPAddr{Port: int(local)}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, remote)))
				if err != nil {
					return err
				}
				defer c.Close()
				_, err = c.Write(make([]byte, size))
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	esp := func() {
		if err := n.client.do(func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ESP)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, make([]byte, 40), 0, &unix.SockaddrInet4{Addr: server.As4()})
		}); err != nil {
			t.Fatal(err)
		}
	}
	ping := func() { n.client.ping(t.Context(), server, time.Second) }
	for _, tt := range []struct {
		name          string
		send          func()
		sealed, clear bool
	}{
		{"IKE", udp(n.client, 500, 500, 100), true, false},
		{"IKE from any port", udp(n.client, 0, 500, 100), true, false},
		{"NAT traversal", udp(n.client, 4500, 4500, 100), true, false},
		{"in fragments", udp(n.client, 4500, 4500, 3000), true, false},
		{"ESP", esp, true, false},
		{"L2TP", udp(n.client, 1701, 1701, 100), false, true},
		{"ping", ping, false, true},
	} {
		w.counts()
		tt.send()
		var got passed
		for end := time.Now().Add(time.Second); time.Now().Before(end) && got == (passed{}); {
			got = w.counts()
		}
		// The server's ICMP for ports without a socket is as clear as anything; it comes after.
		if (got.sealed > 0) != tt.sealed || (got.clear > 0) != tt.clear && !tt.sealed {
			t.Errorf("%s: %+v", tt.name, got)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
