package hwcrypto

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Crypter is the transform of one direction of one SA as the data path uses it: it makes the IVs, and when its provider
// fails it goes on with the next one, beginning with the packet in hand. It is not safe for concurrent use.
type Crypter struct {
	owner *Providers
	cfg   Config // with keys of its own
	t     Transform
	at    int // index of t's provider
	ivs   cipher.Block
	mask  [16]byte
	iv    [16]byte
	// audits is how many rejections are still checked by software: an engine that rejects what is authentic is broken.
	audits int
	audit  Transform
	copied []byte
}

// maxAudits bounds what a forger can make us spend on second opinions.
const maxAudits = 16

// New makes a Crypter with the provider that Choose took for the suite, or with software if nothing was measured yet.
// It copies the keys.
func (p *Providers) New(c Config) (*Crypter, error) {
	if err := c.Suite.check(c.Keys); err != nil {
		return nil, err
	}
	c.Keys = Keys{Enc: slices.Clone(c.Keys.Enc), Auth: slices.Clone(c.Keys.Auth)}
	x := &Crypter{owner: p, cfg: c}
	if err := x.use(p.pick(c.Suite)); err != nil {
		x.forget()
		return nil, err
	}
	if !c.Suite.AEAD() {
		var err error
		if x.ivs, err = newBlock(c.Suite, c.Keys.Enc); err != nil {
			x.Close()
			return nil, err
		}
		rand.Read(x.mask[:])
	}
	return x, nil
}

// use switches to the provider at index i or the first behind it that can do the suite; software is the last one.
func (x *Crypter) use(i int) error {
	var errs error
	for ; i < len(x.owner.list); i++ {
		t, err := x.owner.list[i].New(x.cfg)
		if err == nil {
			x.t, x.at, x.audits = t, i, 0
			if x.owner.list[i].Name() != (Software{}).Name() {
				x.audits = maxAudits
			}
			return nil
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

// next leaves a provider that failed.
func (x *Crypter) next(cause error) error {
	if x.at+1 >= len(x.owner.list) {
		return cause
	}
	x.owner.failed(x.cfg.Suite, x.at, cause)
	x.t.Close()
	return x.use(x.at + 1)
}

// Provider names the means in use.
func (x *Crypter) Provider() string { return x.owner.list[x.at].Name() }

// Suite is what the Crypter was made for.
func (x *Crypter) Suite() Suite { return x.cfg.Suite }

// Seal writes the IV for sequence number seq, of which the packet's header already has the lower half, then encrypts the
// text in place and writes the ICV. No two packets of one key may have one sequence number.
func (x *Crypter) Seal(packet []byte, seq uint64) error {
	if x.t == nil {
		return errClosed
	}
	if err := x.number(packet, seq); err != nil {
		return err
	}
	for {
		err := x.t.Seal(packet, uint32(seq>>32))
		if err == nil || errors.Is(err, ErrPacket) {
			return err
		}
		if err := x.next(err); err != nil {
			return err
		}
	}
}

// SealAll is Seal for packets whose sequence numbers follow each other from seq on. It stops at the first error and says
// how many are sealed.
func (x *Crypter) SealAll(packets [][]byte, seq uint64) (sealed int, err error) {
	if together, ok := x.t.(batchTransform); ok && len(packets) > 1 && seq>>32 == (seq+uint64(len(packets)))>>32 {
		for i, p := range packets {
			if err := x.number(p, seq+uint64(i)); err != nil {
				return 0, err
			}
		}
		if sealed, err = together.SealAll(packets, uint32(seq>>32)); errors.Is(err, ErrPacket) {
			return sealed, err
		}
	}
	for _, p := range packets[sealed:] {
		if err := x.Seal(p, seq+uint64(sealed)); err != nil {
			return sealed, err
		}
		sealed++
	}
	return sealed, nil
}

// number writes the IV for a sequence number.
func (x *Crypter) number(packet []byte, seq uint64) error {
	if len(packet) < x.cfg.Suite.Overhead() {
		return ErrPacket
	}
	iv := packet[headerLen : headerLen+x.cfg.Suite.IVLen()]
	if x.ivs == nil {
		binary.BigEndian.PutUint64(iv, seq) // must be unique, need not be random: RFC 4106 section 3.1
		return nil
	}
	// CBC needs IVs that cannot be foretold (RFC 3602 section 3): a counter under a secret mask, encrypted
	// (NIST SP 800-38A appendix C).
	n := x.ivs.BlockSize()
	copy(x.iv[:n], x.mask[:n])
	at := x.iv[n-8 : n]
	binary.BigEndian.PutUint64(at, binary.BigEndian.Uint64(at)^seq)
	x.ivs.Encrypt(iv, x.iv[:n])
	return nil
}

// Open checks the ICV and decrypts the text in place. seq is the whole sequence number. ErrAuth if the packet is not
// authentic.
func (x *Crypter) Open(packet []byte, seq uint64) error {
	if x.t == nil {
		return errClosed
	}
	high := uint32(seq >> 32)
	if x.audits > 0 {
		x.copied = append(x.copied[:0], packet...)
	}
	for {
		err := x.t.Open(packet, high)
		switch {
		case err == nil || errors.Is(err, ErrPacket):
			return err
		case errors.Is(err, ErrAuth):
			if x.audits == 0 || !x.authentic(high) {
				return ErrAuth
			}
			copy(packet, x.copied)
			err = fmt.Errorf("it rejects what is authentic: %w", err)
		}
		if err := x.next(err); err != nil {
			return err
		}
	}
}

// authentic asks software for a second opinion on the packet in x.copied, which it leaves as it was.
func (x *Crypter) authentic(high uint32) bool {
	x.audits--
	if x.audit == nil {
		t, err := Software{}.New(x.cfg)
		if err != nil {
			x.audits = 0
			return false
		}
		x.audit = t
	}
	trial := slices.Clone(x.copied)
	ok := x.audit.Open(trial, high) == nil
	clear(trial)
	if x.audits == 0 {
		x.audit.Close()
		x.audit, x.copied = nil, nil
	}
	return ok
}

// Close forgets the keys.
func (x *Crypter) Close() error {
	if x.t == nil {
		return nil
	}
	err := x.t.Close()
	x.t = nil
	x.forget()
	return err
}

func (x *Crypter) forget() {
	clear(x.cfg.Keys.Enc)
	clear(x.cfg.Keys.Auth)
	x.ivs = nil
	if x.audit != nil {
		x.audit.Close()
		x.audit = nil
	}
}
