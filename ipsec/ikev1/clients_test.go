package ikev1

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
	"culvert/ipsec/isakmp/isakmptest"
)

// clientCase is one client as it is in the field: what it sends, and what it must be given.
type clientCase struct {
	name     string
	client   isakmptest.Client
	nat      bool
	set      func(c *initiator)
	phase1   string
	suite    string
	software string
	mode     uint16 // encapsulation
	draft    bool
	check    func(t *testing.T, w *world, c *initiator)
}

func TestClients(t *testing.T) {
	for _, tc := range []clientCase{
		{
			name: "Windows 10", client: isakmptest.Windows, phase1: "aes-256/sha1/ecp384", suite: "aes-256-cbc/sha1",
			software: "Windows 8/10/11", mode: 2,
		},
		{
			name: "Windows 10 behind NAT", client: isakmptest.Windows, nat: true, phase1: "aes-256/sha1/ecp384", suite: "aes-256-cbc/sha1",
			software: "Windows 8/10/11", mode: 4, set: func(c *initiator) { c.sendOA = true },
			check: func(t *testing.T, w *world, c *initiator) {
				if oa := c.children[0].oa; len(oa) != 2 || oa[0] != c.float.Addr() || oa[1] != serverAddr {
					t.Errorf("NAT-OA %v", oa)
				}
				if w.ups[0].Private != c.private {
					t.Errorf("private address %v", w.ups[0].Private)
				}
				c.probes = nil
				w.clients = []*initiator{c}
				w.advance(30 * time.Minute)
				if len(c.probes) > 0 || len(w.downs) > 0 {
					t.Error("Windows was probed, which never answers")
				}
			},
		},
		{
			name: "Windows with KB818043: names as selectors", client: isakmptest.Windows, nat: true, phase1: "aes-256/sha1/ecp384",
			suite: "aes-256-cbc/sha1", software: "Windows 8/10/11", mode: 4,
			set: func(c *initiator) {
				c.ids = [][]byte{isakmp.ID{Type: isakmp.IDFQDN, Protocol: 17, Port: 1701, Data: []byte("pc.example")}.Append(nil),
					isakmp.IDFromAddr(serverAddr, 17, 1701).Append(nil)}
			},
		},
		{
			name: "Apple", client: isakmptest.Apple, nat: true, phase1: "aes-256/sha512/modp2048", suite: "aes-256-cbc/sha256",
			software: "macOS/iOS", mode: 4,
			set: func(c *initiator) {
				c.ids = [][]byte{isakmp.IDFromAddr(c.private, 17, 53312).Append(nil), isakmp.IDFromAddr(serverAddr, 17, 1701).Append(nil)}
				c.sendOA = true
			},
			check: func(t *testing.T, w *world, c *initiator) {
				for _, v := range c.vids {
					if v == isakmp.VendorAppleNATT {
						t.Error("Apple's vendor id was echoed")
					}
				}
				in, _ := w.pair(c, c.children[0])
				if in.Selector.RemotePort != 53312 || in.Selector.LocalPort != 1701 {
					t.Errorf("selector %+v", in.Selector)
				}
			},
		},
		{
			name: "old Mac with a wildcard port", client: isakmptest.Apple, phase1: "aes-256/sha512/modp2048", suite: "aes-256-cbc/sha256",
			software: "macOS/iOS", mode: 2,
			set: func(c *initiator) {
				c.ids = [][]byte{isakmp.IDFromAddr(c.private, 17, 0).Append(nil), isakmp.IDFromAddr(serverAddr, 17, 1701).Append(nil)}
			},
		},
		{
			name: "iPhone of old, with port 1701", client: isakmptest.Apple, nat: true, phase1: "aes-256/sha512/modp2048", suite: "aes-256-cbc/sha256",
			software: "macOS/iOS", mode: 4, set: func(c *initiator) { c.sendOA = true },
			check: func(t *testing.T, w *world, c *initiator) {
				if in, _ := w.pair(c, c.children[0]); in.Selector.RemotePort != 1701 || in.Selector.LocalPort != 1701 {
					t.Errorf("selector %+v", in.Selector)
				}
				if oa := c.children[0].oa; len(oa) != 2 || oa[0] != c.float.Addr() || oa[1] != serverAddr {
					t.Errorf("NAT-OA %v", oa)
				}
			},
		},
		{
			name: "Android 7", client: isakmptest.Android, nat: true, phase1: "aes-256/sha384/modp1024", suite: "aes-256-cbc/sha1",
			software: "Android", mode: 4,
			set: func(c *initiator) {
				c.ids = [][]byte{isakmp.IDFromAddr(c.private, 17, 0).Append(nil), isakmp.IDFromAddr(serverAddr, 17, 1701).Append(nil)}
			},
		},
		{
			name: "Android 7 in aggressive mode", client: isakmptest.Android, nat: true, phase1: "aes-256/sha384/modp1024", suite: "aes-256-cbc/sha1",
			software: "Android", mode: 4,
			set: func(c *initiator) {
				c.aggr, c.group, c.hash = true, MODP1024, isakmp.HashSHA384
				c.idBody = isakmp.ID{Type: isakmp.IDKeyID, Data: []byte("group")}.Append(nil)
			},
		},
		{
			name: "RouterOS with perfect forward secrecy", client: isakmptest.RouterOS, phase1: "aes-128/sha1/modp2048", suite: "aes-256-cbc/sha1",
			software: "RouterOS", mode: 2, set: func(c *initiator) { c.pfs = MODP1024 },
		},
		{
			name: "RouterOS behind NAT", client: isakmptest.RouterOS, nat: true, phase1: "aes-128/sha1/modp2048", suite: "aes-256-cbc/sha1",
			software: "RouterOS", mode: 4, set: func(c *initiator) { c.pfs = MODP1024 },
		},
		{
			name: "NetworkManager-l2tp", client: isakmptest.StrongSwan, nat: true, phase1: "aes-256/sha256/modp2048", suite: "aes-256-cbc/sha1",
			software: "strongSwan", mode: 4,
			set: func(c *initiator) {
				c.sendOA = true
				n := isakmp.Notification{DOI: 1, Protocol: 1, SPI: make([]byte, 16), Type: isakmp.NotifyInitialContact}
				c.extraMM5 = []isakmp.Payload{{Type: isakmp.PayloadNotify, Body: n.Append(nil)}}
			},
		},
		{
			name: "ChromeOS", client: isakmptest.StrongSwan, nat: true, phase1: "aes-128/sha256/modp3072", suite: "aes-128-gcm",
			software: "strongSwan", mode: 4,
			set: func(c *initiator) {
				c.main1 = replaceSA(c.main1, isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP, Transforms: []isakmp.Transform{
					p1(1, isakmp.EncAES, 128, isakmp.HashSHA256, 15), p1(2, isakmp.EncAES, 128, isakmp.HashSHA1, 14),
					p1(3, isakmp.Enc3DES, 0, isakmp.HashSHA1, 5), p1(4, isakmp.Enc3DES, 0, isakmp.HashSHA1, 2),
				}}))
				c.quickSA = isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoESP, SPI: be32(0x1000), Transforms: []isakmp.Transform{
					p2(1, isakmp.ESPAESGCM16, 128, 0, 4), p2(2, isakmp.ESPAES, 128, isakmp.AuthHMACSHA256, 4), p2(3, isakmp.ESPAES, 128, isakmp.AuthHMACSHA1, 4),
				}}).Append(nil)
			},
		},
		{
			name: "3DES-only router, NAT-T draft 03", client: isakmptest.LegacyCPE, nat: true, phase1: "3des/sha1/modp1024", suite: "3des/sha1",
			mode: isakmp.EncapUDPTransportDraft, draft: true, set: func(c *initiator) { c.sendOA = true },
			check: func(t *testing.T, w *world, c *initiator) {
				if oa := c.children[0].oa; len(oa) != 1 || oa[0] != serverAddr {
					t.Errorf("NAT-OA %v, the drafts have the sender's only", oa)
				}
			},
		},
		{
			name: "Windows 7 behind NAT", client: isakmptest.Windows, nat: true, phase1: "aes-256/sha1/ecp384", suite: "aes-256-cbc/sha1",
			software: "Windows 7", mode: 4, set: func(c *initiator) {
				c.main1 = bytes.Replace(c.main1, unhex(c.t, "1e2b516905991c7d7c96fcbfb587e46100000009"), unhex(c.t, "1e2b516905991c7d7c96fcbfb587e46100000007"), 1)
			},
		},
		{
			name: "Windows with NegotiateDH2048_AES256", client: isakmptest.Windows, phase1: "aes-256/sha1/modp2048", suite: "aes-256-cbc/sha1",
			software: "Windows 8/10/11", mode: 2, set: func(c *initiator) {
				c.main1 = replaceSA(c.main1, phase1SA(p1(1, isakmp.EncAES, 256, isakmp.HashSHA1, 14), p1(2, isakmp.Enc3DES, 0, isakmp.HashSHA1, 14)))
			},
		},
		{
			name: "Windows XP, NAT-T draft 02", client: isakmptest.Windows, nat: true, phase1: "3des/sha1/modp2048", suite: "3des/sha1",
			software: "Windows XP", mode: isakmp.EncapUDPTransportDraft, draft: true, set: func(c *initiator) {
				c.main1 = first(phase1SA(p1(1, isakmp.Enc3DES, 0, isakmp.HashSHA1, 14), p1(2, isakmp.Enc3DES, 0, isakmp.HashSHA1, 2), p1(3, isakmp.Enc3DES, 0, isakmp.HashMD5, 2)),
					vid(c.t, "1e2b516905991c7d7c96fcbfb587e46100000003"), vid(c.t, "4048b7d56ebce88525e7de7f00d6c2d3"), isakmp.VendorNATTDraft02N.Payload(),
					isakmp.VendorInitialContact.Payload())
				c.quickSA = phase2SA(p2(1, isakmp.ESP3DES, 0, isakmp.AuthHMACSHA1, isakmp.EncapUDPTransportDraft), p2(2, isakmp.ESP3DES, 0, isakmp.AuthHMACMD5, isakmp.EncapUDPTransportDraft),
					p2(3, isakmp.ESPDES, 0, isakmp.AuthHMACSHA1, isakmp.EncapUDPTransportDraft))
			},
		},
		{
			name: "iPhone with a group name, in aggressive mode", client: isakmptest.Apple, nat: true, phase1: "aes-256/sha512/modp2048", suite: "aes-256-cbc/sha256",
			software: "macOS/iOS", mode: 4, set: func(c *initiator) {
				c.aggr, c.group, c.hash = true, MODP2048, isakmp.HashSHA512
				c.idBody = isakmp.ID{Type: isakmp.IDKeyID, Data: []byte("employees")}.Append(nil)
			},
		},
		{
			name: "Android 5, without SHA-2", client: isakmptest.Android, nat: true, phase1: "aes-256/sha1/modp1024", suite: "aes-256-cbc/sha1",
			software: "Android", mode: 4, set: func(c *initiator) {
				var list []isakmp.Transform
				for _, enc := range [][2]uint16{{isakmp.EncAES, 256}, {isakmp.EncAES, 128}, {isakmp.Enc3DES, 0}, {isakmp.EncDES, 0}} {
					for _, hash := range []uint16{isakmp.HashSHA1, isakmp.HashMD5} {
						list = append(list, p1(uint8(len(list)+1), enc[0], enc[1], hash, 2))
					}
				}
				c.main1 = replaceSA(c.main1, phase1SA(list...))
			},
		},
		{
			name: "libreswan", client: isakmptest.StrongSwan, nat: true, phase1: "aes-256/sha512/x25519", suite: "aes-256-cbc/sha256",
			software: "libreswan", mode: 4, set: func(c *initiator) {
				c.main1 = first(phase1SA(p1(1, isakmp.EncAES, 256, isakmp.HashSHA256, 14), p1(2, isakmp.EncAES, 128, isakmp.HashSHA256, 14), p1(3, isakmp.EncAES, 256, isakmp.HashSHA512, 31),
					p1(4, isakmp.EncAES, 256, isakmp.HashSHA1, 5), p1(5, isakmp.Enc3DES, 0, isakmp.HashSHA1, 5)),
					vid(c.t, "4f4568794c64414365636661"), isakmp.VendorFragmentation.Payload(), isakmp.VendorDPD.Payload(), isakmp.VendorRFC3947.Payload(),
					isakmp.VendorNATTDraft03.Payload(), isakmp.VendorNATTDraft02N.Payload(), isakmp.VendorNATTDraft02.Payload())
				c.quickSA = phase2SA(p2(1, isakmp.ESPAES, 256, isakmp.AuthHMACSHA256, 4), p2(2, isakmp.ESPAES, 128, isakmp.AuthHMACSHA1, 4), p2(3, isakmp.ESP3DES, 0, isakmp.AuthHMACSHA1, 4))
				c.sendOA = true
			},
		},
		{
			name: "strongSwan with its old defaults", client: isakmptest.StrongSwan, phase1: "aes-128/sha1/modp2048", suite: "aes-128-cbc/sha1",
			software: "strongSwan", mode: 2, set: func(c *initiator) {
				c.main1 = replaceSA(c.main1, phase1SA(p1(1, isakmp.EncAES, 128, isakmp.HashSHA1, 14), p1(2, isakmp.Enc3DES, 0, isakmp.HashSHA1, 5)))
				c.quickSA = phase2SA(p2(1, isakmp.ESPAES, 128, isakmp.AuthHMACSHA1, 2), p2(2, isakmp.ESP3DES, 0, isakmp.AuthHMACSHA1, 2))
			},
		},
		{
			name: "RouterOS 6.16, main-l2tp", client: isakmptest.RouterOS, phase1: "aes-256/sha1/modp1024", suite: "aes-256-cbc/sha1",
			software: "RouterOS", mode: 2, set: func(c *initiator) {
				c.main1 = replaceSA(c.main1, phase1SA(p1(1, isakmp.Enc3DES, 0, isakmp.HashSHA1, 2), p1(2, isakmp.EncAES, 128, isakmp.HashSHA1, 2),
					p1(3, isakmp.EncAES, 192, isakmp.HashSHA1, 2), p1(4, isakmp.EncAES, 256, isakmp.HashSHA1, 2)))
				c.pfs = MODP1024
				c.ids = [][]byte{isakmp.IDFromAddr(c.private, 17, 1701).Append(nil), isakmp.IDFromAddr(serverAddr, 17, 1701).Append(nil)}
			},
		},
		{
			name: "no selectors at all", client: isakmptest.StrongSwan, phase1: "aes-256/sha256/modp2048", suite: "aes-256-cbc/sha1",
			software: "strongSwan", mode: 2, set: func(c *initiator) { c.noIDs = true },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, func(cfg *Config) {
				if strings.Contains(tc.name, "aggressive") {
					cfg.Peers[0].Exchange = Aggressive
				}
			})
			c := newInitiator(t, 3)
			if tc.nat {
				c.behindNAT("203.0.113.9", 61000, "192.168.1.34")
			}
			c.main1, c.quickSA = tc.client.Main1(), tc.client.QuickSA(tc.mode)
			if tc.set != nil {
				tc.set(c)
			}
			w.connect(c)
			if c.nated != tc.nat || c.serverNAT {
				t.Errorf("client sees NAT %v %v", c.nated, c.serverNAT)
			}
			in, out := w.pair(c, c.children[0])
			if tc.nat {
				want := ipsec.Encap{Local: 4500, Remote: 61001}
				if in.Encap != want || out.Encap != want {
					t.Errorf("encapsulation %v and %v", in.Encap, out.Encap)
				}
			} else if in.Encap != (ipsec.Encap{}) || out.Encap != (ipsec.Encap{}) {
				t.Errorf("encapsulation %v without NAT", in.Encap)
			}
			if in.Mode != ipsec.Transport || in.Remote != c.remote.Addr() || in.Local != serverAddr ||
				in.Selector.Remote != netip.PrefixFrom(c.remote.Addr(), 32) || in.Selector.Local != netip.PrefixFrom(serverAddr, 32) || in.Selector.Proto != 17 {
				t.Errorf("inbound SA %+v", in.Selector)
			}
			if len(w.ups) != 1 {
				t.Fatalf("%d clients came up", len(w.ups))
			}
			up := w.ups[0]
			if up.Phase1 != tc.phase1 || up.Suite.String() != tc.suite || up.Software != tc.software || up.Mark != in.Mark || up.Peer != "l2tp-in" || up.UDP != tc.nat {
				t.Errorf("up: %+v, want %s, %s, %s", up, tc.phase1, tc.suite, tc.software)
			}
			if up.Mark&^DefaultMarkMask != 0 || up.Mark == 0 {
				t.Errorf("mark %v", up.Mark)
			}
			s := w.e.Snapshot(w.now)
			if len(s.Peers) != 1 || s.Peers[0].State != "established" || s.Peers[0].Mark != up.Mark || len(s.SAs) != 2 || len(s.Drops) != 0 || s.HalfOpen != 0 {
				t.Errorf("snapshot %+v", s)
			}
			for _, line := range []string{"phase 1 up", "SA pair installed"} {
				if strings.Count(w.log.String(), line) != 1 {
					t.Errorf("%q is not in the log once:\n%s", line, w.log)
				}
			}
			if strings.Contains(w.log.String(), "mySecret") {
				t.Error("the secret is in the log")
			}
			if tc.check != nil {
				tc.check(t, w, c)
			}
			// Goodbye as clients say it: child first, then the ISAKMP SA.
			w.run(c, c.deleteChild(c.children[0].in))
			if len(w.downs) != 1 || w.downM[0] != up.Mark || len(w.data.SAs()) != 0 {
				t.Errorf("after the deletion: downs %v, SAs %v", w.downs, ids(w.data.SAs()))
			}
			w.run(c, c.deletePhase1())
			if s := w.e.Snapshot(w.now); len(s.Peers) != 0 || s.Clients != 0 || !w.e.Deadline().IsZero() {
				t.Errorf("something is left: %+v, deadline %v", s, w.e.Deadline())
			}
		})
	}
}

