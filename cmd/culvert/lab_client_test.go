package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/board/lab"
)

// Culvert as the client, with strongSwan, xl2tpd and pppd as its server, and with itself.
//
//	far 192.0.2.1 (the server) ── internet ─┬─ near 198.51.100.1 (culvert, or behind the nat 203.0.113.1)

var farInner = netip.MustParseAddr("192.168.77.1") // the server, inside the tunnel

// callRig is the laboratory with culvert calling.
type callRig struct {
	*lab.L
	*lab.Culvert
	internet, far, near, gate *lab.Node
	server                    *lab.Reference
	wire                      *lab.Capture // everything at the server's door that is neither IKE nor ESP
	pristine                  string
	ike                       lab.IKE
}

type callConfig struct {
	NAT      bool
	Plain    bool   // no IPsec
	Secret   string // labSecret when empty
	Password string // labPassword when empty
	Extra    string // more lines of the client's table
	Absent   bool   // the server is not started
	Tables   string // more tables
	Path     labPath
	IKE      *lab.IKE // the server's, callIKE when nil
	Connect  string   // labServer when empty
	Prepare  func(r *callRig)
}

func (c callConfig) toml() string {
	secret, password := c.Secret, c.Password
	if secret == "" {
		secret = labSecret
	}
	if password == "" {
		password = labPassword
	}
	ipsec := fmt.Sprintf("use-ipsec = true\nipsec-secret = %q\n", secret)
	if c.Plain {
		ipsec = ""
	}
	return fmt.Sprintf("[system]\ndata-path = %q\n[l2tp.client.l2tp-out1]\nconnect-to = %q\nuser = %q\npassword = %q\n%s%s\n%s", c.Path.setting(), cmp.Or(c.Connect, labServer.String()),
		labUser, password, ipsec, c.Extra, c.Tables)
}

func newCallRig(t *testing.T, l *lab.L, c callConfig) *callRig {
	t.Helper()
	r := &callRig{L: l, internet: l.Internet(), ike: callIKE}
	r.far = r.internet.Host("far", labServer.String())
	r.gate = r.internet
	addr := "198.51.100.1"
	if c.NAT {
		r.gate = r.internet.NAT("nat", "203.0.113.1")
		addr = "10.0.0.1"
	}
	r.near = r.gate.Host("near", addr)
	if c.IKE != nil {
		r.ike = *c.IKE
	}
	if !c.Absent {
		r.serve(c.Plain)
	}
	if !c.Plain {
		r.wire = r.gate.Capture("near", func(p lab.Packet) bool { return !p.IKE() })
	}
	if c.Prepare != nil {
		c.Prepare(r)
	}
	r.pristine = r.state()
	c.Path.prepare(r.near)
	r.Culvert = l.Culvert(r.near, c.toml())
	c.Path.check(t, r.Culvert)
	return r
}

// serve starts the reference server.
func (r *callRig) serve(plain bool) {
	r.Helper()
	ike := r.ike
	if plain {
		ike = lab.IKE{}
	}
	r.server = lab.ReferenceServer(r.far, ike, callLNS(77))
}

