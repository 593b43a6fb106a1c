package ikev1

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
	"culvert/ipsec/isakmp"
	"culvert/ipsec/isakmp/isakmptest"
)

// nmClient is a client as NetworkManager-l2tp makes it, behind a NAT or not.
func nmClient(t *testing.T, seed uint64, nat bool) *initiator {
	c := newInitiator(t, seed)
	encap := uint16(2)
	if nat {
		c.behindNAT("203.0.113.9", 61000, "192.168.1.34")
		encap = 4
	}
	c.main1, c.quickSA = isakmptest.StrongSwan.Main1(), isakmptest.StrongSwan.QuickSA(encap)
	return c
}

func windowsClient(t *testing.T, seed uint64) *initiator {
	c := newInitiator(t, seed).behindNAT("203.0.113.9", 61000, "192.168.1.34")
	c.main1, c.quickSA = isakmptest.Windows.Main1(), isakmptest.Windows.QuickSA(4)
	return c
}

func (w *world) lines(text string) int { return strings.Count(w.log.String(), text) }

func (w *world) inbound(c *initiator, n int) ipsec.SAID {
	return ipsec.SAID{Dir: ipsec.In, SPI: c.children[n].out, Mark: w.mark()}
}

func (w *world) outs() (n int) {
	for _, sa := range w.data.SAs() {
		if sa.Dir == ipsec.Out {
			n++
		}
	}
	return n
}

func TestWrongSecret(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	c.psk = []byte("guess")
	w.run(c, c.first())
	fifth := c.lastSent
	for range 3 { // retransmissions
		w.give(c.from(), fifth)
	}
	if c.up || len(w.ups) > 0 || len(w.data.SAs()) > 0 {
		t.Fatal("came up with the wrong secret")
	}
	if n := w.lines("level=WARN"); n != 1 || w.lines("message 5 does not decrypt: the pre-shared keys differ") != 1 || w.lines("peer=l2tp-in") != 1 {
		t.Errorf("%d warnings:\n%s", n, w.log)
	}
	if len(c.errors) != 1 || c.errors[0] != isakmp.AuthenticationFailed {
		t.Errorf("notifications %v", c.errors)
	}
	w.advance(time.Minute)
	if s := w.e.Snapshot(w.now); len(s.Peers) != 0 || s.HalfOpen != 0 || !w.e.Deadline().IsZero() {
		t.Errorf("half-open exchange stays: %+v", s)
	}
	good := nmClient(t, 2, true)
	w.connect(good)
}

// TestForgedFifth: whoever sees message 4 cannot spoil the exchange with a forged message 5.
func TestForgedFifth(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, false)
	third := c.receive(w.give(c.from(), c.first())[0].msg)
	fifth := c.receive(w.give(c.from(), third)[0].msg)
	for i := range 4 {
		forged := bytes.Clone(fifth)
		forged[40+i] ^= 1
		w.give(c.from(), forged)
	}
	w.run(c, fifth)
	if !c.up {
		t.Fatal("the right message 5 is not heard any more")
	}
}

func TestNoCommonProposal(t *testing.T) {
	w := newWorld(t, func(cfg *Config) {
		cfg.Peers[0].Profile.Groups = []Group{MODP2048}
		cfg.Peers[0].Profile.Hashes = []Hash{SHA256}
		cfg.Peers[0].Profile.Ciphers = []Cipher{AES256}
	})
	c := newInitiator(t, 1)
	c.main1 = isakmptest.Android.Main1()
	out := w.give(c.from(), c.first())
	if len(out) != 1 || len(out[0].msg) > len(c.lastSent) {
		t.Fatalf("%d answers", len(out))
	}
	c.receive(out[0].msg)
	if len(c.errors) != 1 || c.errors[0] != isakmp.NoProposalChosen {
		t.Errorf("notifications %v", c.errors)
	}
	for _, want := range []string{"no common phase 1 proposal", "aes-256/sha384/modp1024", "accepted=\"[aes-256] / [sha256] / [modp2048]\"", "client=Android"} {
		if w.lines(want) != 1 {
			t.Errorf("%q is not in the log:\n%s", want, w.log)
		}
	}
	if s := w.e.Snapshot(w.now); len(s.Peers) != 0 {
		t.Errorf("state is kept: %+v", s.Peers)
	}
	// Refusals to strangers are limited.
	n := 0
	for range 500 {
		n += len(w.give(c.from(), c.first()))
	}
	if n > 20 {
		t.Errorf("%d notifications in no time", n)
	}
	if n := w.lines("level=WARN"); n > 30 {
		t.Errorf("%d warnings in no time", n)
	}
}

