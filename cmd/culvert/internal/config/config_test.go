package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"

	"culvert/ipsec"
	"culvert/ipsec/ikev1"
	"culvert/l2tp"
	"culvert/ppp"
	"culvert/ppp/aaa"
)

// problems parses and returns what was found, one line each, "unsupported" included.
func problems(t *testing.T, text string) (fatal, other []string) {
	t.Helper()
	c, err := Parse("c.toml", []byte(text))
	var e *Error
	switch {
	case errors.As(err, &e):
		if c != nil {
			t.Error("a refused configuration came with a Config")
		}
		for _, p := range e.Problems {
			if p.Severity == Fatal {
				fatal = append(fatal, p.String())
			} else {
				other = append(other, p.String())
			}
		}
		if e.Error() != strings.Join(fatal, "\n") {
			t.Errorf("Error() is not the list of fatal problems: %q", e.Error())
		}
	case err != nil:
		t.Fatalf("error of type %T", err)
	default:
		for _, p := range c.Warnings {
			other = append(other, p.String())
		}
	}
	return fatal, other
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("c.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEmptyFileIsNoServer(t *testing.T) {
	c := mustParse(t, "")
	if c.Server.Enabled || len(c.IPsec.Peers) != 0 || len(c.Warnings) != 0 {
		t.Errorf("an empty file makes a server: %+v", c.Server)
	}
	want := System{Identity: "culvert", DataPath: DataPathAuto, CryptoEngine: "auto",
		Watchdog: Watchdog{Device: "/dev/watchdog", Timeout: 30 * time.Second}, ResetButton: ResetButton{HoldTime: 5 * time.Second}}
	if c.System != want {
		t.Errorf("system: %+v", c.System)
	}
	if !slices.Equal(c.Log.Topics, []string{"info"}) || c.Log.Ring != 1000 || c.Log.Remote != "" {
		t.Errorf("log: %+v", c.Log)
	}
	if !slices.Equal(keysOf(c.AAA.Profiles), []string{"default", "default-encryption"}) {
		t.Errorf("profiles: %v", keysOf(c.AAA.Profiles))
	}
	if !c.AAAUse.Accounting || c.AAAUse.UseRADIUS {
		t.Errorf("aaa: %+v", c.AAAUse)
	}
}

func TestDefaults(t *testing.T) {
	c := mustParse(t, "[l2tp.server]\nipsec-secret = \"long enough\"\n")
	s := c.Server
	wantL2TP, wantPPP := l2tp.DefaultConfig(), ppp.DefaultConfig()
	wantL2TP.Protection = l2tp.ProtectionRequired
	wantL2TP.HostName, wantPPP.Name = "culvert", "culvert"
	wantPPP.IPv6 = true
	wantPPP.Auth, wantPPP.MRU, wantPPP.MTU, wantPPP.Keepalive = []aaa.Method{aaa.MSCHAP2}, 1450, 1450, 30*time.Second
	want := Server{Enabled: true, UseIPsec: l2tp.ProtectionRequired, DefaultProfile: "default-encryption", CallerIDType: CallerIDAddress,
		Listen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:1701"), netip.MustParseAddrPort("[::]:1701")},
		L2TP:   wantL2TP, PPP: wantPPP, V3: ServerV3{AcceptVersion: "all", AcceptPseudowire: "all", DigestHash: "md5"}}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("server\n got %+v\nwant %+v", s, want)
	}
	if len(c.IPsec.Peers) != 1 || c.IPsec.HalfOpen != 1000 || c.IPsec.MarkMask != 0x7fff0000 {
		t.Fatalf("ipsec: %+v", c.IPsec)
	}
	p := c.IPsec.Peers[0]
	if p.Name != "l2tp-in" || string(p.Secret) != "long enough" || p.Exchange != ikev1.MainL2TP || !p.SendInitialContact ||
		!slices.Equal(p.Remote, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}) {
		t.Errorf("peer: %+v", p)
	}
	if !reflect.DeepEqual(p.Profile, DefaultProfile()) || !reflect.DeepEqual(p.Proposal, DefaultProposal()) {
		t.Errorf("peer: %+v", p)
	}
	if !slices.Equal(c.IPsec.Ports, []uint16{1701}) {
		t.Errorf("ports: %v", c.IPsec.Ports)
	}
	if p.Profile.Lifetime != 24*time.Hour || p.Proposal.Lifetime != 30*time.Minute || p.Proposal.PFS != 0 || p.Profile.DPDInterval != 2*time.Minute || p.Profile.DPDMaxFailures != 5 {
		t.Errorf("lifetimes: %+v", p)
	}
	if len(c.Warnings) != 0 {
		t.Errorf("defaults are warned of: %v", c.Warnings)
	}
}

// The built-in clients of people's machines get in without a line of configuration, and nothing weak is on offer.
func TestDefaultsConnectClientsAndAreNotWeak(t *testing.T) {
	p, q := DefaultProfile(), DefaultProposal()
	phase1 := []struct {
		client string
		c      ikev1.Cipher
		h      ikev1.Hash
		g      ikev1.Group
	}{
		{"Windows, second offer", ikev1.AES128, ikev1.SHA1, ikev1.ECP256},
		{"Windows, third offer", ikev1.AES256, ikev1.SHA1, ikev1.MODP2048},
		{"macOS and iOS", ikev1.AES256, ikev1.SHA256, ikev1.MODP2048},
		{"strongSwan", ikev1.AES128, ikev1.SHA256, ikev1.ECP256},
		{"NetworkManager-l2tp", ikev1.AES256, ikev1.SHA256, ikev1.MODP2048},
	}
	for _, x := range phase1 {
		if !slices.Contains(p.Ciphers, x.c) || !slices.Contains(p.Hashes, x.h) || !slices.Contains(p.Groups, x.g) {
			t.Errorf("%s: %v-%v-%v is refused", x.client, x.c, x.h, x.g)
		}
	}
	for _, s := range []ipsec.Suite{
		{Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA1, ICVBits: 96},    // Windows
		{Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA256, ICVBits: 128}, // Apple
		{Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA256, ICVBits: 128}, // strongSwan
		{Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128},                              // ChromeOS
	} {
		if !slices.Contains(q.Suites, s) {
			t.Errorf("%v is refused", s)
		}
	}
	if slices.Contains(p.Ciphers, ikev1.TripleDES) || slices.Contains(p.Hashes, ikev1.MD5) || slices.Contains(p.Groups, ikev1.MODP1024) {
		t.Errorf("weak default: %+v", p)
	}
	for _, s := range q.Suites {
		if s.Cipher == ipsec.TripleDES || s.Integrity == ipsec.HMACMD5 {
			t.Errorf("weak default: %v", s)
		}
	}
	for _, name := range []string{"default", "default-encryption"} {
		if e := defaultProfile(name).Encrypt; e != aaa.EncryptDefault {
			t.Errorf("%s has MPPE on: %v", name, e)
		}
	}
}

