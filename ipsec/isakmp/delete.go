package isakmp

import "encoding/binary"

// MaxSPIs bounds one delete payload. Peers send one SPI per payload; a whole peer's children would be dozens.
const MaxSPIs = 256

// Delete is the body of a delete payload (RFC 2408 section 3.15). The SPIs are the sender's inbound ones.
type Delete struct {
	DOI      uint32
	Protocol Protocol
	SPIs     [][]byte // all of one size: four octets for AH and ESP, both cookies for ISAKMP
}

// ParseDelete reads the body of a delete payload.
func ParseDelete(body []byte) (Delete, error) {
	if len(body) < 8 {
		return Delete{}, malformed(PayloadDelete, "body length", len(body), 8)
	}
	d := Delete{DOI: binary.BigEndian.Uint32(body), Protocol: Protocol(body[4])}
	size, n := int(body[5]), int(binary.BigEndian.Uint16(body[6:]))
	want := 0
	switch d.Protocol {
	case ProtoISAKMP:
		want = 16
	case ProtoAH, ProtoESP:
		want = 4
	}
	if size == 0 || want != 0 && size != want {
		return Delete{}, &Error{Payload: PayloadDelete, Problem: "SPI size", Have: size, Want: max(want, 1), Notify: InvalidSPI}
	}
	if n == 0 || n > MaxSPIs {
		return Delete{}, malformed(PayloadDelete, "number of SPIs", n, MaxSPIs)
	}
	if size*n != len(body)-8 {
		return Delete{}, malformed(PayloadDelete, "octets of SPIs", len(body)-8, size*n)
	}
	d.SPIs = make([][]byte, n)
	for i := range d.SPIs {
		at := 8 + i*size
		d.SPIs[i] = body[at : at+size : at+size]
	}
	return d, nil
}

// Append writes the body of a delete payload. The first SPI gives the size of all.
func (d Delete) Append(b []byte) []byte {
	size := 0
	if len(d.SPIs) > 0 {
		size = len(d.SPIs[0])
	}
	b = binary.BigEndian.AppendUint32(b, d.DOI)
	b = append(b, byte(d.Protocol), byte(size))
	b = binary.BigEndian.AppendUint16(b, uint16(len(d.SPIs)))
	for _, spi := range d.SPIs {
		b = append(b, spi...)
	}
	return b
}