func TestOrderIsOurs(t *testing.T) {
	offer := isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP, Transforms: []isakmp.Transform{
		p1(1, isakmp.Enc3DES, 0, isakmp.HashMD5, 2), p1(2, isakmp.EncAES, 128, isakmp.HashSHA1, 14), p1(3, isakmp.EncAES, 256, isakmp.HashSHA1, 2),
		p1(4, isakmp.EncAES, 256, isakmp.HashSHA256, 14), p1(5, isakmp.EncAES, 256, isakmp.HashSHA256, 2), p1(6, 99, 0, 99, 99),
	}})
	p := testConfig().Peers[0].Profile
	c, answer, ok := choosePhase1(offer, &p, 0)
	if !ok || c.String() != "aes-256/sha256/modp2048" || answer.Proposals[0].Transforms[0].Number != 4 {
		t.Errorf("%v %v", c, ok)
	}
	for name, change := range map[string]func(*isakmp.Transform){
		"certificates": func(tr *isakmp.Transform) { tr.Attributes[3] = isakmp.Basic(isakmp.P1AuthMethod, isakmp.MethodRSA) },
		"xauth": func(tr *isakmp.Transform) {
			tr.Attributes[3] = isakmp.Basic(isakmp.P1AuthMethod, isakmp.MethodXAUTHInitPSK)
		},
		"own prf": func(tr *isakmp.Transform) { tr.Attributes = append(tr.Attributes, isakmp.Basic(isakmp.P1PRF, 4)) },
		"own prime": func(tr *isakmp.Transform) {
			tr.Attributes = append(tr.Attributes, isakmp.Variable(isakmp.P1GroupPrime, make([]byte, 128)))
		},
		"key length": func(tr *isakmp.Transform) {
			tr.Attributes = append(tr.Attributes, isakmp.Basic(isakmp.P1KeyLength, 512))
		},
		"transform": func(tr *isakmp.Transform) { tr.ID = 2 },
	} {
		tr := p1(1, isakmp.EncAES, 256, isakmp.HashSHA256, 14)
		change(&tr)
		if _, _, ok := choosePhase1(isakmp.NewSA(isakmp.Proposal{Protocol: isakmp.ProtoISAKMP, Transforms: []isakmp.Transform{tr}}), &p, 0); ok {
			t.Errorf("%s accepted", name)
		}
	}
}

func TestLifetimes(t *testing.T) {
	seconds := func(v []byte) []isakmp.Attribute {
		return []isakmp.Attribute{isakmp.Basic(isakmp.P2LifeType, 1), isakmp.Variable(isakmp.P2LifeDuration, v)}
	}
	for _, x := range []struct {
		attrs []isakmp.Attribute
		want  time.Duration
		kb    uint64
	}{
		{nil, 8 * time.Hour, 0},
		{seconds([]byte{0, 0, 0x0e, 0x10}), time.Hour, 0},
		{seconds([]byte{0, 0, 0, 0, 0, 0, 0x0e, 0x10}), time.Hour, 0},
		{seconds(bytes.Repeat([]byte{0xff}, 8)), maxLifetime, 0},
		{seconds([]byte{0}), 8 * time.Hour, 0},
		{seconds([]byte{5}), minLifetime, 0},
		{append(seconds([]byte{0x0e, 0x10}), isakmp.Basic(isakmp.P2LifeType, 2), isakmp.Variable32(isakmp.P2LifeDuration, 250000)), time.Hour, 250000},
	} {
		if d, kb := lifetimes(x.attrs, isakmp.P2LifeType, isakmp.P2LifeDuration); d != x.want || kb != x.kb {
			t.Errorf("%v: %v and %d kB, want %v and %d", x.attrs, d, kb, x.want, x.kb)
		}
	}
}

func TestQuickRefusals(t *testing.T) {
	one := func(tr isakmp.Transform) []byte { return oneProposal(tr) }
	for _, x := range []struct {
		name   string
		sa     []byte
		set    func(c *initiator)
		config func(*Config)
		nat    bool
		log    string
		notify isakmp.NotifyType
	}{
		{name: "tunnel", sa: one(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, isakmp.EncapTunnel)), log: "tunnel mode"},
		{name: "UDP tunnel", nat: true, sa: one(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, isakmp.EncapUDPTunnel)), log: "tunnel mode"},
		{name: "plain behind NAT", nat: true, sa: one(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 2)), log: "without UDP encapsulation"},
		{name: "UDP without the float", sa: one(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 4)), log: "does not use port 4500"},
		{name: "NULL", sa: one(p2(1, isakmp.ESPNull, 0, isakmp.AuthHMACSHA1, 2)), log: "no common suite"},
		{name: "DES", sa: one(p2(1, isakmp.ESPDES, 0, isakmp.AuthHMACSHA1, 2)), log: "no common suite"},
		{name: "GMAC, which has no key for a cipher", sa: one(p2(1, isakmp.ESPNullAESGMAC, 256, 0, 2)), log: "no common suite"},
		{name: "no authentication", sa: one(p2(1, isakmp.ESPAES, 256, 0, 2)), log: "no common suite"},
		{name: "GCM with authentication", sa: one(p2(1, isakmp.ESPAESGCM16, 256, isakmp.AuthHMACSHA1, 2)), log: "no common suite"},
		{name: "strange key length", sa: one(p2(1, isakmp.ESPAES, 129, isakmp.AuthHMACSHA1, 2)), log: "no common suite"},
		{name: "encapsulation mode 9", sa: one(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 9)), log: "no common suite"},
		{name: "AH", sa: isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoAH, SPI: be32(4096), Transforms: []isakmp.Transform{{ID: 3}}}).Append(nil), log: "no common suite"},
		{name: "AH and ESP together", sa: isakmp.NewSA(
			isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoAH, SPI: be32(4096), Transforms: []isakmp.Transform{{ID: 3}}},
			isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoESP, SPI: be32(4096), Transforms: []isakmp.Transform{p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 2)}},
		).Append(nil), log: "no common suite"},
		{name: "PFS with a foreign group", set: func(c *initiator) { c.pfs = MODP1024 }, config: func(c *Config) { c.Peers[0].Profile.Groups = []Group{MODP2048} },
			sa: one(withGroup(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 2), 2)), log: "group that is not allowed"},
		{name: "group without KE", sa: one(withGroup(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 2), 14)), log: "group that is not allowed"},
		{name: "KE without group", set: func(c *initiator) { c.pfs = MODP2048 }, sa: one(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 2)), log: "group that is not allowed"},
		{name: "PFS demanded", config: func(c *Config) { c.Peers[0].Proposal.PFS = MODP2048 }, sa: one(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 2)), log: "demands perfect forward secrecy"},
		{name: "not L2TP", set: func(c *initiator) {
			c.ids = [][]byte{isakmp.IDFromAddr(c.private, 0, 0).Append(nil), isakmp.IDFromAddr(serverAddr, 17, 53).Append(nil)}
		}, log: "not for L2TP", notify: isakmp.InvalidIDInformation},
		{name: "TCP", set: func(c *initiator) {
			c.ids = [][]byte{isakmp.IDFromAddr(c.private, 6, 0).Append(nil), isakmp.IDFromAddr(serverAddr, 6, 1701).Append(nil)}
		}, log: "not for L2TP", notify: isakmp.InvalidIDInformation},
		{name: "one identity", set: func(c *initiator) { c.ids = [][]byte{isakmp.IDFromAddr(c.private, 0, 0).Append(nil)} }, notify: isakmp.InvalidIDInformation},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := newWorld(t, x.config)
			c := nmClient(t, 1, x.nat)
			w.run(c, c.first())
			if x.config == nil && !c.up {
				t.Fatal("phase 1 is not up")
			}
			if x.sa != nil {
				c.quickSA = x.sa
			}
			if x.set != nil {
				x.set(c)
			}
			w.run(c, c.quick())
			if x.notify == 0 {
				x.notify = isakmp.NoProposalChosen
			}
			if len(c.children) != 0 || len(w.data.SAs()) != 0 || len(w.ups) != 0 {
				t.Fatal("accepted")
			}
			if len(c.errors) != 1 || c.errors[0] != x.notify {
				t.Errorf("notifications %v, want %v", c.errors, x.notify)
			}
			if x.log != "" && w.lines(x.log) != 1 {
				t.Errorf("%q is not in the log:\n%s", x.log, w.log)
			}
			// The ISAKMP SA bears it, and a better offer.
			good := nmClient(t, 1, x.nat)
			c.quickSA, c.ids, c.pfs = good.quickSA, nil, 0
			if w.e.cfg.Peers[0].Proposal.PFS != 0 {
				c.pfs = MODP2048
				c.quickSA = one(withGroup(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 2), 14))
			}
			w.run(c, c.quick())
			if len(c.children) != 1 {
				t.Error("no good quick mode after a bad one")
			}
		})
	}
}

