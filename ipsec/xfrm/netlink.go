package xfrm

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// answerTime bounds the wait for an answer: the kernel may load a module for a cipher before it gives one.
const answerTime = 10 * time.Second

// readLen holds the largest netlink datagram of a dump.
const readLen = 64 << 10

// KernelError is a refusal by the kernel, with its own words where it has any.
type KernelError struct {
	Op     string
	Errno  unix.Errno
	Reason string // extended acknowledgement, may be empty
}

func (e *KernelError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("xfrm: %s: %s (%s)", e.Op, e.Errno, e.Reason)
	}
	return fmt.Sprintf("xfrm: %s: %s", e.Op, e.Errno)
}

func (e *KernelError) Unwrap() error { return e.Errno }

// conn asks the kernel one thing at a time. It belongs to the network namespace of the thread that opened it.
type conn struct {
	fd  int
	seq uint32
	buf []byte // for sending, as large as any request so that no copy of a key stays behind
	in  []byte
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_XFRM)
	if err != nil {
		return nil, fmt.Errorf("xfrm: open netlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("xfrm: bind netlink: %w", err)
	}
	tv := unix.NsecToTimeval(int64(answerTime))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1) // do not send keys back with an error
	return &conn{fd: fd, buf: make([]byte, 0, 4096), in: make([]byte, readLen)}, nil
}

func (c *conn) close() error { return unix.Close(c.fd) }

// do sends a request and waits for its acknowledgement.
func (c *conn) do(op string, kind uint16, body func(layout, []byte) []byte) error {
	return c.exchange(op, kind, unix.NLM_F_ACK, body, nil)
}

// get sends a request and returns the one message that answers; it is valid until the next request.
func (c *conn) get(op string, kind uint16, body func(layout, []byte) []byte) (answer []byte, err error) {
	err = c.exchange(op, kind, 0, body, func(b []byte) error {
		answer = b
		return nil
	})
	return answer, err
}

// dump calls f with every entry of a table. Changes meanwhile may make it start again, so that f sees entries twice.
func (c *conn) dump(op string, kind uint16, f func([]byte) error) error {
	for range 5 {
		err := c.exchange(op, kind, unix.NLM_F_DUMP, nil, f)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return &KernelError{Op: op, Errno: unix.EINTR, Reason: "the table keeps changing"}
}

func (c *conn) exchange(op string, kind uint16, flags uint16, body func(layout, []byte) []byte, f func([]byte) error) error {
	c.seq++
	b := append(c.buf[:0], make([]byte, lenNlmsghdr)...)
	if body != nil {
		b = body(host, b)
	}
	host.PutUint32(b, uint32(len(b)))
	host.PutUint16(b[4:], kind)
	host.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	host.PutUint32(b[8:], c.seq)
	err := retry(func() error { return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) })
	clear(b)
	c.buf = b[:0]
	if err != nil {
		return fmt.Errorf("xfrm: %s: send: %w", op, err)
	}
	var failed error // of f; what follows in a dump still has to be read away
	interrupted, done := false, false
	for !done {
		var n int
		var from unix.Sockaddr
		err := retry(func() (err error) { n, from, err = unix.Recvfrom(c.fd, c.in, 0); return err })
		if err == unix.EAGAIN {
			return fmt.Errorf("xfrm: %s: no answer from the kernel in %s", op, answerTime)
		}
		if err != nil {
			return fmt.Errorf("xfrm: %s: receive: %w", op, err)
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue
		}
		err = messages(c.in[:n], func(h header, b []byte) error {
			if h.seq != c.seq || done { // an answer whose wait was given up
				return nil
			}
			interrupted = interrupted || h.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case h.kind == unix.NLMSG_ERROR || h.kind == unix.NLMSG_DONE:
				done = true
				if err := ack(op, h, b); failed == nil {
					failed = err
				}
			case f != nil:
				if failed == nil {
					failed = f(b)
				}
				done = flags&(unix.NLM_F_DUMP|unix.NLM_F_ACK) == 0
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("xfrm: %s: %w", op, err)
		}
	}
	if failed == nil && interrupted {
		return &KernelError{Op: op, Errno: unix.EINTR}
	}
	return failed
}

// ack reads the outcome in an NLMSG_ERROR or NLMSG_DONE.
func ack(op string, h header, b []byte) error {
	if len(b) < 4 {
		if h.kind == unix.NLMSG_DONE {
			return nil
		}
		return short("acknowledgement", len(b), 4)
	}
	code := int32(host.Uint32(b))
	if code >= 0 {
		return nil
	}
	e := &KernelError{Op: op, Errno: unix.Errno(-code)}
	if h.flags&unix.NLM_F_ACK_TLVS != 0 {
		tlvs := b[4:]
		if h.kind == unix.NLMSG_ERROR {
			skip := 4 + lenNlmsghdr
			if h.flags&unix.NLM_F_CAPPED == 0 && len(b) >= 8 {
				skip = 4 + nlAlign(int(min(host.Uint32(b[4:]), readLen)))
			}
			tlvs = b[min(skip, len(b)):]
		}
		host.attrs(tlvs, func(kind uint16, data []byte) error {
			if kind == unix.NLMSGERR_ATTR_MSG {
				e.Reason = unix.ByteSliceToString(data)
			}
			return nil
		})
	}
	return e
}

// header is struct nlmsghdr.
type header struct {
	kind, flags uint16
	seq         uint32
}

// messages calls f with each message of a datagram.
func messages(b []byte, f func(h header, body []byte) error) error {
	for len(b) >= lenNlmsghdr {
		n := host.Uint32(b)
		if n < lenNlmsghdr || uint64(n) > uint64(len(b)) {
			return short("netlink message", len(b), int(min(n, readLen)))
		}
		h := header{host.Uint16(b[4:]), host.Uint16(b[6:]), host.Uint32(b[8:])}
		if err := f(h, b[lenNlmsghdr:n]); err != nil {
			return err
		}
		b = b[min(nlAlign(int(n)), len(b)):]
	}
	return nil
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
