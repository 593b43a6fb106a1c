package ikev1

import (
	"slices"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

var chacha = ipsec.Suite{Cipher: ipsec.ChaCha20Poly1305, KeyBits: 256, ICVBits: 128}

func onlySuites(s ...ipsec.Suite) func(*Config) {
	return func(cfg *Config) { cfg.Peers[0].Proposal.Suites = s }
}

func (s *side) suites() (out []ipsec.Suite) {
	for _, sa := range s.data.SAs() {
		out = append(out, sa.Suite)
	}
	return out
}

// TestChaCha: between two of us ChaCha20-Poly1305 works under a number for private use, which nobody else is believed to
// mean the same by, and which nobody else is offered.
func TestChaCha(t *testing.T) {
	c := newCable(t, 1, true, onlySuites(chacha))
	d := c.caller()
	d.Peer.Proposal.Suites = []ipsec.Suite{chacha}
	c.up(d)
	if s := c.b.suites(); len(s) != 2 || s[0] != chacha || s[1] != chacha {
		t.Errorf("suites %v", s)
	}
	if got := c.b.ups[0].Software; got != "Culvert" {
		t.Errorf("the caller is taken for %q", got)
	}
	c.run(2 * time.Hour) // and renewed
	if err := c.traffic(); err != nil {
		t.Error(err)
	}

	w := newWorld(t, onlySuites(chacha))
	other := nmClient(t, 1, true)
	other.quickSA = oneProposal(p2(1, isakmp.ESPChaCha20Poly1305, 0, 0, 4))
	w.run(other, other.first())
	w.run(other, other.quick())
	if len(other.children) != 0 || len(w.data.SAs()) != 0 {
		t.Error("a client that is not ours has it")
	}

	c = newCable(t, 2, false, nil)
	c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) { // a server that is not ours
		if h := exchangeOf(msg); h.Exchange == isakmp.Main && h.Next == isakmp.PayloadSA {
			msg = withoutVendor(msg, isakmp.VendorCulvert)
		}
		return p, msg
	}
	d = c.caller()
	d.Peer.Proposal.Suites = []ipsec.Suite{chacha, {Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA1, ICVBits: 96}}
	c.up(d)
	if s := c.b.suites(); s[0].Cipher != ipsec.AESCBC {
		t.Errorf("suites %v", s)
	}
}

// TestESN: extended sequence numbers are agreed on where both can, and then the number of packets is no limit.
func TestESN(t *testing.T) {
	for _, can := range [][2]bool{{true, true}, {true, false}, {false, true}, {false, false}} {
		c := newCable(t, 1, true, func(cfg *Config) { cfg.ESN = can[1] })
		c.a.e.cfg.ESN = can[0]
		c.up(c.caller())
		for _, s := range []*side{c.a, c.b} {
			for _, sa := range s.data.SAs() {
				if both := can[0] && can[1]; sa.ESN != both || (sa.Hard.Packets == 0) != both || (sa.Soft.Packets == 0) != both {
					t.Errorf("%v: %v: ESN %v, packets %d, %d", can, sa.ID(), sa.ESN, sa.Soft.Packets, sa.Hard.Packets)
				}
			}
		}
	}
	// A client of another make that offers both forms, in either order, or the long one alone.
	long := func(n uint8) isakmp.Transform {
		tr := p2(n, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 4)
		tr.Attributes = append(tr.Attributes, isakmp.Basic(isakmp.P2ESN, 1))
		return tr
	}
	short := func(n uint8) isakmp.Transform { return p2(n, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 4) }
	for _, test := range []struct {
		offer []isakmp.Transform
		can   bool
		esn   bool
		up    bool
	}{
		{[]isakmp.Transform{short(1), long(2)}, true, true, true}, {[]isakmp.Transform{long(1), short(2)}, true, true, true},
		{[]isakmp.Transform{short(1), long(2)}, false, false, true}, {[]isakmp.Transform{long(1)}, false, false, false}, {[]isakmp.Transform{long(1)}, true, true, true},
	} {
		w := newWorld(t, func(cfg *Config) { cfg.ESN = test.can })
		c := nmClient(t, 1, true)
		sa := isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoESP, SPI: make([]byte, 4), Transforms: test.offer})
		c.quickSA = sa.Append(nil)
		w.run(c, c.first())
		w.run(c, c.quick())
		if up := len(c.children) == 1; up != test.up {
			t.Errorf("%v: up %v", test, up)
			continue
		}
		for _, sa := range w.data.SAs() {
			if sa.ESN != test.esn {
				t.Errorf("%v: ESN %v", test, sa.ESN)
			}
		}
	}
}

// TestSuitesOfTheDataPlane: a call that is free to choose offers what the data plane can do.
func TestSuitesOfTheDataPlane(t *testing.T) {
	c := newCable(t, 1, false, nil)
	c.a.e.cfg.Suites = []ipsec.Suite{{Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128}, {Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA256, ICVBits: 128}}
	c.up(c.caller())
	if s := c.a.suites(); s[0].Integrity != ipsec.HMACSHA256 || s[0].KeyBits != 256 {
		t.Errorf("suites %v", s)
	}
	c.a.e.cfg.Suites = []ipsec.Suite{{Cipher: ipsec.AESGCM, KeyBits: 192, ICVBits: 128}}
	if got := c.a.e.can(commonSuites); !slices.Equal(got, commonSuites) {
		t.Errorf("nothing in common: %v", got)
	}
}

// TestLifebytes: an SA is renewed after so many octets, whichever side's limit is the lower one.
func TestLifebytes(t *testing.T) {
	for _, test := range []struct{ caller, server, want, wantServer uint64 }{
		{0, 0, 0, 0}, {10 << 20, 0, 10 << 20, 10 << 20}, {0, 5 << 20, 0, 5 << 20}, {10 << 20, 5 << 20, 10 << 20, 5 << 20}, {5 << 20, 10 << 20, 5 << 20, 5 << 20},
	} {
		c := newCable(t, 1, false, func(cfg *Config) { cfg.Peers[0].Proposal.Bytes = test.server })
		d := c.caller()
		d.Peer.Proposal.Bytes = test.caller
		c.up(d)
		for _, x := range []struct {
			side *side
			want uint64
		}{{c.a, test.want}, {c.b, test.wantServer}} {
			for _, sa := range x.side.data.SAs() {
				if sa.Soft.Bytes != x.want || sa.Hard.Bytes != 0 {
					t.Errorf("%+v: %v: %d, %d octets, want %d", test, sa.ID(), sa.Soft.Bytes, sa.Hard.Bytes, x.want)
				}
			}
		}
		if test.wantServer == 0 {
			continue
		}
		n := len(c.b.e.children)
		for _, sa := range c.b.data.SAs() {
			if sa.Dir == ipsec.Out {
				c.b.e.Event(c.now, ipsec.Event{Kind: ipsec.EventSoftExpire, ID: sa.ID()})
			}
		}
		c.run(10 * time.Second)
		if len(c.b.e.children) != n+1 {
			t.Errorf("%+v: not renewed", test)
		}
		if err := c.traffic(); err != nil {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
