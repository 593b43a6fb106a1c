package ikev1

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// reseal lets a test change what is inside an encrypted message of the server: change gets the payloads behind HASH and
// returns others. It knows the keys from the caller and puts the new IV where the server expects its next message.
func (c *cable) reseal(msg []byte, change func([]isakmp.Payload) []isakmp.Payload) []byte {
	h := exchangeOf(msg)
	m := &message{Header: h, raw: msg}
	sa, sb := c.a.e.sas[cookies{h.Initiator, h.Responder}], c.b.e.sas[cookies{h.Initiator, h.Responder}]
	switch h.Exchange {
	case isakmp.Main: // message 6
		plain, _, err := sa.crypt.open(sa.iv, m.body())
		if err != nil {
			c.t.Fatal(err)
		}
		list, _, err := isakmp.ParsePayloads(h.Next, plain, true)
		if err != nil {
			c.t.Fatal(err)
		}
		list = change(list)
		id, _ := single(list, isakmp.PayloadID)
		for i := range list {
			if list[i].Type == isakmp.PayloadHash {
				list[i].Body = sa.keys.authHash(sa.gr, sa.gi, sa.id.responder, sa.id.initiator, sa.saBody, id)
			}
		}
		out, next := sa.sealed(isakmp.Main, 0, sa.iv, list)
		sb.iv = next
		return out
	case isakmp.Quick: // message 2
		q := sa.quicks[h.MessageID]
		list, _, _, _, _, err := sa.openHashed(q.iv, m)
		if err != nil {
			c.t.Fatal(err)
		}
		out, next := sa.hashed(isakmp.Quick, h.MessageID, q.iv, change(list), func(rest []byte) []byte { return sa.keys.hash2(q.mid, q.ni, rest) })
		sb.quicks[h.MessageID].iv = next
		return out
	}
	return msg
}

// onceQuick2 changes the first message 2 of quick mode.
func (c *cable) onceQuick2(change func([]isakmp.Payload) []isakmp.Payload) {
	done := false
	c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		if exchangeOf(msg).Exchange == isakmp.Quick && !done {
			done = true
			msg = c.reseal(msg, change)
		}
		return p, msg
	}
}

// TestDialFourthMessage: Windows Server sends a fourth message of quick mode, on the same message id and with the commit
// bit before it. It has no effect, not even when it is repeated after the exchange is forgotten.
func TestDialFourthMessage(t *testing.T) {
	c := newCable(t, 1, true, nil)
	var fourth []byte
	c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		h := exchangeOf(msg)
		sa := c.a.e.sas[cookies{h.Initiator, h.Responder}]
		if h.Exchange == isakmp.Quick && fourth == nil && sa.quicks[h.MessageID] != nil && sa.quicks[h.MessageID].state == quickDone {
			n := isakmp.Notification{DOI: 1, Protocol: isakmp.ProtoESP, SPI: be32(0x1234), Type: isakmp.NotifyConnected}
			list := []isakmp.Payload{{Type: isakmp.PayloadNotify, Body: n.Append(nil)}}
			fourth, _ = sa.hashed(isakmp.Quick, h.MessageID, msg[len(msg)-16:], list, func(rest []byte) []byte { return sa.keys.hash1(h.MessageID, rest) })
			fourth[19] |= 2 // commit
		}
		return p, msg
	}
	c.up(c.caller())
	if fourth == nil {
		t.Fatal("no message 3")
	}
	before := c.a.e.Snapshot(c.now)
	p := c.phase1(c.a).path
	for _, wait := range []time.Duration{0, time.Second, time.Minute} {
		c.run(wait)
		c.a.e.Receive(c.now, p, bytes.Clone(fourth))
	}
	after := c.a.e.Snapshot(c.now)
	if len(after.SAs) != len(before.SAs) || after.SAs[0].SPI != before.SAs[0].SPI || after.Drops["state"]+after.Drops["replay"] < 3 {
		t.Errorf("%+v\n%+v", before, after)
	}
	c.useAndCheck(2*time.Hour, time.Minute)
	if len(c.a.downs) != 0 {
		t.Error(c.a.downs)
	}
}

