package l2tp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MessageType is the value of the Message Type AVP (RFC 2661 section 3.2). Zero stands for a zero-length body (ZLB).
type MessageType uint16

const (
	ZLB     MessageType = 0
	SCCRQ   MessageType = 1
	SCCRP   MessageType = 2
	SCCCN   MessageType = 3
	StopCCN MessageType = 4
	HELLO   MessageType = 6
	OCRQ    MessageType = 7
	OCRP    MessageType = 8
	OCCN    MessageType = 9
	ICRQ    MessageType = 10
	ICRP    MessageType = 11
	ICCN    MessageType = 12
	CDN     MessageType = 14
	WEN     MessageType = 15
	SLI     MessageType = 16

	messageCount = 17
)

// presence says how much a message depends on an AVP. RFC 2661 section 6 knows must and may; need is the part of must
// that we cannot do without, because real peers leave the rest out.
type presence uint8

const (
	may presence = iota
	must
	need
)

type field struct {
	avp AVPType
	presence
}

type messageInfo struct {
	name   string
	fields []field // in the order we send them
}

// messages is RFC 2661 section 6, message by message.
var messages = [messageCount]messageInfo{
	ZLB: {"ZLB", nil},
	SCCRQ: {"SCCRQ", []field{{AVPProtocolVersion, need}, {AVPFramingCaps, must}, {AVPBearerCaps, may}, {AVPFirmware, may},
		{AVPHostName, must}, {AVPVendorName, may}, {AVPAssignedTunnelID, need}, {AVPReceiveWindow, may}, {AVPChallenge, may},
		{AVPTieBreaker, may}}},
	SCCRP: {"SCCRP", []field{{AVPProtocolVersion, need}, {AVPFramingCaps, must}, {AVPBearerCaps, may}, {AVPFirmware, may},
		{AVPHostName, must}, {AVPVendorName, may}, {AVPAssignedTunnelID, need}, {AVPReceiveWindow, may}, {AVPChallenge, may},
		{AVPChallengeResponse, may}}},
	SCCCN:   {"SCCCN", []field{{AVPChallengeResponse, may}}},
	StopCCN: {"StopCCN", []field{{AVPAssignedTunnelID, must}, {AVPResultCode, must}}},
	HELLO:   {"HELLO", nil},
	OCRQ: {"OCRQ", []field{{AVPAssignedSessionID, need}, {AVPCallSerial, must}, {AVPMinimumBPS, must}, {AVPMaximumBPS, must},
		{AVPBearerType, must}, {AVPFramingType, must}, {AVPCalledNumber, must}, {AVPSubAddress, may}}},
	OCRP: {"OCRP", []field{{AVPAssignedSessionID, need}, {AVPPhysicalChannel, may}}},
	OCCN: {"OCCN", []field{{AVPTxSpeed, must}, {AVPFramingType, must}, {AVPRxSpeed, may}, {AVPSequencingRequired, may}}},
	ICRQ: {"ICRQ", []field{{AVPAssignedSessionID, need}, {AVPCallSerial, must}, {AVPBearerType, may}, {AVPPhysicalChannel, may},
		{AVPCallingNumber, may}, {AVPCalledNumber, may}, {AVPSubAddress, may}}},
	ICRP: {"ICRP", []field{{AVPAssignedSessionID, need}}},
	ICCN: {"ICCN", []field{{AVPTxSpeed, must}, {AVPFramingType, must}, {AVPInitialReceivedLCP, may}, {AVPLastSentLCP, may},
		{AVPLastReceivedLCP, may}, {AVPProxyAuthType, may}, {AVPProxyAuthName, may}, {AVPProxyAuthChallenge, may},
		{AVPProxyAuthID, may}, {AVPProxyAuthResponse, may}, {AVPPrivateGroup, may}, {AVPRxSpeed, may},
		{AVPSequencingRequired, may}}},
	CDN: {"CDN", []field{{AVPResultCode, must}, {AVPAssignedSessionID, must}, {AVPCauseCode, may}, {AVPPPPDisconnectCause, may}}},
	WEN: {"WEN", []field{{AVPCallErrors, must}}},
	SLI: {"SLI", []field{{AVPACCM, must}}},
}

// allowed and needed are messages as bit sets over the AVP types.
var allowed, needed = func() (a, n [messageCount]uint64) {
	for t, info := range messages {
		for _, f := range info.fields {
			a[t] |= 1 << f.avp
			if f.presence == need {
				n[t] |= 1 << f.avp
			}
		}
	}
	return a, n
}()

func (t MessageType) known() bool { return t < messageCount && messages[t].name != "" }

func (t MessageType) String() string {
	if t.known() {
		return messages[t].name
	}
	return fmt.Sprintf("message %d", uint16(t))
}

