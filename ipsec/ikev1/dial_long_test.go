package ikev1

import (
	"fmt"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// useAndCheck sends a packet either way every interval and stops at the first that does not pass.
func (c *cable) useAndCheck(d, interval time.Duration) {
	c.t.Helper()
	for end := c.now.Add(d); c.now.Before(end); {
		c.run(interval)
		if err := c.traffic(); err != nil {
			c.t.Fatalf("%v\ncaller %+v\n%s\nserver %+v\n%s", err, c.a.e.Snapshot(c.now), tail(c.a.log.String()), c.b.e.Snapshot(c.now), tail(c.b.log.String()))
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// bounded checks that nothing piles up.
func (c *cable) bounded() {
	c.t.Helper()
	for name, s := range map[string]*side{"caller": c.a, "server": c.b} {
		for _, cl := range s.e.clients {
			if len(cl.phase1s) > maxPhase1 || len(cl.children) > maxChildren {
				c.t.Errorf("%s has %d ISAKMP SAs and %d pairs", name, len(cl.phase1s), len(cl.children))
			}
		}
		if len(s.e.clients) != 1 {
			c.t.Errorf("%s has %d clients", name, len(s.e.clients))
		}
	}
}

// TestDialLossy: over a line that loses three in ten, repeats and reorders, calls come up and stay through renewals.
func TestDialLossy(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			aggressive := seed%4 == 3
			c := newCable(t, seed, seed%2 == 0, func(cfg *Config) {
				if aggressive {
					cfg.Peers[0].Exchange = Aggressive
				}
			})
			c.loss, c.dup, c.jitter = 30, 20, 1500*time.Millisecond
			d := c.caller()
			d.Peer.Profile.Lifetime, d.Peer.Proposal.Lifetime = 23*time.Minute, 9*time.Minute
			if aggressive {
				d.Peer.Exchange = Aggressive
			}
			if seed%3 == 0 {
				d.Peer.Proposal.PFS = ECP256
			}
			c.dial(d)
			for i := 0; len(c.a.ups) == 0 || c.traffic() != nil; i++ {
				if i == 120 {
					t.Fatalf("not up: %v\n%s\n%s", c.a.fails, c.a.log, c.b.log)
				}
				if len(c.a.downs) > 0 { // three in ten, four times in a row: it happens
					c.a.downs, c.a.fails = nil, nil
					c.dial(d)
				}
				c.run(time.Second)
			}
			c.useAndCheck(2*time.Hour, 5*time.Second)
			c.bounded()
			if len(c.a.downs) != 0 || len(c.b.downs) != 0 || len(c.a.ups) != 1 {
				t.Errorf("ups %d downs %v %v", len(c.a.ups), c.a.downs, c.b.downs)
			}
		})
	}
}

// TestDialDay: a day behind a NAT that forgets its mappings, over a line that loses one in ten. Not one packet finds its SA
// missing.
func TestDialDay(t *testing.T) {
	for seed := range uint64(3) {
		c := newCable(t, seed, true, nil)
		c.loss, c.dup, c.jitter = 10, 5, 800*time.Millisecond
		d := c.caller()
		d.Peer.Proposal.PFS = []Group{0, ECP256, X25519}[seed]
		c.dial(d)
		c.run(30 * time.Second)
		for i := 0; c.now.Sub(c.a.e.clients[c.a.ups[0].Mark].since) < 24*time.Hour; i++ {
			c.useAndCheck(10*time.Minute, 20*time.Second)
			if i%4 == 3 {
				c.rebind()
				c.run(time.Duration(c.r.IntN(40)) * time.Second)
			}
		}
		c.bounded()
		if len(c.a.downs) != 0 || len(c.b.downs) != 0 || len(c.a.ups) != 1 || len(c.b.ups) != 1 {
			t.Errorf("ups %d %d downs %v %v", len(c.a.ups), len(c.b.ups), c.a.downs, c.b.downs)
		}
		if n := c.a.e.Snapshot(c.now); len(n.SAs) > 4 {
			t.Errorf("%d SAs", len(n.SAs))
		}
	}
}

// TestDialRebindInRenewal: the NAT forgets its mappings in the middle of a renewal of phase 1, which then ends at a port that
// the server has not heard of; it is the client that it was before.
func TestDialRebindInRenewal(t *testing.T) {
	c := newCable(t, 1, true, nil)
	c.up(c.caller())
	rebinds := make(map[isakmp.Cookie]bool)
	c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		if h := exchangeOf(msg); h.Exchange == isakmp.Main && !rebinds[h.Initiator] {
			rebinds[h.Initiator] = true
			c.rebind()
		}
		return p, msg
	}
	c.useAndCheck(48*time.Hour, 20*time.Second)
	c.bounded()
	if len(rebinds) < 3 || len(c.b.e.clients) != 1 || len(c.a.downs) != 0 || len(c.b.downs) != 0 || len(c.b.ups) != 1 {
		t.Errorf("%d rebinds, %d clients, ups %d, downs %v %v", len(rebinds), len(c.b.e.clients), len(c.b.ups), c.a.downs, c.b.downs)
	}
}

