package xfrm

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// answerTime bounds the wait for an answer: the kernel may load a module for a cipher before it gives one.
const answerTime = 10 * time.Second

// readLen holds the largest netlink datagram of a dump.
const readLen = 64 << 10

// conn asks the kernel one thing at a time. It belongs to the network namespace of the thread that opened it.
type conn struct {
	*netlink.Conn
	seq uint32
	buf []byte // for sending, as large as any request so that no copy of a key stays behind
}

func dial() (*conn, error) {
	c, err := netlink.Dial(unix.NETLINK_XFRM, answerTime, readLen)
	if err != nil {
		return nil, fmt.Errorf("xfrm: %w", err)
	}
	return &conn{Conn: c, buf: make([]byte, 0, 4096)}, nil
}

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
	return fmt.Errorf("xfrm: %s: the table keeps changing: %w", op, unix.EINTR)
}

func (c *conn) exchange(op string, kind uint16, flags uint16, body func(layout, []byte) []byte, f func([]byte) error) error {
	c.seq++
	b := append(c.buf[:0], make([]byte, netlink.HeaderLen)...)
	if body != nil {
		b = body(host, b)
	}
	netlink.Header{Kind: kind, Flags: flags | unix.NLM_F_REQUEST, Seq: c.seq}.Put(b)
	err := c.Send(b)
	clear(b)
	c.buf = b[:0]
	if err != nil {
		return fmt.Errorf("xfrm: %s: %w", op, err)
	}
	var failed error // of f; what follows in a dump still has to be read away
	interrupted, done := false, false
	for !done {
		in, err := c.Receive()
		if err != nil {
			return fmt.Errorf("xfrm: %s: %w", op, err)
		}
		err = netlink.Messages(in, func(h netlink.Header, b []byte) error {
			if h.Seq != c.seq || done { // an answer whose wait was given up
				return nil
			}
			interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case h.Kind == unix.NLMSG_ERROR || h.Kind == unix.NLMSG_DONE:
				done = true
				if err := netlink.Outcome(h, b); err != nil && failed == nil {
					failed = fmt.Errorf("xfrm: %s: %w", op, err)
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
		return fmt.Errorf("xfrm: %s: %w", op, unix.EINTR)
	}
	return failed
}
