package esp

import (
	"net/netip"
	"os"
	"testing"

	"culvert/ipsec"
)

// In a device of their own, or deaf, raw sockets send; what arrives there the deaf ones do not hear.
func TestRawDevice(t *testing.T) {
	skip := t.Skip
	if os.Getenv("CI") == "true" {
		skip = t.Fatal
	}
	if os.Geteuid() != 0 {
		skip("needs root: raw sockets")
	}
	local := netip.MustParseAddr("127.0.0.31") // nobody else's
	open := func(o RawOptions) *Raw {
		t.Helper()
		o.Listen = []netip.Addr{local}
		r, err := OpenRaw(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}
	heard, deaf := open(RawOptions{Device: "lo"}), open(RawOptions{Device: "lo", Deaf: true})
	packets := make(chan ipsec.Path, 4)
	serve := func(r *Raw) {
		r.Serve(func() (func(ipsec.Path, []byte), func()) {
			return func(p ipsec.Path, packet []byte) { packets <- p }, func() {}
		})
	}
	serve(deaf)
	serve(heard)
	for range 2 {
		if err := deaf.Send(local, local, make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
		if p := <-packets; p.Remote.Addr() != local {
			t.Errorf("from %v", p)
		}
	}
	if h, d := heard.Stats().Packets, deaf.Stats().Packets; h != 2 || d != 0 {
		t.Errorf("heard %d and %d packets", h, d)
	}
	if _, err := OpenRaw(RawOptions{Device: "no-such-vrf"}); err == nil {
		t.Error("in a VRF that does not exist")
	}
}
