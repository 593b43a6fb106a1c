package user

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"culvert/l2tp"
)

var (
	peer = l2tp.Peer{Local: netip.MustParseAddrPort("192.0.2.1:1701"), Remote: netip.MustParseAddrPort("198.51.100.2:40701"), Via: 5}
	spec = l2tp.SessionSpec{
		Tunnel: l2tp.TunnelSpec{Peer: peer, Local: 0x0a01, Remote: 0x0b02},
		Local:  0x0c03, Remote: 0x0d04,
	}
)

type fixture struct {
	t *testing.T
	*Plane
	session *Session
	sent    [][]byte
	to      l2tp.Peer
	frames  []string
	more    []bool
	flushes int
}

func open(t *testing.T, s l2tp.SessionSpec) *fixture {
	t.Helper()
	f := &fixture{t: t}
	f.Plane = New(Options{Send: func(p l2tp.Peer, buf []byte, at int) error {
		f.to = p
		f.sent = append(f.sent, bytes.Clone(buf[at:]))
		return nil
	}})
	if err := errors.Join(f.OpenTunnel(s.Tunnel), f.OpenSession(s)); err != nil {
		t.Fatal(err)
	}
	f.session, _ = f.Session(s.Tunnel.Local, s.Local)
	return f
}

func (f *fixture) serve() {
	f.session.Receive(func(b []byte, more bool) {
		f.frames, f.more = append(f.frames, string(b)), append(f.more, more)
	}, func() { f.flushes++ })
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDeliver(t *testing.T) {
	const frame = "\xff\x03\xc0\x21\x09\x01\x00\x04"
	stranger, cleartext, otherPort := peer, peer, peer
	stranger.Remote = netip.MustParseAddrPort("198.51.100.3:40701")
	otherPort.Remote = netip.MustParseAddrPort("198.51.100.2:40702")
	cleartext.Via = 0
	for _, c := range []struct {
		name, datagram string
		peer           l2tp.Peer
		taken          bool
		frame          string
		drops          Drops
		errors         uint64
	}{
		{"bare", "0002 0a01 0c03 ff03c02109010004", peer, true, frame, Drops{}, 0},
		{"length", "4002 0010 0a01 0c03 ff03c02109010004", peer, true, frame, Drops{}, 0},
		{"padded", "4002 0010 0a01 0c03 ff03c02109010004 0000", peer, true, frame, Drops{}, 0},
		{"sequence", "0802 0a01 0c03 1234 ffff ff03c02109010004", peer, true, frame, Drops{}, 0},
		{"offset", "0202 0a01 0c03 0003 aaaaaa ff03c02109010004", peer, true, frame, Drops{}, 0},
		{"priority", "0102 0a01 0c03 ff03c02109010004", peer, true, frame, Drops{}, 0},
		{"all", "4b02 0017 0a01 0c03 0000 0000 0001 aa ff03c02109010004", peer, true, frame, Drops{}, 0},
		{"control", "c802 000c 0a01 0000 0000 0000", peer, false, "", Drops{}, 0},
		{"other tunnel", "0002 0a02 0c03 ff03c021", peer, true, "", Drops{Unknown: 1}, 0},
		{"other session", "0002 0a01 0c04 ff03c021", peer, true, "", Drops{Unknown: 1}, 0},
		{"session zero", "0002 0a01 0000 ff03c021", peer, true, "", Drops{Unknown: 1}, 0},
		{"other address", "0002 0a01 0c03 ff03c021", stranger, true, "", Drops{Foreign: 1}, 0},
		{"other port", "0002 0a01 0c03 ff03c021", otherPort, true, "", Drops{Foreign: 1}, 0},
		{"cleartext", "0002 0a01 0c03 ff03c021", cleartext, true, "", Drops{Foreign: 1}, 0},
		{"version 3", "0003 0a01 0c03 ff03c021", peer, true, "", Drops{Malformed: 1}, 0},
		{"length too long", "4002 0011 0a01 0c03 ff03c02109010004", peer, true, "", Drops{Malformed: 1}, 0},
		{"offset too long", "0202 0a01 0c03 0009 aaaaaa ff03", peer, true, "", Drops{Malformed: 1}, 0},
		{"no frame", "0002 0a01 0c03", peer, true, "", Drops{}, 1},
		{"nothing", "", peer, true, "", Drops{Malformed: 1}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := open(t, spec)
			f.serve()
			if taken := f.Deliver(c.peer, unhex(t, c.datagram)); taken != c.taken {
				t.Errorf("taken %v", taken)
			}
			if strings.Join(f.frames, "|") != c.frame {
				t.Errorf("frames %x", f.frames)
			}
			if d := f.Drops(); d != c.drops {
				t.Errorf("drops %+v", d)
			}
			want := Stats{RxErrors: c.errors}
			if c.frame != "" {
				want.RxPackets, want.RxBytes = 1, uint64(len(c.frame))
			}
			if s, err := f.SessionStats(0x0a01, 0x0c03); err != nil || s != want {
				t.Errorf("stats %+v %v", s, err)
			}
			if n, ok := f.Received(spec.Tunnel); !ok || n != want.RxPackets {
				t.Errorf("received %d %v", n, ok)
			}
		})
	}
}

