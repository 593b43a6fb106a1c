package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

var (
	// ErrClosed is the answer after Close.
	ErrClosed = errors.New("ppp channel: closed")
	// ErrGone means that the kernel took the channel away: its L2TP session ended.
	ErrGone = errors.New("ppp channel: its session has ended in the kernel")
	// ErrNoUnit is the answer to a network-layer frame while there is no interface.
	ErrNoUnit = errors.New("ppp channel: no unit is open for network-layer frames")
)

// readSize is the largest control frame that is taken, protocol field included. Control frames keep to the MRU, which
// nobody negotiates above Ethernet's 1500; longer ones are counted and dropped.
const readSize = 1536

// firstLinkProtocol and up are link-layer protocols (LCP, PAP, CHAP...), which travel on the channel; those below are
// the unit's (RFC 1661 section 2).
const firstLinkProtocol = 0xc000

// Channel is one link's lower half. Its methods may be called from any goroutine.
type Channel struct {
	file   *os.File
	number int

	mu      sync.Mutex // of opening and closing
	closed  chan struct{}
	serving chan struct{}
	recv    func(frame []byte) // set before serving is closed
	unit    atomic.Pointer[Unit]
	dropped atomic.Uint64
}

// Attach takes charge of the channel of a connected pppol2tp (or other PPPoX) socket. The socket stays the caller's: it
// must be open as long as the channel, and closing it ends the channel.
func Attach(pppoxFD int) (*Channel, error) {
	number, err := getInt(pppoxFD, unix.PPPIOCGCHAN)
	if err != nil {
		return nil, fmt.Errorf("ppp channel: PPPIOCGCHAN: %w: the socket is not a connected PPPoX session", err)
	}
	fd, err := device.Open()
	if err != nil {
		return nil, err
	}
	if err := setInt(fd, unix.PPPIOCATTCHAN, number); err != nil {
		unix.Close(fd)
		if is(err, unix.ENXIO) {
			err = ErrGone
		}
		return nil, fmt.Errorf("ppp channel %d: PPPIOCATTCHAN: %w", number, err)
	}
	file, err := device.File(fd)
	if err != nil {
		return nil, err
	}
	return &Channel{file: file, number: number, closed: make(chan struct{}), serving: make(chan struct{})}, nil
}

// Serve calls recv with each control frame, protocol field (two octets, big-endian) first, until Close (nil) or until
// the kernel ends the channel (ErrGone). It is called once. The frame is valid during the call. Once a unit is open,
// its frames come to the same recv from a second goroutine, so recv must bear two calls at a time. A call may still be
// under way when Close returns; recv itself may call Close.
func (c *Channel) Serve(recv func(frame []byte)) error {
	c.mu.Lock()
	if c.recv != nil {
		c.mu.Unlock()
		return errors.New("ppp channel: served already")
	}
	c.recv = recv
	close(c.serving)
	c.mu.Unlock()
	return c.loop(c.file)
}

// loop reads one descriptor until it ends.
func (c *Channel) loop(file *os.File) error {
	buf := make([]byte, readSize)
	for {
		n, err := file.Read(buf)
		if c.isClosed() {
			return nil
		}
		switch {
		case err == nil:
			if n >= 2 {
				c.recv(buf[:n])
			}
		case is(err, unix.EOVERFLOW): // the kernel has thrown the frame away
			c.dropped.Add(1)
		case errors.Is(err, io.EOF):
			return ErrGone
		case errors.Is(err, os.ErrClosed):
			return nil
		default:
			return fmt.Errorf("ppp channel: %w", err)
		}
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

// Send writes one frame, protocol field first: link-layer protocols to the channel, the others to the unit. The frame
// is not kept.
func (c *Channel) Send(frame []byte) error {
	if len(frame) < 2 {
		return errors.New("ppp channel: a frame without its protocol")
	}
	file := c.file
	if binary.BigEndian.Uint16(frame) < firstLinkProtocol {
		u := c.unit.Load()
		if u == nil {
			if c.isClosed() {
				return ErrClosed
			}
			return ErrNoUnit
		}
		// What is sent through a unit on standby comes back as traffic does.
		if u.standby == nil || !u.standby.loops.Load() {
			file = u.file
		}
	}
	_, err := file.Write(frame)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrClosed):
		return ErrClosed
	case is(err, unix.ENXIO):
		return ErrGone
	}
	return fmt.Errorf("ppp channel: %w", err)
}

// Dropped counts frames that were longer than any control frame may be.
func (c *Channel) Dropped() uint64 { return c.dropped.Load() }

// Unit is the open unit, or nil.
func (c *Channel) Unit() *Unit { return c.unit.Load() }

// Close removes the interface, then lets go of the channel, and wakes both readers. The second time it does nothing.
// Removing an interface waits for the kernel's RTNL lock: tens of milliseconds.
func (c *Channel) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosed() {
		return nil
	}
	close(c.closed)
	var errs []error
	if u := c.unit.Swap(nil); u != nil {
		errs = append(errs, u.close())
		// Without this the kernel keeps the unit's memory until the L2TP socket is closed as well.
		err := control(c.file, func(fd int) error { return ioctlPtr(fd, unix.PPPIOCDISCONN, nil) })
		if err != nil && !is(err, unix.EINVAL, unix.ENXIO, unix.ENOTTY) {
			errs = append(errs, fmt.Errorf("ppp channel %d: PPPIOCDISCONN: %w", c.number, err))
		}
	}
	errs = append(errs, c.file.Close())
	return errors.Join(errs...)
}
