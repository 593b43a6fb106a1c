package hwcrypto

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"

	"golang.org/x/crypto/chacha20poly1305"
)

// Software is the provider of last resort and usually the fastest: Go's own ciphers, but for AES in CBC mode where cbc_amd64.go
// does it.
type Software struct{}

// Name implements Provider.
func (Software) Name() string { return "software" }

// New implements Provider.
func (Software) New(c Config) (Transform, error) {
	if err := c.Suite.check(c.Keys); err != nil {
		return nil, err
	}
	if c.Suite.AEAD() {
		return newSoftAEAD(c)
	}
	blocks, err := newSoftCBC(c.Suite, c.Keys.Enc)
	if err != nil {
		return nil, err
	}
	return newComposed(c, blocks, newSoftMAC(c.Suite.Hash, c.Keys.Auth)), nil
}

// softAEAD is AES-GCM or ChaCha20-Poly1305 with the nonce and the additional data of ESP.
type softAEAD struct {
	suite Suite
	aead  cipher.AEAD
	esn   bool
	nonce [saltLen + 8]byte // salt, then the packet's IV
	aad   [headerLen + 4]byte
}

func newSoftAEAD(c Config) (*softAEAD, error) {
	key, salt := c.Keys.Enc[:c.Suite.KeyBits/8], c.Keys.Enc[c.Suite.KeyBits/8:]
	t := &softAEAD{suite: c.Suite, esn: c.ESN}
	copy(t.nonce[:], salt)
	var err error
	switch c.Suite.Cipher {
	case AESGCM:
		var block cipher.Block
		if block, err = aes.NewCipher(key); err == nil {
			t.aead, err = cipher.NewGCM(block)
		}
	case ChaCha20Poly1305:
		t.aead, err = chacha20poly1305.New(key)
	}
	if err != nil {
		return nil, fmt.Errorf("hwcrypto: %s: %w", c.Suite, err)
	}
	return t, nil
}

// prepare sets nonce and additional data for a packet (RFC 4106 sections 4 and 5; RFC 7634 section 2.1).
func (t *softAEAD) prepare(p []byte, iv []byte, high uint32) (aad []byte) {
	copy(t.nonce[saltLen:], iv)
	return appendAAD(t.aad[:0], p, t.esn, high)
}

// appendAAD appends SPI and sequence number, the latter whole with ESN.
func appendAAD(b, p []byte, esn bool, high uint32) []byte {
	if !esn {
		return append(b, p[:headerLen]...)
	}
	b = append(b, p[:4]...)
	b = binary.BigEndian.AppendUint32(b, high)
	return append(b, p[4:headerLen]...)
}

func (t *softAEAD) Seal(p []byte, high uint32) error {
	if t.aead == nil {
		return errClosed
	}
	iv, text, _, err := t.suite.split(p)
	if err != nil {
		return err
	}
	aad := t.prepare(p, iv, high)
	t.aead.Seal(text[:0], t.nonce[:], text, aad)
	return nil
}

func (t *softAEAD) Open(p []byte, high uint32) error {
	if t.aead == nil {
		return errClosed
	}
	iv, text, icv, err := t.suite.split(p)
	if err != nil {
		return err
	}
	aad := t.prepare(p, iv, high)
	if _, err := t.aead.Open(text[:0], t.nonce[:], text[:len(text)+len(icv)], aad); err != nil {
		return ErrAuth
	}
	return nil
}

func (t *softAEAD) Close() error {
	t.aead = nil
	clear(t.nonce[:])
	return nil
}

// blockMode is CBC in either direction, from one IV to the next.
type blockMode interface {
	// crypt encrypts or decrypts text in place. After an error text is unchanged.
	crypt(decrypt bool, iv, text []byte) error
	close() error
}

// mac is an HMAC, truncated by the caller.
type mac interface {
	// sum returns the HMAC over b and tail; the slice is valid until the next call.
	sum(b, tail []byte) ([]byte, error)
	close() error
}

// composed is encrypt-then-MAC out of two parts that need not come from the same means (RFC 4303 section 3.3.2).
type composed struct {
	suite  Suite
	blocks blockMode
	mac    mac
	esn    bool
	tail   [4]byte
	ivs    [lanes][]byte // of packets that are sealed together
	texts  [lanes][]byte
}

func newComposed(c Config, b blockMode, m mac) *composed {
	return &composed{suite: c.Suite, blocks: b, mac: m, esn: c.ESN}
}

// icv computes the ICV of a packet whose text is encrypted; with ESN the upper half of the sequence number comes last
// (RFC 4303 section 2.2.1).
func (t *composed) icv(p []byte, high uint32) ([]byte, error) {
	tail := t.tail[:0]
	if t.esn {
		tail = binary.BigEndian.AppendUint32(tail, high)
	}
	sum, err := t.mac.sum(p[:len(p)-t.suite.ICV], tail)
	if err != nil {
		return nil, err
	}
	return sum[:t.suite.ICV], nil
}

