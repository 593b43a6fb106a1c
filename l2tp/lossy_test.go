package l2tp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLossyPipe makes calls over a pipe that loses, repeats and reorders, in virtual time. Whatever happens, windows are
// kept, nothing is acknowledged for its own sake, each session comes down as often as up, and in the end nothing is left.
func TestLossyPipe(t *testing.T) {
	up, seeds := 0, int64(300)
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		server, client := DefaultConfig(), DefaultConfig()
		server.Secret, server.HideAVPs = "s", seed%2 == 0
		server.ReceiveWindow = int(seed%4) + 1
		client.ReceiveWindow = int(seed/4%3) + 1
		s, c, p := pair(t, seed, server, client)
		p.loss, p.dup, p.jitter = 0.15, 0.1, 300*time.Millisecond
		check := newWindowCheck(t, s, c)
		p.seen = check.seen
		for range 3 {
			c.call(t, p.now, s, Dial{Secret: "s", Sequence: seed%5 == 0})
			p.run(time.Duration(p.rng.Int63n(int64(2 * time.Second))))
		}
		p.run(90 * time.Second)
		if len(s.up) == 3 && len(c.up) == 3 {
			up++
		}
		for id, i := range s.up {
			if _, gone := s.down[id]; !gone && p.rng.Intn(2) == 0 {
				s.CloseSession(p.now, i.Tunnel.Local, id, Cause{Reason: ReasonLink})
			}
		}
		p.run(5 * time.Second)
		if seed%3 == 0 {
			s.Close(p.now)
		} else {
			c.Close(p.now)
		}
		p.run(5 * time.Minute)
		s.Close(p.now)
		c.Close(p.now)
		p.run(10 * time.Second)
		for _, n := range []*end{s, c} {
			if len(n.up) != len(n.down) || !n.Drained() || len(n.plane.sessions)+len(n.plane.tunnels) != 0 ||
				!n.Deadline().IsZero() || len(n.hosts)+len(n.byPeer)+len(n.sessions) != 0 || len(n.tunnelsUp) > len(n.tunnelEnd) {
				t.Errorf("seed %d: left over: %d up, %d down, %+v", seed, len(n.up), len(n.down), n.Snapshot(p.now))
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if up < int(seeds)*97/100 {
		t.Errorf("of %d only %d had all their sessions", seeds, up)
	}
}

// windowCheck looks at the wire from outside.
type windowCheck struct {
	t     *testing.T
	host  map[*end]int // receive window that an end announces
	other map[*end]*end
}

func newWindowCheck(t *testing.T, a, b *end) *windowCheck {
	return &windowCheck{t: t, host: map[*end]int{a: a.cfg.ReceiveWindow, b: b.cfg.ReceiveWindow}, other: map[*end]*end{a: b, b: a}}
}

func (w *windowCheck) seen(from *end, msg []byte) {
	h, body, err := ParseHeader(msg)
	if err != nil {
		w.t.Errorf("sent %x: %v", msg, err)
		return
	}
	if int(binary.BigEndian.Uint16(msg[2:])) != len(msg) {
		w.t.Errorf("length field %x of %d octets", msg[2:4], len(msg))
	}
	if len(body) == 0 || h.Tunnel == 0 {
		return
	}
	// The receiver's own tunnel says what it has; the sender must not be more than the announced window ahead of that.
	to := w.other[from]
	if t := to.tunnels[h.Tunnel]; t != nil {
		if ahead := h.Ns - t.d.nr; ahead < 0x8000 && int(ahead) >= w.host[to] {
			w.t.Errorf("message %d while %d is expected, window %d", h.Ns, t.d.nr, w.host[to])
		}
	}
}

// No acknowledgement earns an acknowledgement, however the two look at each other.
func TestSilence(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Hello = 0
	s, c, p := pair(t, 7, cfg, cfg)
	c.call(t, p.now, s, Dial{})
	p.run(time.Second)
	sent := 0
	p.seen = func(*end, []byte) { sent++ }
	p.run(time.Hour)
	if sent != 0 || len(s.down) != 0 {
		t.Errorf("%d datagrams in an hour of silence", sent)
	}
}

// A call needs no more than its messages and few acknowledgements.
func TestEconomy(t *testing.T) {
	s, c, p := pair(t, 7, DefaultConfig(), DefaultConfig())
	var log []string
	p.seen = func(from *end, msg []byte) {
		var m Message
		if err := m.Parse(msg, ""); err != nil {
			t.Fatal(err)
		}
		log = append(log, m.Type.String())
	}
	c.call(t, p.now, s, Dial{})
	p.run(time.Second)
	if got := strings.Join(log, " "); got != "SCCRQ SCCRP SCCCN ICRQ ICRP ICCN ZLB" && got != "SCCRQ SCCRP SCCCN ZLB ICRQ ICRP ICCN ZLB" {
		t.Errorf("sent %s", got)
	}
}

// A congestion window grows by slow start and collapses on loss (RFC 2661 appendix A).
func TestCongestion(t *testing.T) {
	d := newDelivery(16)
	r := retransmission{time.Second, 8 * time.Second, 6}
	d.setPeerWindow(8)
	drain := func() (n int) {
		for d.next(start, r) != nil {
			n++
		}
		return n
	}
	for range 300 {
		d.push(make([]byte, controlHeaderLen), HELLO)
	}
	var sizes []int
	for range 5 {
		sizes = append(sizes, drain())
		d.acknowledge(start, d.high, r)
	}
	if got := fmt.Sprint(sizes); got != "[1 2 3 4 5]" {
		t.Errorf("bursts %s", got)
	}
	for range 20 {
		drain()
		d.acknowledge(start, d.high, r)
	}
	if n := drain(); n != 8 {
		t.Errorf("window %d, the peer's is 8", n)
	}
	if !d.expire(start, r) || d.cwnd != 1 || d.ssthresh != 4 {
		t.Errorf("after loss cwnd %d, threshold %d", d.cwnd, d.ssthresh)
	}
	first := d.una
	if msg := d.next(start, r); binary.BigEndian.Uint16(msg[8:]) != first || d.next(start, r) != nil {
		t.Error("after loss the oldest goes first, alone")
	}
	d.acknowledge(start, d.high+1, r)
	if d.una != first {
		t.Error("acknowledged what was never sent")
	}
	d.acknowledge(start, first+3, r) // a peer with a reorder queue had the rest
	if d.una != first+3 {
		t.Error("cumulative acknowledgement")
	}
}

func TestSequenceWraps(t *testing.T) {
	s, c, p := pair(t, 5, Config{Hello: time.Hour}, Config{Hello: time.Hour})
	c.call(t, p.now, s, Dial{})
	p.run(time.Second)
	for _, n := range []*end{s, c} { // both at 65530
		for _, tun := range n.tunnels {
			tun.d.una, tun.d.high, tun.d.nr = 65530, 65530, 65530
		}
	}
	var tun *tunnel
	for _, tun = range s.tunnels {
	}
	p.loss, p.jitter = 0.1, 200*time.Millisecond
	for range 12 {
		s.out.Reset(HELLO)
		s.Engine.send(tun, &s.out)
	}
	s.finish(p.now, tun)
	p.run(2 * time.Minute)
	if tun.d.una != 6 || len(tun.d.queue) != 0 || len(s.down) != 0 {
		t.Errorf("una %d, %d queued", tun.d.una, len(tun.d.queue))
	}
}

// TestTShark lets Wireshark's dissector read everything that a call, clear and hidden, puts on the wire.
func TestTShark(t *testing.T) {
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("needs tshark")
	}
	var pcap bytes.Buffer
	le := binary.LittleEndian
	pcap.Write(le.AppendUint32(nil, 0xa1b2c3d4))
	pcap.Write(le.AppendUint32(nil, 0x00040002))
	pcap.Write(make([]byte, 8))
	pcap.Write(le.AppendUint32(nil, 65535))
	pcap.Write(le.AppendUint32(nil, 101)) // raw IP
	frames := 0
	record := func(from *end, msg []byte) {
		frames++
		ip := make([]byte, 28, 28+len(msg))
		ip[0], ip[8], ip[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(ip[2:], uint16(28+len(msg)))
		copy(ip[12:], from.addr.Addr().AsSlice())
		copy(ip[16:], []byte{203, 0, 113, 1})
		binary.BigEndian.PutUint16(ip[20:], 1701)
		binary.BigEndian.PutUint16(ip[22:], 1701)
		binary.BigEndian.PutUint16(ip[24:], uint16(8+len(msg)))
		ip = append(ip, msg...)
		pcap.Write(le.AppendUint32(nil, uint32(frames)))
		pcap.Write(make([]byte, 4))
		pcap.Write(le.AppendUint32(nil, uint32(len(ip))))
		pcap.Write(le.AppendUint32(nil, uint32(len(ip))))
		pcap.Write(ip)
	}
	for _, hide := range []bool{false, true} {
		cfg := Config{Secret: "s", HideAVPs: hide, Hello: 10 * time.Second}
		s, c, p := pair(t, 1, cfg, DefaultConfig())
		p.seen = record
		c.call(t, p.now, s, Dial{Secret: "s", Calling: "123", Called: "456", SubAddr: "7", Sequence: true})
		p.run(30 * time.Second)
		for id, i := range s.up {
			s.CloseSession(p.now, i.Tunnel.Local, id, Cause{Reason: ReasonAdmin, Text: "enough"})
		}
		p.run(time.Minute)
	}
	h := newManual(t, DefaultConfig())
	h.n.send = func(p Peer, msg []byte) { record(h.n, msg) }
	h.raw(build1(0, kind(SCCRQ), attr(avpMandatory, 0, 2, "\x02\x00"), attr(avpMandatory, 0, 9, "\x00\x07")))
	file := filepath.Join(t.TempDir(), "l2tp.pcap")
	if err := os.WriteFile(file, pcap.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tshark, "-r", file, "-d", "udp.port==1701,l2tp", "-T", "fields", "-e", "l2tp.avp.message_type",
		"-e", "l2tp.avp.host_name", "-e", "_ws.malformed", "-e", "_ws.expert.message").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(string(out), "\n"), "\n")
	if len(lines) != frames {
		t.Fatalf("%d lines for %d frames", len(lines), frames)
	}
	seen := map[string]bool{}
	for i, line := range lines {
		f := strings.Split(line, "\t")
		for len(f) < 4 {
			f = append(f, "")
		}
		seen[f[0]] = true
		if f[2] != "" || strings.Contains(strings.ToLower(f[3]), "malformed") {
			t.Errorf("frame %d: %q", i+1, line)
		}
	}
	for _, mt := range []MessageType{SCCRQ, SCCRP, SCCCN, StopCCN, HELLO, ICRQ, ICRP, ICCN, CDN} {
		if !seen[fmt.Sprint(uint16(mt))] {
			t.Errorf("tshark saw no %s: %v", mt, seen)
		}
	}
}
