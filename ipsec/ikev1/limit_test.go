package ikev1

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
	"culvert/ipsec/isakmp/isakmptest"
)

// load makes so many half-open exchanges from as many addresses that first answers are stateless from then on.
func (w *world) load() {
	msg := isakmptest.LegacyCPE.Main1()
	for i := range w.e.cfg.HalfOpen {
		binary.BigEndian.PutUint64(msg, uint64(i+1))
		w.give(ipsec.Path{Local: netip.AddrPortFrom(serverAddr, 500), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 500)}, msg)
	}
}

// TestStatelessFirst: under load nothing is kept of a first message whose like is known, and its client comes up.
func TestStatelessFirst(t *testing.T) {
	for _, kind := range isakmptest.Clients() {
		w := newWorld(t, func(cfg *Config) { cfg.HalfOpen = 100 })
		first := newInitiator(t, 1).behindNAT("203.0.113.8", 61000, "192.168.1.34")
		first.main1 = kind.Main1()
		w.run(first, first.first())
		w.load()
		c := newInitiator(t, 2).behindNAT("203.0.113.9", 61000, "192.168.1.34")
		c.main1 = kind.Main1()
		before, halfOpen := len(w.e.sas), w.e.Snapshot(w.now).HalfOpen
		msg := c.first()
		second := w.give(c.from(), msg)
		again := w.give(c.from(), msg)
		if len(second) != 1 || len(again) != 1 || !bytes.Equal(second[0].msg, again[0].msg) {
			t.Fatalf("%s: %d answers, then %d", kind.Name, len(second), len(again))
		}
		if s := w.e.Snapshot(w.now); len(w.e.sas) != before || s.HalfOpen != halfOpen || s.Stateless < 2 {
			t.Errorf("%s: kept %d, half open %d", kind.Name, len(w.e.sas)-before, s.HalfOpen-halfOpen)
		}
		w.run(c, c.receive(second[0].msg))
		if !c.up {
			t.Errorf("%s: not up; drops %v", kind.Name, w.e.Snapshot(w.now).Drops)
		}
	}
}

// TestHostileCookies: a message 3 whose cookie we did not give to this address a moment ago makes nothing.
func TestHostileCookies(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.HalfOpen = 100 })
	first := windowsClient(t, 1)
	w.run(first, first.first())
	w.load()
	c := windowsClient(t, 2).behindNAT("203.0.113.9", 63000, "192.168.1.35")
	third := c.receive(w.give(c.from(), c.first())[0].msg)
	before := w.state()
	refused := func(what string, p ipsec.Path, msg []byte) {
		t.Helper()
		if out := w.give(p, msg); len(out) != 0 || w.state() != before {
			t.Errorf("%s: %d answers", what, len(out))
		}
	}
	for i := range 16 {
		forged := bytes.Clone(third)
		forged[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("octet %d of the cookies", i), c.from(), forged)
	}
	for slot := range 256 {
		forged := bytes.Clone(third)
		if forged[9] == byte(slot) {
			continue
		}
		forged[9] = byte(slot)
		refused(fmt.Sprintf("slot %d", slot), c.from(), forged)
	}
	other := c.from()
	other.Remote = netip.AddrPortFrom(netip.MustParseAddr("203.0.113.10"), other.Remote.Port())
	refused("another address", other, third)
	other.Remote = netip.AddrPortFrom(c.from().Remote.Addr(), 63007)
	refused("another port", other, third)
	sealed := bytes.Clone(third)
	sealed[19] |= byte(isakmp.Encrypted)
	refused("encrypted", c.from(), sealed)
	w.now = w.now.Add(2 * epochLength * time.Second) // no Tick: what is half open stays
	before = w.state()
	refused("an old one", c.from(), third)
	w.now = w.now.Add(-2 * epochLength * time.Second)
	// In time it is good, once.
	w.run(c, third)
	if !c.up {
		t.Fatal("the cookie is not good in its time")
	}
	w.run(c, third)
	if n := w.e.Snapshot(w.now).Clients; n != 2 {
		t.Errorf("%d clients", n)
	}
	// With another configuration the old cookies are void.
	d := windowsClient(t, 3).behindNAT("203.0.113.9", 64000, "192.168.1.36")
	third = d.receive(w.give(d.from(), d.first())[0].msg)
	w.e.Reconfigure(w.now, w.e.cfg)
	before = w.state()
	refused("of another configuration", d.from(), third)
}

