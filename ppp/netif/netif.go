package netif

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"culvert/board/rtnl"
)

var (
	// ErrGone means that the interface no longer exists. Its addresses and routes went with it.
	ErrGone = errors.New("the interface no longer exists")
	// ErrExists means that somebody else has the name or the route asked for.
	ErrExists = errors.New("already exists")
)

// Netif talks to the network namespace of the thread that called New. All methods, and those of its Interfaces, may be
// called from any goroutine; they take turns, as they would for the kernel's RTNL lock. They can take tens of
// milliseconds.
type Netif struct {
	mu  sync.Mutex
	h   *rtnl.Conn // nil once closed
	mss *clamp     // while there is an interface to lower TCP's MSS on
}

// New opens the rtnetlink socket. The switches in /proc/sys belong to the namespace of the thread that writes them:
// keep a process in one namespace.
func New() (*Netif, error) {
	h, err := rtnl.Dial()
	if err != nil {
		return nil, err
	}
	return &Netif{h: h}, nil
}

// Close ends the socket. Interfaces stay as they are.
func (n *Netif) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.h != nil {
		n.h.Close()
		n.h = nil
		if n.mss != nil {
			n.mss.close()
			n.mss = nil
		}
	}
	return nil
}

// Interface takes charge of an existing interface by its index.
func (n *Netif) Interface(index int) (*Interface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	link, err := n.link(index)
	if err != nil {
		return nil, fmt.Errorf("interface with index %d: %w", index, err)
	}
	return &Interface{n: n, index: index, name: link.Name}, nil
}

// ByName takes charge of an existing interface by its name.
func (n *Netif) ByName(name string) (*Interface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.h == nil {
		return nil, fmt.Errorf("interface %s: %w", name, errClosed)
	}
	link, err := n.h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, gone(err))
	}
	return &Interface{n: n, index: link.Index, name: link.Name}, nil
}

var errClosed = errors.New("rtnetlink: already closed")

// link asks for one interface; the caller holds the lock.
func (n *Netif) link(index int) (rtnl.Link, error) {
	if n.h == nil {
		return rtnl.Link{}, errClosed
	}
	if index <= 0 {
		return rtnl.Link{}, ErrGone
	}
	link, err := n.h.Link(index)
	return link, gone(err)
}

// gone turns the ways of saying that an interface does not exist into ErrGone.
func gone(err error) error {
	if errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO) {
		return ErrGone
	}
	return err
}

// CheckName says what Linux would not accept as the name of an interface.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("interface name %q: empty or a directory", name)
	case len(name) >= unix.IFNAMSIZ:
		return fmt.Errorf("interface name %q: %d octets, at most %d are possible", name, len(name), unix.IFNAMSIZ-1)
	}
	for _, c := range []byte(name) {
		// A percent sign asks the kernel to number the interface itself.
		if c <= ' ' || c == 0x7f || strings.IndexByte("/:%", c) >= 0 {
			return fmt.Errorf("interface name %q: holds %q, which is not possible", name, c)
		}
	}
	return nil
}
