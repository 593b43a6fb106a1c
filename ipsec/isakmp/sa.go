package isakmp

import (
	"encoding/binary"
	"fmt"
	"strings"
)

const (
	// DOIIPsec is the IPsec domain of interpretation (RFC 2407 section 4), the only one an SA payload may name.
	DOIIPsec uint32 = 1
	// DOIGeneric is what some peers write into notifications about phase 1 (RFC 2408 section 3.4).
	DOIGeneric uint32 = 0
	// SituationIdentityOnly is the only situation without labels (RFC 2407 section 4.2.1).
	SituationIdentityOnly uint32 = 1
)

// Bounds of one SA payload. A proposal counts its transforms in one octet, so 255 would be the most per proposal.
const (
	MaxProposals  = 64
	MaxTransforms = 256 // over all proposals
)

// Protocol is the security protocol (RFC 2407 section 4.4.1).
type Protocol uint8

const (
	ProtoISAKMP Protocol = 1
	ProtoAH     Protocol = 2
	ProtoESP    Protocol = 3
	ProtoIPComp Protocol = 4
)

var protocolNames = names[Protocol]{{ProtoISAKMP, "ISAKMP"}, {ProtoAH, "AH"}, {ProtoESP, "ESP"}, {ProtoIPComp, "IPCOMP"}}

func (p Protocol) String() string { return name(protocolNames, p, "protocol") }

// SA is the body of an SA payload (RFC 2408 section 3.4).
type SA struct {
	DOI, Situation uint32
	Proposals      []Proposal
}

// Proposal is RFC 2408 section 3.5. Proposals with one number are wanted together, those with different numbers are
// alternatives; the transforms of a proposal are alternatives.
type Proposal struct {
	Number     uint8
	Protocol   Protocol
	SPI        []byte // four octets for AH and ESP; up to 16 meaningless ones for ISAKMP
	Transforms []Transform
}

// Transform is RFC 2408 section 3.6.
type Transform struct {
	Number, ID uint8
	Attributes []Attribute // in the order of the wire, for they are echoed unchanged
}

// NewSA makes an SA payload for the IPsec DOI, without labels.
func NewSA(proposals ...Proposal) SA {
	return SA{DOI: DOIIPsec, Situation: SituationIdentityOnly, Proposals: proposals}
}

// counts is what the checking pass learns, so that the filling pass allocates each slice once.
type counts struct{ proposals, transforms, attributes int }

// ParseSA reads the body of an SA payload and everything nested in it. There is at least one proposal and each has at
// least one transform. Unknown protocols, transforms and attributes are kept for the caller to pass over.
func ParseSA(body []byte) (SA, error) {
	var sa SA
	if len(body) < 8 {
		return SA{}, malformed(PayloadSA, "body length", len(body), 8)
	}
	sa.DOI, sa.Situation = binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])
	if sa.DOI != DOIIPsec {
		return SA{}, &Error{Payload: PayloadSA, Problem: "DOI", Have: int(sa.DOI & (1<<31 - 1)), Want: int(DOIIPsec), Notify: DOINotSupported}
	}
	if sa.Situation != SituationIdentityOnly {
		return SA{}, &Error{Payload: PayloadSA, Problem: "situation", Have: int(sa.Situation & (1<<31 - 1)), Want: int(SituationIdentityOnly), Notify: SituationNotSupported}
	}
	var c counts
	if err := eachProposal(body[8:], func(p Proposal, transforms []byte, n int) error {
		if c.proposals++; c.proposals > MaxProposals {
			return badProposal(PayloadSA, "proposals", c.proposals, MaxProposals)
		}
		if c.transforms += n; c.transforms > MaxTransforms {
			return badProposal(PayloadSA, "transforms", c.transforms, MaxTransforms)
		}
		return eachTransform(transforms, n, func(_ Transform, attrs []byte) error {
			k, err := countAttributes(attrs)
			c.attributes += k
			return err
		})
	}); err != nil {
		return SA{}, err
	}

	sa.Proposals = make([]Proposal, 0, c.proposals)
	allTransforms := make([]Transform, 0, c.transforms)
	allAttributes := make([]Attribute, 0, c.attributes)
	err := eachProposal(body[8:], func(p Proposal, transforms []byte, n int) error {
		t0 := len(allTransforms)
		err := eachTransform(transforms, n, func(t Transform, attrs []byte) error {
			a0 := len(allAttributes)
			allAttributes = fillAttributes(allAttributes, attrs)
			t.Attributes = allAttributes[a0:len(allAttributes):len(allAttributes)]
			allTransforms = append(allTransforms, t)
			return nil
		})
		p.Transforms = allTransforms[t0:len(allTransforms):len(allTransforms)]
		sa.Proposals = append(sa.Proposals, p)
		return err
	})
	return sa, err
}

