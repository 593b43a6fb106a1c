package l2tp

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestClients lets the goldens call: every client gets a session.
func TestClients(t *testing.T) {
	for _, name := range []string{"Windows 10 SCCRQ", "Apple SCCRQ", "Android SCCRQ", "xl2tpd SCCRQ", "RouterOS SCCRQ"} {
		t.Run(name, func(t *testing.T) {
			h := newManual(t, DefaultConfig())
			h.put(raw(t, name))
			rp := h.expect("SCCRP")
			var rq Message
			if err := rq.Parse(raw(t, name), ""); err != nil {
				t.Fatal(err)
			}
			if uint32(rp.Tunnel) != rq.Uint(AVPAssignedTunnelID) || rp.Session != 0 || rp.Ns != 0 || rp.Nr != 1 {
				t.Errorf("header %+v", rp.Header)
			}
			if rp.Uint(AVPProtocolVersion) != 0x0100 || rp.Text(AVPHostName) != "culvert" || rp.Uint(AVPFramingCaps) != 3 ||
				rp.Uint(AVPReceiveWindow) != 16 || rp.Has(AVPChallenge) || rp.Has(AVPTieBreaker) {
				t.Errorf("SCCRP %+v", rp)
			}
			h.tid = TunnelID(rp.Uint(AVPAssignedTunnelID))
			h.put(build(kind(SCCCN)))
			if name == "Android SCCRQ" {
				h.expect("ZLB") // it waits for that
			} else {
				h.expect("")
			}
			h.put(raw(t, "Windows ICRQ"))
			ip := h.expect("ICRP")
			if ip.Session != 1 {
				t.Errorf("ICRP to session %d", ip.Session)
			}
			id := ip.Uint(AVPAssignedSessionID)
			h.put(h.toSession(raw(t, "Apple ICCN"), id))
			if len(h.n.up) != 1 {
				t.Fatal("no session")
			}
			for _, i := range h.n.up {
				if i.TxSpeed != 1000000 || uint32(i.Local) != id || i.Remote != 1 || i.Tunnel.HostName != rp2host(&rq) {
					t.Errorf("%+v", i)
				}
			}
			h.wait(ackDelay)
			if name == "Android SCCRQ" {
				h.expect("ZLB")
			} else if z := h.expect("ZLB"); z.Nr != h.ns {
				t.Errorf("ZLB acknowledges %d of %d", z.Nr, h.ns)
			}
			h.put(raw(t, "HELLO"))
			h.wait(ackDelay)
			h.expect("ZLB")
			h.put(raw(t, "Apple StopCCN, little-endian result"))
			h.expect("ZLB")
			for _, c := range h.n.down {
				if c.Reason != ReasonPeer || c.Result != 1 {
					t.Errorf("down: %v", c)
				}
			}
			if len(h.n.down) != 1 || len(h.n.tunnelEnd) != 1 || len(h.n.plane.tunnels)+len(h.n.plane.sessions) != 0 {
				t.Errorf("%+v", h.n.plane)
			}
			// Its StopCCN again, whose acknowledgement was lost.
			h.ns--
			h.put(raw(t, "Apple StopCCN, little-endian result"))
			h.expect("ZLB")
			h.wait(32 * time.Second)
			if !h.n.Drained() || len(h.n.released) != 1 {
				t.Error("still lingering")
			}
		})
	}
}

func rp2host(m *Message) string { return m.Text(AVPHostName) }

func TestProxyAndNumbers(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("xl2tpd SCCRQ")
	h.put(raw(t, "BRAS ICRQ with vendor AVPs"))
	id := h.expect("ICRP").Uint(AVPAssignedSessionID)
	h.put(h.toSession(raw(t, "Cisco ICCN without speeds"), id))
	i, ok := h.n.up[SessionID(id)]
	if !ok {
		t.Fatal("no session")
	}
	if i.Calling != "0301234" || i.Called != "110" || i.Proxy.AuthName != "user@isp" || i.Proxy.AuthType != 3 ||
		string(i.Proxy.AuthResponse) != "pw" || i.PrivateGroup != "group" || len(i.Proxy.InitialReceivedLCP) != 10 {
		t.Errorf("%+v", i)
	}
	h.put(h.toSession(raw(t, "RouterOS CDN, result without error"), id))
	if c := h.n.down[SessionID(id)]; c.Result != CDNAdministrative || c.Reason != ReasonPeer {
		t.Errorf("down: %v", c)
	}
}