func readFull(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFull(t *testing.T) {
	c := mustParse(t, readFull(t))
	var got []string
	for _, w := range c.Warnings {
		got = append(got, w.Severity.String()+" "+w.Key)
	}
	want := []string{
		"unsupported ppp.profile.staff.remote-ipv6-prefix-pool", "unsupported ppp.profile.staff.rate-limit",
		"unsupported ppp.profile.staff.bridge",
		"unsupported radius",
		"unsupported l2tp.server.l2tpv3-ether-bridge",
		"unsupported l2tp.client.l2tp-out1.mrru", "unsupported l2tp.ether.l2tp-ether2",
		"warning ipsec.profile.old.enc-algorithm",
		"warning ipsec.profile.old.hash-algorithm",
		"warning ipsec.profile.old.dh-group",
		"warning ipsec.peer.museum.exchange-mode",
	}
	if !slices.Equal(got, want) {
		t.Errorf("warnings\n got %q\nwant %q", got, want)
	}
	if err := c.AAA.Validate(); err != nil {
		t.Error(err)
	}
	if c.System.LED != "green:user" || c.System.Watchdog != (Watchdog{true, "/dev/watchdog0", time.Minute}) ||
		c.System.ResetButton != (ResetButton{true, 3 * time.Second, "/etc/culvert/reset.sh"}) {
		t.Errorf("board: %+v", c.System)
	}
	network := Network{Managed: true, DNS: []netip.Addr{netip.MustParseAddr("192.168.88.1"), netip.MustParseAddr("2001:db8::53")}, Forward: true,
		Interfaces: []NetInterface{{
			Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.168.88.1/24"), netip.MustParsePrefix("2001:db8:88::1/64")}, MTU: 1492,
			Routes: []aaa.Route{
				{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("192.168.88.254")},
				{Dst: netip.MustParsePrefix("::/0"), Gateway: netip.MustParseAddr("fe80::1")},
				{Dst: netip.MustParsePrefix("10.0.0.0/8"), Gateway: netip.MustParseAddr("192.168.88.253"), Metric: 5},
			}}, {Name: "eth1", DHCP: true}}}
	if !reflect.DeepEqual(c.Network, network) {
		t.Errorf("network\n got %+v\nwant %+v", c.Network, network)
	}
	s := c.Server
	if s.PPP.MTU != 1400 || s.PPP.MRU != 1410 || s.PPP.Keepalive != 20*time.Second || s.L2TP.MaxSessions != 12 || !s.L2TP.OneSessionPerHost ||
		s.CallerIDType != CallerIDNumber || s.L2TP.Secret != "tunnel" || s.L2TP.HostName != "branch-7" || s.PPP.Name != "branch-7" ||
		!slices.Equal(s.L2TP.Allowed, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}) {
		t.Errorf("server: %+v", s)
	}
	ip := netip.MustParseAddr
	staff := aaa.Profile{Name: "staff", Local: aaa.Source{Addr: ip("10.99.0.1")}, Remote: aaa.Source{Pool: "road"},
		DNS: []netip.Addr{ip("10.99.0.1"), ip("8.8.8.8")}, UseIPv6: true, ChangeMSS: true, RateLimit: "10M/2M", SessionTimeout: 8 * time.Hour,
		OnUp: "/etc/culvert/up.sh", OnDown: "/etc/culvert/down.sh"}
	if got := c.AAA.Profiles["staff"]; !reflect.DeepEqual(got, staff) {
		t.Errorf("profile\n got %+v\nwant %+v", got, staff)
	}
	home := aaa.Secret{Name: "Home", Password: `swordfish " 1`, Service: "l2tp", Profile: "staff", Local: aaa.Source{Addr: ip("172.16.1.1")},
		Remote:   aaa.Source{Addr: ip("172.16.1.2")},
		Routes:   []aaa.Route{{Dst: netip.MustParsePrefix("10.1.202.0/24"), Gateway: ip("172.16.1.2"), Metric: 1}, {Dst: netip.MustParsePrefix("10.1.203.0/24")}},
		CallerID: "198.51.100.7", Comment: "the other office"}
	if got := c.AAA.Secrets["Home"]; !reflect.DeepEqual(got, home) {
		t.Errorf("secret\n got %+v\nwant %+v", got, home)
	}
	if p := c.AAA.Secrets[`DOM\ann`].Password; p != "two\nlines" {
		t.Errorf("multi-line password is %q", string(p))
	}
	road := aaa.Pool{Next: "spill", Ranges: []aaa.Range{{First: ip("10.99.0.2"), Last: ip("10.99.0.100")}, {First: ip("10.99.1.1"), Last: ip("10.99.1.254")},
		{First: ip("10.99.2.7"), Last: ip("10.99.2.7")}}}
	if got := c.AAA.Pools["road"]; !reflect.DeepEqual(got, road) {
		t.Errorf("pool %+v", got)
	}
	if c.AAA.Bindings["Home"] != "l2tp-home" || c.AAA.DefaultProfile != "default" {
		t.Errorf("aaa: %+v", c.AAA)
	}
	if len(c.IPsec.Peers) != 2 || c.IPsec.MarkMask != 0xff0000 || c.IPsec.HalfOpen != 64 {
		t.Fatalf("ipsec: %+v", c.IPsec)
	}
	m := c.IPsec.Peers[1]
	if m.Name != "museum" || string(m.Secret) != "relics" || m.Exchange != ikev1.Aggressive || m.SendInitialContact || m.Proposal.PFS != ikev1.MODP2048 ||
		len(m.Proposal.Suites) != 1 || m.Proposal.Suites[0].String() != "aes-128-gcm" || m.Profile.Groups[0] != ikev1.MODP1024 {
		t.Errorf("peer: %+v", m)
	}
	x := c.Clients[0]
	if x.ConnectTo != "vpn.example.com" || x.VRF != "red" || x.MRRU != 1600 || x.CookieLength != 4 || x.UsePeerDNS != "exclusively" || x.IPsecSecret != "another secret" || x.TunnelSecret != "another tunnel" {
		t.Errorf("client: %+v", x)
	}
	if e := c.Ethers[1]; !e.Unmanaged || e.RemoteSession != 4 || len(e.PeerCookie) != 8 || e.MAC.String() != "02:00:00:00:00:01" {
		t.Errorf("ether: %+v", e)
	}
}

