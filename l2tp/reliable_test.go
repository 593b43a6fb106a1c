package l2tp

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestRetransmission(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.raw(raw(t, "Windows 10 SCCRQ"))
	var at []time.Duration
	for len(h.n.tunnels) > 0 {
		if len(h.got) > 0 {
			at = append(at, h.now.Sub(start))
			if h.got[0].Nr != 1 {
				t.Error("Nr")
			}
			h.got = nil
		}
		due := h.n.Deadline()
		h.wait(due.Sub(h.now))
	}
	want := "[0s 1s 3s 7s 15s 23s]"
	if got := fmt.Sprint(at); got != want || h.now.Sub(start) != 31*time.Second {
		t.Errorf("sent at %s, given up after %v", got, h.now.Sub(start))
	}
	if len(h.n.released) != 1 {
		t.Error("not released")
	}
}

func TestHello(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	id := h.connect(1)
	h.wait(ackDelay)
	h.expect("ZLB")
	h.wait(59 * time.Second)
	h.expect("")
	h.wait(time.Second)
	h.expect("HELLO")
	h.zlb()
	h.wait(60 * time.Second)
	begin := h.now
	h.expect("HELLO")
	// A phone sleeps: a minute at least.
	for len(h.n.down) == 0 {
		h.wait(time.Second)
	}
	if d := h.now.Sub(begin); d < helloPatience || d > 90*time.Second {
		t.Errorf("given up after %v", d)
	}
	if c := h.n.down[SessionID(id)]; c.Reason != ReasonTimeout {
		t.Error(c)
	}
}

// countingPlane tells that data arrives.
type countingPlane struct {
	*plane
	n uint64
}

func (c *countingPlane) Received(TunnelSpec) (uint64, bool) { return c.n, true }

func TestNoHelloWhileDataFlows(t *testing.T) {
	h := newManual(t, DefaultConfig())
	counting := &countingPlane{plane: h.n.plane}
	h.n.env.Plane = counting
	h.open("Windows 10 SCCRQ")
	h.connect(1)
	h.wait(time.Second)
	h.expect("ZLB")
	for range 600 {
		counting.n++
		h.wait(time.Second)
	}
	h.expect("")
	h.wait(2 * time.Minute)
	if got := h.types(); !strings.HasPrefix(got, "HELLO") {
		t.Errorf("sent %q", got)
	}
	for range 300 { // unanswered HELLOs, but data
		counting.n++
		h.wait(time.Second)
	}
	if len(h.n.down) != 0 {
		t.Error("a tunnel with data was given up")
	}
}

func TestReorder(t *testing.T) {
	cfg := DefaultConfig()
	cfg.ReceiveWindow = 4
	h := newManual(t, cfg)
	h.open("Windows 10 SCCRQ")
	mk := func(ns uint16, id byte) []byte {
		b := build1(h.tid, kind(ICRQ), attr(avpMandatory, 0, 14, string([]byte{0, id})))
		setSequence(b, ns, h.nr)
		return b
	}
	base := h.ns
	h.raw(mk(base+2, 3))
	h.raw(mk(base+1, 2))
	h.raw(mk(base+1, 2))
	h.raw(mk(base+3, 4))
	h.raw(mk(base+4, 5)) // outside of the window
	h.expect("")
	h.dropped(DropOutside, 1)
	h.raw(mk(base, 1))
	if n := len(h.n.plane.sessions); n != 4 {
		t.Fatalf("%d sessions", n)
	}
	if got := h.types(); got != "ICRP ICRP" { // slow start: the acknowledged SCCRP opened the window to two
		t.Errorf("sent %q", got)
	}
	if h.got[len(h.got)-1].Nr != base+4 {
		t.Errorf("acknowledged up to %d", h.got[0].Nr)
	}
	h.raw(mk(base+2, 3)) // once more
	h.wait(0)
	h.dropped(DropDuplicate, 1)
}

// The peer's window is kept to strictly, and 1 is a window.
func TestPeerWindow(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Android SCCRQ")
	h.got = nil
	var ids []byte
	for id := byte(1); id <= 5; id++ {
		h.put(build(kind(ICRQ), attr(avpMandatory, 0, 14, string([]byte{0, id}))))
	}
	for range 5 {
		n := 0
		for _, m := range h.got {
			if m.Type == ICRP {
				n++
				ids = append(ids, byte(m.Session))
				h.nr = m.Ns + 1
			}
		}
		if n != 1 {
			t.Fatalf("%d messages for a window of 1: %s", n, h.types())
		}
		h.got = nil
		h.zlb()
	}
	if string(ids) != "\x01\x02\x03\x04\x05" {
		t.Errorf("%x", ids)
	}
}
