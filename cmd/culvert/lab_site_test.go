package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
)

// TestLabClientSite: culvert on both sides, or strongSwan on the other, with what routers need besides: networks behind
// both ends, other transports, other settings of IPsec.
func TestLabClientSite(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		t.Run("site to site", func(t *testing.T) { siteToSite(t, l.Sub(t), pathKernel) })
		t.Run("IPv6 outside", func(t *testing.T) { overIPv6(t, l.Sub(t), pathKernel) })
		t.Run("VRF", func(t *testing.T) { inVRF(t, l.Sub(t), pathKernel) })
		t.Run("answers from elsewhere", func(t *testing.T) { answersElsewhere(t, l.Sub(t), pathKernel) })
		t.Run("settings", func(t *testing.T) { callSettings(t, l.Sub(t), pathKernel) })
		t.Run("SoftEther", func(t *testing.T) { callsSoftEther(t, l.Sub(t)) })
	}, lab.Kernels("6.12"), lab.Timeout(8*time.Minute))
}

// clientTOML is a client that calls the rig's server as user i.
func clientTOML(i int, connect, more string) string {
	return fmt.Sprintf("[l2tp.client.l2tp-out%d]\nconnect-to = %q\nuser = \"user%d\"\npassword = %q\nuse-ipsec = true\nipsec-secret = %q\n%s\n",
		i, connect, i, labPassword, labSecret, more)
}

// siteToSite is RouterOS's manual: two routers, a network behind each, and a remote client that has an address of the
// server's network and is a host of it (proxy ARP). TCP gets through although nobody fragments.
func siteToSite(t *testing.T, l *lab.L, path labPath) {
	const home = "192.168.55.0/24"
	server := newRig(t, l, rigConfig{Path: path, Users: 1, Secret: "routes = [\"" + home + "\"]", Extra: `
[ppp.profile.lan]
local-address = "192.168.88.1"
remote-address = "192.168.88.200"
arp-proxy = true

[ppp.secret.user2]
password = "` + labPassword + `"
profile = "lan"
`})
	// A network as offices have it, where hosts ask for one another by ARP.
	server.server.IP("addr add 192.168.88.1/24 dev lan")
	server.lan.IP("addr add 192.168.88.10/24 dev eth0", "route add 192.168.55.0/24 via 192.168.88.1", "route add 192.168.99.0/24 via 192.168.88.1",
		"route del default")
	near := server.internet.Host("near", "198.51.100.1")
	near.Forward()
	for _, n := range []*lab.Node{near, server.server} { // nobody is told that a packet is too large
		n.NFT("table inet blackhole { chain output { type filter hook output priority 0; icmp type destination-unreachable drop; }; }")
	}
	server.pristine = server.kernelState()
	host := near.Host("host", "192.168.55.2")
	remote := server.internet.Host("remote", "198.51.100.2")
	r := &callRig{L: l, internet: server.internet, near: near}
	r.pristine = r.state()
	r.Culvert = l.Culvert(near, path.toml()+clientTOML(1, labServer.String(), "routes = [\"192.168.88.0/24\"]"))
	r.up()
	hostAddr := netip.MustParseAddr("192.168.55.2")
	for _, p := range []struct {
		from *lab.Node
		to   netip.Addr
	}{{host, labHost}, {server.lan, hostAddr}} {
		if _, err := p.from.Ping(p.to, 20*time.Second); err != nil {
			t.Error(err)
		}
	}
	syn := server.lan.Capture("eth0", func(p lab.Packet) bool { return p.Proto == 6 && mss(p.Payload) != 0 })
	if _, err := host.Transfer(server.lan, labHost, 1<<20); err != nil {
		t.Error(err)
	}
	if _, err := server.lan.Transfer(host, hostAddr, 1<<20); err != nil {
		t.Error(err)
	}
	mtu := uint16(r.monitor().Int("mtu"))
	seen := syn.Stop()
	if len(seen) < 4 {
		t.Errorf("%d SYNs seen", len(seen))
	}
	for _, p := range seen {
		if m := mss(p.Payload); !p.Out && m != mtu-40 {
			t.Errorf("MSS %d came through a tunnel of MTU %d: %v", m, mtu, p)
		}
	}

	away := l.Culvert(remote, path.toml()+clientTOML(2, labServer.String(), "routes = [\"192.168.88.0/24\"]"))
	far := netip.MustParseAddr("192.168.88.200")
	if _, err := server.lan.Ping(far, patience); err != nil {
		t.Error(err)
	}
	if _, err := remote.Ping(labHost, 20*time.Second); err != nil {
		t.Error(err)
	}
	if p := server.server.Run("ip", "neigh", "show", "proxy"); !strings.Contains(p, "192.168.88.200 dev lan") {
		t.Errorf("proxies: %q", p)
	}
	away.Stop()
	r.end()
	server.clean()
	if p := server.server.Run("ip", "neigh", "show", "proxy"); strings.TrimSpace(p) != "" {
		t.Errorf("ARP is still answered: %q", p)
	}
}

