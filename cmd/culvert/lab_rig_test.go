package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
)

// The end-to-end tests: culvert in the lab, on a real kernel, with strongSwan, xl2tpd and pppd as clients.
//
//	lan 192.168.88.10 ── server 192.0.2.1 ── internet ─┬─ clients 198.51.100.x
//	                                                   └─ nat 203.0.113.1 ── clients 10.0.0.x

const (
	labSecret   = "the shared secret"
	labUser     = "user1"
	labPassword = "correct horse"
	labLAN      = "192.168.88.0/24"
)

var (
	labServer = netip.MustParseAddr("192.0.2.1")
	labHost   = netip.MustParseAddr("192.168.88.10") // behind the server
	labInner  = netip.MustParseAddr("192.168.99.1")  // the server, inside the tunnels
)

// rigConfig says what differs from the usual configuration.
type rigConfig struct {
	Path      labPath
	Users     int    // user1 to userN, all with the same password; 1 when 0
	UseIPsec  string // "required" when empty
	Auth      string // "mschap2" when empty
	Keepalive string // "30s" when empty
	DPD       string // "2m" when empty
	Extra     string // more tables
	Prepare   func(server *lab.Node)
	Secret    string // more lines of user1's table
	Server    string // more lines of the server's table
	IPv6      string // another address of the server
}

func (c rigConfig) toml() string {
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	var b strings.Builder
	fmt.Fprintf(&b, `
[system]
identity = "lab"
data-path = %q

[ip.pool.vpn]
ranges = ["192.168.99.2-192.168.99.254"]

[ppp.profile.vpn]
local-address = %q
remote-address = "vpn"

[l2tp.server]
enabled = true
use-ipsec = %q
ipsec-secret = %q
authentication = [%q]
default-profile = "vpn"
keepalive-timeout = %q
%s

[ipsec.profile.default]
dpd-interval = %q
dpd-maximum-failures = 3
`, c.Path.setting(), labInner, or(c.UseIPsec, "required"), labSecret, or(c.Auth, "mschap2"), or(c.Keepalive, "30s"), c.Server, or(c.DPD, "2m"))
	for i := range max(c.Users, 1) {
		fmt.Fprintf(&b, "\n[ppp.secret.user%d]\npassword = %q\nprofile = \"vpn\"\n", i+1, labPassword)
		if i == 0 {
			b.WriteString(c.Secret + "\n")
		}
	}
	return b.String() + c.Extra
}

// rig is the laboratory with the server running in it.
type rig struct {
	*lab.L
	*lab.Culvert
	internet, server, lan, nat *lab.Node

	path     labPath
	pristine string // the kernel's state before the first client
}

func newRig(t *testing.T, l *lab.L, c rigConfig) *rig {
	t.Helper()
	r := &rig{L: l, internet: l.Internet(), path: c.Path}
	addrs := []string{labServer.String()}
	if c.IPv6 != "" {
		addrs = append(addrs, c.IPv6)
	}
	r.server = r.internet.Host("server", addrs...)
	r.server.Forward()
	r.lan = r.server.Host("lan", labHost.String())
	c.Path.prepare(r.server)
	if c.Prepare != nil {
		c.Prepare(r.server)
	}
	r.Culvert = l.Culvert(r.server, c.toml())
	c.Path.check(t, r.Culvert)
	r.pristine = r.kernelState()
	return r
}

// client makes a client node with its own address on the internet; i from 1 to 200.
func (r *rig) client(i int, change ...func(*lab.ClientConfig)) *lab.Client {
	r.Helper()
	return r.clientOn(r.internet.Host(fmt.Sprintf("client%d", i), fmt.Sprintf("198.51.100.%d", i)), i, change...)
}

// hidden makes a client node behind the NAT.
func (r *rig) hidden(i int, change ...func(*lab.ClientConfig)) *lab.Client {
	r.Helper()
	if r.nat == nil {
		r.nat = r.internet.NAT("nat", "203.0.113.1")
	}
	return r.clientOn(r.nat.Host(fmt.Sprintf("hidden%d", i), fmt.Sprintf("10.0.0.%d", i)), i, change...)
}

