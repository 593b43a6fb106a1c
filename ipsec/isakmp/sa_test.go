package isakmp_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"culvert/ipsec/isakmp"
)

// espSA is one proposal of two transforms.
const espSA = `00000001 00000001
	00000030 01 03 04 02 cafe0001
	03000014 01 0c 0000 80060100 80050002 80040004
	00000010 02 03 0000 80010001 80020e10`

func TestSA(t *testing.T) {
	b := octets(t, espSA)
	want := isakmp.NewSA(isakmp.Proposal{
		Number: 1, Protocol: isakmp.ProtoESP, SPI: []byte{0xca, 0xfe, 0, 1},
		Transforms: []isakmp.Transform{
			{Number: 1, ID: isakmp.ESPAES, Attributes: []isakmp.Attribute{
				isakmp.Basic(isakmp.P2KeyLength, 256),
				isakmp.Basic(isakmp.P2Auth, isakmp.AuthHMACSHA1),
				isakmp.Basic(isakmp.P2Encap, isakmp.EncapUDPTransport),
			}},
			{Number: 2, ID: isakmp.ESP3DES, Attributes: []isakmp.Attribute{
				isakmp.Basic(isakmp.P2LifeType, isakmp.LifeSeconds),
				isakmp.Basic(isakmp.P2LifeDuration, 3600),
			}},
		},
	})
	got, err := isakmp.ParseSA(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if out := got.Append([]byte{9}); !bytes.Equal(out[1:], b) {
		t.Errorf("Append: %x", out)
	}
	const text = "ESP 1: aes-cbc key-length=256 auth=hmac-sha1 encapsulation=udp-transport, 3des life-type=seconds life-duration=3600"
	if s := got.Proposals[0].String(); s != text {
		t.Errorf("String: %s", s)
	}
	for n := range b {
		if _, err := isakmp.ParseSA(b[:n]); err == nil {
			t.Errorf("cut to %d octets: no error", n)
		}
	}
	if _, err := isakmp.ParseSA(append(b, 0)); err == nil {
		t.Error("one octet too many: no error")
	}
}

// A responder answers with one transform out of the offer, its attributes unchanged.
func TestSAEcho(t *testing.T) {
	offer, err := isakmp.ParseSA(octets(t, espSA))
	if err != nil {
		t.Fatal(err)
	}
	chosen := offer.Proposals[0]
	chosen.SPI = []byte{1, 2, 3, 4}
	chosen.Transforms = chosen.Transforms[1:2]
	want := "00000001 00000001 0000001c 01030401 01020304 00000010 02030000 80010001 80020e10"
	if got := isakmp.NewSA(chosen).Append(nil); !bytes.Equal(got, octets(t, want)) {
		t.Errorf("got %x", got)
	}
}

func TestSARefused(t *testing.T) {
	const head, transform = "00000001 00000001", "00000008 01 0c 0000"
	for _, c := range []struct {
		name, hex string
		code      isakmp.NotifyType
	}{
		{"empty", "", isakmp.PayloadMalformed},
		{"DOI 0", "00000000 00000001 00000010 01010001" + transform, isakmp.DOINotSupported},
		{"DOI 2^32-1", "ffffffff 00000001 00000010 01010001" + transform, isakmp.DOINotSupported},
		{"situation with secrecy", "00000001 00000003 00000010 01010001" + transform, isakmp.SituationNotSupported},
		{"no proposal", head, isakmp.PayloadMalformed},
		{"proposal of 4 octets", head + "00000004", isakmp.BadProposalSyntax},
		{"proposal length 0", head + "00000000 01010001" + transform, isakmp.PayloadMalformed},
		{"proposal beyond the payload", head + "00000011 01010001" + transform, isakmp.PayloadMalformed},
		{"proposal followed by a nonce", head + "0a000010 01010001" + transform, isakmp.BadProposalSyntax},
		{"no transform", head + "00000008 01010000", isakmp.BadProposalSyntax},
		{"one transform announced, none there", head + "00000008 01010001", isakmp.PayloadMalformed},
		{"two announced, one there", head + "00000010 01010002" + transform, isakmp.BadProposalSyntax},
		{"one announced, two there", head + "00000018 01010001 03000008 01010000" + transform, isakmp.BadProposalSyntax},
		{"octets behind the last transform", head + "00000014 01010001" + transform + "00000000", isakmp.BadProposalSyntax},
		{"octets behind the last proposal", head + "00000010 01010001" + transform + "00000000", isakmp.BadProposalSyntax},
		{"SPI beyond the proposal", head + "00000010 010109 01" + transform, isakmp.BadProposalSyntax},
		{"ESP without SPI", head + "00000010 01030001" + transform, isakmp.InvalidSPI},
		{"ESP with an SPI of 8", head + "00000018 01030801 0000000000000000" + transform, isakmp.InvalidSPI},
		{"ISAKMP with an SPI of 17", head + "00000021 01011101" + strings.Repeat("00", 17) + transform, isakmp.InvalidSPI},
		{"transform of 4 octets", head + "0000000c 01010001 00000004", isakmp.BadProposalSyntax},
		{"transform followed by a proposal", head + "00000010 01010001 02000008 01010000", isakmp.BadProposalSyntax},
		{"reserved octets of a transform", head + "00000010 01010001 00000008 01010001", isakmp.BadProposalSyntax},
		{"half an attribute", head + "00000012 01010001 0000000a 01010000 8001", isakmp.BadProposalSyntax},
		{"attribute beyond the transform", head + "00000015 01010001 0000000d 01010000 000c0002 01", isakmp.BadProposalSyntax},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := isakmp.ParseSA(octets(t, c.hex))
			refused(t, err, c.code)
		})
	}
}