func withGroup(tr isakmp.Transform, g uint16) isakmp.Transform {
	tr.Attributes = append(tr.Attributes, isakmp.Basic(isakmp.P2Group, g))
	return tr
}

func TestDuplicatesAreAnsweredAlike(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	steps := [][]byte{c.first()}
	for i := 0; i < 3; i++ {
		out := w.give(c.from(), steps[i])
		if len(out) != 1 {
			t.Fatalf("step %d: %d answers", i, len(out))
		}
		path := c.from()
		next := c.receive(out[0].msg)
		for n := range maxResend + 3 {
			again := w.give(path, steps[i])
			if n < maxResend != (len(again) == 1) {
				t.Fatalf("message %d, repetition %d: %d answers", 2*i+1, n, len(again))
			}
			if len(again) == 1 && !bytes.Equal(again[0].msg, out[0].msg) {
				t.Fatalf("message %d: a different answer to the same message", 2*i+1)
			}
		}
		steps = append(steps, next)
	}
	q := c.quick()
	out := w.give(c.from(), q)
	third := c.receive(out[0].msg)
	if again := w.give(c.from(), q); len(again) != 1 || !bytes.Equal(again[0].msg, out[0].msg) {
		t.Error("quick mode: no or another answer")
	}
	for i := range 3 {
		if out := w.give(c.from(), third); len(out) != 0 {
			t.Errorf("message 3, repetition %d is answered", i)
		}
	}
	if out := w.give(c.from(), q); len(out) != 0 {
		t.Error("message 1 of a finished quick mode is answered")
	}
	// A fourth message, on the same message id.
	fourth, _ := c.hashed(isakmp.Quick, firstMID(c), c.quicks[firstMID(c)].iv, be32(1), isakmp.Payload{Type: isakmp.PayloadNotify, Body: make([]byte, 8)})
	w.give(c.from(), fourth)
	if len(w.ups) != 1 || len(w.data.SAs()) != 2 {
		t.Errorf("%d ups, SAs %v", len(w.ups), ids(w.data.SAs()))
	}
}

func firstMID(c *initiator) uint32 {
	for mid := range c.quicks {
		return mid
	}
	return 0
}

func TestQuickThirdLost(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.clients = nil
	w.run(c, c.first())
	out := w.give(c.from(), c.quick())
	third := c.receive(out[0].msg)
	if len(w.data.SAs()) != 1 || len(w.ups) != 0 {
		t.Fatalf("after message 2: %v", ids(w.data.SAs()))
	}
	// Message 2 is sent again after 2, 4 and 8 seconds, the same octets.
	w.sent = nil
	w.now = w.now.Add(2 * time.Second)
	w.e.Tick(w.now)
	if len(w.sent) != 1 || !bytes.Equal(w.sent[0].msg, out[0].msg) {
		t.Fatalf("no retransmission: %d", len(w.sent))
	}
	// ESP says as much as message 3.
	w.data.SetUsage(ipsec.SAID{Dir: ipsec.In, SPI: c.children[0].out, Mark: w.data.SAs()[0].Mark}, ipsec.Usage{Packets: 1, Bytes: 100})
	w.now = w.now.Add(pollInterval)
	w.e.Tick(w.now)
	if len(w.ups) != 1 {
		t.Fatal("ESP did not count as message 3")
	}
	w.pair(c, c.children[0])
	w.give(c.from(), third)
	if len(w.ups) != 1 || len(w.data.SAs()) != 2 {
		t.Error("the late message 3 did something")
	}
}