var callIKE = lab.IKE{PSK: labSecret, Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha1"}

// callLNS is a server that gives out addresses of 192.168.net.0/24.
func callLNS(net int) lab.LNS {
	return lab.LNS{Local: fmt.Sprintf("192.168.%d.1", net), Pool: fmt.Sprintf("192.168.%d.2-192.168.%d.50", net, net),
		Users: map[string]string{labUser: labPassword}}
}

// monitor is the client's state.
func (r *callRig) monitor() lab.Row { r.Helper(); return r.client("l2tp-out1") }

func (r *callRig) client(name string) lab.Row {
	r.Helper()
	return r.Rows("/interface l2tp-client monitor " + name)[0]
}

// The laboratory's machine may be busy: what has to happen is waited for patiently, and told as it was.
const patience = 90 * time.Second

// up waits for the connection and checks that packets pass.
func (r *callRig) up() lab.Row { r.Helper(); return r.clientUp("l2tp-out1") }

func (r *callRig) clientUp(name string) lab.Row {
	r.Helper()
	var m lab.Row
	if !r.WaitFor(patience, func() bool { m = r.client(name); return m.String("status") == "connected" }) {
		r.Fatalf("%s: not connected: %v", name, m)
	}
	inner := netip.MustParseAddr(m.String("remote-address"))
	if _, err := r.near.Ping(inner, 20*time.Second); err != nil {
		r.Errorf("%s: %v", name, err)
	}
	return m
}

// fails waits until an attempt has failed for a reason that holds these words.
func (r *callRig) fails(name, words string) {
	r.Helper()
	var m lab.Row
	if !r.WaitFor(patience, func() bool { m = r.client(name); return strings.Contains(m.String("last-disconnect-reason"), words) }) {
		r.Errorf("%s: the reason is not %q: %v", name, words, m)
	}
	r.Logf("%s: %s", name, m.String("last-disconnect-reason"))
}

// down waits until the client has noticed that the connection is gone.
func (r *callRig) down() {
	r.Helper()
	var m lab.Row
	if !r.WaitFor(patience, func() bool { m = r.monitor(); return m.String("status") != "connected" }) {
		r.Errorf("still connected: %v", m)
	}
	r.Logf("noticed: %s", m.String("last-disconnect-reason"))
}

// configure makes the client obey another configuration.
func (r *callRig) configure(toml string) {
	r.Helper()
	r.Configure(toml)
	r.Signal(syscall.SIGHUP)
}

// end tells the client to end, and checks that it leaves nothing behind and nothing has left in the clear.
func (r *callRig) end() {
	r.Helper()
	r.Signal(syscall.SIGTERM)
	if err := r.Wait(30 * time.Second); err != nil {
		r.Errorf("culvert: %v", err)
	}
	r.clean()
	r.secret()
}

// state is what a connection may leave in the kernel.
func (r *callRig) state() string {
	r.Helper()
	var b strings.Builder
	b.WriteString(r.near.IPsecState())
	for _, i := range r.near.Interfaces("") {
		if i.Name != "lo" && !strings.HasPrefix(i.Name, "eth") {
			fmt.Fprintf(&b, "\ninterface %s", i.Name)
		}
	}
	fmt.Fprintf(&b, "\nroutes:\n%s", r.near.Run("ip", "route"))
	resolv, _ := r.near.ReadFile("/etc/resolv.conf")
	fmt.Fprintf(&b, "names:\n%s", resolv)
	if s, err := r.near.ReadFile("/proc/thread-self/net/pppol2tp"); err == nil {
		for _, line := range strings.Split(string(s), "\n") {
			if strings.HasPrefix(line, "TUNNEL '") || strings.HasPrefix(line, "  SESSION '") {
				b.WriteString(line + "\n")
			}
		}
	}
	return b.String()
}

// clean checks that nothing is left.
func (r *callRig) clean() {
	r.Helper()
	var now string
	if !r.WaitFor(30*time.Second, func() bool { now = r.state(); return now == r.pristine }) {
		r.Errorf("left behind: before\n%s\nand now\n%s", r.pristine, now)
	}
}

// secret checks that culvert has sent nothing outside but IKE and ESP. What the node itself sends to addresses inside
// while there is no tunnel is not culvert's.
func (r *callRig) secret() {
	r.Helper()
	if r.wire == nil {
		return
	}
	for _, p := range r.wire.Stop() {
		if callServers.Contains(p.Src.Addr()) {
			continue // xl2tpd does not know that its SAs are gone
		}
		if p.Proto == 17 || p.Proto == 115 {
			r.Errorf("in the clear: %v", p)
			return
		}
	}
}

var callServers = netip.MustParsePrefix("192.0.2.0/24")

const callSize = 10 << 20

// TestLabClient calls strongSwan + xl2tpd + pppd.
func TestLabClient(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		t.Run("direct", func(t *testing.T) { callsDirect(t, l.Sub(t), pathKernel) })
		t.Run("NAT", func(t *testing.T) { callsNAT(t, l.Sub(t), pathKernel) })
		t.Run("plain", func(t *testing.T) { callsPlain(t, l.Sub(t), pathKernel) })
		t.Run("on demand", func(t *testing.T) { callsOnDemand(t, l.Sub(t), pathKernel) })
	}, lab.Timeout(6*time.Minute))
}