func TestAuthentication(t *testing.T) {
	secret := Config{Secret: "s3cret"}
	response := func(rp *Message, s Secret) []byte {
		r := challengeResponse(SCCCN, s, rp.Bytes(AVPChallenge))
		return attr(avpMandatory, 0, 13, string(r[:]))
	}
	t.Run("both ways", func(t *testing.T) {
		h := newManual(t, secret)
		h.put(raw(t, "Android SCCRQ with challenge"))
		rp := h.expect("SCCRP")
		if !responseValid(SCCRP, "s3cret", bytes.Join([][]byte{unhex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")}, nil), rp.Bytes(AVPChallengeResponse)) {
			t.Error("wrong response")
		}
		h.tid = TunnelID(rp.Uint(AVPAssignedTunnelID))
		h.put(build(kind(SCCCN), response(rp, "s3cret")))
		if len(h.n.tunnelsUp) != 1 {
			t.Error("not up")
		}
	})
	for name, avps := range map[string]func(rp *Message) [][]byte{
		"no response":    func(*Message) [][]byte { return nil },
		"wrong response": func(rp *Message) [][]byte { return [][]byte{response(rp, "other")} },
	} {
		t.Run(name, func(t *testing.T) {
			h := newManual(t, secret)
			h.put(raw(t, "xl2tpd SCCRQ"))
			rp := h.expect("SCCRP")
			h.tid = TunnelID(rp.Uint(AVPAssignedTunnelID))
			h.put(build(append([][]byte{kind(SCCCN)}, avps(rp)...)...))
			stop := h.expect("StopCCN")
			if r, _, _ := parseResult(stop.Bytes(AVPResultCode)); r != StopNotAuthorized {
				t.Errorf("result %d", r)
			}
			if len(h.n.tunnelsUp) != 0 || len(h.n.tunnelEnd) != 0 {
				t.Error("the tunnel was announced")
			}
			h.zlb()
			if !h.n.Drained() {
				t.Error("an acknowledged StopCCN leaves a tunnel")
			}
		})
	}
	t.Run("no secret here", func(t *testing.T) {
		h := newManual(t, DefaultConfig())
		h.put(raw(t, "accel-ppp SCCRQ"))
		stop := h.expect("StopCCN")
		if r, _, _ := parseResult(stop.Bytes(AVPResultCode)); r != StopNotAuthorized || stop.Tunnel != 0x1234 {
			t.Errorf("result %d to %d", r, stop.Tunnel)
		}
		if !h.n.Drained() {
			t.Error("a refusal leaves state")
		}
	})
}

func TestVersion(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.raw(build1(0, kind(SCCRQ), attr(avpMandatory, 0, 2, "\x02\x00"), attr(avpMandatory, 0, 9, "\x00\x07")))
	stop := h.expect("StopCCN")
	if r, c, _ := parseResult(stop.Bytes(AVPResultCode)); r != StopVersion || c != 0x0100 || stop.Tunnel != 7 || stop.Nr != 1 {
		t.Errorf("%d %x %+v", r, c, stop.Header)
	}
	// 1.1 is fine.
	h.raw(build1(0, kind(SCCRQ), attr(avpMandatory, 0, 2, "\x01\x01"), attr(avpMandatory, 0, 9, "\x00\x07")))
	h.expect("SCCRP")
}

// build1 is build with another tunnel id.
func build1(tid TunnelID, avps ...[]byte) []byte {
	b := build(avps...)
	binary.BigEndian.PutUint16(b[4:], uint16(tid))
	return b
}

func TestProtection(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Protection = ProtectionRequired
	h := newManual(t, cfg)
	for range 3 {
		h.raw(raw(t, "Windows 10 SCCRQ"))
	}
	h.expect("")
	h.dropped(DropUnprotected, 3)
	h.peer.Via = 5
	h.open("Windows 10 SCCRQ")
	id := h.connect(1)
	// Somebody in the clear, in another SA, from another address.
	bad := h.peer
	for _, p := range []Peer{
		{Local: bad.Local, Remote: bad.Remote, Via: 0},
		{Local: bad.Local, Remote: bad.Remote, Via: 6},
		{Local: bad.Local, Remote: netip.MustParseAddrPort("198.51.100.8:1701"), Via: 5},
		{Local: netip.MustParseAddrPort("192.0.2.2:1701"), Remote: bad.Remote, Via: 5},
	} {
		stop := build1(h.tid, kind(StopCCN))
		setSequence(stop, h.ns, h.nr)
		h.n.Receive(h.now, p, stop)
	}
	h.dropped(DropForeign, 3)
	h.dropped(DropUnprotected, 4)
	if _, down := h.n.down[SessionID(id)]; down {
		t.Fatal("a stranger closed the tunnel")
	}
	// Inside the SA a new port is followed.
	h.peer.Remote = netip.MustParseAddrPort("198.51.100.7:40000")
	h.put(build(kind(HELLO)))
	h.wait(ackDelay)
	h.expect("ZLB")
	// And a new address once the key exchange says so.
	h.n.Move(h.now, 5, netip.MustParseAddr("198.51.100.9"))
	h.peer.Remote = netip.MustParseAddrPort("198.51.100.9:40000")
	h.put(build(kind(HELLO)))
	h.wait(ackDelay)
	h.expect("ZLB")
	// The SA goes: nothing is sent, everything is down.
	h.n.CloseVia(h.now, 5, Cause{})
	h.expect("")
	if c := h.n.down[SessionID(id)]; c.Reason != ReasonVia || !h.n.Drained() || h.n.ViaInUse(5) {
		t.Errorf("%v", c)
	}
}

func TestCleartextPortIsNotFollowed(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	h.peer.Remote = netip.MustParseAddrPort("198.51.100.7:40000")
	h.put(build(kind(HELLO)))
	h.wait(ackDelay)
	h.dropped(DropForeign, 1)
}

// A peer that moves after its goodbye is acknowledged where it is, and leaves nothing behind.
func TestMoveWhileLingering(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.peer.Via = 5
	h.open("Windows 10 SCCRQ")
	h.put(raw(t, "Apple StopCCN, little-endian result"))
	h.expect("ZLB")
	h.peer.Remote = netip.MustParseAddrPort("198.51.100.7:40000")
	h.ns--
	h.put(raw(t, "Apple StopCCN, little-endian result"))
	h.expect("ZLB")
	h.wait(31 * time.Second)
	if !h.n.Drained() || len(h.n.hosts)+len(h.n.byPeer) != 0 {
		t.Errorf("left over: %v %v", h.n.hosts, h.n.byPeer)
	}
}

func TestReconfigureProtection(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	id := h.connect(1)
	cfg := DefaultConfig()
	h.n.Reconfigure(h.now, cfg)
	h.expect("")
	cfg.Protection = ProtectionRequired
	h.n.Reconfigure(h.now, cfg)
	h.expect("StopCCN")
	if c := h.n.down[SessionID(id)]; c.Reason != ReasonProtection {
		t.Errorf("%v", c)
	}
}

// Two Windows clients behind one NAT: same address, same port, same tunnel id; only the SA differs.
func TestTwoBehindOneNAT(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.peer.Via = 1
	h.open("Windows 10 SCCRQ")
	h.connect(1)
	first := *h
	h.peer.Via, h.tid, h.ns, h.nr, h.got = 2, 0, 0, 0, nil
	h.n.send = func(p Peer, msg []byte) { h.take(p, msg) }
	h.open("Windows 10 SCCRQ")
	h.connect(1)
	if len(h.n.up) != 2 || len(h.n.tunnels) != 2 || first.tid == h.tid {
		t.Fatalf("%+v", h.n.Snapshot(h.now))
	}
	h.n.CloseVia(h.now, 1, Cause{})
	if len(h.n.down) != 1 || len(h.n.tunnels) != 1 {
		t.Error("one client's end touched the other")
	}
}

func TestRepeatedSCCRQ(t *testing.T) {
	h := newManual(t, DefaultConfig())
	rq := raw(t, "Windows 10 SCCRQ")
	h.put(rq)
	rp := h.expect("SCCRP")
	h.raw(rq)
	h.expect("ZLB")
	if len(h.n.tunnels) != 1 {
		t.Fatal("a second tunnel")
	}
	h.tid = TunnelID(rp.Uint(AVPAssignedTunnelID))
	h.put(build(kind(SCCCN)))
	id := h.connect(1)
	h.raw(rq)
	h.expect("ZLB")
	// Long after, the same datagram is a client that has restarted. Until it answers, nothing happens to the old tunnel.
	h.wait(40 * time.Second)
	h.got = nil
	h.ns, h.nr, h.tid = 0, 0, 0
	h.put(rq)
	rp = h.expect("SCCRP")
	if _, down := h.n.down[SessionID(id)]; down {
		t.Fatal("a single datagram, which anybody can forge, closed a session")
	}
	h.tid = TunnelID(rp.Uint(AVPAssignedTunnelID))
	h.put(build(kind(SCCCN)))
	h.expect("")
	if c := h.n.down[SessionID(id)]; c.Reason != ReasonSuperseded || len(h.n.tunnels) != 1 {
		t.Errorf("%v, %d tunnels", c, len(h.n.tunnels))
	}
}

// Each kind of senseless message ends what it belongs to, and only once the tunnel is up.
func TestUnknownMandatory(t *testing.T) {
	bad := attr(avpMandatory, 9, 9, "?")
	h := newManual(t, DefaultConfig())
	h.raw(build1(0, kind(SCCRQ), attr(avpMandatory, 0, 2, "\x01\x00"), attr(avpMandatory, 0, 9, "\x00\x07"), bad))
	h.expect("")
	h.dropped(DropFault, 1)
	h.put(raw(t, "Windows 10 SCCRQ"))
	h.tid = TunnelID(h.expect("SCCRP").Uint(AVPAssignedTunnelID))
	h.put(build(kind(SCCCN), bad))
	h.expect("")
	h.dropped(DropFault, 2)
	h.ns--
	h.put(build(kind(SCCCN)))
	id := h.connect(1)
	two := h.connect(2)
	h.put(build(kind(ICRQ), attr(avpMandatory, 0, 14, "\x00\x03"), bad))
	cdn := h.expect("CDN")
	if r, c, text := parseResult(cdn.Bytes(AVPResultCode)); r != CDNError || c != ErrorUnknownAVP || cdn.Session != 3 || text == "" {
		t.Errorf("%d %d %q to %d", r, c, text, cdn.Session)
	}
	h.put(h.toSession(build(kind(SLI), attr(avpMandatory, 0, 35, strings.Repeat("\x00", 10)), bad), id))
	cdn = h.expect("CDN")
	if cdn.Session != 1 || h.n.down[SessionID(id)].Error != ErrorUnknownAVP {
		t.Errorf("%+v", cdn.Header)
	}
	h.put(build(kind(HELLO), bad))
	stop := h.expect("StopCCN")
	if r, c, _ := parseResult(stop.Bytes(AVPResultCode)); r != StopError || c != ErrorUnknownAVP {
		t.Errorf("%d %d", r, c)
	}
	if _, ok := h.n.down[SessionID(two)]; !ok {
		t.Error("the other session survived its tunnel")
	}
}

func TestUnknownMessages(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	h.put(build(attr(0, 0, 0, "\x00\x63"), attr(avpMandatory, 9, 9, "?")[:0]))
	h.wait(ackDelay)
	h.expect("ZLB")
	h.put(build(attr(avpMandatory, 0, 0, "\x00\x63")))
	h.expect("StopCCN")
}

func TestWrongState(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.put(raw(t, "Windows 10 SCCRQ"))
	h.tid = TunnelID(h.expect("SCCRP").Uint(AVPAssignedTunnelID))
	h.put(raw(t, "Windows ICRQ"))
	if r, _, _ := parseResult(h.expect("StopCCN").Bytes(AVPResultCode)); r != StopFSM {
		t.Errorf("result %d", r)
	}
	h = newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	id := h.connect(1)
	h.put(h.toSession(raw(t, "Windows ICCN"), id))
	h.expect("CDN")
	h.put(h.toSession(raw(t, "Windows ICCN"), id))
	h.expect("")
	h.dropped(DropUnknownSession, 1)
	h.put(build(kind(OCRQ), attr(avpMandatory, 0, 14, "\x00\x09")))
	cdn := h.expect("CDN")
	if r, _, _ := parseResult(cdn.Bytes(AVPResultCode)); r != CDNPermanentFacilities || cdn.Session != 9 || cdn.Uint(AVPAssignedSessionID) == 0 {
		t.Errorf("OCRQ refused with %d to %d", r, cdn.Session)
	}
	for _, m := range []MessageType{WEN, SLI} {
		h.put(build(kind(m)))
	}
	h.dropped(DropUnknownSession, 3)
	h.put(build(kind(SCCCN)))
	h.expect("StopCCN")
}

func TestCDNByAssignedID(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	id := h.connect(77)
	h.put(raw(t, "RouterOS CDN, result without error")) // header of some other session, assigned id 77
	if c, ok := h.n.down[SessionID(id)]; !ok || c.Result != 3 {
		t.Errorf("%v", c)
	}
}

func TestReusedSessionID(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	id := h.connect(1)
	again := h.connect(1)
	if c := h.n.down[SessionID(id)]; c.Reason != ReasonSuperseded || again == id {
		t.Errorf("%v", c)
	}
}

// A peer that asks and never acknowledges is no longer listened to.
func TestBackPressure(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	for i := range 2 * maxQueued {
		h.put(build(kind(ICRQ), attr(avpMandatory, 0, 14, string([]byte{byte(i>>8) + 1, byte(i)}))))
	}
	if n := len(h.n.sessions); n > maxQueued {
		t.Errorf("%d sessions", n)
	}
	if h.n.Snapshot(h.now).Drops[DropLimit] == 0 {
		t.Error("nothing counted")
	}
}

func TestUnknownTunnel(t *testing.T) {
	hello := build1(0x7777, kind(HELLO))
	setSequence(hello, 5, 9)
	h := newManual(t, DefaultConfig())
	h.raw(hello)
	h.expect("")
	h.dropped(DropUnknownTunnel, 1)
	h.raw(build1(0, kind(HELLO))) // Apple wakes its policy
	h.expect("")

	h.peer.Via = 3
	h.raw(build1(0x7777)) // a ZLB
	h.raw(build1(0, kind(HELLO)))
	h.expect("")
	h.raw(hello)
	stop := h.expect("StopCCN")
	if stop.Tunnel != 0 || stop.Uint(AVPAssignedTunnelID) != 0x7777 || stop.Ns != 9 || stop.Nr != 6 {
		t.Errorf("%+v", stop)
	}
	goodbye := build1(0x7777, kind(StopCCN), attr(avpMandatory, 0, 9, "\x00\x21"))
	setSequence(goodbye, 5, 9)
	h.raw(goodbye)
	if z := h.expect("ZLB"); z.Tunnel != 0x21 || z.Ns != 9 || z.Nr != 6 {
		t.Errorf("%+v", z.Header)
	}
	h.n.Recall(h.now, []TunnelInfo{{Local: 0x7777, Remote: 0x21, Peer: h.peer}})
	h.raw(hello)
	if stop := h.expect("StopCCN"); stop.Tunnel != 0x21 {
		t.Errorf("%+v", stop.Header)
	}
	for range 1000 {
		h.raw(hello)
	}
	if n := len(h.got); n > answerBurst {
		t.Errorf("%d answers at once", n)
	}
}

func TestZeroTunnelQuirk(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.put(raw(t, "Windows 10 SCCRQ"))
	real := TunnelID(h.expect("SCCRP").Uint(AVPAssignedTunnelID))
	h.put(build(kind(SCCCN))) // tunnel id 0
	if h.n.tunnels[real].state != tunnelEstablished {
		t.Error("a gateway that leaves the tunnel id out is not understood")
	}
	// A StopCCN of a peer that has never seen our id names its own.
	h2 := newManual(t, DefaultConfig())
	h2.put(raw(t, "Windows 10 SCCRQ"))
	h2.expect("SCCRP")
	h2.put(build(kind(StopCCN), attr(avpMandatory, 0, 9, "\x00\x01"), attr(avpMandatory, 0, 1, "\x00\x01")))
	h2.expect("ZLB")
}

func TestClose(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	id := h.connect(1)
	h.n.Close(h.now)
	stop := h.expect("StopCCN")
	if r, _, _ := parseResult(stop.Bytes(AVPResultCode)); r != StopShutdown || stop.Uint(AVPAssignedTunnelID) != uint32(h.tid) {
		t.Errorf("%+v", stop)
	}
	if c := h.n.down[SessionID(id)]; c.Reason != ReasonShutdown || h.n.Drained() {
		t.Errorf("%v", c)
	}
	h.raw(raw(t, "xl2tpd SCCRQ"))
	h.dropped(DropClosing, 1)
	h.wait(drainFor)
	if !h.n.Drained() || !h.n.Deadline().IsZero() {
		t.Error("goodbyes without an end")
	}
	h = newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	h.n.Close(h.now)
	h.expect("StopCCN")
	h.zlb()
	if !h.n.Drained() {
		t.Error("acknowledged and still not drained")
	}
}

// Both ends say StopCCN at once.
func TestStopStop(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	h.n.CloseTunnel(h.now, h.tid, Cause{Reason: ReasonAdmin, Text: "bye"})
	h.expect("StopCCN")
	h.nr-- // it has not seen ours
	h.put(build(kind(StopCCN), attr(avpMandatory, 0, 9, "\x00\x01"), attr(avpMandatory, 0, 1, "\x00\x01")))
	h.expect("ZLB")
	h.wait(31 * time.Second)
	h.expect("")
	if !h.n.Drained() {
		t.Error("left over")
	}
}

// A session ended from within its own SessionUp comes down once.
func TestCloseInsideSessionUp(t *testing.T) {
	h := newManual(t, DefaultConfig())
	up := h.n.env.SessionUp
	h.n.env.SessionUp = func(i SessionInfo) {
		up(i)
		h.n.CloseSession(h.now, i.Tunnel.Local, i.Local, Cause{Reason: ReasonLink})
	}
	h.open("Windows 10 SCCRQ")
	h.connect(1)
	if len(h.n.down) != 1 || len(h.n.plane.sessions) != 0 {
		t.Errorf("%v", h.n.down)
	}
}

func TestSequencingRequired(t *testing.T) {
	h := newManual(t, DefaultConfig())
	// A plane that cannot change its mind gets the session closed and opened.
	h.n.env.Plane = struct{ DataPlane }{h.n.plane}
	h.open("Windows 10 SCCRQ")
	h.put(raw(t, "Windows ICRQ"))
	id := h.expect("ICRP").Uint(AVPAssignedSessionID)
	h.put(h.toSession(build(kind(ICCN), attr(avpMandatory, 0, 39, "")), id))
	if s := h.n.plane.sessions[SessionID(id)]; !s.SendSeq || !s.LNS {
		t.Errorf("%+v", s)
	}
}

func TestNoAllocation(t *testing.T) {
	h := newManual(t, DefaultConfig())
	h.open("Windows 10 SCCRQ")
	id := h.connect(1)
	h.n.send = func(Peer, []byte) {}
	data := unhex("0002 1111 2222 ff03 c021")
	binary.BigEndian.PutUint16(data[4:], uint16(id))
	zlb := build1(h.tid)
	setSequence(zlb, h.ns, h.nr)
	dup := build1(h.tid, kind(HELLO))
	setSequence(dup, h.ns-1, h.nr)
	foreign := h.peer
	foreign.Via = 77
	for name, f := range map[string]func(){
		"data":      func() { h.raw(data) },
		"ZLB":       func() { h.raw(zlb) },
		"duplicate": func() { h.raw(dup) },
		"foreign":   func() { h.n.Receive(h.now, foreign, zlb) },
		"malformed": func() { h.raw(zlb[:11]) },
		"unknown":   func() { h.raw(build0) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

var build0 = build1(0x0101, kind(HELLO))

func FuzzReceive(f *testing.F) {
	for _, g := range goldens {
		f.Add(unhex(g.hex), uint16(1), uint8(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, skip uint16, via uint8) {
		h := newManual(t, Config{Secret: "s", MaxTunnels: 3, MaxSessions: 3})
		h.n.send = func(Peer, []byte) {}
		h.raw(raw(t, "Windows 10 SCCRQ"))
		h.peer.Via = Via(via & 1)
		h.raw(b)
		for id, tun := range h.n.tunnels {
			// The same with ids and numbers that fit, in each state.
			tun.secret = ""
			for _, m := range [][]byte{build(kind(SCCCN)), raw(t, "Windows ICRQ"), b, b} {
				if len(m) < controlHeaderLen {
					break
				}
				m = bytes.Clone(m)
				binary.BigEndian.PutUint16(m[4:], uint16(id))
				for sid := range tun.sessions {
					binary.BigEndian.PutUint16(m[6:], uint16(sid))
				}
				setSequence(m, tun.d.nr+skip%3, tun.d.high)
				h.n.Receive(h.now, tun.peer, m)
			}
		}
		h.wait(3 * time.Minute)
		h.n.Close(h.now)
		h.wait(drainFor)
		if !h.n.Drained() || len(h.n.plane.tunnels)+len(h.n.plane.sessions)+len(h.n.timers)+len(h.n.byPeer)+len(h.n.hosts)+
			h.n.halfOpen.Len()+h.n.closed.Len()+len(h.n.sessions) != 0 || h.n.dialing != 0 {
			t.Fatalf("left over: %+v", h.n.Snapshot(h.now))
		}
		if len(h.n.up) != len(h.n.down) {
			t.Fatalf("%d sessions up, %d down", len(h.n.up), len(h.n.down))
		}
	})
}
