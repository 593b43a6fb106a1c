package aaa

import (
	"log/slog"
	"net/netip"
	"time"
)

// Config is the local user database: `[ip.pool]`, `[ppp.profile]`, `[ppp.secret]`, `[l2tp.binding]`.
type Config struct {
	Pools    map[string]Pool
	Profiles map[string]Profile // "default" and "default-encryption" always exist
	Secrets  map[string]Secret  // by user name
	Bindings map[string]string  // user name -> static interface name
	// DefaultProfile is used by secrets that name none.
	DefaultProfile string
}

// Pool is `[ip.pool.NAME]`: addresses are leased lowest first, each user getting the one it had before where free.
type Pool struct {
	Ranges []Range
	Next   string // pool to continue with when this one is exhausted
}

// Range is inclusive at both ends.
type Range struct{ First, Last netip.Addr }

// RangeOf is a whole network.
func RangeOf(p netip.Prefix) Range {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return Range{p.Masked().Addr(), last}
}

// Users are the addresses that users may come from, sorted and disjoint: those of pools, their own, and the networks behind
// them. A default route leads away, and is nobody's network.
func (c Config) Users() []Range {
	var all []Range
	pools := make(map[string]bool)
	add := func(s Source) {
		if s.Addr.IsValid() {
			all = append(all, Range{s.Addr, s.Addr})
		}
		for name := s.Pool; name != "" && !pools[name]; name = c.Pools[name].Next {
			pools[name] = true
			all = append(all, c.Pools[name].Ranges...)
		}
	}
	for _, p := range c.Profiles {
		add(p.Remote)
	}
	for _, s := range c.Secrets {
		add(s.Remote)
		for _, r := range s.Routes {
			if r.Dst.Bits() > 0 {
				all = append(all, RangeOf(r.Dst))
			}
		}
	}
	return mergeRanges(all)
}

// Source is an address or the name of a pool, as `local-address` and `remote-address` allow. Both empty: not set.
type Source struct {
	Addr netip.Addr
	Pool string
}

// Profile is `[ppp.profile.NAME]`.
type Profile struct {
	Name                        string
	Local, Remote               Source
	DNS, WINS                   []netip.Addr
	Encrypt                     Encryption
	UseIPv6                     bool
	ChangeMSS                   bool
	ARPProxy                    bool
	OnlyOne                     bool
	RateLimit                   string
	SessionTimeout, IdleTimeout time.Duration
	OnUp, OnDown                string
}

// Secret is `[ppp.secret.NAME]`, one user.
type Secret struct {
	Name          string
	Password      Password
	Service       string // "any" or "l2tp"
	Profile       string
	Local, Remote Source // override the profile's
	Routes        []Route
	CallerID      string // when set, only a peer with this address or number may log in
	RateLimit     string
	Disabled      bool
	Comment       string
}

// Password never shows itself.
type Password string

func (Password) String() string       { return "***" }
func (Password) GoString() string     { return "***" }
func (Password) LogValue() slog.Value { return slog.StringValue("***") }
