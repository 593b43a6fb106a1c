package portmap

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

// KernelError is a refusal by the kernel.
type KernelError struct {
	Op     string
	Errno  unix.Errno
	Reason string // extended acknowledgement, may be empty
}

func (e *KernelError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("portmap: %s: %s (%s)", e.Op, e.Errno, e.Reason)
	}
	return fmt.Sprintf("portmap: %s: %s", e.Op, e.Errno)
}

func (e *KernelError) Unwrap() error { return e.Errno }

// message is one request to nf_tables.
type message struct {
	kind, flags uint16 // NFT_MSG_*, NLM_F_*
	body        []byte
}

// conn is a socket of nf_tables. The table belongs to it: the kernel removes the table with the socket.
type conn struct {
	fd  int
	seq uint32
	in  [8192]byte
}

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("portmap: open netlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("portmap: bind netlink: %w", err)
	}
	tv := unix.NsecToTimeval(int64(answerTime))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &conn{fd: fd}, nil
}

func (c *conn) close() error { return unix.Close(c.fd) }

// commit makes all the changes or none.
func (c *conn) commit(op string, msgs []message) error { return c.batch(op, msgs, true) }

// check asks whether commit would succeed: a batch without an end is validated and thrown away.
func (c *conn) check(op string, msgs []message) error { return c.batch(op, msgs, false) }

func (c *conn) batch(op string, msgs []message, end bool) error {
	first := c.seq + 1
	b := c.append(nil, unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	for i, m := range msgs {
		flags := m.flags
		if i == len(msgs)-1 {
			flags |= unix.NLM_F_ACK // errors come by themselves, and before it
		}
		b = c.append(b, unix.NFNL_SUBSYS_NFTABLES<<8|m.kind, flags, unix.NFPROTO_INET, 0, m.body)
	}
	last := c.seq
	if end {
		b = c.append(b, unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	}
	if err := retry(func() error { return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) }); err != nil {
		return fmt.Errorf("portmap: %s: send: %w", op, err)
	}
	for {
		var n int
		var from unix.Sockaddr
		err := retry(func() (err error) { n, from, err = unix.Recvfrom(c.fd, c.in[:], 0); return err })
		if err == unix.EAGAIN {
			return fmt.Errorf("portmap: %s: no answer from the kernel in %s", op, answerTime)
		}
		if err != nil {
			return fmt.Errorf("portmap: %s: receive: %w", op, err)
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue
		}
		if done, err := answer(op, c.in[:n], first, last); done {
			return err
		}
	}
}

// append writes one message with the next sequence number.
func (c *conn) append(b []byte, kind, flags uint16, family uint8, subsystem uint16, body []byte) []byte {
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
			return true, fmt.Errorf("portmap: %s: netlink message of %d octets in %d", op, n, len(b))
		}
		m, seq := b[:n], host.Uint32(b[8:])
		b = b[min((n+3)&^3, len(b)):]
		if host.Uint16(m[4:]) != unix.NLMSG_ERROR || seq-first > last-first {
			continue
		}
		if len(m) < lenHeader+4 {
			return true, fmt.Errorf("portmap: %s: acknowledgement of %d octets", op, len(m))
		}
		code := int32(host.Uint32(m[lenHeader:]))
		switch {
		case code < 0:
			return true, &KernelError{op, unix.Errno(-code), reason(m)}
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

// attr appends one attribute, padded.
func attr(b []byte, kind uint16, data []byte) []byte {
	b = host.AppendUint16(b, uint16(unix.NLA_HDRLEN+len(data)))
	b = host.AppendUint16(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

// nest appends an attribute that consists of attributes.
func nest(b []byte, kind uint16, attrs []byte) []byte {
	return attr(b, kind|unix.NLA_F_NESTED, attrs)
}

func text(s string) []byte { return append([]byte(s), 0) }

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