func TestQuickAbandoned(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.run(c, c.first())
	w.give(c.from(), c.quick())
	sent := 0
	w.e.env.Send = func(p ipsec.Path, msg []byte) { sent++ }
	w.advance(time.Minute)
	if sent != len(quickRetries)-1 || len(w.data.SAs()) != 0 || len(w.ups)+len(w.downs) != 0 {
		t.Errorf("%d retransmissions, SAs %v", sent, ids(w.data.SAs()))
	}
	if n := len(w.e.sas); n != 1 {
		t.Errorf("%d ISAKMP SAs", n)
	}
}

func TestRekeyPhase2(t *testing.T) {
	for _, traffic := range []bool{true, false} {
		w := newWorld(t, nil)
		c := nmClient(t, 1, true)
		w.clients = []*initiator{c}
		w.connect(c)
		w.advance(50 * time.Minute)
		w.run(c, c.quick())
		if len(c.children) != 2 || w.outs() != 1 {
			t.Fatalf("%d children, %v", len(c.children), ids(w.data.SAs()))
		}
		in, _ := w.data.SAs()[0], 0
		if traffic {
			w.data.SetUsage(w.inbound(c, 1), ipsec.Usage{Packets: 1})
			w.advance(pollInterval)
		} else {
			w.advance(takeover - pollInterval)
			if w.outs() != 1 {
				t.Fatal("took over too early")
			}
			w.advance(pollInterval)
		}
		_, out := w.pair(c, c.children[1])
		if out.Mark != in.Mark || len(w.ups) != 1 {
			t.Errorf("marks %v and %v, %d ups", in.Mark, out.Mark, len(w.ups))
		}
		w.run(c, c.deleteChild(c.children[0].in))
		if len(w.data.SAs()) != 2 || len(w.downs) != 0 {
			t.Errorf("after the old one's deletion: %v", ids(w.data.SAs()))
		}
		w.pair(c, c.children[1])
	}
}

// TestElderDeletedFirst: the client deletes the old pair before the new one has carried anything.
func TestElderDeletedFirst(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.connect(c)
	w.run(c, c.quick())
	w.run(c, c.deleteChild(c.children[0].in))
	w.pair(c, c.children[1])
	if len(w.downs) != 0 || len(w.ups) != 1 {
		t.Errorf("ups %d, downs %v", len(w.ups), w.downs)
	}
}

func TestSupersededOutboundRetires(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.clients = []*initiator{c}
	w.connect(c)
	w.run(c, c.quick())
	w.advance(takeover)
	if w.outs() != 2 {
		t.Fatalf("%d outbound SAs", w.outs())
	}
	w.advance(retirement)
	if w.outs() != 1 || len(w.data.SAs()) != 3 {
		t.Fatalf("SAs %v", ids(w.data.SAs()))
	}
	w.pair(c, c.children[1])
}

// TestHardLife: children stay for what was negotiated and a tenth or five minutes more, and then go.
func TestHardLife(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.Peers[0].Profile.DPDInterval = 0 })
	c := nmClient(t, 1, true)
	w.clients = []*initiator{c}
	w.connect(c)
	w.advance(time.Hour + 6*time.Minute - time.Second)
	if len(w.downs) != 0 || len(c.deleted) != 0 {
		t.Fatal("gone too early")
	}
	w.advance(2 * time.Second)
	if len(w.downs) != 1 || len(w.data.SAs()) != 0 || len(c.deleted) != 1 || c.deleted[0] != c.children[0].out {
		t.Fatalf("downs %v, deleted %v", w.downs, c.deleted)
	}
}

func TestRekeyPhase1(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.connect(c)
	mark := w.mark()
	// Another main mode from the same place and identity is the same client.
	d := nmClient(t, 2, true)
	w.run(d, d.first())
	if !d.up {
		t.Fatal("no second main mode")
	}
	w.run(c, c.deletePhase1())
	s := w.e.Snapshot(w.now)
	if len(s.Peers) != 1 || s.Peers[0].Mark != mark || s.Peers[0].Children != 1 || len(w.downs) != 0 || len(w.data.SAs()) != 2 {
		t.Fatalf("after the old ISAKMP SA: %+v", s.Peers)
	}
	w.run(d, d.quick())
	w.run(d, d.deleteChild(c.children[0].in)) // the old child, through the new ISAKMP SA
	w.pair(d, d.children[0])
	if len(w.downs) != 0 {
		t.Error("down")
	}
	w.run(d, d.deleteChild(d.children[0].in))
	if len(w.downs) != 1 || w.downM[0] != mark {
		t.Errorf("downs %v", w.downM)
	}
}

// TestChildrenOutliveISAKMP: Apple deletes its ISAKMP SA and goes on; it comes back with another for the rekeying.
func TestChildrenOutliveISAKMP(t *testing.T) {
	w := newWorld(t, nil)
	c := windowsClient(t, 1)
	w.connect(c)
	mark := w.mark()
	w.run(c, c.deletePhase1())
	w.advance(20 * time.Minute)
	if len(w.downs) != 0 || len(w.data.SAs()) != 2 {
		t.Fatalf("downs %v", w.downs)
	}
	d := windowsClient(t, 2)
	w.data.SetUsage(w.inbound(c, 0), ipsec.Usage{Packets: 9, LastUsed: w.now.Add(-time.Second)})
	w.connect(d) // announces initial contact by vendor id, with living children
	if len(w.downs) != 0 || w.e.Snapshot(w.now).SAs[0].Mark != mark || w.e.Snapshot(w.now).Clients != 1 {
		t.Errorf("downs %v", w.downs)
	}
}

