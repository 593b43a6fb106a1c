package ipsec

import "fmt"

// Cipher is an ESP encryption algorithm, with its integrity where it is combined (AEAD).
type Cipher uint8

const (
	TripleDES        Cipher = iota + 1 // RFC 2451
	AESCBC                             // RFC 3602
	AESGCM                             // RFC 4106, 16-octet ICV
	ChaCha20Poly1305                   // RFC 7634
)

// Integrity is an ESP integrity algorithm; IntegrityNone goes with AEAD ciphers only.
type Integrity uint8

const (
	IntegrityNone Integrity = iota
	HMACMD5                 // RFC 2403
	HMACSHA1                // RFC 2404
	HMACSHA256              // RFC 4868
	HMACSHA384              // RFC 4868
	HMACSHA512              // RFC 4868
)

// Suite is everything that has to be agreed about how packets are protected. It is comparable.
type Suite struct {
	Cipher    Cipher
	KeyBits   int // 128, 192 or 256; 192 for TripleDES
	Integrity Integrity
	ICVBits   int // length of the integrity check value on the wire
}

// Keys is one direction's key material. For AEAD ciphers Enc is key followed by salt and Auth is empty.
type Keys struct {
	Enc, Auth Secret
}

// AEAD says whether the cipher brings its own integrity.
func (s Suite) AEAD() bool { return s.Cipher == AESGCM || s.Cipher == ChaCha20Poly1305 }

// EncLen is the length of Keys.Enc in octets: the key, and the salt of an AEAD cipher (RFC 4106 section 8.1).
func (s Suite) EncLen() int {
	n := s.KeyBits / 8
	if s.AEAD() {
		n += 4
	}
	return n
}

// AuthLen is the length of Keys.Auth in octets (RFC 4868 section 2.1.1: the hash's output length).
func (s Suite) AuthLen() int {
	switch s.Integrity {
	case HMACMD5:
		return 16
	case HMACSHA1:
		return 20
	case HMACSHA256:
		return 32
	case HMACSHA384:
		return 48
	case HMACSHA512:
		return 64
	}
	return 0
}

// Overhead is the most octets that ESP in transport mode adds to a payload of n octets, without IP and UDP headers.
func (s Suite) Overhead(n int) int {
	iv, block := 8, 4
	switch s.Cipher {
	case AESCBC:
		iv, block = 16, 16
	case TripleDES:
		iv, block = 8, 8
	}
	padded := (n + 2 + block - 1) / block * block
	return 8 + iv + padded - n + s.ICVBits/8
}

// String names the suite the way the configuration does: "aes-256-cbc/sha1", "aes-128-gcm".
func (s Suite) String() string {
	var enc string
	switch s.Cipher {
	case TripleDES:
		enc = "3des"
	case AESCBC:
		enc = fmt.Sprintf("aes-%d-cbc", s.KeyBits)
	case AESGCM:
		enc = fmt.Sprintf("aes-%d-gcm", s.KeyBits)
	case ChaCha20Poly1305:
		enc = "chacha20-poly1305"
	default:
		enc = fmt.Sprintf("cipher %d", s.Cipher)
	}
	if s.AEAD() {
		return enc
	}
	return enc + "/" + s.Integrity.String()
}

func (i Integrity) String() string {
	switch i {
	case IntegrityNone:
		return "none"
	case HMACMD5:
		return "md5"
	case HMACSHA1:
		return "sha1"
	case HMACSHA256:
		return "sha256"
	case HMACSHA384:
		return "sha384"
	case HMACSHA512:
		return "sha512"
	}
	return fmt.Sprintf("integrity %d", uint8(i))
}