// Errors of Parse besides those of ParseHeader. The datagram is dropped, as if it had been corrupted on the way.
var (
	ErrNoType  = errors.New("l2tp: the first AVP is not a Message Type")
	ErrNotCtrl = errors.New("l2tp: not a control message")
	ErrTooMany = errors.New("l2tp: too many AVPs")
)

// maxAVPs bounds a message; the longest message of RFC 2661 has 13.
const maxAVPs = 128

// Fault is what is wrong with a message that is sound as a datagram: it ends the tunnel or the session it speaks of.
type Fault struct {
	Vendor uint16
	AVP    AVPType
	Code   uint16 // error code for the Result Code AVP
	What   string
}

func (f *Fault) Error() string {
	if f.Vendor != 0 {
		return fmt.Sprintf("%s (vendor %d, AVP %d)", f.What, f.Vendor, uint16(f.AVP))
	}
	return fmt.Sprintf("%s (%s)", f.What, f.AVP)
}

// Message is a control message. Values alias the datagram it was parsed from, or the message's own scratch memory.
// Its zero value is ready for Parse or for Reset and the setters; reuse it to spare allocations.
type Message struct {
	Header
	Type  MessageType
	Fault *Fault // nil: nothing to complain about

	present uint64
	values  [avpCount][]byte
	scratch []byte // revealed and built values
}

// Reset makes an empty message of a type.
func (m *Message) Reset(t MessageType) {
	m.Header = Header{Control: true, HasSeq: true}
	m.Type = t
	m.Fault = nil
	m.present = 0
	m.scratch = m.scratch[:0]
}

// Parse reads a whole control datagram. An error means that it has to be dropped; see also Fault.
func (m *Message) Parse(b []byte, secret Secret) error {
	hdr, body, err := ParseHeader(b)
	if err != nil {
		return err
	}
	if !hdr.Control {
		return ErrNotCtrl
	}
	return m.parseBody(hdr, body, secret)
}

// checkBody walks the AVPs without looking into them and returns the message's type.
func checkBody(body []byte) (MessageType, error) {
	if len(body) == 0 {
		return ZLB, nil
	}
	a, rest, err := nextAVP(body)
	if err != nil {
		return 0, err
	}
	if a.Vendor != 0 || a.Type != AVPMessageType || a.Hidden || len(a.Value) != 2 {
		return 0, ErrNoType
	}
	t := MessageType(binary.BigEndian.Uint16(a.Value))
	if t == ZLB {
		return 0, ErrNoType
	}
	for n := 1; len(rest) > 0; n++ {
		if n == maxAVPs {
			return 0, ErrTooMany
		}
		if _, rest, err = nextAVP(rest); err != nil {
			return 0, err
		}
	}
	return t, nil
}

func (m *Message) parseBody(hdr Header, body []byte, secret Secret) error {
	t, err := checkBody(body)
	if err != nil {
		return err
	}
	m.Reset(t)
	m.Header = hdr
	if t == ZLB {
		return nil
	}
	first, rest, _ := nextAVP(body)
	if !t.known() && first.Mandatory {
		m.fault(Fault{AVP: AVPMessageType, Code: ErrorUnknownAVP, What: "unknown mandatory " + t.String()})
	}
	var vector []byte
	for len(rest) > 0 {
		var a AVP
		a, rest, _ = nextAVP(rest)
		if a.Vendor == 0 && a.Type == AVPRandomVector && !a.Hidden && len(a.Value) > 0 {
			vector = a.Value
			continue
		}
		m.take(a, secret, vector)
	}
	if t.known() {
		m.checkNeeded()
	}
	return nil
}

// take stores one AVP, or says what is wrong with it if its M bit forbids ignoring that (RFC 2661 section 4.1).
func (m *Message) take(a AVP, secret Secret, vector []byte) {
	if a.Vendor != 0 || a.Reserved || a.Type >= avpCount || !avps[a.Type].known {
		if a.Mandatory {
			m.fault(Fault{Vendor: a.Vendor, AVP: a.Type, Code: ErrorUnknownAVP, What: "unknown mandatory AVP"})
		}
		return
	}
	info := &avps[a.Type]
	if !m.Type.known() || allowed[m.Type]&(1<<a.Type) == 0 || m.present&(1<<a.Type) != 0 {
		return // out of place, or a second one: some peers repeat half their SCCRQ in the SCCCN
	}
	if a.Hidden {
		if !info.hideable || secret == "" || vector == nil {
			m.malformed(a, ErrorValue, "AVP hidden without need, secret or random vector")
			return
		}
		clear, scratch, ok := revealHidden(m.scratch, a.Type, secret, vector, a.Value)
		m.scratch = scratch
		if !ok {
			m.malformed(a, ErrorValue, "hidden AVP does not open: the tunnel secrets differ")
			return
		}
		a.Value = clear
	}
	if len(a.Value) < info.min || len(a.Value) > info.max {
		m.malformed(a, ErrorLength, "AVP of wrong length")
		return
	}
	m.values[a.Type] = a.Value
	m.present |= 1 << a.Type
}