// Whatever key is given a value of a wrong type, the complaint names that key and its line, and there is no panic.
func TestEveryKeyComplainsAtItsLine(t *testing.T) {
	full := readFull(t)
	lines := strings.Split(full, "\n")
	var doc map[string]any
	md, err := toml.Decode(full, &doc)
	if err != nil {
		t.Fatal(err)
	}
	where := scanLines(full)
	seen := 0
	for _, key := range md.Keys() {
		line := where[lineKey(key)]
		if line == 0 {
			t.Errorf("%s has no line", key)
			continue
		}
		name, value, ok := strings.Cut(lines[line-1], " = ")
		if !ok || strings.HasPrefix(value, `"""`) {
			continue
		}
		seen++
		changed := slices.Clone(lines)
		changed[line-1] = name + " = 1979-05-27"
		_, err := Parse("c.toml", []byte(strings.Join(changed, "\n")))
		var e *Error
		if !errors.As(err, &e) || !slices.ContainsFunc(e.Problems, func(p Problem) bool {
			return p.Severity == Fatal && p.Line == line && p.Key == key.String()
		}) {
			t.Errorf("%s = a date: %v", key, err)
		}
		// A misspelt key is unknown, and the right one is suggested or at least the line is right.
		changed[line-1] = name + "x = 1"
		_, err = Parse("c.toml", []byte(strings.Join(changed, "\n")))
		if !errors.As(err, &e) || !slices.ContainsFunc(e.Problems, func(p Problem) bool {
			return p.Line == line && p.Key == key.String()+"x" && p.Text == `unknown key: did you mean "`+name+`"?`
		}) {
			t.Errorf("%sx: %v", key, err)
		}
	}
	if seen < 130 {
		t.Errorf("only %d keys in testdata/full.toml", seen)
	}
}

const server = "[l2tp.server]\nipsec-secret = \"long enough\"\n"

