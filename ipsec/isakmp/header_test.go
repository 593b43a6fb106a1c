package isakmp_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"culvert/ipsec/isakmp"
)

// octets reads hexadecimal with white space in it.
func octets(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refused checks that err is of this package and carries the code.
func refused(t *testing.T, err error, code isakmp.NotifyType) {
	t.Helper()
	var e *isakmp.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v is not an *isakmp.Error", err)
	}
	if e.Notify != code || isakmp.RefuseWith(err) != code {
		t.Errorf("%v refuses with %s, want %s", err, e.Notify, code)
	}
}

const quickHeader = "0102030405060708 1112131415161718 08 10 20 01 deadbeef 0000001c"

func TestHeader(t *testing.T) {
	b := octets(t, quickHeader)
	h, err := isakmp.ParseHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	want := isakmp.Header{
		Initiator: isakmp.Cookie{1, 2, 3, 4, 5, 6, 7, 8},
		Responder: isakmp.Cookie{0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18},
		Next:      isakmp.PayloadHash, Exchange: isakmp.Quick, Flags: isakmp.Encrypted, MessageID: 0xdeadbeef, Length: 28,
	}
	if h != want {
		t.Errorf("got %+v\nwant %+v", h, want)
	}
	if got := h.Append([]byte("x")); !bytes.Equal(got[1:], b) || got[0] != 'x' {
		t.Errorf("Append: %x", got)
	}
	for n := range b {
		_, err := isakmp.ParseHeader(b[:n])
		refused(t, err, isakmp.PayloadMalformed)
	}
	if _, err := isakmp.ParseHeader(append(b, 0)); err != nil {
		t.Errorf("an octet behind the message: %v", err)
	}
}

func TestHeaderRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		at   int
		with string
		code isakmp.NotifyType // 0: accepted
	}{
		{"version 2.0", 17, "20", isakmp.InvalidMajorVersion},
		{"version 0.0", 17, "00", isakmp.InvalidMajorVersion},
		{"version 1.15", 17, "1f", 0},
		{"length 27", 24, "0000001b", isakmp.PayloadMalformed},
		{"length 0", 24, "00000000", isakmp.PayloadMalformed},
		{"length one more than there is", 24, "0000001d", isakmp.UnequalPayloadLengths},
		{"length beyond an int32", 24, "ffffffff", isakmp.UnequalPayloadLengths},
		{"length 2^31", 24, "80000000", isakmp.UnequalPayloadLengths},
	} {
		b := octets(t, quickHeader)
		copy(b[c.at:], octets(t, c.with))
		_, err := isakmp.ParseHeader(b)
		switch {
		case c.code == 0 && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.code != 0:
			refused(t, err, c.code)
		}
	}
}

// An error says where, what, the number found and the number wanted.
func TestErrorText(t *testing.T) {
	_, _, err := isakmp.ParsePayloads(isakmp.PayloadNonce, []byte{0, 0, 0, 9}, false)
	if s := err.Error(); s != "isakmp: nonce payload: length beyond the message: 9, want 4" {
		t.Error(s)
	}
	_, _, err = isakmp.ParsePayloads(33, []byte{0, 0, 0, 4}, false)
	if s := err.Error(); s != "isakmp: header: payload type not allowed: 33" {
		t.Error(s)
	}
}

func TestSetLength(t *testing.T) {
	b := isakmp.Header{Next: isakmp.PayloadVendor, Exchange: isakmp.Main}.Append(nil)
	b = isakmp.AppendPayloads(b, []isakmp.Payload{isakmp.VendorDPD.Payload()})
	isakmp.SetLength(b)
	h, err := isakmp.ParseHeader(b)
	if err != nil || int(h.Length) != len(b) {
		t.Fatalf("length %d of %d, %v", h.Length, len(b), err)
	}
}

func TestHeaderNames(t *testing.T) {
	for want, got := range map[string]string{
		"0102030405060708":       isakmp.Cookie{1, 2, 3, 4, 5, 6, 7, 8}.String(),
		"main":                   isakmp.Main.String(),
		"exchange 77":            isakmp.Exchange(77).String(),
		"none":                   isakmp.Flags(0).String(),
		"encrypted+commit":       (isakmp.Encrypted | isakmp.Commit).String(),
		"auth-only+0xf0":         (isakmp.AuthOnly | 0xf0).String(),
		"NAT-D":                  isakmp.PayloadNATD.String(),
		"type 99":                isakmp.PayloadType(99).String(),
		"R-U-THERE":              isakmp.NotifyRUThere.String(),
		"notify 99":              isakmp.NotifyType(99).String(),
		"ESP":                    isakmp.ProtoESP.String(),
		"protocol 9":             isakmp.Protocol(9).String(),
		"user-fqdn":              isakmp.IDUserFQDN.String(),
		"id type 12":             isakmp.IDType(12).String(),
		"RFC 3947":               isakmp.VendorRFC3947.String(),
		"unknown vendor id":      isakmp.VendorID(255).String(),
		"PAYLOAD-MALFORMED":      isakmp.RefuseWith(errors.New("other")).String(),
		"INVALID-COOKIE":         isakmp.InvalidCookie.String(),
		"NO-PROPOSAL-CHOSEN":     isakmp.NoProposalChosen.String(),
		"phase 1 attribute 9999": isakmp.Phase1.TypeName(9999),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !(isakmp.Cookie{}).IsZero() || (isakmp.Cookie{7: 1}).IsZero() {
		t.Error("IsZero")
	}
	if !isakmp.UnequalPayloadLengths.IsError() || isakmp.NotifyInitialContact.IsError() {
		t.Error("IsError")
	}
}
