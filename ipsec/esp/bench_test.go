package esp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"culvert/ipsec"
)

// bare returns a function that does nothing but encrypt and authenticate b, as fast as Go can.
func bare(tb testing.TB, s ipsec.Suite, k ipsec.Keys, b []byte) func() {
	fatal := func(err error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	if s.AEAD() {
		var a cipher.AEAD
		if s.Cipher == ipsec.AESGCM {
			block, err := aes.NewCipher(k.Enc[:s.KeyBits/8])
			fatal(err)
			a, err = cipher.NewGCM(block)
			fatal(err)
		} else {
			var err error
			a, err = chacha20poly1305.New(k.Enc[:32])
			fatal(err)
		}
		nonce, aad, out := make([]byte, 12), make([]byte, 8), make([]byte, 0, len(b)+16)
		return func() { a.Seal(out, nonce, b, aad) }
	}
	var block cipher.Block
	var err error
	if s.Cipher == ipsec.TripleDES {
		block, err = des.NewTripleDESCipher(k.Enc)
	} else {
		block, err = aes.NewCipher(k.Enc)
	}
	fatal(err)
	h := hmac.New(map[ipsec.Integrity]func() hash.Hash{
		ipsec.HMACMD5: md5.New, ipsec.HMACSHA1: sha1.New, ipsec.HMACSHA256: sha256.New, ipsec.HMACSHA384: sha512.New384, ipsec.HMACSHA512: sha512.New,
	}[s.Integrity], k.Auth)
	b = b[:len(b)/block.BlockSize()*block.BlockSize()]
	mode, sum := cipher.NewCBCEncrypter(block, make([]byte, block.BlockSize())), make([]byte, 0, 64)
	return func() {
		mode.CryptBlocks(b, b)
		h.Reset()
		h.Write(b)
		h.Sum(sum)
	}
}

// BenchmarkSend measures a payload on its way through Send, and BenchmarkReceive through Receive as well; both report their
// share of the bare cipher's speed on the same core.
func BenchmarkSend(b *testing.B) { benchmark(b, false) }

func BenchmarkReceive(b *testing.B) { benchmark(b, true) }

func benchmark(b *testing.B, receive bool) {
	for _, suite := range everySuite() {
		for _, n := range []int{64, 256, 1400} {
			b.Run(fmt.Sprintf("%s/%d", suite, n), func(b *testing.B) {
				c := newChild(markA, serverAddr, clientAddr, 40001, 0x1001, 0x2001, suite)
				var packet []byte
				client := New(Options{SendUDP: func(_ ipsec.Path, p []byte) error { packet = p; return nil }})
				server := New(Options{Deliver: func(ipsec.Mark, netip.AddrPort, netip.AddrPort, []byte) {}})
				if err := client.Install(c.clientOut); err != nil {
					b.Fatal(err)
				}
				if err := server.Install(c.serverIn); err != nil {
					b.Fatal(err)
				}
				buf := make([]byte, Headroom+n, Headroom+n+Tailroom)
				from := ipsec.Path{Local: netip.AddrPortFrom(c.serverIn.Local, 4500), Remote: netip.AddrPortFrom(c.serverIn.Remote, 40001)}
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					if err := client.Send(markA, clientL2TP, serverL2TP, buf, Headroom); err != nil {
						b.Fatal(err)
					}
					if receive {
						server.Receive(from, packet)
					}
				}
				elapsed, rounds := b.Elapsed(), b.N
				b.StopTimer()
				if d := server.Drops(); d != (Drops{}) {
					b.Fatalf("%+v", d)
				}
				f := bare(b, suite, c.clientOut.Keys, make([]byte, n))
				start := time.Now()
				for range rounds {
					f()
					if receive {
						f()
					}
				}
				b.ReportMetric(float64(time.Since(start))/float64(elapsed), "of-bare")
			})
		}
	}
}
