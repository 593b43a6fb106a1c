package ikev1

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
	"culvert/ipsec/isakmp/isakmptest"
)

// state describes everything that a message may change, except counters of messages.
func (w *world) state() string {
	s := w.e.Snapshot(w.now)
	s.Drops = nil
	for i := range s.Peers {
		s.Peers[i].RxMessages, s.Peers[i].TxMessages = 0, 0
	}
	return fmt.Sprintf("%+v %v %d %d %v %d", s, ids(w.data.SAs()), len(w.ups), len(w.downs), w.e.Deadline(), len(w.e.children))
}

// mutate damages a message in one of the ways that networks and attackers do. The flags that are not authenticated and
// mean nothing are left alone.
func mutate(r *rand.Rand, msg []byte) []byte {
	b := bytes.Clone(msg)
	for range 1 + r.IntN(3) {
		switch r.IntN(6) {
		case 0, 1, 2:
			if i := r.IntN(len(b)); i != 17 && i != 19 {
				b[i] ^= 1 << r.IntN(8)
			}
		case 3:
			if i := r.IntN(len(b)); i != 17 && i != 19 {
				b[i] = []byte{0, 1, 0x7f, 0x80, 0xff}[r.IntN(5)]
			}
		case 4:
			b = b[:1+r.IntN(len(b))]
			if len(b) >= isakmp.HeaderLen && r.IntN(2) == 0 {
				binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
			}
		case 5:
			at := r.IntN(len(b))
			b = append(b[:at:at], append([]byte{byte(r.Uint32())}, b[at:]...)...)
			if len(b) >= isakmp.HeaderLen {
				binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
			}
		}
	}
	return b
}

// TestMutationsChangeNothing damages every kind of message that has to be authentic.
func TestMutationsChangeNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	try := func(w *world, p ipsec.Path, msg []byte, n int) {
		t.Helper()
		before := w.state()
		for range n {
			bad := mutate(r, msg)
			if len(bad) >= len(msg) && bytes.Equal(bad[:len(msg)], msg) { // octets behind the message are cut off
				continue
			}
			w.give(p, bad)
			if after := w.state(); after != before {
				t.Fatalf("%x, damaged from\n%x, changes\n%s\nto\n%s", bad, msg, before, after)
			}
		}
	}
	for seed := range uint64(40) {
		w := newWorld(t, nil)
		c := newInitiator(t, seed)
		c.main1, c.quickSA = isakmptest.Windows.Main1(), isakmptest.Windows.QuickSA(2)
		c.main1 = replaceSA(c.main1, isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP,
			Transforms: []isakmp.Transform{p1(1, isakmp.EncAES, 256, isakmp.HashSHA1, uint16(ECP256))}}))
		third := c.receive(w.give(c.from(), c.first())[0].msg)
		fifth := c.receive(w.give(c.from(), third)[0].msg)
		try(w, c.from(), fifth, maxBadAuth-1)
		w.run(c, fifth)
		if !c.up {
			t.Fatal("the undamaged message 5 is refused")
		}
		q := c.quick()
		try(w, c.from(), q, 60)
		out := w.give(c.from(), q)
		if len(out) == 0 {
			t.Fatalf("the undamaged quick mode is refused: %v", w.e.Snapshot(w.now).Drops)
		}
		third = c.receive(out[0].msg)
		try(w, c.from(), third, 60)
		w.run(c, third)
		if len(w.ups) != 1 {
			t.Fatal("the undamaged message 3 is refused")
		}
		contact := isakmp.Notification{DOI: 1, Protocol: 1, Type: isakmp.NotifyInitialContact}
		for _, msg := range [][]byte{
			c.notify(isakmp.NewDPD(isakmp.NotifyRUThere, c.ci, c.cr, 1)), c.notify(contact), c.deletePhase1(), c.deleteChild(c.children[0].in),
		} {
			try(w, c.from(), msg, 60)
		}
		w.run(c, c.deleteChild(c.children[0].in))
		if len(w.downs) != 1 {
			t.Fatal("the undamaged deletion is refused")
		}
	}
}