// TestHostileAmplification (CVE-2016-5361): whatever a stranger asks, and however often, the answers are no longer than the
// questions, in main mode to the octet. In aggressive mode an address gets few that are.
func TestHostileAmplification(t *testing.T) {
	for _, loaded := range []bool{false, true} {
		w := newWorld(t, func(cfg *Config) {
			cfg.HalfOpen = 100
			aggressive := cfg.Peers[0]
			aggressive.Name, aggressive.Exchange = "road", Aggressive
			cfg.Peers = append(cfg.Peers, aggressive)
		})
		if loaded {
			for i, kind := range isakmptest.Clients() { // known, one by one
				c := newInitiator(t, uint64(i))
				c.main1 = kind.Main1()
				w.give(c.from(), c.first())
			}
			w.load()
		}
		r := rand.New(rand.NewPCG(1, 5))
		check := func(what string, p ipsec.Path, msg []byte) {
			t.Helper()
			in, out := 0, 0
			for range 3 * maxResend {
				in += len(msg)
				for _, s := range w.give(p, msg) {
					out += len(s.msg)
					if len(s.msg) > len(msg) {
						t.Fatalf("%s: %d octets answered to %d", what, len(s.msg), len(msg))
					}
				}
			}
			if out > in {
				t.Errorf("%s: %d octets answered to %d", what, out, in)
			}
		}
		n := 0
		for _, kind := range isakmptest.Clients() {
			whole := kind.Main1()
			h, err := isakmp.ParseHeader(whole)
			if err != nil {
				t.Fatal(err)
			}
			payloads, _, err := isakmp.ParsePayloads(h.Next, whole[isakmp.HeaderLen:], false)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 40 { // whole, and with some of the vendor ids
				n++
				list := []isakmp.Payload{payloads[0]}
				for _, p := range payloads[1:] {
					if i == 0 || r.IntN(2) == 0 {
						list = append(list, p)
					}
				}
				if i%4 == 3 { // and only the transform that will be chosen
					var offer isakmp.SA
					offer, _ = isakmp.ParseSA(payloads[0].Body)
					if _, answer, ok := choosePhase1(offer, &w.e.cfg.Peers[0].Profile, 0); ok {
						list[0].Body = answer.Append(nil)
					}
				}
				binary.BigEndian.PutUint64(h.Initiator[:], uint64(n))
				msg := isakmp.AppendPayloads(h.Append(nil), list)
				isakmp.SetLength(msg)
				p := ipsec.Path{Local: netip.AddrPortFrom(serverAddr, 500), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, byte(n >> 8), byte(n)}), 500)}
				check(kind.Name, p, msg)
				for _, x := range []isakmp.Exchange{isakmp.Informational, isakmp.Quick, isakmp.Base, isakmp.Exchange(99)} {
					m := bytes.Clone(msg)
					m[18] = byte(x)
					check(kind.Name+" as "+x.String(), p, m)
					copy(m[8:], "a cookie")
					check(kind.Name+" with a cookie", p, m)
				}
			}
		}
		// Aggressive mode with the shortest first message there is.
		in, out, longer := 0, 0, 0
		for i := range 50 {
			c := newInitiator(t, uint64(5000+i))
			c.aggr, c.group, c.hash = true, ECP256, isakmp.HashSHA512
			h, _ := isakmp.ParseHeader(isakmptest.StrongSwan.Main1())
			c.main1 = isakmp.AppendPayloads(h.Append(nil), []isakmp.Payload{{Type: isakmp.PayloadSA, Body: isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP,
				Transforms: []isakmp.Transform{p1(1, isakmp.EncAES, 256, isakmp.HashSHA512, uint16(ECP256))}}).Append(nil)}, isakmp.VendorRFC3947.Payload()})
			isakmp.SetLength(c.main1)
			msg := c.first()
			in += len(msg)
			for _, s := range w.give(c.from(), msg) {
				out += len(s.msg)
				if len(s.msg) > len(msg) {
					longer++
				}
			}
		}
		if longer > loudBurst || out > in {
			t.Errorf("aggressive mode: %d answers longer than their question, %d octets to %d", longer, out, in)
		}
	}
}

