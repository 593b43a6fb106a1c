package ikev1

import (
	"container/list"
	"net/netip"
	"time"
)

// budgets gives every source a bucket, and the network around it a larger one: a /24 of IPv4 and a /48 of IPv6 may use
// prefixShare times what one address may. Buckets that have run empty again are forgotten first; where there are too many,
// the one that was used longest ago, for a source that floods is never that one.
type budgets struct {
	burst, rate float64
	sources     map[netip.Prefix]*list.Element
	order       list.List // the latest used last
}

type budgetEntry struct {
	block  netip.Prefix
	bucket bucket
}

const (
	prefixShare = 8
	maxBudgets  = 4096 // about 200 octets each
)

// take charges one more to a source; false if it, or its network, has had its share.
func (b *budgets) take(now time.Time, a netip.Addr) bool {
	wide := networkOf(a)
	if !b.bucket(wide, prefixShare).take(now) {
		return false
	}
	return b.bucket(addressBlock(a), 1).take(now)
}

func (b *budgets) bucket(block netip.Prefix, share float64) *bucket {
	if el := b.sources[block]; el != nil {
		b.order.MoveToBack(el)
		return &el.Value.(*budgetEntry).bucket
	}
	if b.sources == nil {
		b.sources = make(map[netip.Prefix]*list.Element)
	}
	if b.order.Len() >= maxBudgets {
		oldest := b.order.Front()
		delete(b.sources, oldest.Value.(*budgetEntry).block)
		b.order.Remove(oldest)
	}
	e := &budgetEntry{block: block, bucket: bucket{burst: b.burst * share, rate: b.rate * share}}
	b.sources[block] = b.order.PushBack(e)
	return &e.bucket
}

// networkOf is the network that an address stands for where many are used by one: a /24, or a /48 of IPv6.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits)
	return p
}
