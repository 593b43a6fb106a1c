package ikev1

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
	"culvert/ipsec/pki"
)

// made are an authority and what it has issued, made once: keys take their time.
type made struct {
	ca, server, client, short *pki.Pair
}

var madeOn = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// make3 makes them; keys are files, or nil for new ones on a curve.
func make3(kind pki.KeyKind, name string, keys ...string) func() made {
	return sync.OnceValue(func() made {
		must := func(err error) {
			if err != nil {
				panic(err)
			}
		}
		ca, err := pki.NewCA(madeOn, name, kind, pki.CAValidity)
		must(err)
		issue := func(i int, server bool, days int, names ...string) *pki.Pair {
			r := pki.Request{Names: names, Server: server, Kind: kind, Validity: time.Duration(days) * 24 * time.Hour}
			if keys != nil {
				b, err := os.ReadFile("testdata/" + keys[i])
				must(err)
				r.Key, err = pki.ParseKey(b)
				must(err)
			}
			p, err := ca.Issue(madeOn, r)
			must(err)
			return p
		}
		return made{ca, issue(0, true, 800, "vpn.example.com", "192.0.2.1"), issue(1, false, 800, "alice", "alice@example.com"), issue(1, false, 1, "brief")}
	})
}

var (
	rsaMade   = make3(pki.P256, "RSA CA", "rsa1.pem", "rsa2.pem")
	ecMade    = make3(pki.P256, "EC CA")
	ec384Made = make3(pki.P384, "EC384 CA")
	otherMade = make3(pki.P256, "Another CA", "rsa2.pem", "rsa1.pem")
)

// credentials are what somebody has of p, who trusts ca.
func credentials(t *testing.T, p, ca *pki.Pair, terms pki.Terms, crl []byte) *Credentials {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var crls []string
	if crl != nil {
		crls = []string{write("crl", crl)}
	}
	key, err := p.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	trust, _, errs := pki.LoadTrust([]string{write("ca", ca.CertPEM())}, crls, terms)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	own, err := pki.LoadOwn(write("cert", p.CertPEM()), write("key", key), nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := own.ID()
	if err != nil {
		t.Fatal(err)
	}
	return &Credentials{Chain: own.Chain, Key: own.Key, ID: id, Trust: trust}
}

// signedCable is a cable whose ends have certificates.
func signedCable(t *testing.T, m made, nat bool, change func(*Config)) (*cable, Dial) {
	c := newCable(t, 1, nat, func(cfg *Config) {
		cfg.Peers[0].Credentials = credentials(t, m.server, m.ca, pki.Terms{}, nil)
		if change != nil {
			change(cfg)
		}
	})
	d := c.caller()
	d.Peer.Secret = nil
	d.Peer.Credentials = credentials(t, m.client, m.ca, pki.Terms{Server: true, Name: "vpn.example.com"}, nil)
	return c, d
}

func TestDialSigned(t *testing.T) {
	for _, x := range []struct {
		name   string
		m      func() made
		nat    bool
		hash   Hash
		secret bool // the server has a pre-shared key too
		method AuthMethod
		loss   int
	}{
		{name: "RSA", m: rsaMade, hash: SHA256, method: RSASignature},
		{name: "RSA behind NAT, SHA1", m: rsaMade, nat: true, hash: SHA1, method: RSASignature, secret: true},
		{name: "RSA, MD5", m: rsaMade, hash: MD5, method: RSASignature},
		{name: "RSA, SHA512, lossy", m: rsaMade, nat: true, hash: SHA512, method: RSASignature, loss: 25},
		{name: "ECDSA 256", m: ecMade, hash: SHA256, method: ECDSA256},
		{name: "ECDSA 256 with another PRF", m: ecMade, hash: SHA1, method: ECDSA256, secret: true},
		{name: "ECDSA 384", m: ec384Made, hash: SHA256, nat: true, method: ECDSA384},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, d := signedCable(t, x.m(), x.nat, func(cfg *Config) {
				if !x.secret {
					cfg.Peers[0].Secret = nil
				}
			})
			d.Peer.Profile.Hashes = []Hash{x.hash}
			d.ID = "keyid:not believed"
			if x.loss > 0 {
				c.loss, c.dup = x.loss, x.loss
				c.dial(d)
				c.run(time.Minute)
				c.loss = 0
				c.run(time.Minute)
				if err := c.traffic(); err != nil {
					t.Fatalf("%v\n%s\n%s", err, c.a.log, c.b.log)
				}
				return
			}
			m := c.up(d)
			for i, s := range []*side{c.a, c.b} {
				p := s.e.Snapshot(c.now).Peers
				if len(p) != 1 || p[0].Auth != x.method || p[0].Identity != []string{"CN=vpn.example.com", "CN=alice"}[i] {
					t.Errorf("%+v", p)
				}
			}
			if !strings.HasSuffix(c.b.ups[0].Phase1, "/"+x.method.String()) {
				t.Error(c.b.ups[0].Phase1)
			}
			// Both phases are renewed.
			before := c.phase1(c.a)
			for range 8 * 12 {
				c.run(5 * time.Minute)
				if err := c.traffic(); err != nil {
					t.Fatal(err)
				}
			}
			if c.phase1(c.a) == before || len(c.a.downs)+len(c.b.downs) > 0 {
				t.Errorf("not renewed, or lost: %v %v", c.a.downs, c.b.downs)
			}
			c.a.e.ClosePeer(c.now, m, "over")
			c.run(time.Second)
			c.empty(c.a)
			c.empty(c.b)
		})
	}
}