func TestProblems(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"the example of the documentation", "\n[l2tp.server]\nuse-ipsec = \"maybe\"\n", `c.toml:3: l2tp.server.use-ipsec: "maybe" is not one of no, yes, required`},
		{"no TOML", "[system\n", "c.toml:2: not TOML: expected '.' or ']' to end table name, but got '\\n' instead"},
		{"twice", "[ip.pool.a]\nranges=[\"10.0.0.1\"]\n[ip.pool.a]\n", "c.toml:3: ip.pool: not TOML: Key 'ip.pool.a' has already been defined."},
		{"unknown table", "[sistem]\n", `c.toml:1: sistem: unknown table: did you mean "system"?`},
		{"unknown key, nothing near", "[system]\nfavourite-colour = 1\n", "c.toml:2: system.favourite-colour: unknown key"},
		{"table as a value", "system = 1\n", "c.toml:1: system: is a table: write it as [system]"},
		{"array of tables", "[[system]]\n", "c.toml:1: system: is an array of tables: write [system] once, in single brackets"},
		{"object as a value", "[ppp.secret]\nuser1 = \"pw\"\n", "c.toml:2: ppp.secret.user1: a user is a table of its own: write it as [ppp.secret.user1]"},
		{"nameless", "[ip.pool.\"\"]\nranges=[\"10.0.0.1\"]\n", "c.toml:1: ip.pool.\"\": a pool has a name"},
		{"identity", "[system]\nidentity = \"\"\n", `c.toml:2: system.identity: "" is not a name of 1 to 64 printable octets`},
		{"data path", "[system]\ndata-path = \"fast\"\n", `c.toml:2: system.data-path: "fast" is not one of auto, kernel, userspace`},
		{"boolean in quotes", server + "enabled = \"yes\"\n", `c.toml:3: l2tp.server.enabled: "yes" is text: write true, without quotes`},
		{"number for text", "[system]\nidentity = 7\n", "c.toml:2: system.identity: 7 is not text in quotes"},
		{"password itself", "[user.a]\npassword-hash = \"hunter2\"\n", "c.toml:2: user.a.password-hash: not a crypt(3) hash such as $6$...: a password itself does not belong here (make a hash with `openssl passwd -6`)"},
		{"light", "[system]\nled = \"a/b\"\n", `c.toml:2: system.led: "a/b" is not the name of a light in /sys/class/leds`},
		{"watchdog", "[system.watchdog]\ndevice = \"watchdog\"\n", `c.toml:2: system.watchdog.device: "watchdog" is no device in /dev`},
		{"idle button", "[system.reset-button]\nenabled = true\n", `c.toml:2: system.reset-button.enabled: the button does nothing: name a program in on-event`},
		{"address without a network", "[network.interface.eth0]\naddress = [\"192.0.2.1\"]\n", `c.toml:2: network.interface.eth0.address: "192.0.2.1" is not an interface's address with the length of its network, such as "192.168.88.1/24"`},
		{"interface without a table", "[network]\neth0 = true\n", `c.toml:2: network.eth0: unknown key`},
		{"topic", "[log]\ntopics = [\n  \"info\",\n  \"ipsek\"]\n", `c.toml:4: log.topics: "ipsek" is not one of the topics account, console, crypto, ipsec, l2tp, ppp, radius, script, system, nor of the levels packet, debug, info, warning, error`},
		{"syslog", "[log]\nremote = \"192.0.2.9\"\n", `c.toml:2: log.remote: "192.0.2.9" is not a syslog server such as "udp://192.0.2.9:514"`},
		{"ring", "[log]\nring = -1\n", "c.toml:2: log.ring: -1 is not within 0..100000"},
		{"range", "[ip.pool.a]\nranges = [\"10.0.0.9-10.0.0.1\"]\n", `c.toml:2: ip.pool.a.ranges: "10.0.0.9-10.0.0.1" ends before it begins: write 10.0.0.1-10.0.0.9`},
		{"network", "[ip.pool.a]\nranges = [\"10.0.0.300\"]\n", `c.toml:2: ip.pool.a.ranges: "10.0.0.300" is not a range: write it as 192.0.2.2-192.0.2.99, 192.0.2.0/24 or an address`},
		{"no ranges", "[ip.pool.a]\n", `c.toml:1: ip.pool.a.ranges: is missing: write the addresses to give out, such as ["192.168.99.2-192.168.99.100"]`},
		{"overlap", "[ip.pool.a]\nranges = [\"10.0.0.0/24\"]\n[ip.pool.b]\nranges = [\"10.0.0.200\"]\n", `c.toml:4: ip.pool.b.ranges: 10.0.0.200 overlaps 10.0.0.1-10.0.0.254 of pool "a": an address would be given out twice`},
		{"next pool", "[ip.pool.a]\nranges = [\"10.0.0.1\"]\nnext-pool = \"b\"\n", `c.toml:3: ip.pool.a.next-pool: there is no pool "b": did you mean "a"?`},
		{"next pool of IPv6", "[ip.pool.a]\nranges = [\"10.0.0.1\"]\nnext-pool = \"b\"\n[ip.pool.b]\nranges = [\"2001:db8::1\"]\n", `c.toml:3: ip.pool.a.next-pool: pool "b" holds addresses of another protocol`},
		{"pool to itself", "[ip.pool.a]\nranges = [\"10.0.0.1\"]\nnext-pool = \"a\"\n", `c.toml:3: ip.pool.a.next-pool: a -> a leads back to where it began`},
		{"pool", "[ip.pool.vpn-pool]\nranges = [\"10.0.0.1\"]\n[ppp.profile.a]\nremote-address = \"vpn-pol\"\n", `c.toml:4: ppp.profile.a.remote-address: there is no pool "vpn-pol": did you mean "vpn-pool"?`},
		{"no pool at all", "[ppp.profile.a]\nremote-address = \"vpn pool\"\n", `c.toml:2: ppp.profile.a.remote-address: there is no pool "vpn pool": write [ip.pool."vpn pool"]`},
		{"address", "[ppp.profile.a]\nlocal-address = \"192.168.99\"\n", `c.toml:2: ppp.profile.a.local-address: "192.168.99" is not an address`},
		{"IPv6 address", "[ppp.profile.a]\nlocal-address = \"fe80::1\"\n", `c.toml:2: ppp.profile.a.local-address: fe80::1 is not an IPv4 address`},
		{"IPv6 pool", "[ip.pool.six]\nranges = [\"2001:db8::/64\"]\n[ppp.profile.a]\nremote-address = \"six\"\n", `c.toml:4: ppp.profile.a.remote-address: pool "six" holds no IPv4 addresses`},
		{"both ends", "[ppp.profile.a]\nlocal-address = \"10.0.0.1\"\nremote-address = \"10.0.0.1\"\n", `c.toml:3: ppp.profile.a.remote-address: 10.0.0.1 is our own end of the link`},
		{"dns", "[ppp.profile.a]\ndns-server = [\"1.1.1.1\", \"::1\"]\n", `c.toml:2: ppp.profile.a.dns-server: ::1 is not an IPv4 address, and IPCP carries no other`},
		{"three dns", "[ppp.profile.a]\ndns-server = [\"1.1.1.1\", \"1.1.1.2\", \"1.1.1.3\"]\n", `c.toml:2: ppp.profile.a.dns-server: PPP carries 2 of them, not 3`},
		{"list of numbers", "[ppp.profile.a]\ndns-server = [1]\n", `c.toml:2: ppp.profile.a.dns-server: element 1 is not text in quotes`},
		{"mppe required", "[ppp.profile.a]\nuse-encryption = \"required\"\n", `c.toml:2: ppp.profile.a.use-encryption: not supported by this version yet: MPPE encryption: IPsec encrypts (use-ipsec = "required")`},
		{"rate", "[ppp.profile.a]\nrate-limit = \"10Q\"\n", `c.toml:2: ppp.profile.a.rate-limit: "10Q" is not a rate: write it as "10M/2M" (from the client/to the client), k, M or G`},
		{"duration", "[ppp.profile.a]\nidle-timeout = \"soon\"\n", `c.toml:2: ppp.profile.a.idle-timeout: "soon" is not a time: write it as "30s", "5m", "8h", "1d" or "2w"`},
		{"duration without unit", server + "keepalive-timeout = 30\n", `c.toml:3: l2tp.server.keepalive-timeout: 30 has no unit: write "30s"`},
		{"duration in quotes without unit", server + "keepalive-timeout = \"30\"\n", `c.toml:3: l2tp.server.keepalive-timeout: "30" has no unit: write "30s"`},
		{"script", "[ppp.profile.a]\non-up = \"up.sh\"\n", `c.toml:2: ppp.profile.a.on-up: "up.sh" is not an absolute path`},
		{"interface name", "[ppp.profile.a]\nbridge = \"a bridge too long\"\n", `c.toml:2: ppp.profile.a.bridge: "a bridge too long" cannot name an interface: 1 to 15 letters and digits`},
		{"no password", "[ppp.secret.a]\n", `c.toml:1: ppp.secret.a.password: is missing (password = "" is an empty one)`},
		{"password of the wrong type is not shown", "[ppp.secret.a]\npassword = 12345\n", `c.toml:2: ppp.secret.a.password: a secret is text in quotes`},
		{"profile", "[ppp.secret.a]\npassword = \"x\"\nprofile = \"defualt\"\n", `c.toml:3: ppp.secret.a.profile: there is no profile "defualt": did you mean "default"?`},
		{"route", "[ppp.secret.a]\npassword = \"x\"\nroutes = [\"10.0.0.1/24\"]\n", `c.toml:3: ppp.secret.a.routes: 10.0.0.1/24 has host bits set: write 10.0.0.0/24`},
		{"route gateway", "[ppp.secret.a]\npassword = \"x\"\nroutes = [\"10.0.0.0/24 here\"]\n", `c.toml:3: ppp.secret.a.routes: gateway "here" is not an address`},
		{"route protocol", "[ppp.secret.a]\npassword = \"x\"\nroutes = [\"10.0.0.0/24 ::1\"]\n", `c.toml:3: ppp.secret.a.routes: gateway ::1 does not speak the protocol of 10.0.0.0/24`},
		{"radius", "[ppp.aaa]\nuse-radius = true\n", "c.toml:2: ppp.aaa.use-radius: not supported by this version yet: RADIUS: users are those of [ppp.secret]"},
		{"radius secret", "[radius.a]\naddress = \"192.0.2.1\"\n", "c.toml:1: radius.a.secret: is missing: RADIUS protects nothing without one"},
		{"no ipsec secret", "[l2tp.server]\n", `c.toml:1: l2tp.server.ipsec-secret: is missing: write the pre-shared key that clients have, or use-ipsec = "no"`},
		{"empty ipsec secret", "[l2tp.server]\nipsec-secret = \"\"\n", `c.toml:2: l2tp.server.ipsec-secret: is missing: write the pre-shared key that clients have, or use-ipsec = "no"`},
		{"method", server + "authentication = [\"mschap2\", \"mschapv2\"]\n", `c.toml:3: l2tp.server.authentication: "mschapv2" is not one of pap, chap, mschap1, mschap2`},
		{"no method", server + "authentication = []\n", `c.toml:3: l2tp.server.authentication: nothing is allowed: name at least one of pap, chap, mschap1, mschap2`},
		{"listen", server + "listen = [\"1701\"]\n", `c.toml:3: l2tp.server.listen: "1701" is not an address and port such as "0.0.0.0:1701" or "[::]:1701"`},
		{"listen nowhere", server + "listen = []\n", `c.toml:3: l2tp.server.listen: is empty: write ["0.0.0.0:1701", "[::]:1701"], or enabled = false`},
		{"mtu", server + "max-mtu = 100\n", `c.toml:3: l2tp.server.max-mtu: 100 is not within 512..9000`},
		{"mrru", server + "mrru = \"off\"\n", `c.toml:3: l2tp.server.mrru: "off" is neither "disabled" nor a number`},
		{"cookie", server + "l2tpv3-cookie-length = 5\n", `c.toml:3: l2tp.server.l2tpv3-cookie-length: "5" is not one of 0, 4, 8`},
		{"only v3", server + "accept-proto-version = \"l2tpv3\"\n", `c.toml:3: l2tp.server.accept-proto-version: not supported by this version yet: L2TPv3`},
		{"knockers", server + "allowed-address = [\"10.0.0.1/8\"]\n", `c.toml:3: l2tp.server.allowed-address: 10.0.0.1/8 has host bits set: write 10.0.0.0/8`},
		{"default profile", server + "default-profile = \"x\"\n", `c.toml:3: l2tp.server.default-profile: there is no profile "x": write [ppp.profile.x]`},
		{"binding", "[l2tp.binding.a]\nuser = \"bob\"\n", `c.toml:2: l2tp.binding.a.user: there is no user "bob": write [ppp.secret.bob]`},
		{"bound twice", "[ppp.secret.bob]\npassword=\"x\"\n[l2tp.binding.a]\nuser = \"bob\"\n[l2tp.binding.b]\nuser = \"bob\"\n", `c.toml:6: l2tp.binding.b.user: "bob" is bound to "a" already`},
		{"interface name taken", "[ppp.secret.bob]\npassword=\"x\"\n[l2tp.binding.a]\nuser = \"bob\"\n[l2tp.client.a]\nconnect-to = \"vpn.example\"\n", `c.toml:5: l2tp.client.a: the interface name "a" is taken by a binding`},
		{"client without a server", "[l2tp.client.a]\n", "c.toml:1: l2tp.client.a.connect-to: is missing: write the server's address or name"},
		{"client address", "[l2tp.client.a]\nconnect-to = \"1.2.3.400\"\n", `c.toml:2: l2tp.client.a.connect-to: "1.2.3.400" is not an address`},
		{"client secret", "[l2tp.client.a]\nconnect-to = \"vpn\"\nuse-ipsec = true\n", "c.toml:1: l2tp.client.a.ipsec-secret: is missing: use-ipsec needs the pre-shared key of the other end, or an [ipsec.identity] of this name with a certificate"},
		{"unmanaged", "[l2tp.ether.a]\nconnect-to = \"vpn\"\nunmanaged-mode = true\nlocal-tunnel-id = 1\nremote-tunnel-id = 1\nlocal-session-id = 1\n", "c.toml:1: l2tp.ether.a.remote-session-id: is missing: nobody negotiates it in unmanaged-mode"},
		{"cookie value", "[l2tp.ether.a]\nconnect-to = \"vpn\"\nsend-cookie = \"0102\"\n", `c.toml:3: l2tp.ether.a.send-cookie: "0102" is not a cookie: 8 or 16 hexadecimal digits`},
		{"mac", "[l2tp.ether.a]\nconnect-to = \"vpn\"\nmac-address = \"01:00:00:00:00:01\"\n", `c.toml:3: l2tp.ether.a.mac-address: "01:00:00:00:00:01" is neither "auto" nor a station's MAC address such as "02:00:00:00:00:01"`},
		{"cipher", "[ipsec.profile.default]\nenc-algorithm = [\"aes\"]\n", `c.toml:2: ipsec.profile.default.enc-algorithm: "aes" is not one of aes-256, aes-192, aes-128, 3des`},
		{"cipher twice", "[ipsec.profile.default]\nenc-algorithm = [\"aes-256\", \"aes-256\"]\n", `c.toml:2: ipsec.profile.default.enc-algorithm: "aes-256" is named twice`},
		{"group", "[ipsec.profile.default]\ndh-group = [\"modp768\"]\n", `c.toml:2: ipsec.profile.default.dh-group: "modp768" is not one of modp1024, modp1536, modp2048, modp3072, modp4096, ecp256, ecp384, ecp521, x25519`},
		{"pfs", "[ipsec.proposal.default]\npfs-group = \"modp2049\"\n", `c.toml:2: ipsec.proposal.default.pfs-group: "modp2049" is not one of none, modp1024, modp1536, modp2048, modp3072, modp4096, ecp256, ecp384, ecp521, x25519`},
		{"lifetime", "[ipsec.proposal.default]\nlifetime = \"1s\"\n", `c.toml:2: ipsec.proposal.default.lifetime: 1s is not within 10s..7101w3d6h28m15s`},
		{"no hash", "[ipsec.proposal.default]\nauth-algorithms = []\n", `c.toml:2: ipsec.proposal.default.auth-algorithms: nothing is allowed: name at least one of sha512, sha384, sha256, sha1, md5`},
		{"peer profile", server + "[ipsec.peer.l2tp-in]\nprofile = \"x\"\n", `c.toml:4: ipsec.peer.l2tp-in.profile: there is no profile "x": write [ipsec.profile.x]`},
		{"peer without an address", "[ipsec.peer.a]\n", `c.toml:1: ipsec.peer.a.address: is missing: write the networks of the peer, such as ["198.51.100.7"]`},
		{"identity without a peer", "[ipsec.identity.l2tp-inn]\nsecret = \"x\"\n", `c.toml:1: ipsec.identity.l2tp-inn: belongs to no peer: did you mean "l2tp-in"?`},
		{"key of two users", server + "[ppp.secret.a]\npassword = \"x\"\nipsec-secret = \"a key of one\"\n[ppp.secret.b]\npassword = \"x\"\nipsec-secret = \"a key of one\"\n",
			"c.toml:8: ppp.secret.b.ipsec-secret: user a has the same: a key of one's own tells who it is"},
		{"key of everybody", server + "[ppp.secret.a]\npassword = \"x\"\nipsec-secret = \"long enough\"\n",
			"c.toml:5: ppp.secret.a.ipsec-secret: is the server's ipsec-secret, which everybody has"},
		{"remote-id", server + "[ipsec.identity.l2tp-in]\nremote-id = \"office\"\n",
			`c.toml:4: ipsec.identity.l2tp-in.remote-id: "office" is not auto, or address:, fqdn:, user-fqdn: or key-id: and a value, such as "fqdn:office.example.com"`},
		{"my-id", server + "[ipsec.identity.l2tp-in]\nmy-id = \"user-fqdn:me\"\n", `c.toml:4: ipsec.identity.l2tp-in.my-id: "me" is no user-fqdn`},
		{"lifebytes", server + "[ipsec.proposal.default]\nlifebytes = \"5x\"\n", `c.toml:4: ipsec.proposal.default.lifebytes: "5x" is not a volume of at least 1M, such as "500M" or "4G"`},
		{"little lifebytes", server + "[ipsec.proposal.default]\nlifebytes = \"100k\"\n", `c.toml:4: ipsec.proposal.default.lifebytes: "100k" is not a volume of at least 1M, such as "500M" or "4G"`},
		{"too many lifebytes", server + "[ipsec.proposal.default]\nlifebytes = \"99999999999T\"\n", `c.toml:4: ipsec.proposal.default.lifebytes: "99999999999T" is not a volume of at least 1M, such as "500M" or "4G"`},
		{"two secrets", server + "[ipsec.identity.l2tp-in]\nsecret = \"another\"\n", `c.toml:4: ipsec.identity.l2tp-in.secret: l2tp.server.ipsec-secret says another: write it once`},
		{"signature with aggressive", server + "[ipsec.identity.l2tp-in]\nauth-method = \"digital-signature\"\n[ipsec.peer.l2tp-in]\nexchange-mode = \"aggressive\"\n", "c.toml:6: ipsec.peer.l2tp-in.exchange-mode: aggressive has pre-shared keys only: certificates need main or main-l2tp"},
		{"mask", "[ipsec]\nmark-mask = \"0x7f0f0000\"\n", "c.toml:2: ipsec.mark-mask: 0x7f0f0000 has gaps: the bits of a mask stand together"},
		{"narrow mask", "[ipsec]\nmark-mask = 7\n", "c.toml:2: ipsec.mark-mask: 0x7 leaves room for 7 clients: give it 8 bits or more"},
		{"wide mask", "[ipsec]\nmark-mask = \"0x100000000\"\n", "c.toml:2: ipsec.mark-mask: 0x100000000 is not a mask of 32 bits"},
		{"half-open", "[ipsec]\nhalf-open = 0\n", "c.toml:2: ipsec.half-open: 0 is not within 1..100000"},
		{"terminal control characters do not get through", "[\"sys\\u001b[31mtem\"]\n", `c.toml:1: "sys\u001b[31mtem": unknown table`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fatal, _ := problems(t, tt.text)
			if len(fatal) != 1 || fatal[0] != tt.want {
				t.Errorf("\n got %s\nwant %s", strings.Join(fatal, "\n     "), tt.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"weak method", server + "authentication = [\"pap\"]\n", "c.toml:3: l2tp.server.authentication: warning: pap is weak: the password crosses the link in the clear"},
		{"key without IPsec", "[l2tp.server]\nuse-ipsec = \"no\"\n[ppp.secret.a]\npassword = \"x\"\nipsec-secret = \"a key of one\"\ndisabled = true\n",
			"c.toml:5: ppp.secret.a.ipsec-secret: warning: not used: l2tp.server.use-ipsec is off"},
		{"chacha alone", server + "[ipsec.proposal.default]\nenc-algorithms = [\"chacha20-poly1305\"]\nauth-algorithms = []\n", "c.toml:4: ipsec.proposal.default.enc-algorithms: warning: chacha20-poly1305 alone: only other culverts have it in IKEv1"},
		{"short secret", "[l2tp.server]\nipsec-secret = \"1234\"\n", "c.toml:2: l2tp.server.ipsec-secret: warning: 4 octets are soon guessed: clients that know it can pose as this server"},
		{"empty password", "[ppp.secret.a]\npassword = \"\"\nremote-address = \"10.0.0.2\"\nlocal-address = \"10.0.0.1\"\n", "c.toml:2: ppp.secret.a.password: warning: empty: whoever knows the name is let in"},
		{"no address to give", "[ppp.secret.a]\npassword = \"x\"\nlocal-address = \"10.0.0.1\"\n", `c.toml:1: ppp.secret.a.remote-address: warning: neither this user nor profile "default-encryption" has a remote-address: there is no address to give`},
		{"mppe", "[ppp.profile.p]\nuse-encryption = \"yes\"\n", `c.toml:2: ppp.profile.p.use-encryption: not supported by this version yet: MPPE encryption: IPsec encrypts (use-ipsec = "required")`},
		{"firewall", "[ip.firewall]\nmasquerade = [\"eth0\"]\n", "c.toml:2: ip.firewall.masquerade: warning: not used: manage is off"},
		{"unused peer", "[ipsec.peer.l2tp-in]\nprofile = \"default\"\n", "c.toml:1: ipsec.peer.l2tp-in: warning: not used: l2tp.server.use-ipsec makes this peer, and it is off"},
		{"multilink", server + "mrru = 1600\n", "c.toml:3: l2tp.server.mrru: not supported by this version yet: multilink PPP (mrru)"},
		{"weak pfs", "[ipsec.proposal.a]\npfs-group = \"modp1024\"\n", "c.toml:2: ipsec.proposal.a.pfs-group: warning: modp1024 is weak: states are believed to break it (CVE-2015-4000)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fatal, other := problems(t, tt.text)
			if len(fatal) != 0 || len(other) != 1 || other[0] != tt.want {
				t.Errorf("\n got %q, fatal %q\nwant %q", other, fatal, tt.want)
			}
		})
	}
}