// TestDialRenew: a server that sends data to where the NAT used to have us, or has lost the pair, is mended by a new pair.
func TestDialRenew(t *testing.T) {
	for _, nat := range []bool{false, true} {
		c := newCable(t, 1, nat, nil)
		m := c.up(c.caller())
		c.useAndCheck(5*time.Minute, 20*time.Second)
		pair := func() *child { return c.a.e.clients[m].children[len(c.a.e.clients[m].children)-1] }
		old := pair()
		for _, sa := range c.b.data.SAs() {
			c.b.data.Remove(sa.ID()) // and its engine does not know
		}
		if nat {
			c.rebind()
		}
		c.a.e.Renew(c.now, m)
		c.a.e.Renew(c.now, m) // a second time changes nothing
		c.run(5 * time.Second)
		if pair() == old || pair().state != childActive {
			t.Fatalf("nat %v: not renewed\n%s", nat, c.a.log)
		}
		c.useAndCheck(5*time.Minute, 20*time.Second)
		c.bounded()
		if len(c.a.downs) != 0 || len(c.b.downs) != 0 || len(c.b.e.clients) != 1 {
			t.Errorf("nat %v: downs %v %v", nat, c.a.downs, c.b.downs)
		}
		c.a.e.Renew(c.now, m+1) // nobody's
	}
}

// TestDialRenewMeanwhile: the server loses its pairs while it renews them itself, at each stage of that.
func TestDialRenewMeanwhile(t *testing.T) {
	for _, stage := range []childState{childLarval, childConfirmed} {
		c := newCable(t, 1, false, nil)
		m := c.up(c.caller())
		c.useAndCheck(5*time.Minute, 20*time.Second)
		cl := c.a.e.clients[m]
		if stage == childLarval {
			c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
				if len(cl.children) > 1 && exchangeOf(msg).Exchange == isakmp.Quick {
					msg = nil // message 3
				}
				return p, msg
			}
		}
		theirs := c.b.e.clients[c.b.ups[0].Mark].children
		theirs[len(theirs)-1].softExpired(c.now)
		c.b.e.flush()
		c.run(time.Second)
		if n := len(cl.children); n != 2 || cl.children[1].state != stage {
			t.Fatalf("%v: %d pairs", stage, n)
		}
		for _, sa := range c.b.data.SAs() {
			c.b.data.Remove(sa.ID())
		}
		c.toA = nil
		c.a.e.Renew(c.now, m)
		c.run(time.Second)
		c.traffic() // the server takes over the new pair once we use it
		c.run(time.Second)
		if err := c.traffic(); err != nil {
			t.Errorf("%v: %v\n%s", stage, err, c.a.log)
		}
		c.useAndCheck(5*time.Minute, 20*time.Second)
		c.bounded()
		if len(c.a.downs) != 0 || len(c.b.downs) != 0 {
			t.Errorf("%v: downs %v %v", stage, c.a.downs, c.b.downs)
		}
	}
}

