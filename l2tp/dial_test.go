package l2tp

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestTie(t *testing.T) {
	for _, crossed := range []bool{false, true} {
		for seed := range int64(20) {
			a, b, p := pair(t, seed, DefaultConfig(), DefaultConfig())
			a.call(t, p.now, b, Dial{})
			if !crossed {
				p.run(time.Second)
			}
			b.call(t, p.now, a, Dial{})
			p.run(5 * time.Second)
			want := 2
			if crossed {
				want = 1
			}
			if len(a.up) != want || len(b.up) != want {
				t.Errorf("seed %d, crossed %v: %d and %d sessions", seed, crossed, len(a.up), len(b.up))
			}
			if crossed && len(a.tunnelEnd)+len(b.tunnelEnd) != 1 {
				t.Errorf("seed %d: the loser was not told: %v %v", seed, a.tunnelEnd, b.tunnelEnd)
			}
		}
	}
	// A peer without a tie breaker loses.
	h := newManual(t, DefaultConfig())
	h.n.call(t, h.now, &end{addr: h.peer.Remote}, Dial{})
	h.expect("SCCRQ")
	h.raw(raw(t, "Windows 10 SCCRQ"))
	h.expect("")
	h.dropped(DropTie, 1)
}

func TestDialFails(t *testing.T) {
	t.Run("nobody there", func(t *testing.T) {
		h := newManual(t, DefaultConfig())
		id := h.n.call(t, h.now, &end{addr: h.peer.Remote}, Dial{})
		h.wait(time.Minute)
		if c := h.n.tunnelEnd[id]; c.Reason != ReasonTimeout || !h.n.Drained() {
			t.Errorf("%v", c)
		}
	})
	t.Run("wrong secret", func(t *testing.T) {
		s, c, p := pair(t, 3, Config{Secret: "a"}, DefaultConfig())
		id := c.call(t, p.now, s, Dial{Secret: "b"})
		p.run(time.Minute)
		if cause := c.tunnelEnd[id]; cause.Reason != ReasonAuthorization || len(s.tunnelsUp) != 0 {
			t.Errorf("%v", cause)
		}
	})
	t.Run("no secret", func(t *testing.T) {
		s, c, p := pair(t, 3, Config{Secret: "a"}, DefaultConfig())
		id := c.call(t, p.now, s, Dial{})
		p.run(time.Minute)
		if cause := c.tunnelEnd[id]; cause.Reason != ReasonAuthorization {
			t.Errorf("%v", cause)
		}
	})
	t.Run("call refused", func(t *testing.T) {
		s, c, p := pair(t, 3, DefaultConfig(), DefaultConfig())
		s.plane.fail = fmt.Errorf("no")
		id := c.call(t, p.now, s, Dial{})
		p.run(time.Minute)
		if cause := c.tunnelEnd[id]; cause.Reason != ReasonPeer || cause.Result != CDNTemporaryFacilities || !c.Drained() {
			t.Errorf("%v", cause)
		}
	})
	t.Run("not called", func(t *testing.T) {
		h := newManual(t, DefaultConfig())
		if _, err := h.n.Dial(h.now, Peer{}, Dial{}); err == nil {
			t.Error("no address")
		}
		h.n.Close(h.now)
		if _, err := h.n.Dial(h.now, h.peer, Dial{}); err != ErrClosing {
			t.Error(err)
		}
	})
}

// The answer may come from an address of ours that routing chose, and from another port of the server.
func TestDialAnswers(t *testing.T) {
	h := newManual(t, DefaultConfig())
	id, err := h.n.Dial(h.now, Peer{Remote: h.peer.Remote}, Dial{})
	if err != nil {
		t.Fatal(err)
	}
	h.expect("SCCRQ")
	h.tid = id
	h.nr = 1
	other := h.peer
	h.peer.Remote = netip.MustParseAddrPort("198.51.100.7:5000")
	h.n.tunnels[id].peer.Local = other.Local
	h.put(raw(t, "SoftEther SCCRP"))
	if got := h.types(); got != "SCCCN" {
		t.Errorf("sent %q", got)
	}
	if h.n.tunnels[id].peer != h.peer {
		t.Errorf("peer %v", h.n.tunnels[id].peer)
	}
}

// Protection is asked of those who call us; a client without IPsec may still be configured.
func TestDialInTheClear(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Protection = ProtectionRequired
	s, c, p := pair(t, 1, DefaultConfig(), cfg)
	c.call(t, p.now, s, Dial{})
	p.run(time.Second)
	if len(c.up) != 1 {
		t.Error("no session")
	}
	s.call(t, p.now, c, Dial{})
	p.run(time.Second)
	c.Reconfigure(p.now, cfg)
	if len(c.up) != 1 || len(c.down) != 0 {
		t.Error("a call in the clear was taken")
	}
}