// p1 and p2 make transforms.
func p1(n uint8, enc, bits, hash uint16, group uint16) isakmp.Transform {
	a := []isakmp.Attribute{isakmp.Basic(isakmp.P1Encryption, enc), isakmp.Basic(isakmp.P1Hash, hash), isakmp.Basic(isakmp.P1Group, group),
		isakmp.Basic(isakmp.P1AuthMethod, isakmp.MethodPSK), isakmp.Basic(isakmp.P1LifeType, isakmp.LifeSeconds), isakmp.Basic(isakmp.P1LifeDuration, 28800)}
	if bits != 0 {
		a = append(a, isakmp.Basic(isakmp.P1KeyLength, bits))
	}
	return isakmp.Transform{Number: n, ID: isakmp.TransformKeyIKE, Attributes: a}
}

func p2(n, id uint8, bits, auth, encap uint16) isakmp.Transform {
	a := []isakmp.Attribute{isakmp.Basic(isakmp.P2Encap, encap), isakmp.Basic(isakmp.P2LifeType, isakmp.LifeSeconds), isakmp.Basic(isakmp.P2LifeDuration, 3600)}
	if bits != 0 {
		a = append(a, isakmp.Basic(isakmp.P2KeyLength, bits))
	}
	if auth != 0 {
		a = append(a, isakmp.Basic(isakmp.P2Auth, auth))
	}
	return isakmp.Transform{Number: n, ID: id, Attributes: a}
}

