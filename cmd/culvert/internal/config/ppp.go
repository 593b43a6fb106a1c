package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"culvert/ppp/aaa"
)

// AAAUse is `[ppp.aaa]`.
type AAAUse struct {
	UseRADIUS, Accounting bool
	InterimUpdate         time.Duration // 0: none
}

// RADIUS is `[radius.NAME]`, one server.
type RADIUS struct {
	Name               string
	Address            netip.Addr
	Secret             aaa.Password
	AuthPort, AcctPort int
	Timeout            time.Duration
	AcceptCoA          bool
}

// pools reads `[ip.pool]`.
func (r *reader) pools(pools *table, c *Config) {
	c.AAA.Pools = map[string]aaa.Pool{}
	type placed struct {
		pool string
		r    aaa.Range
	}
	var seen []placed
	next := map[string]*table{}
	pools.each("pool", func(name string, t *table) {
		var p aaa.Pool
		ok := t.list("ranges", func(s string) error {
			rg, err := parseRange(s)
			if err != nil {
				return err
			}
			for _, o := range seen {
				if !rg.Last.Less(o.r.First) && !o.r.Last.Less(rg.First) {
					if o.pool == name {
						return fmt.Errorf("%s overlaps %s-%s of this pool", s, o.r.First, o.r.Last)
					}
					return fmt.Errorf("%s overlaps %s-%s of pool %q: an address would be given out twice", s, o.r.First, o.r.Last, o.pool)
				}
			}
			if len(p.Ranges) > 0 && p.Ranges[0].First.BitLen() != rg.First.BitLen() {
				return fmt.Errorf("%s is of another protocol than the pool's first range", s)
			}
			seen = append(seen, placed{name, rg})
			p.Ranges = append(p.Ranges, rg)
			return nil
		})
		if len(p.Ranges) == 0 && (ok || !t.has("ranges")) {
			t.fail("ranges", `is missing: write the addresses to give out, such as ["192.168.99.2-192.168.99.100"]`)
		}
		t.str("comment", new(string))
		if t.str("next-pool", &p.Next) && p.Next != "" && p.Next != "none" {
			next[name] = t
		} else {
			p.Next = ""
		}
		c.AAA.Pools[name] = p
	})
	// A chain that came back to itself would be searched for ever.
	for name, t := range next {
		if !r.havePool(t, "next-pool", c.AAA.Pools[name].Next, c) {
			continue
		}
		if here, there := c.AAA.Pools[name].Ranges, c.AAA.Pools[c.AAA.Pools[name].Next].Ranges; len(here) > 0 && len(there) > 0 &&
			here[0].First.BitLen() != there[0].First.BitLen() {
			t.fail("next-pool", "pool %q holds addresses of another protocol", c.AAA.Pools[name].Next)
		}
		chain := []string{name}
		for at := c.AAA.Pools[name].Next; at != ""; at = c.AAA.Pools[at].Next {
			if at == name {
				t.fail("next-pool", "%s leads back to where it began", strings.Join(append(chain, at), " -> "))
			}
			if slices.Contains(chain, at) {
				break
			}
			chain = append(chain, at)
		}
	}
}

// havePool checks a reference to a pool.
func (r *reader) havePool(t *table, key, name string, c *Config) bool {
	if _, ok := c.AAA.Pools[name]; ok {
		return true
	}
	t.fail(key, "there is no pool %q%s", name, didYouMeanOr(name, keysOf(c.AAA.Pools), ": write [ip.pool."+quoteKey(name)+"]"))
	return false
}

