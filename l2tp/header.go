package l2tp

import (
	"encoding/binary"
	"errors"
)

// Flags of the first two octets (RFC 2661 section 3.1).
const (
	flagControl  = 0x8000 // T
	flagLength   = 0x4000 // L
	flagSequence = 0x0800 // S
	flagOffset   = 0x0200 // O
	versionMask  = 0x000f
	versionL2TP  = 2

	controlHeaderLen = 12
)

// Header is the header of a control or data message (RFC 2661 section 3.1).
type Header struct {
	Control bool
	Tunnel  TunnelID
	Session SessionID
	HasSeq  bool
	Ns, Nr  uint16
}

// Errors of ParseHeader. A datagram that earns one is dropped and counted; nobody is told.
var (
	ErrShort   = errors.New("l2tp: datagram shorter than its header")
	ErrVersion = errors.New("l2tp: not version 2")
	ErrLength  = errors.New("l2tp: length field outside the datagram")
	ErrFlags   = errors.New("l2tp: control message without length or sequence, or with an offset")
)

// ParseHeader splits the header off. The rest aliases b: AVPs of a control message, a PPP frame of a data message.
// Octets behind the length field are cut off, not complained about: some peers pad.
func ParseHeader(b []byte) (h Header, rest []byte, err error) {
	if len(b) < 6 {
		return h, nil, ErrShort
	}
	flags := binary.BigEndian.Uint16(b)
	if flags&versionMask != versionL2TP {
		return h, nil, ErrVersion
	}
	h.Control = flags&flagControl != 0
	h.HasSeq = flags&flagSequence != 0
	if h.Control && (!h.HasSeq || flags&flagOffset != 0) {
		return h, nil, ErrFlags
	}
	n := 2
	end := len(b)
	if flags&flagLength != 0 {
		end = int(binary.BigEndian.Uint16(b[2:]))
		if end > len(b) {
			return h, nil, ErrLength
		}
		n += 2
	}
	if end < n+4 {
		return h, nil, ErrLength
	}
	h.Tunnel = TunnelID(binary.BigEndian.Uint16(b[n:]))
	h.Session = SessionID(binary.BigEndian.Uint16(b[n+2:]))
	n += 4
	if h.HasSeq {
		if end < n+4 {
			return h, nil, ErrLength
		}
		h.Ns = binary.BigEndian.Uint16(b[n:])
		h.Nr = binary.BigEndian.Uint16(b[n+2:])
		n += 4
	}
	if flags&flagOffset != 0 {
		if end < n+2 {
			return h, nil, ErrLength
		}
		n += 2 + int(binary.BigEndian.Uint16(b[n:]))
		if n > end {
			return h, nil, ErrLength
		}
	}
	// The length field is optional on a ZLB that some gateways send, never on a message with AVPs.
	if h.Control && flags&flagLength == 0 && n != end {
		return h, nil, ErrFlags
	}
	return h, b[n:end], nil
}

// appendControl writes a control header whose length is still open; setLength closes it.
func appendControl(b []byte, tunnel TunnelID, session SessionID, ns, nr uint16) []byte {
	b = binary.BigEndian.AppendUint16(b, flagControl|flagLength|flagSequence|versionL2TP)
	b = binary.BigEndian.AppendUint16(b, controlHeaderLen)
	b = binary.BigEndian.AppendUint16(b, uint16(tunnel))
	b = binary.BigEndian.AppendUint16(b, uint16(session))
	b = binary.BigEndian.AppendUint16(b, ns)
	return binary.BigEndian.AppendUint16(b, nr)
}

// setLength makes the length field match exactly: xl2tpd drops a datagram where it does not.
func setLength(msg []byte) { binary.BigEndian.PutUint16(msg[2:], uint16(len(msg))) }

func setSequence(msg []byte, ns, nr uint16) {
	binary.BigEndian.PutUint16(msg[8:], ns)
	binary.BigEndian.PutUint16(msg[10:], nr)
}
