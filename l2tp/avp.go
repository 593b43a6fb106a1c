package l2tp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// AVPType numbers an attribute of vendor 0 (RFC 2661 section 4.4, IANA "Control Message Attribute Value Pairs").
type AVPType uint16

const (
	AVPMessageType        AVPType = 0
	AVPResultCode         AVPType = 1
	AVPProtocolVersion    AVPType = 2
	AVPFramingCaps        AVPType = 3
	AVPBearerCaps         AVPType = 4
	AVPTieBreaker         AVPType = 5
	AVPFirmware           AVPType = 6
	AVPHostName           AVPType = 7
	AVPVendorName         AVPType = 8
	AVPAssignedTunnelID   AVPType = 9
	AVPReceiveWindow      AVPType = 10
	AVPChallenge          AVPType = 11
	AVPCauseCode          AVPType = 12
	AVPChallengeResponse  AVPType = 13
	AVPAssignedSessionID  AVPType = 14
	AVPCallSerial         AVPType = 15
	AVPMinimumBPS         AVPType = 16
	AVPMaximumBPS         AVPType = 17
	AVPBearerType         AVPType = 18
	AVPFramingType        AVPType = 19
	AVPCalledNumber       AVPType = 21
	AVPCallingNumber      AVPType = 22
	AVPSubAddress         AVPType = 23
	AVPTxSpeed            AVPType = 24
	AVPPhysicalChannel    AVPType = 25
	AVPInitialReceivedLCP AVPType = 26
	AVPLastSentLCP        AVPType = 27
	AVPLastReceivedLCP    AVPType = 28
	AVPProxyAuthType      AVPType = 29
	AVPProxyAuthName      AVPType = 30
	AVPProxyAuthChallenge AVPType = 31
	AVPProxyAuthID        AVPType = 32
	AVPProxyAuthResponse  AVPType = 33
	AVPCallErrors         AVPType = 34
	AVPACCM               AVPType = 35
	AVPRandomVector       AVPType = 36
	AVPPrivateGroup       AVPType = 37
	AVPRxSpeed            AVPType = 38
	AVPSequencingRequired AVPType = 39
	AVPPPPDisconnectCause AVPType = 46 // RFC 3145

	avpCount = 59 // 59 and up belong to L2TPv3 (RFC 3931)
)

// Flags and sizes of an AVP header (RFC 2661 section 4.1).
const (
	avpMandatory = 0x8000
	avpHidden    = 0x4000
	avpReserved  = 0x3c00
	avpLenMask   = 0x03ff

	avpHeaderLen = 6
	avpMaxValue  = avpLenMask - avpHeaderLen
)

// avpKind is how a value reads.
type avpKind uint8

const (
	kindBytes  avpKind = iota
	kindUint           // big-endian number of the table's length
	kindString         // text of the peer's making, not always UTF-8
	kindResult         // result code, optional error code, optional message
)

// avpInfo is one row of the table. min and max bound the value without the AVP header.
type avpInfo struct {
	name      string
	kind      avpKind
	mandatory bool // the M bit as we send it: accel-ppp insists on exactly these
	hideable  bool
	min, max  int
	// known says that we obey or knowingly ignore it. The others are here for their names: with M set they tear down
	// what they belong to, as RFC 2661 section 4.1 wants for the unrecognized.
	known bool
}

// mbit and hide make the table's columns readable.
const mbit, hide = true, true