// aaa reads `[ppp]`, `[radius]` and, for the names of interfaces, `[l2tp.binding]`.
func (r *reader) aaa(root *table, c *Config) {
	p := root.sub("ppp")
	c.AAA.Profiles = map[string]aaa.Profile{}
	for _, name := range []string{"default", "default-encryption"} {
		c.AAA.Profiles[name] = defaultProfile(name)
	}
	profiles := p.sub("profile")
	profiles.each("profile", func(name string, t *table) { c.AAA.Profiles[name] = r.profile(name, t, c) })
	profiles.builtin("default", "default-encryption")
	c.AAA.Secrets = map[string]aaa.Secret{}
	p.sub("secret").each("user", func(name string, t *table) { c.AAA.Secrets[name] = r.secret(name, t, c) })

	t := p.sub("aaa")
	c.AAAUse.Accounting = true
	t.boolean("use-radius", &c.AAAUse.UseRADIUS)
	t.boolean("accounting", &c.AAAUse.Accounting)
	t.duration("interim-update", 0, forever, &c.AAAUse.InterimUpdate)
	if c.AAAUse.UseRADIUS {
		t.unsupportedFatal("use-radius", featureRADIUS)
	}
	t.done()
	p.done()

	c.RADIUS = map[string]RADIUS{}
	rt := root.sub("radius")
	rt.each("RADIUS server", func(name string, t *table) {
		s := RADIUS{Name: name, AuthPort: 1812, AcctPort: 1813, Timeout: 300 * time.Millisecond}
		var addr string
		if !t.str("address", &addr) {
			if !t.has("address") {
				t.fail("address", "is missing")
			}
		} else if a, err := parseAddr(addr); err != nil || a.IsUnspecified() {
			t.fail("address", "%q is not the address of a server", addr)
		} else {
			s.Address = a
		}
		if !t.secret("secret", (*string)(&s.Secret)) && !t.has("secret") || t.has("secret") && s.Secret == "" && t.m["secret"] == "" {
			t.fail("secret", "is missing: RADIUS protects nothing without one")
		}
		t.str("comment", new(string))
		t.list("service", func(s string) error {
			if s != "ppp" {
				return fmt.Errorf("%q is not one of ppp", s)
			}
			return nil
		})
		t.preset("service", []string{"ppp"})
		t.integer("authentication-port", 1, 65535, &s.AuthPort)
		t.integer("accounting-port", 1, 65535, &s.AcctPort)
		t.duration("timeout", 10*time.Millisecond, time.Minute, &s.Timeout)
		t.boolean("accept-coa", &s.AcceptCoA)
		c.RADIUS[name] = s
	})
	if len(c.RADIUS) > 0 && !c.AAAUse.UseRADIUS {
		root.unsupported("radius", featureRADIUS)
	}
}

// defaultProfile is what an unwritten key of a profile means. RouterOS has MPPE on in default-encryption; here IPsec
// encrypts, and RC4 is in no default.
func defaultProfile(name string) aaa.Profile {
	return aaa.Profile{Name: name, Encrypt: aaa.EncryptDefault, UseIPv6: true, ChangeMSS: true}
}

func (r *reader) profile(name string, t *table, c *Config) aaa.Profile {
	p := defaultProfile(name)
	r.source(t, "local-address", &p.Local, c)
	r.source(t, "remote-address", &p.Remote, c)
	if p.Local.Addr.IsValid() && p.Local.Addr == p.Remote.Addr {
		t.fail("remote-address", "%s is our own end of the link", p.Remote.Addr)
	}
	t.addrs("dns-server", &p.DNS, 2)
	t.addrs("wins-server", &p.WINS, 2)
	choice(t, "use-encryption", &p.Encrypt, []string{"no", "default", "yes", "required"},
		aaa.EncryptNo, aaa.EncryptDefault, aaa.EncryptYes, aaa.EncryptRequired)
	switch p.Encrypt {
	case aaa.EncryptRequired:
		t.unsupportedFatal("use-encryption", featureMPPE)
	case aaa.EncryptYes:
		t.unsupported("use-encryption", featureMPPE)
	}
	t.boolean("use-ipv6", &p.UseIPv6)
	var pool string
	if t.str("remote-ipv6-prefix-pool", &pool) && pool != "" && r.havePool(t, "remote-ipv6-prefix-pool", pool, c) {
		if rs := c.AAA.Pools[pool].Ranges; len(rs) > 0 && rs[0].First.Is4() {
			t.fail("remote-ipv6-prefix-pool", "pool %q holds IPv4 addresses", pool)
		}
		c.PrefixPools[name] = pool
		t.unsupported("remote-ipv6-prefix-pool", featurePrefixes)
	}
	t.boolean("change-tcp-mss", &p.ChangeMSS)
	t.boolean("arp-proxy", &p.ARPProxy)
	t.boolean("only-one", &p.OnlyOne)
	r.rate(t, &p.RateLimit)
	t.duration("session-timeout", 0, forever, &p.SessionTimeout)
	t.duration("idle-timeout", 0, forever, &p.IdleTimeout)
	var bridge string
	if t.ifname("bridge", &bridge) && bridge != "" {
		c.Bridges[name] = bridge
		t.unsupported("bridge", featureBCP)
	}
	t.file("on-up", &p.OnUp)
	t.file("on-down", &p.OnDown)
	t.str("comment", new(string))
	return p
}

