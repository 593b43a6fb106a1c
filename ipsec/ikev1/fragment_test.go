package ikev1

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// pieces cuts a message as a peer does; every one has the same id where id is not zero, as strongSwan's have.
func pieces(msg []byte, size int, id uint16) (out [][]byte) {
	h, err := isakmp.ParseHeader(msg)
	if err != nil {
		panic(err)
	}
	for n := uint8(1); len(msg) > 0; n++ {
		data := msg[:min(size, len(msg))]
		msg = msg[len(data):]
		f := isakmp.Fragment{ID: id, Number: n, Last: len(msg) == 0, Data: data}
		out = append(out, piece(h, f))
	}
	return out
}

func piece(h isakmp.Header, f isakmp.Fragment) []byte {
	h.Next, h.Flags, h.MessageID = isakmp.PayloadFragment, 0, 0
	msg := isakmp.AppendPayloads(h.Append(nil), []isakmp.Payload{{Type: isakmp.PayloadFragment, Body: f.Append(nil)}})
	isakmp.SetLength(msg)
	return msg
}

// join puts together what the server sends.
func join(t *testing.T, out []sent, limit int) (whole []byte) {
	t.Helper()
	for i, s := range out {
		if len(s.msg)+32 > limit {
			t.Errorf("a datagram of %d octets", len(s.msg)+32)
		}
		h, err := isakmp.ParseHeader(s.msg)
		if err != nil {
			t.Fatal(err)
		}
		if h.Next != isakmp.PayloadFragment {
			return s.msg
		}
		payloads, _, err := isakmp.ParsePayloads(h.Next, s.msg[isakmp.HeaderLen:], false)
		if err != nil || len(payloads) != 1 || h.Flags != 0 {
			t.Fatalf("piece %d: %v, %+v", i, err, h)
		}
		f, err := isakmp.ParseFragment(payloads[0].Body)
		if err != nil || int(f.Number) != i+1 || f.Last != (i+1 == len(out)) || f.ID == 0 {
			t.Fatalf("piece %d of %d: %v, %+v", i, len(out), err, f)
		}
		whole = append(whole, f.Data...)
	}
	return whole
}

// TestFragments: a client that sends everything in pieces, in any order and twice, and gets long messages in pieces.
func TestFragments(t *testing.T) {
	for _, size := range []int{10, 100, 400} {
		for _, id := range []uint16{0, 1} {
			w := newWorld(t, func(cfg *Config) { cfg.Fragment = 576; cfg.Peers[0].Profile.Groups = []Group{MODP4096} })
			c := nmClient(t, 1, true)
			c.main1 = replaceSA(c.main1, isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP,
				Transforms: []isakmp.Transform{p1(1, isakmp.EncAES, 256, isakmp.HashSHA256, uint16(MODP4096))}}))
			r := rand.New(rand.NewPCG(uint64(size), 1))
			n, cut := uint16(0), false
			give := func(msg []byte) []byte {
				if n++; id != 0 {
					n = id
				}
				parts := pieces(msg, max(size, (len(msg)+maxFragments-1)/maxFragments), n)
				r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
				var out []sent
				for i, p := range parts {
					if len(parts) > 1 && i < len(parts)-1 {
						w.give(c.from(), p)
					}
					out = append(out, w.give(c.from(), p)...)
				}
				cut = cut || len(out) > 1
				return join(t, out, 576)
			}
			msg := c.first()
			for range 3 {
				msg = c.receive(give(msg))
			}
			if !c.up || !cut {
				t.Fatalf("size %d: up %v, answered in pieces %v; drops %v", size, c.up, cut, w.e.Snapshot(w.now).Drops)
			}
			w.run(c, c.receive(give(c.quick())))
			w.pair(c, c.children[0])
			if n := w.e.pieces.order.Len() + w.e.pieces1.order.Len(); n != 0 {
				t.Errorf("%d messages in pieces are kept", n)
			}
		}
	}
}

// TestFragmentsAnnounced: pieces go only to who has announced that they are understood, and the announcement is answered.
func TestFragmentsAnnounced(t *testing.T) {
	for name, main1 := range map[string]func(*testing.T) *initiator{
		"with": windowsClient1,
		"without": func(t *testing.T) *initiator {
			c := windowsClient1(t)
			c.main1 = withoutVendor(c.main1, isakmp.VendorFragmentation)
			return c
		},
	} {
		w := newWorld(t, func(cfg *Config) { cfg.Fragment = 1 }) // as short as we send
		c := main1(t)
		c.main1 = replaceSA(c.main1, isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP,
			Transforms: []isakmp.Transform{p1(1, isakmp.EncAES, 256, isakmp.HashSHA256, uint16(MODP4096))}}))
		second := w.give(c.from(), c.first())[0].msg
		third := c.receive(second)
		if has := c.has(isakmp.VendorFragmentation); has != (name == "with") {
			t.Errorf("%s: we announce fragmentation: %v", name, has)
		}
		if n := len(w.give(c.from(), third)); (n > 1) != (name == "with") {
			t.Errorf("%s: message 4 comes in %d pieces", name, n)
		}
	}
}

