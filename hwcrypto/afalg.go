package hwcrypto

import (
	"encoding/binary"
	"fmt"
)

// AFALG is a provider out of the kernel's ciphers (Documentation/crypto/userspace-if.rst). Which driver does the work is
// the kernel's choice by priority; see Discover.
type AFALG uint8

const (
	// AFALGAead has the kernel do all of it: authenc(...), rfc4106(gcm(aes)), rfc7539esp(chacha20,poly1305).
	AFALGAead AFALG = iota
	// AFALGCipher encrypts in the kernel and computes the HMAC here: for engines that know ciphers only.
	AFALGCipher
	// AFALGSplit does both in the kernel, one after the other: for kernels without the AEAD interface.
	AFALGSplit
)

// Name implements Provider.
func (a AFALG) Name() string {
	switch a {
	case AFALGAead:
		return "af_alg aead"
	case AFALGCipher:
		return "af_alg cipher"
	}
	return "af_alg cipher+hash"
}

// New implements Provider.
func (a AFALG) New(c Config) (Transform, error) {
	if err := c.Suite.check(c.Keys); err != nil {
		return nil, err
	}
	return a.open(c, a.kernelName(c.Suite))
}

// open asks the kernel for name.
func (a AFALG) open(c Config, name string) (Transform, error) {
	if a == AFALGAead {
		return newAlgAEAD(c, name)
	}
	if c.Suite.AEAD() {
		return nil, fmt.Errorf("%w: %s by parts", ErrUnsupported, c.Suite)
	}
	blocks, err := newAlgCBC(c.Suite, name, c.Keys.Enc)
	if err != nil {
		return nil, err
	}
	if a == AFALGCipher {
		return newComposed(c, blocks, newSoftMAC(c.Suite.Hash, c.Keys.Auth)), nil
	}
	m, err := newAlgMAC(c.Suite.Hash, c.Keys.Auth)
	if err != nil {
		blocks.close()
		return nil, err
	}
	return newComposed(c, blocks, m), nil
}

// kernelName is what the provider asks the kernel for.
func (a AFALG) kernelName(s Suite) string {
	if a == AFALGAead {
		return s.KernelName()
	}
	return s.Cipher.kernelName()
}

// pinnedDriver is AF_ALG by the name of a driver, or of what the kernel builds upon it.
type pinnedDriver struct {
	AFALG
	driver string
}

// Name implements Provider.
func (p pinnedDriver) Name() string { return p.AFALG.Name() + " " + p.driver }

// New implements Provider.
func (p pinnedDriver) New(c Config) (Transform, error) {
	if err := c.Suite.check(c.Keys); err != nil {
		return nil, err
	}
	algs, err := Discover()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	a, ok := p.algorithm(c.Suite, algs)
	if !ok {
		return nil, fmt.Errorf("%w: %s by %s", ErrUnsupported, c.Suite, p.driver)
	}
	return p.AFALG.open(c, a.Driver)
}

// algorithm is the first chain with the driver in it.
func (p pinnedDriver) algorithm(s Suite, algs []Algorithm) (Algorithm, bool) {
	if p.AFALG == AFALGCipher && s.AEAD() {
		return Algorithm{}, false
	}
	name := p.AFALG.kernelName(s)
	for _, c := range Chains(algs, name, p.driver) {
		if Uses(c.Driver, p.driver) {
			return Algorithm{Name: name, Driver: c.Driver, Priority: c.Priority, Async: c.Async, Engine: c.Engine}, true
		}
	}
	return Algorithm{}, false
}

// KernelName is what the kernel's crypto API calls the suite as a whole.
func (s Suite) KernelName() string {
	switch s.Cipher {
	case AESGCM:
		return "rfc4106(gcm(aes))"
	case ChaCha20Poly1305:
		return "rfc7539esp(chacha20,poly1305)"
	}
	return "authenc(" + s.Hash.kernelName() + "," + s.Cipher.kernelName() + ")"
}

func (c Cipher) kernelName() string {
	if c == TripleDES {
		return "cbc(des3_ede)"
	}
	return "cbc(aes)"
}

