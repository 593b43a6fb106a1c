package ikev1

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
	"culvert/ipsec/isakmp"
)

func TestDial(t *testing.T) {
	for _, x := range []struct {
		name       string
		nat        bool
		aggressive bool
		pfs        Group
		port       uint16
		id         string
		auto       bool
		groups     []Group
		identity   string
		ipv6       bool
	}{
		{name: "main", port: 1701, identity: "203.0.113.9"},
		{name: "main behind NAT", nat: true, port: 1701, identity: "192.168.1.34"},
		{name: "any port", nat: true},
		{name: "ephemeral port", port: 40123},
		{name: "PFS", pfs: X25519},
		{name: "PFS behind NAT", nat: true, pfs: MODP2048},
		{name: "aggressive", aggressive: true, id: "branch@example.com", identity: "branch@example.com"},
		{name: "aggressive behind NAT", nat: true, aggressive: true, pfs: ECP256, id: "keyid:group", identity: "67726f7570"},
		{name: "defaults", auto: true},
		{name: "defaults, old server", auto: true, nat: true, groups: []Group{MODP1024}},
		{name: "IPv6", ipv6: true},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCable(t, 1, x.nat, func(cfg *Config) {
				if x.aggressive {
					cfg.Peers[0].Exchange = Aggressive
				}
				if x.groups != nil {
					cfg.Peers[0].Profile.Groups = x.groups
				}
			})
			if x.ipv6 {
				c.aAddr, c.bAddr = netip.MustParseAddr("2001:db8::9"), netip.MustParseAddr("2001:db8:1::1")
			}
			d := c.caller()
			if x.auto {
				d.Peer = NewServer("office", ipsec.Secret("mySecret"))
			}
			if x.aggressive {
				d.Peer.Exchange = Aggressive
			}
			d.Peer.Proposal.PFS, d.LocalPort, d.ID = x.pfs, x.port, x.id
			m := c.up(d)
			info := c.a.ups[0]
			if info.Mark != m || !info.Dialed || info.UDP != x.nat || info.Peer != "office" || info.LocalPort != x.port || info.Identity != c.bAddr.String() {
				t.Errorf("%+v", info)
			}
			if c.b.ups[0].Dialed || x.identity != "" && !strings.Contains(c.b.ups[0].Identity, x.identity) {
				t.Errorf("server sees %+v", c.b.ups[0])
			}
			s, sb := c.a.e.Snapshot(c.now), c.b.e.Snapshot(c.now)
			if len(s.Peers) != 1 || s.Peers[0].Role != "initiator" || sb.Peers[0].Role != "responder" || s.Peers[0].Mark != m || s.Peers[0].Aggressive != x.aggressive {
				t.Errorf("%+v", s.Peers)
			}
			for _, sa := range c.a.data.SAs() {
				want := ipsec.Selector{Local: host(c.aAddr), Remote: host(c.bAddr), Proto: 17, LocalPort: x.port, RemotePort: 1701}
				if sa.Selector != want || sa.Mark != m {
					t.Errorf("%+v", sa)
				}
				if x.nat && sa.Encap != (ipsec.Encap{Local: 4500, Remote: 4500}) {
					t.Errorf("encapsulated %+v", sa.Encap)
				}
			}
			if pfs := s.SAs[0].PFS; pfs != x.pfs {
				t.Errorf("PFS %v", pfs)
			}
			c.run(time.Minute)
			if want := btoi(x.nat) * 3; c.keeps < want || c.keeps > want {
				t.Errorf("%d keepalives", c.keeps)
			}
			c.a.e.ClosePeer(c.now, m, "enough")
			c.run(time.Second)
			if !slices.Equal(c.a.downs, []string{"enough"}) || len(c.b.downs) != 1 || len(c.a.fails) != 0 {
				t.Errorf("downs %v and %v", c.a.downs, c.b.downs)
			}
			c.empty(c.a)
			c.empty(c.b)
		})
	}
}

