package ikev1

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
	"culvert/ipsec"
	"culvert/ipsec/isakmp"
	"culvert/ipsec/isakmp/isakmptest"
	"culvert/ipsec/natt"
)

// replay is a Windows client on a node of the lab: its IKE messages are those that Windows sends, octet for octet but for
// what is random or secret; what they agree on goes into the node's kernel, for L2TP from port 1701 to 1701.
type replay struct {
	*initiator
	lab  *lab.L
	node *lab.Node
	net  *natt.Conns
	in   chan []byte
	l2tp *lab.Client
	left int // so many times
}

func newReplay(t *testing.T, l *lab.L, node *lab.Node, i int, secret string) *replay {
	t.Helper()
	addr := fmt.Sprintf("10.0.0.%d", i)
	r := &replay{lab: l, node: node, initiator: newInitiator(t, uint64(time.Now().UnixNano())), in: make(chan []byte, 16)}
	r.psk, r.private, r.server, r.sendOA = []byte(secret), netip.MustParseAddr(addr), netip.MustParseAddr("192.0.2.1"), true
	r.main1, r.quickSA = isakmptest.Windows.Main1(), isakmptest.Windows.QuickSA(isakmp.EncapUDPTransport)
	// What the server sees of it, which natHash is asked about.
	r.remote, r.float = netip.MustParseAddrPort("203.0.113.1:500"), netip.MustParseAddrPort("203.0.113.1:4500")
	var err error
	node.Do(func() { r.net, err = natt.Open(natt.Options{Encap: true}) })
	l.Must(err, "sockets")
	r.net.Serve(func(_ ipsec.Path, msg []byte) { r.in <- bytes.Clone(msg) }, nil)
	t.Cleanup(func() { r.net.Close() })
	r.l2tp = lab.NewClient(node, lab.ClientConfig{Server: r.server, User: fmt.Sprintf("user%d", i), Password: "correct horse", LAC: lab.LAC{Port: 1701}})
	return r
}

// say sends a message to where the exchange has come to.
func (r *replay) say(msg []byte) {
	port := uint16(natt.IKEPort)
	if r.floated {
		port = natt.NATTPort
	}
	err := r.net.Send(ipsec.Path{Local: netip.AddrPortFrom(r.private, port), Remote: netip.AddrPortFrom(r.server, port)}, msg)
	r.lab.Must(err, "send")
}

// talk sends a message, repeated every second as Windows does, and answers what comes until the exchange is over.
func (r *replay) talk(msg []byte, over func() bool) {
	r.t.Helper()
	r.say(msg)
	for deadline := time.Now().Add(20 * time.Second); !over(); {
		select {
		case got := <-r.in:
			if answer := r.receive(got); answer != nil {
				msg = answer
				r.say(msg)
			}
		case <-time.After(time.Second):
			r.say(msg)
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: no answer to %x; the server said %v", r.node.Name, msg[:28], r.errors)
		}
	}
}

// secure negotiates both phases.
func (r *replay) secure() {
	r.t.Helper()
	r.up, r.floated, r.gr, r.cr, r.natt, r.children = false, false, nil, isakmp.Cookie{}, nil, nil
	r.talk(r.first(), func() bool { return r.up })
	if !r.nated || r.serverNAT || !r.floated {
		r.t.Fatalf("%s: behind a NAT %v, the server %v", r.node.Name, r.nated, r.serverNAT)
	}
	r.renew()
}

// renew makes another pair of SAs, which takes over from the last.
func (r *replay) renew() {
	r.t.Helper()
	n := len(r.children)
	r.talk(r.quick(), func() bool { return len(r.children) > n })
	c := r.children[n]
	if c.transform.ID != isakmp.ESPAES {
		r.t.Fatalf("%s: the server chose transform %d, which Windows prefers not", r.node.Name, c.transform.ID)
	}
	state := func(verb string, spi ipsec.SPI, from, to netip.Addr, key []byte) string {
		if verb == "del" {
			return fmt.Sprintf("xfrm state del src %s dst %s proto esp spi %#x", from, to, uint32(spi))
		}
		return fmt.Sprintf("xfrm state add src %s dst %s proto esp spi %#x reqid 1 mode transport replay-window 32 auth-trunc hmac(sha1) 0x%x 96 enc cbc(aes) 0x%x encap espinudp 4500 4500 0.0.0.0",
			from, to, uint32(spi), key[32:52], key[:32])
	}
	r.node.IP(state("add", c.in, r.server, r.private, c.keyIn), state("add", c.out, r.private, r.server, c.keyOut))
	if n == 0 {
		policy := func(from, to netip.Addr, dir string) string {
			return fmt.Sprintf("xfrm policy add src %s/32 dst %s/32 proto udp sport 1701 dport 1701 dir %s tmpl src %s dst %s proto esp reqid 1 mode transport", from, to, dir, from, to)
		}
		r.node.IP(policy(r.private, r.server, "out"), policy(r.server, r.private, "in"))
		return
	}
	r.node.IP(state("del", r.children[n-1].out, r.private, r.server, nil))
}

