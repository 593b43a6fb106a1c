package config

import (
	"crypto/rand"
	"net/netip"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/ipsec/ipsectest"
	"culvert/ipsec/isakmp"
	"culvert/ipsec/isakmp/isakmptest"
)

// What a file that says nothing of IPsec but the secret accepts of the clients out there, and what it refuses: those that
// know nothing better than MODP1024.
func TestDefaultsMeetClients(t *testing.T) {
	c := mustParse(t, server)
	for _, x := range []struct {
		client isakmptest.Client
		ok     bool
	}{
		{isakmptest.Windows, true}, {isakmptest.Apple, true}, {isakmptest.StrongSwan, true}, {isakmptest.RouterOS, true},
		{isakmptest.Android, false}, {isakmptest.LegacyCPE, false},
	} {
		var got isakmp.Header
		e := ikev1.New(c.IPsec, ikev1.Env{
			Backend: ipsectest.NewFake(), Rand: rand.Reader,
			Send: func(_ ipsec.Path, msg []byte) { got, _ = isakmp.ParseHeader(msg) },
		})
		e.Receive(time.Now(), ipsec.Path{Local: netip.MustParseAddrPort("192.0.2.1:500"), Remote: netip.MustParseAddrPort("198.51.100.7:500")}, x.client.Main1())
		if ok := got.Exchange == isakmp.Main; ok != x.ok {
			t.Errorf("%s: answered with %v", x.client.Name, got.Exchange)
		}
	}
}