// All problems come at once, in the order of the file.
func TestAllAtOnce(t *testing.T) {
	fatal, other := problems(t, "[system]\nx = 1\n[ip.pool.a]\nranges = [\"a\", \"b\"]\n[ppp.secret.u]\npassword = \"\"\n[l2tp.server]\nuse-ipsec = \"maybe\"\nmax-mtu = 1\n")
	if len(fatal) != 5 || len(other) != 1 || !slices.IsSortedFunc(fatal, strings.Compare) {
		t.Errorf("fatal %q other %q", fatal, other)
	}
}

func TestUseIPsec(t *testing.T) {
	for word, want := range map[string]l2tp.Protection{`"no"`: l2tp.ProtectionNone, "false": l2tp.ProtectionNone, `"yes"`: l2tp.ProtectionOffered,
		"true": l2tp.ProtectionOffered, `"required"`: l2tp.ProtectionRequired} {
		c := mustParse(t, server+"use-ipsec = "+word+"\n")
		if c.Server.UseIPsec != want || c.Server.L2TP.Protection != want || (len(c.IPsec.Peers) == 1) != (want != l2tp.ProtectionNone) {
			t.Errorf("use-ipsec = %s: %v, %d peers", word, c.Server.UseIPsec, len(c.IPsec.Peers))
		}
	}
}

