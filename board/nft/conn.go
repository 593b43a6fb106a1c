package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

const (
	answerTime = 10 * time.Second // the kernel may load a module before it gives one
	answerRoom = 8 << 10          // octets
)

var host = binary.NativeEndian

// Message is one request to nf_tables.
type Message struct {
	Kind, Flags uint16 // NFT_MSG_*, NLM_F_*
	Body        []byte // attributes
}

// Conn is a socket of nf_tables. Tables made as owned belong to it: the kernel removes them with the socket. It is for
// one goroutine at a time.
type Conn struct {
	*netlink.Conn
}

// Dial opens a Conn to the network namespace of the calling thread.
func Dial() (*Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, answerTime, answerRoom)
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	return &Conn{Conn: c}, nil
}

// Commit makes all the changes or none. What the kernel refuses is a [netlink.Error], in words that name op.
func (c *Conn) Commit(op string, msgs ...Message) error { return c.batch(op, msgs, true) }

// Check asks whether Commit would succeed: a batch without an end is validated and thrown away.
func (c *Conn) Check(op string, msgs ...Message) error { return c.batch(op, msgs, false) }

func (c *Conn) batch(op string, msgs []Message, end bool) error {
	first := c.Next()
	last := first
	b := appendMessage(nil, netlink.Header{Kind: unix.NFNL_MSG_BATCH_BEGIN, Seq: first}, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	for i, m := range msgs {
		last = c.Next()
		h := netlink.Header{Kind: unix.NFNL_SUBSYS_NFTABLES<<8 | m.Kind, Flags: m.Flags, Seq: last}
		if i == len(msgs)-1 {
			h.Flags |= unix.NLM_F_ACK // errors come by themselves, and before it
		}
		b = appendMessage(b, h, unix.NFPROTO_INET, 0, m.Body)
	}
	if end {
		b = appendMessage(b, netlink.Header{Kind: unix.NFNL_MSG_BATCH_END, Seq: c.Next()}, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	}
	if err := c.Send(b); err != nil {
		return fmt.Errorf("nftables: %s: %w", op, err)
	}
	for {
		in, err := c.Receive()
		if err == nil {
			err = answer(in, first, last)
		}
		if err == errNoAnswer {
			continue
		}
		if err != nil {
			return fmt.Errorf("nftables: %s: %w", op, err)
		}
		return nil
	}
}

// appendMessage writes one request of a batch.
func appendMessage(b []byte, h netlink.Header, family uint8, subsystem uint16, body []byte) []byte {
	h.Flags |= unix.NLM_F_REQUEST
	return h.Append(b, append(binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, subsystem), body...)) // behind struct nfgenmsg
}

// errNoAnswer says that a datagram does not tell how a batch ended.
var errNoAnswer = errors.New("no answer")

// answer looks in a datagram for the outcome of the batch with these sequence numbers: the first error, or the last
// message's acknowledgement. What is left of earlier batches is passed over.
func answer(b []byte, first, last uint32) error {
	outcome := errNoAnswer
	err := netlink.Messages(b, func(h netlink.Header, body []byte) error {
		if outcome != errNoAnswer || h.Kind != unix.NLMSG_ERROR || h.Seq-first > last-first {
			return nil
		}
		if err := netlink.Outcome(h, body); err != nil || h.Seq == last {
			outcome = err
		}
		return nil
	})
	if outcome == errNoAnswer && err != nil {
		return err
	}
	return outcome
}
