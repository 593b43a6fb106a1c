package isakmp

import "encoding/binary"

// PayloadType is the "next payload" number (RFC 2408 section 3.1, RFC 3947 section 9, IANA isakmp-registry).
type PayloadType uint8

const (
	PayloadNone        PayloadType = 0
	PayloadSA          PayloadType = 1
	PayloadProposal    PayloadType = 2 // only inside an SA payload
	PayloadTransform   PayloadType = 3 // only inside a proposal
	PayloadKE          PayloadType = 4
	PayloadID          PayloadType = 5
	PayloadCert        PayloadType = 6
	PayloadCertRequest PayloadType = 7
	PayloadHash        PayloadType = 8
	PayloadSignature   PayloadType = 9
	PayloadNonce       PayloadType = 10
	PayloadNotify      PayloadType = 11
	PayloadDelete      PayloadType = 12
	PayloadVendor      PayloadType = 13
	PayloadAttributes  PayloadType = 14 // transaction exchange
	PayloadSAK         PayloadType = 15 // RFC 3547; NAT-T drafts 04..08 used it for NAT-D
	PayloadSAT         PayloadType = 16 // RFC 3547; NAT-T drafts 04..08 used it for NAT-OA
	PayloadKD          PayloadType = 17
	PayloadSEQ         PayloadType = 18
	PayloadPOP         PayloadType = 19
	PayloadNATD        PayloadType = 20
	PayloadNATOA       PayloadType = 21
	PayloadNATDDraft   PayloadType = 130 // NAT-T drafts 00..03
	PayloadNATOADraft  PayloadType = 131 // NAT-T drafts 00..03
	PayloadFragment    PayloadType = 132 // [MS-IKEE]
)

var payloadNames = names[PayloadType]{
	{PayloadNone, "none"}, {PayloadSA, "SA"}, {PayloadProposal, "proposal"}, {PayloadTransform, "transform"}, {PayloadKE, "KE"},
	{PayloadID, "ID"}, {PayloadCert, "CERT"}, {PayloadCertRequest, "CERTREQ"}, {PayloadHash, "HASH"}, {PayloadSignature, "SIG"},
	{PayloadNonce, "nonce"}, {PayloadNotify, "notify"}, {PayloadDelete, "delete"}, {PayloadVendor, "vendor id"},
	{PayloadAttributes, "attributes"}, {PayloadSAK, "SAK"}, {PayloadSAT, "SAT"}, {PayloadKD, "KD"}, {PayloadSEQ, "SEQ"},
	{PayloadPOP, "POP"}, {PayloadNATD, "NAT-D"}, {PayloadNATOA, "NAT-OA"}, {PayloadNATDDraft, "NAT-D (draft)"},
	{PayloadNATOADraft, "NAT-OA (draft)"}, {PayloadFragment, "fragment"},
}

func (t PayloadType) String() string { return name(payloadNames, t, "type") }

// inChain says whether a payload may stand in a message's chain: the assigned types, without those that live inside an
// SA payload, and the private ones (128..255), which a receiver skips. IKEv2's types (33..) are not among them.
func (t PayloadType) inChain() bool {
	switch {
	case t == PayloadNone, t == PayloadProposal, t == PayloadTransform:
		return false
	case t <= PayloadNATOA, t >= 128:
		return true
	}
	return false
}

// MaxPayloads bounds a message's chain. Windows sends 9 payloads, Apple up to 13, a certificate chain some more.
const MaxPayloads = 64

// genericLen is the length of the generic payload header (RFC 2408 section 3.2).
const genericLen = 4

// MaxBody is the longest payload body that the 16-bit length field can carry.
const MaxBody = 1<<16 - 1 - genericLen

// Payload is one link of the chain.
type Payload struct {
	Type PayloadType
	Body []byte // aliases the input; without the generic header
}

// ParsePayloads reads the chain that starts with type first at b[0]. used is how many octets the chain occupies. After
// decryption padded is true and octets after the last payload are padding; otherwise they are an error.
//
// A reserved octet that is not zero is refused as RFC 2408 section 5.3 asks: it is the surest sign of a message
// decrypted with the wrong key.
func ParsePayloads(first PayloadType, b []byte, padded bool) (payloads []Payload, used int, err error) {
	n, used, err := walk(first, b, nil)
	if err != nil {
		return nil, 0, err
	}
	if !padded && used != len(b) {
		return nil, 0, &Error{Problem: "octets after the last payload", Have: len(b) - used, Want: 0, Notify: UnequalPayloadLengths}
	}
	if n == 0 {
		return nil, used, nil
	}
	payloads = make([]Payload, n)
	walk(first, b, payloads)
	return payloads, used, nil
}

// walk follows the chain, counts it and, where out is not nil, fills out.
func walk(next PayloadType, b []byte, out []Payload) (n, used int, err error) {
	for ; next != PayloadNone; n++ {
		if !next.inChain() {
			return 0, 0, &Error{Problem: "payload type not allowed", Have: int(next), Want: -1, Notify: InvalidPayloadType}
		}
		if n == MaxPayloads {
			return 0, 0, malformed(PayloadNone, "payloads in one message", n+1, MaxPayloads)
		}
		following, body, rest, err := split(next, b[used:])
		if err != nil {
			return 0, 0, err
		}
		if out != nil {
			out[n] = Payload{Type: next, Body: body}
		}
		next, used = following, len(b)-len(rest)
	}
	return n, used, nil
}

// split takes one payload of type t off b. Everything that has a generic header comes through here.
func split(t PayloadType, b []byte) (next PayloadType, body, rest []byte, err error) {
	if len(b) < genericLen {
		return 0, nil, nil, malformed(t, "octets left for the generic header", len(b), genericLen)
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < genericLen {
		return 0, nil, nil, malformed(t, "length below the generic header", n, genericLen)
	}
	if n > len(b) {
		return 0, nil, nil, malformed(t, "length beyond the message", n, len(b))
	}
	if b[1] != 0 {
		return 0, nil, nil, malformed(t, "reserved octet", int(b[1]), 0)
	}
	return PayloadType(b[0]), b[genericLen:n:n], b[n:], nil
}

// AppendPayloads writes the chain. The type of the first payload belongs into the header in front of it. No body may be
// longer than MaxBody.
func AppendPayloads(b []byte, payloads []Payload) []byte {
	for i, p := range payloads {
		next := PayloadNone
		if i+1 < len(payloads) {
			next = payloads[i+1].Type
		}
		b = appendGeneric(b, next, p.Body)
	}
	return b
}

func appendGeneric(b []byte, next PayloadType, body []byte) []byte {
	b = append(b, byte(next), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(genericLen+len(body)))
	return append(b, body...)
}
