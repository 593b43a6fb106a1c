// Package aaa decides who may log in, with what, and what they get: secrets, profiles and address pools.
// PPP asks an Authenticator and never learns where the answer came from (the local secrets here, or RADIUS).
// It holds PAP (RFC 1334), CHAP (RFC 1994), MS-CHAP (RFC 2433, RFC 2759) and MPPE's start keys (RFC 3079).
// Read local.go first.
package aaa

import (
	"net/netip"
	"time"
)

// Method is an authentication protocol of PPP.
type Method uint8

const (
	PAP     Method = iota + 1 // RFC 1334 section 2
	CHAP                      // RFC 1994, MD5
	MSCHAP1                   // RFC 2433
	MSCHAP2                   // RFC 2759
)

func (m Method) String() string {
	switch m {
	case PAP:
		return "pap"
	case CHAP:
		return "chap"
	case MSCHAP1:
		return "mschap1"
	case MSCHAP2:
		return "mschap2"
	}
	return "none"
}

// Request is one login attempt, as the peer's messages carried it.
type Request struct {
	User      string // as sent, a DOMAIN\ prefix included
	Method    Method
	ID        uint8  // CHAP identifier, part of the MD5 input
	Challenge []byte // ours: CHAP value, 8 octets for MS-CHAPv1, 16 for MS-CHAPv2
	Response  []byte // CHAP: 16 octets; MS-CHAPv1 and v2: 49 octets; PAP: the password
	Service   string // "l2tp"
	CallerID  string // the peer's address, or its calling number
	NASPort   uint32
}

// Grant is what an accepted user gets. The receiver releases it exactly once, when the link is gone.
type Grant struct {
	User      string
	Profile   string
	Local     netip.Addr // our end of the link
	Remote    netip.Addr // the address the peer gets
	DNS, WINS []netip.Addr
	Routes    []Route
	Encrypt   Encryption
	UseIPv6   bool
	ChangeMSS bool
	ARPProxy  bool   // ARP is answered for Remote on the networks it would belong to
	RateLimit string // RouterOS notation, rx/tx seen from the router
	// Session ends after SessionTimeout, or after IdleTimeout without traffic; zero means never.
	SessionTimeout, IdleTimeout time.Duration
	OnUp, OnDown                string
	Interface                   string // wanted interface name of a static binding; empty: any

	// AuthenticatorResponse is MS-CHAPv2's "S=<40 hex digits>" (RFC 2759 section 5).
	AuthenticatorResponse string
	// MPPESend and MPPERecv are the 16-octet start keys of MPPE seen from this side (RFC 3079), nil when the method has none.
	MPPESend, MPPERecv []byte

	// Release gives the addresses and the user's place back. Never nil; safe to call twice.
	Release func()
}

// Encryption is a profile's use-encryption (MPPE).
type Encryption uint8

const (
	EncryptDefault Encryption = iota
	EncryptNo
	EncryptYes
	EncryptRequired
)

// Route is added while its user is connected. A zero Gateway is the peer itself.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr
	Metric  int
}

// Reject says why a login was refused. Code is Windows' error of RFC 2759 section 6; Text is for the log, never for the peer.
type Reject struct {
	Code  Code
	Retry bool // the peer may try another password on the same link
	Text  string
}

func (r *Reject) Error() string { return r.Text }

// Code is the E= value of an MS-CHAP Failure packet (RFC 2433 section 8, RFC 2759 section 6).
type Code uint16

const (
	RestrictedHours Code = 646
	AccountDisabled Code = 647
	PasswordExpired Code = 648
	NoDialin        Code = 649
	AuthFailure     Code = 691
	ChangePassword  Code = 709
)

// Authenticator answers a login. It calls done exactly once, on the caller's goroutine, at once or later, with either
// a Grant or a Reject. It must not tell an unknown user from a wrong password, neither by text nor by time.
type Authenticator interface {
	Authenticate(Request, func(*Grant, *Reject))
}
