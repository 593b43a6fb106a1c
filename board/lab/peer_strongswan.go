package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// IKE says how strongSwan shall negotiate. The zero value of a field is what it does by default.
type IKE struct {
	PSK        string
	Certs      *Certs        // instead of PSK
	Proposals  string        // phase 1 in strongSwan's words: "aes256-sha256-modp2048"
	ESP        string        // phase 2; with a group at the end it asks for PFS
	Rekey      time.Duration // phase 2 is renewed that often by strongSwan
	Reauth     time.Duration // phase 1 is renewed that often
	DPD        time.Duration // idle time after which it asks whether the peer lives
	Port       int           // source port in phase 2's identity; 0: any
	Persistent bool          // a lost peer is called again as soon as there is something to send
	Aggressive bool
	LocalID    string
	Retransmit time.Duration // the first wait for an answer; 0: strongSwan's own 4 s. Windows waits for 1 s
	Fragments  int           // messages longer than that are sent in pieces, whether the server has announced it or not; 0: strongSwan's own rule
}

// Certs are certificates for strongSwan, and whose it trusts. All of it is PEM.
type Certs struct {
	Certificate, Key string
	Authorities      []string // roots, and what stands between them and the certificates
	RemoteID         string   // how the peer has to show itself; empty: as its certificate says
}

// Secures reports whether there is anything to authenticate with: without it L2TP is plain.
func (k IKE) Secures() bool { return k.PSK != "" || k.Certs != nil }

// A Charon is strongSwan's IKE daemon on a node.
type Charon struct {
	*Daemon
	node *Node
}

// strongswanConf loads what IKEv1 needs and no more: a daemon takes a tenth of the memory and of the
// time to start.
const strongswanConf = `charon {
	load = random nonce openssl pem pkcs1 pkcs8 x509 pubkey hmac kdf gmp curve25519 kernel-netlink socket-default vici
	threads = 8
	install_routes = no
	install_virtual_ip = no
	i_dont_care_about_security_and_use_aggressive_mode_psk = yes
	filelog {
		stderr {
			time_format = %T
			default = 1
			flush_line = yes
		}
	}
}
swanctl {
	load = random openssl pem pkcs1 pkcs8
}
`

// Charon starts strongSwan's daemon, without any connection.
func (n *Node) Charon() (*Charon, error) {
	n.WriteFile("/etc/strongswan.conf", strongswanConf)
	d, err := n.StartDaemon("charon", "/usr/lib/ipsec/charon")
	if err != nil {
		return nil, err
	}
	c := &Charon{d, n}
	if !waitFor(n.lab.Context(), time.Minute, func() bool { return !d.Running() || n.accepts("/run/charon.vici") }) || !d.Running() {
		return nil, fmt.Errorf("charon did not start: %s", lastLines(d.Log(), 5))
	}
	return c, nil
}

// accepts reports whether a daemon of the node accepts connections on a unix socket.
func (n *Node) accepts(socket string) (ok bool) {
	n.Do(func() {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			ok = true
		}
	})
	return ok
}

