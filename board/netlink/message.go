package netlink

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// HeaderLen is how many octets a message's header has.
const HeaderLen = unix.NLMSG_HDRLEN

const (
	lenAttr  = unix.NLA_HDRLEN
	typeMask = 0x3fff // NLA_TYPE_MASK: the other two bits tell of nesting and byte order
)

var host = binary.NativeEndian

// Header is struct nlmsghdr without the length, which goes with the message, and the port, which is the kernel's affair.
type Header struct {
	Kind, Flags uint16 // NLM_F_*
	Seq         uint32
}

// Put writes the header of the whole message into its first octets.
func (h Header) Put(msg []byte) {
	host.PutUint32(msg, uint32(len(msg)))
	host.PutUint16(msg[4:], h.Kind)
	host.PutUint16(msg[6:], h.Flags)
	host.PutUint32(msg[8:], h.Seq)
	host.PutUint32(msg[12:], 0)
}

// Append writes a message of the body, whose attributes are padded.
func (h Header) Append(b, body []byte) []byte {
	start := len(b)
	b = append(append(b, make([]byte, HeaderLen)...), body...)
	h.Put(b[start:])
	return b
}

// Align is the length with its padding.
func Align(n int) int { return (n + 3) &^ 3 }

// Messages calls f with each message of a datagram, until it has an error.
func Messages(b []byte, f func(h Header, body []byte) error) error {
	for len(b) > 0 {
		if len(b) < HeaderLen {
			return fmt.Errorf("netlink header of %d octets", len(b))
		}
		n := int(min(host.Uint32(b), uint32(len(b))+1))
		if n < HeaderLen || n > len(b) {
			return fmt.Errorf("netlink message of %d octets in %d", host.Uint32(b), len(b))
		}
		if err := f(Header{host.Uint16(b[4:]), host.Uint16(b[6:]), host.Uint32(b[8:])}, b[HeaderLen:n]); err != nil {
			return err
		}
		b = b[min(Align(n), len(b)):]
	}
	return nil
}

// AppendAttribute writes an attribute, padded, as a machine of this byte order has it.
func AppendAttribute(order binary.AppendByteOrder, b []byte, kind uint16, data []byte) []byte {
	b = order.AppendUint16(b, uint16(lenAttr+len(data)))
	b = order.AppendUint16(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

// Attributes calls f with each attribute, until it has an error.
func Attributes(order binary.ByteOrder, b []byte, f func(kind uint16, data []byte) error) error {
	for len(b) >= lenAttr {
		n := int(order.Uint16(b))
		if n < lenAttr || n > len(b) {
			return fmt.Errorf("attribute of %d octets in %d", n, len(b))
		}
		if err := f(order.Uint16(b[2:])&typeMask, b[lenAttr:n]); err != nil {
			return err
		}
		b = b[min(Align(n), len(b)):]
	}
	return nil
}

// Error is a refusal by the kernel, with its own words where it has any.
type Error struct {
	Errno  unix.Errno
	Reason string // extended acknowledgement, may be empty
}

func (e *Error) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("%s (%s)", e.Errno, e.Reason)
	}
	return e.Errno.Error()
}

func (e *Error) Unwrap() error { return e.Errno }

// Outcome reads how a request ended in an NLMSG_ERROR or NLMSG_DONE: nil is success, what the kernel refuses an [Error].
func Outcome(h Header, body []byte) error {
	if len(body) < 4 {
		if h.Kind == unix.NLMSG_DONE {
			return nil
		}
		return fmt.Errorf("acknowledgement of %d octets", len(body))
	}
	code := int32(host.Uint32(body))
	if code >= 0 {
		return nil
	}
	e := &Error{Errno: unix.Errno(-code)}
	if h.Flags&unix.NLM_F_ACK_TLVS != 0 {
		skip := 4
		if h.Kind == unix.NLMSG_ERROR { // the request follows, or its header
			skip += HeaderLen
			if h.Flags&unix.NLM_F_CAPPED == 0 && len(body) >= 8 {
				skip = 4 + Align(int(min(host.Uint32(body[4:]), uint32(len(body)))))
			}
		}
		Attributes(host, body[min(skip, len(body)):], func(kind uint16, data []byte) error {
			if kind == unix.NLMSGERR_ATTR_MSG {
				e.Reason = unix.ByteSliceToString(data)
			}
			return nil
		})
	}
	return e
}