// TestDialFirstMessage is what goes out for a server of which only the secret is known, octet for octet.
func TestDialFirstMessage(t *testing.T) {
	c := newCable(t, 1, false, nil)
	var first, second []byte
	c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		if first == nil {
			first = bytes.Clone(msg)
		} else if !bytes.Equal(first, msg) && second == nil {
			second = bytes.Clone(msg)
		}
		return p, nil
	}
	d := c.caller()
	d.Peer = NewServer("office", ipsec.Secret("mySecret"))
	c.dial(d)
	c.run(20 * time.Second)
	const sa = "0d0000dc" + "00000001" + "00000001" + "000000d0" + "01010005" +
		"0300002801010000" + "80010007800e0100800200048004000e80030001800b0001000c000400007080" +
		"0300002802010000" + "80010007800e0100800200028004000e80030001800b0001000c000400007080" +
		"0300002803010000" + "80010007800e0100800200028004001480030001800b0001000c000400007080" +
		"0300002804010000" + "80010007800e0080800200028004001380030001800b0001000c000400007080" +
		"0000002805010000" + "80010007800e0080800200028004000e80030001800b0001000c000400007080"
	const vendors = "0d0000144a131c81070358455c5728f20e95452f" + "0d0000147d9419a65310ca6f2c179d9215529d56" +
		"0d00001490cb80913ebb696e086381b5ec427b1f" + "0d000014cd60464335df21f87cfdb2fc68b6a448" + "0d000014afcad71368a1f1c96b8696fc77570100" +
		"0d0000184048b7d56ebce88525e7de7f00d6c2d380000000" + "00000014dee337817ba44ea469e9a2c62cd7aee2"
	const legacy = "0d0000ac" + "00000001" + "00000001" + "000000a0" + "01010004" +
		"0300002801010000" + "80010007800e0100800200028004000280030001800b0001000c000400007080" +
		"0300002802010000" + "80010007800e0080800200028004000280030001800b0001000c000400007080" +
		"0300002403010000" + "80010005800200028004000e80030001800b0001000c000400007080" +
		"0000002404010000" + "80010005800200028004000280030001800b0001000c000400007080"
	for _, x := range []struct {
		msg  []byte
		want string
	}{{first, sa + vendors}, {second, legacy + vendors}} {
		if len(x.msg) < 28 {
			t.Fatal("no message")
		}
		want := fmt.Sprintf("%x", x.msg[:8]) + "0000000000000000" + "01100200" + "00000000" + fmt.Sprintf("%08x", 28+len(x.want)/2) + x.want
		if got := fmt.Sprintf("%x", x.msg); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestDialArguments(t *testing.T) {
	c := newCable(t, 1, false, nil)
	for name, change := range map[string]func(*Dial){
		"no secret":        func(d *Dial) { d.Peer.Secret = nil },
		"no local address": func(d *Dial) { d.Path.Local = netip.MustParseAddrPort("0.0.0.0:500") },
		"no path":          func(d *Dial) { d.Path = ipsec.Path{} },
		"two families":     func(d *Dial) { d.Path.Local = netip.MustParseAddrPort("[2001:db8::1]:500") },
		"no port":          func(d *Dial) { d.Path.Remote = netip.AddrPortFrom(serverAddr, 0) },
		"multicast":        func(d *Dial) { d.Path.Remote = netip.MustParseAddrPort("224.0.0.1:500") },
		"long identity":    func(d *Dial) { d.ID = strings.Repeat("x", 256) },
		"empty key id":     func(d *Dial) { d.ID = "keyid:" },
		"nothing to offer": func(d *Dial) { d.Peer.Profile.Groups = nil },
		"unknown PFS":      func(d *Dial) { d.Peer.Proposal.PFS = 99 },
	} {
		d := c.caller()
		change(&d)
		if m, err := c.a.e.Dial(c.now, d); err == nil || m != 0 {
			t.Errorf("%s accepted", name)
		}
	}
	c.empty(c.a)
	c.a.e.Close(c.now)
	if _, err := c.a.e.Dial(c.now, c.caller()); err == nil {
		t.Error("a closed engine dials")
	}
	for text, want := range map[string]isakmp.IDType{
		"": isakmp.IDIPv4, "10.1.2.3": isakmp.IDIPv4, "2001:db8::1": isakmp.IDIPv6, "a@b": isakmp.IDUserFQDN, "vpn.example": isakmp.IDFQDN, "keyid:x@y": isakmp.IDKeyID,
	} {
		if id, err := parseIdentity(text, serverAddr); err != nil || id.Type != want {
			t.Errorf("%q: %v %v", text, id, err)
		}
	}
}

// TestDialFailures: each way to fail says what happened and what mends it, once.
func TestDialFailures(t *testing.T) {
	quiet := func(c *cable) { // a server that never refuses in words
		c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
			if h := exchangeOf(msg); h.Exchange == isakmp.Informational && h.Flags == 0 {
				return p, nil
			}
			return p, msg
		}
	}
	for _, x := range []struct {
		name   string
		server func(*Config)
		set    func(c *cable, d *Dial)
		cause  DialCause
		reason string
		within time.Duration
		notify isakmp.NotifyType
	}{
		{name: "no answer", set: func(c *cable, d *Dial) { c.blocked = true }, cause: DialNoAnswer, reason: "no answer from 198.51.100.1:500", within: 20 * time.Second},
		{name: "no answer to either list", set: func(c *cable, d *Dial) { c.blocked = true; d.Peer.Profile.Ciphers = nil }, cause: DialNoAnswer, reason: "UDP 500 and 4500", within: 40 * time.Second},
		{name: "no common proposal", server: func(cfg *Config) { cfg.Peers[0].Profile.Groups = []Group{MODP4096} },
			cause: DialNoProposal, reason: "accepts none of aes-256/sha256/ecp256", within: 3 * time.Second, notify: isakmp.NoProposalChosen},
		{name: "wrong secret", set: func(c *cable, d *Dial) { d.Peer.Secret = ipsec.Secret("guess") }, cause: DialSecret, reason: "pre-shared key differs", within: 4 * time.Second},
		{name: "wrong secret, silent server", set: func(c *cable, d *Dial) { d.Peer.Secret = ipsec.Secret("guess"); quiet(c) }, cause: DialSecret, reason: "pre-shared key differs", within: 25 * time.Second},
		{name: "wrong secret, aggressive", server: func(cfg *Config) { cfg.Peers[0].Exchange = Aggressive },
			set: func(c *cable, d *Dial) { d.Peer.Secret = ipsec.Secret("guess"); d.Peer.Exchange = Aggressive }, cause: DialSecret, reason: "proof cannot be verified", within: 6 * time.Second},
		{name: "silence after message 2", set: func(c *cable, d *Dial) {
			c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
				if exchangeOf(msg).Next != isakmp.PayloadSA {
					return p, nil
				}
				return p, msg
			}
		}, cause: DialSilence, reason: "fell silent", within: 25 * time.Second},
		{name: "no common suite", server: func(cfg *Config) { cfg.Peers[0].Proposal.Suites = cfg.Peers[0].Proposal.Suites[:1] },
			cause: DialNoSuite, reason: "no common phase 2 proposal (NO-PROPOSAL-CHOSEN)", within: 5 * time.Second},
		{name: "no answer to quick mode", set: func(c *cable, d *Dial) {
			c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
				if exchangeOf(msg).Exchange == isakmp.Quick {
					return p, nil
				}
				return p, msg
			}
		}, cause: DialSilence, reason: "does not answer quick mode", within: 80 * time.Second},
		{name: "not an L2TP server", server: func(cfg *Config) { cfg.Ports = []uint16{1702} }, cause: DialSelector, reason: "UDP 1701", within: 5 * time.Second},
		{name: "data plane", set: func(c *cable, d *Dial) { c.a.data.FailNext(ipsectest.OpInstall, errors.New("no ESP")) }, cause: DialBackend, reason: "no ESP", within: 5 * time.Second},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCable(t, 3, false, x.server)
			d := c.caller()
			if x.set != nil {
				x.set(c, &d)
			}
			m := c.dial(d)
			c.run(x.within)
			if len(c.a.fails) != 1 || len(c.a.downs) != 1 || c.a.marks[0] != m || len(c.a.ups) != 0 {
				t.Fatalf("fails %v downs %v\n%s", c.a.fails, c.a.downs, c.a.log)
			}
			err := c.a.fails[0]
			if err.Cause != x.cause || !strings.Contains(err.Error(), x.reason) || c.a.downs[0] != err.Reason || x.notify != 0 && err.Notify != x.notify {
				t.Errorf("%v (%v): %s", err.Cause, err.Notify, err)
			}
			c.empty(c.a)
		})
	}
}

