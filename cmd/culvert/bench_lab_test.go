package main

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"culvert/board/lab"
)

// The benchmarks compare culvert with strongSwan + xl2tpd + pppd as the server: both run in the same guest at the same
// time, the same client measures one and then the other, in turn, and what is printed is the median of the rounds' ratios.
// Absolute figures of a user-mode kernel say little; ratios do. They run with CULVERT_BENCH=1 (make bench).

var benchReference = netip.MustParseAddr("192.0.2.2")

func inBench(t *testing.T, f func(t *testing.T, l *lab.L), opts ...lab.Option) {
	t.Helper()
	if os.Getenv("CULVERT_BENCH") == "" && !lab.InGuest() {
		t.Skip("a benchmark: make bench")
	}
	inLab(t, f, append([]lab.Option{lab.Kernels("6.12"), lab.Memory("2G"), lab.Timeout(8 * time.Minute), lab.Alone()}, opts...)...)
}

// pair is both servers, behind one router.
type pair struct {
	*rig
	ref *lab.Reference
}

func newPair(t *testing.T, l *lab.L, c rigConfig, ike lab.IKE, auth string) *pair {
	t.Helper()
	p := &pair{rig: newRig(t, l, c)}
	users := map[string]string{}
	for i := range max(c.Users, 1) {
		users[fmt.Sprintf("user%d", i+1)] = labPassword
	}
	p.ref = lab.ReferenceServer(p.internet.Host("reference", benchReference.String()), ike,
		lab.LNS{Local: "192.168.98.1", Pool: "192.168.98.2-192.168.98.254", Users: users, Auth: auth})
	return p
}

// table prints rows of: what, culvert, reference, ratio.
func table(t *testing.T, title string, rows [][4]string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", title)
	for _, r := range append([][4]string{{"", "culvert", "reference", "ratio"}}, rows...) {
		fmt.Fprintf(&b, "  %-38s %14s %14s %9s\n", r[0], r[1], r[2], r[3])
	}
	fmt.Println(b.String())
}

