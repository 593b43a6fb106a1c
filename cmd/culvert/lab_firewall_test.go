package main

import (
	"context"
	"errors"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/board/firewall"
	"culvert/board/lab"
)

// TestLabFirewall: `[ip.firewall] manage = true` as nft(8) reads it, and as packets meet it.
func TestLabFirewall(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		ends(t, l.Sub(t))
		managed(t, l.Sub(t))
	}, lab.Kernels("6.12"), lab.Timeout(4*time.Minute))
}

const managedTOML = `
[ip.firewall]
manage = true
masquerade = ["eth0"]
`

// managedTable is what `nft list` shows of the table, of a server that requires IPsec, in the kernel.
const managedTable = `
table inet culvert-firewall {
flags owner
set ports {
type inet_service
elements = { 500, 1701, 4500 }
set banned4 {
type ipv4_addr
size 4096
flags timeout
set banned6 {
type ipv6_addr
size 4096
flags timeout
set users {
type ipv4_addr
flags interval
elements = { 192.168.99.2-192.168.99.254 }
chain banned {
ip saddr @banned4 counter drop
ip6 saddr & ffff:ffff:ffff:ffff:: == @banned6 counter drop
chain prerouting {
type filter hook prerouting priority raw; policy accept;
udp dport @ports jump banned
meta l4proto esp jump banned
chain input {
type filter hook input priority filter; policy accept;
udp dport 500 counter accept
udp dport 4500 counter accept
meta l4proto esp counter accept
meta nfproto ipv4 udp dport 1701 meta ipsec exists counter accept
meta nfproto ipv4 udp dport 1701 counter drop
meta nfproto ipv6 udp dport 1701 meta ipsec exists counter accept
meta nfproto ipv6 udp dport 1701 counter drop
chain forward {
type filter hook forward priority filter; policy accept;
ip saddr @users counter accept
ip daddr @users counter accept
chain postrouting {
type nat hook postrouting priority srcnat; policy accept;
ip saddr @users oifname "eth0" counter masquerade
`

// tableText is the table as nft lists it, without indentation, closing brackets and what differs from run to run.
func tableText(n *lab.Node) string {
	var lines []string
	for line := range strings.Lines(n.Run("nft", "-s", "list", "ruleset")) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), " # progname")
		if line != "" && line != "}" {
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines, "\n") + "\n"
	i := strings.Index(text, "table inet "+firewall.Name)
	if i < 0 {
		return ""
	}
	text = text[i:]
	if i = strings.Index(text[1:], "table "); i >= 0 {
		text = text[:i+1]
	}
	return "\n" + text
}

// counted is how many packets a rule, of which that is a part, has counted.
func counted(t *testing.T, n *lab.Node, rule string) int {
	t.Helper()
	for line := range strings.Lines(n.Run("nft", "list", "table", "inet", firewall.Name)) {
		if m := regexp.MustCompile(`counter packets (\d+)`).FindStringSubmatch(line); m != nil && strings.Contains(line, rule) {
			packets, _ := strconv.Atoi(m[1])
			return packets
		}
	}
	t.Errorf("no rule %q counts", rule)
	return 0
}

