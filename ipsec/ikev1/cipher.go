package ikev1

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"errors"
)

// keyLen is the cipher's key in octets.
func (c Cipher) keyLen() int {
	switch c {
	case AES256:
		return 32
	case AES192, TripleDES:
		return 24
	}
	return 16
}

// blockLen is the cipher's block in octets.
func (c Cipher) blockLen() int {
	if c == TripleDES {
		return des.BlockSize
	}
	return aes.BlockSize
}

func (c Cipher) block(key []byte) (cipher.Block, error) {
	if c == TripleDES {
		return des.NewTripleDESCipher(key)
	}
	return aes.NewCipher(key)
}

var errCiphertext = errors.New("ikev1: ciphertext is empty or no whole number of blocks")

// crypt holds one key and seals or opens message bodies in CBC mode (RFC 2409 appendix B). The IV of the next message of
// an exchange is the last ciphertext block of this one, whichever side sent it.
type crypt struct {
	block cipher.Block
}

func newCrypt(c Cipher, key []byte) (*crypt, error) {
	b, err := c.block(key)
	if err != nil {
		return nil, err
	}
	return &crypt{block: b}, nil
}

// seal pads plain with zeros to whole blocks and encrypts it in place; next is the following IV.
func (c *crypt) seal(iv, plain []byte) (ciphertext, next []byte) {
	n := c.block.BlockSize()
	for len(plain)%n != 0 {
		plain = append(plain, 0)
	}
	cipher.NewCBCEncrypter(c.block, iv).CryptBlocks(plain, plain)
	return plain, append([]byte(nil), plain[len(plain)-n:]...)
}

// open decrypts into a buffer of its own; the ciphertext stays as it is.
func (c *crypt) open(iv, ciphertext []byte) (plain, next []byte, err error) {
	n := c.block.BlockSize()
	if len(ciphertext) == 0 || len(ciphertext)%n != 0 {
		return nil, nil, errCiphertext
	}
	plain = make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(c.block, iv).CryptBlocks(plain, ciphertext)
	return plain, append([]byte(nil), ciphertext[len(ciphertext)-n:]...), nil
}

// phase1IV is the IV of the first encrypted message of phase 1: hash(g^xi | g^xr), cut to a block.
func phase1IV(c Cipher, h Hash, gxi, gxr []byte) []byte {
	return h.sum(gxi, gxr)[:c.blockLen()]
}

// exchangeIV is the first IV of a quick mode or informational exchange: hash(last phase 1 block | message id).
func exchangeIV(c Cipher, h Hash, last []byte, mid uint32) []byte {
	return h.sum(last, be32(mid))[:c.blockLen()]
}
