package ikev1

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"culvert/ipsec/isakmp"
)

// What has brought down or opened other IKEv1 daemons, tried on this one. Elsewhere: amplification and cookies
// (limit_test.go), fragments (fragment_test.go), public values (crypto_test.go), informational messages, headers and
// exchanges (hostile_test.go), proposals that yield no key (engine_test.go), signatures (auth_cert_test.go).

// TestHostileQuickIDs (CVE-2023-38711, CVE-2024-3652): selectors of every type, for either side, with as much data as is
// their due, less, more and none; the exchange ends in a refusal or in SAs for UDP 1701.
func TestHostileQuickIDs(t *testing.T) {
	for typ := range 16 {
		for _, n := range []int{0, 1, 3, 4, 8, 16, 32, 200} {
			for side := range 2 {
				w := newWorld(t, nil)
				c := ecpClient(t, 1)
				w.run(c, c.first())
				good := isakmp.IDFromAddr(serverAddr, 17, 1701).Append(nil)
				bad := append([]byte{byte(typ), 17, 1701 >> 8, 1701 & 255}, bytes.Repeat([]byte{0x30}, n)...)
				c.ids = [][]byte{good, good}
				c.ids[side] = bad
				w.run(c, c.quick())
				for _, sa := range w.data.SAs() {
					if err := sa.Validate(); err != nil || sa.Selector.Proto != 17 || sa.Selector.LocalPort != 1701 || sa.Remote != c.float.Addr() {
						t.Fatalf("type %d, %d octets, side %d: %+v %v", typ, n, side, sa.Selector, err)
					}
				}
				w.run(c, c.deletePhase1())
			}
		}
	}
}

// TestHostileIdentities (CVE-2013-6075, CVE-2013-2052): identities of phase 1 of every type, distinguished names with
// lengths that lie among them. They are shown in the log and compared, never taken apart.
func TestHostileIdentities(t *testing.T) {
	for typ := range 16 {
		for _, data := range [][]byte{nil, {0x30}, {0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, {0x30, 0x80, 0, 0}, bytes.Repeat([]byte{0x30, 0x82}, 400), []byte("\x1b[2J\x00%s%n"), bytes.Repeat([]byte{0xff}, 16)} {
			for _, aggressive := range []bool{false, true} {
				w := newWorld(t, func(cfg *Config) {
					if aggressive {
						cfg.Peers[0].Exchange = Aggressive
					}
					withKeys(2, "mySecret")(cfg)
				})
				c := ecpClient(t, 1)
				c.aggr, c.group, c.hash = aggressive, ECP256, isakmp.HashSHA1
				c.idBody = append([]byte{byte(typ), 17, 1, 244}, data...)
				w.run(c, c.first())
				if c.up {
					w.run(c, c.quick())
				}
				if bytes.ContainsAny([]byte(w.log.String()), "\x1b\x00") {
					t.Fatalf("type %d: control characters in the log", typ)
				}
				w.run(c, c.first()) // the next one is as welcome as ever
			}
		}
	}
}

// TestHostileAggressive (CVE-2005-3732, CVE-2023-30570): first messages of aggressive mode that lack any of their
// payloads, or have a refused proposal, leave nothing behind, nor can a later message take up the refused exchange.
func TestHostileAggressive(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.Peers[0].Exchange = Aggressive; cfg.Peers[0].Profile.Groups = []Group{ECP256} })
	c := ecpClient(t, 1)
	c.aggr, c.group, c.hash = true, ECP256, isakmp.HashSHA1
	whole := c.first()
	h, _ := isakmp.ParseHeader(whole)
	payloads, _, _ := isakmp.ParsePayloads(h.Next, whole[isakmp.HeaderLen:], false)
	compose := func(list []isakmp.Payload) []byte {
		h := h
		if h.Next = 0; len(list) > 0 {
			h.Next = list[0].Type
		}
		msg := isakmp.AppendPayloads(h.Append(nil), list)
		isakmp.SetLength(msg)
		return msg
	}
	for mask := range 1 << 4 {
		if mask == 15 {
			continue
		}
		var list []isakmp.Payload
		for i, p := range payloads[:4] { // SA, KE, nonce, ID
			if mask&(1<<i) != 0 {
				list = append(list, p)
			}
		}
		for _, s := range w.give(c.from(), compose(list)) {
			if exchangeOf(s.msg).Exchange != isakmp.Informational {
				t.Fatalf("payloads %04b are answered", mask)
			}
		}
		if len(w.e.sas) != 0 {
			t.Fatalf("payloads %04b leave something", mask)
		}
	}
	refused := append([]isakmp.Payload(nil), payloads...)
	refused[0].Body = isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP, Transforms: []isakmp.Transform{p1(1, isakmp.EncDES, 0, isakmp.HashMD5, 1)}}).Append(nil)
	out := w.give(c.from(), compose(refused))
	if len(out) != 1 || len(w.e.sas) != 0 {
		t.Fatalf("a refused proposal: %d answers, %d kept", len(out), len(w.e.sas))
	}
	cr := exchangeOf(out[0].msg).Responder // the refusal's cookie belongs to nothing
	for _, x := range []isakmp.Exchange{isakmp.Aggressive, isakmp.Main, isakmp.Quick, isakmp.Informational} {
		msg := bytes.Clone(whole)
		copy(msg[8:], cr[:])
		msg[18] = byte(x)
		if out := w.give(c.from(), msg); len(out) != 0 || len(w.e.sas) != 0 {
			t.Errorf("%v with the refusal's cookie is answered", x)
		}
	}
	w.connect(c)
}