// TestTruncated: no shorter datagram delivers anything but a shorter frame.
func TestTruncated(t *testing.T) {
	for _, whole := range []string{"4b02 0017 0a01 0c03 0000 0000 0001 aa ff03c02109010004", "0802 0a01 0c03 0000 0000 ff03c021"} {
		b := unhex(t, whole)
		for n := range b {
			f := open(t, spec)
			f.serve()
			f.Deliver(peer, b[:n:n])
			if len(f.frames) > 0 && !bytes.HasSuffix(b[:n], []byte(f.frames[0])) {
				t.Errorf("%x: %x", b[:n], f.frames)
			}
			if b[0]&0x40 != 0 && len(f.frames) > 0 {
				t.Errorf("%x contradicts its length", b[:n])
			}
		}
	}
}

func TestSend(t *testing.T) {
	f := open(t, spec)
	buf := append(make([]byte, 20), 0xc0, 0x21, 9, 1)
	for _, c := range []struct {
		seq  bool
		want string
	}{{false, "0002 0b02 0d04 ff03 c0210901"}, {true, "0802 0b02 0d04 0000 0000 ff03 c0210901"}, {true, "0802 0b02 0d04 0001 0000 ff03 c0210901"},
		{false, "0002 0b02 0d04 ff03 c0210901"}, {true, "0802 0b02 0d04 0002 0000 ff03 c0210901"}} {
		s := spec
		s.SendSeq = c.seq
		if err := f.SetSequence(s); err != nil {
			t.Fatal(err)
		}
		f.sent = nil
		if err := f.session.Send(buf, 20); err != nil {
			t.Fatal(err)
		}
		if len(f.sent) != 1 || !bytes.Equal(f.sent[0], unhex(t, c.want)) || f.to != peer {
			t.Errorf("sent %x to %v, want %s", f.sent, f.to, c.want)
		}
	}
	if err := f.session.Send(buf, Headroom-1); err != ErrHeadroom {
		t.Error(err)
	}
	if err := f.session.Send(buf[:12], 13); err != ErrHeadroom {
		t.Error(err)
	}
	// A batch goes one by one where nobody takes it whole.
	f.sent = nil
	one, two := bytes.Clone(buf), bytes.Clone(buf)
	two[23] = 2
	if err := f.session.SendBatch([][]byte{one, two}, 20); err != nil {
		t.Fatal(err)
	}
	if len(f.sent) != 2 || !bytes.Equal(f.sent[1], unhex(t, "0802 0b02 0d04 0004 0000 ff03 c0210902")) {
		t.Errorf("sent %x", f.sent)
	}
	if s, _ := f.SessionStats(0x0a01, 0x0c03); s != (Stats{TxPackets: 7, TxBytes: 28}) {
		t.Errorf("%+v", s)
	}
	// The number of messages wraps at 16 bits.
	f.session.ns.Store(0xffff)
	f.sent = nil
	f.session.Send(buf, 20)
	f.session.Send(buf, 20)
	if !bytes.Equal(f.sent[0][6:10], []byte{255, 255, 0, 0}) || !bytes.Equal(f.sent[1][6:10], []byte{0, 0, 0, 0}) {
		t.Errorf("sent %x", f.sent)
	}
}

