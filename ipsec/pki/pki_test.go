package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"culvert/ipsec/isakmp"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// authority is made once: the tests' time goes into keys.
var authority = sync.OnceValue(func() *Pair { return must(NewCA(noon, "Test CA", P256, CAValidity)) })

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func issue(t *testing.T, server bool, names ...string) *Pair {
	t.Helper()
	p, err := authority().Issue(noon, Request{Names: names, Server: server, Kind: P256, Validity: MaxValidity})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// forge signs any template.
func forge(t *testing.T, ca *Pair, change func(*x509.Certificate)) *Pair {
	t.Helper()
	key := must(newKey(P256))
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "mallory"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour)}
	change(c)
	parent, signer := c, key
	if ca != nil {
		parent, signer = ca.Cert, ca.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return &Pair{must(x509.ParseCertificate(der)), key}
}

func file(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func trust(t *testing.T, terms Terms, crls [][]byte, cas ...*Pair) *Trust {
	t.Helper()
	var ca, revoked []string
	for _, p := range cas {
		ca = append(ca, file(t, "ca.pem", p.CertPEM()))
	}
	for _, l := range crls {
		revoked = append(revoked, file(t, "crl.pem", l))
	}
	tr, _, errs := LoadTrust(ca, revoked, terms)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return tr
}

func offer(certs ...*x509.Certificate) (out []isakmp.Cert) {
	for _, c := range certs {
		out = append(out, isakmp.Cert{Encoding: isakmp.CertX509Signature, Data: c.Raw})
	}
	return out
}

func dn(c *x509.Certificate) isakmp.ID {
	return isakmp.ID{Type: isakmp.IDDERASN1DN, Data: c.RawSubject}
}

func named(typ isakmp.IDType, s string) isakmp.ID { return isakmp.ID{Type: typ, Data: []byte(s)} }

func TestVerify(t *testing.T) {
	ca := authority()
	alice := issue(t, false, "alice", "alice@example.com", "192.0.2.7")
	server := issue(t, true, "vpn.example.com", "2001:db8::1")
	other := must(NewCA(noon, "Other CA", P256, CAValidity))
	namesake := must(NewCA(noon, "Test CA", P256, CAValidity))
	stranger := must(namesake.Issue(noon, Request{Names: []string{"alice"}, Kind: P256, Validity: MaxValidity}))
	middle := forge(t, ca, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = "Branch CA", true, true, x509.KeyUsageCertSign
	})
	root := forge(t, nil, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = "Root", true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		c.NotAfter = noon.AddDate(5, 0, 0)
	})
	branch := forge(t, root, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = "Branch", true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	})
	leaf := forge(t, branch, func(c *x509.Certificate) { c.Subject.CommonName = "leaf"; c.NotAfter = noon.AddDate(1, 0, 0) })
	tooDeep := forge(t, middle, func(c *x509.Certificate) {})
	crl := must(ca.Revoke(noon, nil, alice.Cert.SerialNumber))
	weak := func() *Pair {
		key := must(rsa.GenerateKey(rand.Reader, 1024))
		c := &x509.Certificate{SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: "old"}, NotBefore: noon, NotAfter: noon.Add(time.Hour)}
		der := must(x509.CreateCertificate(rand.Reader, c, ca.Cert, key.Public(), ca.Key))
		return &Pair{must(x509.ParseCertificate(der)), key}
	}()
	signer := forge(t, ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} })
	sealer := forge(t, ca, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
	plain := forge(t, ca, func(c *x509.Certificate) {})
	caller := Terms{Server: true, Name: "vpn.example.com"}
	pkcs7 := []isakmp.Cert{{Encoding: isakmp.CertPKCS7, Data: wrapPKCS7(t, leaf.Cert.Raw, branch.Cert.Raw)}}

	for _, x := range []struct {
		name   string
		terms  Terms
		ca     *Pair
		crl    []byte
		now    time.Time
		offer  []isakmp.Cert
		id     isakmp.ID
		cause  Cause
		wanted string // in the refusal
	}{
		{name: "by subject", ca: ca, offer: offer(alice.Cert), id: dn(alice.Cert)},
		{name: "with the root", ca: ca, offer: offer(alice.Cert, ca.Cert), id: dn(alice.Cert)},
		{name: "root first", ca: ca, offer: offer(ca.Cert, alice.Cert), id: dn(alice.Cert)},
		{name: "by host name", ca: ca, offer: offer(alice.Cert), id: named(isakmp.IDFQDN, "ALICE")},
		{name: "by mail address", ca: ca, offer: offer(alice.Cert), id: named(isakmp.IDUserFQDN, "alice@EXAMPLE.com")},
		{name: "by address", ca: ca, offer: offer(alice.Cert), id: isakmp.ID{Type: isakmp.IDIPv4, Data: net.IPv4(192, 0, 2, 7).To4(), Protocol: 17, Port: 500}},
		{name: "by IPv6 address", ca: ca, offer: offer(server.Cert), id: isakmp.ID{Type: isakmp.IDIPv6, Data: net.ParseIP("2001:db8::1")}},
		{name: "another subject", ca: ca, offer: offer(alice.Cert), id: dn(server.Cert), cause: WrongPerson, wanted: "CN=vpn.example.com"},
		{name: "another name", ca: ca, offer: offer(alice.Cert), id: named(isakmp.IDFQDN, "bob"), cause: WrongPerson, wanted: "bob (fqdn), which is not in it; it has alice, alice@example.com, 192.0.2.7"},
		{name: "another address", ca: ca, offer: offer(alice.Cert), id: isakmp.ID{Type: isakmp.IDIPv4, Data: []byte{192, 0, 2, 8}}, cause: WrongPerson},
		{name: "a key id", ca: ca, offer: offer(alice.Cert), id: named(isakmp.IDKeyID, "alice"), cause: WrongPerson},
		{name: "common name beside alternatives", ca: ca, offer: offer(server.Cert), id: named(isakmp.IDUserFQDN, "vpn.example.com"), cause: WrongPerson},
		{name: "common name without alternatives", ca: ca, offer: offer(plain.Cert), id: named(isakmp.IDFQDN, "Mallory")},
		{name: "nothing", ca: ca, id: dn(alice.Cert), cause: Malformed, wanted: "sent none"},
		{name: "garbage", ca: ca, offer: []isakmp.Cert{{Encoding: isakmp.CertX509Signature, Data: []byte{0x30, 0x80, 1}}}, id: dn(alice.Cert), cause: Malformed, wanted: "cannot be read"},
		{name: "other encodings", ca: ca, offer: []isakmp.Cert{{Encoding: isakmp.CertCRL, Data: alice.Cert.Raw}}, id: dn(alice.Cert), cause: Malformed, wanted: "sent none"},
		{name: "garbage beside", ca: ca, offer: append(offer(alice.Cert), isakmp.Cert{Encoding: isakmp.CertX509Signature, Data: []byte{1}}), id: dn(alice.Cert)},
		{name: "a heap", ca: ca, offer: offer(alice.Cert, ca.Cert, ca.Cert, ca.Cert, ca.Cert, ca.Cert, ca.Cert, ca.Cert, ca.Cert), id: dn(alice.Cert), cause: Malformed, wanted: "at most 8"},
		{name: "another authority", ca: other, offer: offer(alice.Cert, ca.Cert), id: dn(alice.Cert), cause: Untrusted, wanted: "issued by CN=Test CA, which leads to none of ca ([CN=Other CA])"},
		{name: "its namesake", ca: ca, offer: offer(stranger.Cert), id: dn(stranger.Cert), cause: Untrusted, wanted: "has the name of CN=Test CA, but not its key"},
		{name: "signed by itself", ca: ca, offer: offer(forge(t, nil, func(*x509.Certificate) {}).Cert), id: dn(plain.Cert), cause: Untrusted},
		{name: "expired", ca: ca, now: noon.AddDate(4, 0, 0), offer: offer(alice.Cert), id: dn(alice.Cert), cause: OutOfDate, wanted: "it expired on 2028-09-03 12:00 UTC and the clock says 2030-06-01 12:00 UTC: renew it"},
		{name: "too early", ca: ca, now: noon.AddDate(0, 0, -3), offer: offer(alice.Cert), id: dn(alice.Cert), cause: OutOfDate, wanted: "valid from 2026-05-31 12:00 UTC on and the clock says 2026-05-29 12:00 UTC: set the clock"},
		{name: "no clock", ca: ca, now: time.Unix(70, 0), offer: offer(alice.Cert), id: dn(alice.Cert), cause: OutOfDate, wanted: "the clock says 1970-01-01 00:01 UTC and it is valid from 2026-05-31 12:00 UTC: set the clock"},
		{name: "a stranger's dates", ca: other, now: noon.AddDate(4, 0, 0), offer: offer(alice.Cert), id: dn(alice.Cert), cause: Untrusted},
		{name: "revoked", ca: ca, crl: crl, offer: offer(alice.Cert), id: dn(alice.Cert), cause: Revoked, wanted: "certificate of CN=alice: it was revoked on 2026-06-01 12:00 UTC: make its owner a new one"},
		{name: "not the revoked one", ca: ca, crl: crl, offer: offer(server.Cert), id: dn(server.Cert)},
		{name: "short key", ca: ca, offer: offer(weak.Cert), id: dn(weak.Cert), now: noon.Add(time.Minute), cause: WeakKey, wanted: "1024 bits, 2048 to 8192 are accepted"},
		{name: "short key by name", ca: ca, terms: Terms{MinRSA: 1024}, offer: offer(weak.Cert), now: noon.Add(time.Minute), id: dn(weak.Cert)},
		{name: "for software", ca: ca, offer: offer(signer.Cert), id: dn(signer.Cert), cause: WrongUsage, wanted: "extended key usage"},
		{name: "does not sign", ca: ca, offer: offer(sealer.Cert), id: dn(sealer.Cert), cause: WrongUsage, wanted: "does not let it sign"},
		{name: "no usages", ca: ca, offer: offer(plain.Cert), id: dn(plain.Cert)},
		{name: "chain", ca: root, offer: offer(leaf.Cert, branch.Cert), id: dn(leaf.Cert)},
		{name: "chain in PKCS #7", ca: root, offer: pkcs7, id: dn(leaf.Cert)},
		{name: "chain with a gap", ca: root, offer: offer(leaf.Cert), id: dn(leaf.Cert), cause: Untrusted, wanted: "let the peer send the certificates in between"},
		{name: "chain's middle expired", ca: root, now: noon.AddDate(0, 1, 0), offer: offer(leaf.Cert, branch.Cert), id: dn(leaf.Cert), cause: OutOfDate, wanted: "certificate of CN=Branch: it expired"},
		{name: "an authority that may not make others", ca: ca, offer: offer(tooDeep.Cert, middle.Cert), id: dn(tooDeep.Cert), cause: Untrusted},
		{name: "called", terms: caller, ca: ca, offer: offer(server.Cert), id: dn(server.Cert)},
		{name: "called, a client answers", terms: Terms{Server: true}, ca: ca, offer: offer(alice.Cert), id: dn(alice.Cert), cause: WrongUsage, wanted: "it is a client's"},
		{name: "called by another name", terms: Terms{Server: true, Name: "vpn2.example.com"}, ca: ca, offer: offer(server.Cert), id: dn(server.Cert), cause: WrongName, wanted: `does not stand for "vpn2.example.com"; it has vpn.example.com, 2001:db8::1`},
		{name: "called by address", terms: Terms{Server: true, Name: "2001:db8::1"}, ca: ca, offer: offer(server.Cert), id: dn(server.Cert)},
		{name: "called by another address", terms: Terms{Server: true, Name: "192.0.2.1"}, ca: ca, offer: offer(server.Cert), id: dn(server.Cert), cause: WrongName},
	} {
		t.Run(x.name, func(t *testing.T) {
			var crls [][]byte
			if x.crl != nil {
				crls = append(crls, x.crl)
			}
			if x.now.IsZero() {
				x.now = noon
			}
			tr := trust(t, x.terms, crls, x.ca)
			key, chain, err := tr.Verify(x.now, x.offer, x.id)
			if x.cause == 0 {
				if err != nil {
					t.Fatal(err)
				}
				c := must(x509.ParseCertificate(chain[0]))
				if len(chain) < 2 || !samePublic(key, c.PublicKey) {
					t.Errorf("a chain of %d", len(chain))
				}
				var again []isakmp.Cert // as it is asked when the lists have changed
				for _, der := range chain {
					again = append(again, isakmp.Cert{Encoding: isakmp.CertX509Signature, Data: der})
				}
				if _, _, err := tr.Verify(x.now, again, x.id); err != nil {
					t.Errorf("asked again: %v", err)
				}
				return
			}
			var r *Refusal
			if !errors.As(err, &r) {
				t.Fatalf("accepted, or another error: %v", err)
			}
			if r.Cause != x.cause || !strings.Contains(r.Error(), x.wanted) || r.Mend == "" {
				t.Errorf("cause %d: %v", r.Cause, r)
			}
			if key != nil || chain != nil {
				t.Error("a key comes with the refusal")
			}
		})
	}
}

