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
	nl  *netlink.Conn
	seq uint32
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
func dump[T any](c *Conn, kind uint16, body []byte, parse func([]byte) (entry T, wanted bool, err error)) ([]T, error) {
	for range 5 {
		var all []T
		err := c.exchange(kind, unix.NLM_F_DUMP, body, func(b []byte) error {
			entry, wanted, err := parse(b)
			if wanted && err == nil {
				all = append(all, entry)
			}
			return err
		})
		if !errors.Is(err, unix.EINTR) {
			return all, err
		}
	}
	return nil, &netlink.Error{Errno: unix.EINTR, Reason: "the table keeps changing"}
}

func (c *Conn) exchange(kind, flags uint16, body []byte, f func([]byte) error) error {
	c.seq++
	request := netlink.Header{Kind: kind, Flags: flags | unix.NLM_F_REQUEST, Seq: c.seq}
	if err := c.nl.Send(request.Append(nil, body)); err != nil {
		return fmt.Errorf("rtnetlink: %w", err)
	}
	var failed error // of f; what follows in a dump still has to be read away
	done, interrupted := false, false
	for !done {
		b, err := c.nl.Receive()
		if err == nil {
			err = netlink.Messages(b, func(h netlink.Header, body []byte) error {
				switch {
				case h.Seq != c.seq || done: // an answer whose wait was given up
				case h.Kind == unix.NLMSG_ERROR || h.Kind == unix.NLMSG_DONE:
					done = true
					if err := netlink.Outcome(h, body); failed == nil {
						failed = err
					}
				default:
					interrupted = interrupted || h.Flags&unix.NLM_F_DUMP_INTR != 0
					if f != nil && failed == nil {
						failed = f(body)
					}
				}
				return nil
			})
		}
		if err != nil {
			return fmt.Errorf("rtnetlink: %w", err)
		}
	}
	if failed == nil && interrupted {
		return unix.EINTR
	}
	return failed
}
