package ppp

import (
	"time"

	"culvert/ppp/aaa"
)

// Config is what one link negotiates towards.
type Config struct {
	Name      string        // our name in CHAP challenges
	Auth      []aaa.Method  // what we demand of the peer, in the order offered; empty: no authentication
	MRU       int           // largest packet we are willing to receive (`max-mru`)
	MTU       int           // largest packet we are willing to send (`max-mtu`), before the peer's MRU
	IPv6      bool          // IPV6CP; off: refused by Protocol-Reject
	Keepalive time.Duration // silence after which five LCP echoes, a second apart, are sent; 0: never

	Restart      time.Duration // restart timer of the automaton (RFC 1661 section 4.6)
	MaxConfigure int
	MaxTerminate int
	MaxFailure   int
	AuthTimeout  time.Duration // the peer must be authenticated this long after LCP opened
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