// TestTruncations cuts every message of a connection at every octet, with and without a matching length field.
func TestTruncations(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, false)
	cut := func(msg []byte) {
		for n := range len(msg) {
			b := bytes.Clone(msg[:n])
			w.give(c.from(), b)
			if n >= isakmp.HeaderLen {
				binary.BigEndian.PutUint32(b[24:], uint32(n))
				if msg[18] == byte(isakmp.Main) && c.gr != nil && w.e.sas[cookies{c.ci, c.cr}].badAuth >= maxBadAuth-1 {
					continue
				}
				w.give(c.from(), b)
			}
		}
	}
	first := c.first()
	for n := isakmp.HeaderLen; n < len(first); n++ {
		b := bytes.Clone(first[:n])
		binary.BigEndian.PutUint32(b[24:], uint32(n))
		w.give(c.from(), b)
	}
	if len(w.e.sas) != 0 {
		t.Fatal("a truncated first message has an effect")
	}
	third := c.receive(w.give(c.from(), first)[0].msg)
	cut(third)
	fifth := c.receive(w.give(c.from(), third)[0].msg)
	cut(fifth)
	w.run(c, fifth)
	q := c.quick()
	cut(q)
	third = c.receive(w.give(c.from(), q)[0].msg)
	cut(third)
	w.run(c, third)
	del := c.deleteChild(c.children[0].in)
	cut(del)
	if len(w.ups) != 1 || len(w.downs) != 0 || len(w.data.SAs()) != 2 {
		t.Errorf("ups %d, downs %d", len(w.ups), len(w.downs))
	}
}

// TestFloodOfFirstMessages: a hundred thousand first messages from forged addresses, and from one address, take bounded
// memory, and a client still gets in.
func TestFloodOfFirstMessages(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.HalfOpen = 200 })
	template := isakmptest.Windows.Main1()
	r := rand.New(rand.NewPCG(1, 1))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	in, out := 0, 0
	flood := func(n int, addr func(i int) netip.AddrPort) {
		for i := range n {
			binary.BigEndian.PutUint64(template, r.Uint64())
			for _, s := range w.give(ipsec.Path{Local: netip.AddrPortFrom(serverAddr, 500), Remote: addr(i)}, template) {
				out += len(s.msg)
			}
			in += len(template)
		}
	}
	flood(50000, func(int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), 1}), 500)
	})
	// All alike: beyond a quarter of what may be half open, nothing is kept of them.
	if s := w.e.Snapshot(w.now); s.HalfOpen != 200/statelessLoad || s.Stateless != 50000-200/statelessLoad {
		t.Errorf("%d half open, %d without state", s.HalfOpen, s.Stateless)
	}
	flood(20000, func(i int) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(i)|1) })
	if n := w.e.halfOpen[0].perAddr[netip.MustParsePrefix("192.0.2.1/32")]; n > maxPerAddress {
		t.Errorf("%d half open from one address", n)
	}
	if out > in {
		t.Errorf("%d octets answered to %d", out, in)
	}
	// Each one different: once there is no room, they are not answered the first time.
	whole, serial := template, 0
	different := func() {
		serial++
		template = append(bytes.Clone(whole), isakmp.AppendPayloads(nil, []isakmp.Payload{{Type: isakmp.PayloadVendor, Body: binary.BigEndian.AppendUint64(nil, uint64(serial))}})...)
		last := isakmp.HeaderLen
		for template[last] != 0 {
			last += int(binary.BigEndian.Uint16(template[last+2:]))
		}
		template[last] = byte(isakmp.PayloadVendor)
		isakmp.SetLength(template)
		flood(1, func(int) netip.AddrPort {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), 1}), 500)
		})
		template = whole
	}
	for range 20000 {
		different()
	}
	if len(w.e.sas) != 200 || len(w.e.firsts) != 200 || len(w.e.timers.queue) != 200 || len(w.e.halfOpen[0].perAddr) > 200 || len(w.e.templates.byHash) != maxTemplates || w.e.templates.order.Len() != maxTemplates {
		t.Errorf("kept: %d, %d, %d", len(w.e.sas), len(w.e.firsts), len(w.e.timers.queue))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("%d octets more in use", grown)
	}
	if n := w.e.drops[DropRepeat]; n < 19000 {
		t.Errorf("%d were not answered", n)
	}
	// A client of a kind that was not seen before asks, and has to ask again; then thousands of others do not push it out in
	// its first round trip, nor later.
	c := nmClient(t, 1, true)
	ask := c.first()
	if out := w.give(c.from(), ask); len(out) != 0 {
		t.Error("a stranger was let in at once")
	}
	w.now = w.now.Add(4 * time.Second)
	for range 5000 {
		different()
	}
	mm2 := w.give(c.from(), ask)
	if len(mm2) != 1 {
		t.Fatal("a stranger that asks again is not let in")
	}
	w.now = w.now.Add(time.Second)
	for range 15000 {
		different()
	}
	third := c.receive(mm2[0].msg)
	mm4 := w.give(c.from(), third)
	flood(1000, func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 500)
	})
	w.run(c, c.receive(mm4[0].msg))
	if !c.up {
		t.Fatal("the client was pushed out by the flood")
	}
	w.advance(time.Minute)
	if s := w.e.Snapshot(w.now); s.HalfOpen != 0 || len(s.Peers) != 1 {
		t.Errorf("%d half open, %d peers after a minute", s.HalfOpen, len(s.Peers))
	}
}

