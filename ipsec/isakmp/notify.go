package isakmp

import "encoding/binary"

// NotifyType is the notify message type (RFC 2408 section 3.14.1, RFC 2407 section 4.6.3, RFC 3706 section 5.3).
type NotifyType uint16

const (
	// Errors, RFC 2408 section 3.14.1.
	InvalidPayloadType      NotifyType = 1
	DOINotSupported         NotifyType = 2
	SituationNotSupported   NotifyType = 3
	InvalidCookie           NotifyType = 4
	InvalidMajorVersion     NotifyType = 5
	InvalidMinorVersion     NotifyType = 6
	InvalidExchangeType     NotifyType = 7
	InvalidFlags            NotifyType = 8
	InvalidMessageID        NotifyType = 9
	InvalidProtocolID       NotifyType = 10
	InvalidSPI              NotifyType = 11
	InvalidTransformID      NotifyType = 12
	AttributesNotSupported  NotifyType = 13
	NoProposalChosen        NotifyType = 14
	BadProposalSyntax       NotifyType = 15
	PayloadMalformed        NotifyType = 16
	InvalidKeyInformation   NotifyType = 17
	InvalidIDInformation    NotifyType = 18
	InvalidCertEncoding     NotifyType = 19
	InvalidCertificate      NotifyType = 20
	CertTypeUnsupported     NotifyType = 21
	InvalidCertAuthority    NotifyType = 22
	InvalidHashInformation  NotifyType = 23
	AuthenticationFailed    NotifyType = 24
	InvalidSignature        NotifyType = 25
	AddressNotification     NotifyType = 26
	NotifySALifetime        NotifyType = 27
	CertificateUnavailable  NotifyType = 28
	UnsupportedExchangeType NotifyType = 29
	UnequalPayloadLengths   NotifyType = 30

	// Status, RFC 2408 section 3.14.1 and RFC 2407 section 4.6.3.
	NotifyConnected         NotifyType = 16384
	NotifyResponderLifetime NotifyType = 24576
	NotifyReplayStatus      NotifyType = 24577
	NotifyInitialContact    NotifyType = 24578

	// Dead peer detection, RFC 3706 section 5.3. Data is the four-octet sequence number, SPI both cookies.
	NotifyRUThere    NotifyType = 36136
	NotifyRUThereAck NotifyType = 36137
)

var notifyNames = names[NotifyType]{
	{InvalidPayloadType, "INVALID-PAYLOAD-TYPE"}, {DOINotSupported, "DOI-NOT-SUPPORTED"},
	{SituationNotSupported, "SITUATION-NOT-SUPPORTED"}, {InvalidCookie, "INVALID-COOKIE"},
	{InvalidMajorVersion, "INVALID-MAJOR-VERSION"}, {InvalidMinorVersion, "INVALID-MINOR-VERSION"},
	{InvalidExchangeType, "INVALID-EXCHANGE-TYPE"}, {InvalidFlags, "INVALID-FLAGS"}, {InvalidMessageID, "INVALID-MESSAGE-ID"},
	{InvalidProtocolID, "INVALID-PROTOCOL-ID"}, {InvalidSPI, "INVALID-SPI"}, {InvalidTransformID, "INVALID-TRANSFORM-ID"},
	{AttributesNotSupported, "ATTRIBUTES-NOT-SUPPORTED"}, {NoProposalChosen, "NO-PROPOSAL-CHOSEN"},
	{BadProposalSyntax, "BAD-PROPOSAL-SYNTAX"}, {PayloadMalformed, "PAYLOAD-MALFORMED"},
	{InvalidKeyInformation, "INVALID-KEY-INFORMATION"}, {InvalidIDInformation, "INVALID-ID-INFORMATION"},
	{InvalidCertEncoding, "INVALID-CERT-ENCODING"}, {InvalidCertificate, "INVALID-CERTIFICATE"},
	{CertTypeUnsupported, "CERT-TYPE-UNSUPPORTED"}, {InvalidCertAuthority, "INVALID-CERT-AUTHORITY"},
	{InvalidHashInformation, "INVALID-HASH-INFORMATION"}, {AuthenticationFailed, "AUTHENTICATION-FAILED"},
	{InvalidSignature, "INVALID-SIGNATURE"}, {AddressNotification, "ADDRESS-NOTIFICATION"},
	{NotifySALifetime, "NOTIFY-SA-LIFETIME"}, {CertificateUnavailable, "CERTIFICATE-UNAVAILABLE"},
	{UnsupportedExchangeType, "UNSUPPORTED-EXCHANGE-TYPE"}, {UnequalPayloadLengths, "UNEQUAL-PAYLOAD-LENGTHS"},
	{NotifyConnected, "CONNECTED"}, {NotifyResponderLifetime, "RESPONDER-LIFETIME"}, {NotifyReplayStatus, "REPLAY-STATUS"},
	{NotifyInitialContact, "INITIAL-CONTACT"}, {NotifyRUThere, "R-U-THERE"}, {NotifyRUThereAck, "R-U-THERE-ACK"},
}

func (t NotifyType) String() string { return name(notifyNames, t, "notify") }

// IsError says that the number is in the range of errors (RFC 2408 section 3.14.1); what is above reports a status.
func (t NotifyType) IsError() bool { return t < NotifyConnected }

// Notification is the body of a notify payload (RFC 2408 section 3.14).
type Notification struct {
	DOI      uint32
	Protocol Protocol
	SPI      []byte // of the SA meant; both cookies, or nothing, for ISAKMP
	Type     NotifyType
	Data     []byte
}

// ParseNotification reads the body of a notify payload. Any DOI and SPI size will do: peers differ in both.
func ParseNotification(body []byte) (Notification, error) {
	if len(body) < 8 {
		return Notification{}, malformed(PayloadNotify, "body length", len(body), 8)
	}
	n := 8 + int(body[5])
	if n > len(body) {
		return Notification{}, malformed(PayloadNotify, "SPI size beyond the payload", int(body[5]), len(body)-8)
	}
	return Notification{
		DOI:      binary.BigEndian.Uint32(body),
		Protocol: Protocol(body[4]),
		SPI:      body[8:n:n],
		Type:     NotifyType(binary.BigEndian.Uint16(body[6:])),
		Data:     body[n:],
	}, nil
}

// Append writes the body of a notify payload.
func (n Notification) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, n.DOI)
	b = append(b, byte(n.Protocol), byte(len(n.SPI)))
	b = binary.BigEndian.AppendUint16(b, uint16(n.Type))
	b = append(b, n.SPI...)
	return append(b, n.Data...)
}

// NewDPD makes an R-U-THERE or its acknowledgement (RFC 3706 section 5.3).
func NewDPD(t NotifyType, initiator, responder Cookie, seq uint32) Notification {
	return Notification{
		DOI:      DOIIPsec,
		Protocol: ProtoISAKMP,
		SPI:      append(initiator[:], responder[:]...),
		Type:     t,
		Data:     binary.BigEndian.AppendUint32(nil, seq),
	}
}

// DPDSequence returns the sequence number of an R-U-THERE or its acknowledgement; false if there is none.
func (n Notification) DPDSequence() (uint32, bool) {
	if (n.Type != NotifyRUThere && n.Type != NotifyRUThereAck) || len(n.Data) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(n.Data), true
}