// TestBothMethods: one server, a client with a key and one with a certificate.
func TestBothMethods(t *testing.T) {
	m := rsaMade()
	for _, signed := range []bool{true, false} {
		c, d := signedCable(t, m, false, nil)
		if !signed {
			d.Peer.Credentials, d.Peer.Secret = nil, ipsec.Secret("mySecret")
		}
		c.up(d)
		if got := c.phase1(c.b).chosen.method.signed(); got != signed {
			t.Errorf("signed %v", got)
		}
	}
}

func TestCertificateRefusals(t *testing.T) {
	m, other, ec := rsaMade(), otherMade(), ecMade()
	revoked, err := m.ca.Revoke(madeOn, nil, m.client.Cert.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	serverRevoked, err := m.ca.Revoke(madeOn, nil, m.server.Cert.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	type set struct{ server, client *Credentials }
	caller := pki.Terms{Server: true, Name: "vpn.example.com"}
	for _, x := range []struct {
		name   string
		change func(s *set, cfg *Config, d *Dial)
		server string // in the server's only warning
		caller string // in the caller's reason
		cause  DialCause
		later  time.Duration
	}{
		{name: "client of another authority", change: func(s *set, _ *Config, _ *Dial) {
			s.client = credentials(t, other.client, m.ca, caller, nil)
		}, server: "refused by its certificate: certificate of CN=alice: it was issued by CN=Another CA, which leads to none of ca ([CN=RSA CA]): add that authority to ca",
			caller: "the server does not accept our certificate (INVALID-CERTIFICATE)", cause: DialCertificate},
		{name: "client's certificate expired", later: 48 * time.Hour, change: func(s *set, _ *Config, _ *Dial) {
			s.client = credentials(t, m.short, m.ca, caller, nil)
		}, server: "certificate of CN=brief: it expired on 2026-01-02 00:00 UTC and the clock says 2026-01-03", caller: "does not accept our certificate", cause: DialCertificate},
		{name: "client's certificate revoked", change: func(s *set, _ *Config, _ *Dial) {
			s.server = credentials(t, m.server, m.ca, pki.Terms{}, revoked)
		}, server: "certificate of CN=alice: it was revoked on 2026-01-01 00:00 UTC: make its owner a new one", caller: "does not accept our certificate", cause: DialCertificate},
		{name: "client shows another identity", change: func(s *set, _ *Config, _ *Dial) {
			s.client.ID = isakmp.ID{Type: isakmp.IDFQDN, Data: []byte("root.example.com")}
		}, server: "the peer shows itself as root.example.com (fqdn), which is not in it; it has alice, alice@example.com", caller: "does not accept our certificate", cause: DialCertificate},
		{name: "client with another's certificate", change: func(s *set, _ *Config, _ *Dial) {
			s.client.Key = other.client.Key
		}, server: "the signature is not made with the key of the certificate", caller: "(INVALID-SIGNATURE)", cause: DialCertificate},
		{name: "signature too short", change: func(s *set, _ *Config, _ *Dial) {
			s.client.Key = badSigner{s.client.Key, func(b []byte) []byte { return b[1:] }}
		}, server: "the signature is not made with the key", cause: DialCertificate, caller: "does not accept"},
		{name: "signature too long", change: func(s *set, _ *Config, _ *Dial) {
			s.client.Key = badSigner{s.client.Key, func(b []byte) []byte { return append([]byte{0}, b...) }}
		}, server: "the signature is not made with the key", cause: DialCertificate, caller: "does not accept"},
		{name: "no certificate", change: func(s *set, _ *Config, _ *Dial) { s.client.Chain = nil },
			server: "the peer has sent none: choose a certificate in the peer's settings", cause: DialCertificate, caller: "does not accept"},
		{name: "a heap of certificates", change: func(s *set, _ *Config, _ *Dial) {
			for len(s.client.Chain) <= maxCerts {
				s.client.Chain = append(s.client.Chain, m.ca.Cert.Raw)
			}
		}, server: "more certificates than anyone needs", cause: DialCertificate, caller: "does not accept"},
		{name: "a certificate that is none", change: func(s *set, _ *Config, _ *Dial) { s.client.Chain = [][]byte{bytes.Repeat([]byte{0x30}, 9000)} },
			server: "it cannot be read", cause: DialCertificate, caller: "does not accept"},
		{name: "server of another authority", change: func(s *set, _ *Config, _ *Dial) {
			s.server = credentials(t, other.server, m.ca, pki.Terms{}, nil)
		}, caller: "the server is refused by its certificate: certificate of CN=vpn.example.com: it was issued by CN=Another CA", cause: DialCertificate},
		{name: "server's certificate revoked", change: func(s *set, _ *Config, _ *Dial) {
			s.client = credentials(t, m.client, m.ca, caller, serverRevoked)
		}, caller: "it was revoked on 2026-01-01", cause: DialCertificate},
		{name: "server with another name", change: func(s *set, _ *Config, _ *Dial) {
			s.client = credentials(t, m.client, m.ca, pki.Terms{Server: true, Name: "bank.example.com"}, nil)
		}, caller: `it does not stand for "bank.example.com"; it has vpn.example.com, 192.0.2.1: call it by one of its names`, cause: DialCertificate},
		{name: "a client poses as the server", change: func(s *set, _ *Config, _ *Dial) {
			s.server = credentials(t, m.client, m.ca, pki.Terms{}, nil)
		}, caller: "it is a client's, and the peer is a server", cause: DialCertificate},
		{name: "server's signature by another key", change: func(s *set, _ *Config, _ *Dial) { s.server.Key = other.server.Key },
			caller: "the signature is not made with the key of the certificate", cause: DialCertificate},
		{name: "client has a key only", change: func(s *set, cfg *Config, d *Dial) {
			cfg.Peers[0].Secret = nil
			s.client, d.Peer.Secret = nil, ipsec.Secret("mySecret")
		}, server: "the client has a pre-shared key and certificates are asked for", caller: "no common phase 1 proposal", cause: DialNoProposal},
		{name: "server has a key only", change: func(s *set, cfg *Config, d *Dial) { s.server = nil },
			server: "the client has a certificate and a pre-shared key is asked for", caller: "no common phase 1 proposal", cause: DialNoProposal},
		{name: "keys of two kinds", change: func(s *set, cfg *Config, d *Dial) {
			cfg.Peers[0].Secret = nil
			s.client = credentials(t, ec.client, m.ca, caller, nil)
		}, server: "in IKEv1 both are RSA, or both ECDSA on the same curve", caller: "aes-256/sha256/ecp256/ecdsa-256", cause: DialNoProposal},
		{name: "an empty key is none", change: func(s *set, cfg *Config, d *Dial) {
			cfg.Peers[0].Secret, s.server = nil, nil
			s.client, d.Peer.Secret = nil, ipsec.Secret("mySecret")
		}, server: "no common phase 1 proposal", caller: "no common phase 1 proposal", cause: DialNoProposal},
		{name: "aggressive", change: func(s *set, cfg *Config, d *Dial) {
			cfg.Peers[0].Secret, cfg.Peers[0].Exchange = nil, Aggressive
			s.client, d.Peer.Secret, d.Peer.Exchange = nil, ipsec.Secret("mySecret"), Aggressive
		}, server: "certificates are used in main mode only", caller: "no common phase 1 proposal", cause: DialNoProposal},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := set{credentials(t, m.server, m.ca, pki.Terms{}, nil), credentials(t, m.client, m.ca, caller, nil)}
			var d Dial
			c := newCable(t, 1, false, func(cfg *Config) { x.change(&s, cfg, &d); cfg.Peers[0].Credentials = s.server })
			base := c.caller()
			base.Peer.Credentials, base.Peer.Secret, base.Peer.Exchange = s.client, d.Peer.Secret, d.Peer.Exchange
			c.run(x.later)
			c.dial(base)
			c.run(time.Minute)
			if len(c.a.ups)+len(c.b.ups) > 0 || len(c.a.data.SAs())+len(c.b.data.SAs()) > 0 {
				t.Fatal("connected")
			}
			if len(c.a.fails) != 1 || c.a.fails[0].Cause != x.cause || !strings.Contains(c.a.fails[0].Reason, x.caller) {
				t.Errorf("caller: %v", c.a.fails)
			}
			warnings := strings.Count(c.b.log.String(), "level=WARN")
			if x.server == "" && warnings > 0 || x.server != "" && (warnings != 1 || !strings.Contains(c.b.log.String(), x.server)) {
				t.Errorf("%d warnings:\n%s", warnings, c.b.log)
			}
			c.run(time.Minute)
			c.empty(c.a)
			c.empty(c.b)
		})
	}
}

