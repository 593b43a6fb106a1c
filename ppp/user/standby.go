package user

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"culvert/ppp/netif"
)

// Standby is an interface that waits for a link (dial on demand). It has its routes while there is none; what is sent
// through it meanwhile is held, and goes out when a link carries. Then it waits again, its routes untouched. Its methods
// may be called from any goroutine.
type Standby struct {
	unit   *Unit
	wanted func()
	passes atomic.Pointer[Channel] // what carries packets, nil while they are held

	mu     sync.Mutex
	link   *Channel // that has the interface
	held   netif.Held
	closed bool
}

// OpenStandby makes the interface, still down. wanted is called for each packet that is held; it must not block. Name and
// Net have to be given.
func OpenStandby(o Options, wanted func()) (*Standby, error) {
	if err := netif.CheckName(o.Name); err != nil {
		return nil, err
	}
	s := &Standby{wanted: wanted}
	s.unit = &Unit{standby: s, opened: time.Now()}
	if err := s.unit.open(o); err != nil {
		return nil, fmt.Errorf("ppp unit %s: %w", o.Name, err)
	}
	go s.unit.read()
	return s, nil
}

// join gives a channel the interface. What is sent through it goes on being held until Carry.
func (s *Standby) join(c *Channel, o Options) (*Unit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.link != nil {
		return nil, fmt.Errorf("ppp unit %s: in use by another link, or closed", s.unit.Name())
	}
	s.link = c
	s.unit.ipv6.Store(o.IPv6)
	return s.unit, nil
}

// leave takes the interface back from a link that ends.
func (s *Standby) leave(u *Unit) error {
	s.mu.Lock()
	s.passes.Store(nil)
	s.link = nil
	s.held.Forget()
	s.mu.Unlock()
	u.ipv6.Store(false)
	u.mu.Lock()
	u.join.n = 0
	u.release()
	u.mu.Unlock()
	return nil
}

// Carry lets packets pass: the link is up. The held ones go first; those with the source address from, the
// placeholder's, leave with the address to.
func (s *Standby) Carry(from, to netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.link
	if c == nil || c.isClosed() {
		return ErrClosed
	}
	s.held.Readdress(from, to)
	var lost error
	s.held.Release(func(packet []byte) {
		buf := make([]byte, Headroom+2+len(packet), Headroom+2+len(packet)+Tailroom)
		binary.BigEndian.PutUint16(buf[Headroom:], protocolIPv4)
		copy(buf[Headroom+2:], packet)
		if err := c.lower.Send(buf, Headroom); err != nil {
			lost = err
		}
	})
	s.passes.Store(c)
	return lost
}

// carrier is the channel that carries a batch; nil when there is none, and the batch has been held.
func (s *Standby) carrier(b *batch) *Channel {
	if c := s.passes.Load(); c != nil {
		return c
	}
	s.mu.Lock()
	if c := s.passes.Load(); c != nil {
		s.mu.Unlock()
		return c
	}
	wanted := false
	for _, f := range b.frames[:b.count] {
		if !s.closed && s.held.Add(f[Headroom+2:]) {
			wanted = true
		}
	}
	s.mu.Unlock()
	if wanted {
		s.wanted()
	}
	return nil
}

// Forget drops what is held: no link comes.
func (s *Standby) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held.Forget()
}

// Interface is where addresses and routes are set.
func (s *Standby) Interface() *netif.Interface { return s.unit.iface }

func (s *Standby) channel() *Channel {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link
}

func (s *Standby) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close removes the interface. A link that uses it should be closed before.
func (s *Standby) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.passes.Store(nil)
	s.held.Forget()
	s.mu.Unlock()
	return s.unit.remove()
}