// TestDialChangedIDs: servers that answer quick mode with identities of their own.
func TestDialChangedIDs(t *testing.T) {
	id := func(a string, proto uint8, port uint16) []byte {
		return isakmp.IDFromAddr(netip.MustParseAddr(a), proto, port).Append(nil)
	}
	name := isakmp.ID{Type: isakmp.IDFQDN, Protocol: 17, Port: 1701, Data: []byte("vpn.example")}.Append(nil)
	for _, x := range []struct {
		name string
		port uint16
		ids  [][]byte
		ok   bool
		want uint16 // local port of the selector
	}{
		{"as sent", 1701, [][]byte{id("192.168.1.34", 17, 1701), id("198.51.100.1", 17, 1701)}, true, 1701},
		{"public addresses", 1701, [][]byte{id("203.0.113.9", 17, 1701), id("10.1.1.1", 17, 1701)}, true, 1701},
		{"names", 1701, [][]byte{name, name}, true, 1701},
		{"none", 1701, nil, true, 1701},
		{"any", 1701, [][]byte{id("203.0.113.9", 0, 0), id("10.1.1.1", 0, 0)}, true, 1701},
		{"narrowed", 0, [][]byte{id("203.0.113.9", 17, 1701), id("10.1.1.1", 17, 1701)}, true, 1701},
		{"open", 0, [][]byte{id("203.0.113.9", 17, 0), id("10.1.1.1", 17, 1701)}, true, 0},
		{"another port of ours", 1701, [][]byte{id("203.0.113.9", 17, 1702), id("10.1.1.1", 17, 1701)}, false, 0},
		{"another port of the server", 1701, [][]byte{id("203.0.113.9", 17, 1701), id("10.1.1.1", 17, 53)}, false, 0},
		{"TCP", 1701, [][]byte{id("203.0.113.9", 6, 1701), id("10.1.1.1", 6, 1701)}, false, 0},
		{"one", 1701, [][]byte{id("203.0.113.9", 17, 1701)}, false, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCable(t, 1, true, nil)
			c.onceQuick2(func(list []isakmp.Payload) []isakmp.Payload {
				list = slices.DeleteFunc(list, func(p isakmp.Payload) bool { return p.Type == isakmp.PayloadID })
				for _, b := range x.ids {
					list = append(list, isakmp.Payload{Type: isakmp.PayloadID, Body: b})
				}
				return list
			})
			d := c.caller()
			d.LocalPort = x.port
			if !x.ok {
				c.dial(d)
				c.run(5 * time.Second)
				if len(c.a.ups) != 0 || len(c.a.fails) != 1 || c.a.fails[0].Cause != DialSelector {
					t.Errorf("ups %d fails %v", len(c.a.ups), c.a.fails)
				}
				return
			}
			c.up(d)
			if c.a.ups[0].LocalPort != x.want {
				t.Errorf("%+v", c.a.ups[0])
			}
		})
	}
}

// TestDialSoftEther: a server that makes every client believe in a NAT, shows itself as 0.0.0.0, and has no better hash
// in phase 2 than SHA1.
func TestDialSoftEther(t *testing.T) {
	c := newCable(t, 1, false, func(cfg *Config) {
		s := &cfg.Peers[0].Proposal.Suites
		*s = slices.DeleteFunc(*s, func(x ipsec.Suite) bool { return x.Integrity != ipsec.HMACSHA1 })
	})
	c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		h := exchangeOf(msg)
		switch {
		case h.Exchange == isakmp.Main && h.Next == isakmp.PayloadKE:
			list, _, _ := isakmp.ParsePayloads(h.Next, msg[isakmp.HeaderLen:], false)
			i := slices.IndexFunc(list, func(p isakmp.Payload) bool { return p.Type == isakmp.PayloadNATD })
			list[i].Body = bytes.Repeat([]byte{0x5a}, len(list[i].Body))
			msg = isakmp.AppendPayloads(h.Append(nil), list)
			isakmp.SetLength(msg)
			c.phase1(c.b).peerNAT = true // as it wants to have it
		case h.Exchange == isakmp.Main && h.Next == isakmp.PayloadID:
			msg = c.reseal(msg, func(list []isakmp.Payload) []isakmp.Payload {
				for i := range list {
					if list[i].Type == isakmp.PayloadID {
						list[i].Body = isakmp.IDFromAddr(netip.MustParseAddr("0.0.0.0"), 0, 0).Append(nil)
					}
				}
				return list
			})
		}
		return p, msg
	}
	d := c.caller()
	d.Peer = NewServer("softether", ipsec.Secret("mySecret"))
	c.up(d)
	if i := c.a.ups[0]; !i.UDP || i.Identity != "0.0.0.0" || i.Suite.Integrity != ipsec.HMACSHA1 {
		t.Errorf("%+v", i)
	}
	if s := c.a.e.Snapshot(c.now); s.Peers[0].NATT != "local" {
		t.Errorf("%+v", s.Peers)
	}
}

