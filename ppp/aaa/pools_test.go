package aaa

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func rng(first, last string) Range { return Range{ip(first), ip(last)} }

func TestPoolOrder(t *testing.T) {
	p := newPools()
	p.configure(map[string]Pool{
		"a": {Ranges: []Range{rng("10.0.0.9", "10.0.0.10"), rng("10.0.0.1", "10.0.0.3"), rng("10.0.0.2", "10.0.0.4")}, Next: "b"},
		"b": {Ranges: []Range{rng("255.255.255.254", "255.255.255.255")}, Next: "c"},
		"c": {Ranges: []Range{rng("2001:db8::ffff", "2001:db8::1:0")}, Next: "a"},
	}, map[netip.Addr]string{ip("10.0.0.2"): "someone"})
	var got []*lease
	for i, want := range []string{"10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.9", "10.0.0.10", "255.255.255.254",
		"255.255.255.255", "2001:db8::ffff", "2001:db8::1:0"} {
		l := p.take("a", fmt.Sprint("user", i), leaseRemote)
		if l == nil || l.addr != ip(want) {
			t.Fatalf("lease %d is %v, want %s", i, l, want)
		}
		got = append(got, l)
	}
	if l := p.take("a", "late", leaseRemote); l != nil {
		t.Fatalf("lease from full pools: %v", l)
	}
	p.release(got[4])
	p.release(got[1])
	p.release(got[1])
	// A newcomer gets the lowest; who was here before gets its own.
	if l := p.take("a", "user4", leaseRemote); l.addr != got[4].addr {
		t.Errorf("returned to %v, had %v", l.addr, got[4].addr)
	}
	if l := p.take("a", "new", leaseRemote); l.addr != got[1].addr {
		t.Errorf("lowest free is %v, want %v", l.addr, got[1].addr)
	}
	if l := p.take("a", "user1", leaseRemote); l != nil {
		t.Errorf("lease from full pools: %v", l)
	}
	if p.take("nowhere", "x", leaseRemote) != nil {
		t.Error("lease from a pool that does not exist")
	}
}

func TestRangeSize(t *testing.T) {
	for _, c := range []struct {
		r    Range
		want uint64
	}{
		{rng("10.0.0.0", "10.255.255.255"), 1 << 24},
		{rng("0.0.0.0", "255.255.255.255"), 1 << 32},
		{rng("10.0.0.1", "10.0.0.1"), 1},
		{rng("10.0.0.255", "10.0.1.0"), 2},
		{rng("2001:db8::", "2001:db8::ffff:ffff:fffe"), 1<<48 - 1},
		{rng("::", "::ffff:ffff:ffff:ffff"), ^uint64(0)},
		{rng("::", "ffff::"), ^uint64(0)},
	} {
		if got := c.r.size(); got != c.want {
			t.Errorf("%v: %d, want %d", c.r, got, c.want)
		}
	}
}

