package ikev1

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"hash"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// newHash returns the constructor of a hash function.
func (h Hash) newHash() func() hash.Hash {
	switch h {
	case SHA512:
		return sha512.New
	case SHA384:
		return sha512.New384
	case SHA256:
		return sha256.New
	case SHA1:
		return sha1.New
	case MD5:
		return md5.New
	}
	return nil
}

// size is the hash's output in octets.
func (h Hash) size() int { return h.newHash()().Size() }

// sum hashes the concatenation of its arguments.
func (h Hash) sum(parts ...[]byte) []byte {
	d := h.newHash()()
	for _, p := range parts {
		d.Write(p)
	}
	return d.Sum(nil)
}

// prf is the HMAC of the negotiated hash (RFC 2409 section 4) over the concatenation of its arguments.
func (h Hash) prf(key []byte, parts ...[]byte) []byte {
	m := hmac.New(h.newHash(), key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// phase1Keys is what phase 1 leaves behind (RFC 2409 section 5).
type phase1Keys struct {
	hash   Hash
	proof  Hash   // of HASH_I and HASH_R where it is another, 0 where not
	skeyid []byte // authenticates HASH_I and HASH_R
	d      []byte // SKEYID_d: KEYMAT of phase 2 comes from it
	a      []byte // SKEYID_a: authenticates phase 2 and informational messages
	enc    []byte // the key of the phase 1 cipher, expanded from SKEYID_e
}

// derivePhase1 computes SKEYID and its three children for pre-shared keys. bodies only: Ni_b and Nr_b, g^xy as shared gives it.
func derivePhase1(c Cipher, h Hash, psk ipsec.Secret, ni, nr, shared []byte, ci, cr isakmp.Cookie) phase1Keys {
	k := phase1Keys{hash: h, skeyid: h.prf(psk, ni, nr)}
	k.derive(c, shared, ci, cr)
	return k
}

// derive makes the others from SKEYID.
func (k *phase1Keys) derive(c Cipher, shared []byte, ci, cr isakmp.Cookie) {
	k.d = k.hash.prf(k.skeyid, shared, ci[:], cr[:], []byte{0})
	k.a = k.hash.prf(k.skeyid, k.d, shared, ci[:], cr[:], []byte{1})
	e := k.hash.prf(k.skeyid, k.a, shared, ci[:], cr[:], []byte{2})
	k.enc = expandKey(k.hash, e, c.keyLen())
}

// expandKey lengthens SKEYID_e where the hash is shorter than the cipher's key (RFC 2409 appendix B).
func expandKey(h Hash, e []byte, n int) []byte {
	if len(e) >= n {
		return e[:n]
	}
	last := h.prf(e, []byte{0})
	key := append([]byte(nil), last...)
	for len(key) < n {
		last = h.prf(e, last)
		key = append(key, last...)
	}
	return key[:n]
}

// authHash is HASH_I or HASH_R (RFC 2409 section 5): mine and his are the public values, saBody the initiator's SA payload
// and id the identification payload of the side that sends it, both without their generic headers.
func (k *phase1Keys) authHash(mine, his []byte, myCookie, hisCookie isakmp.Cookie, saBody, id []byte) []byte {
	h := k.hash
	if k.proof != 0 {
		h = k.proof
	}
	return h.prf(k.skeyid, mine, his, myCookie[:], hisCookie[:], saBody, id)
}

// hash1 authenticates the first message of quick mode and informational messages, hash2 the second and hash3 the third
// (RFC 2409 sections 5.5 and 5.7). rest is everything behind the HASH payload, without padding.
func (k *phase1Keys) hash1(mid uint32, rest []byte) []byte {
	return k.hash.prf(k.a, be32(mid), rest)
}

func (k *phase1Keys) hash2(mid uint32, ni, rest []byte) []byte {
	return k.hash.prf(k.a, be32(mid), ni, rest)
}

func (k *phase1Keys) hash3(mid uint32, ni, nr []byte) []byte {
	return k.hash.prf(k.a, []byte{0}, be32(mid), ni, nr)
}

// keymat derives one direction's ESP keys (RFC 2409 section 5.5): encryption key, salt of an AEAD cipher, integrity key.
// shared is g^xy of this quick mode, nil without perfect forward secrecy.
func (k *phase1Keys) keymat(s ipsec.Suite, spi ipsec.SPI, shared, ni, nr []byte) ipsec.Keys {
	n := s.EncLen() + s.AuthLen()
	var out, last []byte
	for len(out) < n {
		last = k.hash.prf(k.d, last, shared, []byte{byte(isakmp.ProtoESP)}, be32(uint32(spi)), ni, nr)
		out = append(out, last...)
	}
	return ipsec.Keys{Enc: out[:s.EncLen():s.EncLen()], Auth: out[s.EncLen():n:n]}
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
