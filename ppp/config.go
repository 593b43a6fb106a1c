package ppp

import (
	"net/netip"
	"time"

	"culvert/ppp/aaa"
)

// Config is what one link negotiates towards.
type Config struct {
	Name      string        // our name in CHAP challenges
	Auth      []aaa.Method  // what we demand of the peer, in the order offered; empty: no authentication
	MRU       int           // largest packet we are willing to receive (`max-mru`)
	MTU       int           // largest packet we are willing to send (`max-mtu`), before the peer's MRU
	IPv6      bool          // IPV6CP, where the Grant has it too; off: refused by Protocol-Reject
	Keepalive time.Duration // silence after which five LCP echoes, a second apart, are sent; 0: never

	Restart      time.Duration // restart timer of the automaton (RFC 1661 section 4.6)
	MaxConfigure int
	MaxTerminate int
	MaxFailure   int
	AuthTimeout  time.Duration // the peer must be authenticated this long after LCP opened

	// The calling side. With Auth empty nobody logs in here: the peer may ask us to (User, Password, Allow), and gives
	// the addresses.
	User     string
	Password aaa.Password
	Allow    []aaa.Method // how we are willing to log in, best first; empty: not at all
	// Local and Remote are what we want without an Authenticator; zero: what the peer says.
	Local, Remote netip.Addr
	PeerDNS       bool           // ask the peer for name servers (`use-peer-dns`)
	Encrypt       aaa.Encryption // as Grant.Encrypt, without an Authenticator
}

// DefaultConfig holds RFC 1661's counters, and RouterOS's sizes and keepalive.
func DefaultConfig() Config {
	return Config{
		Name:         "culvert",
		Auth:         []aaa.Method{aaa.MSCHAP2},
		MRU:          1450,
		MTU:          1450,
		Keepalive:    30 * time.Second,
		Restart:      3 * time.Second,
		MaxConfigure: 10,
		MaxTerminate: 2,
		MaxFailure:   5,
		AuthTimeout:  30 * time.Second,
	}
}

// withDefaults fills what a caller left at zero: a restart timer of nothing would never let go of the processor.
func (c Config) withDefaults() Config {
	d := DefaultConfig()
	if c.Restart <= 0 {
		c.Restart = d.Restart
	}
	if c.MaxConfigure <= 0 {
		c.MaxConfigure = d.MaxConfigure
	}
	if c.MaxTerminate <= 0 {
		c.MaxTerminate = d.MaxTerminate
	}
	if c.MaxFailure <= 0 {
		c.MaxFailure = d.MaxFailure
	}
	if c.AuthTimeout <= 0 {
		c.AuthTimeout = d.AuthTimeout
	}
	if c.MRU <= 0 || c.MRU > maxMRU {
		c.MRU = defaultMRU
	}
	if c.MTU <= 0 || c.MTU > maxMRU {
		c.MTU = defaultMRU
	}
	if len(c.Name) > 255 {
		c.Name = c.Name[:255]
	}
	return c
}