func phase1SA(list ...isakmp.Transform) isakmp.SA {
	return isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoISAKMP, Transforms: list})
}

func phase2SA(list ...isakmp.Transform) []byte {
	return isakmp.NewSA(isakmp.Proposal{Number: 1, Protocol: isakmp.ProtoESP, SPI: be32(0x1000), Transforms: list}).Append(nil)
}

func vid(t *testing.T, body string) isakmp.Payload {
	return isakmp.Payload{Type: isakmp.PayloadVendor, Body: unhex(t, body)}
}

// first makes a first message of main mode.
func first(sa isakmp.SA, vendors ...isakmp.Payload) []byte {
	list := append([]isakmp.Payload{{Type: isakmp.PayloadSA, Body: sa.Append(nil)}}, vendors...)
	msg := isakmp.AppendPayloads(isakmp.Header{Initiator: isakmp.Cookie{1}, Next: isakmp.PayloadSA, Exchange: isakmp.Main}.Append(nil), list)
	isakmp.SetLength(msg)
	return msg
}

// replaceSA puts another SA payload into a first message.
func replaceSA(main1 []byte, sa isakmp.SA) []byte {
	h, err := isakmp.ParseHeader(main1)
	if err != nil {
		panic(err)
	}
	payloads, _, err := isakmp.ParsePayloads(h.Next, main1[isakmp.HeaderLen:], false)
	if err != nil {
		panic(err)
	}
	payloads[0].Body = sa.Append(nil)
	msg := isakmp.AppendPayloads(h.Append(nil), payloads)
	isakmp.SetLength(msg)
	return msg
}