// badSigner spoils signatures.
type badSigner struct {
	crypto.Signer
	spoil func([]byte) []byte
}

func (s badSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	b, err := s.Signer.Sign(r, digest, o)
	return s.spoil(b), err
}

// TestCertificatesReload: a list that revokes a connected client's certificate ends it; keys that change do not.
func TestCertificatesReload(t *testing.T) {
	m := rsaMade()
	c, d := signedCable(t, m, false, nil)
	c.up(d)
	again := func(crl []byte, secret string) {
		cfg := testConfig()
		cfg.Peers[0].Secret = ipsec.Secret(secret)
		cfg.Peers[0].Credentials = credentials(t, m.server, m.ca, pki.Terms{}, crl)
		c.b.e.Reconfigure(c.now, cfg)
		c.run(time.Second)
	}
	again(nil, "another")
	harmless, err := m.ca.Revoke(madeOn, nil, big.NewInt(1))
	if err != nil {
		t.Fatal(err)
	}
	again(harmless, "another")
	if len(c.b.downs) > 0 {
		t.Fatalf("ended: %v", c.b.downs)
	}
	list, err := m.ca.Revoke(madeOn, harmless, m.client.Cert.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	again(list, "another")
	if len(c.b.downs) != 1 || c.b.downs[0] != "its certificate is not accepted any more" || !strings.Contains(c.b.log.String(), "no longer accepted: certificate of CN=alice: it was revoked") {
		t.Errorf("%v\n%s", c.b.downs, c.b.log)
	}
}

// TestForgedSignedFifth: whoever sees message 4 cannot spoil the exchange with forged fifth messages.
func TestForgedSignedFifth(t *testing.T) {
	c, d := signedCable(t, rsaMade(), false, nil)
	forged := 0
	c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
		if h := exchangeOf(msg); h.Exchange == isakmp.Main && h.Flags&isakmp.Encrypted != 0 && forged < maxBadAuth-1 {
			forged++
			bad := bytes.Clone(msg)
			bad[isakmp.HeaderLen+16*forged] ^= 1
			c.b.e.Receive(c.now, p, bad)
		}
		return p, msg
	}
	c.up(d)
	if forged == 0 {
		t.Error("nothing forged")
	}
}

