package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/board/lab"
)

// TestLabClientChanges: what a connection rests on goes away for minutes, or is changed under it, and comes back. Two
// clients, one on each data path and one of them behind a NAT, call two servers each, strongSwan with xl2tpd and culvert:
// four connections that all of it happens to at the same time.
//
//	strongswan 192.0.2.2 ─┐            ┌─ kernel 198.51.100.1
//	culvert 192.0.2.1 ── internet ─────┴─ nat 203.0.113.1 ── userspace 10.0.0.1
func TestLabClientChanges(t *testing.T) {
	inLab(t, clientChanges, lab.Kernels("6.12"), lab.Memory("1G"), lab.Timeout(12*time.Minute))
}

const (
	backWithin = 10 * time.Second // of the cause of an outage having gone away
	longOutage = 2 * time.Minute
)

// changed is the laboratory of these changes.
type changed struct {
	*lab.L
	t        *testing.T
	internet *lab.Node
	ike      lab.IKE // strongSwan's, but for the key
	culvert  *rig
	far      *lab.Node
	swan     *lab.Reference
	callers  []*changedCaller
}

// changedCaller is one client and what it looks like while both its connections are up.
type changedCaller struct {
	*callRig
	path  labPath
	shape string
}

var changedServers = []string{"strongswan", "culvert"} // the clients' names for them

func clientChanges(t *testing.T, l *lab.L) {
	c := newChanged(t, l, callIKE)
	nat := c.internet.NAT("nat", "203.0.113.1")
	c.add(pathKernel, c.internet.Host("kernel", "198.51.100.1"), c.internet, "")
	c.add(pathUserspace, nat.Host("userspace", "10.0.0.1"), nat, "")
	c.within("first call", func() {})
	for _, r := range c.callers {
		r.shape = r.look()
		t.Logf("%s: %s", r.near.Name, r.shape)
	}

	// One client's own link is down, and what it holds is gone with it; the other one's way is interrupted out there.
	near := c.callers[0]
	near.near.IP("link set eth0 down")
	c.internet.NFT("table inet outage { chain forward { type filter hook forward priority 0; iifname nat drop; oifname nat drop; }; }")
	begin := time.Now()
	c.fail("no way to the server", "no answer")
	time.Sleep(time.Until(begin.Add(longOutage)))
	c.within("two minutes without a link", func() {
		near.near.IP("link set eth0 up", "route add 198.51.100.254/32 dev eth0", "route add default via 198.51.100.254 dev eth0 metric 50")
		c.internet.Run("nft", "delete", "table", "inet", "outage")
	})

	const otherKey, otherWord = "quite another secret", "wrong horse"
	c.serve(otherKey, labPassword)
	c.fail("pre-shared key differs")
	c.persist()
	c.within("the key is changed back", func() { c.serve(labSecret, labPassword) })
	c.serve(otherKey, labPassword)
	c.fail("pre-shared key differs")
	c.within("the clients get the new key", func() { c.configure(otherKey, labPassword) })

	c.serve(otherKey, otherWord)
	c.fail("refuses the user or the password")
	c.within("the password is changed back", func() { c.serve(otherKey, labPassword) })
	c.serve(otherKey, otherWord)
	c.fail("refuses the user or the password")
	c.within("the clients get the new password", func() { c.configure(otherKey, otherWord) })

	for _, r := range c.callers {
		r.end()
	}
	c.culvert.clean()
}

// newChanged starts the servers, strongSwan with these settings.
func newChanged(t *testing.T, l *lab.L, ike lab.IKE) *changed {
	l.Helper()
	c := &changed{L: l, t: t, ike: ike, culvert: newRig(t, l, rigConfig{Keepalive: "10s", DPD: "10s"})}
	c.internet = c.culvert.internet
	c.far = c.internet.Host("strongswan", "192.0.2.2")
	c.serve(labSecret, labPassword)
	return c
}

// add starts a client.
func (c *changed) add(path labPath, near, gate *lab.Node, tables string) *changedCaller {
	c.Helper()
	r := &callRig{L: c.L, internet: c.internet, near: near, gate: gate}
	gw := strings.Fields(near.Run("ip", "-o", "route", "show", "default"))[2]
	near.IP("route add default via "+gw+" dev eth0 metric 50", "route del default via "+gw+" dev eth0 metric 0")
	r.wire = gate.Capture(near.Name, func(p lab.Packet) bool { return !p.IKE() })
	r.pristine = r.state()
	path.prepare(near)
	r.Culvert = c.Culvert(near, changedTOML(path, labSecret, labPassword)+tables)
	path.check(c.t, r.Culvert)
	caller := &changedCaller{callRig: r, path: path}
	c.callers = append(c.callers, caller)
	return caller
}

func changedTOML(path labPath, secret, password string) string {
	var b strings.Builder
	b.WriteString(path.toml())
	for i, name := range changedServers {
		fmt.Fprintf(&b, "[l2tp.client.%s]\nconnect-to = \"192.0.2.%d\"\nuser = %q\npassword = %q\nuse-ipsec = true\nipsec-secret = %q\n"+
			"keepalive-timeout = \"5s\"\nuse-peer-dns = \"yes\"\n", name, 2-i, labUser, password, secret)
	}
	return strings.Replace(b.String(), "keepalive", "routes = [\"192.168.66.0/24\"]\nkeepalive", 1)
}