// TestUnauthenticatedInformational: deletions and notifications in the clear, with a wrong hash, or with none
// (CVE-2019-10155, CVE-2007-1841).
func TestUnauthenticatedInformational(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.connect(c)
	d := isakmp.Delete{DOI: 1, Protocol: isakmp.ProtoESP, SPIs: [][]byte{be32(uint32(c.children[0].in))}}
	p := isakmp.Payload{Type: isakmp.PayloadDelete, Body: d.Append(nil)}
	ike := isakmp.Delete{DOI: 1, Protocol: isakmp.ProtoISAKMP, SPIs: [][]byte{append(c.ci[:], c.cr[:]...)}}
	p1 := isakmp.Payload{Type: isakmp.PayloadDelete, Body: ike.Append(nil)}
	before := w.state()
	hash := isakmp.Payload{Type: isakmp.PayloadHash, Body: make([]byte, 32)}
	short := isakmp.Payload{Type: isakmp.PayloadHash}
	var msgs [][]byte
	for _, list := range [][]isakmp.Payload{{p}, {p1}, {hash, p}, {hash, p1}, {short, p}, {p, hash}} {
		for _, mid := range []uint32{0, 5} {
			m, _ := c.message(isakmp.Informational, mid, false, nil, list...)
			msgs = append(msgs, m)
			m, _ = c.message(isakmp.Informational, mid, true, c.midIV(mid), list...)
			msgs = append(msgs, m)
		}
	}
	for _, m := range msgs {
		if out := w.give(c.from(), m); len(out) != 0 {
			t.Errorf("answered: %x", m)
		}
		binary.BigEndian.PutUint64(m[8:], 0) // before there is an ISAKMP SA
		if out := w.give(c.from(), m); len(out) != 0 {
			t.Errorf("answered without cookie: %x", m)
		}
		binary.BigEndian.PutUint64(m[8:], 77) // an ISAKMP SA nobody knows
		if out := w.give(c.from(), m); len(out) != 0 {
			t.Errorf("answered with a foreign cookie: %x", m)
		}
	}
	if after := w.state(); after != before {
		t.Errorf("%s\nbecame\n%s", before, after)
	}
}

