package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"culvert/ppp/netif"

	"golang.org/x/sys/unix"
)

// Standby is an interface that waits for a link (dial on demand). It has its routes while there is none; what is sent
// through it meanwhile is held, and goes out when a link carries. Then it waits again, its routes untouched. Its methods
// may be called from any goroutine.
type Standby struct {
	unit   *Unit // the interface without a link
	wanted func()
	loops  atomic.Bool // the kernel gives us what is sent through it

	mu     sync.Mutex
	link   *Unit    // while a channel is joined
	chann  *Channel // its channel
	carry  bool     // frames pass
	held   netif.Held
	closed bool
}

// OpenStandby makes the interface, still down. wanted is called, from a goroutine of its own, for each packet that is
// held; it must not block. Name and Net have to be given.
func OpenStandby(o Options, wanted func()) (*Standby, error) {
	if err := netif.CheckName(o.Name); err != nil {
		return nil, err
	}
	s := &Standby{unit: &Unit{}, wanted: wanted}
	fd, err := s.unit.create(o)
	if err == nil {
		if err = s.idle(fd); err != nil {
			unix.Close(fd)
		} else {
			s.unit.file, err = device.File(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("ppp unit %s: %w", o.Name, err)
	}
	go s.read()
	return s, nil
}

// idle lets the kernel give us what is sent through the interface: it has no link. IPv6 waits for a link.
func (s *Standby) idle(fd int) error {
	if err := changeFlags(fd, scLoopTraffic, scCCPOpen|scCCPUp|scMustComp); err != nil {
		return err
	}
	s.loops.Store(true)
	return prepare(fd, Options{})
}

// join gives a channel the interface. What is sent through it goes on being held until Carry.
func (s *Standby) join(c *Channel, o Options) (*Unit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.link != nil {
		return nil, fmt.Errorf("ppp unit %s: in use by another link, or closed", s.unit.Name())
	}
	err := control(s.unit.file, func(fd int) error { return prepare(fd, o) })
	if err == nil {
		err = c.connect(s.unit.number)
	}
	if err != nil {
		return nil, fmt.Errorf("ppp unit %s: %w", s.unit.Name(), err)
	}
	u := *s.unit
	u.standby = s
	s.link, s.chann, s.carry = &u, c, false
	return &u, nil
}

// leave takes the interface back from a link that ends.
func (s *Standby) leave(u *Unit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != u {
		return nil
	}
	s.link, s.chann, s.carry = nil, nil, false
	s.held.Forget()
	if s.closed {
		return nil
	}
	return control(s.unit.file, s.idle)
}

// Carry lets packets pass: the link is up. The held ones go first; those with the source address from, the
// placeholder's, leave with the address to.
func (s *Standby) Carry(from, to netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == nil {
		return ErrNoUnit
	}
	return s.let(from, to)
}

// pass is Carry for a link that has no addresses yet: nothing is held any more, and nothing kept.
func (s *Standby) pass(u *Unit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link != u || s.carry {
		return nil
	}
	return s.unloop()
}

// unloop makes the kernel send what goes through the interface.
func (s *Standby) unloop() error {
	err := control(s.unit.file, func(fd int) error { return changeFlags(fd, 0, scLoopTraffic) })
	if err == nil {
		s.loops.Store(false)
	}
	return err
}

func (s *Standby) let(from, to netip.Addr) error {
	s.held.Readdress(from, to)
	if err := s.unloop(); err != nil {
		return err
	}
	s.carry = true
	s.held.Release(func(packet []byte) { s.send(packet) })
	return nil
}

// send puts a packet of IPv4 on the link, by the way that frames of a unit go. What the kernel has no room for is lost.
func (s *Standby) send(packet []byte) {
	s.unit.file.Write(append(binary.BigEndian.AppendUint16(nil, protocolIPv4), packet...))
}

// Forget drops what is held: no link comes.
func (s *Standby) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held.Forget()
}

// Interface is where addresses and routes are set.
func (s *Standby) Interface() *netif.Interface { return s.unit.iface }

// Close removes the interface. A link that uses it should be closed before.
func (s *Standby) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.held.Forget()
	return s.unit.file.Close()
}

// read takes what the kernel sends through the interface, and the control frames of the link's network protocols.
func (s *Standby) read() {
	buf := make([]byte, netif.MaxHeld+2)
	for {
		n, err := s.unit.file.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil && !is(err, unix.EOVERFLOW):
			if !s.unlinked() {
				return
			}
		case err != nil || n < 2:
		default:
			s.take(buf[:n])
		}
	}
}

// unlinked takes note that the channel has gone from the kernel before the link was closed, for which the descriptor
// tells of an end of file: packets are held again.
func (s *Standby) unlinked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.carry = false
	return control(s.unit.file, s.idle) == nil
}

func (s *Standby) take(frame []byte) {
	protocol := binary.BigEndian.Uint16(frame)
	s.mu.Lock()
	if protocol != protocolIPv4 {
		c := s.chann
		s.mu.Unlock()
		if c != nil && protocol != protocolIPv6 && len(frame) <= readSize {
			select {
			case <-c.serving:
				c.recv(slices.Clone(frame))
			case <-c.closed:
			}
		}
		return
	}
	packet := frame[2:]
	held := false
	switch {
	case s.closed:
	case s.carry: // it was under way when the link came up
		s.held.Last(packet)
		s.send(packet)
	default:
		held = s.held.Add(packet)
	}
	s.mu.Unlock()
	if held {
		s.wanted()
	}
}