// TestRevokedBetween: a list of an authority that only the peer knows, checked when its certificate comes.
func TestRevokedBetween(t *testing.T) {
	root := forge(t, nil, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = "Root", true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	})
	branch := forge(t, root, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = "Branch", true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		c.SubjectKeyId = []byte{1}
	})
	forged := forge(t, nil, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = "Branch", true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		c.SubjectKeyId = []byte{1}
	})
	leaf := forge(t, branch, func(c *x509.Certificate) { c.Subject.CommonName = "leaf" })
	for name, x := range map[string]struct {
		by      *Pair
		revoked bool
	}{"signed": {branch, true}, "forged": {forged, false}} {
		tr := trust(t, Terms{}, [][]byte{must(x.by.Revoke(noon, nil, leaf.Cert.SerialNumber))}, root)
		_, _, err := tr.Verify(noon, offer(leaf.Cert, branch.Cert), dn(leaf.Cert))
		if (err != nil) != x.revoked {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A forged list of an authority of ours is refused when it is read.
	fake := forge(t, nil, func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = "Root", true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
		c.SubjectKeyId = []byte{2}
	})
	list := file(t, "crl.pem", must(fake.Revoke(noon, nil, big.NewInt(1))))
	if _, _, errs := LoadTrust([]string{file(t, "ca.pem", root.CertPEM())}, []string{list}, Terms{}); len(errs) != 1 || !strings.Contains(errs[0].Error(), "is not signed by CN=Root of ca") {
		t.Errorf("%v", errs)
	}
}