func (r *rig) clientOn(n *lab.Node, i int, change ...func(*lab.ClientConfig)) *lab.Client {
	c := lab.ClientConfig{
		Server: labServer, User: fmt.Sprintf("user%d", i), Password: labPassword,
		IKE: lab.IKE{PSK: labSecret, Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha256"},
	}
	for _, f := range change {
		f(&c)
	}
	return lab.NewClient(n, c)
}

func port1701(c *lab.ClientConfig) { c.IKE.Port = 1701 }

// connect connects and gives the client its route to the server's LAN.
func (r *rig) connect(c *lab.Client) netip.Addr {
	r.Helper()
	addr, err := c.Connect(r.Context())
	if err != nil {
		r.Fatalf("connect: %v", err)
	}
	c.IP("route replace " + labLAN + " dev ppp0")
	return addr
}

// reaches checks that packets pass both ways between a client and the server, and a host behind it.
func (r *rig) reaches(c *lab.Client, addr netip.Addr) {
	r.Helper()
	for _, p := range []struct {
		from *lab.Node
		to   netip.Addr
	}{{c.Node, labInner}, {c.Node, labHost}, {r.lan, addr}} {
		if _, err := p.from.Ping(p.to, 10*time.Second); err != nil {
			r.Errorf("ping: %v", err)
		}
	}
}

// kernelState is everything that a session may leave in the server's kernel.
func (r *rig) kernelState() string {
	r.Helper()
	var b strings.Builder
	b.WriteString(r.server.IPsecState())
	for _, i := range r.server.Interfaces("") {
		if i.Name != "lo" && !strings.HasPrefix(i.Name, "eth") && i.Name != "lan" {
			fmt.Fprintf(&b, "\ninterface %s", i.Name)
		}
	}
	fmt.Fprintf(&b, "\nroutes:\n%s", r.server.Run("ip", "route"))
	rules, _ := r.server.Command(r.Context(), "nft", "list", "ruleset").CombinedOutput() // fails without nf_tables, always
	fmt.Fprintf(&b, "rules:\n%s", rules)
	if s, err := r.server.ReadFile("/proc/thread-self/net/pppol2tp"); err == nil {
		for _, line := range strings.Split(string(s), "\n") {
			if strings.HasPrefix(line, "TUNNEL '") || strings.HasPrefix(line, "  SESSION '") {
				b.WriteString(line + "\n")
			}
		}
	}
	return b.String()
}

// left is what the sessions have left behind, in the kernel and in the server's own tables; empty when nothing.
func (r *rig) left() string {
	r.Helper()
	var b strings.Builder
	for _, command := range []string{"/ppp active print", "/ip pool used print", "/interface l2tp-server print", "/ip ipsec installed-sa print"} {
		if rows := r.Rows(command); len(rows) > 0 {
			fmt.Fprintf(&b, "%s: %v\n", command, rows)
		}
	}
	if s := r.kernelState(); s != r.pristine {
		fmt.Fprintf(&b, "kernel, before the first client:\n%s\nand now:\n%s\n", r.pristine, s)
	}
	return b.String()
}

// clean checks that nothing of any session is left, or will be in a moment.
func (r *rig) clean() {
	r.Helper()
	if !r.WaitFor(10*time.Second, func() bool { return r.left() == "" }) {
		r.Errorf("left behind: %s", r.left())
	}
}

// refusal connects and returns the error, nil when the server let the client in.
func refusal(ctx context.Context, c *lab.Client) error {
	_, err := c.Connect(ctx)
	return err
}

var errLetIn = errors.New("the client was let in")

// inLab is lab.Run for a test of the server.
func inLab(t *testing.T, f func(t *testing.T, l *lab.L), opts ...lab.Option) {
	t.Helper()
	lab.Run(t, f, append([]lab.Option{lab.Build(lab.CulvertCommand), lab.Parallel()}, opts...)...)
}