// connect is the whole of it, up to an address.
func (r *replay) connect() netip.Addr {
	r.t.Helper()
	r.secure()
	addr, err := r.l2tp.Dial(r.lab.Context())
	r.lab.Must(err, "L2TP of "+r.node.Name)
	return addr
}

// leave says goodbye as Windows does: PPP and L2TP, then the SAs, then the ISAKMP SA.
func (r *replay) leave() {
	r.t.Helper()
	if err := r.l2tp.Disconnect(context.Background()); err != nil {
		r.t.Error(err)
	}
	r.lab.WaitFor(4*time.Second, func() bool { return len(r.l2tp.L2TP.Lines("Connection", "closed to")) > r.left })
	r.left++
	for _, c := range r.children {
		r.say(r.deleteChild(c.in))
	}
	r.say(r.deletePhase1())
	r.node.FlushIPsec()
}

// TestLabWindows: a strongSwan client and three replays of Windows behind one NAT, all of them from port 1701. They connect,
// renew, leave and come back in another order, and each has its own traffic, with L2TP in the kernel and in userspace.
func TestLabWindows(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) {
		const secret = "the shared secret"
		internet := l.Internet()
		server := internet.Host("server", "192.0.2.1")
		nat := internet.NAT("nat", "203.0.113.1")
		var nodes []*lab.Node
		for i := range 4 {
			nodes = append(nodes, nat.Host(fmt.Sprintf("hidden%d", i+1), fmt.Sprintf("10.0.0.%d", i+1)))
		}
		for _, path := range []string{"kernel", "userspace"} {
			t.Run(path, func(t *testing.T) {
				config := "[system]\nidentity = \"lab\"\ndata-path = \"" + path + "\"\n[ip.pool.vpn]\nranges = [\"192.168.99.2-192.168.99.99\"]\n" +
					"[ppp.profile.vpn]\nlocal-address = \"192.168.99.1\"\nremote-address = \"vpn\"\n" +
					"[l2tp.server]\nenabled = true\nuse-ipsec = \"required\"\nipsec-secret = \"" + secret + "\"\ndefault-profile = \"vpn\"\n"
				for i := range 4 {
					config += fmt.Sprintf("[ppp.secret.user%d]\npassword = \"correct horse\"\nprofile = \"vpn\"\n", i+1)
				}
				culvert := l.Culvert(server, config)
				swan := lab.NewClient(nodes[0], lab.ClientConfig{Server: netip.MustParseAddr("192.0.2.1"), User: "user1", Password: "correct horse",
					IKE: lab.IKE{PSK: secret, Proposals: "aes256-sha1-modp2048", ESP: "aes256-sha1", Port: 1701}})
				inner := netip.MustParseAddr("192.168.99.1")
				addrs := map[*lab.Node]netip.Addr{}
				check := func(what string) {
					t.Helper()
					seen := map[netip.Addr]string{}
					for n, a := range addrs {
						if seen[a] != "" {
							t.Errorf("%s: %s and %s have %s", what, n.Name, seen[a], a)
						}
						seen[a] = n.Name
						if _, err := n.Ping(inner, 10*time.Second); err != nil {
							t.Errorf("%s: %s: %v", what, n.Name, err)
						}
						if _, err := server.Ping(a, 10*time.Second); err != nil {
							t.Errorf("%s: to %s: %v", what, n.Name, err)
						}
					}
				}
				var all []*replay
				for i := 2; i <= 4; i++ {
					r := newReplay(t, l, nodes[i-1], i, secret)
					all = append(all, r)
					addrs[r.node] = r.connect()
					if i == 2 {
						addr, err := swan.Connect(t.Context())
						if err != nil {
							t.Fatal(err)
						}
						addrs[nodes[0]] = addr
					}
				}
				check("connected")
				said := map[string]int{}
				for _, row := range culvert.Rows("/ip ipsec active-peers print") {
					said[row.String("vendor")]++
				}
				if said["Windows 8/10/11"] != 3 || said["strongSwan"] != 1 {
					t.Errorf("the peers are taken for %v", said)
				}
				all[2].renew()
				all[0].renew()
				check("renewed")
				all[1].leave()
				delete(addrs, all[1].node)
				if !l.WaitFor(10*time.Second, func() bool { return len(culvert.Rows("/ppp active print")) == 3 }) {
					t.Error("who has left is still there")
				}
				check("one has left")
				addrs[all[1].node] = all[1].connect()
				check("it has come back")
				for _, r := range all {
					r.leave()
				}
				if err := swan.Disconnect(t.Context()); err != nil {
					t.Error(err)
				}
				if !l.WaitFor(10*time.Second, func() bool { return len(culvert.Rows("/ip ipsec installed-sa print")) == 0 }) {
					t.Errorf("SAs of those who left: %v", culvert.Rows("/ip ipsec installed-sa print"))
				}
				culvert.Stop()
				for _, n := range nodes {
					n.Kill()
				}
				if !strings.Contains(culvert.Log(), "Windows 8/10/11") {
					t.Error("the log does not say what they are")
				}
			})
		}
	}, lab.Build(lab.CulvertCommand), lab.Parallel(), lab.Timeout(4*time.Minute))
}