func TestSendErrors(t *testing.T) {
	full := errors.New("full")
	p := New(Options{Send: func(l2tp.Peer, []byte, int) error { return full },
		SendBatch: func(_ l2tp.Peer, bufs [][]byte, at int) (int, error) { return 1, full }})
	if err := errors.Join(p.OpenTunnel(spec.Tunnel), p.OpenSession(spec)); err != nil {
		t.Fatal(err)
	}
	s, _ := p.Session(0x0a01, 0x0c03)
	buf := make([]byte, 24)
	if err := s.Send(buf, 20); err != full {
		t.Error(err)
	}
	if err := s.SendBatch([][]byte{buf, make([]byte, 24), make([]byte, 24)}, 20); err != full {
		t.Error(err)
	}
	if st := s.Stats(); st.TxPackets != 4 || st.TxErrors != 3 {
		t.Errorf("%+v", st)
	}
}

func TestTables(t *testing.T) {
	f := open(t, spec)
	other := spec
	other.Local = 0x0c99
	for what, c := range map[string]struct{ got, want error }{
		"tunnel twice":             {f.OpenTunnel(spec.Tunnel), ErrExists},
		"session twice":            {f.OpenSession(spec), ErrExists},
		"tunnel zero":              {f.OpenTunnel(l2tp.TunnelSpec{Peer: peer}), ErrNoTunnel},
		"session zero":             {f.OpenSession(l2tp.SessionSpec{Tunnel: spec.Tunnel}), ErrNoSession},
		"session of no tunnel":     {f.OpenSession(l2tp.SessionSpec{Local: 1, Remote: 1}), ErrNoTunnel},
		"sequence of no session":   {f.SetSequence(other), ErrNoSession},
		"move of no tunnel":        {f.MoveTunnel(l2tp.TunnelSpec{Local: 9}), ErrNoTunnel},
		"second session of tunnel": {f.OpenSession(other), nil},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v", what, c.got)
		}
	}
	f.serve()
	data := unhex(t, "0002 0a01 0c03 ff03c021")
	moved := spec.Tunnel
	moved.Peer.Remote = netip.MustParseAddrPort("198.51.100.2:50000")
	if err := f.MoveTunnel(moved); err != nil {
		t.Fatal(err)
	}
	f.Deliver(peer, data)
	f.Deliver(moved.Peer, data)
	if len(f.frames) != 1 || f.Drops().Foreign != 1 {
		t.Errorf("frames %x, drops %+v", f.frames, f.Drops())
	}
	f.session.Send(make([]byte, 20), 16)
	if f.to != moved.Peer {
		t.Errorf("sent to %v", f.to)
	}

	// The tunnel's counters keep what ended sessions have counted.
	f.CloseSession(spec)
	f.CloseSession(spec)
	if s, err := f.TunnelStats(0x0a01); err != nil || s.RxPackets != 1 || s.TxPackets != 1 {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := f.SessionStats(0x0a01, 0x0c03); err != ErrNoSession {
		t.Error(err)
	}
	if err := f.session.Send(make([]byte, 20), 16); err != ErrClosed {
		t.Error(err)
	}
	<-f.session.Done()
	second, _ := f.Session(0x0a01, 0x0c99)
	f.Close()
	<-second.Done()
	f.CloseTunnel(spec.Tunnel)
	f.Deliver(moved.Peer, data)
	if f.Drops().Unknown != 1 {
		t.Errorf("%+v", f.Drops())
	}
	if _, ok := f.Received(spec.Tunnel); ok {
		t.Error("a closed tunnel counts")
	}
	if err := f.OpenTunnel(spec.Tunnel); err != nil {
		t.Errorf("the id is not free again: %v", err)
	}
}

// TestEarly: frames that come before the link is served are not lost, up to a bound, and stay in order.
func TestEarly(t *testing.T) {
	f := open(t, spec)
	data := unhex(t, "0002 0a01 0c03 c02100")
	for i := range maxEarly + 3 {
		data[8] = byte(i)
		f.Deliver(peer, data)
	}
	f.Deliver(peer, append(data, make([]byte, maxEarlyOctet)...))
	f.serve()
	data[8] = 0xee
	f.Deliver(peer, data)
	if len(f.frames) != maxEarly+1 || f.frames[maxEarly-1][2] != maxEarly-1 || f.frames[maxEarly][2] != 0xee {
		t.Errorf("%x", f.frames)
	}
	if s := f.session.Stats(); s.RxErrors != 4 {
		t.Errorf("%+v", s)
	}
}

