package aaa

import (
	"cmp"
	"container/heap"
	"container/list"
	"net/netip"
	"slices"
	"sort"
)

// maxSticky bounds how many users' last addresses are remembered for their return.
const maxSticky = 1024

// pools leases addresses. What it keeps grows with the leases that are live and have lately been, never with the size
// of a range: a /8 costs as much as a /30.
type pools struct {
	byName map[string]*pool
	// taken holds every address in use, from whichever pool or secret it came: pools may overlap.
	taken map[netip.Addr]*lease
	// shared counts the live sessions that have an address as their own end of the link; many may have the same.
	shared map[netip.Addr]int
	// reserved are addresses that the configuration gives to somebody: a secret's own, or our end of a link.
	reserved map[netip.Addr]string

	sticky    map[stickyKey]*list.Element // of stickyEntry
	stickyAge list.List                   // least recently leased first
}

type stickyKey struct {
	user string
	kind leaseKind
}

type stickyEntry struct {
	key  stickyKey
	addr netip.Addr
}

type leaseKind uint8

const (
	leaseRemote leaseKind = iota
	leaseLocal
)

// lease is one address in use.
type lease struct {
	addr  netip.Addr
	pool  string // empty: an address of a secret's or profile's own
	owner string
	kind  leaseKind
}

// pool is one `[ip.pool]`. Addresses below the cursor are taken, reserved, or in free; those from the cursor on have not
// been looked at, so the lowest free address is the least of free or, that empty, the first good one at the cursor.
type pool struct {
	name   string
	next   string
	ranges []Range // sorted, disjoint
	at     int     // range of the cursor
	cursor netip.Addr
	free   addrHeap
	inFree map[netip.Addr]struct{} // the members of free, each once
}

func newPools() *pools {
	p := &pools{taken: map[netip.Addr]*lease{}, shared: map[netip.Addr]int{}, sticky: map[stickyKey]*list.Element{}}
	p.configure(nil, nil)
	return p
}

// configure replaces the ranges and reservations. Leases stay, and remain taken wherever the new pools contain them.
func (p *pools) configure(config map[string]Pool, reserved map[netip.Addr]string) {
	p.byName = make(map[string]*pool, len(config))
	for name, c := range config {
		q := &pool{name: name, next: c.Next, ranges: mergeRanges(c.Ranges), inFree: map[netip.Addr]struct{}{}}
		if len(q.ranges) > 0 {
			q.cursor = q.ranges[0].First
		}
		p.byName[name] = q
	}
	p.reserved = reserved
}

// take leases an address to owner from the named pool or those that follow it: the one owner had before where it is
// free, else the lowest. Nil when none is left.
func (p *pools) take(name, owner string, kind leaseKind) *lease {
	key := stickyKey{owner, kind}
	if e, ok := p.sticky[key]; ok {
		addr := e.Value.(stickyEntry).addr
		if p.available(addr) {
			for q := range p.chain(name) {
				if q.contains(addr) {
					return p.hold(addr, q.name, owner, kind)
				}
			}
		}
	}
	for q := range p.chain(name) {
		if addr := p.lowest(q); addr.IsValid() {
			return p.hold(addr, q.name, owner, kind)
		}
	}
	return nil
}

// takeStatic leases one address that the configuration gives to owner. When somebody has it, that lease is returned
// as holder instead.
func (p *pools) takeStatic(addr netip.Addr, owner string, kind leaseKind) (got, holder *lease) {
	if l := p.taken[addr]; l != nil {
		return nil, l
	}
	l := &lease{addr: addr, owner: owner, kind: kind}
	p.taken[addr] = l
	return l, nil
}

// release gives an address back. Releasing a lease twice does nothing.
func (p *pools) release(l *lease) {
	if l == nil || p.taken[l.addr] != l {
		return
	}
	delete(p.taken, l.addr)
	p.giveBack(l.addr)
}

// share notes one more session whose own end is addr; unshare takes it back.
func (p *pools) share(addr netip.Addr) { p.shared[addr]++ }

func (p *pools) unshare(addr netip.Addr) {
	if p.shared[addr]--; p.shared[addr] <= 0 {
		delete(p.shared, addr)
		p.giveBack(addr)
	}
}

func (p *pools) giveBack(addr netip.Addr) {
	for _, q := range p.byName {
		q.giveBack(addr)
	}
}

// chain yields the named pool and those it continues with, each once: `next-pool` may lead in a circle.
func (p *pools) chain(name string) func(func(*pool) bool) {
	return func(yield func(*pool) bool) {
		seen := make(map[string]bool, 1)
		for q := p.byName[name]; q != nil && !seen[q.name]; q = p.byName[q.next] {
			seen[q.name] = true
			if !yield(q) {
				return
			}
		}
	}
}

