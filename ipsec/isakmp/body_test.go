package isakmp_test

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"culvert/ipsec/isakmp"
)

func TestID(t *testing.T) {
	for _, c := range []struct{ hex, text string }{
		{"01 11 06a5 c0000207", "192.0.2.7[17/1701]"},
		{"01 00 0000 c0000207", "192.0.2.7"},
		{"01 11 0000 c0000207", "192.0.2.7[17/0]"},
		{"05 00 0000 20010db8000000000000000000000001", "2001:db8::1"},
		{"04 00 0000 c0000200 ffffff00", "192.0.2.0/24"},
		{"04 00 0000 00000000 00000000", "0.0.0.0/0"},
		{"04 00 0000 c0000200 ffffffff", "192.0.2.0/32"},
		{"04 00 0000 c0000200 ff00ff00", "ipv4-subnet:c0000200ff00ff00"},
		{"04 00 0000 c0000200 ffffff01", "ipv4-subnet:c0000200ffffff01"},
		{"06 00 0000 20010db8000000000000000000000000 ffffffffffffffff0000000000000000", "2001:db8::/64"},
		{"07 00 0000 c0000201 c0000209", "192.0.2.1-192.0.2.9"},
		{"07 00 0000 c0000209 c0000201", "ipv4-range:c0000209c0000201"},
		{"02 00 0000 6761746577617931", "gateway1"},
		{"03 00 0000 614062", "a@b"},
		{"02 00 0000 61220a1b5b6d", `a\"\n\x1b[m`},
		{"02 00 0000 c3a9ff", `\u00e9\xff`},
		{"09 00 0000 3000", "dn:3000"},
		{"0b 00 0000 00010203", "key-id:00010203"},
		{"0b 00 0000 000102030405060708090a0b0c0d0e0f10", "key-id:000102030405060708090a0b0c0d0e0f..."},
		{"fa 11 0001 00", "id type 250:00[17/1]"},
	} {
		b := octets(t, c.hex)
		id, err := isakmp.ParseID(b)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if s := id.String(); s != c.text {
			t.Errorf("got %s, want %s", s, c.text)
		}
		if got := id.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%s: Append: %x", c.text, got)
		}
		fixed := id.Type != isakmp.IDFQDN && id.Type != isakmp.IDUserFQDN && id.Type != isakmp.IDKeyID && id.Type != isakmp.IDDERASN1DN && id.Type < 12
		for n := range b {
			if _, err := isakmp.ParseID(b[:n]); err == nil && (n <= 4 || fixed) {
				t.Errorf("%s cut to %d octets: no error", c.text, n)
			}
		}
	}
	long, err := isakmp.ParseID(append([]byte{2, 0, 0, 0}, bytes.Repeat([]byte{0}, 60000)...))
	if err != nil || len(long.String()) > 500 || !strings.HasSuffix(long.String(), "...") {
		t.Errorf("a long name: %d octets of text, %v", len(long.String()), err)
	}
}

func TestIDRefused(t *testing.T) {
	for _, c := range []struct {
		hex  string
		code isakmp.NotifyType
	}{
		{"010000", isakmp.PayloadMalformed},
		{"00000000 c0000207", isakmp.InvalidIDInformation},
		{"01000000 c0000207 00", isakmp.InvalidIDInformation},
		{"01000000", isakmp.InvalidIDInformation},
		{"02000000", isakmp.InvalidIDInformation},
		{"05000000 c0000207", isakmp.InvalidIDInformation},
		{"04000000 c0000207", isakmp.InvalidIDInformation},
	} {
		_, err := isakmp.ParseID(octets(t, c.hex))
		refused(t, err, c.code)
	}
}

// An ID that was not parsed, but made wrongly, must not panic either.
func TestIDMadeByHand(t *testing.T) {
	for typ := range isakmp.IDType(16) {
		for n := range 40 {
			id := isakmp.ID{Type: typ, Data: make([]byte, n)}
			_ = id.String()
		}
	}
}

func TestIDFromAddr(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7":        "01 11 06a5 c0000207",
		"::ffff:192.0.2.7": "01 11 06a5 c0000207",
		"2001:db8::1":      "05 11 06a5 20010db8000000000000000000000001",
	} {
		addr := netip.MustParseAddr(in)
		id := isakmp.IDFromAddr(addr, 17, 1701)
		if got := id.Append(nil); !bytes.Equal(got, octets(t, want)) {
			t.Errorf("%s: %x", in, got)
		}
		if a, ok := id.Addr(); !ok || a != addr.Unmap() {
			t.Errorf("%s: Addr %v %v", in, a, ok)
		}
		if p, ok := id.Prefix(); !ok || p != netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()) {
			t.Errorf("%s: Prefix %v %v", in, p, ok)
		}
	}
}