// avps is every attribute of vendor 0 that L2TPv2 can meet: RFC 2661 section 4.4, 3145, 3301, 3308, 3437, 3573, 3817, 3931.
var avps = [avpCount]avpInfo{
	AVPMessageType:        {"Message Type", kindUint, mbit, !hide, 2, 2, true},
	AVPResultCode:         {"Result Code", kindResult, mbit, !hide, 2, avpMaxValue, true}, // RouterOS leaves the error code out
	AVPProtocolVersion:    {"Protocol Version", kindUint, mbit, !hide, 2, 2, true},
	AVPFramingCaps:        {"Framing Capabilities", kindUint, mbit, hide, 4, 4, true},
	AVPBearerCaps:         {"Bearer Capabilities", kindUint, mbit, hide, 4, 4, true},
	AVPTieBreaker:         {"Tie Breaker", kindBytes, !mbit, !hide, 8, 8, true},
	AVPFirmware:           {"Firmware Revision", kindUint, !mbit, hide, 2, 2, true},
	AVPHostName:           {"Host Name", kindString, mbit, !hide, 1, avpMaxValue, true},
	AVPVendorName:         {"Vendor Name", kindString, !mbit, hide, 0, avpMaxValue, true},
	AVPAssignedTunnelID:   {"Assigned Tunnel ID", kindUint, mbit, hide, 2, 2, true},
	AVPReceiveWindow:      {"Receive Window Size", kindUint, mbit, !hide, 2, 2, true},
	AVPChallenge:          {"Challenge", kindBytes, mbit, hide, 1, avpMaxValue, true},
	AVPCauseCode:          {"Q.931 Cause Code", kindBytes, mbit, !hide, 3, avpMaxValue, true},
	AVPChallengeResponse:  {"Challenge Response", kindBytes, mbit, hide, 16, 16, true},
	AVPAssignedSessionID:  {"Assigned Session ID", kindUint, mbit, hide, 2, 2, true},
	AVPCallSerial:         {"Call Serial Number", kindUint, mbit, hide, 4, 4, true},
	AVPMinimumBPS:         {"Minimum BPS", kindUint, mbit, hide, 4, 4, true},
	AVPMaximumBPS:         {"Maximum BPS", kindUint, mbit, hide, 4, 4, true},
	AVPBearerType:         {"Bearer Type", kindUint, mbit, hide, 4, 4, true},
	AVPFramingType:        {"Framing Type", kindUint, mbit, hide, 4, 4, true},
	AVPCalledNumber:       {"Called Number", kindString, mbit, hide, 0, avpMaxValue, true},
	AVPCallingNumber:      {"Calling Number", kindString, mbit, hide, 0, avpMaxValue, true},
	AVPSubAddress:         {"Sub-Address", kindString, mbit, hide, 0, avpMaxValue, true},
	AVPTxSpeed:            {"(Tx) Connect Speed", kindUint, mbit, hide, 4, 4, true},
	AVPPhysicalChannel:    {"Physical Channel ID", kindUint, !mbit, hide, 4, 4, true},
	AVPInitialReceivedLCP: {"Initial Received LCP CONFREQ", kindBytes, !mbit, hide, 0, avpMaxValue, true},
	AVPLastSentLCP:        {"Last Sent LCP CONFREQ", kindBytes, !mbit, hide, 0, avpMaxValue, true},
	AVPLastReceivedLCP:    {"Last Received LCP CONFREQ", kindBytes, !mbit, hide, 0, avpMaxValue, true},
	AVPProxyAuthType:      {"Proxy Authen Type", kindUint, !mbit, hide, 2, 2, true},
	AVPProxyAuthName:      {"Proxy Authen Name", kindString, !mbit, hide, 0, avpMaxValue, true},
	AVPProxyAuthChallenge: {"Proxy Authen Challenge", kindBytes, !mbit, hide, 0, avpMaxValue, true},
	AVPProxyAuthID:        {"Proxy Authen ID", kindUint, !mbit, hide, 2, 2, true},
	AVPProxyAuthResponse:  {"Proxy Authen Response", kindBytes, !mbit, hide, 0, avpMaxValue, true},
	AVPCallErrors:         {"Call Errors", kindBytes, mbit, hide, 26, 26, true},
	AVPACCM:               {"ACCM", kindBytes, mbit, hide, 10, 10, true},
	AVPRandomVector:       {"Random Vector", kindBytes, mbit, !hide, 1, avpMaxValue, true},
	AVPPrivateGroup:       {"Private Group ID", kindString, !mbit, hide, 0, avpMaxValue, true},
	AVPRxSpeed:            {"Rx Connect Speed", kindUint, !mbit, hide, 4, 4, true},
	AVPSequencingRequired: {"Sequencing Required", kindBytes, mbit, !hide, 0, 0, true},
	40:                    {name: "Rx Minimum BPS"}, // RFC 3301
	41:                    {name: "Rx Maximum BPS"},
	42:                    {name: "Service Category"},
	43:                    {name: "Service Name"},
	44:                    {name: "Calling Sub-Address"},
	45:                    {name: "VPI/VCI Identifier"},
	AVPPPPDisconnectCause: {"PPP Disconnect Cause Code", kindBytes, !mbit, hide, 5, avpMaxValue, true},
	47:                    {name: "CCDS"}, // RFC 3308
	48:                    {name: "SDS"},
	49:                    {name: "LCP Want Options"}, // RFC 3437
	50:                    {name: "LCP Allow Options"},
	51:                    {name: "LNS Last Sent LCP Confreq"},
	52:                    {name: "LNS Last Received LCP Confreq"},
	53:                    {name: "Modem On-Hold Capable"}, // RFC 3573
	54:                    {name: "Modem On-Hold Status"},
	55:                    {name: "PPPoE Relay"}, // RFC 3817
	56:                    {name: "PPPoE Relay Response Capability"},
	57:                    {name: "PPPoE Relay Forward Capability"},
	58:                    {name: "Extended Vendor ID"}, // RFC 3931
}

func (t AVPType) String() string {
	if t < avpCount && avps[t].name != "" {
		return avps[t].name
	}
	return fmt.Sprintf("AVP %d", uint16(t))
}

// AVP is one attribute as it stands on the wire; Value aliases the datagram.
type AVP struct {
	Mandatory, Hidden, Reserved bool
	Vendor                      uint16
	Type                        AVPType
	Value                       []byte
}

// ErrAVPLength is an AVP shorter than its header or longer than its message: the datagram is dropped whole.
var ErrAVPLength = errors.New("l2tp: AVP length outside the message")

// nextAVP splits one AVP off. Nobody else indexes the body of a control message.
func nextAVP(b []byte) (a AVP, rest []byte, err error) {
	if len(b) < avpHeaderLen {
		return a, nil, ErrAVPLength
	}
	flags := binary.BigEndian.Uint16(b)
	n := int(flags & avpLenMask)
	if n < avpHeaderLen || n > len(b) {
		return a, nil, ErrAVPLength
	}
	a.Mandatory = flags&avpMandatory != 0
	a.Hidden = flags&avpHidden != 0
	a.Reserved = flags&avpReserved != 0
	a.Vendor = binary.BigEndian.Uint16(b[2:])
	a.Type = AVPType(binary.BigEndian.Uint16(b[4:]))
	a.Value = b[avpHeaderLen:n:n]
	return a, b[n:], nil
}

// appendAVP writes the header of an AVP with n octets of value to follow.
func appendAVP(b []byte, mandatory, hidden bool, t AVPType, n int) []byte {
	flags := uint16(avpHeaderLen + n)
	if mandatory {
		flags |= avpMandatory
	}
	if hidden {
		flags |= avpHidden
	}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint16(b, 0) // vendor: IETF
	return binary.BigEndian.AppendUint16(b, uint16(t))
}