func TestISAKMPExpiryKeepsChildren(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.Peers[0].Profile.Lifetime = 10 * time.Minute })
	c := nmClient(t, 1, true)
	w.clients = []*initiator{c}
	w.connect(c)
	w.advance(15*time.Minute + time.Second)
	if !c.gone || len(w.downs) != 0 || len(w.data.SAs()) != 2 || len(w.e.sas) != 0 {
		t.Errorf("gone %v, downs %v", c.gone, w.downs)
	}
}

// TestChildlessISAKMP: what a client leaves behind that goes away without a word is gone soon.
func TestChildlessISAKMP(t *testing.T) {
	w := newWorld(t, nil)
	c := windowsClient(t, 1)
	w.clients = []*initiator{c}
	w.run(c, c.first())
	w.advance(childlessTime - time.Second)
	if c.gone {
		t.Fatal("gone too early")
	}
	w.run(c, c.quick())
	w.advance(30 * time.Minute)
	if c.gone || len(w.ups) != 1 {
		t.Fatal("gone in spite of its child")
	}
	w.run(c, c.deleteChild(c.children[0].in))
	w.advance(childlessTime)
	if !c.gone || w.e.Snapshot(w.now).Clients != 0 || !w.e.Deadline().IsZero() {
		t.Errorf("gone %v", c.gone)
	}
}

func TestTwoClientsBehindOneNAT(t *testing.T) {
	w := newWorld(t, nil)
	contact := isakmp.Notification{DOI: 1, Protocol: 1, Type: isakmp.NotifyInitialContact}
	a := nmClient(t, 1, true)
	b := nmClient(t, 2, true).behindNAT("203.0.113.9", 62000, "192.168.1.35")
	twin := nmClient(t, 3, true).behindNAT("203.0.113.9", 63000, "192.168.1.34") // the same private address behind a NAT of its own
	for _, c := range []*initiator{a, b, twin} {
		c.extraMM5 = []isakmp.Payload{{Type: isakmp.PayloadNotify, Body: contact.Append(nil)}}
		w.connect(c)
	}
	if len(w.ups) != 3 || len(w.downs) != 0 || len(w.data.SAs()) != 6 {
		t.Fatalf("%d ups, downs %v", len(w.ups), w.downs)
	}
	marks := map[ipsec.Mark]bool{}
	for _, u := range w.ups {
		marks[u.Mark] = true
	}
	if len(marks) != 3 {
		t.Errorf("marks %v", marks)
	}
	// One of them dies and comes back through a new mapping: its old self goes, when it has been silent.
	w.now = w.now.Add(time.Minute)
	w.data.SetUsage(ipsec.SAID{Dir: ipsec.In, SPI: twin.children[0].out, Mark: w.ups[2].Mark}, ipsec.Usage{Packets: 5, LastUsed: w.now})
	again := nmClient(t, 4, true).behindNAT("203.0.113.9", 64000, "192.168.1.34")
	again.extraMM5 = a.extraMM5
	w.connect(again)
	if len(w.downM) != 1 || w.downM[0] != w.ups[0].Mark {
		t.Errorf("downs %v, want %v only", w.downM, w.ups[0].Mark)
	}
}

func TestInitialContact(t *testing.T) {
	contact := isakmp.Notification{DOI: 1, Protocol: 1, SPI: make([]byte, 16), Type: isakmp.NotifyInitialContact}
	t.Run("in message 5", func(t *testing.T) {
		w := newWorld(t, nil)
		a := nmClient(t, 1, true)
		w.connect(a)
		b := nmClient(t, 2, true)
		b.extraMM5 = []isakmp.Payload{{Type: isakmp.PayloadNotify, Body: contact.Append(nil)}}
		w.connect(b)
		if len(w.downs) != 1 || len(w.ups) != 2 || w.ups[0].Mark == w.ups[1].Mark || len(w.data.SAs()) != 2 || w.downs[0] != "the client began anew" {
			t.Errorf("ups %d, downs %v, SAs %v", len(w.ups), w.downs, ids(w.data.SAs()))
		}
	})
	t.Run("in a message of its own", func(t *testing.T) {
		w := newWorld(t, nil)
		a := nmClient(t, 1, true)
		w.connect(a)
		b := nmClient(t, 2, true)
		w.run(b, b.first())
		note := b.notify(contact)
		w.run(b, note)
		w.run(b, b.quick())
		if len(w.downs) != 1 || len(w.ups) != 2 || w.ups[0].Mark == w.ups[1].Mark || len(w.data.SAs()) != 2 {
			t.Errorf("ups %d, downs %v", len(w.ups), w.downs)
		}
		w.run(b, note)              // a recording
		w.run(b, b.notify(contact)) // and a second one
		if len(w.downs) != 1 || len(w.data.SAs()) != 2 {
			t.Error("obeyed twice")
		}
	})
	t.Run("overtaken by quick mode", func(t *testing.T) {
		w := newWorld(t, nil)
		a := nmClient(t, 1, true)
		w.connect(a)
		b := nmClient(t, 2, true)
		w.connect(b)
		w.run(b, b.notify(contact))
		if len(w.downs) != 0 || len(w.data.SAs()) != 2 {
			t.Errorf("downs %v, SAs %v", w.downs, ids(w.data.SAs()))
		}
		w.pair(b, b.children[0])
	})
	t.Run("Windows after a crash", func(t *testing.T) {
		w := newWorld(t, nil)
		w.connect(windowsClient(t, 1))
		w.now = w.now.Add(15 * time.Second)
		w.connect(windowsClient(t, 2))
		if len(w.downs) != 1 || len(w.ups) != 2 || w.ups[0].Mark == w.ups[1].Mark {
			t.Errorf("ups %d, downs %v", len(w.ups), w.downs)
		}
	})
	t.Run("Windows whose ISAKMP SA ran out", func(t *testing.T) {
		w := newWorld(t, func(cfg *Config) { cfg.Peers[0].Proposal.Suites = cfg.Peers[0].Proposal.Suites[:6] })
		c := windowsClient(t, 1)
		w.connect(c)
		for range 8 { // eight hours, idle in the end
			w.advance(55 * time.Minute)
			w.run(c, c.quick())
		}
		w.data.SetUsage(ipsec.SAID{Dir: ipsec.In, SPI: c.children[8].out, Mark: w.mark()}, ipsec.Usage{Packets: 3, LastUsed: w.now})
		w.advance(45 * time.Second)
		w.connect(windowsClient(t, 2))
		if len(w.downs) != 0 || len(w.ups) != 1 {
			t.Errorf("ups %d, downs %v", len(w.ups), w.downs)
		}
	})
	t.Run("unauthenticated", func(t *testing.T) {
		w := newWorld(t, nil)
		w.connect(windowsClient(t, 1))
		w.now = w.now.Add(time.Hour / 2)
		b := windowsClient(t, 2)
		b.psk = []byte("guess")
		w.run(b, b.first())
		if len(w.downs) != 0 {
			t.Error("obeyed")
		}
	})
}

