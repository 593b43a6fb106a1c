package isakmp

import (
	"bytes"
	"crypto/md5"
	"strings"
	"testing"
)

// Every row stands where its id says, is found again from what it sends, and is no prefix of another.
func TestVendorTable(t *testing.T) {
	for i, v := range vendors {
		if int(v.id) != i+1 {
			t.Errorf("%s stands in row %d and has id %d", v.name, i, v.id)
		}
		p := v.id.Payload()
		got, ok := IdentifyVendor(p.Body)
		if !ok || got.ID != v.id || got.Name != v.name || p.Type != PayloadVendor {
			t.Errorf("%s is taken for %+v, %v", v.name, got, ok)
		}
		for _, w := range vendors {
			if w.id != v.id && strings.HasPrefix(w.prefix, v.prefix) {
				t.Errorf("%s begins like %s", w.name, v.name)
			}
		}
		prefix := fromHex(v.prefix)
		if len(prefix) > min(v.min, longestVendor) {
			t.Errorf("%s is too long", v.name)
		}
		for n := range v.min {
			if got, ok := IdentifyVendor(prefix[:min(n, len(prefix))]); ok && n < len(prefix) {
				t.Errorf("%d octets of %s are taken for %s", n, v.name, got.Name)
			}
		}
		if v.max == len(prefix) {
			if got, ok := IdentifyVendor(append(prefix, 0)); ok {
				t.Errorf("%s and one octet more is taken for %s", v.name, got.Name)
			}
		}
		p.Body[0] ^= 0xff
		if v.id.Payload().Body[0] == p.Body[0] {
			t.Errorf("%s: Payload hands out the table", v.name)
		}
	}
	if _, ok := IdentifyVendor(nil); ok {
		t.Error("an empty vendor id is known")
	}
	if p := VendorUnknown.Payload(); len(p.Body) != 0 {
		t.Error("the unknown vendor has a body")
	}
}

// Most ids are the MD5 of a text, which proves the constants.
func TestVendorHashes(t *testing.T) {
	for id, text := range map[VendorID]string{
		VendorRFC3947:        "RFC 3947",
		VendorNATTDraft00:    "draft-ietf-ipsec-nat-t-ike-00",
		VendorNATTDraft01:    "draft-ietf-ipsec-nat-t-ike-01",
		VendorNATTDraft02:    "draft-ietf-ipsec-nat-t-ike-02",
		VendorNATTDraft02N:   "draft-ietf-ipsec-nat-t-ike-02\n",
		VendorNATTDraft03:    "draft-ietf-ipsec-nat-t-ike-03",
		VendorNATTDraft04:    "draft-ietf-ipsec-nat-t-ike-04",
		VendorNATTDraft05:    "draft-ietf-ipsec-nat-t-ike-05",
		VendorNATTDraft06:    "draft-ietf-ipsec-nat-t-ike-06",
		VendorNATTDraft07:    "draft-ietf-ipsec-nat-t-ike-07",
		VendorNATTDraft08:    "draft-ietf-ipsec-nat-t-ike-08",
		VendorAppleNATT:      "draft-ietf-ipsec-nat-t-ike",
		VendorFragmentation:  "FRAGMENTATION",
		VendorMSNT5:          "MS NT5 ISAKMPOAKLEY",
		VendorInitialContact: "Vid-Initial-Contact",
		VendorMSNegotiation:  "MS-Negotiation Discovery Capable",
		VendorMSIKECGA:       "IKE CGA version 1",
		VendorMSGSSAPI:       "GSSAPI",
		VendorStrongSwan:     "strongSwan",
		VendorRacoon:         "KAME/racoon",
		VendorStenberg01:     "draft-stenberg-ipsec-nat-traversal-01",
		VendorStenberg02:     "draft-stenberg-ipsec-nat-traversal-02",
	} {
		if sum := md5.Sum([]byte(text)); !bytes.Equal(sum[:], fromHex(id.row().prefix)) {
			t.Errorf("%s: the table has %s, the text hashes to %x", id, id.row().prefix, sum)
		}
	}
}

func TestVendorForms(t *testing.T) {
	for _, c := range []struct {
		hex  string
		id   VendorID
		word uint32
		ok   bool
	}{
		{"1e2b516905991c7d7c96fcbfb587e46100000009", VendorMSNT5, MSWindows8, true},
		{"1e2b516905991c7d7c96fcbfb587e46100000004", VendorMSNT5, MSWindows2003, true},
		{"4048b7d56ebce88525e7de7f00d6c2d3", VendorFragmentation, 0, false},
		{"4048b7d56ebce88525e7de7f00d6c2d380000000", VendorFragmentation, FragMain, true},
		{"4048b7d56ebce88525e7de7f00d6c2d3c0000000", VendorFragmentation, FragMain | FragBase, true},
		{"afcad71368a1f1c96b8696fc77570101", VendorDPD, 0, false},
		{"1f07f70eaa6514d3b0fa96542a500100", VendorCiscoVPN, 0, false},
		{"01528bbbc00696121849ab9a1c5b2a5100000001", VendorMSKeyModAuthIP, 0, false},
	} {
		v, ok := IdentifyVendor(fromHex(c.hex))
		if !ok || v.ID != c.id {
			t.Errorf("%s: %+v, %v", c.hex, v, ok)
		}
		if w, ok := v.Word(); w != c.word || ok != c.ok {
			t.Errorf("%s: word %x, %v", c.hex, w, ok)
		}
	}
}

func TestNATTDialect(t *testing.T) {
	for id := range VendorCiscoVPN + 1 {
		d, ok := id.NATT()
		want, wantOK := NATT{}, false
		switch id {
		case VendorRFC3947:
			want, wantOK = NATT{20, 21, 3, 4}, true
		case VendorNATTDraft00, VendorNATTDraft01, VendorNATTDraft02, VendorNATTDraft02N, VendorNATTDraft03:
			want, wantOK = NATT{130, 131, 61443, 61444}, true
		case VendorNATTDraft04, VendorNATTDraft05, VendorNATTDraft06, VendorNATTDraft07, VendorNATTDraft08:
			want, wantOK = NATT{15, 16, 3, 4}, true
		}
		if d != want || ok != wantOK {
			t.Errorf("%s: %+v, %v", id, d, ok)
		}
	}
}
