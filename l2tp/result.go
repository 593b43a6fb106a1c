package l2tp

import (
	"encoding/binary"
	"fmt"
	"log/slog"
)

// Result codes of StopCCN (RFC 2661 section 4.4.2).
const (
	StopGeneral       uint16 = 1
	StopError         uint16 = 2
	StopExists        uint16 = 3
	StopNotAuthorized uint16 = 4
	StopVersion       uint16 = 5
	StopShutdown      uint16 = 6
	StopFSM           uint16 = 7
)

// Result codes of CDN (RFC 2661 section 4.4.2).
const (
	CDNCarrierLost         uint16 = 1
	CDNError               uint16 = 2
	CDNAdministrative      uint16 = 3
	CDNTemporaryFacilities uint16 = 4
	CDNPermanentFacilities uint16 = 5
	CDNInvalidDestination  uint16 = 6
	CDNNoCarrier           uint16 = 7
	CDNBusy                uint16 = 8
	CDNNoDialTone          uint16 = 9
	CDNTimeout             uint16 = 10
	CDNNoFraming           uint16 = 11
)

// Error codes, in either message (RFC 2661 section 4.4.2).
const (
	ErrorNone            uint16 = 0
	ErrorNoControl       uint16 = 1
	ErrorLength          uint16 = 2
	ErrorValue           uint16 = 3
	ErrorResources       uint16 = 4
	ErrorSessionID       uint16 = 5
	ErrorVendor          uint16 = 6
	ErrorTryAnother      uint16 = 7
	ErrorUnknownAVP      uint16 = 8
	errorVersion1        uint16 = 0x0100 // with StopVersion: the highest version we speak
	resultByteSwappedMax        = 31     // Apple writes result codes little-endian: 0x0100 stands for 1
)

var stopNames = [...]string{
	StopGeneral:       "general request to clear the control connection",
	StopError:         "general error",
	StopExists:        "control connection already exists",
	StopNotAuthorized: "requester is not authorized",
	StopVersion:       "protocol version not supported",
	StopShutdown:      "requester is being shut down",
	StopFSM:           "finite state machine error",
	8:                 "mismatching CCDS",
}

var cdnNames = [...]string{
	CDNCarrierLost:         "loss of carrier",
	CDNError:               "general error",
	CDNAdministrative:      "administrative reasons",
	CDNTemporaryFacilities: "no facilities at the moment",
	CDNPermanentFacilities: "no such facilities",
	CDNInvalidDestination:  "invalid destination",
	CDNNoCarrier:           "no carrier detected",
	CDNBusy:                "busy",
	CDNNoDialTone:          "no dial tone",
	CDNTimeout:             "not established in the time allotted",
	CDNNoFraming:           "no appropriate framing",
	12:                     "SDS mismatch",
}

var errorNames = [...]string{
	ErrorNone:       "no general error",
	ErrorNoControl:  "no control connection exists",
	ErrorLength:     "length is wrong",
	ErrorValue:      "a field was out of range or a reserved field not zero",
	ErrorResources:  "insufficient resources",
	ErrorSessionID:  "session id is invalid",
	ErrorVendor:     "vendor-specific error",
	ErrorTryAnother: "try another",
	ErrorUnknownAVP: "unknown mandatory AVP",
	9:               "try another directed",
}

func nameOf(names []string, code uint16, what string) string {
	if int(code) < len(names) && names[code] != "" {
		return names[code]
	}
	return fmt.Sprintf("%s %d", what, code)
}

// StopName, CDNName and ErrorName read a code out.
func StopName(result uint16) string { return nameOf(stopNames[:], result, "result") }
func CDNName(result uint16) string  { return nameOf(cdnNames[:], result, "result") }
func ErrorName(code uint16) string  { return nameOf(errorNames[:], code, "error") }

// Reason is why something ended, for programs.
type Reason uint8

const (
	ReasonUnknown       Reason = iota
	ReasonPeer                 // the peer said goodbye: Result, Error and Text are its words
	ReasonAdmin                // an operator, or RADIUS
	ReasonLink                 // PPP on the session ended
	ReasonShutdown             // this server is going down
	ReasonVia                  // the security association is gone
	ReasonTimeout              // the peer stopped acknowledging
	ReasonSetupTimeout         // the peer acknowledged but never finished the set-up
	ReasonIdle                 // a tunnel without sessions
	ReasonResources            // a limit, or the data plane refused
	ReasonAuthorization        // tunnel authentication failed
	ReasonProtocol             // the peer broke the protocol: Error says how
	ReasonState                // a message that the state does not allow
	ReasonSuperseded           // the peer restarted: a newer tunnel or session took its ids
	ReasonProtection           // `use-ipsec` was turned on and the tunnel is cleartext
	ReasonVersion              // not L2TP version 1 (RFC 2661 counts from there)
	ReasonUnsupported          // an outgoing call: we place none
	ReasonTie                  // both ends called each other and the other one won
)