// TestDialRenewLossy: PPP gives up four seconds after it has missed an answer. A question and an answer that are lost do
// not take that long.
func TestDialRenewLossy(t *testing.T) {
	c := newCable(t, 1, false, nil)
	m := c.up(c.caller())
	c.useAndCheck(5*time.Minute, 20*time.Second)
	for _, sa := range c.b.data.SAs() {
		c.b.data.Remove(sa.ID())
	}
	deaf := c.phase1(c.a).id.initiator
	asked, answered := 0, 0
	lose := func(n *int) func(ipsec.Path, []byte) (ipsec.Path, []byte) {
		return func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
			h := exchangeOf(msg)
			if h.Exchange == isakmp.Quick && h.Initiator != deaf {
				*n++
			}
			if h.Exchange == isakmp.Quick && *n < 2 {
				msg = nil
			}
			return p, msg
		}
	}
	c.toB, c.toA = lose(&asked), lose(&answered)
	cl := c.a.e.clients[m]
	old := cl.children[0]
	c.a.e.Renew(c.now, m)
	c.run(3500 * time.Millisecond)
	if pairs := cl.children; pairs[len(pairs)-1] == old || pairs[len(pairs)-1].state != childActive || asked < 3 || answered < 2 {
		t.Fatalf("not renewed in time, %d sent, %d answered\n%s", asked, answered, c.a.log)
	}
}

// TestDialRenewElsewhere: a server that answers nothing under the phase 1 there is gets the renewal under another one.
func TestDialRenewElsewhere(t *testing.T) {
	c := newCable(t, 1, false, nil)
	m := c.up(c.caller())
	c.useAndCheck(5*time.Minute, 20*time.Second)
	deaf := c.phase1(c.a).id
	c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		if h := exchangeOf(msg); h.Exchange == isakmp.Quick && h.Initiator == deaf.initiator {
			return p, nil
		}
		return p, msg
	}
	old := c.a.e.clients[m].children[0]
	c.a.e.Renew(c.now, m)
	c.run(2 * time.Second)
	pairs := c.a.e.clients[m].children
	if young := pairs[len(pairs)-1]; young == old || young.maker == deaf {
		t.Fatalf("not renewed under a new phase 1\n%s", c.a.log)
	}
	c.useAndCheck(5*time.Minute, 20*time.Second)
	if len(c.a.downs) != 0 || len(c.b.downs) != 0 {
		t.Errorf("downs %v %v", c.a.downs, c.b.downs)
	}
}

// TestDialPeerRenews: the server renews both phases before we do.
func TestDialPeerRenews(t *testing.T) {
	for _, nat := range []bool{false, true} {
		c := newCable(t, 1, nat, nil)
		d := c.caller()
		d.LocalPort = 40123
		c.up(d)
		for range 5 {
			c.useAndCheck(15*time.Minute, 30*time.Second)
			cl := c.b.e.clients[c.b.ups[0].Mark]
			ch := cl.children[len(cl.children)-1]
			ch.softExpired(c.now)
			c.b.e.flush()
		}
		c.useAndCheck(10*time.Minute, 30*time.Second)
		c.bounded()
		if len(c.a.downs) != 0 || len(c.a.e.children) != 1 {
			t.Errorf("downs %v, %d pairs", c.a.downs, len(c.a.e.children))
		}
		for _, ch := range c.a.e.children {
			if ch.selector.LocalPort != 40123 || ch.selector.RemotePort != 1701 {
				t.Errorf("%+v", ch.selector)
			}
		}
		for _, ch := range c.b.e.children {
			if ch.selector.RemotePort != 40123 || ch.selector.LocalPort != 1701 {
				t.Errorf("%+v", ch.selector)
			}
		}
	}
}

// TestDialServerPhase1: the server begins a phase 1 of its own, which becomes the call's newest.
func TestDialServerPhase1(t *testing.T) {
	for _, nat := range []bool{false, true} {
		c := newCable(t, 1, nat, nil)
		m := c.up(c.caller())
		// The server's side is an engine like ours: let it call back, from where it is to where it sees us.
		sb := c.phase1(c.b)
		p := NewServer("back", ipsec.Secret("mySecret"))
		p.SendInitialContact = false
		p.Profile.Ciphers, p.Profile.Hashes, p.Profile.Groups = []Cipher{AES256}, []Hash{SHA256}, []Group{ECP256}
		if _, err := c.b.e.Dial(c.now, Dial{Peer: p, Path: sb.path, LocalPort: 1701}); err != nil {
			t.Fatal(err)
		}
		c.run(3 * time.Second)
		cl := c.a.e.clients[m]
		if len(c.a.e.clients) != 1 || len(cl.phase1s) != 2 || cl.newest().dial != nil || cl.newest().role() != "responder" {
			t.Fatalf("%+v\n%s", c.a.e.Snapshot(c.now), c.a.log)
		}
		c.run(time.Minute)
		if len(cl.phase1s) != 1 || len(c.a.downs) != 0 {
			t.Errorf("%d ISAKMP SAs, downs %v", len(cl.phase1s), c.a.downs)
		}
	}
}