// TestExchangeBudget: one source gets so many Diffie-Hellman exchanges and no more, whatever its ports; others go on.
func TestExchangeBudget(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.Peers[0].Profile.Groups = []Group{ECP256} })
	seed := 0
	storm := func(from func(i int) string, n int) (answered int) {
		for i := range n {
			seed++
			c := ecpClient(t, uint64(seed)).behindNAT(from(i), uint16(1024+3*seed), "192.168.1.34")
			second := w.give(c.from(), c.first())
			answered += len(w.give(c.from(), c.receive(second[0].msg)))
		}
		return answered
	}
	one := func(a string) func(int) string { return func(int) string { return a } }
	if n := storm(one("203.0.113.9"), 3*exchangeBurst); n != exchangeBurst {
		t.Errorf("%d exchanges of one address", n)
	}
	if n := storm(one("203.0.113.10"), 1); n != 1 {
		t.Error("its neighbour has to pay for it")
	}
	if n := storm(func(i int) string { return fmt.Sprintf("203.0.113.%d", 20+i%200) }, 3*prefixShare*exchangeBurst); n > prefixShare*exchangeBurst {
		t.Errorf("%d exchanges of one network", n)
	}
	if n := storm(one("198.51.99.1"), 1); n != 1 {
		t.Error("another network has to pay for it")
	}
	w.now = w.now.Add(time.Second)
	if n := storm(one("203.0.113.9"), 2*exchangeRate); n != exchangeRate {
		t.Errorf("%d exchanges after a second", n)
	}
	if n := w.e.exchanges.order.Len(); n > maxBudgets || n != len(w.e.exchanges.sources) {
		t.Errorf("%d budgets", n)
	}
}

func TestBudgetsAreBounded(t *testing.T) {
	b := budgets{burst: 2, rate: 1}
	now := time.Unix(0, 0)
	bad := netip.MustParseAddr("192.0.2.1")
	for i := range 3 * maxBudgets {
		b.take(now, netip.AddrFrom4([4]byte{byte(10 + i>>16), byte(i >> 8), byte(i), 1}))
		if i%100 == 0 { // one that keeps at it stays known
			if got := b.take(now, bad); got != (i < 200) {
				t.Fatalf("%d: %v", i, got)
			}
		}
	}
	if b.order.Len() != maxBudgets || len(b.sources) != maxBudgets {
		t.Errorf("%d, %d kept", b.order.Len(), len(b.sources))
	}
	if !b.take(now, netip.MustParseAddr("2001:db8:1:2::1")) || !b.take(now, netip.MustParseAddr("2001:db8:1:2:ffff::1")) || b.take(now, netip.MustParseAddr("2001:db8:1:2:1::")) {
		t.Error("a /64 of IPv6 is one source")
	}
}

func ecpClient(t *testing.T, seed uint64) *initiator {
	c := nmClient(t, seed, true)
	c.main1 = replaceSA(c.main1, isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP,
		Transforms: []isakmp.Transform{p1(1, isakmp.EncAES, 128, isakmp.HashSHA1, uint16(ECP256))}}))
	return c
}

