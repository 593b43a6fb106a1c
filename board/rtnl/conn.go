package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// answerTime bounds the wait for an answer. The kernel's lock can be held for seconds while many interfaces go.
const answerTime = 30 * time.Second

// readLen holds the largest datagram of a dump: the kernel goes by it.
const readLen = 16 << 10

var host = binary.NativeEndian

// Conn asks the kernel one thing at a time, in the network namespace of the thread that opened it. It is for one goroutine
// at a time.
type Conn struct {
	nl *netlink.Conn
}

// Dial opens a Conn to the network namespace of the calling thread.
func Dial() (*Conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_ROUTE, answerTime, readLen)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	return &Conn{nl: nl}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.nl.Close() }

// do makes a change.
func (c *Conn) do(kind, flags uint16, body []byte) error {
	return c.exchange(kind, flags|unix.NLM_F_ACK, body, nil)
}

// get calls f with the answer to a question, which is valid during the call.
func (c *Conn) get(kind uint16, body []byte, f func([]byte) error) error {
	return c.exchange(kind, unix.NLM_F_ACK, body, f)
}

// dump is the entries of a table that parse takes. A change meanwhile makes it begin again.
func dump[T any](c *Conn, kind uint16, body []byte, parse func([]byte) (entry T, wanted bool, err error)) (all []T, err error) {
	for range 5 {
		all = nil
		err = c.exchange(kind, unix.NLM_F_DUMP, body, func(b []byte) error {
			entry, wanted, err := parse(b)
			if wanted && err == nil {
				all = append(all, entry)
			}
			return err
		})
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return all, err
}

func (c *Conn) exchange(kind, flags uint16, body []byte, f func([]byte) error) error {
	err := c.nl.Ask(kind, flags, append(make([]byte, netlink.HeaderLen), body...), f)
	if refused := new(netlink.Error); err != nil && !errors.As(err, &refused) {
		return fmt.Errorf("rtnetlink: %w", err)
	}
	return err
}