// mss is the maximum segment size in a SYN (RFC 9293 section 3.7.1), zero in anything else.
func mss(tcp []byte) uint16 {
	if len(tcp) < 20 || tcp[13]&6 != 2 {
		return 0
	}
	for o := tcp[20:min(len(tcp), int(tcp[12]>>4)*4)]; len(o) >= 4 && o[0] != 0; {
		switch {
		case o[0] == 1:
			o = o[1:]
		case o[0] == 2:
			return binary.BigEndian.Uint16(o[2:])
		case o[1] < 2 || int(o[1]) > len(o):
			return 0
		default:
			o = o[o[1]:]
		}
	}
	return 0
}

// overIPv6: IKE, ESP and L2TP over IPv6, found by name.
func overIPv6(t *testing.T, l *lab.L, path labPath) {
	server := newRig(t, l, rigConfig{Path: path, IPv6: "2001:db8::1"})
	r := &callRig{L: l, internet: server.internet, near: server.internet.Host("near", "198.51.100.1", "2001:db8:0:1::1")}
	r.near.WriteFile("/etc/hosts", "2001:db8::1 vpn.example.com\n")
	r.pristine = r.state()
	r.wire = r.internet.Capture("near", func(p lab.Packet) bool { return !p.IKE() })
	r.Culvert = l.Culvert(r.near, path.toml()+clientTOML(1, "vpn.example.com", ""))
	m := r.up()
	if !strings.HasPrefix(m.String("remote-endpoint"), "[2001:db8::1]") || m.Int("mtu") < 1300 || m.Int("mtu") > 1408 {
		t.Errorf("monitor: %v", m)
	}
	addr := netip.MustParseAddr(m.String("local-address"))
	if _, err := server.server.Transfer(r.near, addr, callSize); err != nil {
		t.Error(err)
	}
	if _, err := r.near.Transfer(server.server, labInner, callSize); err != nil {
		t.Error(err)
	}
	r.end()
	server.clean()
}

// inVRF: the way out is in a VRF of its own, and the link in the main table.
func inVRF(t *testing.T, l *lab.L, path labPath) { callsInVRF(t, l, callConfig{Path: path}) }

// inVRFBehindNAT: the same with ESP in UDP.
func inVRFBehindNAT(t *testing.T, l *lab.L, path labPath) {
	callsInVRF(t, l, callConfig{Path: path, NAT: true})
}

func callsInVRF(t *testing.T, l *lab.L, c callConfig) {
	c.Connect, c.Extra = labServer.String()+"@red", "add-default-route = true\n"
	c.Prepare = func(r *callRig) {
		gw := "198.51.100.254"
		if c.NAT {
			gw = "10.0.0.254"
		}
		r.near.IP("link add red type vrf table 10", "link set red up", "link set eth0 master red",
			"route add "+gw+"/32 dev eth0 table 10", "route add default via "+gw+" dev eth0 table 10")
	}
	r := newCallRig(t, l, c)
	m := r.up()
	if routes := r.near.Run("ip", "route"); !strings.Contains(routes, "default dev l2tp-out1") {
		t.Errorf("routes:\n%s", routes)
	}
	if _, err := r.near.Transfer(r.far, farInner, callSize); err != nil {
		t.Error(err)
	}
	if _, err := r.far.Transfer(r.near, netip.MustParseAddr(m.String("local-address")), callSize); err != nil {
		t.Error(err)
	}
	if drops := r.Rows("/ip ipsec statistics print"); c.Path != pathKernel {
		t.Logf("dropped: %v", drops)
	}
	c.Connect = labServer.String() + "@blue"
	r.configure(c.toml())
	r.fails("l2tp-out1", "VRF blue")
	r.end()
}