func callsDirect(t *testing.T, l *lab.L, path labPath) {
	calls(t, l, callConfig{Path: path}, "esp aes-256-cbc/sha1", 1420)
}

func callsNAT(t *testing.T, l *lab.L, path labPath) {
	// A server that could do with either: what is faster here is offered first. The kernel of the lab has no instructions.
	ike, want, most := callIKE, "esp aes-256-cbc/sha1", 1404
	ike.ESP = "aes128gcm16,aes256-sha1"
	if path == pathUserspace && hasGCM() {
		want, most = "esp aes-128-gcm", 1420
	}
	calls(t, l, callConfig{Path: path, NAT: true, IKE: &ike}, want, most)
}

func callsPlain(t *testing.T, l *lab.L, path labPath) {
	calls(t, l, callConfig{Path: path, Plain: true}, "", 1450)
}

// callsOnDemand: nothing happens until a packet wants through the tunnel, which is not lost; without packets it is hung
// up, and waits again.
func callsOnDemand(t *testing.T, l *lab.L, path labPath) {
	c := callConfig{Path: path, Extra: "dial-on-demand = true\nprofile = \"demand\"\nadd-default-route = true\n",
		Tables: "[ppp.profile.demand]\nidle-timeout = \"4s\"\n"}
	r := newCallRig(t, l, c)
	host := r.near.Host("host", "192.168.55.2") // behind the client
	r.near.Forward()
	r.internet.IP("route add 192.168.55.0/24 via 198.51.100.1 dev near") // answers to the host come back outside
	r.near.IP("route replace default via 198.51.100.254 dev eth0 metric 50", "route del default via 198.51.100.254 dev eth0 metric 0")
	waits := func() {
		t.Helper()
		var m lab.Row
		if !l.WaitFor(patience, func() bool { m = r.monitor(); return m.String("status") == "waiting for packets" }) {
			t.Fatalf("does not wait for packets: %v", m)
		}
		if routes := r.near.Run("ip", "route", "get", "1.2.3.4"); !strings.Contains(routes, "dev l2tp-out1") {
			t.Errorf("the way out: %s", routes)
		}
		if routes := r.near.Run("ip", "route"); !strings.Contains(routes, "10.112.112.112") {
			t.Errorf("no placeholder:\n%s", routes)
		}
		if !l.WaitFor(20*time.Second, func() bool { return r.near.IPsecState() == "" && len(r.far.Interfaces("ppp")) == 0 }) {
			t.Errorf("waits with SAs\n%s", r.near.IPsecState())
		}
	}
	lost := 0
	first := func(from *lab.Node) {
		t.Helper()
		p, err := from.StartPing(farInner, 6*time.Second, 56)
		l.Must(err, "ping")
		start := time.Now()
		if !l.WaitFor(patience, func() bool { _, got := p.Counts(); return got > 0 }) {
			t.Errorf("no packet gets through: %v", r.monitor())
		}
		sent, _ := p.Stop()
		t.Logf("of %d packets one is answered, after %.2f s", sent, time.Since(start).Seconds())
		if sent > 1 {
			lost++
		}
	}
	if waits(); t.Failed() {
		return
	}
	if ike := r.monitor().Int("attempts"); ike != 0 {
		t.Errorf("%d attempts without a packet", ike)
	}
	first(r.near)
	waits()
	first(host)
	if lost == 2 { // once it may be pppd, which agrees before its own interface is up
		t.Error("the first packet is lost")
	}
	waits()
	r.configure(callConfig{Path: path, Extra: "disabled = true"}.toml())
	if !l.WaitFor(20*time.Second, func() bool { return len(r.near.Interfaces("l2tp-out1")) == 0 }) {
		t.Error("the interface outlives its client")
	}
	r.Signal(syscall.SIGTERM)
	if err := r.Wait(30 * time.Second); err != nil {
		t.Errorf("culvert: %v", err)
	}
	r.secret()
}