// TestDialResponderLifetime: a server that wants less than was offered gets it.
func TestDialResponderLifetime(t *testing.T) {
	attrs := isakmp.Basic(isakmp.P2LifeType, isakmp.LifeSeconds).Append(nil)
	attrs = isakmp.Variable32(isakmp.P2LifeDuration, 600).Append(attrs)
	n := isakmp.Notification{DOI: 1, Protocol: isakmp.ProtoESP, SPI: be32(1), Type: isakmp.NotifyResponderLifetime, Data: attrs}
	c := newCable(t, 1, false, nil)
	c.onceQuick2(func(list []isakmp.Payload) []isakmp.Payload {
		return append(list, isakmp.Payload{Type: isakmp.PayloadNotify, Body: n.Append(nil)})
	})
	c.up(c.caller())
	if s := c.a.e.Snapshot(c.now); s.SAs[0].Lifetime != 10*time.Minute {
		t.Errorf("lifetime %v", s.SAs[0].Lifetime)
	}
}

// TestDialMessage3Lost: a server that never repeats message 2 gets message 3 again until something comes in.
func TestDialMessage3Lost(t *testing.T) {
	c := newCable(t, 1, false, nil)
	lost := 0
	c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		h := exchangeOf(msg)
		sa := c.a.e.sas[cookies{h.Initiator, h.Responder}]
		if h.Exchange == isakmp.Quick && sa.quicks[h.MessageID] != nil && sa.quicks[h.MessageID].state == quickDone && lost < 1 {
			lost++
			return p, nil
		}
		return p, msg
	}
	quick2 := 0
	c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		if exchangeOf(msg).Exchange == isakmp.Quick {
			if quick2++; quick2 > 1 {
				return p, nil
			}
		}
		return p, msg
	}
	c.up(c.caller())
}

// TestDialImpostor: a client of ours that knows the secret for clients cannot pass for a server that we have called, even
// from its address and port and by its name.
func TestDialImpostor(t *testing.T) {
	c := newCable(t, 1, false, nil)
	server := testConfig()
	server.Peers[0].Secret, server.Peers[0].Exchange = ipsec.Secret("for clients"), Aggressive
	c.a.e.configure(server)
	m := c.up(c.caller())
	evil := newCable(t, 2, false, nil)
	evil.now = c.now
	evil.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		c.a.e.Receive(evil.now, ipsec.Path{Local: netip.AddrPortFrom(c.aAddr, 500), Remote: netip.AddrPortFrom(c.bAddr, 500)}, msg)
		return p, nil
	}
	forward := c.a.e.env.Send
	c.a.e.env.Send = func(p ipsec.Path, msg []byte) {
		evil.a.e.Receive(evil.now, ipsec.Path{Local: netip.AddrPortFrom(evil.aAddr, 500), Remote: netip.AddrPortFrom(evil.bAddr, 500)}, bytes.Clone(msg))
	}
	d := evil.caller()
	d.Peer.Secret, d.Peer.Exchange, d.Peer.Profile.NATTraversal, d.ID = ipsec.Secret("for clients"), Aggressive, false, c.bAddr.String()
	evil.dial(d)
	evil.run(5 * time.Second)
	if len(evil.a.ups) != 1 {
		t.Fatalf("it is a client like any other: %v", evil.a.fails)
	}
	cl := c.a.e.clients[m]
	if len(c.a.e.clients) != 2 || len(cl.phase1s) != 1 || len(cl.children) != 1 || len(c.a.downs) != 0 {
		t.Errorf("%d clients; the call has %d ISAKMP SAs and %d pairs, downs %v", len(c.a.e.clients), len(cl.phase1s), len(cl.children), c.a.downs)
	}
	c.a.e.env.Send, c.now = forward, evil.now
	if err := c.traffic(); err == nil {
		return
	}
	c.a.data.outs = slices.DeleteFunc(c.a.data.outs, func(id ipsec.SAID) bool { return id.Mark != m }) // the other client's is newer
	if err := c.traffic(); err != nil {
		t.Error(err)
	}
}

// TestDialMutations damages every message of the server on its way; the call comes up by what is repeated, and nothing
// damaged is believed.
func TestDialMutations(t *testing.T) {
	for seed := range uint64(60) {
		c := newCable(t, seed, seed%2 == 0, func(cfg *Config) {
			if seed%3 == 0 {
				cfg.Peers[0].Exchange = Aggressive
			}
		})
		r := rand.New(rand.NewPCG(seed, 77))
		c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
			h := exchangeOf(msg)
			if h.Exchange == isakmp.Quick || h.Flags&isakmp.Encrypted != 0 { // what is authentic
				for range 3 {
					c.a.e.Receive(c.now, p, mutate(r, msg))
				}
			}
			return p, msg
		}
		d := c.caller()
		if seed%3 == 0 {
			d.Peer.Exchange = Aggressive
		}
		d.Peer.Proposal.PFS = ECP256
		c.up(d)
	}
}