// TestDeleteThenNotify: what follows a deletion in the same message finds the SA gone (CVE-2023-38712), and dead peer
// detection without an SA finds nothing (CVE-2009-0790).
func TestDeleteThenNotify(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.connect(c)
	esp := isakmp.Delete{DOI: 1, Protocol: isakmp.ProtoESP, SPIs: [][]byte{be32(uint32(c.children[0].in)), be32(uint32(c.children[0].in)), be32(1)}}
	ike := isakmp.Delete{DOI: 1, Protocol: isakmp.ProtoISAKMP, SPIs: [][]byte{append(c.ci[:], c.cr[:]...), append(c.ci[:], c.cr[:]...)}}
	probe := isakmp.NewDPD(isakmp.NotifyRUThere, c.ci, c.cr, 1)
	w.give(c.from(), c.inform(
		isakmp.Payload{Type: isakmp.PayloadDelete, Body: esp.Append(nil)}, isakmp.Payload{Type: isakmp.PayloadDelete, Body: ike.Append(nil)},
		isakmp.Payload{Type: isakmp.PayloadNotify, Body: probe.Append(nil)}, isakmp.Payload{Type: isakmp.PayloadDelete, Body: esp.Append(nil)},
		isakmp.Payload{Type: isakmp.PayloadNotify, Body: isakmp.Notification{Type: isakmp.NotifyInitialContact}.Append(nil)},
	))
	if len(w.downs) != 1 || w.e.Snapshot(w.now).Clients != 0 || !w.e.Deadline().IsZero() {
		t.Errorf("downs %v", w.downs)
	}
	if out := w.give(c.from(), c.notify(probe)); len(out) != 0 {
		t.Error("a probe of a deleted ISAKMP SA is answered")
	}
}

// TestDeletionByTheWrongClient: a client can delete its own SAs only.
func TestDeletionByTheWrongClient(t *testing.T) {
	w := newWorld(t, nil)
	a := nmClient(t, 1, true)
	b := nmClient(t, 2, true).behindNAT("203.0.113.9", 62000, "192.168.1.35")
	w.connect(a)
	w.connect(b)
	w.run(b, b.deleteChild(a.children[0].in))
	w.run(b, b.deleteChild(a.children[0].out))
	d := isakmp.Delete{DOI: 1, Protocol: isakmp.ProtoISAKMP, SPIs: [][]byte{append(a.ci[:], a.cr[:]...)}}
	w.run(b, b.inform(isakmp.Payload{Type: isakmp.PayloadDelete, Body: d.Append(nil)}))
	if len(w.downs) != 0 || len(w.data.SAs()) != 4 || len(w.e.sas) != 2 {
		t.Errorf("downs %v, SAs %v", w.downs, ids(w.data.SAs()))
	}
	w.run(b, b.deleteChild(b.children[0].out)) // by the receiver's SPI, as some do
	if len(w.downs) != 1 {
		t.Error("a deletion by the receiver's SPI is ignored")
	}
}

// TestStrangeMessages: other versions, exchanges, lengths, and payloads at the wrong time.
func TestStrangeMessages(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, false)
	first := c.first()
	edit := func(f func(b []byte)) []byte { b := bytes.Clone(first); f(b); return b }
	for name, m := range map[string][]byte{
		"empty": {}, "one octet": {0xff}, "header alone": edit(func(b []byte) {})[:28],
		"IKEv2":               edit(func(b []byte) { b[17] = 0x20; b[18] = 34 }),
		"version 0":           edit(func(b []byte) { b[17] = 0 }),
		"zero cookie":         edit(func(b []byte) { clear(b[:8]) }),
		"base exchange":       edit(func(b []byte) { b[18] = 1 }),
		"transaction":         edit(func(b []byte) { b[18] = 6 }),
		"quick mode":          edit(func(b []byte) { b[18] = 32 }),
		"new group":           edit(func(b []byte) { b[18] = 33 }),
		"aggressive":          edit(func(b []byte) { b[18] = 4 }),
		"encrypted":           edit(func(b []byte) { b[19] = 1 }),
		"length zero":         edit(func(b []byte) { clear(b[24:28]) }),
		"length of 4 GB":      edit(func(b []byte) { copy(b[24:28], "\xff\xff\xff\xff") }),
		"length one short":    edit(func(b []byte) { b[27]-- }),
		"fragment":            edit(func(b []byte) { b[16] = 132 }),
		"IKEv2 payload":       edit(func(b []byte) { b[16] = 33 }),
		"payload 15":          edit(func(b []byte) { b[16] = 15 }),
		"DOI":                 edit(func(b []byte) { b[32] = 0xff }),
		"situation":           edit(func(b []byte) { b[39] = 4 }),
		"too long":            append(edit(func(b []byte) { binary.BigEndian.PutUint32(b[24:], 30000) }), make([]byte, 30000-len(first))...),
		"two SA payloads":     mustFirst(c, isakmp.Payload{Type: isakmp.PayloadSA, Body: c.saBody}, isakmp.Payload{Type: isakmp.PayloadSA, Body: c.saBody}),
		"vendor id in front":  mustFirst(c, isakmp.VendorDPD.Payload(), isakmp.Payload{Type: isakmp.PayloadSA, Body: c.saBody}),
		"nothing but vendors": mustFirst(c, isakmp.VendorDPD.Payload()),
	} {
		for _, s := range w.give(c.from(), m) {
			if h, err := isakmp.ParseHeader(s.msg); err != nil || h.Exchange != isakmp.Informational || len(s.msg) > len(m) {
				t.Errorf("%s: answered by %x", name, s.msg)
			}
		}
		if len(w.e.sas) != 0 {
			t.Fatalf("%s: state is kept", name)
		}
	}
	// The same cookie again with another content is no retransmission.
	w.give(c.from(), first)
	other := edit(func(b []byte) { b[len(b)-1] ^= 1 })
	if out := w.give(c.from(), other); len(out) != 0 || len(w.e.sas) != 1 {
		t.Error("a changed first message is answered")
	}
}