// TestSignedTruncations: no message of an exchange does harm at any length.
func TestSignedTruncations(t *testing.T) {
	c, d := signedCable(t, ecMade(), false, nil)
	seen := make(map[string]bool)
	cut := func(s *side) func(ipsec.Path, []byte) (ipsec.Path, []byte) {
		return func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
			if key := string(msg); !seen[key] && len(seen) < 10 {
				seen[key] = true
				for n := isakmp.HeaderLen; n < len(msg); n += 7 {
					short := bytes.Clone(msg[:n])
					isakmp.SetLength(short)
					if sa := c.phase1(s); sa != nil && sa.badAuth > 2 {
						sa.badAuth = 0 // hear them all
					}
					s.e.Receive(c.now, p, short)
				}
			}
			return p, msg
		}
	}
	c.toA, c.toB = cut(c.a), cut(c.b)
	c.dial(d)
	c.run(time.Minute)
	if len(c.a.ups) != 1 || len(seen) < 6 {
		t.Errorf("%d up, %d messages cut\n%s\n%s", len(c.a.ups), len(seen), c.a.log, c.b.log)
	}
}

func TestSignatures(t *testing.T) {
	keys := []crypto.Signer{rsaMade().server.Key}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	lengths := map[AuthMethod]int{RSASignature: 256, ECDSA256: 64, ECDSA384: 96, ECDSA521: 132}
	for i, key := range keys {
		m, err := MethodOf(key.Public())
		if err != nil || m != AuthMethod(i+1) {
			t.Fatalf("%v %v", m, err)
		}
		for _, n := range []int{16, 20, 32, 48, 64} {
			hash := bytes.Repeat([]byte{7}, n)
			if x, ok := ecdsaMethods[m]; ok && n != x.sum.Size() {
				continue
			}
			sig, err := m.signature(key, hash)
			if err != nil || len(sig) != lengths[m] {
				t.Fatalf("%v: %d octets, %v", m, len(sig), err)
			}
			if err := m.verify(key.Public(), hash, sig); err != nil {
				t.Errorf("%v over %d: %v", m, n, err)
			}
			for j := range sig {
				for _, bad := range [][]byte{sig[:j], append(bytes.Clone(sig[:j]), sig[j:min(j+1, len(sig))]...), flip(sig, j)} {
					if len(bad) == len(sig) && bytes.Equal(bad, sig) {
						continue
					}
					if j%64 == 0 && m.verify(key.Public(), hash, bad) == nil {
						t.Fatalf("%v: a wrong signature passes", m)
					}
				}
			}
			if m.verify(key.Public(), hash[1:], sig) == nil {
				t.Errorf("%v: a shorter hash passes", m)
			}
			for _, other := range keys {
				if other != key && m.verify(other.Public(), hash, sig) == nil {
					t.Errorf("%v: another key passes", m)
				}
			}
		}
	}
	// No key makes zeros valid.
	for i, key := range keys {
		m := AuthMethod(i + 1)
		if m.verify(key.Public(), make([]byte, 32), make([]byte, lengths[m])) == nil {
			t.Errorf("%v: zeros pass", m)
		}
	}
	if k, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader); err != nil {
		t.Fatal(err)
	} else if _, err := MethodOf(k.Public()); err == nil {
		t.Error("P-224 has a method")
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

// TestECDSAVector is RFC 4754 section 8.1: the signature of "abc", r and s side by side.
func TestECDSAVector(t *testing.T) {
	bin := func(s string) []byte { b, _ := hex.DecodeString(s); return b }
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), bin("04"+
		"2442A5CC0ECD015FA3CA31DC8E2BBC70BF42D60CBCA20085E0822CB04235E970"+"6FC98BD7E50211A4A27102FA3549DF79EBCB4BF246B80945CDDFE7D509BBFD7D"))
	if err != nil {
		t.Fatal(err)
	}
	sig := bin("CB28E0999B9C7715FD0A80D8E47A77079716CBBF917DD72E97566EA1C066957C" + "86FA3BB4E26CAD5BF90B7F81899256CE7594BB1EA0C89212748BFF3B3D5B0315")
	if err := ECDSA256.verify(key, SHA256.sum([]byte("abc")), sig); err != nil {
		t.Error(err)
	}
	if ECDSA384.verify(key, SHA256.sum([]byte("abc")), sig) == nil {
		t.Error("another method passes")
	}
}