// FuzzDial is a hostile server that says anything at any stage of the call.
func FuzzDial(f *testing.F) {
	t := &testing.T{}
	for _, nat := range []bool{false, true} {
		c := newCable(t, 1, nat, nil)
		c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
			f.Add(uint8(c.n), p.Local.Port() == 4500, bytes.Clone(msg))
			return p, msg
		}
		c.dial(c.caller())
		c.run(5 * time.Second)
	}
	f.Fuzz(func(t *testing.T, stage uint8, aggressive bool, msg []byte) {
		c := newCable(t, 1, true, func(cfg *Config) {
			if aggressive {
				cfg.Peers[0].Exchange = Aggressive
			}
		})
		n := 0
		c.toA = func(p ipsec.Path, real []byte) (ipsec.Path, []byte) {
			if n++; n == int(stage%5)+1 {
				c.a.e.Receive(c.now, p, bytes.Clone(msg))
				if len(msg) >= 16 { // and once with cookies that are known
					known := bytes.Clone(msg)
					copy(known, real[:16])
					c.a.e.Receive(c.now, p, known)
					if len(known) >= 28 {
						copy(known, real[:24])
						binary.BigEndian.PutUint32(known[24:], uint32(len(known)))
						c.a.e.Receive(c.now, p, known)
					}
				}
				return p, nil
			}
			return p, real
		}
		d := c.caller()
		if aggressive {
			d.Peer.Exchange = Aggressive
		}
		m := c.dial(d)
		c.run(2 * time.Minute)
		for _, sa := range c.a.data.SAs() {
			if err := sa.Validate(); err != nil {
				t.Fatal(err)
			}
		}
		c.a.e.ClosePeer(c.now, m, "enough")
		c.run(time.Second)
		if len(c.a.downs) != 1 {
			t.Fatalf("downs %v", c.a.downs)
		}
		c.empty(c.a)
	})
}

// FuzzDialInside is a server that has the secret, and says anything in message 2 of quick mode.
func FuzzDialInside(f *testing.F) {
	list := []isakmp.Payload{{Type: isakmp.PayloadSA, Body: oneProposal(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA1, 2))}, {Type: isakmp.PayloadNonce, Body: make([]byte, 16)}}
	f.Add(uint8(isakmp.PayloadSA), isakmp.AppendPayloads(nil, list))
	f.Add(uint8(isakmp.PayloadNonce), isakmp.AppendPayloads(nil, list[1:]))
	f.Add(uint8(isakmp.PayloadID), isakmp.AppendPayloads(nil, []isakmp.Payload{{Type: isakmp.PayloadID, Body: make([]byte, 8)}, {Type: isakmp.PayloadID, Body: make([]byte, 8)}}))
	f.Fuzz(func(t *testing.T, next uint8, inner []byte) {
		c := newCable(t, 1, false, nil)
		c.toA = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
			h := exchangeOf(msg)
			sa := c.a.e.sas[cookies{h.Initiator, h.Responder}]
			if h.Exchange != isakmp.Quick || sa == nil || sa.quicks[h.MessageID] == nil {
				return p, msg
			}
			q := sa.quicks[h.MessageID]
			hash := sa.keys.hash2(q.mid, q.ni, inner)
			body := append([]byte{next, 0, 0, byte(4 + len(hash))}, hash...)
			sealed, _ := sa.crypt.seal(q.iv, append(body, inner...))
			out := append(sa.header(isakmp.Quick, q.mid, isakmp.Encrypted, isakmp.PayloadHash), sealed...)
			isakmp.SetLength(out)
			return p, out
		}
		d := c.caller()
		m := c.dial(d)
		c.run(90 * time.Second)
		for _, sa := range c.a.data.SAs() {
			if err := sa.Validate(); err != nil {
				t.Fatal(err)
			}
			if sa.Suite.Integrity == ipsec.IntegrityNone && !sa.Suite.AEAD() || sa.Selector.RemotePort != 1701 || sa.Selector.LocalPort != 1701 {
				t.Fatalf("%+v", sa)
			}
		}
		c.a.e.ClosePeer(c.now, m, "enough")
		c.run(time.Second)
		c.empty(c.a)
	})
}
