package main

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"culvert/board/lab"
)

// TestLabClientMinutes: for three minutes SAs of both phases live for seconds and are renewed, by whoever comes first,
// while the links lose packets and the NAT in front of one client forgets it again and again; in the end a server loses the
// SAs. No session is lost. It is the laboratory of TestLabClientChanges: both data paths, strongSwan and culvert as servers,
// all at the same time.
func TestLabClientMinutes(t *testing.T) {
	inLab(t, clientMinutes, lab.Kernels("6.12"), lab.Memory("1G"), lab.Timeout(6*time.Minute))
}

func clientMinutes(t *testing.T, l *lab.L) {
	const lasts, every = 3 * time.Minute, 200 * time.Millisecond
	ike := callIKE
	ike.Rekey, ike.Reauth = 11*time.Second, 26*time.Second
	c := newChanged(t, l, ike)
	nat := c.internet.Host("nat", "203.0.113.1")
	nat.Forward()
	nat.NFT("table ip lab-nat { chain postrouting { type nat hook postrouting priority srcnat; oifname eth0 masquerade random; }; }")
	// One client is faster to renew than strongSwan, the other one slower. Culvert as a server leaves it to them.
	lives := func(phase1, phase2 string) string {
		return fmt.Sprintf("\n[ipsec.profile.default]\nlifetime = %q\n\n[ipsec.proposal.default]\nlifetime = %q\n", phase1, phase2)
	}
	near := c.internet.Host("kernel", "198.51.100.1")
	c.add(pathKernel, near, c.internet, lives("20s", "12s"))
	c.add(pathUserspace, nat.Host("userspace", "10.0.0.1"), nat, lives("40s", "15s"))
	c.within("first call", func() {})

	type stream struct {
		r    *changedCaller
		name string
		ping *lab.Pinger
	}
	var streams []stream
	for _, r := range c.callers {
		for _, name := range changedServers {
			ping, err := r.near.StartPing(netip.MustParseAddr(r.client(name).String("remote-address")), every, 500)
			l.Must(err, "ping")
			streams = append(streams, stream{r, name, ping})
		}
	}
	near.Up.Impair("loss 2%")
	nat.Up.Impair("loss 2%")
	// The NAT forgets some seconds after each renewal of phase 1; in the middle of one is what ikev1 tests in virtual time.
	hidden, renewals := c.callers[1], 0
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		time.Sleep(time.Second)
		n := len(hidden.Lines("phase 1 up", "peer=culvert"))
		if n == renewals {
			continue
		}
		renewals = n
		time.Sleep(4 * time.Second)
		// An address that is taken away takes the NAT's memory with it; the next packets get other ports.
		nat.IP("addr add 203.0.113.9/32 dev eth0", "addr del 203.0.113.1/32 dev eth0", "addr add 203.0.113.1/32 dev eth0", "addr del 203.0.113.9/32 dev eth0")
	}
	if renewals < 4 {
		t.Errorf("phase 1 was renewed, and the NAT has forgotten, only %d times", renewals)
	}
	near.Up.Impair("")
	nat.Up.Impair("")
	// strongSwan's kernel loses its SAs and charon does not know: the clients notice that nothing comes, and renew them
	// before PPP gives up. One whose SAs happen to be renewed at that moment has nothing to notice, and loses them again.
	noticed := func(r *changedCaller) int { return len(r.Lines("nothing comes through the SAs", "server=192.0.2.2")) }
	before := map[*changedCaller]int{}
	for _, r := range c.callers {
		before[r] = noticed(r)
	}
	unaware := func(r *changedCaller) bool { return noticed(r) == before[r] }
	for try := 0; try == 0 || slices.ContainsFunc(c.callers, unaware); try++ {
		if try == 5 {
			t.Fatal("five times the server has lost the SAs, and not every client has noticed once")
		}
		c.far.Run("ip", "xfrm", "state", "flush")
		for _, s := range streams {
			_, answered := s.ping.Counts()
			if s.name == "strongswan" && !c.WaitFor(20*time.Second, func() bool { _, got := s.ping.Counts(); return got >= answered+10 }) {
				t.Errorf("%s: the server has lost the SAs, and nothing comes any more", s.r.near.Name)
			}
		}
		for _, s := range streams { // two losses of 2 % on the way, what the NAT has swallowed while it changed, and now this
			if sent, got := s.ping.Counts(); try == 0 && (got < sent*85/100 || sent < int64(lasts/every/2)) {
				t.Errorf("%s to %s: %d of %d packets answered", s.r.near.Name, s.name, got, sent)
			}
		}
	}

	for _, s := range streams {
		sent, got := s.ping.Stop()
		m := s.r.client(s.name)
		pairs := len(s.r.Lines("SA pair installed", "remote="+map[string]string{"culvert": "192.0.2.1:", "strongswan": "192.0.2.2:"}[s.name]))
		t.Logf("%s to %s: %d of %d packets answered, %d pairs of SAs: %v", s.r.near.Name, s.name, got, sent, pairs, m)
		if m.String("status") != "connected" || m.Int("attempts") != 1 {
			t.Errorf("%s to %s: %v", s.r.near.Name, s.name, m)
		}
		if pairs < int(lasts/(18*time.Second)) {
			t.Errorf("%s to %s: only %d pairs of SAs", s.r.near.Name, s.name, pairs)
		}
	}
	// Both ends have begun, in both phases.
	for _, x := range []struct{ what, mode string }{{"generating", "ID_PROT"}, {"parsed", "ID_PROT"}, {"generating", "QUICK_MODE"}, {"parsed", "QUICK_MODE"}} {
		n := len(c.swan.Charon.Lines(x.what+" "+x.mode+" request", "SA "))
		if n < 5 {
			t.Errorf("strongSwan has %s %d requests of %s", x.what, n, x.mode)
		}
		t.Logf("strongSwan has %s %d requests of %s", x.what, n, x.mode)
	}
	for _, r := range c.callers {
		r.end()
	}
}