// calls takes a connection through its life: up, traffic, off and on by the configuration, and a goodbye that leaves
// nothing.
func calls(t *testing.T, l *lab.L, c callConfig, encoding string, most int) {
	c.Extra = "add-default-route = true\ndefault-route-distance = 0\n"
	r := newCallRig(t, l, c)
	start := time.Now()
	m := r.up()
	t.Logf("connected in %.2f s: %v", time.Since(start).Seconds(), m)
	if m.String("encoding") != encoding || m.Int("mtu") > most || m.Int("mtu") < 1300 || m.String("remote-address") != farInner.String() {
		t.Errorf("monitor: %v", m)
	}
	rows := r.Rows("/interface l2tp-client print")
	if len(rows) != 1 || rows[0].String("running") != "true" || rows[0].String("name") != "l2tp-out1" {
		t.Errorf("print: %v", rows)
	}
	if rows := r.Rows("/ppp active print"); len(rows) != 0 {
		t.Errorf("a call of our own is no user: %v", rows)
	}
	if len(r.near.Interfaces("l2tp-out1")) != 1 {
		t.Error("no interface of that name")
	}
	addr := netip.MustParseAddr(m.String("local-address"))
	up, err := r.near.Transfer(r.far, farInner, callSize)
	if err != nil {
		t.Errorf("upload: %v", err)
	}
	down, err := r.far.Transfer(r.near, addr, callSize)
	if err != nil {
		t.Errorf("download: %v", err)
	}
	t.Logf("%d MB up at %.0f Mbit/s, down at %.0f", callSize>>20, up, down)

	// Switched off: nothing is left. On again.
	c.Extra += "disabled = true\n"
	r.configure(c.toml())
	r.clean()
	if s := r.monitor().String("status"); s != "disabled" {
		t.Errorf("status %q, want disabled", s)
	}
	c.Extra = "add-default-route = true\nuse-peer-dns = \"yes\"\n"
	r.configure(c.toml())
	r.up()
	if routes := r.near.Run("ip", "route"); !strings.Contains(routes, "default dev l2tp-out1") || !strings.Contains(routes, "192.0.2.1 via") {
		t.Errorf("routes:\n%s", routes)
	}

	// Told to end, culvert says goodbye to the server as well.
	r.end()
	if !l.WaitFor(20*time.Second, func() bool { return len(r.far.Interfaces("ppp")) == 0 && r.far.IPsecState() == "" }) {
		t.Errorf("the server was not told: %v\n%s", r.far.Interfaces("ppp"), r.far.IPsecState())
	}
}

func TestLabClientRefused(t *testing.T) {
	inLab(t, onKernel(clientRefused), lab.Kernels("6.12"), lab.Timeout(5*time.Minute))
}

// clientRefused: every way to be refused has its reason, nothing leaks meanwhile, and what was in the way gone, the
// connection comes up. One culvert calls all of these servers at the same time.
func clientRefused(t *testing.T, l *lab.L, path labPath) {
	internet := l.Internet()
	host := func(name string, i int) *lab.Node { return internet.Host(name, fmt.Sprintf("192.0.2.%d", i)) }
	key, word, plain, deaf, absent := host("key", 1), host("word", 2), host("plain", 3), host("deaf", 4), host("absent", 5)
	lab.ReferenceServer(key, callIKE, callLNS(71))
	lab.ReferenceServer(word, callIKE, callLNS(72))
	lab.ReferenceServer(plain, lab.IKE{}, callLNS(73))
	charon, err := deaf.Charon()
	l.Must(err, "charon")
	l.Must(charon.Load(l.Context(), netip.Addr{}, callIKE), "charon")
	r := &callRig{L: l, internet: internet, near: internet.Host("near", "198.51.100.1")}
	r.pristine = r.state()
	r.wire = internet.Capture("near", func(p lab.Packet) bool { return !p.IKE() })
	toml := func(secret, password string) string {
		var b strings.Builder
		b.WriteString(path.toml())
		for i, name := range []string{"key", "word", "plain", "deaf", "absent"} {
			s, p := labSecret, labPassword
			switch name {
			case "key":
				s = secret
			case "word":
				p = password
			}
			fmt.Fprintf(&b, "[l2tp.client.%s]\nconnect-to = \"192.0.2.%d\"\nuser = %q\npassword = %q\nuse-ipsec = true\nipsec-secret = %q\n", name, i+1, labUser, p, s)
		}
		return b.String()
	}
	path.prepare(r.near)
	r.Culvert = l.Culvert(r.near, toml("another secret", "wrong horse"))
	path.check(t, r.Culvert)
	r.fails("key", "ecret")
	r.fails("word", "user or the password")
	r.fails("plain", "answer")
	r.fails("absent", "answer")
	r.fails("deaf", "does not answer L2TP")
	if s := r.client("plain").String("status"); s == "connected" {
		t.Error("connected without IPsec")
	}
	r.configure(toml(labSecret, labPassword))
	_, err = deaf.LNS(callLNS(74))
	l.Must(err, "xl2tpd")
	lab.ReferenceServer(absent, callIKE, callLNS(75))
	start := time.Now()
	for _, name := range []string{"key", "word", "absent", "deaf"} {
		r.clientUp(name)
		t.Logf("%s is up %.1f s after its servers", name, time.Since(start).Seconds())
	}
	r.end()
}

