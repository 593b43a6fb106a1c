package pki

import (
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"unicode/utf16"
)

// A PKCS #12 bundle carries a certificate, its key and its authority to a phone or to Windows in one file (RFC 7292).
// What all of them import is the old form: the password turned into keys as appendix B has it, three-key triple DES, and
// an HMAC with SHA-1. Newer forms (PBES2 with AES) are refused by Windows before 10 1809, by macOS before 15 and by many
// a phone. So its secrecy rests on the password; pass bundles on with care.

var (
	oidShroudedKeyBag  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidCertBag         = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 3}
	oidX509Certificate = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 22, 1}
	oidFriendlyName    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 20}
	oidLocalKeyID      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 21}
	oidEncryptedData   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 6}
	oidTripleDES       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 1, 3}
	oidSHA1            = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}

	errPassword = errors.New("a bundle needs a password: phones refuse to import one without")
)

const pfxIterations = 10000

type algorithm struct {
	ID     asn1.ObjectIdentifier
	Params asn1.RawValue `asn1:"optional"`
}

type pbeParams struct {
	Salt       []byte
	Iterations int
}

// contentInfo's content comes wrapped in its explicit tag.
type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue
}

type pfx struct {
	Version int
	Auth    contentInfo
	MAC     struct {
		Digest struct {
			Algorithm algorithm
			Digest    []byte
		}
		Salt       []byte
		Iterations int
	}
}

type safeBag struct {
	ID         asn1.ObjectIdentifier
	Value      asn1.RawValue
	Attributes []bagAttribute `asn1:"set,omitempty"`
}

type bagAttribute struct {
	ID     asn1.ObjectIdentifier
	Values []asn1.RawValue `asn1:"set"`
}

// Bundle writes a PKCS #12 file that holds p, called by a name, and the authorities above it.
func (p *Pair) Bundle(name, password string, authorities ...*x509.Certificate) ([]byte, error) {
	if password == "" {
		return nil, errPassword
	}
	secret, err := bmpString(password)
	if err != nil {
		return nil, err
	}
	secret = append(secret, 0, 0)
	key, err := x509.MarshalPKCS8PrivateKey(p.Key)
	if err != nil {
		return nil, err
	}
	local := sha1.Sum(p.Cert.Raw) // joins the key with its certificate
	marks := []bagAttribute{{oidLocalKeyID, []asn1.RawValue{{Tag: asn1.TagOctetString, Bytes: local[:]}}}}
	if label, err := bmpString(name); err == nil {
		marks = append(marks, bagAttribute{oidFriendlyName, []asn1.RawValue{{Tag: asn1.TagBMPString, Bytes: label}}})
	}
	var bags []safeBag
	for i, c := range append([]*x509.Certificate{p.Cert}, authorities...) {
		value, err := asn1.Marshal(struct {
			ID   asn1.ObjectIdentifier
			Data []byte `asn1:"tag:0,explicit"`
		}{oidX509Certificate, c.Raw})
		if err != nil {
			return nil, err
		}
		bag := safeBag{ID: oidCertBag, Value: explicit(value)}
		if i == 0 {
			bag.Attributes = marks
		}
		bags = append(bags, bag)
	}
	certSafe, err := encryptedSafe(bags, secret)
	if err != nil {
		return nil, err
	}
	alg, sealed, err := pbeSeal(key, secret)
	if err != nil {
		return nil, err
	}
	shrouded, err := asn1.Marshal(struct {
		Algorithm algorithm
		Data      []byte
	}{alg, sealed})
	if err != nil {
		return nil, err
	}
	keySafe, err := plainSafe([]safeBag{{ID: oidShroudedKeyBag, Value: explicit(shrouded), Attributes: marks}})
	if err != nil {
		return nil, err
	}
	safe, err := asn1.Marshal([]contentInfo{certSafe, keySafe})
	if err != nil {
		return nil, err
	}
	out := pfx{Version: 3}
	if out.Auth, err = dataContent(safe); err != nil {
		return nil, err
	}
	mac := &out.MAC
	mac.Salt, mac.Iterations = make([]byte, 8), pfxIterations
	if _, err := rand.Read(mac.Salt); err != nil {
		return nil, err
	}
	sum := hmac.New(sha1.New, pkcs12KDF(secret, mac.Salt, 3, pfxIterations, 20))
	sum.Write(safe)
	mac.Digest.Algorithm = algorithm{oidSHA1, asn1.NullRawValue}
	mac.Digest.Digest = sum.Sum(nil)
	return asn1.Marshal(out)
}

