package explain

import (
	"container/list"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxClients = 128 // addresses remembered
	maxEvents  = 48  // of one address
	maxText    = 256 // octets of one value
)

// Event is one line of the log that is about a client.
type Event struct {
	Time    time.Time
	Level   slog.Level
	Topic   string // "ipsec", "l2tp", "ppp" ...
	Message string
	Fields  []Field
}

// Field is one key of a line.
type Field struct{ Key, Value string }

// Get returns the value of a key, empty if there is none.
func (e *Event) Get(key string) string {
	for _, f := range e.Fields {
		if f.Key == key {
			return f.Value
		}
	}
	return ""
}

// Book is what is known of the last clients. It may be used by any number of goroutines.
type Book struct {
	mu      sync.Mutex
	clients map[netip.Addr]*list.Element
	order   list.List // the one that was heard of last at the end
}

// history is an address: those behind one NAT share it, and their ports tell them apart.
type history struct {
	addr   netip.Addr
	events []Event // oldest first
	known  bool    // somebody from there has authenticated
}

// New makes an empty Book.
func New() *Book { return &Book{clients: make(map[netip.Addr]*list.Element)} }

// note adds an event. One that names no address belongs to the client whose mark it names, one that names neither to nobody.
func (b *Book) note(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	addr := addrOf(&e)
	if !addr.IsValid() {
		if addr = b.byMark(e.Get("mark")); !addr.IsValid() {
			return
		}
	}
	el := b.clients[addr]
	if el == nil {
		b.makeRoom()
		el = b.order.PushBack(&history{addr: addr})
		b.clients[addr] = el
	}
	b.order.MoveToBack(el)
	h := el.Value.(*history)
	h.known = h.known || e.Message == phase1Up || e.Message == loggedIn
	if len(h.events) == maxEvents {
		h.events = slices.Delete(h.events, 0, 1)
	}
	h.events = append(h.events, e)
}

// makeRoom lets the address go that was heard of longest ago, one that nobody has authenticated from if there is any.
func (b *Book) makeRoom() {
	if b.order.Len() < maxClients {
		return
	}
	gone := b.order.Front()
	for el := gone; el != nil; el = el.Next() {
		if !el.Value.(*history).known {
			gone = el
			break
		}
	}
	delete(b.clients, gone.Value.(*history).addr)
	b.order.Remove(gone)
}

// byMark is the address that a mark was last seen with.
func (b *Book) byMark(mark string) netip.Addr {
	if mark == "" {
		return netip.Addr{}
	}
	for el := b.order.Back(); el != nil; el = el.Prev() {
		h := el.Value.(*history)
		for i := len(h.events) - 1; i >= 0; i-- {
			if h.events[i].Get("mark") == mark {
				return h.addr
			}
		}
	}
	return netip.Addr{}
}

// find returns the histories of an address, or of a user: those where a line names it.
func (b *Book) find(who string) (found []history) {
	b.mu.Lock()
	defer b.mu.Unlock()
	addr, err := netip.ParseAddr(who)
	if err != nil {
		if ap, err2 := netip.ParseAddrPort(who); err2 == nil {
			addr, err = ap.Addr(), nil
		}
	}
	for el := b.order.Front(); el != nil; el = el.Next() {
		h := el.Value.(*history)
		if err == nil && h.addr == addr.Unmap() || err != nil && h.names(who) {
			c := *h
			c.events = slices.Clone(h.events)
			found = append(found, c)
		}
	}
	return found
}

func (h *history) names(user string) bool {
	for i := range h.events {
		if u := h.events[i].Get("user"); u == user || u != "" && u[strings.LastIndexByte(u, '\\')+1:] == user {
			return true
		}
	}
	return false
}

// addrOf finds the client's address in a line: "remote" as an address with or without a port, "peer" as L2TP writes it.
func addrOf(e *Event) netip.Addr {
	for _, key := range []string{"remote", "peer", "to"} {
		v, _, _ := strings.Cut(e.Get(key), " ")
		if ap, err := netip.ParseAddrPort(v); err == nil {
			return ap.Addr().Unmap()
		}
		if a, err := netip.ParseAddr(v); err == nil {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}
