package config

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"culvert/ipsec/ikev1"
	"culvert/l2tp"
	"culvert/ppp"
	"culvert/ppp/aaa"
)

// ServerV3 is what `[l2tp.server]` says about L2TPv3.
type ServerV3 struct {
	AcceptVersion, AcceptPseudowire string
	CircuitID                       string
	CookieLength                    int // octets: 0, 4 or 8
	DigestHash                      string
	EtherBridge                     string
}

// Client is `[l2tp.client.NAME]`, a tunnel that this router dials.
type Client struct {
	Name                 string
	ConnectTo, VRF       string // host name or address; VRF is what followed the @
	User                 string
	Password             aaa.Password
	UseIPsec             bool
	IPsecSecret          l2tp.Secret
	TunnelSecret         l2tp.Secret // RFC 2661 section 5.1.1; empty: none
	Peer                 ikev1.Peer  // the server, as [ipsec] has it
	Profile              string
	Allow                []aaa.Method
	AddDefaultRoute      bool
	DefaultRouteDistance int
	Routes               []aaa.Route // through the tunnel, while it is up
	UsePeerDNS           string      // no, yes, exclusively
	DialOnDemand         bool
	Keepalive            time.Duration
	MTU, MRU, MRRU       int
	SrcAddress           netip.Addr
	ProtoVersion         string // l2tpv2, l2tpv3-udp, l2tpv3-ip
	CookieLength         int
	DigestHash           string
	CircuitID            string
	AllowFastPath        bool
	Disabled             bool
	Comment              string
}

// Ether is `[l2tp.ether.NAME]`, an Ethernet pseudowire.
type Ether struct {
	Name                          string
	ConnectTo, VRF                string
	ProtoVersion                  string // l2tpv3-udp, l2tpv3-ip
	MAC                           net.HardwareAddr
	MTU                           int
	CookieLength                  int
	DigestHash, CircuitID, Bridge string
	L2SpecificSublayer            bool
	UseIPsec                      bool
	IPsecSecret                   l2tp.Secret
	Unmanaged                     bool
	LocalAddress                  netip.Addr
	LocalTunnel, RemoteTunnel     int
	LocalSession, RemoteSession   int
	SendCookie, PeerCookie        []byte
	Disabled                      bool
	Comment                       string
}

const (
	minMTU, maxMTU = 512, 9000
	maxID          = 1<<31 - 1 // of a hand-written tunnel or session: fits an int everywhere
)

var (
	methodNames = []string{"pap", "chap", "mschap1", "mschap2"}
	methods     = []aaa.Method{aaa.PAP, aaa.CHAP, aaa.MSCHAP1, aaa.MSCHAP2}
)

func parseMethod(s string) (aaa.Method, bool) {
	if i := slices.Index(methodNames, s); i >= 0 {
		return methods[i], true
	}
	return 0, false
}

// l2tp reads `[l2tp]`. The profiles have been read before.
func (r *reader) l2tp(root *table, c *Config) {
	t := root.sub("l2tp")
	taken := map[string]string{} // interface names, by the kind that took them
	take := func(t *table, name, kind string) {
		if err := checkIfname(name); err != nil {
			t.fail("", "%s", err)
		} else if other, ok := taken[name]; ok {
			t.fail("", "the interface name %q is taken by a %s", name, other)
		}
		taken[name] = kind
	}
	r.server(t.sub("server"), c)
	r.addressless(c)

	c.AAA.Bindings = map[string]string{}
	t.sub("binding").each("binding", func(name string, t *table) {
		take(t, name, "binding")
		var user string
		disabled := false
		t.boolean("disabled", &disabled)
		t.str("comment", new(string))
		if !t.str("user", &user) {
			if !t.has("user") {
				t.fail("user", "is missing")
			}
			return
		}
		if other, ok := c.AAA.Bindings[user]; ok {
			t.fail("user", "%q is bound to %q already", user, other)
			return
		}
		if _, ok := c.AAA.Secrets[user]; !ok {
			t.fail("user", "there is no user %q%s", user, didYouMeanOr(user, keysOf(c.AAA.Secrets), ": write [ppp.secret."+quoteKey(user)+"]"))
		}
		if !disabled {
			c.AAA.Bindings[user] = name
		}
	})
	t.sub("client").each("client", func(name string, t *table) {
		take(t, name, "client")
		c.Clients = append(c.Clients, r.client(name, root, t, c))
	})
	t.sub("ether").each("Ethernet tunnel", func(name string, t *table) {
		take(t, name, "Ethernet tunnel")
		c.Ethers = append(c.Ethers, r.ether(name, t))
	})
	t.done()
}