// TestHostileMethods (CVE-2015-4047, CVE-2013-5018, CVE-2018-0131): authentication by methods that are not done here, and
// attributes that belong to them, and the exchange they would use.
func TestHostileMethods(t *testing.T) {
	w := newWorld(t, nil)
	c := ecpClient(t, 1)
	for _, method := range []uint16{0, 2, 4, 5, 6, 7, 8, 12, 64221, 65001, 65002, 65003, 65005, 65535} {
		tr := p1(1, isakmp.EncAES, 256, isakmp.HashSHA1, 14)
		for i := range tr.Attributes {
			if tr.Attributes[i].Type == isakmp.P1AuthMethod {
				tr.Attributes[i] = isakmp.Basic(isakmp.P1AuthMethod, method)
			}
		}
		for _, extra := range [][]isakmp.Attribute{nil, {isakmp.Variable(16384, nil)}, {isakmp.Variable(16384, bytes.Repeat([]byte("GSS"), 100))}} {
			tr := tr
			tr.Attributes = append(append([]isakmp.Attribute(nil), tr.Attributes...), extra...)
			c.main1 = replaceSA(c.main1, isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP, Transforms: []isakmp.Transform{tr}}))
			for _, s := range w.give(c.from(), c.first()) {
				if exchangeOf(s.msg).Exchange != isakmp.Informational {
					t.Fatalf("method %d is accepted", method)
				}
			}
			if len(w.e.sas) != 0 {
				t.Fatalf("method %d leaves something", method)
			}
		}
	}
	c = ecpClient(t, 2)
	w.connect(c)
	before := w.state()
	for _, body := range [][]byte{{}, {1}, {1, 0, 0, 0}, {3, 0, 0, 9, 64, 137, 255, 255}, bytes.Repeat([]byte{64, 137, 0, 2, 0x30, 0x84}, 20)} {
		mid := uint32(77)
		msg, _ := c.hashed(isakmp.Transaction, mid, c.midIV(mid), be32(mid), isakmp.Payload{Type: isakmp.PayloadAttributes, Body: body})
		if out := w.give(c.from(), msg); len(out) != 0 || w.state() != before {
			t.Errorf("a transaction is answered")
		}
	}
}

// TestHostileLengths (CVE-2016-6415, CVE-2015-3204, CVE-2004-0403): every length field of a first message, of every size.
// Nothing of our memory comes back, and nothing is kept of what is refused.
func TestHostileLengths(t *testing.T) {
	for _, c := range []*initiator{windowsClient(t, 1), nmClient(t, 2, true)} {
		w := newWorld(t, func(cfg *Config) { cfg.HalfOpen = 50 })
		whole := c.first()
		for at := isakmp.HeaderLen; at+2 <= isakmp.HeaderLen+120; at++ {
			for _, v := range []uint16{0, 1, 3, 4, 5, 0x7fff, 0xffff, uint16(len(whole)), uint16(len(whole) - at)} {
				msg := bytes.Clone(whole)
				binary.BigEndian.PutUint16(msg[at:], v)
				msg[7], msg[6] = byte(at), byte(v)
				for _, s := range w.give(c.from(), msg) {
					if len(s.msg) > len(msg) {
						t.Fatalf("%d octets at %d answered by %d", len(msg), at, len(s.msg))
					}
					if exchangeOf(s.msg).Exchange == isakmp.Informational {
						continue
					}
					h, _ := isakmp.ParseHeader(s.msg)
					payloads, _, err := isakmp.ParsePayloads(h.Next, s.msg[isakmp.HeaderLen:], false)
					if err != nil {
						t.Fatal(err)
					}
					sa, err := isakmp.ParseSA(payloads[0].Body)
					if err != nil || len(sa.Proposals) != 1 || len(sa.Proposals[0].Transforms) != 1 {
						t.Fatalf("answer %x, %v", payloads[0].Body, err)
					}
					for _, a := range sa.Proposals[0].Transforms[0].Attributes { // all of it was in the question
						if raw := a.Append(nil); !bytes.Contains(msg, raw) {
							t.Fatalf("attribute %x was not in the question", raw)
						}
					}
				}
			}
		}
	}
}