func (t *composed) Seal(p []byte, high uint32) error {
	iv, text, icv, err := t.suite.split(p)
	if err != nil {
		return err
	}
	if err := t.blocks.crypt(false, iv, text); err != nil {
		return err
	}
	sum, err := t.icv(p, high)
	if err != nil {
		// Somebody else shall seal this packet: give the text back.
		if uerr := t.blocks.crypt(true, iv, text); uerr != nil {
			return fmt.Errorf("%w: %w, and the text is lost: %w", ErrPacket, err, uerr)
		}
		return err
	}
	copy(icv, sum)
	return nil
}

// SealAll implements batchTransform.
func (t *composed) SealAll(packets [][]byte, high uint32) (sealed int, err error) {
	var together laneMode
	if c, ok := t.blocks.(*softCBC); ok {
		together, _ = c.enc.(laneMode)
	}
	for together != nil && len(packets)-sealed >= lanes {
		group := packets[sealed : sealed+lanes]
		for i, p := range group {
			if t.ivs[i], t.texts[i], _, err = t.suite.split(p); err != nil {
				return sealed, err
			}
		}
		together.EncryptLanes(&t.ivs, &t.texts)
		for _, p := range group {
			sum, err := t.icv(p, high)
			if err != nil { // of software there is none
				return sealed, fmt.Errorf("%w: %w, and the text is lost", ErrPacket, err)
			}
			copy(p[len(p)-t.suite.ICV:], sum)
		}
		sealed += lanes
	}
	clear(t.ivs[:])
	clear(t.texts[:])
	for _, p := range packets[sealed:] {
		if err := t.Seal(p, high); err != nil {
			return sealed, err
		}
		sealed++
	}
	return sealed, nil
}

func (t *composed) Open(p []byte, high uint32) error {
	iv, text, icv, err := t.suite.split(p)
	if err != nil {
		return err
	}
	sum, err := t.icv(p, high)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(sum, icv) != 1 {
		return ErrAuth
	}
	return t.blocks.crypt(true, iv, text)
}

func (t *composed) Close() error {
	err := t.blocks.close()
	if merr := t.mac.close(); err == nil {
		err = merr
	}
	return err
}

// softCBC keeps one CBC mode for each direction it was used in, and gives it the IV of every packet.
type softCBC struct {
	block    cipher.Block
	enc, dec cbcMode
}

// lanes is how many packets a laneMode encrypts at a time: a block of CBC waits for the one before it, for as long as the
// processor could do several others.
const lanes = 4

// laneMode is a cbcMode that encrypts several packets at once.
type laneMode interface {
	EncryptLanes(ivs, texts *[lanes][]byte)
}

// cbcMode is what package crypto/cipher's CBC modes are beyond cipher.BlockMode.
type cbcMode interface {
	cipher.BlockMode
	SetIV([]byte)
}

func newBlock(s Suite, key []byte) (cipher.Block, error) {
	if s.Cipher == TripleDES {
		return des.NewTripleDESCipher(key)
	}
	return aes.NewCipher(key)
}

func newSoftCBC(s Suite, key []byte) (*softCBC, error) {
	block, err := newBlock(s, key)
	if err != nil {
		return nil, fmt.Errorf("hwcrypto: %s: %w", s, err)
	}
	c := &softCBC{block: block}
	if s.Cipher == AESCBC {
		if enc, dec, ok := newAESCBC(key); ok {
			c.enc, c.dec = enc, dec
		}
	}
	return c, nil
}

func (c *softCBC) crypt(decrypt bool, iv, text []byte) error {
	if c.block == nil {
		return errClosed
	}
	mode, make := &c.enc, cipher.NewCBCEncrypter
	if decrypt {
		mode, make = &c.dec, cipher.NewCBCDecrypter
	}
	if *mode == nil {
		m, ok := make(c.block, iv).(cbcMode)
		if !ok {
			return fmt.Errorf("%w: CBC of this Go release cannot be given an IV", ErrUnsupported)
		}
		*mode = m
	} else {
		(*mode).SetIV(iv)
	}
	(*mode).CryptBlocks(text, text)
	return nil
}

func (c *softCBC) close() error {
	*c = softCBC{}
	return nil
}

// softMAC is an HMAC that is reset for every packet.
type softMAC struct {
	h   hash.Hash
	out [sha512.Size]byte
}

func newSoftMAC(h Hash, key []byte) *softMAC {
	m := &softMAC{}
	switch h {
	case MD5:
		m.h = hmac.New(md5.New, key)
	case SHA1:
		m.h = hmac.New(sha1.New, key)
	case SHA256:
		m.h = hmac.New(sha256.New, key)
	case SHA384:
		m.h = hmac.New(sha512.New384, key)
	case SHA512:
		m.h = hmac.New(sha512.New, key)
	}
	return m
}

func (m *softMAC) sum(b, tail []byte) ([]byte, error) {
	if m.h == nil {
		return nil, errClosed
	}
	m.h.Reset()
	m.h.Write(b)
	if len(tail) > 0 {
		m.h.Write(tail)
	}
	return m.h.Sum(m.out[:0]), nil
}

func (m *softMAC) close() error {
	*m = softMAC{}
	return nil
}
