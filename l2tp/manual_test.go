package l2tp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// manual is a peer played by the test, against one engine.
type manual struct {
	t      *testing.T
	n      *end
	peer   Peer
	tid    TunnelID // the engine's
	ns, nr uint16
	got    []*Message
	now    time.Time
}

func newManual(t *testing.T, cfg Config) *manual {
	n := newEnd(t, "192.0.2.1:1701", cfg, 42)
	h := &manual{t: t, n: n, now: start,
		peer: Peer{Local: n.addr, Remote: netip.MustParseAddrPort("198.51.100.7:1701")}}
	n.send = func(p Peer, msg []byte) { h.take(p, msg) }
	return h
}

func (h *manual) take(p Peer, msg []byte) {
	h.t.Helper()
	m := &Message{}
	if err := m.Parse(bytes.Clone(msg), h.n.cfg.Secret); err != nil || m.Fault != nil {
		h.t.Fatalf("the engine sent %x: %v %v", msg, err, m.Fault)
	}
	if p.Remote != h.peer.Remote || p.Via != h.peer.Via {
		m.Type = 99 // to somebody else
	}
	h.got = append(h.got, m)
}

// raw sends a datagram as it is.
func (h *manual) raw(b []byte) { h.n.Receive(h.now, h.peer, b) }

// put sends a message in order.
func (h *manual) put(b []byte) {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint16(b[4:], uint16(h.tid))
	setSequence(b, h.ns, h.nr)
	if len(b) > controlHeaderLen {
		h.ns++
	}
	h.raw(b)
}

func (h *manual) toSession(b []byte, id uint32) []byte {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint16(b[6:], uint16(id))
	return b
}

func (h *manual) zlb() { h.put(build()) }

// types drains what the engine has sent.
func (h *manual) types() string {
	var s []string
	for _, m := range h.got {
		s = append(s, m.Type.String())
	}
	return strings.Join(s, " ")
}

// expect checks what the engine has sent since the last call, acknowledges it with the next message, and returns the last.
func (h *manual) expect(want string) *Message {
	h.t.Helper()
	if got := h.types(); got != want {
		h.t.Fatalf("the engine sent %q, want %q", got, want)
	}
	var last *Message
	for _, m := range h.got {
		last = m
		if m.Type != ZLB && m.Ns == h.nr {
			h.nr++
		}
	}
	h.got = nil
	return last
}

// wait lets time pass.
func (h *manual) wait(d time.Duration) {
	end := h.now.Add(d)
	for at := h.n.Deadline(); !at.IsZero() && !at.After(end); at = h.n.Deadline() {
		if at.After(h.now) {
			h.now = at
		}
		h.n.Tick(h.now)
	}
	h.now = end
	h.n.Tick(end)
}

// open brings a tunnel up with the given SCCRQ.
func (h *manual) open(sccrq string) {
	h.t.Helper()
	h.put(raw(h.t, sccrq))
	rp := h.expect("SCCRP")
	h.tid = TunnelID(rp.Uint(AVPAssignedTunnelID))
	h.put(build(kind(SCCCN)))
	if h.n.tunnels[h.tid].state != tunnelEstablished {
		h.t.Fatal("not established")
	}
}

// connect brings a session up and returns the engine's id of it.
func (h *manual) connect(remote byte) uint32 {
	h.t.Helper()
	h.put(build(kind(ICRQ), attr(avpMandatory, 0, 14, string([]byte{0, remote})), attr(avpMandatory, 0, 15, "\x00\x00\x00\x01")))
	id := h.expect("ICRP").Uint(AVPAssignedSessionID)
	h.put(h.toSession(build(kind(ICCN), attr(avpMandatory, 0, 24, "\x00\x00\x00\x01"), attr(avpMandatory, 0, 19, "\x00\x00\x00\x01")), id))
	h.got = nil
	return id
}

func (h *manual) dropped(d Drop, want uint64) {
	h.t.Helper()
	if got := h.n.Snapshot(h.now).Drops[d]; got != want {
		h.t.Errorf("%s: %d dropped, want %d", d, got, want)
	}
}