func mustFirst(c *initiator, list ...isakmp.Payload) []byte {
	m, _ := c.message(isakmp.Main, 0, false, nil, list...)
	return m
}

// TestQuickBeforeAuthentication: phase 2 and informational messages on a half-open ISAKMP SA.
func TestQuickBeforeAuthentication(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, false)
	third := c.receive(w.give(c.from(), c.first())[0].msg)
	for range 2 {
		for _, x := range []isakmp.Exchange{isakmp.Quick, isakmp.Informational, isakmp.Transaction, isakmp.Aggressive} {
			m, _ := c.message(x, 7, false, nil, isakmp.Payload{Type: isakmp.PayloadHash, Body: make([]byte, 20)})
			m[19] = 1
			if out := w.give(c.from(), m); len(out) != 0 {
				t.Errorf("%v is answered", x)
			}
		}
		if third != nil {
			w.give(c.from(), third)
			third = nil
		}
	}
}

// TestTooMany: a client cannot pile up quick modes, children or ISAKMP SAs.
func TestTooMany(t *testing.T) {
	w := newWorld(t, nil)
	c := nmClient(t, 1, true)
	w.run(c, c.first())
	answers := 0
	for range 30 {
		answers += len(w.give(c.from(), c.quick()))
	}
	if answers > maxOpenQuick || len(w.data.SAs()) > maxOpenQuick {
		t.Errorf("%d quick modes at once", answers)
	}
	w.advance(time.Minute)
	for range 40 {
		w.run(c, c.quick())
		w.advance(takeover)
	}
	if n := len(w.data.SAs()); n > 2*maxChildren {
		t.Errorf("%d SAs of one client", n)
	}
	for i := range 10 {
		d := nmClient(t, uint64(50+i), true)
		w.run(d, d.first())
		if !d.up {
			t.Fatal("not up")
		}
	}
	if n := len(w.e.sas); n > maxPhase1 {
		t.Errorf("%d ISAKMP SAs of one client", n)
	}
	if len(w.downs) != 0 {
		t.Errorf("downs %v", w.downs)
	}
}

func TestMarks(t *testing.T) {
	w := newWorld(t, func(cfg *Config) { cfg.MarkMask = 0x0f00 })
	e := w.e
	seen := map[ipsec.Mark]bool{}
	for range 15 {
		m, ok := e.newMark()
		if !ok || m == 0 || uint32(m)&^0x0f00 != 0 || seen[m] {
			t.Fatalf("mark %v, %v", m, ok)
		}
		seen[m] = true
		e.clients[m] = &client{}
	}
	if m, ok := e.newMark(); ok {
		t.Fatalf("a sixteenth mark: %v", m)
	}
	delete(e.clients, 0x500)
	if m, ok := e.newMark(); !ok || m != 0x500 {
		t.Errorf("%v, %v", m, ok)
	}
	if spread(0b1011, 0x80000411) != 0x80000011 {
		t.Errorf("%#x", spread(0b1011, 0x80000411))
	}
}

