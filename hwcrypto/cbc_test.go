package hwcrypto

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/cpu"
)

// ownCBC is our own CBC. A processor without AES instructions has none and is served by Go's; one with them has to have it.
func ownCBC(tb testing.TB, key []byte) (enc, dec cbcMode) {
	tb.Helper()
	enc, dec, ok := newAESCBC(key)
	switch {
	case ok:
	case cpu.X86.HasAES && cpu.X86.HasAVX:
		tb.Fatal("the processor's AES instructions are not used")
	default:
		tb.Skip("this processor has no AES instructions that we use: Go's own CBC serves, which has tests of its own")
	}
	return enc, dec
}

// Our own CBC is Go's, for every key length and number of blocks, from one packet to the next.
func TestAESCBC(t *testing.T) {
	noise := rand.NewChaCha8([32]byte{7})
	for _, n := range []int{16, 24, 32} {
		key := make([]byte, n)
		noise.Read(key)
		enc, dec := ownCBC(t, key)
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		for blocks := range 41 {
			iv, text := make([]byte, aes.BlockSize), make([]byte, blocks*aes.BlockSize)
			noise.Read(iv)
			noise.Read(text)
			want := make([]byte, len(text))
			cipher.NewCBCEncrypter(block, iv).CryptBlocks(want, text)
			got := bytes.Clone(text)
			enc.SetIV(iv)
			half := blocks / 2 * aes.BlockSize
			enc.CryptBlocks(got[:half], got[:half]) // what follows goes on where this ended
			enc.CryptBlocks(got[half:], got[half:])
			if !bytes.Equal(got, want) {
				t.Fatalf("AES-%d, %d blocks: encrypted to %x, want %x", 8*n, blocks, got, want)
			}
			dec.SetIV(iv)
			dec.CryptBlocks(got[:half], got[:half])
			dec.CryptBlocks(got[half:], got[half:])
			if !bytes.Equal(got, text) {
				t.Fatalf("AES-%d, %d blocks: decrypted to %x, want %x", 8*n, blocks, got, text)
			}
		}
	}
}

// Four packets at once are four packets one by one.
func TestAESCBCLanes(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2))
	key := []byte("0123456789abcdefghijklmnopqrstuv")
	for _, n := range []int{16, 24, 32} {
		enc, _ := ownCBC(t, key[:n])
		block, err := aes.NewCipher(key[:n])
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			var ivs, texts, want [lanes][]byte
			for i := range lanes {
				ivs[i], texts[i] = make([]byte, aes.BlockSize), make([]byte, (1+noise.IntN(20))*aes.BlockSize)
				ivs[i][0], texts[i][5] = byte(noise.Int()), byte(noise.Int())
				want[i] = make([]byte, len(texts[i]))
				cipher.NewCBCEncrypter(block, ivs[i]).CryptBlocks(want[i], texts[i])
			}
			enc.(laneMode).EncryptLanes(&ivs, &texts)
			for i := range lanes {
				if !bytes.Equal(texts[i], want[i]) {
					t.Fatalf("AES-%d, lane %d of %d octets: %x, want %x", 8*n, i, len(want[i]), texts[i], want[i])
				}
			}
		}
	}
}

func BenchmarkAESCBC(b *testing.B) {
	enc, dec := ownCBC(b, make([]byte, 16))
	b.Run("encrypt four", func(b *testing.B) {
		var ivs, texts [lanes][]byte
		for i := range lanes {
			ivs[i], texts[i] = make([]byte, aes.BlockSize), make([]byte, 1408)
		}
		b.SetBytes(lanes * 1408)
		for b.Loop() {
			enc.(laneMode).EncryptLanes(&ivs, &texts)
		}
	})
	for name, mode := range map[string]cbcMode{"encrypt": enc, "decrypt": dec} {
		b.Run(name, func(b *testing.B) {
			text := make([]byte, 1408)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				mode.CryptBlocks(text, text)
			}
		})
	}
}