// Load gives charon the connection to a peer (or, with the zero address, of any peer) in transport mode for L2TP.
func (c *Charon) Load(ctx context.Context, peer netip.Addr, ike IKE) error {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	seconds := func(d time.Duration) string { return fmt.Sprintf("%ds", int(max(d.Seconds(), 1))) }

	line("connections { l2tp { version = 1")
	if peer.IsValid() {
		line("remote_addrs = %v", peer)
	}
	if ike.Proposals != "" {
		line("proposals = %s", ike.Proposals)
	}
	if ike.Aggressive {
		line("aggressive = yes")
	}
	if ike.Reauth > 0 {
		line("reauth_time = %s\nover_time = %s\nrand_time = 0s", seconds(ike.Reauth), seconds(ike.Reauth))
	}
	if ike.DPD > 0 {
		line("dpd_delay = %s\ndpd_timeout = %s", seconds(ike.DPD), seconds(3*ike.DPD))
	}
	if ike.Fragments > 0 {
		line("fragmentation = force")
	}
	auth, certificate := "psk", ""
	if ike.Certs != nil {
		auth, certificate = "pubkey", "certs = lab.pem\n"
		c.node.WriteFile("/etc/swanctl/x509/lab.pem", ike.Certs.Certificate)
		c.node.WriteFile("/etc/swanctl/private/lab.pem", ike.Certs.Key)
		for i, ca := range ike.Certs.Authorities {
			c.node.WriteFile(fmt.Sprintf("/etc/swanctl/x509ca/lab%d.pem", i), ca)
		}
	}
	if ike.Certs != nil {
		line("send_cert = always")
	}
	line("local { auth = %s\n%s", auth, certificate)
	if ike.LocalID != "" {
		line("id = %s", ike.LocalID)
	}
	line("}\nremote { auth = %s", auth)
	if ike.Certs != nil && ike.Certs.RemoteID != "" {
		line("id = %s", ike.Certs.RemoteID)
	}
	line("}")
	line("children { l2tp { mode = transport")
	if ike.ESP != "" {
		line("esp_proposals = %s", ike.ESP)
	}
	if ike.Rekey > 0 {
		line("rekey_time = %s\nlife_time = %s\nrand_time = 0s", seconds(ike.Rekey), seconds(2*ike.Rekey+5*time.Second))
	}
	if ike.Persistent {
		line("dpd_action = restart\nclose_action = trap\nstart_action = trap")
	}
	local, remote := "dynamic[udp]", "dynamic[udp/1701]"
	if ike.Port != 0 {
		local = fmt.Sprintf("dynamic[udp/%d]", ike.Port)
	}
	if !peer.IsValid() { // a server: the clients choose their ports
		local, remote = "dynamic[udp/1701]", "dynamic[udp]"
	}
	line("local_ts = %s\nremote_ts = %s\nupdown =", local, remote)
	line("} } } }")
	if ike.PSK != "" {
		line("secrets { ike { secret = \"%s\" } }", ike.PSK)
	}
	c.node.WriteFile("/etc/swanctl/lab.conf", b.String())
	var settings string
	if ike.Fragments > 0 {
		settings += fmt.Sprintf("\n\tfragment_size = %d", ike.Fragments)
	}
	if ike.Retransmit > 0 {
		settings += fmt.Sprintf("\n\tretransmit_timeout = %g", ike.Retransmit.Seconds())
	}
	if settings != "" {
		c.node.WriteFile("/etc/strongswan.conf", strings.Replace(strongswanConf, "charon {", "charon {"+settings, 1))
		if out, err := c.node.Command(ctx, "swanctl", "--reload-settings").CombinedOutput(); err != nil {
			return fmt.Errorf("swanctl --reload-settings: %w: %s", err, lastLines(string(out), 5))
		}
	}
	out, err := c.node.Command(ctx, "swanctl", "--load-all", "--noprompt", "--file", "/etc/swanctl/lab.conf").CombinedOutput()
	if err != nil {
		return fmt.Errorf("swanctl --load-all: %w: %s", err, lastLines(string(out), 5))
	}
	return nil
}

// Initiate negotiates both phases.
func (c *Charon) Initiate(ctx context.Context, timeout time.Duration) error {
	out, err := c.node.Command(ctx, "swanctl", "--initiate", "--child", "l2tp", "--timeout", fmt.Sprint(int(timeout.Seconds()))).CombinedOutput()
	if err != nil {
		return fmt.Errorf("IKE: %w: %s", err, lastLines(string(out), 3))
	}
	return nil
}

// Terminate deletes the phase-1 SA and all under it, telling the peer.
func (c *Charon) Terminate(ctx context.Context) error {
	out, err := c.node.Command(ctx, "swanctl", "--terminate", "--ike", "l2tp", "--timeout", "10").CombinedOutput()
	if err != nil {
		return fmt.Errorf("swanctl --terminate: %w: %s", err, lastLines(string(out), 3))
	}
	return nil
}

// SAs returns charon's own list of its SAs.
func (c *Charon) SAs(ctx context.Context) string {
	out, _ := c.node.Command(ctx, "swanctl", "--list-sas").CombinedOutput()
	return string(out)
}