// serve makes both servers live by this key and password, as whoever changes them does: strongSwan and xl2tpd are started
// anew, culvert reads its configuration again and throws its users out.
func (c *changed) serve(secret, password string) {
	c.Helper()
	if c.swan != nil {
		c.swan.Stop()
	}
	ike, lns := c.ike, callLNS(77)
	ike.PSK, lns.Users, lns.DNS = secret, map[string]string{labUser: password}, "192.168.77.53"
	c.swan = lab.ReferenceServer(c.far, ike, lns)
	toml := rigConfig{Path: c.culvert.path, Keepalive: "10s", DPD: "10s"}.toml()
	toml = strings.ReplaceAll(toml, labSecret, secret)
	toml = strings.ReplaceAll(toml, labPassword, password)
	toml = strings.Replace(toml, "remote-address = \"vpn\"\n", "remote-address = \"vpn\"\ndns-server = [\"192.168.99.53\"]\n", 1)
	c.culvert.Configure(toml)
	c.culvert.Signal(syscall.SIGHUP)
	c.culvert.Show("/ppp active remove " + labUser) // which is an error where nobody is there
}

func (c *changed) configure(secret, password string) {
	c.Helper()
	for _, r := range c.callers {
		r.configure(changedTOML(r.path, secret, password))
	}
}

// fail waits until no connection is up, and each of them says which of the reasons it has for that. Meanwhile there is no
// link, no route and no name server of theirs.
func (c *changed) fail(reasons ...string) {
	c.Helper()
	for _, r := range c.callers {
		for _, name := range changedServers {
			var m lab.Row
			var told string
			if !c.WaitFor(patience, func() bool {
				m = r.client(name)
				told = m.String("last-disconnect-reason")
				for _, words := range reasons {
					if m.String("status") != "connected" && strings.Contains(told, words) && len(r.Lines("not connected: ", words)) > 0 {
						return true
					}
				}
				return false
			}) {
				c.Errorf("%s to %s: no reason of %q: %v", r.near.Name, name, reasons, m)
			}
			c.Logf("%s to %s: %s", r.near.Name, name, told)
		}
		resolv, _ := r.near.ReadFile("/etc/resolv.conf")
		routes := r.near.Run("ip", "route")
		if links := r.near.Interfaces(""); strings.Contains(string(resolv), resolvBegin) || strings.Contains(routes, "192.168.") || slices.ContainsFunc(links,
			func(i net.Interface) bool { return slices.Contains(changedServers, i.Name) }) {
			c.Errorf("%s has kept: links %v, routes\n%sname servers\n%s", r.near.Name, links, routes, resolv)
		}
	}
}

// persist lets the servers refuse the clients for two minutes, which go on trying, and are not taken for somebody who guesses.
func (c *changed) persist() {
	c.Helper()
	tried := func() (n int) {
		for _, r := range c.callers {
			for _, name := range changedServers {
				n += r.client(name).Int("attempts")
			}
		}
		return n
	}
	before := tried()
	time.Sleep(longOutage)
	each := (tried() - before) / 4
	c.Logf("%d attempts in %v", each, longOutage)
	if each < int(longOutage/backWithin) {
		c.Errorf("only %d attempts in %v", each, longOutage)
	}
	if banned := c.culvert.Lines("banned"); len(banned) > 0 {
		c.Errorf("%v", banned)
	}
}

// within mends what is broken and says how long it takes until all connections are there again.
func (c *changed) within(what string, mend func()) {
	c.Helper()
	mend()
	start := time.Now()
	for _, r := range c.callers {
		for _, name := range changedServers {
			var m lab.Row
			if !c.WaitFor(patience, func() bool { m = r.client(name); return m.String("status") == "connected" }) {
				c.Fatalf("%s: %s to %s: not back: %v", what, r.near.Name, name, m)
			}
			took := time.Since(start)
			c.Logf("%s: %s to %s after %.1f s", what, r.near.Name, name, took.Seconds())
			if took > backWithin {
				c.Errorf("%s: %s to %s is back only after %v", what, r.near.Name, name, took)
			}
		}
	}
	for _, r := range c.callers {
		for _, name := range changedServers {
			if _, err := r.near.Ping(netip.MustParseAddr(r.client(name).String("remote-address")), 20*time.Second); err != nil {
				c.Errorf("%s: %s to %s: %v", what, r.near.Name, name, err)
			}
		}
		if r.shape != "" && !c.WaitFor(5*time.Second, func() bool { return r.look() == r.shape }) {
			c.Errorf("%s: %s is not as it was: before\n%s\nand now\n%s", what, r.near.Name, r.shape, r.look())
		}
	}
}

// look is what a client has in its kernel and its own tables, without what is another one with each call.
func (r *changedCaller) look() string {
	r.Helper()
	count := func(text, prefix string) (n int) {
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, prefix) {
				n++
			}
		}
		return n
	}
	states, policies := r.near.Run("ip", "xfrm", "state"), r.near.Run("ip", "xfrm", "policy")
	var links []string
	for _, i := range r.near.Interfaces("") {
		links = append(links, i.Name)
	}
	slices.Sort(links)
	resolv, _ := r.near.ReadFile("/etc/resolv.conf")
	return fmt.Sprintf("%d SAs told, %d in the kernel with %d policies, %d routes, links %v, %d name servers",
		len(r.Rows("/ip ipsec installed-sa print")), count(states, "src "), count(policies, "src "), count(r.near.Run("ip", "route"), ""),
		links, count(string(resolv), "nameserver "))
}