func TestRevoke(t *testing.T) {
	ca := authority()
	var list []byte
	for i := range int64(3) {
		list = must(ca.Revoke(noon.Add(time.Duration(i)*time.Hour), list, big.NewInt(100+i)))
	}
	list = must(ca.Revoke(noon.Add(5*time.Hour), list, big.NewInt(101))) // again
	list = must(ca.Revoke(noon.Add(6*time.Hour), list, nil))
	l := must(x509.ParseRevocationList(blocks(list)[0].Bytes))
	if len(l.RevokedCertificateEntries) != 3 || l.Number.Int64() != 5 || !l.RevokedCertificateEntries[1].RevocationTime.Equal(noon.Add(time.Hour)) {
		t.Errorf("number %v, %v", l.Number, l.RevokedCertificateEntries)
	}
	tr := trust(t, Terms{}, [][]byte{list}, ca)
	if got := tr.Outdated(noon.AddDate(0, 6, 0)); len(got) != 0 {
		t.Error(got)
	}
	if got := tr.Outdated(noon.AddDate(2, 0, 0)); len(got) != 1 || !strings.Contains(got[0], "should have been renewed by 2027-06-01") {
		t.Error(got)
	}
	if _, err := must(NewCA(noon, "Other", P256, CAValidity)).Revoke(noon, list, big.NewInt(1)); err == nil {
		t.Error("another authority's list continued")
	}
}

