package main

import (
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
}

type callConfig struct {
	NAT      bool
	Plain    bool   // no IPsec
	Secret   string // labSecret when empty
	Password string // labPassword when empty
	Extra    string // more lines of the client's table
	Absent   bool   // the server is not started
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
	return fmt.Sprintf("[l2tp.client.l2tp-out1]\nconnect-to = %q\nuser = %q\npassword = %q\n%s%s\n", labServer, labUser, password, ipsec, c.Extra)
}

func newCallRig(t *testing.T, l *lab.L, c callConfig) *callRig {
	t.Helper()
	r := &callRig{L: l, internet: l.Internet()}
	r.far = r.internet.Host("far", labServer.String())
	r.gate = r.internet
	addr := "198.51.100.1"
	if c.NAT {
		r.gate = r.internet.NAT("nat", "203.0.113.1")
		addr = "10.0.0.1"
	}
	r.near = r.gate.Host("near", addr)
	if !c.Absent {
		r.serve(c.Plain)
	}
	r.wire = r.internet.Capture("far", func(p lab.Packet) bool { return !p.IKE() })
	r.pristine = r.state()
	r.Culvert = l.Culvert(r.near, c.toml())
	return r
}

// serve starts the reference server.
func (r *callRig) serve(plain bool) {
	r.Helper()
	ike := lab.IKE{PSK: labSecret, Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha1"}
	if plain {
		ike = lab.IKE{}
	}
	r.server = lab.ReferenceServer(r.far, ike, lab.LNS{Local: farInner.String(), Pool: "192.168.77.2-192.168.77.50",
		Users: map[string]string{labUser: labPassword}})
}

// monitor is the client's state.
func (r *callRig) monitor() lab.Row {
	r.Helper()
	return r.Rows("/interface l2tp-client monitor l2tp-out1")[0]
}

// up waits for the connection and checks that packets pass.
func (r *callRig) up(timeout time.Duration) lab.Row {
	r.Helper()
	var m lab.Row
	if !r.WaitFor(timeout, func() bool { m = r.monitor(); return m.String("status") == "connected" }) {
		r.Fatalf("not connected within %v: %v", timeout, m)
	}
	inner := netip.MustParseAddr(m.String("remote-address"))
	if _, err := r.near.Ping(inner, 10*time.Second); err != nil {
		r.Errorf("ping: %v", err)
	}
	return m
}

// fails waits until the last attempt has failed for a reason that holds these words.
func (r *callRig) fails(words string, timeout time.Duration) {
	r.Helper()
	var m lab.Row
	if !r.WaitFor(timeout, func() bool { m = r.monitor(); return strings.Contains(m.String("last-disconnect-reason"), words) }) {
		r.Errorf("the reason is not %q: %v", words, m)
	}
	r.Logf("reason: %s", m.String("last-disconnect-reason"))
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
	if !r.WaitFor(10*time.Second, func() bool { now = r.state(); return now == r.pristine }) {
		r.Errorf("left behind: before\n%s\nand now\n%s", r.pristine, now)
	}
}

// secret checks that culvert has sent nothing but IKE and ESP.
func (r *callRig) secret() {
	r.Helper()
	for _, p := range r.wire.Stop() {
		if p.Src.Addr() == labServer {
			continue // a server whose SAs were flushed under it leaks by itself
		}
		if p.Src.Port() == 1701 || p.Dst.Port() == 1701 {
			r.Errorf("L2TP in the clear: %v", p)
			return
		}
		if p.Proto == 17 || p.Proto == 6 {
			r.Errorf("in the clear: %v", p)
			return
		}
	}
}

const callSize = 20 << 20

func TestLabClientDirect(t *testing.T) { calls(t, callConfig{}, "esp aes-256-cbc/sha1", 1420) }
func TestLabClientNAT(t *testing.T)    { calls(t, callConfig{NAT: true}, "esp aes-256-cbc/sha1", 1404) }
func TestLabClientPlain(t *testing.T)  { calls(t, callConfig{Plain: true}, "", 1450) }

// calls takes a connection through its life: up, traffic, hung up by the server and up again, off and on by the
// configuration, and a goodbye that leaves nothing.
func calls(t *testing.T, c callConfig, encoding string, most int) {
	inLab(t, func(t *testing.T, l *lab.L) {
		c := c
		c.Extra = "add-default-route = true\ndefault-route-distance = 0\n"
		r := newCallRig(t, l, c)
		start := time.Now()
		m := r.up(30 * time.Second)
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
		r.Configure(c.toml())
		r.Signal(syscall.SIGHUP)
		r.clean()
		if s := r.monitor().String("status"); s != "disabled" {
			t.Errorf("status %q, want disabled", s)
		}
		c.Extra = "add-default-route = true\nuse-peer-dns = \"yes\"\n"
		r.Configure(c.toml())
		r.Signal(syscall.SIGHUP)
		r.up(30 * time.Second)
		if routes := r.near.Run("ip", "route"); !strings.Contains(routes, "default dev l2tp-out1") || !strings.Contains(routes, "192.0.2.1 via") {
			t.Errorf("routes:\n%s", routes)
		}

		// Told to end, culvert says goodbye to the server as well.
		r.Signal(syscall.SIGTERM)
		if err := r.Wait(15 * time.Second); err != nil {
			t.Errorf("culvert: %v", err)
		}
		r.clean()
		if !l.WaitFor(5*time.Second, func() bool { return len(r.far.Interfaces("ppp")) == 0 }) {
			t.Error("the server was not told")
		}
		if s := r.far.IPsecState(); s != "" {
			t.Errorf("the server still has\n%s", s)
		}
		if !c.Plain {
			r.secret()
		}
	}, lab.Timeout(3*time.Minute))
}

// The server goes away, with a word and without one, and comes back: so does the connection.
func TestLabClientServerGone(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		c := callConfig{Extra: "keepalive-timeout = \"5s\"\n"}
		r := newCallRig(t, l, c)
		r.up(30 * time.Second)
		r.server.Stop()
		if !l.WaitFor(40*time.Second, func() bool { return r.monitor().String("status") != "connected" }) {
			t.Errorf("still connected to a server that was stopped: %v", r.monitor())
		}
		t.Logf("after the stop: %v", r.monitor())
		r.serve(false)
		start := time.Now()
		r.up(90 * time.Second)
		t.Logf("back %.1f s after the server", time.Since(start).Seconds())

		r.far.Kill()
		r.far.FlushIPsec()
		r.far.Do(func() { os.Remove("/run/charon.vici"); os.Remove("/run/charon.pid") })
		if !l.WaitFor(60*time.Second, func() bool { return r.monitor().String("status") != "connected" }) {
			t.Errorf("still connected to a server that was killed: %v", r.monitor())
		}
		t.Logf("after the kill: %v", r.monitor())
		l.WaitFor(5*time.Second, func() bool { return false }) // attempts while nobody is there
		r.serve(false)
		start = time.Now()
		r.up(90 * time.Second)
		t.Logf("back %.1f s after the server", time.Since(start).Seconds())
		r.Signal(syscall.SIGTERM)
		if err := r.Wait(15 * time.Second); err != nil {
			t.Errorf("culvert: %v", err)
		}
		r.clean()
		r.secret()
	}, lab.Timeout(6*time.Minute))
}

