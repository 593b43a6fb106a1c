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
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"culvert/ipsec"
)

// bare returns functions that do nothing but encrypt and authenticate b, and the reverse, as fast as Go can.
func bare(tb testing.TB, s ipsec.Suite, k ipsec.Keys, b []byte) (seal, open func()) {
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
		nonce, aad, out, in := make([]byte, 12), make([]byte, 8), make([]byte, 0, len(b)+16), make([]byte, 0, len(b))
		sealed := a.Seal(nil, nonce, b, aad)
		return func() { a.Seal(out, nonce, b, aad) }, func() {
			if _, err := a.Open(in, nonce, sealed, aad); err != nil {
				panic(err)
			}
		}
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
	iv, sum := make([]byte, block.BlockSize()), make([]byte, 0, 64)
	enc, dec := cipher.NewCBCEncrypter(block, iv), cipher.NewCBCDecrypter(block, iv)
	half := func(mode cipher.BlockMode) func() {
		return func() {
			mode.CryptBlocks(b, b)
			h.Reset()
			h.Write(b)
			h.Sum(sum)
		}
	}
	return half(enc), half(dec)
}

// course returns functions that take a payload of n octets through Send, and what that made through Receive.
func course(tb testing.TB, suite ipsec.Suite, n int) (send, receive func(), keys ipsec.Keys) {
	c := newChild(markA, serverAddr, clientAddr, 40001, 0x1001, 0x2001, suite)
	var packet []byte
	client := New(Options{SendUDP: func(_ ipsec.Path, p []byte) error { packet = p; return nil }})
	server := New(Options{Deliver: func(ipsec.Mark, netip.AddrPort, netip.AddrPort, []byte) {}})
	if err := client.Install(c.clientOut); err != nil {
		tb.Fatal(err)
	}
	if err := server.Install(c.serverIn); err != nil {
		tb.Fatal(err)
	}
	buf := make([]byte, Headroom+n, Headroom+n+Tailroom)
	from := ipsec.Path{Local: netip.AddrPortFrom(c.serverIn.Local, 4500), Remote: netip.AddrPortFrom(c.serverIn.Remote, 40001)}
	tb.Cleanup(func() {
		if d := server.Drops(); d != (Drops{}) {
			tb.Errorf("%s: %+v", suite, d)
		}
	})
	return func() {
		if err := client.Send(markA, clientL2TP, serverL2TP, buf, Headroom); err != nil {
			tb.Fatal(err)
		}
	}, func() { server.Receive(from, packet) }, c.clientOut.Keys
}

// BenchmarkSend measures a payload on its way through Send, and BenchmarkReceive through Receive as well.
func BenchmarkSend(b *testing.B) { benchmark(b, false) }

func BenchmarkReceive(b *testing.B) { benchmark(b, true) }

func benchmark(b *testing.B, both bool) {
	for _, suite := range everySuite() {
		for _, n := range []int{64, 256, 1400} {
			b.Run(fmt.Sprintf("%s/%d", suite, n), func(b *testing.B) {
				send, receive, _ := course(b, suite, n)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				for b.Loop() {
					send()
					if both {
						receive()
					}
				}
			})
		}
	}
}

// TestBenchESP prints what ESP in userspace does with each suite on one core, and its share of the speed of the bare
// ciphers of Go on the same one, which are measured in turn with it: the shortest of many rounds of each.
func TestBenchESP(t *testing.T) {
	if os.Getenv("CULVERT_BENCH") == "" {
		t.Skip("a benchmark: make bench")
	}
	const rounds, each = 40, time.Millisecond
	var out strings.Builder
	fmt.Fprintf(&out, "ESP in userspace on one core of %s: seal, and open\n  %-24s %6s %21s %17s %15s %7s\n", runtime.GOARCH,
		"", "octets", "packets/s", "MB/s", "of bare cipher", "allocs")
	var below []string
	for _, suite := range everySuite() {
		for _, n := range []int{64, 256, 1400} {
			send, receive, keys := course(t, suite, n)
			seal, open := bare(t, suite, keys, make([]byte, n))
			both := func() { send(); receive() }
			allocs := testing.AllocsPerRun(20, both)
			fs := []func(){send, both, seal, open}
			var best [4]time.Duration // for one packet
			for i, f := range fs {
				begun, count := time.Now(), 0
				for ; time.Since(begun) < each; count++ {
					f()
				}
				best[i] = time.Since(begun) / time.Duration(count)
			}
			for range rounds {
				for i, f := range fs {
					count := max(1, int(each/best[i]))
					begun := time.Now()
					for range count {
						f()
					}
					best[i] = min(best[i], time.Since(begun)/time.Duration(count))
				}
			}
			opened := best[1] - best[0]
			per := func(d time.Duration) (packets, mb float64) { return 1 / d.Seconds(), float64(n) / d.Seconds() / 1e6 }
			sp, sm := per(best[0])
			op, om := per(opened)
			sr, or := float64(best[2])/float64(best[0]), float64(best[3])/float64(opened)
			fmt.Fprintf(&out, "  %-24s %6d %10.0f %10.0f %8.0f %8.0f %7.2f %7.2f %7.0f\n", suite, n, sp, op, sm, om, sr, or, allocs)
			if n == 1400 && min(sr, or) < 0.7 {
				below = append(below, suite.String())
			}
			if allocs != 0 {
				t.Errorf("%s, %d octets: %v allocations", suite, n, allocs)
			}
		}
	}
	if below != nil {
		fmt.Fprintf(&out, "  below the goal of 0.70 at 1400 octets: %s\n", strings.Join(below, ", "))
	}
	fmt.Println(out.String())
}