func FuzzReceive(f *testing.F) {
	for _, c := range isakmptest.Clients() {
		f.Add(c.Main1(), uint16(500))
	}
	t := &testing.T{}
	w := newWorld(t, nil)
	c := nmClient(t, 1, false)
	third := c.receive(w.give(c.from(), c.first())[0].msg)
	fifth := c.receive(w.give(c.from(), third)[0].msg)
	f.Add(third, uint16(500))
	f.Add(fifth, uint16(4500))
	f.Fuzz(func(t *testing.T, msg []byte, port uint16) {
		w := newWorld(t, nil)
		w.e.cfg.Peers[0].Profile.Groups = []Group{ECP256}
		c := nmClient(t, 1, false)
		third := c.receive(w.give(c.from(), c.first())[0].msg)
		p := ipsec.Path{Local: netip.AddrPortFrom(serverAddr, port), Remote: c.remote}
		w.give(p, msg)
		if len(msg) >= 16 { // and once with cookies that are known
			msg = bytes.Clone(msg)
			copy(msg, third[:16])
			w.give(p, msg)
		}
		w.advance(time.Minute)
		if len(w.ups) != 0 || len(w.data.SAs()) != 0 {
			t.Fatal("something came up")
		}
	})
}

// FuzzInside encrypts and authenticates what the fuzzer makes up, as an authenticated client could.
func FuzzInside(f *testing.F) {
	sa := isakmptest.Windows.QuickSA(2)
	list := []isakmp.Payload{{Type: isakmp.PayloadSA, Body: sa}, {Type: isakmp.PayloadNonce, Body: make([]byte, 16)},
		{Type: isakmp.PayloadID, Body: isakmp.IDFromAddr(serverAddr, 17, 1701).Append(nil)}, {Type: isakmp.PayloadID, Body: isakmp.IDFromAddr(serverAddr, 17, 1701).Append(nil)}}
	f.Add(uint8(32), uint8(1), isakmp.AppendPayloads(nil, list))
	d := isakmp.Delete{DOI: 1, Protocol: isakmp.ProtoESP, SPIs: [][]byte{be32(4096)}}
	f.Add(uint8(5), uint8(12), isakmp.AppendPayloads(nil, []isakmp.Payload{{Type: isakmp.PayloadDelete, Body: d.Append(nil)}}))
	n := isakmp.NewDPD(isakmp.NotifyRUThere, isakmp.Cookie{1}, isakmp.Cookie{2}, 3)
	f.Add(uint8(5), uint8(11), isakmp.AppendPayloads(nil, []isakmp.Payload{{Type: isakmp.PayloadNotify, Body: n.Append(nil)}}))
	f.Fuzz(func(t *testing.T, exchange, next uint8, inner []byte) {
		w := newWorld(t, nil)
		c := nmClient(t, 1, false)
		c.main1 = replaceSA(c.main1, isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP,
			Transforms: []isakmp.Transform{p1(1, isakmp.EncAES, 256, isakmp.HashSHA1, uint16(ECP256))}}))
		w.connect(c)
		mid := uint32(99)
		hash := c.prf(c.a, be32(mid), inner)
		body := append(append([]byte{next, 0, 0, byte(4 + len(hash))}, hash...), inner...)
		msg := c.encrypt(isakmp.Exchange(exchange), mid, c.midIV(mid), isakmp.PayloadHash, body)
		w.give(c.from(), msg)
		w.advance(2 * time.Minute)
		for _, sa := range w.data.SAs() {
			if err := sa.Validate(); err != nil {
				t.Fatal(err)
			}
			if sa.Suite.Integrity == ipsec.IntegrityNone && !sa.Suite.AEAD() {
				t.Fatalf("%v protects nothing", sa.Suite)
			}
		}
	})
}