// TestDialSimultaneous: both sides renew at the same moment, more or less.
func TestDialSimultaneous(t *testing.T) {
	for seed := range uint64(40) {
		c := newCable(t, seed, seed%2 == 0, nil)
		c.jitter = 300 * time.Millisecond
		if seed >= 20 {
			c.dup = 20
		}
		d := c.caller()
		if seed%3 == 0 {
			d.Peer.Proposal.PFS = ECP256
		}
		c.up(d)
		c.loss = btoi(seed >= 20) * 25
		for range 6 {
			c.run(time.Duration(c.r.IntN(100)) * time.Millisecond)
			ca, cb := c.a.e.clients[c.a.ups[0].Mark], c.b.e.clients[c.b.ups[0].Mark]
			first, second := func() {
				ca.children[len(ca.children)-1].renewDue(c.now)
			}, func() {
				cb.children[len(cb.children)-1].softExpired(c.now)
			}
			if seed%4 > 1 {
				first, second = second, first
			}
			first()
			c.run(time.Duration(c.r.IntN(80)) * time.Millisecond)
			second()
			c.useAndCheck(2*time.Minute, 250*time.Millisecond)
		}
		c.bounded()
		if len(c.a.downs) != 0 || len(c.b.downs) != 0 || len(c.a.e.children) > 2 {
			t.Errorf("seed %d: downs %v %v, %d pairs\n%s", seed, c.a.downs, c.b.downs, len(c.a.e.children), c.a.log)
		}
	}
}

// TestDialPhase1Renewal: phase 1 is renewed in time, as often as it takes.
func TestDialPhase1Renewal(t *testing.T) {
	c := newCable(t, 5, true, nil)
	d := c.caller()
	d.Peer.Profile.Lifetime = 10 * time.Minute
	m := c.up(d)
	seen := map[cookies]bool{}
	for range 100 {
		c.useAndCheck(time.Minute, 20*time.Second)
		seen[c.a.e.clients[m].newest().id] = true
	}
	if len(seen) < 11 || len(seen) > 13 {
		t.Errorf("%d ISAKMP SAs in 100 minutes of 10 each", len(seen))
	}
	// An unreachable server: what stands is used until it ends.
	c.blocked = true
	c.run(9 * time.Minute)
	if len(c.a.downs) != 1 { // dead peer detection, as nothing comes in
		t.Errorf("downs %v", c.a.downs)
	}
	c.empty(c.a)
}

// TestDialPhase1Unrenewable: a server that does not renew phase 1 keeps its pairs, and gets them renewed once it does.
func TestDialPhase1Unrenewable(t *testing.T) {
	c := newCable(t, 5, true, nil)
	d := c.caller()
	d.Peer.Profile.Lifetime, d.Peer.Profile.DPDInterval, d.Peer.Proposal.Lifetime = 10*time.Minute, 0, 2*time.Hour
	m := c.up(d)
	stuck := true
	c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		if h := exchangeOf(msg); h.Responder.IsZero() && stuck {
			return p, nil
		}
		return p, msg
	}
	c.useAndCheck(80*time.Minute, time.Minute)
	if c.a.e.clients[m].newest() != nil {
		t.Error("there is phase 1")
	}
	stuck = false
	c.useAndCheck(5*time.Minute, time.Minute)
	if c.a.e.clients[m].newest() == nil {
		t.Error("there is no phase 1")
	}
	c.useAndCheck(2*time.Hour, time.Minute)
	if len(c.a.downs) != 0 || len(c.b.downs) != 0 {
		t.Errorf("downs %v %v", c.a.downs, c.b.downs)
	}
}
