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
