package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"culvert/board/lab"
)

const softEtherPassword = "s3cret" // its command line takes no blanks

// Throughput of one TCP connection through the tunnel with everything in userspace, against SoftEther VPN server, the
// other server that does ESP, L2TP and PPP there. Client and kernel are the same for both.
func TestBenchSoftEther(t *testing.T) {
	inBench(t, func(t *testing.T, l *lab.L) {
		r := newRig(t, l, rigConfig{Path: pathUserspace})
		ike := lab.IKE{PSK: labSecret, Proposals: "aes128-sha1-modp2048", ESP: "aes128-sha1"}
		se := lab.SoftEtherServer(r.internet.Host("softether", benchReference.String()), ike,
			lab.LNS{Local: "192.168.98.1", Pool: "192.168.98.2-192.168.98.100", Users: map[string]string{labUser: softEtherPassword}})
		nat := r.internet.NAT("nat", "203.0.113.1")
		var result [][4]string
		for _, where := range []struct {
			name   string
			router *lab.Node
			addr   string
		}{{"protocol 50", r.internet, "198.51.100."}, {"in UDP", nat, "10.0.0."}} {
			for _, esp := range []string{"aes128-sha1", "aes256-sha1"} {
				ike.ESP = esp
				var clients []*lab.Client
				for i, server := range []netip.Addr{labServer, benchReference} {
					n := where.router.Host(fmt.Sprintf("client%d", i+1), fmt.Sprintf("%s%d", where.addr, i+1))
					c := lab.NewClient(n, lab.ClientConfig{Server: server, User: labUser, Password: []string{labPassword, softEtherPassword}[i], IKE: ike})
					if _, err := c.Connect(t.Context()); err != nil {
						t.Fatalf("%s, %s: %v", where.name, esp, err)
					}
					clients = append(clients, c)
				}
				clients[1].IP("route add " + se.Local.String() + " dev ppp0")
				for _, direction := range []string{"up", "down"} {
					var costs [2][]float64 // the server's processor time, in milliseconds for a megabyte
					measure := func(i int, server *lab.Node, addr netip.Addr, cpu func() time.Duration) func() float64 {
						return func() float64 {
							var flags []string
							if direction == "down" {
								flags = []string{"-R"}
							}
							before := cpu()
							rate, err := clients[i].Iperf(server, addr, 2, flags...)
							if err != nil {
								t.Errorf("%s, %s, %s: %v", where.name, esp, direction, err)
							} else if rate > 0 {
								costs[i] = append(costs[i], (cpu()-before).Seconds()*1e3/(rate*2/8))
							}
							return rate
						}
					}
					what := where.name + ", " + esp + ", " + direction
					a, b, ratio := rounds(5, measure(0, r.server, labInner, r.Culvert.CPU), measure(1, se.Node, se.Local, se.CPU))
					result = append(result, [4]string{what, fmt.Sprintf("%.0f Mbit/s", a), fmt.Sprintf("%.0f Mbit/s", b), fmt.Sprintf("%.2f", ratio)})
					x, y := median(costs[0]), median(costs[1])
					result = append(result, [4]string{"  the server's processor time for 1 MB", fmt.Sprintf("%.1f ms", x), fmt.Sprintf("%.1f ms", y),
						fmt.Sprintf("%.2f", x/max(y, 0.01))})
				}
				for i, c := range clients {
					c.Disconnect(t.Context())
					c.Kill()
					where.router.IP(fmt.Sprintf("link del client%d", i+1))
				}
			}
		}
		table(t, "throughput in userspace, reference: SoftEther VPN server", result)
	})
}