// A /8 must cost what its leases cost.
func TestPoolHugeRange(t *testing.T) {
	allocs := testing.AllocsPerRun(1, func() {
		p := newPools()
		p.configure(map[string]Pool{"a": {Ranges: []Range{rng("10.0.0.0", "10.255.255.255"), rng("2001:db8::", "2001:db8:ffff::")}}}, nil)
		for i := range 100 {
			l := p.take("a", "u", leaseRemote)
			if i%2 == 0 {
				p.release(l)
			}
		}
	})
	if allocs > 2000 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestStickyBounded(t *testing.T) {
	p := newPools()
	p.configure(map[string]Pool{"a": {Ranges: []Range{rng("10.0.0.0", "10.255.255.255")}}}, nil)
	for i := range 3 * maxSticky {
		p.release(p.take("a", fmt.Sprint(i), leaseRemote))
	}
	if len(p.sticky) != maxSticky || p.stickyAge.Len() != maxSticky {
		t.Errorf("%d users remembered", len(p.sticky))
	}
	for _, q := range p.byName {
		if len(q.free) > 1 || len(q.inFree) != len(q.free) {
			t.Errorf("%d addresses remembered free, one was ever in use at a time", len(q.free))
		}
	}
}

// Against a model: no address is leased twice or while reserved, every newcomer gets the lowest one left, and the pool
// says it is full only when it is. Through reconfigurations.
func TestPoolModel(t *testing.T) { poolModel(t, rand.New(rand.NewPCG(1, 2)), 20000) }

func FuzzPoolModel(f *testing.F) {
	f.Add(uint64(1), uint64(1))
	f.Fuzz(func(t *testing.T, a, b uint64) { poolModel(t, rand.New(rand.NewPCG(a, b)), 300) })
}

func poolModel(t *testing.T, r *rand.Rand, steps int) {
	addr := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }
	var config map[string]Pool
	reserved := map[netip.Addr]string{}
	p := newPools()
	live := map[netip.Addr]*lease{}
	shared := map[netip.Addr]int{}
	configure := func() {
		config = map[string]Pool{}
		for _, name := range []string{"a", "b", "c"} {
			q := Pool{Next: []string{"a", "b", "c", "", "gone"}[r.IntN(5)]}
			for range r.IntN(3) {
				first := r.IntN(40)
				q.Ranges = append(q.Ranges, Range{addr(first), addr(first + r.IntN(6) - 1)})
			}
			config[name] = q
		}
		reserved = map[netip.Addr]string{}
		for range r.IntN(4) {
			reserved[addr(r.IntN(45))] = "x"
		}
		p.configure(config, reserved)
	}
	// lowest is what a newcomer must get, found the slow way.
	lowest := func(name string) (netip.Addr, string) {
		for range len(config) + 1 {
			q, ok := config[name]
			if !ok {
				break
			}
			for n := range 256 {
				a := addr(n)
				for _, g := range q.Ranges {
					if _, res := reserved[a]; !res && live[a] == nil && shared[a] == 0 && !a.Less(g.First) && !g.Last.Less(a) {
						return a, name
					}
				}
			}
			name = q.Next
		}
		return netip.Addr{}, ""
	}
	configure()
	for step := range steps {
		switch n := r.IntN(100); {
		case n < 1:
			configure()
		case n < 4:
			a := addr(r.IntN(45))
			if live[a] == nil {
				p.share(a)
				shared[a]++
			}
		case n < 7:
			for a := range shared {
				p.unshare(a)
				if shared[a]--; shared[a] == 0 {
					delete(shared, a)
				}
				break
			}
		case n < 10: // a secret's own address
			a := addr(r.IntN(45))
			l, holder := p.takeStatic(a, "static", leaseRemote)
			if (l == nil) != (live[a] != nil) || holder != live[a] {
				t.Fatalf("step %d: static %v: lease %v, holder %v", step, a, l, holder)
			}
			if l != nil {
				live[a] = l
			}
		case n < 50:
			for a, l := range live {
				p.release(l)
				p.release(l)
				delete(live, a)
				break
			}
		default:
			pool := []string{"a", "b", "c"}[r.IntN(3)]
			newcomer := r.IntN(2) == 0
			owner := fmt.Sprint("new", step)
			if !newcomer {
				owner = fmt.Sprint("regular", r.IntN(8))
			}
			want, from := lowest(pool)
			l := p.take(pool, owner, leaseRemote)
			if (l == nil) != !want.IsValid() {
				t.Fatalf("step %d: lease %v, want %v", step, l, want)
			}
			if l == nil {
				continue
			}
			if newcomer && (l.addr != want || l.pool != from) {
				t.Fatalf("step %d: lease %v of %s, want %v of %s", step, l.addr, l.pool, want, from)
			}
			if _, res := reserved[l.addr]; res || live[l.addr] != nil || shared[l.addr] > 0 {
				t.Fatalf("step %d: %v leased twice", step, l.addr)
			}
			live[l.addr] = l
		}
		if len(p.taken) != len(live) {
			t.Fatalf("step %d: %d taken, %d live", step, len(p.taken), len(live))
		}
	}
}