// answersElsewhere: the server is called at one of its addresses, and answers from the other, as one does that has two ways
// out. It has proved itself by the key, and everything goes to where it is, again and again.
func answersElsewhere(t *testing.T, l *lab.L, path labPath) {
	c := callConfig{Path: path, Prepare: func(r *callRig) {
		r.far.IP("addr add 192.0.2.9/32 dev eth0")
		r.far.IP("route change default via 192.0.2.254 dev eth0 src 192.0.2.9") // xl2tpd's source
		r.internet.IP("route add 192.0.2.9/32 dev far")
		r.far.NFT("table ip elsewhere { chain output { type filter hook output priority 0; ip saddr 192.0.2.1 udp sport 500 ip saddr set 192.0.2.9; }; }")
	}}
	r := newCallRig(t, l, c)
	for round := range 2 {
		m := r.up()
		if m.String("remote-endpoint") != "192.0.2.9:1701" {
			t.Errorf("connected to %v", m)
		}
		if len(r.Lines("the server answers from another address", "192.0.2.9")) != round+1 {
			t.Error("the log does not say where the server has answered from")
		}
		if _, err := r.near.Transfer(r.far, farInner, 1<<20); err != nil {
			t.Error(err)
		}
		if round == 0 { // it goes, and comes back
			r.server.Stop()
			r.down()
			r.serve(false)
		}
	}
	r.end()
}

// callSettings: a server that insists on aggressive mode, AES-GCM and perfect forward secrecy gets them, from another of
// our addresses and behind a NAT.
func callSettings(t *testing.T, l *lab.L, path labPath) {
	ike := lab.IKE{PSK: labSecret, Aggressive: true, Proposals: "aes256-sha384-ecp384", ESP: "aes128gcm16-ecp256"}
	c := callConfig{Path: path, NAT: true, IKE: &ike, Extra: "src-address = \"10.0.0.9\"\n", Prepare: func(r *callRig) {
		r.near.IP("addr add 10.0.0.9/32 dev eth0")
		r.gate.IP("route add 10.0.0.9/32 dev near")
	}, Tables: `
[ipsec.peer.l2tp-out1]
exchange-mode = "aggressive"

[ipsec.identity.l2tp-out1]
my-id = "user-fqdn:branch@example.com"

[ipsec.profile.default]
enc-algorithm = ["aes-256"]
hash-algorithm = ["sha384"]
dh-group = ["ecp384"]

[ipsec.proposal.default]
enc-algorithms = ["aes-128-gcm"]
auth-algorithms = []
pfs-group = "ecp256"
lifetime = "20m"
`}
	r := newCallRig(t, l, c)
	m := r.up()
	if m.String("encoding") != "esp aes-128-gcm" {
		t.Errorf("monitor: %v", m)
	}
	sas := r.server.Charon.SAs(l.Context())
	for _, want := range []string{"branch@example.com", "ECP_384", "AES_GCM_16-128/ECP_256"} {
		if !strings.Contains(sas, want) {
			t.Errorf("%s is not in the server's SAs:\n%s", want, sas)
		}
	}
	if rows := r.Rows("/ip ipsec active-peers print"); len(rows) != 1 || !strings.HasPrefix(rows[0].String("local-address"), "10.0.0.9") {
		t.Errorf("peers: %v", rows)
	}
	r.end()
}

// callsSoftEther: a server that nobody here wrote, and whose ESP, L2TP and PPP are its own, called directly and from
// behind a NAT, on either data path.
func callsSoftEther(t *testing.T, l *lab.L) {
	internet := l.Internet()
	far := internet.Host("far", labServer.String())
	lns := callLNS(77)
	lns.Users[labUser] = "s3cret" // its command line knows no blanks
	server := lab.SoftEtherServer(far, callIKE, lns)
	nat := internet.NAT("nat", "203.0.113.1")
	for _, x := range []struct {
		path labPath
		gate *lab.Node
		near *lab.Node
	}{
		{pathKernel, internet, internet.Host("kernel", "198.51.100.1")},
		{pathKernel, nat, nat.Host("kernel-nat", "10.0.0.1")},
		{pathUserspace, internet, internet.Host("user", "198.51.100.2")},
		{pathUserspace, nat, nat.Host("user-nat", "10.0.0.2")},
	} {
		name := x.near.Name
		r := &callRig{L: l, internet: internet, near: x.near, far: far}
		r.wire = x.gate.Capture(name, func(p lab.Packet) bool { return !p.IKE() })
		r.pristine = r.state()
		r.Culvert = l.Culvert(x.near, callConfig{Path: x.path, Password: "s3cret", Extra: "routes = [\"" + server.Local.String() + "/32\"]\n"}.toml())
		x.path.check(t, r.Culvert)
		var m lab.Row
		if !l.WaitFor(patience, func() bool { m = r.monitor(); return m.String("status") == "connected" }) {
			t.Fatalf("%s: %v", name, m)
		}
		t.Logf("%s: %v", name, m)
		if _, err := x.near.Ping(server.Local, 20*time.Second); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := x.near.Transfer(far, server.Local, 2<<20); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		r.end()
	}
	server.Stop()
}