func median(v []float64) float64 {
	s := slices.Clone(v)
	slices.Sort(s)
	if len(s) == 0 {
		return 0
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

func mean(v []float64) (sum float64) {
	for _, x := range v {
		sum += x / float64(len(v))
	}
	return sum
}

// rounds measures both servers in turn, the order changing each time, and returns the medians and the median ratio.
func rounds(n int, culvert, reference func() float64) (c, r, ratio float64) {
	var cs, rs, ratios []float64
	for i := range n {
		var a, b float64
		if i%2 == 0 {
			a, b = culvert(), reference()
		} else {
			b, a = reference(), culvert()
		}
		if a > 0 && b > 0 {
			cs, rs, ratios = append(cs, a), append(rs, b), append(ratios, a/b)
		}
	}
	return median(cs), median(rs), median(ratios)
}

// Throughput of one TCP connection through the tunnel.
func TestBenchThroughput(t *testing.T) {
	inBench(t, func(t *testing.T, l *lab.L) {
		ike := lab.IKE{PSK: labSecret, Proposals: "aes256-sha256-modp2048", ESP: "aes128-sha1"}
		p := newPair(t, l, rigConfig{}, ike, "")
		var result [][4]string
		for _, esp := range []string{"aes128-sha1", "aes256-sha256", "aes128gcm16"} {
			ike.ESP = esp
			l.Must(p.ref.Charon.Load(t.Context(), netip.Addr{}, ike), "reference")
			toCulvert := p.client(1, func(c *lab.ClientConfig) { c.IKE.ESP = esp })
			toRef := lab.NewClient(p.internet.Host("client2", "198.51.100.2"),
				lab.ClientConfig{Server: benchReference, User: labUser, Password: labPassword, IKE: ike})
			for _, c := range []*lab.Client{toCulvert, toRef} {
				if _, err := c.Connect(t.Context()); err != nil {
					t.Fatalf("%s: %v", esp, err)
				}
			}
			for _, direction := range []string{"up", "down"} {
				measure := func(c *lab.Client, server *lab.Node) func() float64 {
					return func() float64 {
						var flags []string
						if direction == "down" {
							flags = []string{"-R"}
						}
						rate, err := c.Iperf(server, c.Inner(), 1, flags...)
						if err != nil {
							t.Errorf("%s %s: %v", esp, direction, err)
						}
						return rate
					}
				}
				c, r, ratio := rounds(15, measure(toCulvert, p.server), measure(toRef, p.ref.Node))
				result = append(result, [4]string{esp + ", " + direction, fmt.Sprintf("%.0f Mbit/s", c), fmt.Sprintf("%.0f Mbit/s", r), fmt.Sprintf("%.2f", ratio)})
			}
			for i, c := range []*lab.Client{toCulvert, toRef} {
				c.Disconnect(t.Context())
				c.Kill()
				p.internet.IP(fmt.Sprintf("link del client%d", i+1))
			}
		}
		table(t, "throughput of a tunnel", result)
	})
}

// Sessions per second without IPsec: tunnel, session, LCP, PAP, IPCP.
func TestBenchSessions(t *testing.T) {
	inBench(t, func(t *testing.T, l *lab.L) {
		p := newPair(t, l, rigConfig{UseIPsec: "no", Auth: "pap"}, lab.IKE{}, "pap")
		client := p.internet.Host("client", "198.51.100.1")
		var result [][4]string
		for _, parallel := range []int{1, 8} {
			const n = 40
			measure := func(server netip.Addr) func() float64 {
				return func() float64 {
					var wg sync.WaitGroup
					var mu sync.Mutex
					var up []*lab.Dialled
					var failed atomic.Bool
					start := time.Now()
					for range parallel {
						wg.Go(func() {
							for range n / parallel {
								d, err := client.DialL2TP(t.Context(), netip.AddrPortFrom(server, 1701), labUser, labPassword)
								if err != nil {
									if server == labServer {
										t.Error(err)
									} else {
										t.Logf("the reference: %v", err)
									}
									failed.Store(true)
									return
								}
								mu.Lock()
								up = append(up, d)
								mu.Unlock()
							}
						})
					}
					wg.Wait()
					took := time.Since(start)
					for _, d := range up {
						wg.Go(d.Close)
					}
					wg.Wait()
					l.WaitFor(15*time.Second, func() bool { return len(p.ref.Interfaces("ppp"))+len(p.server.Interfaces("ppp")) == 0 })
					if failed.Load() {
						return 0 // this round does not count
					}
					return float64(len(up)) / took.Seconds()
				}
			}
			a, b, ratio := rounds(5, measure(labServer), measure(benchReference))
			result = append(result, [4]string{fmt.Sprintf("%d sessions, %d at a time", n, parallel),
				fmt.Sprintf("%.1f /s", a), fmt.Sprintf("%.1f /s", b), fmt.Sprintf("%.1f", ratio)})
		}
		table(t, "sessions without IPsec", result)
	})
}

// Both phases negotiated and deleted again, over and over.
func TestBenchIKE(t *testing.T) {
	inBench(t, func(t *testing.T, l *lab.L) {
		groups := []string{"modp2048", "ecp256"}
		ike := lab.IKE{PSK: labSecret, Proposals: "aes256-sha256-modp2048,aes256-sha256-ecp256", ESP: "aes256-sha256"}
		p := newPair(t, l, rigConfig{}, ike, "")
		for g, group := range groups {
			// One address may begin 64 exchanges at once with culvert, so there are several.
			const each, n, turns = 3, 30, 6
			initiators := func(first int, server netip.Addr) (list []*lab.Charon) {
				for i := range each {
					i += first + 2*each*g
					node := p.internet.Host(fmt.Sprintf("client%d", i), fmt.Sprintf("198.51.100.%d", i))
					charon, err := node.Charon()
					l.Must(err, "charon")
					own := ike
					own.Proposals = "aes256-sha256-" + group
					l.Must(charon.Load(t.Context(), server, own), "load")
					list = append(list, charon)
				}
				return list
			}
			var cpuC, cpuR []float64
			measure := func(from []*lab.Charon, cpu func() time.Duration, spent *[]float64) func() float64 {
				turn := 0
				return func() float64 {
					c := from[turn%each]
					turn++
					before, start := cpu(), time.Now()
					if err := c.Exchange(n); err != nil {
						t.Error(err)
						return 0
					}
					took := time.Since(start).Seconds()
					*spent = append(*spent, (cpu()-before).Seconds()*1000/n)
					return n / took
				}
			}
			a, b, ratio := rounds(turns, measure(initiators(1, labServer), p.Culvert.CPU, &cpuC), measure(initiators(1+each, benchReference), p.ref.CPU, &cpuR))
			// The lab's clock of a process goes by ticks of 10 ms, so it is the sum over all turns that says something.
			c, r := mean(cpuC), mean(cpuR)
			table(t, "IKE, main mode and quick mode, "+group+"; initiator and responder share one processor", [][4]string{
				{"up and down", fmt.Sprintf("%.1f /s", a), fmt.Sprintf("%.1f /s", b), fmt.Sprintf("%.2f", ratio)},
				{"the server's processor time for each", fmt.Sprintf("%.1f ms", c), fmt.Sprintf("%.1f ms", r), fmt.Sprintf("%.2f", c/max(r, 0.01))},
			})
		}
	})
}

// Resident memory with 1, 10 and 50 IPsec clients connected. Of culvert it is the resident set, of the reference the sum
// over its daemons and pppds with the programs' own files counted once.
func TestBenchMemory(t *testing.T) {
	inBench(t, func(t *testing.T, l *lab.L) {
		const most = 50
		ike := lab.IKE{PSK: labSecret, Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha256"}
		p := newPair(t, l, rigConfig{Users: most}, ike, "")
		mb := func(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }
		line := func(n int) [4]string {
			a, b := p.Culvert.Memory(), p.ref.Memory()
			return [4]string{fmt.Sprintf("%d sessions", n), mb(a), mb(b), fmt.Sprintf("%.2f", float64(a)/float64(b))}
		}
		result := [][4]string{line(0)}
		up := 0
		for _, want := range []int{1, 10, most} {
			for up < want {
				up++
				c := p.client(up)
				if _, err := c.Connect(t.Context()); err != nil {
					t.Fatal(err)
				}
				n := p.internet.Host(fmt.Sprintf("other%d", up), fmt.Sprintf("198.51.101.%d", up))
				o := lab.NewClient(n, lab.ClientConfig{Server: benchReference, User: c.Config.User, Password: labPassword, IKE: ike})
				if _, err := o.Connect(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if rows := p.Rows("/ppp active print"); len(rows) != want {
				t.Errorf("%d sessions at culvert, want %d", len(rows), want)
			}
			if got := len(p.ref.Interfaces("ppp")); got != want {
				t.Errorf("%d sessions at the reference, want %d", got, want)
			}
			result = append(result, line(want))
		}
		table(t, "resident memory", result)
	}, lab.Memory("4G"), lab.Timeout(12*time.Minute))
}