func TestNotification(t *testing.T) {
	dpd := isakmp.NewDPD(isakmp.NotifyRUThere, isakmp.Cookie{1}, isakmp.Cookie{2}, 0x01020304)
	b := octets(t, "00000001 01 10 8d28 0100000000000000 0200000000000000 01020304")
	if got := dpd.Append(nil); !bytes.Equal(got, b) {
		t.Errorf("R-U-THERE: %x", got)
	}
	got, err := isakmp.ParseNotification(b)
	if err != nil || !reflect.DeepEqual(got, dpd) {
		t.Errorf("got %+v, %v", got, err)
	}
	if seq, ok := got.DPDSequence(); !ok || seq != 0x01020304 {
		t.Errorf("sequence %x %v", seq, ok)
	}
	for n := range 24 { // the data behind the SPI has any length
		_, err := isakmp.ParseNotification(b[:n])
		refused(t, err, isakmp.PayloadMalformed)
	}
	for n := 24; n < len(b); n++ {
		if cut, err := isakmp.ParseNotification(b[:n]); err != nil {
			t.Error(err)
		} else if _, ok := cut.DPDSequence(); ok {
			t.Errorf("a sequence number in %d octets", n-24)
		}
	}
	plain, err := isakmp.ParseNotification(octets(t, "00000000 01 00 000e"))
	if err != nil || plain.Type != isakmp.NoProposalChosen || len(plain.SPI)+len(plain.Data) != 0 {
		t.Errorf("got %+v, %v", plain, err)
	}
	_, err = isakmp.ParseNotification(octets(t, "00000001 03 ff 000e 00000000"))
	refused(t, err, isakmp.PayloadMalformed)
}

func TestDelete(t *testing.T) {
	for _, h := range []string{
		"00000001 03 04 0001 cafe0001",
		"00000001 03 04 0003 cafe0001 cafe0002 cafe0003",
		"00000001 01 10 0001 01020304050607081112131415161718",
		"00000001 04 02 0002 00010002",
	} {
		b := octets(t, h)
		d, err := isakmp.ParseDelete(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("Append: %x, want %x", got, b)
		}
		for n := range b {
			if _, err := isakmp.ParseDelete(b[:n]); err == nil {
				t.Errorf("%s cut to %d octets: no error", h, n)
			}
		}
	}
	for h, code := range map[string]isakmp.NotifyType{
		"00000001 03 04 0000":                                      isakmp.PayloadMalformed,
		"00000001 03 00 0001":                                      isakmp.InvalidSPI,
		"00000001 09 00 ffff":                                      isakmp.InvalidSPI,
		"00000001 03 08 0001 cafe0001cafe0001":                     isakmp.InvalidSPI,
		"00000001 01 04 0001 cafe0001":                             isakmp.InvalidSPI,
		"00000001 03 04 0002 cafe0001":                             isakmp.PayloadMalformed,
		"00000001 03 04 0001 cafe0001 00":                          isakmp.PayloadMalformed,
		"00000001 03 04 ffff cafe0001":                             isakmp.PayloadMalformed,
		"00000001 09 01 0101 " + strings.Repeat("00", 257):         isakmp.PayloadMalformed,
		"00000001 01 10 1001 01020304050607081112131415161718":     isakmp.PayloadMalformed,
		"00000001 01 10 0001 01020304050607081112131415161718 aa ": isakmp.PayloadMalformed,
	} {
		_, err := isakmp.ParseDelete(octets(t, h))
		refused(t, err, code)
	}
}

func TestNATOA(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.7":    "01000000 0a000007",
		"2001:db8::1": "05000000 20010db8000000000000000000000001",
	} {
		addr, b := netip.MustParseAddr(in), octets(t, want)
		if got := isakmp.AppendNATOA(nil, addr); !bytes.Equal(got, b) {
			t.Errorf("%s: %x", in, got)
		}
		if got, err := isakmp.ParseNATOA(b); err != nil || got != addr {
			t.Errorf("%s: %v, %v", in, got, err)
		}
		for n := range b {
			_, err := isakmp.ParseNATOA(b[:n])
			refused(t, err, isakmp.PayloadMalformed)
		}
		_, err := isakmp.ParseNATOA(append(b, 0))
		refused(t, err, isakmp.PayloadMalformed)
	}
	for _, h := range []string{"02000000 0a000007", "04000000 0a000007 ffffffff"} {
		_, err := isakmp.ParseNATOA(octets(t, h))
		refused(t, err, isakmp.InvalidIDInformation)
	}
	_, err := isakmp.ParseNATOA(octets(t, "01000000 20010db8000000000000000000000001"))
	refused(t, err, isakmp.PayloadMalformed)
}

func TestFragment(t *testing.T) {
	b := octets(t, "0007 02 01 aabb")
	f, err := isakmp.ParseFragment(b)
	if err != nil || f.ID != 7 || f.Number != 2 || !f.Last || !bytes.Equal(f.Data, []byte{0xaa, 0xbb}) {
		t.Errorf("got %+v, %v", f, err)
	}
	if got := f.Append(nil); !bytes.Equal(got, b) {
		t.Errorf("Append: %x", got)
	}
	for n := range 5 {
		_, err := isakmp.ParseFragment(b[:n])
		refused(t, err, isakmp.PayloadMalformed)
	}
	_, err = isakmp.ParseFragment(octets(t, "0007 00 01 aabb"))
	refused(t, err, isakmp.PayloadMalformed)
}