func (r *reader) server(t *table, c *Config) {
	s := &c.Server
	s.L2TP, s.PPP = l2tp.DefaultConfig(), ppp.DefaultConfig()
	s.L2TP.HostName, s.PPP.Name = c.System.Identity, c.System.Identity
	// Writing the table asks for the server; without it there is none.
	s.Enabled = t.m != nil
	s.UseIPsec = l2tp.ProtectionRequired
	s.DefaultProfile = "default-encryption"
	s.CallerIDType = CallerIDAddress
	s.Listen = []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), 1701), netip.AddrPortFrom(netip.IPv6Unspecified(), 1701)}

	t.boolean("enabled", &s.Enabled)
	r.badUseIPsec = !choice(t, "use-ipsec", &s.UseIPsec, []string{"no", "yes", "required"},
		l2tp.ProtectionNone, l2tp.ProtectionOffered, l2tp.ProtectionRequired) && t.has("use-ipsec")
	t.declare(Key{Name: "ipsec-secret", Kind: Secret}, "")
	algorithms(t, "authentication", &s.PPP.Auth, parseMethod, methodNames)
	r.profileRef(t, "default-profile", &s.DefaultProfile, c)
	if s.DefaultProfile == "" {
		t.fail("default-profile", "is empty: name a profile")
	}
	c.AAA.DefaultProfile = s.DefaultProfile
	r.listen(t, &s.Listen)
	t.integer("max-mtu", minMTU, maxMTU, &s.PPP.MTU)
	t.integer("max-mru", minMTU, maxMTU, &s.PPP.MRU)
	r.mrru(t, &s.MRRU)
	t.duration("keepalive-timeout", 0, forever, &s.PPP.Keepalive)
	t.integerOr("max-sessions", "unlimited", 1, 1000000, &s.L2TP.MaxSessions)
	t.boolean("one-session-per-host", &s.L2TP.OneSessionPerHost)
	choice(t, "caller-id-type", &s.CallerIDType, []string{"ip-address", "number"}, CallerIDAddress, CallerIDNumber)
	if t.boolean("allow-fast-path", &s.AllowFastPath) && s.AllowFastPath {
		t.unsupported("allow-fast-path", featureFastPath)
	}
	t.prefixes("allowed-address", &s.L2TP.Allowed)
	t.secret("tunnel-secret", (*string)(&s.L2TP.Secret))
	s.L2TP.Protection = s.UseIPsec
	s.PPP.IPv6 = true // each user's profile decides
	r.serverV3(t, &s.V3, s.Enabled)
	// ipsec-secret is read with the peer that it makes, in ipsec.go.
	t.get("ipsec-secret")
	t.done()
}

func (r *reader) serverV3(t *table, v *ServerV3, enabled bool) {
	*v = ServerV3{AcceptVersion: "all", AcceptPseudowire: "all", DigestHash: "md5"}
	versions, wires := []string{"all", "l2tpv2", "l2tpv3"}, []string{"all", "ether", "ppp"}
	choice(t, "accept-proto-version", &v.AcceptVersion, versions, versions...)
	choice(t, "accept-pseudowire-type", &v.AcceptPseudowire, wires, wires...)
	// A server that takes nothing but what it does not speak would serve nobody.
	if enabled && v.AcceptVersion == "l2tpv3" {
		t.unsupportedFatal("accept-proto-version", featureV3)
	}
	if enabled && v.AcceptPseudowire == "ether" {
		t.unsupportedFatal("accept-pseudowire-type", featureV3)
	}
	if t.str("l2tpv3-circuit-id", &v.CircuitID) && v.CircuitID != "" {
		t.unsupported("l2tpv3-circuit-id", featureV3)
	}
	if cookie(t, "l2tpv3-cookie-length", &v.CookieLength) && v.CookieLength != 0 {
		t.unsupported("l2tpv3-cookie-length", featureV3)
	}
	digest(t, "l2tpv3-digest-hash", &v.DigestHash)
	if t.ifname("l2tpv3-ether-bridge", &v.EtherBridge) && v.EtherBridge != "" {
		t.unsupported("l2tpv3-ether-bridge", featureV3)
	}
}