func TestReceiver(t *testing.T) {
	f := open(t, spec)
	f.serve()
	r := f.Receiver()
	data := unhex(t, "0002 0a01 0c03 c02100")
	for range 3 {
		if !r.Deliver(peer, data) {
			t.Error("not taken")
		}
	}
	if r.Deliver(peer, unhex(t, "c802 000c 0a01 0000 0000 0000")) {
		t.Error("control message taken")
	}
	r.Deliver(peer, nil)
	if len(f.frames) != 3 || !f.more[2] || f.flushes != 0 {
		t.Errorf("%d frames, %d flushes", len(f.frames), f.flushes)
	}
	r.Flush()
	r.Flush()
	if f.flushes != 1 {
		t.Errorf("%d flushes", f.flushes)
	}
	// Many sessions in one batch: each is flushed.
	flushed := 0
	for i := range maxDirty + 10 {
		s := spec
		s.Local = l2tp.SessionID(0x1000 + i)
		if err := f.OpenSession(s); err != nil {
			t.Fatal(err)
		}
		c, _ := f.Session(s.Tunnel.Local, s.Local)
		c.Receive(func([]byte, bool) {}, func() { flushed++ })
		r.Deliver(peer, []byte{0, 2, 0x0a, 1, byte(s.Local >> 8), byte(s.Local), 0xc0, 0x21})
	}
	r.Flush()
	if flushed != maxDirty+10 {
		t.Errorf("%d flushed", flushed)
	}
}

func TestAllocations(t *testing.T) {
	for _, seq := range []bool{false, true} {
		s := spec
		s.SendSeq, s.RequireSeq = seq, seq
		p := New(Options{Send: func(l2tp.Peer, []byte, int) error { return nil },
			SendBatch: func(_ l2tp.Peer, b [][]byte, _ int) (int, error) { return len(b), nil }})
		if err := errors.Join(p.OpenTunnel(s.Tunnel), p.OpenSession(s)); err != nil {
			t.Fatal(err)
		}
		c, _ := p.Session(s.Tunnel.Local, s.Local)
		n := 0
		c.Receive(func(b []byte, _ bool) { n += len(b) }, func() {})
		r := p.Receiver()
		buf := make([]byte, 1500)
		batch := [][]byte{make([]byte, 1500), make([]byte, 1500)}
		in := unhex(t, "0802 0a01 0c03 0000 0000 ff03 0021 4500")
		strange := unhex(t, "0002 0a01 0c04 ff03")
		if allocs := testing.AllocsPerRun(1000, func() {
			c.Send(buf, 100)
			c.SendBatch(batch, 100)
			p.Deliver(peer, in)
			in[7]++
			r.Deliver(peer, in)
			in[7]++
			p.Deliver(peer, strange)
			r.Flush()
		}); allocs != 0 {
			t.Errorf("sequence %v: %v allocations", seq, allocs)
		}
		if n == 0 {
			t.Error("nothing delivered")
		}
	}
}

func FuzzDeliver(f *testing.F) {
	for _, s := range []string{"4b02 0017 0a01 0c03 0000 0000 0001 aa ff03c02109010004", "0002 0a01 0c03 ff03c021", "0802 0a01 0c03 0001 0000 21", "c802000c"} {
		f.Add(unhex(f, s))
	}
	p := New(Options{})
	if err := errors.Join(p.OpenTunnel(spec.Tunnel), p.OpenSession(spec)); err != nil {
		f.Fatal(err)
	}
	c, _ := p.Session(spec.Tunnel.Local, spec.Local)
	var got []byte
	c.Receive(func(b []byte, _ bool) { got = b }, func() {})
	f.Fuzz(func(t *testing.T, b []byte) {
		got = nil
		taken := p.Deliver(peer, b)
		if taken == (len(b) > 0 && b[0]&0x80 != 0) {
			t.Fatalf("taken %v", taken)
		}
		if got != nil && !bytes.Contains(b, got) {
			t.Fatal("a frame that is not in the datagram")
		}
	})
}

func BenchmarkDeliver(b *testing.B) {
	p := New(Options{})
	if err := errors.Join(p.OpenTunnel(spec.Tunnel), p.OpenSession(spec)); err != nil {
		b.Fatal(err)
	}
	c, _ := p.Session(spec.Tunnel.Local, spec.Local)
	c.Receive(func([]byte, bool) {}, func() {})
	in := append(unhex(b, "0002 0a01 0c03 ff03 0021"), make([]byte, 1400)...)
	for b.Loop() {
		p.Deliver(peer, in)
	}
}
