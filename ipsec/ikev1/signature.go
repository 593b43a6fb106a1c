package ikev1

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"culvert/ipsec/isakmp"
)

// AuthMethod is how both sides prove themselves in phase 1 (RFC 2409 section 5, RFC 4754). With signatures both have keys
// of one kind: IKEv1 negotiates a single method for the two.
type AuthMethod uint8

const (
	PreSharedKey AuthMethod = iota
	RSASignature
	ECDSA256
	ECDSA384
	ECDSA521
	noMethod AuthMethod = 255
)

var methodNumbers = map[uint64]AuthMethod{
	isakmp.MethodPSK: PreSharedKey, isakmp.MethodRSA: RSASignature, isakmp.MethodECDSA256: ECDSA256,
	isakmp.MethodECDSA384: ECDSA384, isakmp.MethodECDSA521: ECDSA521,
}

var methodNames = [...]string{"pre-shared-key", "rsa-signature", "ecdsa-256", "ecdsa-384", "ecdsa-521"}

func (m AuthMethod) String() string {
	if int(m) < len(methodNames) {
		return methodNames[m]
	}
	return fmt.Sprintf("method %d", uint8(m))
}

func (m AuthMethod) signed() bool { return m != PreSharedKey }

// Each ECDSA method has a curve, and a hash that HASH_I and HASH_R are computed with, whatever the negotiated one is
// (RFC 4754 section 3).
var ecdsaMethods = map[AuthMethod]struct {
	curve elliptic.Curve
	hash  Hash
	sum   crypto.Hash
}{
	ECDSA256: {elliptic.P256(), SHA256, crypto.SHA256},
	ECDSA384: {elliptic.P384(), SHA384, crypto.SHA384},
	ECDSA521: {elliptic.P521(), SHA512, crypto.SHA512},
}

var (
	errKeyKind   = errors.New("ikev1: keys are RSA, or ECDSA on P-256, P-384 or P-521")
	errSignature = errors.New("the signature is not made with the key of the certificate")
)

// MethodOf tells which method a public key serves.
func MethodOf(key crypto.PublicKey) (AuthMethod, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return RSASignature, nil
	case *ecdsa.PublicKey:
		for m, x := range ecdsaMethods {
			if x.curve == k.Curve {
				return m, nil
			}
		}
	}
	return 0, errKeyKind
}

// signature is the body of a SIG payload over HASH_I or HASH_R: with RSA the PKCS #1 encryption of the hash alone, without
// the name of its algorithm (RFC 2409 section 5.1); with ECDSA r and s side by side (RFC 4754 section 7).
func (m AuthMethod) signature(key crypto.Signer, hash []byte) ([]byte, error) {
	if m == RSASignature {
		return key.Sign(nil, hash, crypto.Hash(0))
	}
	x, ok := ecdsaMethods[m]
	if !ok {
		return nil, errKeyKind
	}
	der, err := key.Sign(nil, hash, x.sum) // without random numbers: RFC 6979
	if err != nil {
		return nil, err
	}
	var rs struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &rs); err != nil || len(rest) > 0 {
		return nil, errKeyKind
	}
	n := (x.curve.Params().BitSize + 7) / 8
	out := make([]byte, 2*n)
	rs.R.FillBytes(out[:n])
	rs.S.FillBytes(out[n:])
	return out, nil
}

// verify checks the body of a SIG payload.
func (m AuthMethod) verify(key crypto.PublicKey, hash, sig []byte) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if m != RSASignature {
			break
		}
		if rsa.VerifyPKCS1v15(k, crypto.Hash(0), hash, sig) != nil {
			return errSignature
		}
		return nil
	case *ecdsa.PublicKey:
		x, ok := ecdsaMethods[m]
		if !ok || k.Curve != x.curve {
			break
		}
		n := (x.curve.Params().BitSize + 7) / 8
		if len(sig) != 2*n {
			return fmt.Errorf("the signature has %d octets instead of %d", len(sig), 2*n)
		}
		der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:])})
		if err != nil || !ecdsa.VerifyASN1(k, hash, der) {
			return errSignature
		}
		return nil
	}
	return fmt.Errorf("the certificate's key is not for %s, which was agreed upon: use a key of the same kind on both sides", m)
}

// deriveSigned computes SKEYID and its three children for signatures: prf(Ni_b | Nr_b, g^xy) instead of a shared key
// (RFC 2409 section 5).
func deriveSigned(c Cipher, h Hash, m AuthMethod, ni, nr, shared []byte, ci, cr isakmp.Cookie) phase1Keys {
	nonces := append(append(make([]byte, 0, len(ni)+len(nr)), ni...), nr...)
	k := phase1Keys{hash: h, proof: ecdsaMethods[m].hash, skeyid: h.prf(nonces, shared)}
	k.derive(c, shared, ci, cr)
	return k
}