func explicit(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: der}
}

func dataContent(b []byte) (contentInfo, error) {
	der, err := asn1.Marshal(b)
	return contentInfo{oidData, explicit(der)}, err
}

func plainSafe(bags []safeBag) (contentInfo, error) {
	der, err := asn1.Marshal(bags)
	if err != nil {
		return contentInfo{}, err
	}
	return dataContent(der)
}

// encryptedSafe is an EncryptedData of PKCS #7.
func encryptedSafe(bags []safeBag, secret []byte) (contentInfo, error) {
	der, err := asn1.Marshal(bags)
	if err != nil {
		return contentInfo{}, err
	}
	alg, sealed, err := pbeSeal(der, secret)
	if err != nil {
		return contentInfo{}, err
	}
	data, err := asn1.Marshal(struct {
		Version int
		Content struct {
			Type      asn1.ObjectIdentifier
			Algorithm algorithm
			Data      []byte `asn1:"tag:0"`
		}
	}{0, struct {
		Type      asn1.ObjectIdentifier
		Algorithm algorithm
		Data      []byte `asn1:"tag:0"`
	}{oidData, alg, sealed}})
	return contentInfo{oidEncryptedData, explicit(data)}, err
}

// pbeSeal encrypts with pbeWithSHAAnd3-KeyTripleDES-CBC (RFC 7292 appendix C).
func pbeSeal(plain, secret []byte) (alg algorithm, sealed []byte, err error) {
	salt := make([]byte, 8)
	if _, err := rand.Read(salt); err != nil {
		return alg, nil, err
	}
	params, err := asn1.Marshal(pbeParams{salt, pfxIterations})
	if err != nil {
		return alg, nil, err
	}
	block, err := des.NewTripleDESCipher(pkcs12KDF(secret, salt, 1, pfxIterations, 24))
	if err != nil {
		return alg, nil, err
	}
	pad := block.BlockSize() - len(plain)%block.BlockSize()
	sealed = append(slices.Clone(plain), slices.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, pkcs12KDF(secret, salt, 2, pfxIterations, 8)).CryptBlocks(sealed, sealed)
	return algorithm{oidTripleDES, asn1.RawValue{FullBytes: params}}, sealed, nil
}

// pkcs12KDF turns a password into n octets with SHA-1 (RFC 7292 appendix B.2); id is 1 for a key, 2 for an IV, 3 for a MAC.
func pkcs12KDF(secret, salt []byte, id byte, iterations, n int) []byte {
	const v = 64 // the block of SHA-1
	fill := func(b []byte) []byte {
		size := (len(b) + v - 1) / v * v
		out := make([]byte, 0, size+len(b))
		for len(b) > 0 && len(out) < size {
			out = append(out, b...)
		}
		return out[:size]
	}
	d := slices.Repeat([]byte{id}, v)
	in := append(fill(salt), fill(secret)...)
	one := big.NewInt(1)
	mod := new(big.Int).Lsh(one, v*8)
	var out []byte
	for len(out) < n {
		a := sha1.Sum(append(slices.Clone(d), in...))
		for range iterations - 1 {
			a = sha1.Sum(a[:])
		}
		out = append(out, a[:]...)
		b := new(big.Int).SetBytes(fill(a[:]))
		b.Add(b, one)
		for i := 0; i < len(in); i += v {
			x := new(big.Int).SetBytes(in[i : i+v])
			x.Add(x, b).Mod(x, mod).FillBytes(in[i : i+v])
		}
	}
	return out[:n]
}

// bmpString is UTF-16 in network order.
func bmpString(s string) ([]byte, error) {
	var out []byte
	for _, r := range s {
		if r > 0xffff || utf16.IsSurrogate(r) {
			return nil, fmt.Errorf("%q cannot stand in a PKCS #12 file", r)
		}
		out = append(out, byte(r>>8), byte(r))
	}
	return out, nil
}
