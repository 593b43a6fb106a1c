package isakmp

import "encoding/binary"

// Fragment is the body of a fragment payload ([MS-IKEE], Cisco and racoon alike): a piece of a whole IKE message, its ISAKMP
// header included. The payload stands alone behind a header that is a copy of the message's, encryption flag cleared.
type Fragment struct {
	ID     uint16 // one number per fragmented message
	Number uint8  // from 1
	Last   bool
	Data   []byte // aliases the input
}

const fragmentLast = 1 // flag, the others are reserved

// ParseFragment reads the body of a fragment payload. The data is never empty and the number never zero.
func ParseFragment(body []byte) (Fragment, error) {
	if len(body) < 5 {
		return Fragment{}, malformed(PayloadFragment, "body length", len(body), 5)
	}
	f := Fragment{ID: binary.BigEndian.Uint16(body), Number: body[2], Last: body[3]&fragmentLast != 0, Data: body[4:]}
	if f.Number == 0 {
		return Fragment{}, malformed(PayloadFragment, "number", 0, 1)
	}
	return f, nil
}

// Append writes the body of a fragment payload.
func (f Fragment) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, f.ID)
	flags := byte(0)
	if f.Last {
		flags = fragmentLast
	}
	b = append(b, f.Number, flags)
	return append(b, f.Data...)
}
