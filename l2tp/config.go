package l2tp

import (
	"log/slog"
	"net/netip"
	"time"
)

// Config is everything an Engine obeys as a server (LNS).
type Config struct {
	HostName string // Host Name AVP
	Secret   Secret // tunnel authentication (RFC 2661 section 5.1.1); empty: none demanded, a peer's challenge is refused

	// Protection says what a tunnel must have come through (`use-ipsec`).
	Protection Protection
	// Allowed lists who may even knock; empty means everyone.
	Allowed []netip.Prefix

	ReceiveWindow int           // our Receive Window Size AVP, 1..1024
	Hello         time.Duration // silence after which a HELLO is sent; 0: never
	// Retransmission: First, doubling up to Cap, Tries transmissions in all (RFC 2661 section 5.8).
	RetransmitFirst, RetransmitCap time.Duration
	RetransmitTries                int

	MaxTunnels, MaxSessions int // 0: DefaultMaxTunnels, unlimited sessions
	OneSessionPerHost       bool
	SequenceData            bool // ask for sequence numbers on data messages
	HideAVPs                bool // with a Secret: once a tunnel is up, hide what may be hidden (RFC 2661 section 4.3)
}

// DefaultConfig is a server that real clients get on with (values reasoned in package comment).
func DefaultConfig() Config {
	return Config{
		HostName:        "culvert",
		ReceiveWindow:   16,
		Hello:           60 * time.Second,
		RetransmitFirst: time.Second,
		RetransmitCap:   8 * time.Second,
		RetransmitTries: 6,
	}
}

// DefaultMaxTunnels bounds control connections, half-open ones included.
const DefaultMaxTunnels = 4096

// Protection is `use-ipsec`.
type Protection uint8

const (
	ProtectionNone     Protection = iota // cleartext only; IPsec is not offered
	ProtectionOffered                    // `yes`: either, but a tunnel keeps to what it was born in
	ProtectionRequired                   // `required`: nothing that did not come out of an SA
)

// Secret is a shared secret that never shows itself.
type Secret string

func (Secret) String() string       { return "***" }
func (Secret) GoString() string     { return "***" }
func (Secret) LogValue() slog.Value { return slog.StringValue("***") }