func (p *pools) available(addr netip.Addr) bool {
	_, reserved := p.reserved[addr]
	return !reserved && p.taken[addr] == nil && p.shared[addr] == 0
}

func (p *pools) hold(addr netip.Addr, pool, owner string, kind leaseKind) *lease {
	l := &lease{addr: addr, pool: pool, owner: owner, kind: kind}
	p.taken[addr] = l
	key := stickyKey{owner, kind}
	if e, ok := p.sticky[key]; ok {
		e.Value = stickyEntry{key, addr}
		p.stickyAge.MoveToBack(e)
		return l
	}
	p.sticky[key] = p.stickyAge.PushBack(stickyEntry{key, addr})
	if len(p.sticky) > maxSticky {
		oldest := p.stickyAge.Remove(p.stickyAge.Front()).(stickyEntry)
		delete(p.sticky, oldest.key)
	}
	return l
}

// lowest finds q's lowest available address and takes it out of q's books. Logarithmic in the leases; the steps of the
// cursor over taken and reserved addresses are paid once per such address and configuration.
func (p *pools) lowest(q *pool) netip.Addr {
	for len(q.free) > 0 {
		addr := heap.Pop(&q.free).(netip.Addr)
		delete(q.inFree, addr)
		// It may have gone through a neighbouring pool or to its former owner; its release brings it back here.
		if p.available(addr) {
			return addr
		}
	}
	for q.at < len(q.ranges) {
		addr := q.cursor
		q.advance()
		if p.available(addr) {
			return addr
		}
	}
	return netip.Addr{}
}

func (q *pool) advance() {
	if q.cursor != q.ranges[q.at].Last {
		q.cursor = q.cursor.Next()
		return
	}
	if q.at++; q.at < len(q.ranges) {
		q.cursor = q.ranges[q.at].First
	}
}

// giveBack puts a released address where lowest finds it. Those the cursor has yet to reach need nothing.
func (q *pool) giveBack(addr netip.Addr) {
	if !q.contains(addr) || q.at < len(q.ranges) && !addr.Less(q.cursor) {
		return
	}
	if _, ok := q.inFree[addr]; !ok {
		q.inFree[addr] = struct{}{}
		heap.Push(&q.free, addr)
	}
}

func (q *pool) contains(addr netip.Addr) bool {
	i, found := slices.BinarySearchFunc(q.ranges, addr, func(r Range, a netip.Addr) int { return r.First.Compare(a) })
	return found || i > 0 && !q.ranges[i-1].Last.Less(addr)
}

// size is how many addresses the pool has, at most the largest uint64.
func (q *pool) size() uint64 {
	var n uint64
	for _, r := range q.ranges {
		n = saturatingAdd(n, r.size())
	}
	return n
}

// size is how many addresses a valid range has, at most the largest uint64.
func (r Range) size() uint64 {
	const most = ^uint64(0)
	var diff uint64
	first, last := r.First.As16(), r.Last.As16()
	borrow := 0
	for i := 15; i >= 0; i-- {
		d := int(last[i]) - int(first[i]) - borrow
		borrow = 0
		if d < 0 {
			d, borrow = d+256, 1
		}
		if i >= 8 {
			diff |= uint64(d) << (8 * (15 - i))
		} else if d != 0 {
			return most
		}
	}
	return saturatingAdd(diff, 1)
}

func saturatingAdd(a, b uint64) uint64 {
	if a+b < a {
		return ^uint64(0)
	}
	return a + b
}

// valid reports whether both ends are of one family and in order.
func (r Range) valid() bool {
	return r.First.IsValid() && r.Last.IsValid() && r.First.BitLen() == r.Last.BitLen() && !r.Last.Less(r.First)
}

// mergeRanges sorts the valid ranges and joins those that overlap, so that no address is counted twice.
func mergeRanges(in []Range) []Range {
	var out []Range
	for _, r := range in {
		r = Range{r.First.Unmap().WithZone(""), r.Last.Unmap().WithZone("")}
		if r.valid() {
			out = append(out, r)
		}
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		return cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last)) < 0
	})
	n := 0
	for _, r := range out {
		if n > 0 && !out[n-1].Last.Less(r.First) {
			if out[n-1].Last.Less(r.Last) {
				out[n-1].Last = r.Last
			}
			continue
		}
		out[n] = r
		n++
	}
	return out[:n]
}

// addrHeap is a min-heap for container/heap.
type addrHeap []netip.Addr

func (h addrHeap) Len() int           { return len(h) }
func (h addrHeap) Less(i, j int) bool { return h[i].Less(h[j]) }
func (h addrHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *addrHeap) Push(x any)        { *h = append(*h, x.(netip.Addr)) }

func (h *addrHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