func windowsClient1(t *testing.T) *initiator { return windowsClient(t, 1) }

func (c *initiator) has(id isakmp.VendorID) bool {
	for _, v := range c.vids {
		if v == id {
			return true
		}
	}
	return false
}

func withoutVendor(main1 []byte, id isakmp.VendorID) []byte {
	h, _ := isakmp.ParseHeader(main1)
	payloads, _, _ := isakmp.ParsePayloads(h.Next, main1[isakmp.HeaderLen:], false)
	var rest []isakmp.Payload
	for _, p := range payloads {
		if v, ok := isakmp.IdentifyVendor(p.Body); p.Type != isakmp.PayloadVendor || !ok || v.ID != id {
			rest = append(rest, p)
		}
	}
	msg := isakmp.AppendPayloads(h.Append(nil), rest)
	isakmp.SetLength(msg)
	return msg
}

// TestHostileFragments: pieces that do not fit together (CVE-2013-6076, CVE-2016-1287, CVE-2016-10396) do nothing but
// take up the little that they may, for the little while.
func TestHostileFragments(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	third := c.receive(w.give(c.from(), c.first())[0].msg)
	h, _ := isakmp.ParseHeader(third)
	before := w.state()
	frag := func(id uint16, n uint8, last bool, data []byte) []byte {
		return piece(h, isakmp.Fragment{ID: id, Number: n, Last: last, Data: data})
	}
	wrong := bytes.Clone(third)
	wrong[0] ^= 1
	nested := frag(3, 1, true, third)
	bare := piece(h, isakmp.Fragment{ID: 9, Number: 1, Data: []byte{1}})
	bare = bare[:len(bare)-5]
	isakmp.SetLength(bare)
	bare[28+3] = byte(len(bare) - 28)
	two := isakmp.AppendPayloads(isakmp.Header{Initiator: h.Initiator, Responder: h.Responder, Next: isakmp.PayloadFragment, Exchange: isakmp.Main}.Append(nil),
		[]isakmp.Payload{{Type: isakmp.PayloadFragment, Body: isakmp.Fragment{ID: 1, Number: 1, Data: third[:9]}.Append(nil)}, {Type: isakmp.PayloadFragment, Body: isakmp.Fragment{ID: 1, Number: 2, Last: true, Data: third[9:]}.Append(nil)}})
	isakmp.SetLength(two)
	sealed := frag(1, 1, true, third)
	sealed[19] |= byte(isakmp.Encrypted)
	for name, msgs := range map[string][][]byte{
		"no fragment":            {bare},
		"two in one":             {two},
		"encrypted":              {sealed},
		"number zero":            {frag(1, 0, true, third)},
		"number 65":              {frag(1, 65, true, third)},
		"number 255":             {frag(1, 255, true, third)},
		"another exchange's":     {frag(2, 1, true, wrong)},
		"nested":                 {frag(3, 1, true, nested)},
		"rubbish":                {frag(4, 1, true, []byte("rubbish"))},
		"the last twice":         {frag(5, 2, true, []byte{1}), frag(5, 1, true, []byte{2})},
		"beyond the last":        {frag(6, 2, true, []byte{1}), frag(6, 3, false, []byte{2}), frag(6, 1, false, []byte{2})},
		"the last below another": {frag(7, 3, false, []byte{1}), frag(7, 2, true, []byte{2}), frag(7, 1, false, []byte{2})},
		"gap":                    {frag(8, 1, false, third[:20]), frag(8, 3, true, third[20:])},
	} {
		for _, m := range msgs {
			if out := w.give(c.from(), m); len(out) != 0 {
				t.Errorf("%s is answered", name)
			}
		}
	}
	w.now = w.now.Add(reassemblyTime)
	w.e.Tick(w.now)
	w.now = w.now.Add(-reassemblyTime)
	if after := w.state(); after != before {
		t.Errorf("something changed:\n%s\n%s", before, after)
	}
	// Too long in all.
	for n := uint8(1); n <= 64; n++ {
		w.give(c.from(), frag(20, n, n == 64, make([]byte, 1000)))
	}
	for _, el := range w.e.pieces.byKey {
		if a := el.Value.(*assembly); a.size > maxMessage {
			t.Errorf("%d octets kept", a.size)
		}
	}
	// And all the same the right one gets through, after a forged piece too.
	parts := pieces(third, 100, 1)
	w.give(c.from(), frag(1, 2, false, []byte("forged")))
	var out []sent
	for range 2 {
		for _, p := range parts {
			out = append(out, w.give(c.from(), p)...)
		}
	}
	w.run(c, c.receive(out[0].msg))
	if !c.up {
		t.Fatal("the right message is not heard any more")
	}
}