// TestDialForgedRefusal: a refusal that anybody can forge does not end a call that the server answers.
func TestDialForgedRefusal(t *testing.T) {
	c := newCable(t, 1, false, nil)
	c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		h := exchangeOf(msg)
		n := isakmp.Notification{DOI: 1, Protocol: isakmp.ProtoISAKMP, Type: isakmp.NoProposalChosen}
		forged := isakmp.Header{Initiator: h.Initiator, Responder: isakmp.Cookie{9}, Next: isakmp.PayloadNotify, Exchange: isakmp.Informational}.Append(nil)
		forged = isakmp.AppendPayloads(forged, []isakmp.Payload{{Type: isakmp.PayloadNotify, Body: n.Append(nil)}})
		isakmp.SetLength(forged)
		c.a.e.Receive(c.now, ipsec.Path{Local: p.Remote, Remote: p.Local}, forged)
		return p, msg
	}
	c.up(c.caller())
}

// TestDialReflection: what we send, sent back to us, has no effect.
func TestDialReflection(t *testing.T) {
	c := newCable(t, 1, true, func(cfg *Config) { cfg.Peers[0].Profile.DPDInterval = 10 * time.Second })
	c.a.e.configure(testConfig()) // so that it would answer callers as well
	c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		c.a.e.Receive(c.now, ipsec.Path{Local: netip.AddrPortFrom(c.aAddr, p.Local.Port()), Remote: p.Local}, bytes.Clone(msg))
		return p, msg
	}
	d := c.caller()
	d.Peer.Profile.DPDInterval = 5 * time.Second
	m := c.up(d)
	c.run(time.Minute)
	if s := c.a.e.Snapshot(c.now); s.Clients != 1 || len(s.Peers) != 1 {
		t.Errorf("%+v", s)
	}
	c.blocked = true // our own probes come back, and are no sign of life
	c.toB = nil
	send := c.a.e.env.Send
	c.a.e.env.Send = func(p ipsec.Path, msg []byte) {
		send(p, msg)
		back := bytes.Clone(msg)
		c.a.e.later(func() { c.a.e.Receive(c.now, p, back) })
	}
	c.run(time.Minute)
	if len(c.a.downs) != 1 || c.a.marks[0] != m || !strings.Contains(c.a.downs[0], "dead peer") {
		t.Errorf("downs %v", c.a.downs)
	}
	c.empty(c.a)
}