// Every way to be refused has its reason, nothing leaks meanwhile, and the settings put right it comes up.
func TestLabClientRefused(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		c := callConfig{Secret: "another secret"}
		r := newCallRig(t, l, c)
		r.fails("ecret", 60*time.Second)
		change := func() {
			r.Configure(c.toml())
			r.Signal(syscall.SIGHUP)
		}
		c = callConfig{Password: "wrong horse"}
		change()
		r.fails("user or the password", 60*time.Second)
		c = callConfig{}
		change()
		r.up(60 * time.Second)
		// IPsec stands, and L2TP does not answer in it.
		c.Extra = "disabled = true\n"
		change()
		r.clean()
		r.server.L2TP.Kill()
		c.Extra = ""
		change()
		r.fails("does not answer L2TP", 90*time.Second)
		r.Signal(syscall.SIGTERM)
		if err := r.Wait(15 * time.Second); err != nil {
			t.Errorf("culvert: %v", err)
		}
		r.clean()
		r.secret()
	}, lab.Timeout(6*time.Minute))
}

// Nobody is there, or only somebody who does not do IPsec.
func TestLabClientUnreachable(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		r := newCallRig(t, l, callConfig{Absent: true})
		r.fails("answer", 150*time.Second)
		r.serve(true) // plain L2TP
		before := r.monitor().Int("attempts")
		l.WaitFor(100*time.Second, func() bool { return r.monitor().Int("attempts") > before+1 })
		if s := r.monitor().String("status"); s == "connected" {
			t.Error("connected without IPsec")
		}
		r.Signal(syscall.SIGTERM)
		if err := r.Wait(15 * time.Second); err != nil {
			t.Errorf("culvert: %v", err)
		}
		r.clean()
		r.secret()
	}, lab.Timeout(6*time.Minute))
}

// Culvert calls culvert, which is a server and calls somebody else at the same time; and two tunnels go to one server.
func TestLabClientCulvert(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		server := newRig(t, l, rigConfig{Users: 2})
		near := server.internet.Host("near", "198.51.100.1")
		client := func(i int) string {
			return fmt.Sprintf("[l2tp.client.l2tp-out%d]\nconnect-to = %q\nuser = \"user%d\"\npassword = %q\nuse-ipsec = true\nipsec-secret = %q\n",
				i, labServer, i, labPassword, labSecret)
		}
		caller := l.Culvert(near, client(1)+client(2))
		for i := range 2 {
			name := fmt.Sprintf("l2tp-out%d", i+1)
			var m lab.Row
			if !l.WaitFor(40*time.Second, func() bool {
				m = caller.Rows("/interface l2tp-client monitor " + name)[0]
				return m.String("status") == "connected"
			}) {
				t.Fatalf("%s: %v", name, m)
			}
			t.Logf("%v", m)
			addr := netip.MustParseAddr(m.String("local-address"))
			if _, err := server.server.Ping(addr, 10*time.Second); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := server.server.Transfer(near, addr, callSize); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if rows := server.Rows("/ppp active print"); len(rows) != 2 {
			t.Errorf("the server has %v", rows)
		}
		// The server throws one out: it comes back.
		if _, err := server.Show("/ppp active remove user2"); err != nil {
			t.Error(err)
		}
		if !l.WaitFor(40*time.Second, func() bool {
			m := caller.Rows("/interface l2tp-client monitor l2tp-out2")[0]
			return m.String("status") == "connected" && m.Int("attempts") > 1
		}) {
			t.Errorf("not back: %v", caller.Rows("/interface l2tp-client monitor l2tp-out2"))
		}
		caller.Signal(syscall.SIGTERM)
		if err := caller.Wait(15 * time.Second); err != nil {
			t.Errorf("culvert: %v", err)
		}
		if s := near.IPsecState(); s != "" {
			t.Errorf("left in the kernel:\n%s", s)
		}
		server.clean()
	}, lab.Timeout(4*time.Minute))
}
