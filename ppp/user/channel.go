package user

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

var (
	// ErrClosed is the answer after Close.
	ErrClosed = errors.New("ppp channel: closed")
	// ErrGone means that what carried the link has ended.
	ErrGone = errors.New("ppp channel: its session has ended")
)

// PPP protocol numbers of the network layers (RFC 1332 section 2, RFC 5072 section 2).
const (
	protocolIPv4 = 0x0021
	protocolIPv6 = 0x0057
)

// readSize is the largest control frame that is taken, protocol field included. Control frames keep to the MRU, which
// nobody negotiates above Ethernet's 1500; longer ones are counted and dropped.
const readSize = 1536

// Headroom and Tailroom are what a frame given to Lower has around it at least, for the headers and trailers below.
const (
	Headroom = 94 // puts a packet, two octets further, on a multiple of 16
	Tailroom = 96
)

// Lower carries a link's frames: a session of l2tp/user.
type Lower interface {
	// Receive says who gets the frames, once. Frames are valid during deliver; with more set, flush comes soon.
	Receive(deliver func(frame []byte, more bool), flush func())
	// Send sends the frame buf[at:], protocol field first. It may write to buf[:at], to the frame, and behind it within
	// the capacity, and keeps nothing.
	Send(buf []byte, at int) error
	// SendBatch is Send for several frames that begin at the same place, in order. It may change the elements of bufs.
	SendBatch(bufs [][]byte, at int) error
	// Done is closed when no more frames pass.
	Done() <-chan struct{}
}

// Channel is one link's lower half. Its methods may be called from any goroutine.
type Channel struct {
	lower Lower

	mu      sync.Mutex // of opening and closing
	closed  chan struct{}
	failed  chan error // why the unit ended, if not by Close
	recv    func(frame []byte)
	unit    atomic.Pointer[Unit]
	dropped atomic.Uint64
}

// Attach takes charge of what carries a link.
func Attach(l Lower) (*Channel, error) {
	select {
	case <-l.Done():
		return nil, ErrGone
	default:
	}
	return &Channel{lower: l, closed: make(chan struct{}), failed: make(chan error, 1)}, nil
}

// Serve calls recv with each control frame, protocol field (two octets, big-endian) first, until Close (nil), until what
// carries the link ends (ErrGone), or until the unit's interface is taken away. It is called once. The frame is valid
// during the call, which comes on the goroutine that read it: several at a time where several read. A call may still be
// under way when Close returns; recv itself may call Close.
func (c *Channel) Serve(recv func(frame []byte)) error {
	c.mu.Lock()
	if c.recv != nil {
		c.mu.Unlock()
		return errors.New("ppp channel: served already")
	}
	c.recv = recv
	c.mu.Unlock()
	c.lower.Receive(c.deliver, c.flush)
	select {
	case <-c.closed:
		return nil
	case err := <-c.failed:
		return err
	case <-c.lower.Done():
		if c.isClosed() {
			return nil
		}
		return ErrGone
	}
}

func (c *Channel) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// deliver takes one frame from below. The address and control fields may be there or not, and the protocol field in one
// octet or two, whatever was negotiated: senders exist that do either (RFC 1661 sections 6.5 and 6.6).
func (c *Channel) deliver(frame []byte, more bool) {
	if c.isClosed() {
		return
	}
	if len(frame) >= 2 && frame[0] == 0xff && frame[1] == 0x03 {
		frame = frame[2:]
	}
	if len(frame) == 0 {
		c.dropped.Add(1)
		return
	}
	protocol, size := uint16(frame[0]), 1
	if frame[0]&1 == 0 {
		if len(frame) < 2 {
			c.dropped.Add(1)
			return
		}
		protocol, size = binary.BigEndian.Uint16(frame), 2
	}
	switch {
	case protocol == protocolIPv4 || protocol == protocolIPv6:
		if u := c.unit.Load(); u != nil {
			u.receive(protocol, frame[size:], more)
		} else { // before its network protocol is up (RFC 1661 section 3.5)
			c.dropped.Add(1)
		}
	case len(frame)+2-size > readSize:
		c.dropped.Add(1)
	case size == 2:
		c.recv(frame)
	default:
		c.recv(append([]byte{0}, frame...)) // what a compressed protocol field names is rare and not IP
	}
}

func (c *Channel) flush() {
	if u := c.unit.Load(); u != nil {
		u.flush()
	}
}

// controlFrames are buffers to put headroom in front of control frames.
var controlFrames = sync.Pool{New: func() any { return new([Headroom + readSize + Tailroom]byte) }}

// Send sends one frame, protocol field first. The frame is not kept.
func (c *Channel) Send(frame []byte) error {
	if len(frame) < 2 {
		return errors.New("ppp channel: a frame without its protocol")
	}
	if len(frame) > readSize {
		return fmt.Errorf("ppp channel: a control frame of %d octets", len(frame))
	}
	if c.isClosed() {
		return ErrClosed
	}
	b := controlFrames.Get().(*[Headroom + readSize + Tailroom]byte)
	n := copy(b[Headroom:Headroom+readSize], frame)
	err := c.lower.Send(b[:Headroom+n], Headroom)
	controlFrames.Put(b)
	if err != nil {
		return c.sendError(err)
	}
	return nil
}

func (c *Channel) sendError(err error) error {
	select {
	case <-c.lower.Done():
		return ErrGone
	default:
		return fmt.Errorf("ppp channel: %w", err)
	}
}

// Dropped counts frames that were malformed, longer than any control frame may be, or packets that came before the unit.
func (c *Channel) Dropped() uint64 { return c.dropped.Load() }

// Unit is the open unit, or nil.
func (c *Channel) Unit() *Unit { return c.unit.Load() }

// fail ends Serve because the unit has ended.
func (c *Channel) fail(err error) {
	select {
	case c.failed <- err:
	default:
	}
}

// Close removes the interface, and lets nothing more through either way. The second time it does nothing. Removing an
// interface waits for the kernel's RTNL lock: tens of milliseconds.
func (c *Channel) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed() {
		return nil
	}
	close(c.closed)
	if u := c.unit.Swap(nil); u != nil {
		return u.close()
	}
	return nil
}