// reasons says what each reason tells the peer.
var reasons = [...]struct {
	name           string
	stop, cdn, err uint16
}{
	ReasonUnknown:       {"unknown", StopGeneral, CDNAdministrative, 0},
	ReasonPeer:          {"peer", StopGeneral, CDNAdministrative, 0},
	ReasonAdmin:         {"administrator", StopGeneral, CDNAdministrative, 0},
	ReasonLink:          {"link ended", StopGeneral, CDNCarrierLost, 0},
	ReasonShutdown:      {"shutdown", StopShutdown, CDNAdministrative, 0},
	ReasonVia:           {"security association gone", StopGeneral, CDNCarrierLost, 0},
	ReasonTimeout:       {"peer is silent", StopGeneral, CDNCarrierLost, 0},
	ReasonSetupTimeout:  {"set-up timed out", StopGeneral, CDNTimeout, 0},
	ReasonIdle:          {"no sessions", StopGeneral, CDNAdministrative, 0},
	ReasonResources:     {"no resources", StopError, CDNTemporaryFacilities, ErrorResources},
	ReasonAuthorization: {"not authorized", StopNotAuthorized, CDNAdministrative, 0},
	ReasonProtocol:      {"protocol error", StopError, CDNError, ErrorValue},
	ReasonState:         {"unexpected message", StopFSM, CDNError, 0},
	ReasonSuperseded:    {"superseded", StopExists, CDNAdministrative, 0},
	ReasonProtection:    {"cleartext no longer allowed", StopNotAuthorized, CDNAdministrative, 0},
	ReasonVersion:       {"protocol version", StopVersion, CDNError, errorVersion1},
	ReasonUnsupported:   {"not supported", StopGeneral, CDNPermanentFacilities, 0},
	ReasonTie:           {"tie lost", StopExists, CDNAdministrative, 0},
}

func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r].name
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Cause is why a tunnel or a session ended. To end one, Reason (and Text, which the peer gets to see) is enough.
type Cause struct {
	Reason        Reason
	Result, Error uint16 // as in the Result Code AVP, the peer's if Reason is ReasonPeer; zero: what Reason stands for
	Text          string
}

func (c Cause) String() string {
	s := c.Reason.String()
	if c.Result != 0 {
		s += fmt.Sprintf(", result %d", c.Result)
	}
	if c.Error != 0 {
		s += fmt.Sprintf(", error %d", c.Error)
	}
	if c.Text != "" {
		s += ": " + c.Text
	}
	return s
}

func (c Cause) LogValue() slog.Value { return slog.StringValue(c.String()) }

// codes are what goes to the peer in the given message.
func (c Cause) codes(t MessageType) (result, code uint16) {
	if c.Reason != ReasonPeer && c.Result != 0 {
		return c.Result, c.Error
	}
	r := reasons[ReasonUnknown]
	if int(c.Reason) < len(reasons) {
		r = reasons[c.Reason]
	}
	code = r.err
	if c.Reason != ReasonPeer && c.Error != 0 {
		code = c.Error
	}
	if t == CDN {
		return r.cdn, code
	}
	return r.stop, code
}

// appendResult writes the value of a Result Code AVP. The error code is always there (xl2tpd demands it), the text only
// with a general error's words to say.
func appendResult(b []byte, result, code uint16, text string) []byte {
	b = binary.BigEndian.AppendUint16(b, result)
	b = binary.BigEndian.AppendUint16(b, code)
	return append(b, text[:min(len(text), 128)]...)
}

// parseResult reads what peers send: two octets (RouterOS), four, four and text, and either byte order (Apple).
func parseResult(v []byte) (result, code uint16, text string) {
	if len(v) >= 2 {
		result = binary.BigEndian.Uint16(v)
	}
	if len(v) >= 4 {
		code = binary.BigEndian.Uint16(v[2:])
		text = printable(v[4:])
	}
	if result&0xff == 0 && result>>8 <= resultByteSwappedMax {
		result >>= 8
		if code&0xff == 0 {
			code >>= 8
		}
	}
	return result, code, text
}