func TestByteOrderMark(t *testing.T) {
	if c := mustParse(t, "\xef\xbb\xbf[system]\nidentity = \"x\"\n"); c.System.Identity != "x" {
		t.Error(c.System.Identity)
	}
}

func TestLoadMode(t *testing.T) {
	secret := server
	for _, tt := range []struct {
		text string
		mode os.FileMode
		want string // of the error; "" is none
	}{
		{secret, 0o600, ""},
		{secret, 0o640, ""},
		{secret, 0o644, ":2: l2tp.server.ipsec-secret: a secret in a file that everyone may read (mode 0644): chmod 600 "},
		{"[system]\nallow-world-readable = true\n" + secret, 0o644, ""},
		{"[system]\nallow-world-readable = true\n" + secret, 0o646, ": anyone may change it (mode 0646): chmod 600 "},
		{"[system]\nidentity = \"x\"\n", 0o644, ""},
		{"[ppp.secret.a]\npassword = \"\"\n", 0o644, ""},
	} {
		path := filepath.Join(t.TempDir(), "c.toml")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), path+tt.want)) {
			t.Errorf("mode %o of %q: %v", tt.mode, tt.text, err)
		}
	}
	if _, err := Load(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Error(err)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{"60s": time.Minute, "8h": 8 * time.Hour, "1d": 24 * time.Hour, "2w": 14 * 24 * time.Hour,
		"1w2d3h": 9*24*time.Hour + 3*time.Hour, "300ms": 300 * time.Millisecond, "0s": 0, "0": 0, "1.5h": 90 * time.Minute} {
		if got, err := ParseDuration(s); got != want || err != nil {
			t.Errorf("%q: %v %v", s, got, err)
		}
	}
	for _, s := range []string{"", "d", "-1s", "1d-1h", "5", "1y", "99999999999999999999d", "1h1d", "9999999w", "1 d"} {
		if d, err := ParseDuration(s); err == nil {
			t.Errorf("%q is %v", s, d)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", time.Minute + 30*time.Second: "1m30s", 36 * time.Hour: "1d12h", 300 * time.Millisecond: "300ms", -time.Second: "-1s"} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v is written %q", d, got)
		}
	}
}