func (h Hash) kernelName() string { return "hmac(" + h.String() + ")" }

// algAEAD is one AEAD socket. Results come into a buffer of their own first: the kernel may have written half of one when
// it fails, and the packet must survive that.
type algAEAD struct {
	suite Suite
	sock  *algSocket
	out   []byte
}

func newAlgAEAD(c Config, name string) (*algAEAD, error) {
	if c.ESN {
		// authencesn reads the sequence number from a place of its own; IKEv1 never negotiates ESN.
		return nil, fmt.Errorf("%w: 64-bit sequence numbers over AF_ALG", ErrUnsupported)
	}
	s, key := c.Suite, c.Keys.Enc
	if !s.AEAD() {
		key = authencKey(c.Keys)
		defer clear(key)
	}
	sock, err := openAlg("aead", name, key, s.ICV, headerLen+s.IVLen(), s.IVLen())
	if err != nil {
		return nil, err
	}
	return &algAEAD{suite: s, sock: sock}, nil
}

// authencKey is the key blob of the kernel's authenc template (crypto/authenc.c): an rtattr with the length of the
// encryption key, then both keys.
func authencKey(k Keys) []byte {
	b := make([]byte, 0, 8+len(k.Auth)+len(k.Enc))
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, rtaKeyParam)
	b = binary.BigEndian.AppendUint32(b, uint32(len(k.Enc)))
	b = append(b, k.Auth...)
	return append(b, k.Enc...)
}

func (t *algAEAD) Seal(p []byte, _ uint32) error {
	iv, text, icv, err := t.suite.split(p)
	if err != nil {
		return err
	}
	head := headerLen + len(iv)
	t.out = grow(t.out, len(p))
	// The additional data comes back in front of the result.
	if err := t.sock.do(algEncrypt, iv, p[:head+len(text)], nil, t.out); err != nil {
		return err
	}
	copy(text[:len(text)+len(icv)], t.out[head:])
	return nil
}

func (t *algAEAD) Open(p []byte, _ uint32) error {
	iv, text, _, err := t.suite.split(p)
	if err != nil {
		return err
	}
	head := headerLen + len(iv)
	t.out = grow(t.out, head+len(text))
	if err := t.sock.do(algDecrypt, iv, p, nil, t.out); err != nil {
		return err
	}
	copy(text, t.out[head:])
	return nil
}

func (t *algAEAD) Close() error {
	clear(t.out)
	return t.sock.close()
}

// grow returns b with length n, in steps that make it settle soon.
func grow(b []byte, n int) []byte {
	if cap(b) < n {
		b = make([]byte, (n+2047)&^2047)
	}
	return b[:n]
}

// algCBC is one cipher socket.
type algCBC struct {
	sock *algSocket
	out  []byte
}

func newAlgCBC(s Suite, name string, key []byte) (*algCBC, error) {
	sock, err := openAlg("skcipher", name, key, 0, 0, s.IVLen())
	if err != nil {
		return nil, err
	}
	return &algCBC{sock: sock}, nil
}

func (c *algCBC) crypt(decrypt bool, iv, text []byte) error {
	op := uint32(algEncrypt)
	if decrypt {
		op = algDecrypt
	}
	c.out = grow(c.out, len(text))
	if err := c.sock.do(op, iv, text, nil, c.out); err != nil {
		return err
	}
	copy(text, c.out)
	return nil
}

func (c *algCBC) close() error {
	clear(c.out)
	return c.sock.close()
}

// algMAC is one hash socket.
type algMAC struct {
	sock *algSocket
	out  []byte
}

func newAlgMAC(h Hash, key []byte) (*algMAC, error) {
	sock, err := openAlg("hash", h.kernelName(), key, 0, 0, 0)
	if err != nil {
		return nil, err
	}
	return &algMAC{sock: sock, out: make([]byte, h.size())}, nil
}

func (m *algMAC) sum(b, tail []byte) ([]byte, error) {
	return m.out, m.sock.do(0, nil, b, tail, m.out)
}

func (m *algMAC) close() error { return m.sock.close() }