func cookie(t *table, key string, dst *int) bool {
	return choice(t, key, dst, []string{"0", "4", "8"}, 0, 4, 8)
}

func digest(t *table, key string, dst *string) bool {
	words := []string{"none", "md5", "sha1"}
	return choice(t, key, dst, words, words...)
}

func (r *reader) mrru(t *table, dst *int) {
	if t.integerOr("mrru", "disabled", 512, 65535, dst) && *dst != 0 {
		t.unsupported("mrru", featureMultilink)
	}
}

func (r *reader) listen(t *table, dst *[]netip.AddrPort) {
	t.declare(Key{Name: "listen", Kind: List}, texts(*dst))
	if !t.has("listen") {
		t.get("listen")
		return
	}
	var out []netip.AddrPort
	ok := t.list("listen", func(s string) error {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			return fmt.Errorf(`%q is not an address and port such as "0.0.0.0:1701" or "[::]:1701"`, s)
		}
		if a.Port() == 0 {
			return fmt.Errorf("%q has no port: L2TP's is 1701", s)
		}
		if slices.Contains(out, a) {
			return fmt.Errorf("%q is named twice", s)
		}
		out = append(out, a)
		return nil
	})
	if ok && len(out) == 0 {
		t.fail("listen", `is empty: write ["0.0.0.0:1701", "[::]:1701"], or enabled = false`)
		return
	}
	if ok {
		*dst = out
	}
}

func (r *reader) client(name string, root, t *table, c *Config) Client {
	x := Client{Name: name, Profile: "default-encryption", Allow: []aaa.Method{aaa.MSCHAP2}, DefaultRouteDistance: 1, UsePeerDNS: "no",
		Keepalive: 60 * time.Second, MTU: 1450, MRU: 1450, ProtoVersion: "l2tpv2", DigestHash: "md5"}
	t.boolean("disabled", &x.Disabled)
	r.connectTo(t, &x.ConnectTo, &x.VRF, true)
	t.str("user", &x.User)
	t.secret("password", (*string)(&x.Password))
	r.ipsecSecret(t, &x.UseIPsec, &x.IPsecSecret, signs(root, name))
	r.profileRef(t, "profile", &x.Profile, c)
	algorithms(t, "allow", &x.Allow, parseMethod, methodNames)
	t.boolean("add-default-route", &x.AddDefaultRoute)
	t.integer("default-route-distance", 0, 255, &x.DefaultRouteDistance)
	r.routes(t, &x.Routes)
	dns := []string{"no", "yes", "exclusively"}
	choice(t, "use-peer-dns", &x.UsePeerDNS, dns, dns...)
	t.boolean("dial-on-demand", &x.DialOnDemand)
	t.duration("keepalive-timeout", 0, forever, &x.Keepalive)
	t.integer("max-mtu", minMTU, maxMTU, &x.MTU)
	t.integer("max-mru", minMTU, maxMTU, &x.MRU)
	t.integerOr("mrru", "disabled", 512, 65535, &x.MRRU)
	r.addr(t, "src-address", &x.SrcAddress)
	t.secret("tunnel-secret", (*string)(&x.TunnelSecret))
	protos := []string{"l2tpv2", "l2tpv3-udp", "l2tpv3-ip"}
	choice(t, "l2tp-proto-version", &x.ProtoVersion, protos, protos...)
	cookie(t, "l2tpv3-cookie-length", &x.CookieLength)
	digest(t, "l2tpv3-digest-hash", &x.DigestHash)
	t.str("l2tpv3-circuit-id", &x.CircuitID)
	t.boolean("allow-fast-path", &x.AllowFastPath)
	t.str("comment", &x.Comment)
	if x.Disabled {
		return x
	}
	for _, f := range []struct {
		key  string
		asks bool
		what feature
	}{{"l2tp-proto-version", x.ProtoVersion != "l2tpv2", featureClientV3},
		{"mrru", x.MRRU != 0, featureMultilink}, {"allow-fast-path", x.AllowFastPath, featureFastPath}} {
		if f.asks {
			t.unsupported(f.key, f.what)
		}
	}
	return x
}

// Dialled says whether this version dials the tunnel.
func (x *Client) Dialled() bool { return !x.Disabled && x.ProtoVersion == "l2tpv2" }