func TestLines(t *testing.T) {
	src := `a = 1 # = 2
[t."x y".'z'] # comment ]
b = [ # three
  "one", 'two]',
  """th
ree""", { c = 4, d.e = [5,
  6] },
]
f = """
[not.a.table]
g = 1
"""
"h\ti" = '''
x'''
[[arr]]
j = "a\"b" # "
k.l = { m = 1 }
`
	got := scanLines(src)
	for key, want := range map[string]int{"a": 1, "t": 2, "t|x y|z": 2, "t|x y|z|b": 3, "t|x y|z|b|d|e": 6, "t|x y|z|b|c": 6, "t|x y|z|f": 9,
		"t|x y|z|h\ti": 13, "arr|j": 16, "arr|k|l|m": 17} {
		if n := got[lineKey(strings.Split(key, "|"))]; n != want {
			t.Errorf("%s is at line %d, want %d", key, n, want)
		}
	}
	for i, want := range []int{4, 4, 5, 6} {
		if n := got[elementKey([]string{"t", "x y", "z", "b"}, i)]; n != want {
			t.Errorf("element %d is at line %d, want %d", i, n, want)
		}
	}
	if _, ok := got[lineKey([]string{"not", "a", "table"})]; ok {
		t.Error("a table within a string was taken for one")
	}
}

