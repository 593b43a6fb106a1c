package netlink

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a socket to the kernel, in the network namespace of the thread that opened it. It is for one goroutine at a time.
type Conn struct {
	fd   int
	wait time.Duration
	in   []byte
	seq  uint32
}

// Dial opens a Conn to a family (NETLINK_*) that gives no answer after wait. Datagrams of the kernel have at most room octets.
func Dial(family int, wait time.Duration, room int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	tv := unix.NsecToTimeval(int64(wait))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind netlink: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1) // a refused request, which may hold keys, is not sent back
	return &Conn{fd: fd, wait: wait, in: make([]byte, room)}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// sendBuffer is what the smallest of the kernels' defaults holds, with its own overhead.
const sendBuffer = 32 << 10

// Send sends one datagram, of one message or more.
func (c *Conn) Send(b []byte) error {
	if len(b) > sendBuffer {
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(b))
	}
	if err := retry(func() error { return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) }); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Receive waits for the next datagram of the kernel's. It is valid until the next call.
func (c *Conn) Receive() ([]byte, error) {
	for {
		var n int
		var from unix.Sockaddr
		err := retry(func() (err error) { n, from, err = unix.Recvfrom(c.fd, c.in, 0); return err })
		if err == unix.EAGAIN {
			return nil, fmt.Errorf("no answer from the kernel in %s", c.wait)
		}
		if err != nil {
			return nil, fmt.Errorf("receive: %w", err)
		}
		if FromKernel(from) {
			return c.in[:n], nil
		}
	}
}

// Next is the next request's sequence number.
func (c *Conn) Next() uint32 {
	c.seq++
	return c.seq
}

// Ask sends one request, whose header it writes into the message's first octets, and calls f, which may be nil, with the
// body of each message that answers it, until the kernel has acknowledged (NLM_F_ACK) or the dump (NLM_F_DUMP) is over;
// without either flag there is one answer. A body is valid until the next call. The error's tree has EINTR where a table
// changed while it was dumped: f may have seen entries twice, or missed some.
func (c *Conn) Ask(kind, flags uint16, msg []byte, f func(body []byte) error) error {
	seq := c.Next()
	Header{Kind: kind, Flags: flags | unix.NLM_F_REQUEST, Seq: seq}.Put(msg)
	if err := c.Send(msg); err != nil {
		return err
	}
	var failed error // of f; what follows in a dump still has to be read away
	done, interrupted := false, false
	for !done {
		b, err := c.Receive()
		if err != nil {
			return err
		}
		err = Messages(b, func(h Header, body []byte) error {
			if h.Seq != seq || done { // an answer whose wait was given up
				return nil
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case h.Kind == unix.NLMSG_ERROR || h.Kind == unix.NLMSG_DONE:
				done = true
				if err := Outcome(h, body); failed == nil {
					failed = err
				}
			case f != nil:
				if failed == nil {
					failed = f(body)
				}
				done = flags&(unix.NLM_F_DUMP|unix.NLM_F_ACK) == 0
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if failed == nil && interrupted {
		return &Error{Errno: unix.EINTR, Reason: "the table keeps changing"}
	}
	return failed
}

// FromKernel says whether the kernel sent a datagram: any process may.
func FromKernel(from unix.Sockaddr) bool {
	nl, ok := from.(*unix.SockaddrNetlink)
	return ok && nl.Pid == 0
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