func TestLoadTwiceIsEqual(t *testing.T) {
	ca, p := authority(), issue(t, true, "vpn.example.com")
	rsaPair := must(ca.Issue(noon, Request{Names: []string{"rsa"}, Kind: RSA2048, Validity: MaxValidity}))
	caFile, crl := file(t, "ca", ca.CertPEM()), file(t, "crl", must(ca.Revoke(noon, nil, big.NewInt(5))))
	for _, p := range []*Pair{p, rsaPair} {
		cert, key := file(t, "cert", append(p.CertPEM(), ca.CertPEM()...)), file(t, "key", must(p.KeyPEM()))
		type loaded struct {
			own *Own
			tr  *Trust
		}
		load := func() loaded {
			tr, _, errs := LoadTrust([]string{caFile}, []string{crl}, Terms{Server: true})
			if errs != nil {
				t.Fatal(errs)
			}
			own, err := LoadOwn(cert, key, tr.Intermediates())
			if err != nil {
				t.Fatal(err)
			}
			return loaded{own, tr}
		}
		a, b := load(), load()
		a.own.Key.Sign(nil, make([]byte, 32), crypto.SHA256) // whatever use leaves behind
		if !reflect.DeepEqual(a, b) {
			t.Error("the same files make a difference")
		}
		if len(a.own.Chain) != 1 {
			t.Errorf("a chain of %d: the root is not sent", len(a.own.Chain))
		}
		if id, err := a.own.ID(); err != nil || id.Type != isakmp.IDDERASN1DN {
			t.Errorf("%v %v", id, err)
		}
	}
}

