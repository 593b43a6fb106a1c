package isakmp_test

import (
	"bytes"
	"strings"
	"testing"

	"culvert/ipsec/isakmp"
)

// TestCertGolden: message 5's payloads behind each other, as RFC 2408 sections 3.9 and 3.10 have them: ID, CERT, CERTREQ.
func TestCertGolden(t *testing.T) {
	chain := octets(t, "06000011 09 11 01f4 3007310530030603aa 0700000a 04 3003020105 00000007 04 3000")
	ps, used, err := isakmp.ParsePayloads(isakmp.PayloadID, chain, false)
	if err != nil || used != len(chain) || len(ps) != 3 {
		t.Fatalf("%d payloads, %d of %d: %v", len(ps), used, len(chain), err)
	}
	cert, err := isakmp.ParseCert(ps[1].Body)
	if err != nil || cert.Encoding != isakmp.CertX509Signature || !bytes.Equal(cert.Data, octets(t, "3003020105")) {
		t.Errorf("%+v %v", cert, err)
	}
	request, err := isakmp.ParseCertRequest(ps[2].Body)
	if err != nil || request.Encoding != isakmp.CertX509Signature || !bytes.Equal(request.Data, octets(t, "3000")) {
		t.Errorf("%+v %v", request, err)
	}
	if got := cert.Append(nil); !bytes.Equal(got, ps[1].Body) {
		t.Errorf("%x", got)
	}
	// Truncated, whatever the length says.
	for n := range ps[1].Body {
		if c, err := isakmp.ParseCert(ps[1].Body[:n]); (err == nil) != (n >= 2) || len(c.Data) > n {
			t.Errorf("a CERT of %d octets: %v", n, err)
		}
	}
	if _, err := isakmp.ParseCertRequest(nil); err == nil {
		t.Error("an empty CERTREQ")
	}
	if r, err := isakmp.ParseCertRequest([]byte{4}); err != nil || len(r.Data) != 0 {
		t.Errorf("a CERTREQ for any authority: %v", err)
	}
	for n := range chain {
		if _, _, err := isakmp.ParsePayloads(isakmp.PayloadID, chain[:n], false); err == nil {
			t.Errorf("%d octets of %d pass", n, len(chain))
		}
	}
}

func TestDistinguishedName(t *testing.T) {
	alice := octets(t, "301f 310b 3009 0603550406 1302 4445 3110 300e 0603550403 0c07 616c696365 0a21")
	for _, x := range []struct {
		der  []byte
		want string
	}{
		{alice, `CN=alice\n!,C=DE`},
		{octets(t, "3000"), ""},
		{nil, ""},
		{append(bytes.Clone(alice), 0), ""},
		{octets(t, "3080310b"), ""},
		{octets(t, "30847fffffff31"), ""}, // a length beyond everything
		{bytes.Repeat([]byte{0x30}, 5000), ""},
	} {
		got, ok := isakmp.DistinguishedName(x.der)
		if got != x.want || ok != (x.want != "") {
			t.Errorf("%x: %q %v", x.der, got, ok)
		}
	}
	for n := range alice {
		if _, ok := isakmp.DistinguishedName(alice[:n]); ok {
			t.Errorf("%d octets of %d pass", n, len(alice))
		}
	}
	if s := (isakmp.ID{Type: isakmp.IDDERASN1DN, Data: alice}).String(); s != `CN=alice\n!,C=DE` {
		t.Error(s)
	}
	if s := (isakmp.ID{Type: isakmp.IDDERASN1DN, Data: alice[:9]}).String(); !strings.HasPrefix(s, "dn:301f") {
		t.Error(s)
	}
}
