package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"culvert/hwcrypto"
)

func alg(name, driver, kind string, priority int, flags string) hwcrypto.Algorithm {
	return hwcrypto.Algorithm{Name: name, Driver: driver, Type: kind, Priority: priority, Tested: !strings.Contains(flags, "untested"),
		Async: strings.Contains(flags, "async"), Engine: strings.Contains(flags, "engine"), Internal: strings.Contains(flags, "internal")}
}

var generic = []hwcrypto.Algorithm{
	alg("aes", "aes-generic", "cipher", 100, ""), alg("sha1", "sha1-generic", "shash", 100, ""), alg("sha256", "sha256-generic", "shash", 100, ""),
	alg("ghash", "ghash-generic", "shash", 100, ""), alg("chacha20", "chacha20-generic", "skcipher", 100, ""), alg("poly1305", "poly1305-generic", "shash", 100, ""),
	alg("des3_ede", "des3_ede-generic", "cipher", 100, ""), alg("cbc(aes)", "cbc-aes-internal", "skcipher", 900, "internal"),
	alg("cbc(aes)", "cbc-aes-failed", "skcipher", 900, "untested"),
}

func TestChains(t *testing.T) {
	sha256 := hwcrypto.Suite{Cipher: hwcrypto.AESCBC, KeyBits: 256, Hash: hwcrypto.SHA256, ICV: 16}
	for name, c := range map[string]struct {
		more  []hwcrypto.Algorithm
		suite hwcrypto.Suite
		pin   string
		want  []string
	}{
		"software alone": {suite: cbcSHA1, want: []string{"echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))"}},
		"GCM":            {suite: gcm, want: []string{"seqiv(rfc4106(gcm_base(ctr(aes-generic),ghash-generic)))"}},
		"ChaCha20":       {suite: chacha, want: []string{"seqiv(rfc7539esp(chacha20-generic,poly1305-generic))"}},
		"an engine's cipher": {suite: cbcSHA1, more: []hwcrypto.Algorithm{alg("cbc(aes)", "virtio_crypto_aes_cbc", "skcipher", 150, "async engine")},
			want: []string{"echainiv(authenc(hmac(sha1-generic),virtio_crypto_aes_cbc)) engine async", "echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))"}},
		"the instances are there already": {suite: cbcSHA1, more: []hwcrypto.Algorithm{alg("cbc(aes)", "virtio_crypto_aes_cbc", "skcipher", 150, "async engine"),
			alg("cbc(aes)", "cbc(aes-generic)", "skcipher", 100, ""), alg("hmac(sha1)", "hmac(sha1-generic)", "shash", 100, ""),
			alg("echainiv(authenc(hmac(sha1),cbc(aes)))", "echainiv(authenc(hmac(sha1-generic),virtio_crypto_aes_cbc))", "aead", 1600, "async")},
			want: []string{"echainiv(authenc(hmac(sha1-generic),virtio_crypto_aes_cbc)) engine async", "echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))"}},
		"an engine with the whole of it": {suite: sha256, more: []hwcrypto.Algorithm{
			alg("authenc(hmac(sha256),cbc(aes))", "authenc(hmac(sha256-eip93), cbc(aes-eip93))", "aead", 1500, "async engine"),
			alg("cbc(aes)", "cbc(aes-eip93)", "skcipher", 1500, "async engine")},
			want: []string{"echainiv(authenc(hmac(sha256-generic),cbc(aes-eip93))) engine async", "echainiv(authenc(hmac(sha256-eip93), cbc(aes-eip93))) engine async",
				"echainiv(authenc(hmac(sha256-generic),cbc(aes-generic)))"}},
		"processors' instructions": {suite: sha256, more: []hwcrypto.Algorithm{alg("cbc(aes)", "cbc-aes-neonbs", "skcipher", 250, ""),
			alg("sha256", "sha256-neon", "shash", 250, ""), alg("cbc(aes)", "cbc-aes-qce", "skcipher", 275, "async engine"),
			alg("authenc(hmac(sha256),cbc(aes))", "authenc-hmac-sha256-cbc-aes-qce", "aead", 275, "async engine")},
			want: []string{"echainiv(authenc(hmac(sha256-neon),cbc-aes-qce)) engine async", "echainiv(authenc(hmac(sha256-neon),cbc-aes-neonbs))",
				"echainiv(authenc-hmac-sha256-cbc-aes-qce) engine async"}},
		"pinned": {suite: cbcSHA1, pin: "aes-generic", more: []hwcrypto.Algorithm{alg("aes", "aes-arm", "cipher", 200, ""), alg("aes", "aes-fixed-time", "cipher", 50, "")},
			want: []string{"echainiv(authenc(hmac(sha1-generic),cbc(aes-arm)))", "echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))"}},
		"too long for netlink": {suite: sha256, more: []hwcrypto.Algorithm{alg("cbc(aes)", "an-engine-whose-author-had-much-to-say", "skcipher", 300, "async engine")},
			want: []string{"echainiv(authenc(hmac(sha256-generic),cbc(aes-generic)))"}},
		"GCM by an engine's counter mode": {suite: gcm, more: []hwcrypto.Algorithm{alg("ctr(aes)", "ctr-aes-qce", "skcipher", 275, "async engine"), alg("gcm(aes)", "gcm-aes-ce", "aead", 300, "")},
			want: []string{"seqiv(rfc4106(gcm-aes-ce))", "seqiv(rfc4106(gcm_base(ctr-aes-qce,ghash-generic))) engine async"}},
		"nothing": {suite: hwcrypto.Suite{Cipher: hwcrypto.AESCBC, KeyBits: 128, Hash: hwcrypto.MD5, ICV: 12}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range chains(append(slices.Clone(generic), c.more...), top(c.suite), c.pin) {
				s := c.driver
				if c.engine {
					s += " engine"
				}
				if c.async {
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
		if got := uses(c.chain, c.driver); got != c.want {
			t.Errorf("%s in %s: %t", c.driver, c.chain, got)
		}
	}
}

func TestPick(t *testing.T) {
	r := func(driver string, engine bool, small, large int, failure string) Result {
		return Result{Driver: driver, Engine: engine, Each: [3]time.Duration{time.Duration(small), 0, time.Duration(large)}, Failure: failure}
	}
	for name, c := range map[string]struct {
		setting string
		results []Result
		want    string
		reason  string
	}{
		"an engine that is slow on small packets": {Auto, []Result{r("engine", true, 900, 250, ""), r("cpu", false, 50, 400, "")}, "cpu", "fastest"},
		"an engine that wins":                     {Auto, []Result{r("cpu", false, 50, 400, ""), r("engine", true, 60, 100, "")}, "engine", "fastest"},
		"a hair's breadth":                        {Auto, []Result{r("cpu", false, 100, 100, ""), r("engine", true, 99, 99, "")}, "cpu", "no other is faster"},
		"its own fails":                           {Auto, []Result{r("engine", true, 0, 0, "it hangs"), r("cpu", false, 50, 400, "")}, "cpu", "own choice fails; engine: it hangs"},
		"hardware though slower":                  {Hardware, []Result{r("cpu", false, 50, 400, ""), r("engine", true, 900, 900, "")}, "engine", `"hardware"`},
		"hardware that fails":                     {Hardware, []Result{r("cpu", false, 50, 400, ""), r("engine", true, 0, 0, "it hangs")}, "cpu", "cannot be obeyed"},
		"the better of two engines":               {Hardware, []Result{r("cpu", false, 50, 400, ""), r("a", true, 100, 900, ""), r("b", true, 100, 800, "")}, "b", `"hardware"`},
		"software though slower":                  {Software, []Result{r("engine", true, 0, 0, ""), r("cpu", false, 900, 900, "")}, "cpu", `"software"`},
		"a driver":                                {"b", []Result{r("cpu", false, 50, 400, ""), r("t(a)", true, 100, 90, ""), r("t(b)", true, 100, 800, "")}, "t(b)", `"b"`},
		"no such driver":                          {"c", []Result{r("cpu", false, 50, 400, ""), r("t(a)", true, 100, 900, "")}, "cpu", "cannot be obeyed"},
	} {
		got, reason := pick(c.setting, c.results)
		if got.Driver != c.want || !strings.Contains(reason, c.reason) {
			t.Errorf("%s: %s because %s", name, got.Driver, reason)
		}
	}
}

func TestState(t *testing.T) {
	file := filepath.Join(t.TempDir(), "new", "crypto.json")
	unlock, err := lock(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(file); err != ErrBusy {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	if unlock, err = lock(file); err != nil {
		t.Errorf("unlocked: %v", err)
	}
	defer unlock()
	s := state{Board: "board", Kernel: "6.1", Suites: []measured{{Suite: gcm.String(), Chains: []Result{{Driver: "d", Each: [3]time.Duration{1, 2, 3}}}}}, Changed: []change{{"d", -1, true}}}
	if err := s.write(file); err != nil {
		t.Fatal(err)
	}
	was, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.write(file); err != nil {
		t.Fatal(err)
	}
	// A rename would bring another inode.
	if is, err := os.Stat(file); err != nil || !os.SameFile(was, is) {
		t.Errorf("written although nothing changed: %v", err)
	}
	got := readState(file)
	if got.Board != "board" || got.Suites[0].Chains[0].Each != s.Suites[0].Chains[0].Each || !slices.Equal(got.Changed, s.Changed) {
		t.Errorf("%+v", got)
	}
	if err := os.WriteFile(file, []byte(`{"Board":"board","Ker`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := readState(file); got.Board != "" {
		t.Errorf("out of half a file: %+v", got)
	}
	if left, _ := filepath.Glob(file + ".*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
