package ikev1

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"

	"culvert/ipsec"
	"culvert/ipsec/isakmp/isakmptest"
)

// inUse is what is in use after the garbage has gone.
func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// perPiece is the memory that each of n things takes which f makes.
func perPiece(n int, f func()) int64 {
	before := inUse()
	f()
	return (int64(inUse()) - int64(before)) / int64(n)
}

// memoryOf measures what the engine keeps of a half-open exchange, whose initiator may be forged; of one after message 3;
// and of a client with an ISAKMP SA and a pair of ESP SAs, without what the data plane keeps.
func memoryOf(t *testing.T, n int) (first, proven, client int64) {
	t.Helper()
	half := func(cfg *Config) {
		cfg.HalfOpen = 4 * statelessLoad * n
		cfg.Peers[0].Profile.Groups = []Group{ECP256}
	}
	w := newWorld(t, half)
	msg := isakmptest.Windows.Main1()
	first = perPiece(n, func() {
		for i := range n {
			binary.BigEndian.PutUint64(msg, uint64(i+1))
			w.give(ipsec.Path{Local: netip.AddrPortFrom(serverAddr, 500), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 500)}, msg)
		}
	})
	if w.e.Snapshot(w.now).HalfOpen != n {
		t.Fatal("they are not half open")
	}
	address := func(i int) string { return netip.AddrFrom4([4]byte{100, byte(i >> 8), byte(i), 7}).String() }
	w = newWorld(t, half)
	third := make([][]byte, n)
	paths := make([]ipsec.Path, n)
	for i := range n {
		c := ecpClient(t, uint64(i)).behindNAT(address(i), 61000, "192.168.1.34")
		third[i] = c.receive(w.give(c.from(), c.first())[0].msg)
		paths[i] = c.from()
	}
	proven = first + perPiece(n, func() {
		for i := range n {
			w.give(paths[i], third[i])
		}
	})
	if s := w.e.Snapshot(w.now); s.HalfOpen != n || w.e.halfOpen[penProven].order.Len() != n {
		t.Fatal("they are not past message 3")
	}
	w = newWorld(t, half)
	w.e.env.Backend = counting{}
	client = perPiece(n, func() {
		for i := range n {
			w.connect(ecpClient(t, uint64(i)).behindNAT(address(i), 61000, "192.168.1.34"))
		}
		w.log.Reset()
		w.ups, w.clients, w.sent = nil, nil, nil
	})
	runtime.KeepAlive(w)
	return first, proven, client
}

// counting is a data plane that keeps nothing.
type counting struct{}

func (counting) Install(ipsec.SA) error                    { return nil }
func (counting) Remove(ipsec.SAID) error                   { return nil }
func (counting) Move(ipsec.Mark, netip.AddrPort) error     { return nil }
func (counting) Usage(ipsec.SAID) (u ipsec.Usage, _ error) { return ipsec.Usage{Packets: 1}, nil }

// TestMemory holds the engine to what it may keep of each.
func TestMemory(t *testing.T) {
	first, proven, client := memoryOf(t, 300)
	t.Logf("octets: %d for a half-open exchange, %d after message 3, %d for a client with its SAs", first, proven, client)
	if first > 4<<10 || proven > 8<<10 || client > 24<<10 {
		t.Errorf("octets: %d for a half-open exchange, %d after message 3, %d for a client with its SAs", first, proven, client)
	}
}

// BenchmarkMemory prints the same for make bench.
func BenchmarkMemory(b *testing.B) {
	t := &testing.T{}
	for b.Loop() {
		first, proven, client := memoryOf(t, 1000)
		b.ReportMetric(float64(first), "octets/half-open")
		b.ReportMetric(float64(proven), "octets/after-message-3")
		b.ReportMetric(float64(client), "octets/client-with-SAs")
		b.ReportMetric(0, "ns/op")
	}
}