func TestLoadOwnErrors(t *testing.T) {
	p, q := issue(t, false, "a"), issue(t, false, "b")
	good, key, another := file(t, "cert", p.CertPEM()), file(t, "key", must(p.KeyPEM())), file(t, "key2", must(q.KeyPEM()))
	locked := file(t, "locked", []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n"))
	for _, x := range []struct{ cert, key, want string }{
		{good, another, "the key does not belong to the certificate"},
		{good, good, "holds no private key"},
		{key, key, "holds no certificate"},
		{good, locked, "has a passphrase"},
		{"/nonexistent", key, "no such file"},
		{file(t, "junk", []byte("hello")), key, "neither PEM nor DER"},
		{t.TempDir(), key, "is a directory"},
	} {
		if _, err := LoadOwn(x.cert, x.key, nil); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%v, want %q", err, x.want)
		}
	}
	// The order in a file does not matter.
	own, err := LoadOwn(file(t, "heap", append(authority().CertPEM(), p.CertPEM()...)), key, nil)
	if err != nil || !bytes.Equal(own.Chain[0], p.Cert.Raw) {
		t.Error(err)
	}
	if err := own.Check(noon.AddDate(4, 0, 0)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Error(err)
	}
}

func TestIssueRefusals(t *testing.T) {
	ca := authority()
	for name, f := range map[string]func() error{
		"clock": func() error { _, err := NewCA(time.Unix(100, 0), "x", P256, CAValidity); return err },
		"clock 2": func() error {
			_, err := ca.Issue(time.Unix(100, 0), Request{Names: []string{"x"}, Kind: P256, Validity: MaxValidity})
			return err
		},
		"name": func() error { _, err := ca.Issue(noon, Request{Kind: P256, Validity: MaxValidity}); return err },
		"bad name": func() error {
			_, err := ca.Issue(noon, Request{Names: []string{"a b"}, Server: true, Kind: P256, Validity: MaxValidity})
			return err
		},
		"too long": func() error {
			_, err := ca.Issue(noon, Request{Names: []string{"a"}, Kind: P256, Validity: MaxValidity + time.Hour})
			return err
		},
		"no CA": func() error {
			_, err := issue(t, false, "a").Issue(noon, Request{Names: []string{"a"}, Kind: P256, Validity: MaxValidity})
			return err
		},
		"expired CA": func() error {
			_, err := ca.Issue(noon.AddDate(11, 0, 0), Request{Names: []string{"a"}, Kind: P256, Validity: MaxValidity})
			return err
		},
		"password": func() error { _, err := ca.Bundle("x", ""); return err },
	} {
		if f() == nil {
			t.Errorf("%s: done", name)
		}
	}
	late := must(ca.Issue(noon.AddDate(9, 6, 0), Request{Names: []string{"a"}, Kind: P256, Validity: MaxValidity}))
	if late.Cert.NotAfter.After(ca.Cert.NotAfter) {
		t.Error("outlives its authority")
	}
}