func TestClientMoves(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.connect(c)
	ping := func(seq uint32) []byte { return c.notify(isakmp.NewDPD(isakmp.NotifyRUThere, c.ci, c.cr, seq)) }
	w.run(c, ping(7))
	recorded := ping(8)
	w.run(c, recorded)
	old := c.float
	c.float = netip.MustParseAddrPort("203.0.113.9:50999")
	w.run(c, ping(9))
	if got := w.e.Snapshot(w.now).Peers[0].Remote; got != c.float {
		t.Fatalf("the server did not follow: %v", got)
	}
	for _, sa := range w.data.SAs() {
		if sa.Encap.Remote != 50999 {
			t.Errorf("%v is still at %v", sa.ID(), sa.Encap)
		}
	}
	if len(c.acks) != 3 {
		t.Errorf("acknowledgements %v", c.acks)
	}
	// A recording from elsewhere moves nothing and gets no answer.
	if out := w.give(ipsec.Path{Local: c.from().Local, Remote: netip.MustParseAddrPort("192.0.2.66:4500")}, recorded); len(out) != 0 {
		t.Error("a replay is answered")
	}
	if out := w.give(ipsec.Path{Local: c.from().Local, Remote: netip.MustParseAddrPort("192.0.2.66:4500")}, ping(8)); len(out) != 0 {
		t.Error("a probe that goes backwards is answered")
	}
	if got := w.e.Snapshot(w.now).Peers[0].Remote; got != c.float {
		t.Errorf("moved by a replay to %v", got)
	}
	// The data plane has seen it back at the old port.
	w.e.Event(w.now, ipsec.Event{Kind: ipsec.EventMapping, ID: w.inbound(c, 0), Remote: old})
	if got := w.e.Snapshot(w.now).Peers[0].Remote; got != old {
		t.Errorf("mapping event ignored: %v", got)
	}
	c.float = old
	w.run(c, c.quick())
	w.e.Event(w.now, ipsec.Event{Kind: ipsec.EventMapping, ID: ipsec.SAID{Dir: ipsec.In, SPI: 4711, Mark: 1}, Remote: old}) // unknown
}

func TestDeadPeer(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	c.ignoreDPD = true
	w.clients = []*initiator{c}
	w.connect(c)
	w.advance(11 * time.Minute)
	if len(c.probes) != 5 || len(w.downs) != 0 {
		t.Fatalf("probes %v, downs %v", c.probes, w.downs)
	}
	for i, p := range c.probes[1:] {
		if p != c.probes[i]+1 {
			t.Errorf("sequence %v", c.probes)
		}
	}
	w.advance(2 * time.Minute)
	if len(w.downs) != 1 || w.downs[0] != "dead peer: no answer" || len(w.data.SAs()) != 0 || w.e.Snapshot(w.now).Clients != 0 {
		t.Errorf("downs %v", w.downs)
	}
}

func TestLivePeerIsNotDeclaredDead(t *testing.T) {
	for _, esp := range []bool{true, false} {
		w := newWorld(t, nil)
		c := nmClient(t, 1, true)
		c.ignoreDPD = esp // ESP alone is enough
		w.clients = []*initiator{c}
		w.connect(c)
		for i := range 30 {
			if esp {
				w.data.SetUsage(w.inbound(c, 0), ipsec.Usage{Packets: uint64(i + 1)})
			}
			w.advance(2 * time.Minute)
		}
		if len(w.downs) != 0 || esp && len(c.probes) > 2 || !esp && len(c.probes) < 10 {
			t.Errorf("esp %v: downs %v, %d probes", esp, w.downs, len(c.probes))
		}
	}
}