// TestDialOtherAddress: the server answers from another address than the one dialed.
func TestDialOtherAddress(t *testing.T) {
	c := newCable(t, 1, false, nil)
	c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		p.Local = netip.AddrPortFrom(netip.MustParseAddr("198.51.100.2"), p.Local.Port())
		return p, msg
	}
	m := c.up(c.caller())
	for _, sa := range c.a.data.SAs() {
		if sa.Remote != netip.MustParseAddr("198.51.100.2") {
			t.Errorf("%+v", sa)
		}
	}
	if c.a.ups[0].Remote.Addr() != netip.MustParseAddr("198.51.100.2") {
		t.Errorf("%+v", c.a.ups[0])
	}
	c.a.e.ClosePeer(c.now, m, "enough")
	c.empty(c.a)
}

// TestDialDialects: a server that knows no more than a draft of NAT traversal, or nothing.
func TestDialDialects(t *testing.T) {
	for _, x := range []struct {
		known []isakmp.VendorID
		udp   bool
		encap uint64
	}{
		{[]isakmp.VendorID{isakmp.VendorRFC3947}, true, isakmp.EncapUDPTransport},
		{[]isakmp.VendorID{isakmp.VendorNATTDraft03}, true, isakmp.EncapUDPTransportDraft},
		{[]isakmp.VendorID{isakmp.VendorNATTDraft02N}, true, isakmp.EncapUDPTransportDraft},
		{[]isakmp.VendorID{isakmp.VendorNATTDraft02}, true, isakmp.EncapUDPTransportDraft},
		{nil, false, isakmp.EncapTransport},
	} {
		c := newCable(t, 1, true, nil)
		if !x.udp { // plain ESP passes no NAT
			c = newCable(t, 1, false, nil)
		}
		c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
			h := exchangeOf(msg)
			if !h.Responder.IsZero() {
				return p, msg
			}
			list, _, _ := isakmp.ParsePayloads(h.Next, msg[isakmp.HeaderLen:], false)
			list = slices.DeleteFunc(list, func(x2 isakmp.Payload) bool {
				v, _ := isakmp.IdentifyVendor(x2.Body)
				_, natt := v.ID.NATT()
				return x2.Type == isakmp.PayloadVendor && natt && !slices.Contains(x.known, v.ID)
			})
			msg = isakmp.AppendPayloads(h.Append(nil), list)
			isakmp.SetLength(msg)
			return p, msg
		}
		c.up(c.caller())
		for _, ch := range c.a.e.children {
			if ch.choice.encap != x.encap {
				t.Errorf("%v: encapsulation %d", x.known, ch.choice.encap)
			}
		}
	}
}

