package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"culvert/board/lab"
)

const softEtherPassword = "s3cret" // its command line takes no blanks

// serverShare is how many hundredths of a processor a server gets. On a machine with two of them its client, which has the
// other one for itself and for both ends of the traffic, is then never the limit.
const serverShare = 25

// contender is a server that is measured.
type contender struct {
	node        *lab.Node
	addr, inner netip.Addr
	password    string
	cpu         func() time.Duration
}

// Throughput through the tunnel with everything in userspace, against SoftEther VPN server, the other server that does
// ESP, L2TP and PPP there. Both run on this machine's own kernel, held to the same share of the same processor. The client
// is the same for both, culvert, and carries four TCP connections for two seconds, to one server and then to the other.
func TestBenchSoftEther(t *testing.T) {
	if os.Getenv("CULVERT_BENCH") == "" && !lab.InGuest() {
		t.Skip("a benchmark: make bench")
	}
	lab.Here(t, benchSoftEther, lab.Timeout(10*time.Minute), lab.Alone(), lab.Build(lab.CulvertCommand))
}

func benchSoftEther(t *testing.T, l *lab.L) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs a processor for the server and one for the rest")
	}
	own := runtime.NumCPU() - 1
	var others []int
	for i := range own {
		others = append(others, i)
	}
	internet := l.Internet()
	nat := internet.NAT("nat", "203.0.113.1")
	// started is what runs alone on its processor, in its share; what is started on its node later is not its own.
	started := func(n *lab.Node, start func()) {
		n.Pin(own)
		start()
		n.Share(serverShare)
		n.Pin(others...)
	}
	var ours *lab.Culvert
	server := internet.Host("server", labServer.String())
	started(server, func() {
		ours = l.Culvert(server, rigConfig{Path: pathUserspace, Extra: benchProposal("aes-128-cbc", "aes-256-cbc")}.toml())
	})
	var theirs *lab.SoftEther
	other := internet.Host("softether", benchReference.String())
	started(other, func() {
		theirs = lab.SoftEtherServer(other, lab.IKE{PSK: labSecret}, lab.LNS{Local: "192.168.98.1", Pool: "192.168.98.2-192.168.98.100",
			Users: map[string]string{labUser: softEtherPassword}})
	})
	servers := []contender{
		{server, labServer, labInner, labPassword, ours.CPU},
		{other, benchReference, theirs.Local, softEtherPassword, theirs.CPU},
	}
	var result [][4]string
	for _, where := range []struct {
		name   string
		router *lab.Node
		addr   string
	}{{"no NAT", internet, "198.51.100."}, {"NAT", nat, "10.0.0."}} {
		for _, cipher := range []string{"aes-128-cbc", "aes-256-cbc"} {
			var clients []*lab.Node
			var daemons []*lab.Culvert
			for i, s := range servers {
				n := where.router.Host(fmt.Sprintf("client%d", i+1), fmt.Sprintf("%s%d", where.addr, i+1))
				n.Pin(others...)
				for _, n := range []*lab.Node{n, internet, nat} {
					n.Steer(others...) // the wire is not the server's work
				}
				clients, daemons = append(clients, n), append(daemons, benchClient(t, l, n, s, cipher))
			}
			for _, direction := range []string{"up", "down"} {
				what := where.name + ", " + cipher + "/sha1, " + direction
				result = append(result, benchDirection(t, what, direction, servers, clients)...)
			}
			for i, c := range daemons {
				if err := c.Stop(); err != nil {
					t.Error(err)
				}
				where.router.IP(fmt.Sprintf("link del client%d", i+1))
			}
		}
	}
	table(t, fmt.Sprintf("throughput in userspace in %d %% of a processor, reference: SoftEther VPN server\n  (without a NAT culvert's ESP is IP protocol 50, SoftEther's is in UDP all the same)",
		serverShare), result)
}

func benchProposal(ciphers ...string) string {
	return fmt.Sprintf("[ipsec.proposal.default]\nenc-algorithms = [%s]\nauth-algorithms = [\"sha1\"]\n", quoted(ciphers))
}

func quoted(words []string) (s string) {
	for i, w := range words {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%q", w)
	}
	return s
}

// benchClient connects culvert to one of the servers.
func benchClient(t *testing.T, l *lab.L, n *lab.Node, s contender, cipher string) *lab.Culvert {
	t.Helper()
	c := l.Culvert(n, callConfig{Path: pathUserspace, Connect: s.addr.String(), Password: s.password,
		Extra: fmt.Sprintf("routes = [\"%v/32\"]\n", s.inner), Tables: benchProposal(cipher)}.toml())
	var m lab.Row
	if !l.WaitFor(patience, func() bool {
		if rows := c.Rows("/interface l2tp-client monitor l2tp-out1"); len(rows) == 1 {
			m = rows[0]
		}
		return m.String("status") == "connected"
	}) {
		t.Fatalf("%s: not connected to %s: %v", n.Name, s.node.Name, m)
	}
	return c
}

// benchDirection is two rows: the throughput, and the server's processor time for a megabyte of it.
func benchDirection(t *testing.T, what, direction string, servers []contender, clients []*lab.Node) [][4]string {
	const seconds = 2
	flags := []string{"-P", "4"}
	if direction == "down" {
		flags = append(flags, "-R")
	}
	var costs [2][]float64 // milliseconds for a megabyte
	measure := func(i int) func() float64 {
		return func() float64 {
			before := servers[i].cpu()
			rate, err := clients[i].Iperf(servers[i].node, servers[i].inner, seconds, flags...)
			if err != nil {
				t.Errorf("%s: %v", what, err)
			} else if rate > 0 {
				costs[i] = append(costs[i], (servers[i].cpu()-before).Seconds()*1e3/(rate*seconds/8))
			}
			return rate
		}
	}
	a, b, ratio := rounds(5, measure(0), measure(1))
	var relative []float64
	for i := range min(len(costs[0]), len(costs[1])) {
		relative = append(relative, costs[0][i]/max(costs[1][i], 0.01))
	}
	return [][4]string{
		{what, fmt.Sprintf("%.0f Mbit/s", a), fmt.Sprintf("%.0f Mbit/s", b), fmt.Sprintf("%.2f", ratio)},
		{"  the server's processor time for 1 MB", fmt.Sprintf("%.2f ms", median(costs[0])), fmt.Sprintf("%.2f ms", median(costs[1])),
			fmt.Sprintf("%.2f", median(relative))},
	}
}
