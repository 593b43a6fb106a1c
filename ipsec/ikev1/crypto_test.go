package ikev1

import (
	"bytes"
	"encoding/hex"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"testing"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var allGroups = []Group{MODP1024, MODP1536, MODP2048, MODP3072, MODP4096, ECP256, ECP384, ECP521, X25519}

// TestPrimes checks what RFC 2409 and RFC 3526 say of the primes: 64 ones at either end, and p and (p-1)/2 prime.
func TestPrimes(t *testing.T) {
	for g, digits := range primes {
		p := prime(g)
		n := p.BitLen()
		if n != dhLengths[g].public*8 || len(digits)*4 != n {
			t.Errorf("%v has %d bits", g, n)
		}
		for i := range 64 {
			if p.Bit(i) != 1 || p.Bit(n-1-i) != 1 {
				t.Errorf("%v: bit %d from the end is zero", g, i)
				break
			}
		}
		if !p.ProbablyPrime(1) || !new(big.Int).Rsh(p, 1).ProbablyPrime(1) {
			t.Errorf("%v is no safe prime", g)
		}
	}
}

func TestDiffieHellmanAgrees(t *testing.T) {
	r := seeded{rand.New(rand.NewPCG(5, 5))}
	for _, g := range allGroups {
		a, err := newDHKey(g, r)
		if err != nil {
			t.Fatal(err)
		}
		public, err := a.public()
		if err != nil || len(public) != g.publicLen() {
			t.Fatalf("%v: %d octets, %v", g, len(public), err)
		}
		c := newInitiator(t, 9)
		private, theirs := c.keyPair(g)
		got, err := a.shared(theirs)
		if err != nil {
			t.Fatalf("%v: %v", g, err)
		}
		if want := c.agree(g, private, public); !bytes.Equal(got, want) {
			t.Errorf("%v: %x, want %x", g, got, want)
		}
	}
}

// TestECP256 is RFC 5903 section 8.1.
func TestECP256(t *testing.T) {
	k := dhKey{ECP256, unhex(t, "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433")}
	public, err := k.public()
	want := unhex(t, "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C37725811805271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3")
	if err != nil || !bytes.Equal(public, want) {
		t.Errorf("public %x, %v", public, err)
	}
	secret, err := k.shared(unhex(t, "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF6356FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB"))
	if err != nil || !bytes.Equal(secret, unhex(t, "D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE")) {
		t.Errorf("secret %x, %v", secret, err)
	}
}

// TestInvalidPublicValues: values that give the secret away, or are none (CVE-2015-3240, CVE-2023-41913).
func TestInvalidPublicValues(t *testing.T) {
	r := seeded{rand.New(rand.NewPCG(6, 6))}
	for _, g := range allGroups {
		k, err := newDHKey(g, r)
		if err != nil {
			t.Fatal(err)
		}
		n := g.publicLen()
		bad := [][]byte{nil, make([]byte, n), make([]byte, n-1), make([]byte, n+1), make([]byte, 1000)}
		if p := primes[g]; p != "" {
			fill := func(x *big.Int) []byte { return x.FillBytes(make([]byte, n)) }
			p := prime(g)
			bad = append(bad, fill(big.NewInt(1)), fill(new(big.Int).Sub(p, big.NewInt(1))), fill(p), bytes.Repeat([]byte{0xff}, n))
		} else if g != X25519 {
			bad = append(bad, bytes.Repeat([]byte{1}, n), bytes.Repeat([]byte{0xff}, n))
		}
		for _, b := range bad {
			if _, err := k.shared(b); err == nil {
				t.Errorf("%v accepts %d octets %x", g, len(b), b)
			}
		}
	}
	if _, err := newDHKey(99, r); err == nil {
		t.Error("an unknown group has a key")
	}
}

func TestKeymat(t *testing.T) {
	k := phase1Keys{hash: SHA1, d: bytes.Repeat([]byte{7}, 20)}
	for _, s := range []ipsec.Suite{
		{Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA512, ICVBits: 256}, {Cipher: ipsec.AESGCM, KeyBits: 256, ICVBits: 128},
		{Cipher: ipsec.TripleDES, KeyBits: 192, Integrity: ipsec.HMACMD5, ICVBits: 96}, {Cipher: ipsec.ChaCha20Poly1305, KeyBits: 256, ICVBits: 128},
	} {
		keys := k.keymat(s, 0x1234, []byte("secret"), []byte("ni"), []byte("nr"))
		if len(keys.Enc) != s.EncLen() || len(keys.Auth) != s.AuthLen() {
			t.Errorf("%v: %d and %d octets", s, len(keys.Enc), len(keys.Auth))
		}
		c := &initiator{t: t, hash: isakmp.HashSHA1, d: k.d}
		if want := c.keymat(0x1234, []byte("secret"), []byte("ni"), []byte("nr")); !bytes.Equal(append(bytes.Clone(keys.Enc), keys.Auth...), want[:s.EncLen()+s.AuthLen()]) {
			t.Errorf("%v: wrong keys", s)
		}
	}
}

func TestExpandKey(t *testing.T) {
	e := bytes.Repeat([]byte{3}, 16)
	k1 := MD5.prf(e, []byte{0})
	k2 := MD5.prf(e, k1)
	if got := expandKey(MD5, e, 32); !bytes.Equal(got, append(k1, k2...)) {
		t.Errorf("%x", got)
	}
	if got := expandKey(MD5, e, 16); !bytes.Equal(got, e) {
		t.Errorf("long enough, and still %x", got)
	}
}

func TestCryptRefusesFragments(t *testing.T) {
	c, err := newCrypt(AES128, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 15, 17, 33} {
		if _, _, err := c.open(make([]byte, 16), make([]byte, n)); err == nil {
			t.Errorf("%d octets decrypt", n)
		}
	}
}

func BenchmarkDiffieHellman(b *testing.B) {
	r := seeded{rand.New(rand.NewPCG(5, 5))}
	for _, g := range allGroups {
		b.Run(g.String(), func(b *testing.B) {
			k, err := newDHKey(g, r)
			if err != nil {
				b.Fatal(err)
			}
			o, _ := newDHKey(g, r)
			peer, _ := o.public()
			for b.Loop() {
				_, _ = k.public()
				if _, err := k.shared(peer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestStrongSwanKeys holds the arithmetic against what strongSwan 5.9.8 computed and logged as initiator of an exchange
// with AES-256, SHA-256, X25519, and AES-256-GCM with PFS.
func TestStrongSwanKeys(t *testing.T) {
	var ci, cr isakmp.Cookie
	copy(ci[:], unhex(t, "9ad5c0438af95dd3"))
	copy(cr[:], unhex(t, "3c64e1dca241957d"))
	shared := unhex(t, "621c6cbad2337366085899938ce085be2a95b6f57401bbb99882a46ab94cdf30")
	gi := unhex(t, "435bd9347d29963fd15c0b3f6b8c23a1213a8309845d2966cf704268e4bf6851")
	gr := unhex(t, "bf9fe68dd6d0efa4239c08dd0002718b5130dee6e42c5ccd2b7f8a261227407f")
	saBody := unhex(t, "00000001000000010000002c01010001000000240101000080010007800e0100800200048004001f80030001800b0001800c0000")
	k := phase1Keys{hash: SHA256, skeyid: unhex(t, "87ce6f6b746ac1972212ed36469a38236e4efbbbe7e5fecb7db7c3722246fb9b")}
	k.derive(AES256, shared, ci, cr)
	for _, x := range []struct {
		name, want string
		got        []byte
	}{
		{"SKEYID_d", "5086e0eedaab73a161f3a4ec0b53aeaee372c91a708b0c25f96a382e4fdc5ab4", k.d},
		{"SKEYID_a", "414a6844fc4e056e7384b925c529a0243268ec4296c495bacc99d7a6327ebee8", k.a},
		{"Ka", "fb859b78bf16440361130d473e3bbbdfc88e7b123f1d8520d77c9312d565bbb9", k.enc},
		{"IV", "b7350c82e4a4ebd312745c2a010a5e52", phase1IV(AES256, SHA256, gi, gr)},
		{"HASH_I", "1520cfdb8f9093d335ac5105bc3f9b4d4e22bbb0e0d278d00fcb98c31cf440a7",
			k.authHash(gi, gr, ci, cr, saBody, unhex(t, "010000000a010002"))},
		{"HASH_R", "44bd78fc2e84609b0095fee35353e3dff1d3a447772eaa34cb36f0a5c8a8d50d",
			k.authHash(gr, gi, cr, ci, saBody, unhex(t, "010000000a020001"))},
		{"IV of quick mode", "0a1226c77a0436992925279aa0694fda",
			exchangeIV(AES256, SHA256, unhex(t, "676775240e2ca178b45b97fc62142ce1"), 600858684)},
		{"HASH(3)", "a339df67168b90ba5fe3c5fd932897891349b0eed5872e097783a17abb1d895a", k.hash3(600858684,
			unhex(t, "23708ffd5b05a8eb41efda5f98aa49ff29b5ebb9ce47b66c7d1df12421429759"), unhex(t, "1cf4214d2f0a53c477bdc7d33f4f7f9dfeeedd609d73f62a6e517ff507a3a91a"))},
		{"KEYMAT", "9cd13027ee0482207043e0503696a6a309d6b0b6a44dc82e2e65a819c9086724ed7ad38f", k.keymat(
			ipsec.Suite{Cipher: ipsec.AESGCM, KeyBits: 256, ICVBits: 128}, 0xa88d8477,
			unhex(t, "a7effad5cf2c869de9f6b53d0aee2d7bc739f192fd82a16222cb0bb2ffcbba31"),
			unhex(t, "23708ffd5b05a8eb41efda5f98aa49ff29b5ebb9ce47b66c7d1df12421429759"), unhex(t, "1cf4214d2f0a53c477bdc7d33f4f7f9dfeeedd609d73f62a6e517ff507a3a91a")).Enc},
	} {
		if want := unhex(t, x.want); !bytes.Equal(x.got, want) {
			t.Errorf("%s is %x, want %x", x.name, x.got, want)
		}
	}
	sa := &phase1{id: cookies{ci, cr}, chosen: phase1Choice{hash: SHA256}}
	if got := sa.natHash(netip.MustParseAddrPort("10.2.0.1:500")); !bytes.Equal(got, unhex(t, "8b321205178678439f73d37f208df5a1fd13902686dbf2bf5f1dc810f94ae2ca")) {
		t.Errorf("NAT-D hash is %x", got)
	}
}