func TestLabClientGone(t *testing.T) {
	inLab(t, onKernel(serverGone), lab.Kernels("6.12"), lab.Timeout(6*time.Minute))
}

// serverGone: what is between the client and its server goes away, with a word and without one, and comes back, or
// something else does: so does the connection, soon and by itself. Nothing is left of the old one, and nothing of it was
// ever in the clear.
func serverGone(t *testing.T, l *lab.L, path labPath) {
	c := callConfig{Path: path, Connect: "vpn.example.com", Extra: "keepalive-timeout = \"5s\"\nadd-default-route = true\nuse-peer-dns = \"yes\"\n",
		Prepare: func(r *callRig) {
			r.near.WriteFile("/etc/hosts", labServer.String()+" vpn.example.com\n")
			r.near.IP("route add default via 198.51.100.254 dev eth0 metric 50", "route del default via 198.51.100.254 dev eth0 metric 0")
		}}
	r := newCallRig(t, l, c)
	up := func() string { return r.up().String("remote-endpoint") }
	// within says how long it takes from the mending to the connection.
	within := func(what string, mend func()) (server string) {
		t.Helper()
		was := r.monitor()
		mend()
		start := time.Now()
		if !l.WaitFor(patience, func() bool {
			m := r.monitor()
			return m.String("status") == "connected" && (was.String("status") != "connected" || m.Int("attempts") > was.Int("attempts"))
		}) {
			t.Fatalf("%s: not back: %v", what, r.monitor())
		}
		took := time.Since(start)
		t.Logf("%s: back after %.1f s", what, took.Seconds())
		if took > backWithin {
			t.Errorf("%s: back only after %v", what, took)
		}
		server = up()
		if rows := r.Rows("/ip ipsec installed-sa print"); len(rows) != 2 {
			t.Errorf("%s: SAs %v", what, rows)
		}
		if routes := r.near.Run("ip", "route"); strings.Count(routes, "192.0.2.") != 1 || !strings.Contains(routes, "default dev l2tp-out1") {
			t.Errorf("%s: routes\n%s", what, routes)
		}
		return server
	}
	killed := func() {
		r.far.Kill()
		r.far.FlushIPsec()
		r.far.Do(func() { os.Remove("/run/charon.vici"); os.Remove("/run/charon.pid") })
	}
	up()

	r.server.Stop()
	r.down()
	within("server restarted", func() { r.serve(false) })

	killed()
	r.down()
	before := r.monitor().Int("attempts")
	if !l.WaitFor(patience, func() bool { return r.monitor().Int("attempts") > before }) {
		t.Error("no attempt while nobody is there")
	}
	within("server killed", func() { r.serve(false) })

	r.near.IP("link set eth0 down")
	r.down()
	r.fails("l2tp-out1", "no way to the server")
	within("link down", func() {
		r.near.IP("link set eth0 up", "route add 198.51.100.254/32 dev eth0", "route add default via 198.51.100.254 dev eth0 metric 50")
	})

	within("our address changed", func() {
		r.internet.IP("route add 198.51.100.77/32 dev near")
		r.near.IP("addr add 198.51.100.77/32 dev eth0", "addr del 198.51.100.1/32 dev eth0")
		r.internet.IP("route del 198.51.100.1/32 dev near")
	})

	killed()
	r.down()
	old := r.server
	r.far = r.internet.Host("far2", "192.0.2.9")
	if server := within("server moved", func() {
		r.near.WriteFile("/etc/hosts", "192.0.2.9 vpn.example.com\n")
		r.serve(false)
	}); server != "192.0.2.9:1701" {
		t.Errorf("connected to %s", server)
	}
	r.end()
	old.Kill()
}

