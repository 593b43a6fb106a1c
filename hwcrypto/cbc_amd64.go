package hwcrypto

import (
	"crypto/aes"
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/cpu"
)

// aesCBC is AES in CBC mode with the processor's own instructions. Go's takes each block through a call of its own, in
// both directions; here the blocks to be decrypted, which do not need one another, go eight at a time, and of packets to be
// encrypted, whose blocks do, four.
type aesCBC struct {
	decrypt bool
	rounds  int
	keys    [15 * aes.BlockSize]byte // in the order of use
	iv      [aes.BlockSize]byte
	ivs     [lanes][aes.BlockSize]byte
	texts   [lanes]*byte
}

// newAESCBC makes both directions; false where the processor cannot.
func newAESCBC(key []byte) (enc, dec cbcMode, ok bool) {
	if !cpu.X86.HasAES || !cpu.X86.HasAVX {
		return nil, nil, false
	}
	e := &aesCBC{rounds: len(key)/4 + 6}
	e.expand(key)
	d := &aesCBC{decrypt: true, rounds: e.rounds}
	invertKeys(e.rounds, &e.keys[0], &d.keys[0])
	return e, d, true
}

// expand is KeyExpansion of FIPS 197 section 5.2; its words are little-endian here, as the processor has them.
func (c *aesCBC) expand(key []byte) {
	n := len(key) / 4
	copy(c.keys[:], key)
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(c.keys[4*i:]) }
	constant := uint32(1)
	for i := n; i < 4*(c.rounds+1); i++ {
		w := word(i - 1)
		switch {
		case i%n == 0:
			w = subWord(bits.RotateLeft32(w, -8)) ^ constant
			if constant <<= 1; constant > 0xff {
				constant ^= 0x11b
			}
		case n > 6 && i%n == 4:
			w = subWord(w)
		}
		binary.LittleEndian.PutUint32(c.keys[4*i:], word(i-n)^w)
	}
}

// BlockSize implements cipher.BlockMode.
func (c *aesCBC) BlockSize() int { return aes.BlockSize }

// SetIV begins a packet.
func (c *aesCBC) SetIV(iv []byte) { copy(c.iv[:], iv) }

// CryptBlocks implements cipher.BlockMode.
func (c *aesCBC) CryptBlocks(dst, src []byte) {
	if len(src)%aes.BlockSize != 0 || len(dst) < len(src) {
		panic("hwcrypto: CBC of parts of blocks")
	}
	n := len(src)
	if n == 0 {
		return
	}
	if &dst[0] != &src[0] {
		copy(dst, src)
	}
	if c.decrypt {
		decryptCBC(c.rounds, &c.keys[0], &dst[0], n/aes.BlockSize, &c.iv[0])
	} else {
		encryptCBC(c.rounds, &c.keys[0], &dst[0], n/aes.BlockSize, &c.iv[0])
	}
}

// EncryptLanes encrypts that many texts in place, each from its own IV. No text is empty.
func (c *aesCBC) EncryptLanes(ivs, texts *[lanes][]byte) {
	blocks := len(texts[0])
	for i, t := range texts {
		blocks = min(blocks, len(t))
		c.texts[i] = &t[0]
		copy(c.ivs[i][:], ivs[i])
	}
	blocks /= aes.BlockSize
	encryptCBC4(c.rounds, &c.keys[0], &c.texts, blocks, &c.ivs)
	for i, t := range texts {
		if rest := t[blocks*aes.BlockSize:]; len(rest) > 0 {
			encryptCBC(c.rounds, &c.keys[0], &rest[0], len(rest)/aes.BlockSize, &c.ivs[i][0])
		}
	}
	clear(c.texts[:])
}

// encryptCBC and decryptCBC work in place, on one block at least, and leave in iv what the next block needs.
//
//go:noescape
func encryptCBC(rounds int, keys, text *byte, blocks int, iv *byte)

//go:noescape
func decryptCBC(rounds int, keys, text *byte, blocks int, iv *byte)

// encryptCBC4 is encryptCBC for four texts of as many blocks.
//
//go:noescape
func encryptCBC4(rounds int, keys *byte, texts *[lanes]*byte, blocks int, ivs *[lanes][aes.BlockSize]byte)

// invertKeys makes the keys of the equivalent inverse cipher (FIPS 197 section 5.3.5).
//
//go:noescape
func invertKeys(rounds int, enc, dec *byte)

// subWord is SubWord of FIPS 197 section 5.2.
//
//go:noescape
func subWord(w uint32) uint32
