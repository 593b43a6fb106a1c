package config

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"unicode/utf8"

	"culvert/cmd/culvert/internal/crypt"
	"culvert/cmd/culvert/internal/logring"
)

// system reads `[system]`, `[user]`, `[log]` and `[ip.firewall]`.
func (r *reader) system(root *table, c *Config) {
	t := root.sub("system")
	c.System = System{Identity: "culvert", DataPath: DataPathAuto, CryptoEngine: "auto"}
	if t.str("identity", &c.System.Identity) {
		// It is the Host Name AVP and the name in CHAP challenges too.
		if n := len(c.System.Identity); n == 0 || n > 64 || !utf8.ValidString(c.System.Identity) || strings.ContainsFunc(c.System.Identity, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			t.fail("identity", "%q is not a name of 1 to 64 printable octets", c.System.Identity)
		}
	}
	choice(t, "data-path", &c.System.DataPath, []string{"auto", "kernel", "userspace"}, DataPathAuto, DataPathKernel, DataPathUserspace)
	if t.str("crypto-engine", &c.System.CryptoEngine) && (c.System.CryptoEngine == "" || strings.ContainsAny(c.System.CryptoEngine, " \t\n")) {
		t.fail("crypto-engine", "%q is not one of auto, hardware, software, or the name of a kernel driver", c.System.CryptoEngine)
	}
	t.boolean("allow-world-readable", &c.System.AllowWorldReadable)
	r.board(t, &c.System)
	t.done()

	c.Users = map[string]User{}
	root.sub("user").each("user", func(name string, t *table) {
		u := User{Name: name}
		if t.secret("password-hash", &u.PasswordHash) && u.PasswordHash != "" {
			if !strings.HasPrefix(u.PasswordHash, "$") {
				t.fail("password-hash", "not a crypt(3) hash such as $6$...: a password itself does not belong here (make a hash with `openssl passwd -6`)")
			} else if err := crypt.Supported(u.PasswordHash); err != nil {
				t.fail("password-hash", "%s", err)
			}
		}
		t.str("comment", new(string))
		choice(t, "group", &u.ReadOnly, []string{"full", "read"}, false, true)
		if u.PasswordHash == "" {
			t.warn("password-hash", "empty: this user cannot log in")
		}
		c.Users[name] = u
	})
	c.Log = logring.DefaultConfig()
	t = root.sub("log")
	var topics []string
	if t.list("topics", func(s string) error {
		topics = append(topics, s)
		_, err := logring.ParseFilter([]string{s})
		return err
	}) {
		c.Log.Topics = topics
	}
	t.preset("topics", c.Log.Topics)
	t.integer("ring", 0, 100000, &c.Log.Ring)
	var remote string
	if t.str("remote", &remote) && remote != "" {
		hostport, ok := strings.CutPrefix(remote, "udp://")
		host, port, err := net.SplitHostPort(hostport)
		n, isPort := decimal(port)
		if !ok || err != nil || host == "" || !isPort || n == 0 || n > 65535 {
			t.fail("remote", `%q is not a syslog server such as "udp://192.0.2.9:514"`, remote)
		}
		c.Log.Remote = hostport
	}
	t.done()

	ip := root.sub("ip")
	r.pools(ip.sub("pool"), c)
	t = ip.sub("firewall")
	t.boolean("manage", &c.Firewall.Manage)
	ok := t.list("masquerade", func(s string) error {
		if err := checkIfname(s); err != nil {
			return err
		}
		c.Firewall.Masquerade = append(c.Firewall.Masquerade, s)
		return nil
	})
	if ok && len(c.Firewall.Masquerade) > 0 && !c.Firewall.Manage {
		t.warn("masquerade", "not used: manage is off")
	}
	t.done()
	ip.done()
}

// Firewall is `[ip.firewall]`.
type Firewall struct {
	Manage     bool
	Masquerade []string // interfaces by which users leave with the router's address
}

// hostOrAddr reads where a client connects to: an address or a host name, and perhaps `@vrf`.
func hostOrAddr(s string) (host, vrf string, err error) {
	host, vrf, _ = strings.Cut(s, "@")
	if vrf != "" {
		if err := checkIfname(vrf); err != nil {
			return "", "", err
		}
	} else if strings.HasSuffix(s, "@") {
		return "", "", fmt.Errorf("%q names no VRF after the @", s)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return "", "", fmt.Errorf("nothing can be reached at %s", host)
		}
		return host, vrf, nil
	}
	if host == "" || len(host) > 253 {
		return "", "", fmt.Errorf("%q is neither an address nor a host name", s)
	}
	digits := true
	for _, label := range strings.Split(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(c rune) bool {
			return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}) {
			return "", "", fmt.Errorf("%q is neither an address nor a host name", s)
		}
		_, isNumber := decimal(label)
		digits = digits && isNumber
	}
	if digits {
		return "", "", fmt.Errorf("%q is %w", s, errNoAddress)
	}
	return host, vrf, nil
}
