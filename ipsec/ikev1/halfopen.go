package ikev1

import (
	"container/list"
	"net/netip"
)

// halfOpenList holds exchanges whose initiator has not authenticated yet, the oldest first. Main mode needs such state:
// HASH_I covers the initiator's SA payload, which is not repeated in message 5; only of first messages whose like has been
// seen can it go without (stateless.go). So it is kept small (the SA
// payload, two cookies, an address) and bounded twice: an address that wants more than its share loses its own oldest
// entry, and a full list loses its oldest. Entries move to a second list when message 3 shows that our cookie arrived, so
// a flood from forged addresses competes with itself and with clients in their first round trip only.
type halfOpenList struct {
	order   list.List
	places  map[*phase1]*list.Element
	perAddr map[netip.Prefix]int
}

// admit takes an exchange in, and forgets another one where there is no room.
func (l *halfOpenList) admit(sa *phase1, limit int) {
	block := addressBlock(sa.first.remote.Addr())
	if l.perAddr[block] >= maxPerAddress {
		l.evict(func(x *phase1) bool { return addressBlock(x.first.remote.Addr()) == block })
	} else if l.order.Len() >= limit {
		l.evict(func(*phase1) bool { return true })
	}
	if l.places == nil {
		l.places = make(map[*phase1]*list.Element)
	}
	l.places[sa] = l.order.PushBack(sa)
	l.perAddr[block]++
	sa.pen = l
}

// evict forgets the oldest exchange that matches.
func (l *halfOpenList) evict(match func(*phase1) bool) {
	for el := l.order.Front(); el != nil; el = el.Next() {
		if x := el.Value.(*phase1); match(x) {
			x.e.drop(DropHalfOpen, x.path)
			x.remove()
			return
		}
	}
}

func (l *halfOpenList) remove(sa *phase1) {
	el := l.places[sa]
	if el == nil {
		return
	}
	l.order.Remove(el)
	delete(l.places, sa)
	block := addressBlock(sa.first.remote.Addr())
	if l.perAddr[block]--; l.perAddr[block] == 0 {
		delete(l.perAddr, block)
	}
	sa.pen = nil
}
