package hwcrypto

import (
	"slices"
	"strings"
	"testing"
)

func alg(name, driver, kind string, priority int, flags string) Algorithm {
	return Algorithm{Name: name, Driver: driver, Type: kind, Priority: priority, Tested: !strings.Contains(flags, "untested"),
		Async: strings.Contains(flags, "async"), Engine: strings.Contains(flags, "engine"), Internal: strings.Contains(flags, "internal")}
}

var generic = []Algorithm{
	alg("aes", "aes-generic", "cipher", 100, ""), alg("sha1", "sha1-generic", "shash", 100, ""), alg("sha256", "sha256-generic", "shash", 100, ""),
	alg("ghash", "ghash-generic", "shash", 100, ""), alg("chacha20", "chacha20-generic", "skcipher", 100, ""), alg("poly1305", "poly1305-generic", "shash", 100, ""),
	alg("des3_ede", "des3_ede-generic", "cipher", 100, ""), alg("cbc(aes)", "cbc-aes-internal", "skcipher", 900, "internal"),
	alg("cbc(aes)", "cbc-aes-failed", "skcipher", 900, "untested"),
}

func TestChains(t *testing.T) {
	gcm := Suite{Cipher: AESGCM, KeyBits: 128, ICV: 16}
	chacha := Suite{Cipher: ChaCha20Poly1305, KeyBits: 256, ICV: 16}
	sha256 := Suite{Cipher: AESCBC, KeyBits: 256, Hash: SHA256, ICV: 16}
	for name, c := range map[string]struct {
		more  []Algorithm
		suite Suite
		pin   string
		want  []string
	}{
		"software alone": {suite: testSuite, want: []string{"echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))"}},
		"GCM":            {suite: gcm, want: []string{"seqiv(rfc4106(gcm_base(ctr(aes-generic),ghash-generic)))"}},
		"ChaCha20":       {suite: chacha, want: []string{"seqiv(rfc7539esp(chacha20-generic,poly1305-generic))"}},
		"an engine's cipher": {suite: testSuite, more: []Algorithm{alg("cbc(aes)", "virtio_crypto_aes_cbc", "skcipher", 150, "async engine")},
			want: []string{"echainiv(authenc(hmac(sha1-generic),virtio_crypto_aes_cbc)) engine async", "echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))"}},
		"the instances are there already": {suite: testSuite, more: []Algorithm{alg("cbc(aes)", "virtio_crypto_aes_cbc", "skcipher", 150, "async engine"),
			alg("cbc(aes)", "cbc(aes-generic)", "skcipher", 100, ""), alg("hmac(sha1)", "hmac(sha1-generic)", "shash", 100, ""),
			alg("echainiv(authenc(hmac(sha1),cbc(aes)))", "echainiv(authenc(hmac(sha1-generic),virtio_crypto_aes_cbc))", "aead", 1600, "async")},
			want: []string{"echainiv(authenc(hmac(sha1-generic),virtio_crypto_aes_cbc)) engine async", "echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))"}},
		"an engine with the whole of it": {suite: sha256, more: []Algorithm{
			alg("authenc(hmac(sha256),cbc(aes))", "authenc(hmac(sha256-eip93), cbc(aes-eip93))", "aead", 1500, "async engine"),
			alg("cbc(aes)", "cbc(aes-eip93)", "skcipher", 1500, "async engine")},
			want: []string{"echainiv(authenc(hmac(sha256-generic),cbc(aes-eip93))) engine async", "echainiv(authenc(hmac(sha256-eip93), cbc(aes-eip93))) engine async",
				"echainiv(authenc(hmac(sha256-generic),cbc(aes-generic)))"}},
		"processors' instructions": {suite: sha256, more: []Algorithm{alg("cbc(aes)", "cbc-aes-neonbs", "skcipher", 250, ""),
			alg("sha256", "sha256-neon", "shash", 250, ""), alg("cbc(aes)", "cbc-aes-qce", "skcipher", 275, "async engine"),
			alg("authenc(hmac(sha256),cbc(aes))", "authenc-hmac-sha256-cbc-aes-qce", "aead", 275, "async engine")},
			want: []string{"echainiv(authenc(hmac(sha256-neon),cbc-aes-qce)) engine async", "echainiv(authenc(hmac(sha256-neon),cbc-aes-neonbs))",
				"echainiv(authenc-hmac-sha256-cbc-aes-qce) engine async"}},
		"pinned": {suite: testSuite, pin: "aes-generic", more: []Algorithm{alg("aes", "aes-arm", "cipher", 200, ""), alg("aes", "aes-fixed-time", "cipher", 50, "")},
			want: []string{"echainiv(authenc(hmac(sha1-generic),cbc(aes-arm)))", "echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))"}},
		"too long for netlink": {suite: sha256, more: []Algorithm{alg("cbc(aes)", "an-engine-whose-author-had-much-to-say", "skcipher", 300, "async engine")},
			want: []string{"echainiv(authenc(hmac(sha256-generic),cbc(aes-generic)))"}},
		"GCM by an engine's counter mode": {suite: gcm, more: []Algorithm{alg("ctr(aes)", "ctr-aes-qce", "skcipher", 275, "async engine"), alg("gcm(aes)", "gcm-aes-ce", "aead", 300, "")},
			want: []string{"seqiv(rfc4106(gcm-aes-ce))", "seqiv(rfc4106(gcm_base(ctr-aes-qce,ghash-generic))) engine async"}},
		"nothing": {suite: Suite{Cipher: AESCBC, KeyBits: 128, Hash: MD5, ICV: 12}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range Chains(append(slices.Clone(generic), c.more...), c.suite.ESPName(), c.pin) {
				s := c.Driver
				if c.Engine {
					s += " engine"
				}
				if c.Async {
					s += " async"
				}
				got = append(got, s)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func TestUses(t *testing.T) {
	for _, c := range []struct {
		chain, driver string
		want          bool
	}{
		{"echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))", "aes-generic", true},
		{"echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))", "cbc(aes-generic)", true},
		{"echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))", "sha1", false},
		{"echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))", "", false},
		{"cbc-aes-ce-neon cbc-aes-ce", "cbc-aes-ce", true},
		{"cbc-aes-ce-neon", "cbc-aes-ce", false},
	} {
		if got := Uses(c.chain, c.driver); got != c.want {
			t.Errorf("%s in %s: %t", c.driver, c.chain, got)
		}
	}
}