// TestOpenSSL: what we make is what openssl understands.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("openssl is not installed")
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(openssl, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	now := time.Now()
	ca := must(NewCA(now, "OpenSSL's Friend", RSA2048, CAValidity))
	server := must(ca.Issue(now, Request{Names: []string{"vpn.example.com", "192.0.2.1"}, Server: true, Validity: MaxValidity}))
	caFile, cert := file(t, "ca.pem", ca.CertPEM()), file(t, "cert.pem", server.CertPEM())
	crl := file(t, "crl.pem", must(ca.Revoke(now, nil, big.NewInt(77))))
	if out := run("verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "vpn.example.com", "-crl_check", "-CRLfile", crl, "-CAfile", caFile, cert); !strings.Contains(out, "OK") {
		t.Error(out)
	}
	text := run("x509", "-in", cert, "-noout", "-text")
	for _, want := range []string{"TLS Web Server Authentication", "TLS Web Client Authentication", "1.3.6.1.5.5.8.2.2", "DNS:vpn.example.com, IP Address:192.0.2.1", "CA:FALSE", "Digital Signature, Key Encipherment"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if out := run("crl", "-in", crl, "-noout", "-text"); !strings.Contains(out, "Serial Number: 4D") {
		t.Error(out)
	}
	// The bundle, with a password that is not ASCII.
	const password = "pässword 12"
	bundle := file(t, "server.p12", must(server.Bundle("Büro", password, ca.Cert)))
	out := run("pkcs12", "-in", bundle, "-passin", "pass:"+password, "-nodes")
	certs, err := ParseCertificates([]byte(out))
	if err != nil || len(certs) != 2 || !bytes.Equal(certs[0].Raw, server.Cert.Raw) || !bytes.Equal(certs[1].Raw, ca.Cert.Raw) {
		t.Errorf("%v in\n%s", err, out)
	}
	key, err := ParseKey([]byte(out))
	if err != nil || !samePublic(key.Public(), server.Cert.PublicKey) {
		t.Errorf("key: %v", err)
	}
	if out, err := exec.Command(openssl, "pkcs12", "-in", bundle, "-passin", "pass:wrong", "-nodes").CombinedOutput(); err == nil || !strings.Contains(string(out), "invalid password") {
		t.Errorf("a wrong password: %s", out)
	}
	info := run("pkcs12", "-in", bundle, "-passin", "pass:"+password, "-info", "-noout")
	for _, want := range []string{"MAC: sha1, Iteration 10000", "pbeWithSHA1And3-KeyTripleDES-CBC, Iteration 10000"} {
		if !strings.Contains(info, want) {
			t.Errorf("no %q in\n%s", want, info)
		}
	}
	// What openssl makes, we read: keys in its old forms, and a chain in PKCS #7.
	for _, args := range [][]string{{"rsa", "-traditional"}, {"pkey"}, {"pkey", "-outform", "DER"}} {
		in := file(t, "key.pem", must(server.KeyPEM()))
		to := filepath.Join(t.TempDir(), "out")
		run(append(args, "-in", in, "-out", to)...)
		if key, err := ParseKey(must(os.ReadFile(to))); err != nil || !samePublic(key.Public(), server.Cert.PublicKey) {
			t.Errorf("%v: %v", args, err)
		}
	}
	p7 := filepath.Join(t.TempDir(), "chain.p7b")
	run("crl2pkcs7", "-nocrl", "-certfile", cert, "-certfile", caFile, "-outform", "DER", "-out", p7)
	got, err := UnwrapPKCS7(must(os.ReadFile(p7)), 8)
	if err != nil || len(got) != 2 || !bytes.Equal(got[0], server.Cert.Raw) || !bytes.Equal(got[1], ca.Cert.Raw) {
		t.Errorf("PKCS #7: %d, %v", len(got), err)
	}
}

// TestPKCS12KDF is the vector of RFC 7292's appendix B, as published with the first implementations.
func TestPKCS12KDF(t *testing.T) {
	secret := append(must(bmpString("smeg")), 0, 0)
	for _, x := range []struct {
		salt string
		id   byte
		want string
	}{
		{"0a58cf64530d823f", 1, "8aaae6297b6cb04642ab5b077851284eb7128f1a2a7fbca3"},
		{"0a58cf64530d823f", 2, "79993dfe048d3b76"},
		{"3d83c0e4546ac140", 3, "8d967d88f6caa9d714800ab3d48051d63f73a312"},
	} {
		want := unhex(x.want)
		if got := pkcs12KDF(secret, unhex(x.salt), x.id, 1, len(want)); !bytes.Equal(got, want) {
			t.Errorf("id %d: %x", x.id, got)
		}
	}
}

func unhex(s string) []byte {
	n, _ := new(big.Int).SetString(s, 16)
	return n.FillBytes(make([]byte, len(s)/2))
}

// wrapPKCS7 makes the shortest SignedData around certificates.
func wrapPKCS7(t testing.TB, ders ...[]byte) []byte {
	tlv := func(tag byte, parts ...[]byte) []byte {
		body := bytes.Join(parts, nil)
		return append([]byte{tag, 0x83, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
	}
	oid := func(last byte) []byte { return []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, last} }
	version, none := []byte{2, 1, 1}, []byte{0x31, 0}
	// The lengths are longer than they need be, which DER forbids and BER allows: real senders write DER.
	signed := short(tlv(0x30, version, none, short(tlv(0x30, oid(1))), short(tlv(0xa0, ders...)), none))
	return short(tlv(0x30, oid(2), short(tlv(0xa0, signed))))
}

// short rewrites a long length as DER wants it.
func short(b []byte) []byte {
	n := len(b) - 5
	switch {
	case n < 0x80:
		return append([]byte{b[0], byte(n)}, b[5:]...)
	case n < 0x100:
		return append([]byte{b[0], 0x81, byte(n)}, b[5:]...)
	case n < 0x10000:
		return append([]byte{b[0], 0x82, byte(n >> 8), byte(n)}, b[5:]...)
	}
	return b
}

func TestPKCS7Truncations(t *testing.T) {
	ca := authority()
	whole := wrapPKCS7(t, ca.Cert.Raw, ca.Cert.Raw)
	if got, err := UnwrapPKCS7(whole, 2); err != nil || len(got) != 2 || !bytes.Equal(got[1], ca.Cert.Raw) {
		t.Fatalf("%d, %v", len(got), err)
	}
	if _, err := UnwrapPKCS7(whole, 1); err == nil {
		t.Error("more than asked for")
	}
	for n := range whole {
		if _, err := UnwrapPKCS7(whole[:n], 8); err == nil {
			t.Errorf("%d octets of %d pass", n, len(whole))
		}
	}
}

func FuzzVerify(f *testing.F) {
	ca := authority()
	p := must(ca.Issue(noon, Request{Names: []string{"alice"}, Kind: P256, Validity: MaxValidity}))
	dir := f.TempDir()
	path := filepath.Join(dir, "ca.pem")
	os.WriteFile(path, ca.CertPEM(), 0o600)
	tr, _, errs := LoadTrust([]string{path}, nil, Terms{})
	if errs != nil {
		f.Fatal(errs)
	}
	f.Add(uint8(4), p.Cert.Raw, uint8(9), p.Cert.RawSubject)
	f.Add(uint8(4), p.Cert.Raw, uint8(2), []byte("alice"))
	f.Add(uint8(1), wrapPKCS7(f, p.Cert.Raw, ca.Cert.Raw), uint8(9), p.Cert.RawSubject)
	f.Add(uint8(4), ca.Cert.Raw, uint8(9), ca.Cert.RawSubject)
	f.Fuzz(func(t *testing.T, enc uint8, cert []byte, typ uint8, id []byte) {
		key, chain, err := tr.Verify(noon, []isakmp.Cert{{Encoding: isakmp.CertEncoding(enc), Data: cert}}, isakmp.ID{Type: isakmp.IDType(typ), Data: id})
		if err != nil {
			var r *Refusal
			if !errors.As(err, &r) || key != nil || len(err.Error()) > 2000 {
				t.Fatalf("%d octets: %v", len(err.Error()), err)
			}
			return
		}
		if !bytes.Equal(chain[len(chain)-1], ca.Cert.Raw) {
			t.Fatal("a chain that does not end at the authority")
		}
	})
}

func FuzzFiles(f *testing.F) {
	ca := authority()
	f.Add(ca.CertPEM())
	f.Add(must(ca.KeyPEM()))
	f.Add(ca.Cert.Raw)
	f.Add(must(ca.Revoke(noon, nil, big.NewInt(1))))
	f.Add([]byte("-----BEGIN X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCertificates(b); (err == nil) != (len(c) > 0) {
			t.Fatal("certificates and an error")
		}
		if k, err := ParseKey(b); (err == nil) != (k != nil) {
			t.Fatal("a key and an error")
		}
		if l, err := parseCRLs(b, []*x509.Certificate{ca.Cert}); (err == nil) != (len(l) > 0) {
			t.Fatal("lists and an error")
		}
		pem.Decode(b)
	})
}
