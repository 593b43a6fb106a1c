package ppp

// CauseCode is why a link ended.
type CauseCode uint8

const (
	CauseNone           CauseCode = iota
	CauseAdmin                    // closed on request: an operator, a RADIUS Disconnect, a shutdown
	CauseNoCarrier                // the session below went away
	CausePeerTerminated           // the peer said goodbye
	CauseNoAnswer                 // LCP was never answered
	CauseNegotiation              // the two sides do not agree on a link
	CauseLooped                   // our own frames come back
	CauseNoCommonAuth             // no authentication protocol that both allow, or the peer refuses any
	CauseAuthFailed               // wrong name or password, or the account may not log in
	CauseAuthTimeout              // the peer did not log in in time
	CauseNoAddress                // nothing to give, or nothing was given
	CauseNoNetwork                // authenticated, and then no network protocol came up
	CauseInterface                // the network interface could not be made or configured
	CauseKeepalive                // the peer stopped answering
	CauseSessionTimeout           // the user's time is up
	CauseIdleTimeout              // no traffic for the user's idle-timeout
	CauseEncryption               // the profile demands MPPE
	CauseInternal                 // our own fault
)

var causeNames = [...]string{
	CauseNone:           "none",
	CauseAdmin:          "administrative disconnect",
	CauseNoCarrier:      "no carrier",
	CausePeerTerminated: "peer terminated",
	CauseNoAnswer:       "no answer",
	CauseNegotiation:    "negotiation failed",
	CauseLooped:         "link is looped back",
	CauseNoCommonAuth:   "no common authentication",
	CauseAuthFailed:     "authentication failed",
	CauseAuthTimeout:    "authentication timeout",
	CauseNoAddress:      "no address",
	CauseNoNetwork:      "no network protocol",
	CauseInterface:      "interface failed",
	CauseKeepalive:      "keepalive timeout",
	CauseSessionTimeout: "session timeout",
	CauseIdleTimeout:    "idle timeout",
	CauseEncryption:     "encryption required",
	CauseInternal:       "internal error",
}

func (c CauseCode) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return "unknown"
}

// Cause is why a link ended. Code and its name may go to the peer, in the session's own goodbye (L2TP's CDN); Text says
// more where there is more to say, for the operator alone, and holds neither secrets nor control characters.
type Cause struct {
	Code CauseCode
	Text string
}

func (c Cause) String() string {
	if c.Text == "" {
		return c.Code.String()
	}
	return c.Code.String() + ": " + c.Text
}
