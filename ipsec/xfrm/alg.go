package xfrm

import (
	"culvert/ipsec"
)

// The kernel's names (net/xfrm/xfrm_algo.c).
var (
	cipherNames = map[ipsec.Cipher]string{
		ipsec.TripleDES:        "cbc(des3_ede)",
		ipsec.AESCBC:           "cbc(aes)",
		ipsec.AESGCM:           "rfc4106(gcm(aes))",
		ipsec.ChaCha20Poly1305: "rfc7539esp(chacha20,poly1305)",
	}
	integrityNames = map[ipsec.Integrity]string{
		ipsec.HMACMD5:    "hmac(md5)",
		ipsec.HMACSHA1:   "hmac(sha1)",
		ipsec.HMACSHA256: "hmac(sha256)",
		ipsec.HMACSHA384: "hmac(sha384)",
		ipsec.HMACSHA512: "hmac(sha512)",
	}
)

// algorithms appends the attributes of a suite and its keys.
func (l layout) algorithms(b []byte, s ipsec.Suite, k ipsec.Keys) []byte {
	if s.AEAD() {
		return l.algorithm(b, attrAlgAEAD, cipherNames[s.Cipher], k.Enc, s.ICVBits)
	}
	// Always with the truncation: the kernel's own default for SHA-256 is the 96 bits of a draft.
	b = l.algorithm(b, attrAlgAuthTrunc, integrityNames[s.Integrity], k.Auth, s.ICVBits)
	return l.algorithm(b, attrAlgCrypt, cipherNames[s.Cipher], k.Enc, 0)
}

// algorithm appends struct xfrm_algo, or with icvBits xfrm_algo_auth and xfrm_algo_aead, which look alike.
func (l layout) algorithm(b []byte, kind uint16, name string, key []byte, icvBits int) []byte {
	a := make([]byte, lenAlgName, lenAlgName+8+len(key))
	copy(a, name)
	a = l.AppendUint32(a, uint32(len(key)*8))
	if icvBits != 0 {
		a = l.AppendUint32(a, uint32(icvBits))
	}
	b = l.attr(b, kind, append(a, key...))
	clear(a[:cap(a)])
	return b
}

// trials are the suites whose presence Suites finds out, strongest first.
func trials() []ipsec.Suite {
	var out []ipsec.Suite
	for _, bits := range []int{256, 192, 128} {
		out = append(out, ipsec.Suite{Cipher: ipsec.AESGCM, KeyBits: bits, ICVBits: 128})
	}
	out = append(out, ipsec.Suite{Cipher: ipsec.ChaCha20Poly1305, KeyBits: 256, ICVBits: 128})
	auth := []ipsec.Suite{
		{Integrity: ipsec.HMACSHA512, ICVBits: 256}, {Integrity: ipsec.HMACSHA384, ICVBits: 192},
		{Integrity: ipsec.HMACSHA256, ICVBits: 128}, {Integrity: ipsec.HMACSHA1, ICVBits: 96}, {Integrity: ipsec.HMACMD5, ICVBits: 96},
	}
	for _, c := range []ipsec.Suite{
		{Cipher: ipsec.AESCBC, KeyBits: 256}, {Cipher: ipsec.AESCBC, KeyBits: 192}, {Cipher: ipsec.AESCBC, KeyBits: 128},
		{Cipher: ipsec.TripleDES, KeyBits: 192},
	} {
		for _, a := range auth {
			a.Cipher, a.KeyBits = c.Cipher, c.KeyBits
			out = append(out, a)
		}
	}
	return out
}