// TestRSAHasNoDigestInfo: what is encrypted with the private key is the hash and nothing else (RFC 2409 section 5.1).
func TestRSAHasNoDigestInfo(t *testing.T) {
	key := rsaMade().server.Key.(*rsa.PrivateKey)
	hash := SHA1.sum([]byte("x"))
	sig, err := RSASignature.signature(key, hash)
	if err != nil {
		t.Fatal(err)
	}
	plain := new(big.Int).Exp(new(big.Int).SetBytes(sig), big.NewInt(int64(key.E)), key.N).FillBytes(make([]byte, 256))
	want := append(append([]byte{0, 1}, bytes.Repeat([]byte{0xff}, 256-3-20)...), 0)
	if !bytes.Equal(plain, append(want, hash...)) {
		t.Errorf("%x", plain)
	}
	withInfo, err := key.Sign(nil, hash, crypto.SHA1)
	if err != nil {
		t.Fatal(err)
	}
	if RSASignature.verify(key.Public(), hash, withInfo) == nil {
		t.Error("a signature with DigestInfo passes")
	}
}

// TestHostileSignatures (CVE-2026-50721, CVE-2026-14957, CVE-2004-0155): a part of the hash, padding that is none, and keys
// whose exponent makes a signature out of anything.
func TestHostileSignatures(t *testing.T) {
	key := rsaMade().server.Key.(*rsa.PrivateKey)
	hash := SHA256.sum([]byte("x"))
	size := key.Size()
	padded := func(kind byte, fill int, zero bool, hash, behind []byte) []byte {
		b := append([]byte{0, kind}, bytes.Repeat([]byte{0xff}, fill)...)
		if zero {
			b = append(b, 0)
		}
		b = append(append(b, hash...), behind...)
		return append(b, make([]byte, size-len(b))...)
	}
	type block struct {
		name string
		b    []byte
	}
	blocks := []block{
		{"right", padded(1, size-3-32, true, hash, nil)},
		{"garbage behind", padded(1, 8, true, hash, bytes.Repeat([]byte{7}, size-11-32))},
		{"zeros behind", padded(1, 8, true, hash, nil)},
		{"encryption", padded(2, size-3-32, true, hash, nil)},
		{"kind 0", padded(0, size-3-32, true, hash, nil)},
		{"no zero", padded(1, size-2-32, false, hash, nil)},
		{"nothing", make([]byte, size)},
	}
	for n := range hash {
		blocks = append(blocks, block{fmt.Sprintf("%d octets of the hash", n), padded(1, size-3-n, true, hash[:n], nil)},
			block{fmt.Sprintf("the last %d octets", n), padded(1, size-3-n, true, hash[len(hash)-n:], nil)})
	}
	for _, x := range blocks {
		m := new(big.Int).SetBytes(x.b)
		sig := new(big.Int).Exp(m, key.D, key.N).FillBytes(make([]byte, size))
		if err := RSASignature.verify(&key.PublicKey, hash, sig); (err == nil) != (x.name == "right") {
			t.Errorf("%s: %v", x.name, err)
		}
		for _, e := range []int{-1, 0, 1, 2} { // with 1, a block is its own signature; with 0, everything signs the block of 1
			for _, sig := range [][]byte{x.b, sig, make([]byte, size)} {
				if RSASignature.verify(&rsa.PublicKey{N: key.N, E: e}, hash, sig) == nil {
					t.Errorf("%s: passes with exponent %d", x.name, e)
				}
			}
		}
	}
}