func TestLabClientCulvert(t *testing.T) {
	inLab(t, onKernel(func(t *testing.T, l *lab.L, path labPath) { culvertCallsCulvert(t, l, path, path) }), lab.Timeout(4*time.Minute))
}

// culvertCallsCulvert: culvert calls culvert, and two tunnels go to one server, the second one from a port of its own. Both
// prove themselves by the tunnel's secret too.
func culvertCallsCulvert(t *testing.T, l *lab.L, here, there labPath) {
	const proposal = "\n[ipsec.proposal.default]\nenc-algorithms = [\"chacha20-poly1305\", \"aes-256-cbc\"]\nauth-algorithms = [\"sha1\"]\n"
	const secret = "tunnel-secret = \"under two seals\"\n"
	server := newRig(t, l, rigConfig{Path: there, Users: 2, Server: secret, Extra: proposal})
	r := &callRig{L: l, internet: server.internet, near: server.internet.Host("near", "198.51.100.1")}
	r.pristine = r.state()
	r.wire = r.internet.Capture("near", func(p lab.Packet) bool { return !p.IKE() })
	client := func(i int) string {
		return fmt.Sprintf("[l2tp.client.l2tp-out%d]\nconnect-to = %q\nuser = \"user%d\"\npassword = %q\nuse-ipsec = true\nipsec-secret = %q\n%s",
			i, labServer, i, labPassword, labSecret, secret)
	}
	here.prepare(r.near)
	r.Culvert = l.Culvert(r.near, here.toml()+client(1)+client(2)+proposal)
	here.check(t, r.Culvert)
	for i := range 2 {
		m := r.clientUp(fmt.Sprintf("l2tp-out%d", i+1))
		t.Logf("%v", m)
		addr := netip.MustParseAddr(m.String("local-address"))
		if _, err := server.server.Ping(addr, 20*time.Second); err != nil {
			t.Error(err)
		}
		if _, err := server.server.Transfer(r.near, addr, callSize); err != nil {
			t.Error(err)
		}
	}
	if !l.WaitFor(20*time.Second, func() bool { return len(server.Rows("/ppp active print")) == 2 }) {
		t.Errorf("the server has %v", server.Rows("/ppp active print"))
	}
	if all, usual := server.Lines("tunnel up"), server.Lines("tunnel up", `peer="198.51.100.1:1701 `); len(all) != 2 || len(usual) != 1 {
		t.Errorf("two tunnels between the same addresses: %v", all)
	}
	// Both ends are ours: they have a cipher that IKEv1 has no number for, and count beyond 2^32 packets.
	for _, c := range []*lab.Culvert{r.Culvert, server.Culvert} {
		if n := len(c.Lines("SA pair installed", "suite=chacha20-poly1305", "esn=true")); n < 2 {
			t.Errorf("ChaCha20-Poly1305 and extended sequence numbers in %d pairs of SAs: %v", n, c.Lines("SA pair installed"))
		}
	}
	// The server throws one out: it comes back.
	if _, err := server.Show("/ppp active remove user2"); err != nil {
		t.Error(err)
	}
	if !l.WaitFor(patience, func() bool {
		m := r.client("l2tp-out2")
		return m.String("status") == "connected" && m.Int("attempts") > 1
	}) {
		t.Errorf("not back: %v", r.client("l2tp-out2"))
	}
	r.end()
	server.clean()
}
