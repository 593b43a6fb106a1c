package nft

import (
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// answerTime bounds the wait for an answer: the kernel may load a module before it gives one.
const answerTime = 10 * time.Second

const (
	lenHeader = unix.NLMSG_HDRLEN
	lenFamily = 4      // struct nfgenmsg
	typeMask  = 0x3fff // NLA_TYPE_MASK
)

var host = binary.NativeEndian

// Error is a refusal by the kernel.
type Error struct {
	Op     string
	Errno  unix.Errno
	Reason string // extended acknowledgement, may be empty
}

func (e *Error) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("nftables: %s: %s (%s)", e.Op, e.Errno, e.Reason)
	}
	return fmt.Sprintf("nftables: %s: %s", e.Op, e.Errno)
}

func (e *Error) Unwrap() error { return e.Errno }

// Message is one request to nf_tables.
type Message struct {
	Kind, Flags uint16 // NFT_MSG_*, NLM_F_*
	Body        []byte // attributes
}

// Conn is a socket of nf_tables. Tables made as owned belong to it: the kernel removes them with the socket. It is for
// one goroutine at a time.
type Conn struct {
	fd  int
	seq uint32
	in  [8192]byte
}

// Dial opens a Conn to the network namespace of the calling thread.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("nftables: open netlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("nftables: bind netlink: %w", err)
	}
	tv := unix.NsecToTimeval(int64(answerTime))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &Conn{fd: fd}, nil
}

// Close ends the connection, and with it the tables that belong to it.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Commit makes all the changes or none. The error of what the kernel refuses is an [Error] that names op.
func (c *Conn) Commit(op string, msgs ...Message) error { return c.batch(op, msgs, true) }

// Check asks whether Commit would succeed: a batch without an end is validated and thrown away.
func (c *Conn) Check(op string, msgs ...Message) error { return c.batch(op, msgs, false) }

func (c *Conn) batch(op string, msgs []Message, end bool) error {
	first := c.seq + 1
	b := c.append(nil, unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	for i, m := range msgs {
		flags := m.Flags
		if i == len(msgs)-1 {
			flags |= unix.NLM_F_ACK // errors come by themselves, and before it
		}
		b = c.append(b, unix.NFNL_SUBSYS_NFTABLES<<8|m.Kind, flags, unix.NFPROTO_INET, 0, m.Body)
	}
	last := c.seq
	if end {
		b = c.append(b, unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	}
	if len(b) > sendBuffer { // a socket's own takes some 100 KB
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(b))
	}
	if err := retry(func() error { return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) }); err != nil {
		return fmt.Errorf("nftables: %s: send: %w", op, err)
	}
	for {
		var n int
		var from unix.Sockaddr
		err := retry(func() (err error) { n, from, err = unix.Recvfrom(c.fd, c.in[:], 0); return err })
		if err == unix.EAGAIN {
			return fmt.Errorf("nftables: %s: no answer from the kernel in %s", op, answerTime)
		}
		if err != nil {
			return fmt.Errorf("nftables: %s: receive: %w", op, err)
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue
		}
		if done, err := answer(op, c.in[:n], first, last); done {
			return err
		}
	}
}

// sendBuffer is what the smallest of the kernels' defaults holds, with its own overhead.
const sendBuffer = 32 << 10

// append writes one message with the next sequence number.
func (c *Conn) append(b []byte, kind, flags uint16, family uint8, subsystem uint16, body []byte) []byte {
	c.seq++
	b = host.AppendUint32(b, uint32(lenHeader+lenFamily+len(body)))
	b = host.AppendUint16(b, kind)
	b = host.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = host.AppendUint32(b, c.seq)
	b = append(b, 0, 0, 0, 0, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, subsystem)
	return append(b, body...) // attributes are padded already
}

// answer looks in a datagram for the outcome of the batch with these sequence numbers: the first error, or the last
// message's acknowledgement. What is left of earlier batches is passed over.
func answer(op string, b []byte, first, last uint32) (done bool, err error) {
	for len(b) >= lenHeader {
		n := int(min(host.Uint32(b), uint32(len(b)+1)))
		if n < lenHeader || n > len(b) {
			return true, fmt.Errorf("nftables: %s: netlink message of %d octets in %d", op, n, len(b))
		}
		m, seq := b[:n], host.Uint32(b[8:])
		b = b[min((n+3)&^3, len(b)):]
		if host.Uint16(m[4:]) != unix.NLMSG_ERROR || seq-first > last-first {
			continue
		}
		if len(m) < lenHeader+4 {
			return true, fmt.Errorf("nftables: %s: acknowledgement of %d octets", op, len(m))
		}
		code := int32(host.Uint32(m[lenHeader:]))
		switch {
		case code < 0:
			return true, &Error{op, unix.Errno(-code), reason(m)}
		case seq == last:
			return true, nil
		}
	}
	return false, nil
}

// reason is the kernel's own word on an error, which it has with NETLINK_EXT_ACK.
func reason(m []byte) string {
	if flags := host.Uint16(m[6:]); flags&unix.NLM_F_ACK_TLVS == 0 || flags&unix.NLM_F_CAPPED == 0 {
		return ""
	}
	b := m[min(lenHeader+4+lenHeader, len(m)):]
	for len(b) >= unix.NLA_HDRLEN {
		n := int(host.Uint16(b))
		if n < unix.NLA_HDRLEN || n > len(b) {
			return ""
		}
		if host.Uint16(b[2:])&typeMask == unix.NLMSGERR_ATTR_MSG {
			return unix.ByteSliceToString(b[unix.NLA_HDRLEN:n])
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return ""
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
