package hwcrypto

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"culvert/board/lab"
)

// conform is what every provider passes for every suite it says it does.
func conform(t *testing.T, q Provider, must bool, suites []Suite) (done int) {
	t.Helper()
	for _, s := range suites {
		err := SelfTest(q, s)
		if errors.Is(err, ErrUnsupported) && !must {
			continue
		}
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		done++
		tr, err := q.New(Config{Suite: s, Keys: testKeys(s)})
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, s.Overhead()+textLen(s, 64))
		if err := tr.Seal(p, 0); err != nil {
			t.Fatal(err)
		}
		// Every truncation is refused, and none as an engine's failure.
		for n := range p {
			b := bytes.Clone(p[:n])
			if err := tr.Open(b, 0); !errors.Is(err, ErrPacket) && !errors.Is(err, ErrAuth) {
				t.Errorf("%s, %s: %d of %d octets: error %v", q.Name(), s, n, len(p), err)
			}
		}
		if allocs := testing.AllocsPerRun(50, func() {
			if tr.Seal(p, 0) != nil || tr.Open(p, 0) != nil {
				t.Fatal("does not open what it sealed")
			}
		}); allocs != 0 {
			t.Errorf("%s, %s: %v allocations for a packet sealed and opened", q.Name(), s, allocs)
		}
		if err := tr.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := tr.Seal(p, 0); err == nil {
			t.Errorf("%s, %s: sealed with a closed transform", q.Name(), s)
		}
		tr.Close()
	}
	// Wrong keys and suites are refused.
	s := Suite{Cipher: AESCBC, KeyBits: 128, Hash: SHA1, ICV: 12}
	k := testKeys(s)
	for name, c := range map[string]Config{
		"short key":    {Suite: s, Keys: Keys{Enc: k.Enc[1:], Auth: k.Auth}},
		"no integrity": {Suite: Suite{Cipher: AESCBC, KeyBits: 128}, Keys: Keys{Enc: k.Enc}},
		"ICV":          {Suite: Suite{Cipher: AESCBC, KeyBits: 128, Hash: SHA1, ICV: 4}, Keys: k},
		"nothing":      {},
	} {
		if _, err := q.New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	return done
}

func TestSoftwareConforms(t *testing.T) { conform(t, Software{}, true, Suites()) }

// TestLabAFALG holds the kernel's ciphers against the same answers.
func TestLabAFALG(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) {
		for _, q := range []AFALG{AFALGAead, AFALGCipher, AFALGSplit} {
			if n := conform(t, q, false, Suites()); n < 16 {
				t.Errorf("%s does only %d suites", q.Name(), n)
			} else {
				t.Logf("%s: %d of %d suites", q.Name(), n, len(Suites()))
			}
		}
		algs, err := dumpAlgorithms()
		if err != nil || len(algs) == 0 {
			t.Fatalf("NETLINK_CRYPTO: %d algorithms, error %v", len(algs), err)
		}
		for _, name := range []string{"cbc(aes)", "hmac(sha1)", "rfc4106(gcm(aes))"} {
			if a := Best(algs, name); a.Driver == "" || a.Priority == 0 {
				t.Errorf("%s: %+v", name, a)
			}
		}
		listed, err := Discover()
		if err != nil || !slices.ContainsFunc(listed, func(a Algorithm) bool { return a.Name == "cbc(aes)" && strings.HasSuffix(a.Type, "skcipher") }) {
			t.Errorf("discovered %v, error %v", listed, err)
		}
		p := Open(Options{})
		for _, s := range []Suite{{Cipher: AESCBC, KeyBits: 128, Hash: SHA1, ICV: 12}, {Cipher: AESGCM, KeyBits: 256, ICV: 16}, {Cipher: ChaCha20Poly1305, KeyBits: 256, ICV: 16}} {
			c := p.Choose(s)
			t.Logf("%s: %s because %s", s, c.Provider, c.Reason)
			for _, r := range c.Results {
				if r.Err != nil && !errors.Is(r.Err, ErrUnsupported) {
					t.Errorf("%s: %v", r.Provider, r.Err)
				}
			}
		}
		forced := Open(Options{Mode: KernelFirst})
		s := Suite{Cipher: AESCBC, KeyBits: 256, Hash: SHA256, ICV: 16}
		if c := forced.Choose(s); c.Provider == (Software{}).Name() || c.Driver == "" {
			t.Errorf("kernel first: %+v", c)
		}
		x, err := forced.New(Config{Suite: s, Keys: testKeys(s)})
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		pkt := make([]byte, s.Overhead()+64)
		for seq := range uint64(100) {
			if seq == 50 { // the engine goes away
				closeSockets(x)
			}
			copy(pkt[24:], fmt.Sprintf("packet %d", seq))
			if err := x.Seal(pkt, seq); err != nil {
				t.Fatal(err)
			}
			if seq == 70 {
				closeSockets(x)
			}
			if err := x.Open(pkt, seq); err != nil || !bytes.HasPrefix(pkt[24:], fmt.Appendf(nil, "packet %d", seq)) {
				t.Fatalf("packet %d: error %v, text %q", seq, err, pkt[24:40])
			}
		}
		t.Logf("ended on %s", x.Provider())
	})
}

// closeSockets takes the kernel's ciphers away from under a Crypter.
func closeSockets(x *Crypter) {
	switch t := x.t.(type) {
	case *algAEAD:
		t.sock.close()
	case *composed:
		if c, ok := t.blocks.(*algCBC); ok {
			c.sock.close()
		}
		if m, ok := t.mac.(*algMAC); ok {
			m.sock.close()
		}
	}
}