func FuzzParse(f *testing.F) {
	full, err := os.ReadFile("testdata/full.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(server + "listen = [[1]]\nuse-ipsec = {a = 1}\n[[ipsec]]\n[ppp]\nsecret = [1]\n"))
	f.Add([]byte("a = [{b = [{c = \"\\u0000"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("config %v with error %v", c, err)
		}
		if err == nil {
			if err := c.AAA.Validate(); err != nil {
				t.Fatalf("accepted, but aaa finds %v", err)
			}
			return
		}
		var e *Error
		if !errors.As(err, &e) || len(e.Problems) == 0 {
			t.Fatalf("%T: %v", err, err)
		}
		for _, p := range e.Problems {
			if strings.ContainsFunc(p.String(), func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
				t.Fatalf("control characters in %q", p.String())
			}
		}
	})
}

// Who may not knock is not answered by IKE either, however the peer is written.
func TestAllowedAddress(t *testing.T) {
	for _, extra := range []string{"", "[ipsec.peer.l2tp-in]\nexchange-mode = \"main\"\n"} {
		c := mustParse(t, server+"allowed-address = [\"192.0.2.0/24\"]\n"+extra)
		want := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		if !slices.Equal(c.IPsec.Peers[0].Remote, want) || !slices.Equal(c.Server.L2TP.Allowed, want) {
			t.Errorf("IKE %v, L2TP %v", c.IPsec.Peers[0].Remote, c.Server.L2TP.Allowed)
		}
	}
	c := mustParse(t, server+"allowed-address = [\"192.0.2.0/24\"]\n[ipsec.peer.l2tp-in]\naddress = [\"198.51.100.0/24\"]\n")
	if want := netip.MustParsePrefix("198.51.100.0/24"); c.IPsec.Peers[0].Remote[0] != want {
		t.Errorf("an address of the peer's own: %v", c.IPsec.Peers[0].Remote)
	}
}

// A key for each user makes the one for all unnecessary; users that are disabled have none.
func TestUserKeys(t *testing.T) {
	c := mustParse(t, `
[l2tp.server]
[ppp.secret.carol]
password = "x"
ipsec-secret = "carol's own key"
[ppp.secret.bob]
password = "x"
ipsec-secret = "bob's own key"
[ppp.secret.dave]
password = "x"
disabled = true
ipsec-secret = "dave's own key"
[ppp.secret.erin]
password = "x"
[ipsec.identity.l2tp-in]
my-id = "fqdn:vpn.example.com"
remote-id = "auto"
`)
	p := c.IPsec.Peers[0]
	if len(c.IPsec.Peers) != 1 || len(p.Secret) != 0 || len(p.Keys) != 2 || p.Keys[0].User != "bob" || p.Keys[1].User != "carol" || string(p.Keys[1].Secret) != "carol's own key" {
		t.Errorf("%d peers, keys %+v", len(c.IPsec.Peers), p.Keys)
	}
	if p.ID != "vpn.example.com" || p.RemoteID != "" {
		t.Errorf("ids %q %q", p.ID, p.RemoteID)
	}
}
