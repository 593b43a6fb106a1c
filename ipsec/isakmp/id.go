package isakmp

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
)

// IDType is the kind of an identity (RFC 2407 section 4.6.2.1).
type IDType uint8

const (
	IDIPv4       IDType = 1
	IDFQDN       IDType = 2
	IDUserFQDN   IDType = 3
	IDIPv4Subnet IDType = 4
	IDIPv6       IDType = 5
	IDIPv6Subnet IDType = 6
	IDIPv4Range  IDType = 7
	IDIPv6Range  IDType = 8
	IDDERASN1DN  IDType = 9
	IDDERASN1GN  IDType = 10
	IDKeyID      IDType = 11
)

var idTypeNames = names[IDType]{
	{IDIPv4, "ipv4"}, {IDFQDN, "fqdn"}, {IDUserFQDN, "user-fqdn"}, {IDIPv4Subnet, "ipv4-subnet"}, {IDIPv6, "ipv6"},
	{IDIPv6Subnet, "ipv6-subnet"}, {IDIPv4Range, "ipv4-range"}, {IDIPv6Range, "ipv6-range"}, {IDDERASN1DN, "dn"},
	{IDDERASN1GN, "gn"}, {IDKeyID, "key-id"},
}

func (t IDType) String() string { return name(idTypeNames, t, "id type") }

// idLengths are the data lengths of the types that have a fixed one.
var idLengths = [...]int{IDIPv4: 4, IDIPv4Subnet: 8, IDIPv4Range: 8, IDIPv6: 16, IDIPv6Subnet: 32, IDIPv6Range: 32}

func (t IDType) length() int {
	if int(t) < len(idLengths) {
		return idLengths[t]
	}
	return 0
}

// ID is the body of an identification payload (RFC 2407 section 4.6.2). In phase 1 protocol and port are 0/0 or 17/500,
// though peers send others; in phase 2 they are the selector, a zero meaning any.
type ID struct {
	Type     IDType
	Protocol uint8
	Port     uint16
	Data     []byte // aliases the input
}

// ParseID reads the body of an identification payload. Unknown types are kept with their data.
func ParseID(body []byte) (ID, error) {
	if len(body) < 4 {
		return ID{}, &Error{Payload: PayloadID, Problem: "body length", Have: len(body), Want: 4, Notify: PayloadMalformed}
	}
	id := ID{Type: IDType(body[0]), Protocol: body[1], Port: binary.BigEndian.Uint16(body[2:]), Data: body[4:]}
	if id.Type == 0 {
		return ID{}, &Error{Payload: PayloadID, Problem: "type", Have: 0, Want: -1, Notify: InvalidIDInformation}
	}
	if want := id.Type.length(); want != 0 && len(id.Data) != want {
		return ID{}, &Error{Payload: PayloadID, Problem: id.Type.String() + " data length", Have: len(id.Data), Want: want, Notify: InvalidIDInformation}
	}
	if len(id.Data) == 0 {
		return ID{}, &Error{Payload: PayloadID, Problem: "data length", Have: 0, Want: 1, Notify: InvalidIDInformation}
	}
	return id, nil
}

// Append writes the body of an identification payload.
func (id ID) Append(b []byte) []byte {
	b = append(b, byte(id.Type), id.Protocol)
	b = binary.BigEndian.AppendUint16(b, id.Port)
	return append(b, id.Data...)
}

// IDFromAddr makes the identity of an address; a 4-in-6 address counts as IPv4. addr must be valid.
func IDFromAddr(addr netip.Addr, proto uint8, port uint16) ID {
	addr = addr.Unmap()
	t := IDIPv6
	if addr.Is4() {
		t = IDIPv4
	}
	return ID{Type: t, Protocol: proto, Port: port, Data: addr.AsSlice()}
}

// Addr returns the address of an identity that is a single one.
func (id ID) Addr() (netip.Addr, bool) {
	if id.Type != IDIPv4 && id.Type != IDIPv6 {
		return netip.Addr{}, false
	}
	return addrOf(id.Type == IDIPv4, id.Data)
}

// Prefix returns the prefix of an address or a subnet; false for others and for masks with holes.
func (id ID) Prefix() (netip.Prefix, bool) {
	if a, ok := id.Addr(); ok {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	if id.Type != IDIPv4Subnet && id.Type != IDIPv6Subnet {
		return netip.Prefix{}, false
	}
	half := len(id.Data) / 2
	a, ok := addrOf(id.Type == IDIPv4Subnet, id.Data[:half])
	if !ok || len(id.Data) != 2*half {
		return netip.Prefix{}, false
	}
	n, ok := maskBits(id.Data[half:])
	if !ok {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, n), true
}

// Range returns the first and last address of an address range.
func (id ID) Range() (first, last netip.Addr, ok bool) {
	if id.Type != IDIPv4Range && id.Type != IDIPv6Range {
		return first, last, false
	}
	half := len(id.Data) / 2
	first, ok1 := addrOf(id.Type == IDIPv4Range, id.Data[:half])
	last, ok2 := addrOf(id.Type == IDIPv4Range, id.Data[half:])
	return first, last, ok1 && ok2 && !last.Less(first)
}

func addrOf(v4 bool, b []byte) (netip.Addr, bool) {
	if v4 != (len(b) == 4) {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(b)
}

// maskBits counts the ones of a mask, false if a one follows a zero.
func maskBits(mask []byte) (n int, ok bool) {
	for i, m := range mask {
		ones := bits.LeadingZeros8(^m)
		n += ones
		if ones == 8 {
			continue
		}
		if m<<ones != 0 {
			return 0, false
		}
		for _, rest := range mask[i+1:] {
			if rest != 0 {
				return 0, false
			}
		}
		break
	}
	return n, true
}

// maxIDText bounds what String shows of a name; a peer may fill a whole message with one.
const maxIDText = 96

// String shows the identity for a log: the address, name or hexadecimal key id, escaped and bounded, with protocol and
// port behind it unless both are zero: "192.0.2.7[17/1701]".
func (id ID) String() string {
	s := id.text()
	if id.Protocol != 0 || id.Port != 0 {
		s = fmt.Sprintf("%s[%d/%d]", s, id.Protocol, id.Port)
	}
	return s
}

func (id ID) text() string {
	if a, ok := id.Addr(); ok {
		return a.String()
	}
	if p, ok := id.Prefix(); ok {
		return p.String()
	}
	if first, last, ok := id.Range(); ok {
		return first.String() + "-" + last.String()
	}
	if id.Type == IDFQDN || id.Type == IDUserFQDN {
		return escaped(id.Data)
	}
	if id.Type == IDDERASN1DN {
		if s, ok := DistinguishedName(id.Data); ok {
			return s
		}
	}
	return id.Type.String() + ":" + shortHex(id.Data)
}

// escaped shows printable ASCII as it is and everything else escaped, so that a name cannot forge a log line.
func escaped(b []byte) string {
	cut := ""
	if len(b) > maxIDText {
		b, cut = b[:maxIDText], "..."
	}
	q := strconv.QuoteToASCII(string(b))
	return q[1:len(q)-1] + cut
}
