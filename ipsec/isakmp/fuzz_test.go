package isakmp_test

import (
	"bytes"
	"reflect"
	"testing"

	"culvert/ipsec/isakmp"
	"culvert/ipsec/isakmp/isakmptest"
)

func FuzzHeader(f *testing.F) {
	f.Add(octets(f, quickHeader))
	for _, c := range isakmptest.Clients() {
		f.Add(c.Main1())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := isakmp.ParseHeader(b)
		if err != nil {
			return
		}
		if h.Length < isakmp.HeaderLen || int(h.Length) > len(b) {
			t.Fatalf("length %d of %d", h.Length, len(b))
		}
		again, err := isakmp.ParseHeader(append(h.Append(nil), b[isakmp.HeaderLen:]...))
		if err != nil || again != h {
			t.Fatalf("got %+v, %v\nwant %+v", again, err, h)
		}
	})
}

func FuzzPayloads(f *testing.F) {
	for _, c := range isakmptest.Clients() {
		f.Add(uint8(isakmp.PayloadSA), c.Main1()[isakmp.HeaderLen:], false)
	}
	f.Add(uint8(isakmp.PayloadHash), octets(f, "05000004 000000050100000000"), true)
	f.Fuzz(func(t *testing.T, first uint8, b []byte, padded bool) {
		ps, used, err := isakmp.ParsePayloads(isakmp.PayloadType(first), b, padded)
		if err != nil {
			if ps != nil || used != 0 {
				t.Fatal("payloads with an error")
			}
			return
		}
		if used > len(b) || !padded && used != len(b) || len(ps) > isakmp.MaxPayloads {
			t.Fatalf("used %d of %d in %d payloads", used, len(b), len(ps))
		}
		if got := isakmp.AppendPayloads(nil, ps); !bytes.Equal(got, b[:used]) {
			t.Fatalf("re-emitted %x\nwant %x", got, b[:used])
		}
	})
}

func FuzzSA(f *testing.F) {
	f.Add(octets(f, espSA))
	for _, c := range isakmptest.Clients() {
		f.Add(c.QuickSA(isakmp.EncapUDPTransport))
		f.Add(c.Main1()[isakmp.HeaderLen+4:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sa, err := isakmp.ParseSA(b)
		if err != nil {
			return
		}
		if got := sa.Append(nil); !bytes.Equal(got, b) {
			t.Fatalf("re-emitted %x\nwant %x", got, b)
		}
		for _, p := range sa.Proposals {
			if len(p.Transforms) == 0 {
				t.Fatal("a proposal without a transform")
			}
			_ = p.String()
		}
	})
}

// FuzzAll gives the octets to every parser of a payload body, by the type of the payload they might come in.
func FuzzAll(f *testing.F) {
	for _, h := range []string{
		"01 11 06a5 c0000207", "02 00 0000 6761", "04 00 0000 c0000200 ffffff00", "07 00 0000 c0000201 c0000209",
		"00000001 01 10 8d28 0100000000000000 0200000000000000 01020304", "00000001 03 04 0001 cafe0001",
		"09 00 0000 301d310b300906035504061302444531 0e300c06035504030c05616c696365", "04 3003020105", "01000000 0a000007", "0007 02 01 aabb", "80010007 000c0004 00015180", "1e2b516905991c7d7c96fcbfb587e46100000009", espSA,
	} {
		f.Add(octets(f, h))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := isakmp.ParseID(b); err == nil {
			same(t, "ID", id.Append(nil), b)
			if s := id.String(); len(s) > 1100 {
				t.Fatalf("%d octets of text", len(s))
			}
			if p, ok := id.Prefix(); ok && !p.IsValid() {
				t.Fatal("an invalid prefix")
			}
		}
		if c, err := isakmp.ParseCert(b); err == nil {
			same(t, "CERT", c.Append(nil), b)
		}
		if c, err := isakmp.ParseCertRequest(b); err == nil {
			same(t, "CERTREQ", c.Append(nil), b)
		}
		if s, ok := isakmp.DistinguishedName(b); ok && len(s) > 1100 {
			t.Fatalf("%d octets of name", len(s))
		}
		if n, err := isakmp.ParseNotification(b); err == nil {
			same(t, "notify", n.Append(nil), b)
			n.DPDSequence()
		}
		if d, err := isakmp.ParseDelete(b); err == nil {
			same(t, "delete", d.Append(nil), b)
		}
		if a, err := isakmp.ParseNATOA(b); err == nil {
			again, err := isakmp.ParseNATOA(isakmp.AppendNATOA(nil, a))
			if a.Is4In6() { // written as the IPv4 address it is
				a = a.Unmap()
			}
			if err != nil || again != a {
				t.Fatalf("NAT-OA %v becomes %v, %v", a, again, err)
			}
		}
		if fr, err := isakmp.ParseFragment(b); err == nil {
			again, err := isakmp.ParseFragment(fr.Append(nil))
			if err != nil || !reflect.DeepEqual(again, fr) {
				t.Fatalf("fragment %+v becomes %+v, %v", fr, again, err)
			}
		}
		if as, err := isakmp.ParseAttributes(b); err == nil {
			var out []byte
			for _, a := range as {
				a.Uint()
				_ = isakmp.Phase1.Format(a) + isakmp.Phase2.Format(a)
				out = a.Append(out)
			}
			same(t, "attributes", out, b)
		}
		if v, ok := isakmp.IdentifyVendor(b); ok {
			v.Word()
			v.ID.NATT()
		}
	})
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%s re-emitted as %x\nwant %x", what, got, want)
	}
}