// TestHostileLeaks (CVE-2008-3651, CVE-2008-3652, CVE-2009-1632): proposals that are refused, and phase 1s that never end,
// by the thousand, leave nothing when their time is over.
func TestHostileLeaks(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.Peers[0].Profile.Groups = []Group{ECP256} })
	bad := isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP, Transforms: []isakmp.Transform{p1(1, isakmp.EncDES, 0, isakmp.HashMD5, 1)}})
	for i := range 600 {
		c := ecpClient(t, uint64(i)).behindNAT(fmt.Sprintf("100.64.%d.%d", i>>8, i&255), 61000, "192.168.1.34")
		switch i % 4 {
		case 0:
			c.main1 = replaceSA(c.main1, bad)
			w.give(c.from(), c.first())
		case 1:
			w.give(c.from(), c.first())
		case 2:
			w.give(c.from(), c.receive(w.give(c.from(), c.first())[0].msg))
		case 3: // quick modes that are refused, and one that never ends, under a phase 1 that was never used
			w.run(c, c.first())
			c.quickSA = oneProposal(p2(1, isakmp.ESPDES, 0, isakmp.AuthHMACMD5, 4))
			for range 3 {
				w.run(c, c.quick())
			}
			c.quickSA = nmClient(t, 1, true).quickSA
			w.give(c.from(), c.quick())
		}
		w.now = w.now.Add(50 * time.Millisecond)
		if at := w.e.Deadline(); !at.IsZero() && !at.After(w.now) {
			w.e.Tick(w.now)
		}
	}
	w.advance(time.Hour)
	if s := w.e.Snapshot(w.now); len(s.Peers)+len(s.SAs)+s.Clients+s.HalfOpen != 0 || !w.e.Deadline().IsZero() {
		t.Errorf("%d ISAKMP SAs, %d SAs, %d clients, %d half open are left", len(s.Peers), len(s.SAs), s.Clients, s.HalfOpen)
	}
	if n := len(w.e.sas) + len(w.e.firsts) + len(w.e.byKey) + len(w.e.children) + len(w.data.SAs()) + len(w.e.timers.queue) + len(w.e.admission.strangers) + len(w.e.admission.urgent); n != 0 {
		t.Errorf("%d things are left", n)
	}
	for i := range w.e.halfOpen {
		if l := &w.e.halfOpen[i]; l.order.Len()+len(l.places)+len(l.perAddr) != 0 {
			t.Errorf("pen %d is not empty", i)
		}
	}
}

// TestHostileInside (CVE-2015-3991): payloads of IKEv2, unknown and nested ones, behind a hash that is right.
func TestHostileInside(t *testing.T) {
	w := newWorld(t, nil)
	c := ecpClient(t, 1)
	w.connect(c)
	before := len(w.data.SAs())
	for typ := range 256 {
		for _, x := range []isakmp.Exchange{isakmp.Quick, isakmp.Informational} {
			for _, body := range [][]byte{nil, {0, 0, 0, 1}, bytes.Repeat([]byte{0x21}, 60)} {
				mid := uint32(1000 + 6*typ + 3*int(x&1) + len(body)%3)
				msg, _ := c.hashed(x, mid, c.midIV(mid), be32(mid), isakmp.Payload{Type: isakmp.PayloadType(typ), Body: body})
				w.give(c.from(), msg)
			}
		}
	}
	if len(w.data.SAs()) != before || len(w.downs) != 0 {
		t.Fatalf("SAs %d, then %d; downs %v", before, len(w.data.SAs()), w.downs)
	}
	w.run(c, c.quick())
	if len(c.children) != 2 {
		t.Error("nothing goes any more")
	}
}