// managed goes through the data paths, a daemon each: it is told to end, or killed, and leaves nothing to the next.
func managed(t *testing.T, l *lab.L) {
	r := newRig(t, l, rigConfig{Extra: managedTOML})
	web := r.internet.Host("web", "203.0.113.80")
	webAddr := netip.MustParseAddr("203.0.113.80")
	if got := tableText(r.server); got != managedTable {
		t.Errorf("the table is %s", got)
	}
	c := r.client(1)
	passes := func(what string) {
		t.Helper()
		addr := r.connect(c)
		r.reaches(c, addr) // and a host of the LAN reaches the user
		c.IP("route replace 203.0.113.80 dev ppp0")
		seen := web.Capture("eth0", func(p lab.Packet) bool { return !p.Out && p.Proto == 1 })
		// It knows no way back to the user's address.
		if _, err := c.Ping(webAddr, 10*time.Second); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		for _, p := range seen.Stop() {
			if p.Src.Addr() != labServer {
				t.Errorf("%s: %v", what, p)
			}
		}
		if err := c.Disconnect(t.Context()); err != nil {
			t.Error(err)
		}
	}
	passes("kernel")
	for _, rule := range []string{"udp dport 500 ", "l4proto esp", "meta nfproto ipv4 udp dport 1701 meta ipsec exists", "ip saddr @users counter", "ip daddr @users", "masquerade"} {
		if counted(t, r.server, rule) == 0 {
			t.Errorf("nothing passed %q", rule)
		}
	}
	// L2TP in the clear meets nobody.
	guesser := r.internet.Host("guesser", "198.51.100.66")
	call := func(password string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		d, err := guesser.DialL2TP(ctx, netip.AddrPortFrom(labServer, 1701), "user1", password)
		if err == nil {
			d.Close()
		}
		return err
	}
	if err := call(labPassword); err == nil {
		t.Error(errLetIn)
	}
	if counted(t, r.server, "meta nfproto ipv4 udp dport 1701 counter") == 0 {
		t.Error("L2TP in the clear passed the table")
	}

	// A daemon that is killed leaves no table, and the next one has its own. Decrypted packets of our own ESP do not pass it.
	r.Kill()
	r.Configure(rigConfig{Extra: managedTOML, Path: pathUserspace}.toml())
	r.Start()
	want := strings.NewReplacer("meta nfproto ipv4 udp dport 1701 meta ipsec exists counter accept\n", "", "meta nfproto ipv6 udp dport 1701 meta ipsec exists counter accept\n", "").Replace(managedTable)
	if got := tableText(r.server); got != want {
		t.Errorf("the next daemon's table is %s", got)
	}
	passes("userspace")
	r.Signal(syscall.SIGTERM)
	l.Must(r.Wait(20*time.Second), "end")
	if got := tableText(r.server); got != "" {
		t.Errorf("left behind: %s", got)
	}

	// Where IPsec is not required the clear is let in, and guessing at passwords ends at the table.
	r.Configure(rigConfig{Extra: managedTOML, UseIPsec: "yes", Auth: "pap"}.toml())
	r.Start()
	want = strings.NewReplacer(" meta ipsec exists", "", "meta nfproto ipv4 udp dport 1701 counter drop\n", "", "meta nfproto ipv6 udp dport 1701 counter drop\n", "").Replace(managedTable)
	if got := tableText(r.server); got != want {
		t.Errorf("without use-ipsec the table is %s", got)
	}
	guess := func() {
		t.Helper()
		for i := range banAfter + 1 {
			if call("wrong horse") == nil {
				t.Fatal(errLetIn)
			}
			if len(r.Rows("/ip firewall ban print")) > 0 {
				break
			} else if i == banAfter {
				t.Fatal("not banned")
			}
		}
		rows := r.Rows("/ip firewall ban print")
		set := r.server.Run("nft", "list", "set", "inet", firewall.Name, "banned4")
		if len(rows) != 1 || rows[0].String("address") != "198.51.100.66" || rows[0].String("where") != "kernel" || !strings.Contains(set, "198.51.100.66 timeout 1m expires ") {
			t.Errorf("banned: %v\n%s", rows, set)
		}
		before := counted(t, r.server, "@banned4")
		if call(labPassword) == nil {
			t.Error("the banned was let in")
		}
		if counted(t, r.server, "@banned4") == before {
			t.Error("the table has dropped nothing of the banned")
		}
		if _, err := guesser.Ping(labServer, 5*time.Second); err != nil {
			t.Errorf("more is dropped than what is for culvert: %v", err)
		}
	}
	// Nobody may have been connected from there, for that is spared.
	answered := func() bool { return !errors.Is(call("wrong horse"), context.DeadlineExceeded) }
	for _, lift := range []func(){
		func() { r.Rows("/ip firewall ban remove 198.51.100.66") },
		func() { r.Signal(syscall.SIGHUP) },
	} {
		guess()
		lift()
		if !l.WaitFor(5*time.Second, func() bool {
			return !strings.Contains(r.server.Run("nft", "list", "set", "inet", firewall.Name, "banned4"), "198.51.100.66")
		}) || !answered() {
			t.Error("still banned")
		}
	}
	if err := call(labPassword); err != nil {
		t.Error(err)
	}

	// Another firewall cannot be overruled, and the log says which.
	r.server.NFT("table inet strict { chain input { type filter hook input priority 0; policy drop; accept; }; }")
	r.Signal(syscall.SIGTERM)
	l.Must(r.Wait(20*time.Second), "end")
	r.Start()
	if lines := r.Lines("other tables drop by policy", "[inet strict input]"); len(lines) != 1 {
		t.Errorf("the log does not name the other table:\n%s", r.Log())
	}

	// The console changes it, all at once, and takes it away.
	r.Rows("/ip firewall settings set masquerade=eth0,lan")
	if got := tableText(r.server); !strings.Contains(got, `oifname "lan" counter masquerade`) || strings.Count(got, "chain input") != 1 {
		t.Errorf("after set: %s", got)
	}
	r.Rows("/ip firewall settings set manage=no")
	if got := tableText(r.server); got != "" {
		t.Errorf("not managed any more, and yet: %s", got)
	}
}

// ends: a ban ends by itself.
func ends(t *testing.T, l *lab.L) {
	n := l.Namespace("bans")
	n.IP("link set lo up")
	at := netip.MustParseAddrPort("127.0.0.1:1701")
	conn, err := n.ListenUDP(at)
	l.Must(err, "listen")
	defer conn.Close()
	var table firewall.Table
	n.Do(func() { err = table.Apply(firewall.Rules{L2TP: []netip.AddrPort{at}}) })
	l.Must(err, "table")
	defer table.Close()
	l.Must(table.Ban(netip.MustParsePrefix("127.0.0.1/32"), time.Second), "ban")
	arrives := func() bool {
		conn.WriteToUDPAddrPort([]byte{1}, at)
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, _, err := conn.ReadFromUDPAddrPort(make([]byte, 1))
		return err == nil
	}
	if arrives() {
		t.Error("the banned come through")
	}
	if !l.WaitFor(10*time.Second, arrives) {
		t.Error("a ban of a second does not end")
	}
}