// TestBarred: the world is told of wrong keys, once for each exchange, and who is barred gets no answer; who is up stays.
func TestBarred(t *testing.T) {
	w := newWorld(t, nil)
	failed := map[netip.Addr]int{}
	barred := false
	w.e.env.Failed = func(_ time.Time, a netip.Addr) { failed[a]++ }
	w.e.env.Barred = func(_ time.Time, a netip.Addr) bool { return barred && a == netip.MustParseAddr("203.0.113.9") }
	good := nmClient(t, 1, true)
	w.connect(good)
	for i := range uint64(3) {
		c := nmClient(t, 10+i, true).behindNAT("203.0.113.9", uint16(1000+10*i), "192.168.1.34")
		c.psk = []byte("guess")
		w.run(c, c.first())
		w.give(c.from(), c.lastSent)
	}
	if len(failed) != 1 || failed[netip.MustParseAddr("203.0.113.9")] != 3 {
		t.Errorf("failures %v", failed)
	}
	barred = true
	c := nmClient(t, 20, true)
	if out := w.give(c.from(), c.first()); len(out) != 0 {
		t.Error("who is barred is answered")
	}
	w.run(good, good.quick())
	if len(good.children) != 2 {
		t.Error("who is up cannot go on")
	}
	other := nmClient(t, 21, true).behindNAT("203.0.113.10", 1000, "192.168.1.34")
	w.connect(other)
}

// TestStorm: a thousand clients come within a second, to a board that needs 30 ms for one Diffie-Hellman exchange. They are
// served in the order in which they got in, nothing is computed in vain, nobody waits longer than a client does, and all
// get in.
func TestStorm(t *testing.T) {
	const n, cost = 1000, 30 * time.Millisecond
	w := newWorld(t, func(cfg *Config) { cfg.Peers[0].Profile.Groups = []Group{ECP256} })
	w.e.env.Workers = 1
	type running struct {
		end  time.Time
		done func(time.Time)
	}
	var busy *running
	computed := 0
	w.e.env.Offload = func(work func() func(time.Time)) bool {
		if busy != nil {
			t.Fatal("two jobs at once")
		}
		computed++
		busy = &running{w.now.Add(cost), work()}
		return true
	}
	byAddr := map[netip.AddrPort]*initiator{}
	type pending struct {
		c     *initiator
		at    time.Time
		tries int
		begun time.Time
	}
	var clients []*pending
	for i := range n {
		c := ecpClient(t, uint64(i)).behindNAT(fmt.Sprintf("100.%d.%d.7", i>>8, i&255), 61000, "192.168.1.34")
		c.first()
		byAddr[c.remote], byAddr[c.float] = c, c
		clients = append(clients, &pending{c: c, at: w.now.Add(time.Duration(i) * time.Millisecond)})
	}
	retries := []time.Duration{4 * time.Second, 7200 * time.Millisecond, 13 * time.Second, 23300 * time.Millisecond} // strongSwan's
	var inside []netip.AddrPort                                                                                      // in the order in which message 3 was accepted for work
	var served []netip.AddrPort                                                                                      // and answered
	var longest time.Duration
	say := func(p *pending) {
		before := len(w.e.admission.strangers) + w.e.admission.running
		out := w.give(p.c.from(), p.c.lastSent)
		if len(w.e.admission.strangers)+w.e.admission.running > before {
			inside = append(inside, p.c.from().Remote)
			p.begun = w.now
		}
		for _, s := range out {
			w.sent = append(w.sent, s)
		}
	}
	deliver := func() {
		for len(w.sent) > 0 {
			out := w.sent
			w.sent = nil
			for _, s := range out {
				c := byAddr[s.path.Remote]
				h, _ := isakmp.ParseHeader(s.msg)
				i := slices.IndexFunc(clients, func(p *pending) bool { return p.c == c })
				if h.Exchange == isakmp.Main && c.gr == nil && c.gi != nil { // message 4 comes
					served = append(served, s.path.Remote)
					longest = max(longest, w.now.Sub(clients[i].begun))
				}
				if answer := c.receive(s.msg); answer != nil {
					clients[i].at, clients[i].tries = w.now.Add(retries[0]), 0
					say(clients[i])
				}
			}
		}
	}
	up := func() (k int) {
		for _, p := range clients {
			if p.c.up {
				k++
			}
		}
		return k
	}
	for range 80_000 { // milliseconds
		if busy != nil && !w.now.Before(busy.end) {
			b := busy
			busy = nil
			b.done(w.now)
			deliver()
		}
		for _, p := range clients {
			if p.c.up || w.now.Before(p.at) || p.tries > len(retries) {
				continue
			}
			say(p)
			if p.tries < len(retries) {
				p.at = w.now.Add(retries[p.tries])
			}
			p.tries++
			deliver()
		}
		w.now = w.now.Add(time.Millisecond)
		if at := w.e.Deadline(); !at.IsZero() && !at.After(w.now) {
			w.e.Tick(w.now)
			deliver()
		}
		if len(served) == n && up() == n {
			break
		}
	}
	if k := up(); k != n {
		t.Errorf("%d of %d are up; drops %v", k, n, w.e.Snapshot(w.now).Drops)
	}
	if !slices.Equal(inside, served) {
		t.Error("they were not served in the order in which they were let in")
	}
	if computed != n {
		t.Errorf("%d computations for %d clients", computed, n)
	}
	if longest > patience+5*time.Second {
		t.Errorf("one waited %v", longest)
	}
	if c := w.e.admission.cost[ECP256]; c != cost {
		t.Errorf("measured %v, not %v", c, cost)
	}
	t.Logf("%d clients after %v, the longest waited %v in the queue, drops %v", n, w.now.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), longest, w.e.Snapshot(w.now).Drops)
}