// TestDialPFSDemanded: a server that refuses phase 2 without perfect forward secrecy gets it with.
func TestDialPFSDemanded(t *testing.T) {
	c := newCable(t, 1, true, func(cfg *Config) { cfg.Peers[0].Proposal.PFS = ECP256 })
	d := c.caller()
	d.Peer.Proposal.Lifetime = 10 * time.Minute
	c.up(d)
	for range 30 {
		c.run(time.Minute)
		if err := c.traffic(); err != nil {
			t.Fatal(err)
		}
	}
	if s := c.a.e.Snapshot(c.now); s.SAs[0].PFS != ECP256 || len(c.a.downs) != 0 {
		t.Errorf("%+v %v", s.SAs, c.a.downs)
	}
}

// TestDialHangUpAnyTime: hanging up in any stage of the call leaves nothing and is told once.
func TestDialHangUpAnyTime(t *testing.T) {
	for ms := time.Duration(0); ms < 300; ms += 10 {
		c := newCable(t, uint64(ms), true, nil)
		m := c.dial(c.caller())
		c.run(ms * time.Millisecond)
		c.a.e.ClosePeer(c.now, m, "changed my mind")
		c.run(time.Minute)
		if !slices.Equal(c.a.downs, []string{"changed my mind"}) || len(c.a.fails) != 0 {
			t.Fatalf("after %d ms: downs %v fails %v", ms, c.a.downs, c.a.fails)
		}
		c.empty(c.a)
		c.a.e.ClosePeer(c.now, m, "again")
	}
}

// TestDialServerLeaves: the server says goodbye, fast or slowly; dialing again then is its caller's affair.
func TestDialServerLeaves(t *testing.T) {
	for _, slow := range []bool{false, true} {
		c := newCable(t, 1, true, nil)
		c.up(c.caller())
		if slow {
			for _, ch := range c.b.e.children {
				ch.sayDelete(c.now)
				ch.remove(c.now, "maintenance")
			}
			c.run(500 * time.Millisecond)
		}
		c.b.e.ClosePeer(c.now, c.b.ups[0].Mark, "maintenance")
		c.run(time.Minute)
		if len(c.a.downs) != 1 || !strings.Contains(c.a.downs[0], "deleted") {
			t.Fatalf("downs %v\n%s", c.a.downs, c.a.log)
		}
		c.empty(c.a)
	}
}

// TestDialMends: what the server lets go of alone is done again, without a word to whoever dialed.
func TestDialMends(t *testing.T) {
	c := newCable(t, 1, true, nil)
	c.up(c.caller())
	for _, ch := range c.b.e.children {
		ch.sayDelete(c.now)
		ch.remove(c.now, "test")
	}
	c.b.e.flush()
	c.run(5 * time.Second)
	if err := c.traffic(); err != nil {
		t.Fatal(err)
	}
	old := c.phase1(c.b)
	old.sayDelete(c.now)
	old.remove()
	c.run(5 * time.Second)
	if err := c.traffic(); err != nil {
		t.Fatal(err)
	}
	if x := c.phase1(c.a); x == nil || c.phase1(c.b) == nil || x.id != c.phase1(c.b).id {
		t.Error("phase 1 is not mended")
	}
	if len(c.a.downs) != 0 || len(c.a.ups) != 1 {
		t.Errorf("ups %d downs %v", len(c.a.ups), c.a.downs)
	}
}

// TestDialSpiteful: a server that takes every pair back at once does not keep us busy for ever.
func TestDialSpiteful(t *testing.T) {
	c := newCable(t, 1, false, nil)
	m := c.up(c.caller())
	for range 60 {
		for _, ch := range c.b.e.children {
			ch.sayDelete(c.now)
			ch.remove(c.now, "test")
		}
		c.run(time.Second)
	}
	if len(c.a.downs) != 1 || c.a.marks[0] != m || !strings.Contains(c.a.downs[0], "took it back") {
		t.Errorf("downs %v", c.a.downs)
	}
	c.empty(c.a)
}