func TestGoodbyes(t *testing.T) {
	w := newWorld(t, nil)
	a, b := nmClient(t, 1, true), nmClient(t, 2, true).behindNAT("203.0.113.9", 62000, "192.168.1.35")
	w.clients = []*initiator{a, b}
	w.connect(a)
	w.connect(b)
	w.sent = nil
	w.e.ClosePeer(w.now, w.ups[0].Mark, "last tunnel closed")
	for _, s := range w.sent {
		w.deliver(s)
	}
	if !a.gone || len(a.deleted) != 1 || a.deleted[0] != a.children[0].out || len(w.downs) != 1 || w.downs[0] != "last tunnel closed" || b.gone {
		t.Errorf("a: gone %v, deleted %v; downs %v", a.gone, a.deleted, w.downs)
	}
	w.e.ClosePeer(w.now, w.ups[0].Mark, "again")
	w.sent = nil
	w.e.Close(w.now)
	for _, s := range w.sent {
		w.deliver(s)
	}
	if !b.gone || len(b.deleted) != 1 || len(w.data.SAs()) != 0 || !w.e.Deadline().IsZero() {
		t.Errorf("b: gone %v, deleted %v, SAs %v", b.gone, b.deleted, ids(w.data.SAs()))
	}
	if out := w.give(a.from(), nmClient(t, 5, true).first()); len(out) != 0 {
		t.Error("a closed engine answers")
	}
}

// TestCallbacksMayCallBack: PeerDown ends in ClosePeer in a real daemon, and PeerUp may too.
func TestCallbacksMayCallBack(t *testing.T) {
	w := newWorld(t, nil)
	w.e.env.PeerUp = func(i ClientInfo) { w.ups = append(w.ups, i); w.e.ClosePeer(w.now, i.Mark, "no room") }
	w.e.env.PeerDown = func(m ipsec.Mark, why string) { w.downs = append(w.downs, why); w.e.ClosePeer(w.now, m, "again") }
	c := nmClient(t, 1, true)
	w.connect(c)
	if len(w.ups) != 1 || len(w.downs) != 1 || len(w.data.SAs()) != 0 || w.e.Snapshot(w.now).Clients != 0 {
		t.Errorf("ups %d, downs %v", len(w.ups), w.downs)
	}
}

func TestReconfigure(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.connect(c)
	half := nmClient(t, 9, false)
	w.give(half.from(), half.first())
	cfg := testConfig()
	cfg.Peers[0].Profile.DPDInterval = 0
	w.e.Reconfigure(w.now, cfg)
	if s := w.e.Snapshot(w.now); len(w.downs) != 0 || s.HalfOpen != 0 || len(s.Peers) != 1 {
		t.Fatalf("downs %v, %+v", w.downs, s)
	}
	w.run(c, c.quick())
	if len(c.children) != 2 {
		t.Error("no quick mode afterwards")
	}
	cfg = testConfig()
	cfg.Peers[0].Secret = ipsec.Secret("another")
	w.clients = []*initiator{c}
	w.sent = nil
	w.e.Reconfigure(w.now, cfg)
	for _, s := range w.sent {
		w.deliver(s)
	}
	if len(w.downs) != 1 || !c.gone {
		t.Errorf("downs %v", w.downs)
	}
}

func TestPeerByPrefix(t *testing.T) {
	w := newWorld(t, func(cfg *Config) {
		office := cfg.Peers[0]
		office.Name, office.Secret = "office", ipsec.Secret("other secret")
		office.Remote = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
		cfg.Peers[0].Remote = []netip.Prefix{netip.MustParsePrefix("203.0.0.0/16")}
		cfg.Peers = append(cfg.Peers, office)
	})
	c := nmClient(t, 1, true)
	c.psk = []byte("other secret")
	w.connect(c)
	if w.ups[0].Peer != "office" {
		t.Errorf("peer %q", w.ups[0].Peer)
	}
	stranger := nmClient(t, 2, true).behindNAT("192.0.2.1", 500, "10.0.0.1")
	if out := w.give(stranger.from(), stranger.first()); len(out) != 0 {
		t.Error("a stranger is answered")
	}
}

func TestAggressiveOnlyWhereConfigured(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	c.aggr, c.group, c.hash = true, MODP2048, isakmp.HashSHA256
	if out := w.give(c.from(), c.first()); len(out) != 0 {
		t.Error("aggressive mode is answered")
	}
}

func TestSoftLimitRekeys(t *testing.T) {
	for _, pfs := range []Group{0, MODP2048} {
		w := newWorld(t, nil)
		c := nmClient(t, 1, true)
		c.sendOA = true
		if c.pfs = pfs; pfs != 0 {
			c.quickSA = oneProposal(withGroup(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 4), uint16(pfs)))
		}
		w.clients = []*initiator{c}
		w.connect(c)
		_, out := w.pair(c, c.children[0])
		w.sent = nil
		w.e.Event(w.now, ipsec.Event{Kind: ipsec.EventSoftExpire, ID: out.ID()})
		w.e.Event(w.now, ipsec.Event{Kind: ipsec.EventSoftExpire, ID: out.ID()}) // said twice
		if len(w.sent) != 1 {
			t.Fatalf("%d messages", len(w.sent))
		}
		w.advance(2 * time.Second) // the first was lost
		if len(c.children) != 2 {
			t.Fatalf("%d children; log:\n%s", len(c.children), w.log)
		}
		if c.confirmed != 1 {
			t.Errorf("%d messages 3", c.confirmed)
		}
		in2, out2 := w.pair(c, c.children[1])
		if in2.Mark != out.Mark || out2.Suite != out.Suite || out2.Encap != out.Encap || len(w.ups) != 1 {
			t.Errorf("%+v", out2)
		}
	}
}