func TestSABounded(t *testing.T) {
	sa := func(proposals, transforms, attributes int) []byte {
		tr := isakmp.Transform{ID: isakmp.ESPAES}
		for range attributes {
			tr.Attributes = append(tr.Attributes, isakmp.Basic(isakmp.P2Auth, 2))
		}
		p := isakmp.Proposal{Protocol: isakmp.ProtoESP, SPI: make([]byte, 4)}
		for range transforms {
			p.Transforms = append(p.Transforms, tr)
		}
		ps := make([]isakmp.Proposal, proposals)
		for i := range ps {
			ps[i] = p
		}
		return isakmp.NewSA(ps...).Append(nil)
	}
	for _, c := range []struct {
		name    string
		p, t, a int
		ok      bool
	}{
		{"as many proposals as may be", isakmp.MaxProposals, 1, 0, true},
		{"one more", isakmp.MaxProposals + 1, 1, 0, false},
		{"as many transforms as may be", 2, isakmp.MaxTransforms / 2, 1, true},
		{"some more", 3, isakmp.MaxTransforms / 2, 1, false},
		{"as many attributes as may be", 1, 1, isakmp.MaxAttributes, true},
		{"one more", 1, 1, isakmp.MaxAttributes + 1, false},
	} {
		if _, err := isakmp.ParseSA(sa(c.p, c.t, c.a)); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		} else if err != nil {
			refused(t, err, isakmp.BadProposalSyntax)
		}
	}
}

func TestAttribute(t *testing.T) {
	for _, c := range []struct {
		name string
		a    isakmp.Attribute
		hex  string
		v    uint64
		ok   bool
		text string
	}{
		{"short", isakmp.Basic(isakmp.P1Encryption, isakmp.EncAES), "80010007", 7, true, "encryption=aes-cbc"},
		{"no octets", isakmp.Variable(isakmp.P1LifeDuration, []byte{}), "000c0000", 0, false, "life-duration=0x"},
		{"one octet", isakmp.Variable(isakmp.P1LifeDuration, []byte{9}), "000c0001 09", 9, true, "life-duration=9"},
		{"four octets", isakmp.Variable32(isakmp.P1LifeDuration, 86400), "000c0004 00015180", 86400, true, "life-duration=86400"},
		{"eight octets", isakmp.Variable(isakmp.P1LifeDuration, bytes.Repeat([]byte{0xff}, 8)), "000c0008 ffffffffffffffff", 1<<64 - 1, true, "life-duration=18446744073709551615"},
		{"nine octets", isakmp.Variable(isakmp.P1LifeDuration, make([]byte, 9)), "000c0009 000000000000000000", 0, false, "life-duration=0x000000000000000000"},
		{"long", isakmp.Variable(isakmp.P1GroupPrime, make([]byte, 17)), "00060011 0000000000000000000000000000000000", 0, false, "group-prime=0x00000000000000000000000000000000..."},
		{"short form type in the long form", isakmp.Variable(isakmp.P1Hash, []byte{0, 2}), "00020002 0002", 2, true, "hash=sha1"},
		{"unknown type", isakmp.Basic(0x7fff, 1), "ffff0001", 1, true, "phase 1 attribute 32767=1"},
		{"unknown value", isakmp.Basic(isakmp.P1Group, 999), "800403e7", 999, true, "group=999"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := octets(t, c.hex)
			if got := c.a.Append(nil); !bytes.Equal(got, b) {
				t.Errorf("Append: %x", got)
			}
			as, err := isakmp.ParseAttributes(b)
			if err != nil || len(as) != 1 || !reflect.DeepEqual(as[0], c.a) {
				t.Fatalf("ParseAttributes: %+v, %v", as, err)
			}
			if v, ok := as[0].Uint(); v != c.v || ok != c.ok {
				t.Errorf("Uint: %d, %v", v, ok)
			}
			if s := isakmp.Phase1.Format(as[0]); s != c.text {
				t.Errorf("Format: %s", s)
			}
			for n := 1; n < len(b); n++ {
				if _, err := isakmp.ParseAttributes(b[:n]); err == nil {
					t.Errorf("cut to %d octets: no error", n)
				}
			}
		})
	}
	as := []isakmp.Attribute{isakmp.Basic(1, 7), isakmp.Basic(2, 2), isakmp.Basic(1, 8)}
	if a, ok := isakmp.Find(as, 1); !ok || a.Value[1] != 7 {
		t.Error("Find: not the first one")
	}
	if _, ok := isakmp.Find(as, 3); ok {
		t.Error("Find: one that is not there")
	}
	if isakmp.Phase1.Kind(isakmp.P1LifeDuration) != isakmp.KindVariable || isakmp.Phase2.Kind(isakmp.P2Encap) != isakmp.KindBasic ||
		isakmp.Phase2.Known(99) || !isakmp.Phase2.Known(isakmp.P2Group) {
		t.Error("Kind or Known")
	}
}
