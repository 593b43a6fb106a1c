package hwcrypto

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
)

// The kernel's ciphers over AF_ALG on boards whose byte order or word size differs from the developer's, and with QEMU's
// virtio-crypto as an engine behind them: they conform, software wins on small packets, and an engine that goes away
// costs no packet.
func TestBoardAFALG(t *testing.T) {
	for _, board := range []string{"qemu-mips", "qemu-arm"} {
		t.Run(board, func(t *testing.T) {
			lab.RunOn(t, board, func(t *testing.T) {
				suites := []Suite{ // not all: the boards are slow
					{Cipher: AESGCM, KeyBits: 128, ICV: 16}, {Cipher: ChaCha20Poly1305, KeyBits: 256, ICV: 16}, {Cipher: AESCBC, KeyBits: 256, Hash: SHA256, ICV: 12},
					{Cipher: AESCBC, KeyBits: 128, Hash: SHA1, ICV: 12}, {Cipher: TripleDES, KeyBits: 192, Hash: MD5, ICV: 12},
				}
				for _, q := range []Provider{AFALGAead, AFALGCipher, AFALGSplit, pinnedDriver{AFALGCipher, "virtio_crypto_aes_cbc"}, pinnedDriver{AFALGAead, "virtio_crypto_aes_cbc"}} {
					start := time.Now()
					n := conform(t, q, false, suites)
					t.Logf("%s: %d of %d suites in %.1f s", q.Name(), n, len(suites), time.Since(start).Seconds())
					if n < 2 {
						t.Error("that is too few")
					}
				}
				s := Suite{Cipher: AESCBC, KeyBits: 128, Hash: SHA1, ICV: 12}
				c := Open(Options{}).Choose(s)
				t.Logf("%s: %s", c.Provider, c.Reason)
				byEngine := 0
				soft := c.Results[len(c.Results)-1]
				for _, r := range c.Results {
					if r.Err != nil {
						t.Errorf("%s: %v", r.Provider, r.Err)
					}
					if r.Driver.Engine && r.Driver.Async {
						byEngine++
						if r.MBps(0) >= soft.MBps(0) {
							t.Errorf("the engine is not slower on small packets: %v, %v", r, soft)
						}
					}
				}
				if byEngine == 0 || c.Provider != soft.Provider {
					t.Errorf("%s was chosen", c.Provider)
				}
				// The engine is insisted on, and goes away in the middle.
				p := Open(Options{Driver: "virtio_crypto_aes_cbc"})
				if c := p.Choose(s); !strings.Contains(c.Driver, "virtio_crypto_aes_cbc") {
					t.Errorf("%+v", c)
				}
				x, err := p.New(Config{Suite: s, Keys: testKeys(s)})
				if err != nil {
					t.Fatal(err)
				}
				defer x.Close()
				text := ramp(320, 0, 1)
				for seq := range uint64(40) {
					if seq == 20 {
						closeSockets(x)
					}
					packet := make([]byte, s.Overhead()+len(text))
					copy(packet[24:], text)
					if err := x.Seal(packet, seq); err != nil {
						t.Fatal(err)
					}
					if seq == 30 {
						closeSockets(x)
					}
					if err := x.Open(packet, seq); err != nil || !bytes.Equal(packet[24:24+len(text)], text) {
						t.Fatalf("packet %d: %v", seq, err)
					}
				}
				if got := x.Provider(); strings.Contains(got, "virtio") {
					t.Errorf("still on %s", got)
				}
			}, lab.Modules("virtio_crypto", "crypto_user", "authenc", "seqiv", "cbc", "ctr", "gcm", "ghash_generic?", "chacha20poly1305", "chacha_generic?", "poly1305_generic?",
				"des_generic", "sha512_generic", "drbg", "af_alg", "algif_skcipher", "algif_aead", "algif_hash"),
				lab.QEMUArgs("-object", "cryptodev-backend-builtin,id=crypto0", "-device", "virtio-crypto-pci,cryptodev=crypto0"), lab.Timeout(4*time.Minute))
		})
	}
}
