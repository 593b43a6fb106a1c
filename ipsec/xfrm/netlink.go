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
func (c *conn) dump(op string, kind uint16, f func([]byte) error) (err error) {
	for range 5 {
		if err = c.exchange(op, kind, unix.NLM_F_DUMP, nil, f); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return err
}

func (c *conn) exchange(op string, kind uint16, flags uint16, body func(layout, []byte) []byte, f func([]byte) error) error {
	b := append(c.buf[:0], make([]byte, netlink.HeaderLen)...)
	if body != nil {
		b = body(host, b)
	}
	err := c.Ask(kind, flags, b, f)
	clear(b)
	c.buf = b[:0]
	if err != nil {
		return fmt.Errorf("xfrm: %s: %w", op, err)
	}
	return nil
}
