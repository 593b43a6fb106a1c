package isakmp

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// HeaderLen is the length of the ISAKMP header in octets (RFC 2408 section 3.1).
const HeaderLen = 28

// version is 1.0, the only one there is (RFC 2408 section 3.1): major in the high nibble.
const version = 0x10

// Cookie names one side of an exchange; zero means "not chosen yet" (RFC 2408 section 2.5.3).
type Cookie [8]byte

func (c Cookie) String() string { return hex.EncodeToString(c[:]) }

// IsZero says that the side has not chosen its cookie: a first message has a zero responder cookie.
func (c Cookie) IsZero() bool { return c == Cookie{} }

// Exchange is the exchange type (RFC 2408 section 3.1, RFC 2409 appendix A).
type Exchange uint8

const (
	Base               Exchange = 1
	Main               Exchange = 2 // identity protection
	AuthenticationOnly Exchange = 3
	Aggressive         Exchange = 4
	Informational      Exchange = 5
	Transaction        Exchange = 6 // XAUTH and mode config
	Quick              Exchange = 32
	NewGroup           Exchange = 33
)

var exchangeNames = names[Exchange]{
	{Base, "base"}, {Main, "main"}, {AuthenticationOnly, "authentication only"}, {Aggressive, "aggressive"},
	{Informational, "informational"}, {Transaction, "transaction"}, {Quick, "quick"}, {NewGroup, "new group"},
}

func (x Exchange) String() string { return name(exchangeNames, x, "exchange") }

// Flags of the header (RFC 2408 section 3.1).
type Flags uint8

const (
	Encrypted Flags = 1 << iota // everything after the header is encrypted
	Commit
	AuthOnly
)

func (f Flags) String() string {
	if f == 0 {
		return "none"
	}
	var s []string
	for i, n := range []string{"encrypted", "commit", "auth-only"} {
		if f&(1<<i) != 0 {
			s = append(s, n)
		}
	}
	if rest := f &^ (Encrypted | Commit | AuthOnly); rest != 0 {
		s = append(s, fmt.Sprintf("0x%02x", uint8(rest)))
	}
	return strings.Join(s, "+")
}

// Header is the ISAKMP header without its version.
type Header struct {
	Initiator, Responder Cookie
	Next                 PayloadType
	Exchange             Exchange
	Flags                Flags
	MessageID            uint32
	Length               uint32 // of the whole message, this header included
}

// ParseHeader reads the header of a datagram. On success HeaderLen <= Length <= len(b); octets beyond Length are
// tolerated and the caller cuts them off: b[:h.Length]. The major version must be 1, any minor version will do.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, malformed(PayloadNone, "datagram shorter than the header", len(b), HeaderLen)
	}
	if b[17]>>4 != version>>4 {
		return Header{}, &Error{Problem: "major version", Have: int(b[17] >> 4), Want: version >> 4, Notify: InvalidMajorVersion}
	}
	h := Header{
		Initiator: Cookie(b[0:8]),
		Responder: Cookie(b[8:16]),
		Next:      PayloadType(b[16]),
		Exchange:  Exchange(b[18]),
		Flags:     Flags(b[19]),
		MessageID: binary.BigEndian.Uint32(b[20:]),
		Length:    binary.BigEndian.Uint32(b[24:]),
	}
	if h.Length < HeaderLen {
		return Header{}, malformed(PayloadNone, "length field below the header", int(h.Length), HeaderLen)
	}
	if uint64(h.Length) > uint64(len(b)) {
		// Clipped so that a 32-bit int cannot go negative in the message.
		return Header{}, &Error{Problem: "length field beyond the datagram", Have: int(min(h.Length, 1<<31-1)), Want: len(b), Notify: UnequalPayloadLengths}
	}
	return h, nil
}

// Append writes the header with the Length it holds; SetLength corrects that once the message is complete.
func (h Header) Append(b []byte) []byte {
	b = append(b, h.Initiator[:]...)
	b = append(b, h.Responder[:]...)
	b = append(b, byte(h.Next), version, byte(h.Exchange), byte(h.Flags))
	b = binary.BigEndian.AppendUint32(b, h.MessageID)
	return binary.BigEndian.AppendUint32(b, h.Length)
}

// SetLength writes len(msg) into the header of a complete message that begins at msg[0].
func SetLength(msg []byte) {
	binary.BigEndian.PutUint32(msg[24:HeaderLen], uint32(len(msg)))
}

type number interface{ ~uint8 | ~uint16 | ~uint64 }

// names are those of numbers. A map would have to be built at the start; this is data of the program.
type names[K number] []struct {
	number K
	name   string
}

func (n names[K]) find(k K) (string, bool) {
	for i := range n {
		if n[i].number == k {
			return n[i].name, true
		}
	}
	return "", false
}

// name looks a number up in its table; numbers without a name show as "kind N".
func name[K number](n names[K], k K, kind string) string {
	if s, ok := n.find(k); ok {
		return s
	}
	return fmt.Sprintf("%s %d", kind, uint64(k))
}