func (r *reader) ether(name string, t *table) Ether {
	x := Ether{Name: name, ProtoVersion: "l2tpv3-udp", MTU: 1420, DigestHash: "md5"}
	t.boolean("disabled", &x.Disabled)
	t.boolean("unmanaged-mode", &x.Unmanaged)
	r.connectTo(t, &x.ConnectTo, &x.VRF, true)
	protos := []string{"l2tpv3-udp", "l2tpv3-ip"}
	choice(t, "l2tp-proto-version", &x.ProtoVersion, protos, protos...)
	mac := "auto"
	if t.str("mac-address", &mac) && mac != "auto" {
		hw, err := net.ParseMAC(mac)
		if err != nil || len(hw) != 6 || hw[0]&1 != 0 {
			t.fail("mac-address", `%q is neither "auto" nor a station's MAC address such as "02:00:00:00:00:01"`, mac)
		}
		x.MAC = hw
	}
	t.integer("mtu", minMTU, maxMTU, &x.MTU)
	cookie(t, "cookie-length", &x.CookieLength)
	digest(t, "digest-hash", &x.DigestHash)
	t.str("circuit-id", &x.CircuitID)
	t.boolean("use-l2-specific-sublayer", &x.L2SpecificSublayer)
	t.ifname("bridge", &x.Bridge)
	r.ipsecSecret(t, &x.UseIPsec, &x.IPsecSecret, false)
	r.addr(t, "local-address", &x.LocalAddress)
	for _, f := range []struct {
		key string
		dst *int
	}{{"local-tunnel-id", &x.LocalTunnel}, {"remote-tunnel-id", &x.RemoteTunnel}, {"local-session-id", &x.LocalSession}, {"remote-session-id", &x.RemoteSession}} {
		ok := t.integer(f.key, 1, maxID, f.dst)
		switch {
		case x.Unmanaged && !ok && !t.has(f.key):
			t.fail(f.key, "is missing: nobody negotiates it in unmanaged-mode")
		case !x.Unmanaged && ok:
			t.warn(f.key, "is negotiated: it counts with unmanaged-mode = true only")
		}
	}
	r.cookieValue(t, "send-cookie", &x.SendCookie)
	r.cookieValue(t, "peer-cookie", &x.PeerCookie)
	t.boolean("allow-fast-path", new(bool))
	t.str("comment", &x.Comment)
	if !x.Disabled {
		t.unsupported("", featureEther)
	}
	return x
}

func (r *reader) cookieValue(t *table, key string, dst *[]byte) {
	var s string
	if !t.str(key, &s) || s == "" {
		return
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 4 && len(b) != 8 {
		t.fail(key, "%q is not a cookie: 8 or 16 hexadecimal digits", s)
		return
	}
	*dst = b
}

func (r *reader) connectTo(t *table, host, vrf *string, required bool) {
	var s string
	if !t.str("connect-to", &s) {
		if required && !t.has("connect-to") {
			t.fail("connect-to", "is missing: write the server's address or name")
		}
		return
	}
	h, v, err := hostOrAddr(s)
	if err != nil {
		t.fail("connect-to", "%s", err)
		return
	}
	*host, *vrf = h, v
}

func (r *reader) addr(t *table, key string, dst *netip.Addr) {
	var s string
	if !t.str(key, &s) || s == "" {
		return
	}
	a, err := parseAddr(s)
	if err != nil {
		t.fail(key, "%s", err)
		return
	}
	*dst = a
}

// ipsecSecret reads the pair of a tunnel that we dial; signs says that it has a certificate instead of a secret.
func (r *reader) ipsecSecret(t *table, use *bool, secret *l2tp.Secret, signs bool) {
	t.boolean("use-ipsec", use)
	ok := t.secret("ipsec-secret", (*string)(secret))
	switch {
	case *use && signs && *secret != "":
		t.warn("ipsec-secret", "not used: the identity of this name has a certificate")
	case *use && !signs && *secret == "" && (ok || !t.has("ipsec-secret")):
		t.fail("ipsec-secret", "is missing: use-ipsec needs the pre-shared key of the other end, or an [ipsec.identity] of this name with a certificate")
	}
}

// signs says whether there is an identity of this name with a certificate; its errors are reported when it is read.
func signs(root *table, name string) bool {
	m, _ := root.sub("ipsec").sub("identity").m[name].(map[string]any)
	return m["auth-method"] == "digital-signature"
}
