package hwcrypto

import (
	"errors"
	"fmt"
	"slices"
)

// Cipher is an ESP encryption algorithm.
type Cipher uint8

const (
	TripleDES        Cipher = iota + 1 // CBC, RFC 2451
	AESCBC                             // RFC 3602
	AESGCM                             // RFC 4106, ICV of 16 octets
	ChaCha20Poly1305                   // RFC 7634
)

// Hash is the hash of an ESP integrity algorithm (HMAC); NoHash goes with ciphers that bring their own integrity.
type Hash uint8

const (
	NoHash Hash = iota
	MD5         // RFC 2403
	SHA1        // RFC 2404
	SHA256      // RFC 4868
	SHA384      // RFC 4868
	SHA512      // RFC 4868
)

// Suite is a cipher, its key length and its integrity. It is comparable.
type Suite struct {
	Cipher  Cipher
	KeyBits int // 128, 192 or 256; 192 for TripleDES
	Hash    Hash
	ICV     int // octets of the integrity check value on the wire
}

// Keys are one direction's key material. For combined ciphers Enc is the key followed by the salt of four octets.
type Keys struct {
	Enc, Auth []byte
}

// String never shows a key.
func (Keys) String() string   { return "***" }
func (Keys) GoString() string { return "***" }

// ErrUnsupported says that a provider, or the kernel under it, does not do a suite.
var ErrUnsupported = errors.New("hwcrypto: not supported")

const (
	headerLen = 8  // SPI and sequence number, RFC 4303 section 2
	saltLen   = 4  // RFC 4106 section 4, RFC 7634 section 2
	tagLen    = 16 // of combined ciphers
)

// AEAD says whether the cipher brings its own integrity.
func (s Suite) AEAD() bool { return s.Cipher == AESGCM || s.Cipher == ChaCha20Poly1305 }

// IVLen is the length in octets of the initialisation vector that each packet carries.
func (s Suite) IVLen() int {
	if s.Cipher == AESCBC {
		return 16
	}
	return 8
}

// Block is what the length of the text to encrypt, trailer included, must be a multiple of (RFC 4303 section 2.4).
func (s Suite) Block() int {
	switch s.Cipher {
	case AESCBC:
		return 16
	case TripleDES:
		return 8
	}
	return 4
}

// EncLen and AuthLen are the lengths of Keys in octets.
func (s Suite) EncLen() int {
	n := s.KeyBits / 8
	if s.AEAD() {
		n += saltLen
	}
	return n
}

func (s Suite) AuthLen() int { return s.Hash.size() }

func (h Hash) size() int {
	switch h {
	case MD5:
		return 16
	case SHA1:
		return 20
	case SHA256:
		return 32
	case SHA384:
		return 48
	case SHA512:
		return 64
	}
	return 0
}

// Overhead is the number of octets around the text: header, IV and ICV.
func (s Suite) Overhead() int { return headerLen + s.IVLen() + s.ICV }

// Validate says whether the parts of the suite go together; the error's tree has ErrUnsupported.
func (s Suite) Validate() error {
	if !slices.Contains(Suites(), s) {
		return fmt.Errorf("%w: suite %s with %d octets of ICV", ErrUnsupported, s, s.ICV)
	}
	return nil
}

func (s Suite) check(k Keys) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if len(k.Enc) != s.EncLen() || len(k.Auth) != s.AuthLen() {
		return fmt.Errorf("hwcrypto: %s takes keys of %d and %d octets, not %d and %d", s, s.EncLen(), s.AuthLen(), len(k.Enc), len(k.Auth))
	}
	return nil
}

func (s Suite) String() string {
	switch s.Cipher {
	case AESGCM:
		return fmt.Sprintf("aes-%d-gcm", s.KeyBits)
	case ChaCha20Poly1305:
		return "chacha20-poly1305"
	case TripleDES:
		return fmt.Sprintf("3des/%s-%d", s.Hash, s.ICV*8)
	case AESCBC:
		return fmt.Sprintf("aes-%d-cbc/%s-%d", s.KeyBits, s.Hash, s.ICV*8)
	}
	return fmt.Sprintf("cipher %d", uint8(s.Cipher))
}

func (h Hash) String() string {
	switch h {
	case NoHash:
		return "none"
	case MD5:
		return "md5"
	case SHA1:
		return "sha1"
	case SHA256:
		return "sha256"
	case SHA384:
		return "sha384"
	case SHA512:
		return "sha512"
	}
	return fmt.Sprintf("hash %d", uint8(h))
}

var suites = func() (all []Suite) {
	for _, bits := range []int{256, 192, 128} {
		all = append(all, Suite{Cipher: AESGCM, KeyBits: bits, ICV: tagLen})
	}
	all = append(all, Suite{Cipher: ChaCha20Poly1305, KeyBits: 256, ICV: tagLen})
	for _, c := range []Suite{{Cipher: AESCBC, KeyBits: 256}, {Cipher: AESCBC, KeyBits: 192}, {Cipher: AESCBC, KeyBits: 128}, {Cipher: TripleDES, KeyBits: 192}} {
		for _, h := range []Hash{SHA512, SHA384, SHA256, SHA1, MD5} {
			// 96 bits are right for MD5 and SHA-1 and what old Androids use with SHA-256; half the hash is RFC 4868; the
			// whole of it is legal too.
			icvs := []int{h.size() / 2, 12, h.size()}
			slices.Sort(icvs)
			for _, n := range slices.Compact(icvs) {
				all = append(all, Suite{Cipher: c.Cipher, KeyBits: c.KeyBits, Hash: h, ICV: n})
			}
		}
	}
	return all
}()

// Suites are all that this package knows, combined ciphers first.
func Suites() []Suite { return suites }