func TestHardExpire(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.connect(c)
	in, _ := w.pair(c, c.children[0])
	w.e.Event(w.now, ipsec.Event{Kind: ipsec.EventHardExpire, ID: in.ID()})
	if len(w.downs) != 1 || len(w.data.SAs()) != 0 {
		t.Errorf("downs %v", w.downs)
	}
}

func TestServerBehindNAT(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	c.server = netip.MustParseAddr("192.0.2.200") // as dialled; we are serverAddr
	w.clients = []*initiator{c}
	w.connect(c)
	in, _ := w.pair(c, c.children[0])
	if !c.serverNAT || in.Local != serverAddr || w.e.Snapshot(w.now).Peers[0].NATT != "both" {
		t.Errorf("server NAT seen %v, %v", c.serverNAT, in.Local)
	}
	w.advance(time.Minute)
	if w.keep != 3 {
		t.Errorf("%d keepalives in a minute", w.keep)
	}
}

func TestIPv6(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, false)
	c.private, c.server = netip.MustParseAddr("2001:db8::9"), serverAddr
	c.remote = netip.AddrPortFrom(c.private, 500)
	main := serverAddr
	serverAddr = netip.MustParseAddr("2001:db8::1")
	defer func() { serverAddr = main }()
	c.server = serverAddr
	w.connect(c)
	in, _ := w.pair(c, c.children[0])
	if in.Remote != c.private || in.Selector.Remote.Bits() != 128 {
		t.Errorf("%+v", in.Selector)
	}
}

func TestBackendRefuses(t *testing.T) {
	for n, op := range []string{"inbound", "outbound"} {
		w := newWorld(t, nil)
		c := nmClient(t, 1, true)
		w.clients = []*initiator{c}
		w.run(c, c.first())
		if op == "inbound" {
			w.data.FailNext(ipsectest.OpInstall, errors.New("no memory"))
			w.run(c, c.quick())
		} else {
			out := w.give(c.from(), c.quick())
			third := c.receive(out[0].msg)
			w.data.FailNext(ipsectest.OpInstall, errors.New("no memory"))
			for _, s := range w.give(c.from(), third) {
				c.receive(s.msg)
			}
		}
		if len(w.data.SAs()) != 0 || len(w.ups) != 0 || w.lines("data plane refuses the "+op+" SA") != 1 {
			t.Errorf("%d: SAs %v, log:\n%s", n, ids(w.data.SAs()), w.log)
		}
		if op == "outbound" && len(c.deleted) != 1 {
			t.Error("the client was not told")
		}
		c.children = nil
		w.run(c, c.quick())
		if len(w.ups) != 1 {
			t.Error("no recovery")
		}
	}
}

func TestBusyWorker(t *testing.T) {
	w := newWorld(t, nil)
	busy := true
	var queue []func() func(time.Time)
	w.e.env.Offload = func(work func() func(time.Time)) bool {
		if busy {
			return false
		}
		queue = append(queue, work)
		return true
	}
	c := nmClient(t, 1, true)
	c.pfs = MODP2048
	c.quickSA = oneProposal(withGroup(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 4), 14))
	third := c.receive(w.give(c.from(), c.first())[0].msg)
	if out := w.give(c.from(), third); len(out) != 0 {
		t.Fatal("answered without a worker")
	}
	busy = false
	finish := func(msg []byte) [][]byte {
		t.Helper()
		w.give(c.from(), msg)
		w.give(c.from(), msg) // its retransmission, while the worker is at it
		if len(queue) != 1 {
			t.Fatalf("%d jobs", len(queue))
		}
		done := queue[0]()
		queue = nil
		w.sent = nil
		done(w.now)
		var out [][]byte
		for _, s := range w.sent {
			out = append(out, s.msg)
		}
		w.sent = nil
		return out
	}
	fifth := c.receive(finish(third)[0])
	w.run(c, fifth)
	busy = true
	q := c.quick()
	if out := w.give(c.from(), q); len(out) != 0 {
		t.Fatal("answered without a worker")
	}
	busy = false
	w.run(c, c.receive(finish(q)[0]))
	if len(w.ups) != 1 {
		t.Fatalf("not up; drops %v", w.e.Snapshot(w.now).Drops)
	}
	// A job that ends after the engine was closed is nobody's.
	d := nmClient(t, 2, false)
	third = d.receive(w.give(d.from(), d.first())[0].msg)
	w.give(d.from(), third)
	done := queue[0]()
	w.e.Close(w.now)
	w.sent = nil
	done(w.now)
	if len(w.sent) != 0 {
		t.Error("a closed engine sends")
	}
}

func TestLatePublicValue(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, false)
	third := c.receive(w.give(c.from(), c.first())[0].msg)
	for _, bad := range [][]byte{make([]byte, 256), append(make([]byte, 255), 1), bytes.Repeat([]byte{0xff}, 256), make([]byte, 255), make([]byte, 4000)} {
		msg, _ := c.message(isakmp.Main, 0, false, nil, append([]isakmp.Payload{{Type: isakmp.PayloadKE, Body: bad}, {Type: isakmp.PayloadNonce, Body: c.ni}}, c.natd()...)...)
		for _, s := range w.give(c.from(), msg) {
			c.receive(s.msg)
		}
	}
	if len(c.errors) == 0 || c.errors[0] != isakmp.InvalidKeyInformation {
		t.Errorf("notifications %v", c.errors)
	}
	w.run(c, third)
	if !c.up {
		t.Error("a good public value after bad ones is not accepted")
	}
}