func (r *reader) secret(name string, t *table, c *Config) aaa.Secret {
	s := aaa.Secret{Name: name, Service: "any"}
	t.boolean("disabled", &s.Disabled)
	hasPassword := t.secret("password", (*string)(&s.Password))
	switch {
	case !t.has("password"):
		t.fail("password", `is missing (password = "" is an empty one)`)
	case hasPassword && s.Password == "" && !s.Disabled:
		t.warn("password", "empty: whoever knows the name is let in")
	}
	var key string
	if t.secret("ipsec-secret", &key) {
		r.userKey(name, key, s.Disabled, t)
	}
	choice(t, "service", &s.Service, []string{"any", "l2tp"}, "any", "l2tp")
	r.profileRef(t, "profile", &s.Profile, c)
	r.source(t, "local-address", &s.Local, c)
	r.source(t, "remote-address", &s.Remote, c)
	if s.Local.Addr.IsValid() && s.Local.Addr == s.Remote.Addr {
		t.fail("remote-address", "%s is our own end of the link", s.Remote.Addr)
	}
	r.routes(t, &s.Routes)
	t.str("caller-id", &s.CallerID)
	r.rate(t, &s.RateLimit)
	t.str("comment", &s.Comment)
	return s
}

// routes reads "destination [gateway] [metric]" lines.
func (r *reader) routes(t *table, dst *[]aaa.Route) {
	var routes []aaa.Route
	t.list("routes", func(x string) error {
		rt, err := parseRoute(x)
		if err == nil {
			routes = append(routes, rt)
		}
		return err
	})
	*dst = routes
}

func (r *reader) rate(t *table, dst *string) {
	if !t.str("rate-limit", dst) || *dst == "" {
		return
	}
	if err := checkRate(*dst); err != nil {
		t.fail("rate-limit", "%s", err)
		return
	}
	t.unsupported("rate-limit", featureRate)
}

// profileRef reads the name of a profile that has to exist. Profiles are read before anything that names them.
func (r *reader) profileRef(t *table, key string, dst *string, c *Config) {
	if !t.str(key, dst) || *dst == "" {
		return
	}
	if _, ok := c.AAA.Profiles[*dst]; !ok {
		t.fail(key, "there is no profile %q%s", *dst, didYouMeanOr(*dst, keysOf(c.AAA.Profiles), ": write [ppp.profile."+quoteKey(*dst)+"]"))
	}
}

// source reads an IPv4 address or the name of a pool; "" is neither.
func (r *reader) source(t *table, key string, dst *aaa.Source, c *Config) {
	var s string
	if !t.str(key, &s) || s == "" {
		return
	}
	if a, err := parseAddr(s); err == nil {
		switch {
		case !a.Is4():
			t.fail(key, "%s is not an IPv4 address", s)
		case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			t.fail(key, "%s is no host's address", s)
		default:
			dst.Addr = a
		}
		return
	}
	pool, ok := c.AAA.Pools[s]
	if !ok {
		if strings.Trim(s, "0123456789.:/") == "" {
			t.fail(key, "%q is %v", s, errNoAddress)
			return
		}
		r.havePool(t, key, s, c)
		return
	}
	if len(pool.Ranges) > 0 && !pool.Ranges[0].First.Is4() {
		t.fail(key, "pool %q holds no IPv4 addresses", s)
		return
	}
	dst.Pool = s
}

// addressless warns of users who can log in and then get no address.
func (r *reader) addressless(c *Config) {
	for _, p := range r.problems {
		if p.Severity == Fatal {
			return // it may only be misspelt
		}
	}
	for _, name := range keysOf(c.AAA.Secrets) {
		s := c.AAA.Secrets[name]
		profile := s.Profile
		if profile == "" {
			profile = c.Server.DefaultProfile
		}
		p, ok := c.AAA.Profiles[profile]
		if !ok || s.Disabled {
			continue
		}
		_, bridged := c.Bridges[profile]
		t := &table{r: r, path: []string{"ppp", "secret", name}}
		if s.Remote == (aaa.Source{}) && p.Remote == (aaa.Source{}) && !bridged {
			t.warn("remote-address", "neither this user nor profile %q has a remote-address: there is no address to give", profile)
		}
		if s.Local == (aaa.Source{}) && p.Local == (aaa.Source{}) && !bridged {
			t.warn("local-address", "neither this user nor profile %q has a local-address: our end of the link has none", profile)
		}
	}
}
