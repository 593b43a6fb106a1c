package l2tp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestLimits(t *testing.T) {
	t.Run("half open", func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.MaxTunnels = 40
		h := newManual(t, cfg)
		h.open("Windows 10 SCCRQ")
		h.n.send = nil
		for i := range 1000 {
			p := h.peer
			p.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1701)
			h.n.Receive(h.now, p, raw(t, "Windows 10 SCCRQ"))
		}
		s := h.n.Snapshot(h.now)
		if s.HalfOpen != 10 || len(s.Tunnels) != 11 || len(h.n.timers) != 11 || len(h.n.hosts) != 11 || len(h.n.byPeer) != 11 {
			t.Errorf("%d half open, %d tunnels", s.HalfOpen, len(s.Tunnels))
		}
		if h.n.tunnels[h.tid] == nil {
			t.Error("an established tunnel was evicted")
		}
	})
	t.Run("tunnels", func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.MaxTunnels = 1
		h := newManual(t, cfg)
		h.open("Windows 10 SCCRQ")
		h.tid, h.ns, h.nr = 0, 0, 0
		h.put(raw(t, "xl2tpd SCCRQ"))
		if r, c, _ := parseResult(h.expect("StopCCN").Bytes(AVPResultCode)); r != StopError || c != ErrorResources {
			t.Errorf("%d %d", r, c)
		}
	})
	t.Run("sessions", func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.MaxSessions = 1
		h := newManual(t, cfg)
		h.open("Windows 10 SCCRQ")
		h.connect(1)
		h.put(build(kind(ICRQ), attr(avpMandatory, 0, 14, "\x00\x02")))
		if r, c, _ := parseResult(h.expect("CDN").Bytes(AVPResultCode)); r != CDNTemporaryFacilities || c != ErrorResources {
			t.Errorf("%d %d", r, c)
		}
	})
	t.Run("one session per host", func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.OneSessionPerHost = true
		h := newManual(t, cfg)
		h.open("Windows 10 SCCRQ")
		h.connect(1)
		h.put(build(kind(ICRQ), attr(avpMandatory, 0, 14, "\x00\x02")))
		if r, _, _ := parseResult(h.expect("CDN").Bytes(AVPResultCode)); r != CDNBusy {
			t.Errorf("%d", r)
		}
	})
	t.Run("allowed", func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Allowed = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		h := newManual(t, cfg)
		h.put(raw(t, "Windows 10 SCCRQ"))
		h.expect("")
		h.dropped(DropNotAllowed, 1)
		h.ns = 0
		h.peer.Remote = netip.MustParseAddrPort("[::ffff:10.1.2.3]:1701")
		h.raw(raw(t, "Windows 10 SCCRQ"))
		if len(h.got) != 1 {
			t.Error("an IPv4 address in IPv6 clothes")
		}
	})
	t.Run("data plane", func(t *testing.T) {
		h := newManual(t, DefaultConfig())
		h.n.plane.fail = fmt.Errorf("no")
		h.open("Windows 10 SCCRQ")
		h.put(build(kind(ICRQ), attr(avpMandatory, 0, 14, "\x00\x02")))
		if r, _, _ := parseResult(h.expect("CDN").Bytes(AVPResultCode)); r != CDNTemporaryFacilities {
			t.Errorf("%d", r)
		}
	})
	t.Run("idle tunnel", func(t *testing.T) {
		h := newManual(t, DefaultConfig())
		h.open("Windows 10 SCCRQ")
		h.wait(time.Second)
		h.expect("ZLB")
		h.wait(idleTime - time.Second)
		h.expect("StopCCN")
		h.zlb()
		if !h.n.Drained() {
			t.Error("left over")
		}
	})
	t.Run("session set-up", func(t *testing.T) {
		h := newManual(t, DefaultConfig())
		h.open("Windows 10 SCCRQ")
		h.put(build(kind(ICRQ), attr(avpMandatory, 0, 14, "\x00\x02")))
		h.expect("ICRP")
		h.zlb()
		h.wait(59 * time.Second)
		h.expect("")
		h.wait(time.Second)
		if got := h.types(); !strings.Contains(got, "CDN") {
			t.Errorf("sent %q", got)
		}
		if len(h.n.plane.sessions) != 0 {
			t.Error("path left open")
		}
	})
}