// TestDialServerRestarts: the server forgets everything without a word. Dead peer detection notices, and the next call
// announces that it is the first.
func TestDialServerRestarts(t *testing.T) {
	c := newCable(t, 1, true, nil)
	c.up(c.caller())
	cfg := c.b.e.cfg
	c.b = newSide(99, cfg, func(p ipsec.Path, msg []byte) { c.put(false, p, msg) }, nil)
	c.run(5 * time.Minute)
	if len(c.a.downs) != 1 || !strings.Contains(c.a.downs[0], "dead peer") {
		t.Fatalf("downs %v", c.a.downs)
	}
	c.empty(c.a)
	c.a.ups, c.a.downs = nil, nil
	c.up(c.caller())

	// And now the caller restarts; the server has the old call until it hears of the new one.
	c.a = newSide(98, Config{}, func(p ipsec.Path, msg []byte) { c.put(true, p, msg) }, c.a.e.env.Keepalive)
	c.b.ups = nil
	c.up(c.caller())
	if s := c.b.e.Snapshot(c.now); s.Clients != 1 || len(c.b.downs) != 1 {
		t.Errorf("server has %d clients, downs %v", s.Clients, c.b.downs)
	}
}

// TestDialBusy: workers that are busy delay a call and do not end it.
func TestDialBusy(t *testing.T) {
	for seed := range uint64(10) {
		c := newCable(t, seed, seed%2 == 0, func(cfg *Config) {
			if seed%3 == 0 {
				cfg.Peers[0].Exchange = Aggressive
			}
		})
		r := rand.New(rand.NewPCG(seed, 1))
		var jobs []func() func(time.Time)
		c.a.e.env.Offload = func(work func() func(time.Time)) bool {
			if r.IntN(3) == 0 {
				return false
			}
			jobs = append(jobs, work)
			return true
		}
		d := c.caller()
		d.Peer.Proposal.PFS = ECP256
		if seed%3 == 0 {
			d.Peer.Exchange = Aggressive
		}
		c.dial(d)
		for range 1200 {
			c.run(50 * time.Millisecond)
			for _, work := range jobs {
				work()(c.now)
			}
			jobs = nil
		}
		if len(c.a.ups) != 1 {
			t.Fatalf("seed %d: not up: %v\n%s\n%+v\n%+v %s", seed, c.a.fails, c.a.log, c.a.e.Snapshot(c.now), c.b.e.Snapshot(c.now), c.b.log)
		}
	}
}

// TestDialLateWork: what a worker brings after the call has ended is ignored.
func TestDialLateWork(t *testing.T) {
	for stop := range 4 {
		c := newCable(t, 1, true, nil)
		var jobs []func() func(time.Time)
		c.a.e.env.Offload = func(work func() func(time.Time)) bool { jobs = append(jobs, work); return true }
		d := c.caller()
		d.Peer.Proposal.PFS = ECP256
		m := c.dial(d)
		for i := 0; i <= stop; i++ {
			c.run(200 * time.Millisecond)
			if len(jobs) == 0 {
				t.Fatal("nothing to do")
			}
			done := jobs[0]()
			jobs = jobs[1:]
			if i == stop {
				c.a.e.ClosePeer(c.now, m, "enough")
			}
			done(c.now)
		}
		c.run(time.Minute)
		if len(c.a.downs) != 1 || len(c.a.ups) != 0 {
			t.Errorf("downs %v", c.a.downs)
		}
		c.empty(c.a)
	}
}

// TestDialReconfigure: the server's part of the configuration does not touch calls.
func TestDialReconfigure(t *testing.T) {
	c := newCable(t, 1, true, nil)
	c.dial(c.caller())
	c.a.e.Reconfigure(c.now, testConfig())
	c.run(5 * time.Second)
	c.a.e.Reconfigure(c.now, Config{})
	c.run(5 * time.Second)
	if len(c.a.ups) != 1 || len(c.a.downs) != 0 {
		t.Errorf("ups %d downs %v", len(c.a.ups), c.a.downs)
	}
	c.a.e.Close(c.now)
	c.run(time.Second)
	if len(c.a.downs) != 1 || len(c.b.downs) != 1 {
		t.Errorf("downs %v %v", c.a.downs, c.b.downs)
	}
	c.empty(c.a)
}