// FuzzSignedFifth gives the responder messages 5 that decrypt to anything: whoever has done the Diffie-Hellman can send
// them. Only the right signature may get in.
func FuzzSignedFifth(f *testing.F) {
	var c *cable
	var sa *phase1
	var start sync.Once
	m := ecMade()
	cert := func(der []byte) isakmp.Payload {
		return isakmp.Payload{Type: isakmp.PayloadCert, Body: isakmp.Cert{Encoding: isakmp.CertX509Signature, Data: der}.Append(nil)}
	}
	id := isakmp.Payload{Type: isakmp.PayloadID, Body: isakmp.ID{Type: isakmp.IDDERASN1DN, Data: m.client.Cert.RawSubject}.Append(nil)}
	sig := isakmp.Payload{Type: isakmp.PayloadSignature, Body: make([]byte, 64)}
	request := isakmp.Payload{Type: isakmp.PayloadCertRequest, Body: isakmp.Cert{Encoding: isakmp.CertX509Signature, Data: m.ca.Cert.RawSubject}.Append(nil)}
	for _, payloads := range [][]isakmp.Payload{
		{id, cert(m.client.Cert.Raw), sig}, {id, cert(m.client.Cert.Raw), cert(m.ca.Cert.Raw), sig, request}, {id, sig}, {id, {Type: isakmp.PayloadCert, Body: []byte{4}}, sig},
		{id, {Type: isakmp.PayloadCert, Body: append([]byte{1}, m.client.Cert.Raw...)}, sig}, {id, {Type: isakmp.PayloadHash, Body: make([]byte, 32)}}, {id, id, sig, sig},
	} {
		f.Add(uint8(payloads[0].Type), isakmp.AppendPayloads(nil, payloads))
	}
	f.Fuzz(func(t *testing.T, first uint8, plain []byte) {
		if len(plain) == 0 || len(plain) > 8000 {
			return
		}
		start.Do(func() {
			var d Dial
			c, d = signedCable(t, m, false, nil)
			c.toB = func(p ipsec.Path, msg []byte) (ipsec.Path, []byte) {
				if exchangeOf(msg).Flags&isakmp.Encrypted != 0 {
					return p, nil
				}
				return p, msg
			}
			c.dial(d)
			c.run(time.Second)
			sa = c.phase1(c.b)
		})
		if sa.state != stateKE {
			t.Fatalf("the exchange is %v", sa.state)
		}
		msg := sa.header(isakmp.Main, 0, isakmp.Encrypted, isakmp.PayloadType(first))
		body, _ := sa.crypt.seal(sa.iv, plain)
		msg = append(msg, body...)
		isakmp.SetLength(msg)
		sa.badAuth = 0
		c.b.e.Receive(c.now, sa.path, msg)
		if sa.state != stateKE || len(c.b.ups)+len(c.b.data.SAs()) > 0 || sa.idBody != nil {
			t.Fatal("let in without a signature")
		}
		c.b.log.Reset()
	})
}