func (m *Message) malformed(a AVP, code uint16, what string) {
	if a.Mandatory {
		m.fault(Fault{AVP: a.Type, Code: code, What: what})
	}
}

// fault keeps the first complaint: it is the one that explains the others.
func (m *Message) fault(f Fault) {
	if m.Fault == nil {
		m.Fault = &f
	}
}

func (m *Message) checkNeeded() {
	if missing := needed[m.Type] &^ m.present; missing != 0 {
		for _, f := range messages[m.Type].fields {
			if missing&(1<<f.avp) != 0 {
				m.fault(Fault{AVP: f.avp, Code: ErrorValue, What: "AVP missing from " + m.Type.String()})
				return
			}
		}
	}
	for _, id := range [...]AVPType{AVPAssignedTunnelID, AVPAssignedSessionID} {
		if needed[m.Type]&(1<<id) != 0 && m.Uint(id) == 0 {
			m.fault(Fault{AVP: id, Code: ErrorValue, What: "id of zero"})
		}
	}
}

// Has says whether the message carries the AVP.
func (m *Message) Has(t AVPType) bool { return m.present&(1<<t) != 0 }

// Bytes is the raw value of an AVP, nil without one. It lives as long as the datagram.
func (m *Message) Bytes(t AVPType) []byte {
	if !m.Has(t) {
		return nil
	}
	return m.values[t]
}

// Uint is the value of a numeric AVP, zero without one.
func (m *Message) Uint(t AVPType) uint32 {
	switch v := m.Bytes(t); len(v) {
	case 2:
		return uint32(binary.BigEndian.Uint16(v))
	case 4:
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// Text is the value of a string AVP, fit for a log or a terminal.
func (m *Message) Text(t AVPType) string { return printable(m.Bytes(t)) }

// SetBytes, SetUint and SetText put an AVP into a message to be sent, unless the message has no place for it. Values
// longer than an AVP can be are cut.
func (m *Message) SetBytes(t AVPType, v []byte) {
	if !m.Type.known() || allowed[m.Type]&(1<<t) == 0 {
		return
	}
	at := len(m.scratch)
	m.scratch = append(m.scratch, v[:min(len(v), avps[t].max)]...)
	m.values[t] = m.scratch[at:len(m.scratch):len(m.scratch)]
	m.present |= 1 << t
}

func (m *Message) SetUint(t AVPType, v uint32) {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	m.SetBytes(t, b[4-avps[t].max:])
}

func (m *Message) SetText(t AVPType, s string) { m.SetBytes(t, []byte(s)) }

// Append writes the message with its AVPs in the order of the table. With a secret and a random vector everything that
// may be hidden is.
func (m *Message) Append(dst []byte, secret Secret, vector []byte) []byte {
	at := len(dst)
	dst = appendControl(dst, m.Tunnel, m.Session, m.Ns, m.Nr)
	if m.Type != ZLB {
		dst = appendAVP(dst, true, false, AVPMessageType, 2)
		dst = binary.BigEndian.AppendUint16(dst, uint16(m.Type))
	}
	hiding := secret != "" && len(vector) > 0
	if hiding && m.hasHideable() {
		dst = appendAVP(dst, true, false, AVPRandomVector, len(vector))
		dst = append(dst, vector...)
	}
	for _, f := range m.fields() {
		if !m.Has(f.avp) {
			continue
		}
		info, v := &avps[f.avp], m.values[f.avp]
		if hiding && info.hideable && len(v) <= maxHidden {
			dst = appendAVP(dst, info.mandatory, true, f.avp, hiddenLen(len(v)))
			dst = appendHidden(dst, f.avp, secret, vector, v)
			continue
		}
		dst = appendAVP(dst, info.mandatory, false, f.avp, len(v))
		dst = append(dst, v...)
	}
	setLength(dst[at:])
	return dst
}

func (m *Message) fields() []field {
	if !m.Type.known() {
		return nil
	}
	return messages[m.Type].fields
}

func (m *Message) hasHideable() bool {
	for _, f := range m.fields() {
		if m.Has(f.avp) && avps[f.avp].hideable {
			return true
		}
	}
	return false
}

// printable keeps what a peer calls itself from doing things to a terminal.
func printable(b []byte) string {
	s := string(b)
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.TrimRight(s, "\x00"))
}
