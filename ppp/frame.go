package ppp

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Protocol is the PPP protocol number (RFC 1661 section 2).
type Protocol uint16

const (
	ProtoIP     Protocol = 0x0021
	ProtoIPv6   Protocol = 0x0057
	ProtoIPCP   Protocol = 0x8021
	ProtoIPV6CP Protocol = 0x8057
	ProtoCCP    Protocol = 0x80fd
	ProtoLCP    Protocol = 0xc021
	ProtoPAP    Protocol = 0xc023
	ProtoLQR    Protocol = 0xc025
	ProtoCHAP   Protocol = 0xc223
	ProtoEAP    Protocol = 0xc227
)

var protocolNames = map[Protocol]string{
	ProtoIP: "ip", ProtoIPv6: "ipv6", ProtoIPCP: "ipcp", ProtoIPV6CP: "ipv6cp", ProtoCCP: "ccp",
	ProtoLCP: "lcp", ProtoPAP: "pap", ProtoLQR: "lqr", ProtoCHAP: "chap", ProtoEAP: "eap",
	0x8031: "bcp", 0x8053: "ecp", 0x8281: "mplscp", 0xc029: "cbcp",
}

func (p Protocol) String() string {
	if s, ok := protocolNames[p]; ok {
		return s
	}
	return "0x" + strconv.FormatUint(uint64(p)|0x10000, 16)[1:]
}

const (
	defaultMRU = 1500 // RFC 1661 section 6.1; we can always receive this much
	maxMRU     = 65535
	minMRU     = 128 // below this a peer's MRU would not even hold our own packets
	headerLen  = 4   // code, identifier, length
)

var errTruncated = errors.New("truncated")

// splitFrame takes the protocol field off, and the address and control fields where they are in front of it; both fields
// may be compressed whatever was negotiated, for senders exist that do so (RFC 1661 sections 6.5 and 6.6).
func splitFrame(b []byte) (Protocol, []byte, error) {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 {
		b = b[2:]
	}
	if len(b) == 0 {
		return 0, nil, errTruncated
	}
	if b[0]&1 == 1 {
		return Protocol(b[0]), b[1:], nil
	}
	if len(b) < 2 {
		return 0, nil, errTruncated
	}
	return Protocol(binary.BigEndian.Uint16(b)), b[2:], nil
}

// packet is what LCP, the NCPs and the authentication protocols have in common (RFC 1661 section 5).
type packet struct {
	code, id uint8
	data     []byte
}

// parsePacket aliases b. Octets past the length field are padding.
func parsePacket(b []byte) (packet, error) {
	if len(b) < headerLen {
		return packet{}, errTruncated
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < headerLen || n > len(b) {
		return packet{}, errTruncated
	}
	return packet{b[0], b[1], b[headerLen:n]}, nil
}

// appendPacket is the inverse, with the protocol in front. The data must fit the length field.
func appendPacket(b []byte, p Protocol, code, id uint8, data []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(p))
	b = append(b, code, id)
	b = binary.BigEndian.AppendUint16(b, uint16(headerLen+len(data)))
	return append(b, data...)
}

// printable makes text from the peer safe for a log or a terminal.
func printable(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if (r == utf8.RuneError && n == 1) || !unicode.IsPrint(r) {
			for _, c := range []byte(s[i : i+n]) {
				const digits = "0123456789abcdef"
				b.WriteString(`\x`)
				b.WriteByte(digits[c>>4])
				b.WriteByte(digits[c&15])
			}
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// shorten bounds a text that goes into a log.
func shorten(b []byte) string {
	const most = 120
	if len(b) > most {
		b = b[:most]
	}
	return printable(string(b))
}
