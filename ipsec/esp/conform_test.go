package esp

import (
	"net/netip"
	"testing"

	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
)

func TestConforms(t *testing.T) {
	ipsectest.Conform(t, func(t *testing.T) ipsec.Backend {
		b := New(Options{
			SendUDP: func(ipsec.Path, []byte) error { return nil },
			SendRaw: func(netip.Addr, netip.Addr, []byte) error { return nil },
			Deliver: func(ipsec.Mark, netip.AddrPort, netip.AddrPort, []byte) {},
		})
		t.Cleanup(func() { b.Close() })
		return b
	})
}