// eachProposal splits the proposals that fill b; f gets each without its transforms, their octets and their number.
func eachProposal(b []byte, f func(p Proposal, transforms []byte, n int) error) error {
	for next := PayloadProposal; next != PayloadNone; {
		if next != PayloadProposal {
			return badProposal(PayloadProposal, "next payload of a proposal", int(next), int(PayloadProposal))
		}
		following, body, rest, err := split(PayloadProposal, b)
		if err != nil {
			return err
		}
		if len(body) < 4 {
			return badProposal(PayloadProposal, "body length", len(body), 4)
		}
		p := Proposal{Number: body[0], Protocol: Protocol(body[1])}
		spi, n := int(body[2]), int(body[3])
		body = body[4:]
		if spi > len(body) {
			return badProposal(PayloadProposal, "SPI size beyond the proposal", spi, len(body))
		}
		switch p.Protocol {
		case ProtoESP, ProtoAH:
			if spi != 4 {
				return &Error{Payload: PayloadProposal, Problem: "SPI size", Have: spi, Want: 4, Notify: InvalidSPI}
			}
		case ProtoISAKMP:
			if spi > 16 {
				return &Error{Payload: PayloadProposal, Problem: "SPI size", Have: spi, Want: 16, Notify: InvalidSPI}
			}
		}
		if n == 0 {
			return badProposal(PayloadProposal, "number of transforms", 0, 1)
		}
		p.SPI = body[:spi:spi]
		if err := f(p, body[spi:], n); err != nil {
			return err
		}
		next, b = following, rest
	}
	if len(b) != 0 {
		return badProposal(PayloadSA, "octets after the last proposal", len(b), 0)
	}
	return nil
}

// eachTransform splits the n transforms that fill b; f gets each without its attributes, and their octets.
func eachTransform(b []byte, n int, f func(t Transform, attrs []byte) error) error {
	next := PayloadTransform
	for i := 0; next != PayloadNone; i++ {
		if next != PayloadTransform {
			return badProposal(PayloadTransform, "next payload of a transform", int(next), int(PayloadTransform))
		}
		if i == n {
			return badProposal(PayloadProposal, "transforms beyond the number announced", i+1, n)
		}
		following, body, rest, err := split(PayloadTransform, b)
		if err != nil {
			return err
		}
		if len(body) < 4 {
			return badProposal(PayloadTransform, "body length", len(body), 4)
		}
		if body[2]|body[3] != 0 {
			return badProposal(PayloadTransform, "reserved octets", int(binary.BigEndian.Uint16(body[2:])), 0)
		}
		if err := f(Transform{Number: body[0], ID: body[1]}, body[4:]); err != nil {
			return err
		}
		if following == PayloadNone && i+1 != n {
			return badProposal(PayloadProposal, "transforms below the number announced", i+1, n)
		}
		next, b = following, rest
	}
	if len(b) != 0 {
		return badProposal(PayloadProposal, "octets after the last transform", len(b), 0)
	}
	return nil
}

// Append writes the body of an SA payload.
func (sa SA) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, sa.DOI)
	b = binary.BigEndian.AppendUint32(b, sa.Situation)
	for i, p := range sa.Proposals {
		b = p.append(b, i+1 < len(sa.Proposals))
	}
	return b
}

func (p Proposal) append(b []byte, more bool) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, p.Number, byte(p.Protocol), byte(len(p.SPI)), byte(len(p.Transforms)))
	if more {
		b[start] = byte(PayloadProposal)
	}
	b = append(b, p.SPI...)
	for i, t := range p.Transforms {
		b = t.append(b, i+1 < len(p.Transforms))
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

func (t Transform) append(b []byte, more bool) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, t.Number, t.ID, 0, 0)
	if more {
		b[start] = byte(PayloadTransform)
	}
	for _, a := range t.Attributes {
		b = a.Append(b)
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b
}

// Space returns the attribute space of the proposal's transforms.
func (p Proposal) Space() *Space {
	if p.Protocol == ProtoISAKMP {
		return Phase1
	}
	return Phase2
}

// String shows the proposal for a log, one transform after the other.
func (p Proposal) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s %d:", p.Protocol, p.Number)
	for i, t := range p.Transforms {
		if i > 0 {
			s.WriteByte(',')
		}
		s.WriteByte(' ')
		s.WriteString(t.Format(p.Protocol))
	}
	return s.String()
}

// Format shows a transform of a protocol: "encryption=aes-cbc key-length=256 hash=sha1 ...".
func (t Transform) Format(p Protocol) string {
	var s strings.Builder
	space := Phase2
	switch p {
	case ProtoISAKMP:
		space = Phase1
		if t.ID != TransformKeyIKE {
			fmt.Fprintf(&s, "transform %d", t.ID)
		}
	case ProtoESP:
		s.WriteString(name(espNames, uint64(t.ID), "transform"))
	default:
		fmt.Fprintf(&s, "transform %d", t.ID)
	}
	for _, a := range t.Attributes {
		if s.Len() > 0 {
			s.WriteByte(' ')
		}
		s.WriteString(space.Format(a))
	}
	return s.String()
}
