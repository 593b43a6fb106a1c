package ikev1

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"culvert/ipsec"
	"culvert/ipsec/isakmp/isakmptest"
)

// BenchmarkFirst is a first message in the middle of a flood: one whose like is known, and one like no other.
func BenchmarkFirst(b *testing.B) {
	for _, different := range []bool{false, true} {
		name := "alike"
		if different {
			name = "different"
		}
		b.Run(name, func(b *testing.B) {
			w := newWorld(&testing.T{}, nil)
			msg := isakmptest.StrongSwan.Main1()
			r := rand.New(rand.NewPCG(1, 1))
			send := func(i int) {
				binary.BigEndian.PutUint64(msg, r.Uint64())
				if different {
					binary.BigEndian.PutUint64(msg[len(msg)-8:], uint64(i))
				}
				w.e.Receive(w.now, ipsec.Path{Local: netip.AddrPortFrom(serverAddr, 500), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(r.Uint32()), byte(r.Uint32()), 1}), 500)}, msg)
				w.sent = nil
			}
			for i := range 2000 {
				send(i)
			}
			b.ReportAllocs()
			for i := 2000; b.Loop(); i++ {
				send(i)
			}
		})
	}
}