// TestAdmission: who is known goes first, who has left is not computed for, and who waited too long is told to come again.
func TestAdmission(t *testing.T) {
	w := newWorld(t, nil)
	w.e.env.Workers = 1
	var queue []func() func(time.Time)
	busy := false
	w.e.env.Offload = func(work func() func(time.Time)) bool {
		if busy {
			return false
		}
		queue = append(queue, work)
		return true
	}
	a := w.e.admission
	var order []string
	work := func(name string) func() func(time.Time) {
		return func() func(time.Time) {
			order = append(order, name)
			return func(time.Time) {}
		}
	}
	alive, refused := true, 0
	stranger := func(name string) *job {
		return &job{group: MODP2048, work: work(name), alive: func() bool { return alive || name != "left" }, refused: func(time.Time) { refused++ }}
	}
	finish := func() {
		done := queue[0]()
		queue = queue[1:]
		done(w.now)
	}
	a.submit(w.now, stranger("first"))
	a.submit(w.now, stranger("left"))
	a.submit(w.now, stranger("second"))
	w.e.offload(w.now, work("known"))
	if len(queue) != 1 {
		t.Fatalf("%d at once", len(queue))
	}
	alive = false
	w.now = w.now.Add(time.Second)
	for len(queue) > 0 {
		finish()
	}
	if fmt.Sprint(order) != "[first known second]" || a.running != 0 || len(a.waiting) != 0 {
		t.Errorf("order %v", order)
	}
	// A second each: those that would have to wait too long are not taken at all.
	n := 0
	for a.submit(w.now, stranger("many")) {
		n++
	}
	if n < int(patience/time.Second) || n > int(patience/time.Second)+5 {
		t.Errorf("%d are let in to wait", n)
	}
	// And should it take longer than thought, the rest is turned away.
	w.now = w.now.Add(time.Minute)
	finish()
	if refused != n-1 || len(a.strangers) != 0 || len(queue) != 0 {
		t.Errorf("%d turned away, %d wait, %d run", refused, len(a.strangers), len(queue))
	}
	// Workers that others keep busy: it is tried again.
	a.submit(w.now, stranger("running"))
	a.submit(w.now, stranger("waiting"))
	busy = true
	finish()
	if len(a.strangers) != 1 || w.e.Deadline().IsZero() {
		t.Error("lost")
	}
	busy = false
	w.advance(time.Second)
	if len(queue) != 1 {
		t.Error("not tried again")
	}
}
