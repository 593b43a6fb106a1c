package isakmp

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
)

// attributeFormat is the AF bit: set for type/value, clear for type/length/value (RFC 2408 section 3.3).
const attributeFormat = 0x8000

// Attribute is a data attribute of a transform. Which numbers it may hold depends on the space: Phase1 or Phase2.
type Attribute struct {
	Type  uint16 // without the format bit
	Value []byte // aliases the input; two octets when Basic
	Basic bool   // the short form, type/value
}

// Basic makes the short form.
func Basic(t, v uint16) Attribute {
	return Attribute{Type: t, Value: []byte{byte(v >> 8), byte(v)}, Basic: true}
}

// Variable makes the long form.
func Variable(t uint16, v []byte) Attribute { return Attribute{Type: t, Value: v} }

// Variable32 makes the long form with a four-octet number, as every peer writes life durations over 65535.
func Variable32(t uint16, v uint32) Attribute {
	return Attribute{Type: t, Value: binary.BigEndian.AppendUint32(nil, v)}
}

// Uint reads a number from either form, of one to eight octets; false when there is none or it is longer.
func (a Attribute) Uint() (uint64, bool) {
	if len(a.Value) == 0 || len(a.Value) > 8 {
		return 0, false
	}
	var v uint64
	for _, o := range a.Value {
		v = v<<8 | uint64(o)
	}
	return v, true
}

// Append writes the attribute in the form it has.
func (a Attribute) Append(b []byte) []byte {
	if a.Basic && len(a.Value) == 2 {
		b = binary.BigEndian.AppendUint16(b, a.Type|attributeFormat)
		return append(b, a.Value...)
	}
	b = binary.BigEndian.AppendUint16(b, a.Type&^attributeFormat)
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.Value)))
	return append(b, a.Value...)
}

// Find returns the first attribute of a type.
func Find(attrs []Attribute, t uint16) (Attribute, bool) {
	for _, a := range attrs {
		if a.Type == t {
			return a, true
		}
	}
	return Attribute{}, false
}

// ParseAttributes reads a list of attributes that fills b, at most MaxAttributes.
func ParseAttributes(b []byte) ([]Attribute, error) {
	n, err := countAttributes(b)
	if err != nil || n == 0 {
		return nil, err
	}
	return fillAttributes(make([]Attribute, 0, n), b), nil
}

// MaxAttributes bounds one transform. The longest seen have eight; a private group has a dozen.
const MaxAttributes = 32

func countAttributes(b []byte) (n int, err error) {
	for ; len(b) > 0; n++ {
		if n == MaxAttributes {
			return 0, badProposal(PayloadTransform, "attributes in one transform", n+1, MaxAttributes)
		}
		if _, b, err = nextAttribute(b); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// fillAttributes appends what countAttributes has found sound.
func fillAttributes(dst []Attribute, b []byte) []Attribute {
	for len(b) > 0 {
		a, rest, err := nextAttribute(b)
		if err != nil {
			break
		}
		dst, b = append(dst, a), rest
	}
	return dst
}

// nextAttribute takes one attribute off b.
func nextAttribute(b []byte) (a Attribute, rest []byte, err error) {
	if len(b) < 4 {
		return a, nil, badProposal(PayloadTransform, "octets left for an attribute", len(b), 4)
	}
	t := binary.BigEndian.Uint16(b)
	if t&attributeFormat != 0 {
		return Attribute{Type: t &^ attributeFormat, Value: b[2:4:4], Basic: true}, b[4:], nil
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n > len(b)-4 {
		return a, nil, badProposal(PayloadTransform, "attribute length beyond the transform", n, len(b)-4)
	}
	return Attribute{Type: t, Value: b[4 : 4+n : 4+n]}, b[4+n:], nil
}

// Kind is the form in which an attribute is sent (RFC 2409 appendix A, RFC 2407 section 4.5, column "Type").
type Kind uint8

const (
	KindBasic    Kind = iota + 1 // short form
	KindVariable                 // either form: the short one where the value fits
)

// Space is one number space of attributes; Phase1 and Phase2 are the two.
type Space struct {
	name  string
	infos []attributeInfo // by type
}

type attributeInfo struct {
	name   string
	kind   Kind
	values names[uint64] // nil: the value is a plain number
}

// info is what is known of an attribute type: nothing, kind 0, for unknown ones.
func (s *Space) info(t uint16) attributeInfo {
	if int(t) < len(s.infos) {
		return s.infos[t]
	}
	return attributeInfo{}
}

// Kind returns the form of an attribute type, 0 for unknown types.
func (s *Space) Kind(t uint16) Kind { return s.info(t).kind }

// Known says whether a type is in the table.
func (s *Space) Known(t uint16) bool { return s.info(t).kind != 0 }

// TypeName names an attribute type.
func (s *Space) TypeName(t uint16) string {
	if info := s.info(t); info.kind != 0 {
		return info.name
	}
	return fmt.Sprintf("%s attribute %d", s.name, t)
}

// ValueName names a value of an attribute type.
func (s *Space) ValueName(t uint16, v uint64) string {
	if n, ok := s.info(t).values.find(v); ok {
		return n
	}
	return fmt.Sprint(v)
}

// Format shows an attribute for a log: "encryption=aes-cbc", "key-length=256". Long values are shortened.
func (s *Space) Format(a Attribute) string {
	if v, ok := a.Uint(); ok {
		return s.TypeName(a.Type) + "=" + s.ValueName(a.Type, v)
	}
	return s.TypeName(a.Type) + "=0x" + shortHex(a.Value)
}

// shortHex shows at most 16 octets.
func shortHex(b []byte) string {
	if len(b) > 16 {
		return hex.EncodeToString(b[:16]) + "..."
	}
	return hex.EncodeToString(b)
}