// TestHostileFragmentFlood: first messages in pieces from everywhere.
func TestHostileFragmentFlood(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, false)
	first := c.first()
	h, _ := isakmp.ParseHeader(first)
	kept := func(r *reassembly) (octets int) {
		for _, el := range r.byKey {
			octets += el.Value.(*assembly).size
		}
		return octets
	}
	for i := range 5000 {
		h.Initiator[3], h.Initiator[4] = byte(i), byte(i>>8)
		from := ipsec.Path{Local: netip.AddrPortFrom(serverAddr, 500), Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 500)}
		w.give(from, piece(h, isakmp.Fragment{ID: 1, Number: 1, Data: make([]byte, 1200)}))
		from.Remote = netip.AddrPortFrom(netip.MustParseAddr("192.0.2.77"), uint16(i+1))
		w.give(from, piece(h, isakmp.Fragment{ID: 1, Number: 2, Data: make([]byte, 1200)}))
	}
	if n := w.e.pieces1.order.Len(); n > maxReassembly1 || kept(w.e.pieces1) > maxReassembly1*maxFirst || len(w.e.pieces1.byKey) != n {
		t.Errorf("%d messages, %d octets kept", n, kept(w.e.pieces1))
	}
	own := 0
	for key := range w.e.pieces1.byKey {
		if key.remote.Addr() == netip.MustParseAddr("192.0.2.77") {
			own++
		}
	}
	if own > maxReassembly1A {
		t.Errorf("%d messages of one address", own)
	}
	w.advance(time.Minute)
	if n := w.e.pieces1.order.Len(); n != 0 || !w.e.Deadline().IsZero() {
		t.Errorf("%d messages kept for ever", n)
	}
}

// TestDialFragments: both sides are ours, and every message is too long for the path.
func TestDialFragments(t *testing.T) {
	c := newCable(t, 1, true, func(cfg *Config) { cfg.Fragment = 1; cfg.Peers[0].Profile.Groups = []Group{MODP4096} })
	cut := 0
	c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		if exchangeOf(msg).Next == isakmp.PayloadFragment {
			cut++
		}
		return p, msg
	}
	d := c.caller()
	d.Peer.Profile.Ciphers, d.Peer.Profile.Hashes, d.Peer.Profile.Groups = []Cipher{AES256}, []Hash{SHA256}, []Group{MODP4096}
	c.up(d)
	if cut < 2 {
		t.Errorf("%d pieces", cut)
	}
	if err := c.traffic(); err != nil {
		t.Error(err)
	}
}

// FuzzFragments cuts a good message at places of the fuzzer's choice and gives it pieces that are not of it.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{1, 1, 0, 50, 1, 2, 1, 255}, false)
	f.Add([]byte{1, 2, 1, 9, 2, 1, 0, 50, 1, 1, 0, 200}, true)
	f.Add([]byte{1, 64, 1, 0, 1, 255, 0, 1, 1, 0, 1, 7}, true)
	f.Fuzz(func(t *testing.T, script []byte, first bool) {
		w := newWorld(t, func(cfg *Config) { cfg.Peers[0].Profile.Groups = []Group{ECP256} })
		c := nmClient(t, 1, true)
		msg := c.first()
		if !first {
			msg = c.receive(w.give(c.from(), msg)[0].msg)
		}
		h, _ := isakmp.ParseHeader(msg)
		rest := msg
		for ; len(script) >= 4; script = script[4:] {
			n := min(int(script[3]), len(rest))
			data := rest[:n]
			if n == 0 {
				data = []byte{script[2]}
			}
			rest = rest[n:]
			w.give(c.from(), piece(h, isakmp.Fragment{ID: uint16(script[0]), Number: script[1], Last: script[2]&1 != 0, Data: data}))
		}
		for _, r := range []*reassembly{w.e.pieces, w.e.pieces1} {
			if r.order.Len() != len(r.byKey) || r.order.Len() > r.limit {
				t.Fatal("the list and the map differ")
			}
			for _, el := range r.byKey {
				a := el.Value.(*assembly)
				size, have := 0, 0
				for _, p := range a.parts {
					if size += len(p); p != nil {
						have++
					}
				}
				if size != a.size || have != a.have || size > r.octets || a.last != 0 && a.have >= a.last {
					t.Fatal(fmt.Sprintf("%d of %d octets, %d of %d pieces, the last is %d", a.size, size, a.have, have, a.last))
				}
			}
		}
		w.advance(time.Minute)
		if len(w.ups) != 0 || w.e.pieces.order.Len()+w.e.pieces1.order.Len() != 0 {
			t.Fatal("something is left, or came up")
		}
	})
}
