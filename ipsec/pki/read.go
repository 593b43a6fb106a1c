package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Bounds on what files may hold. They protect a small board from a wrong file name.
const (
	maxFile  = 4 << 20
	maxCerts = 64 // in one file, and authorities in all
)

// readFile reads a whole file of bounded size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, fmt.Errorf("%s is a directory: name the file in it", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d octets", path, maxFile)
	}
	return b, nil
}

// blocks splits a file into its PEM blocks; what is not PEM counts as one block without a type, in DER.
func blocks(b []byte) (out []pem.Block) {
	rest := b
	for len(out) <= maxCerts*4 {
		p, tail := pem.Decode(rest)
		if p == nil {
			break
		}
		out, rest = append(out, *p), tail
	}
	if len(out) == 0 && len(b) > 0 {
		out = append(out, pem.Block{Bytes: b})
	}
	return out
}

// ParseCertificates reads certificates from PEM, where other blocks are passed over, or one from DER.
func ParseCertificates(b []byte) (certs []*x509.Certificate, err error) {
	for _, p := range blocks(b) {
		if p.Type != "" && p.Type != "CERTIFICATE" && p.Type != "X509 CERTIFICATE" && p.Type != "TRUSTED CERTIFICATE" {
			continue
		}
		if len(certs) == maxCerts {
			return nil, fmt.Errorf("holds more than %d certificates", maxCerts)
		}
		c, err := x509.ParseCertificate(p.Bytes)
		if err != nil {
			if p.Type == "" {
				return nil, errors.New("is neither PEM nor DER")
			}
			return nil, fmt.Errorf("holds a certificate that cannot be read: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("holds no certificate")
	}
	return certs, nil
}

// ParseKey reads a private key: PKCS #8, PKCS #1 (RSA) or SEC 1 (EC), in PEM or DER, not encrypted.
func ParseKey(b []byte) (crypto.Signer, error) {
	for _, p := range blocks(b) {
		if p.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(p.Headers["Proc-Type"], "ENCRYPTED") {
			return nil, errors.New("the key has a passphrase, which nobody types here: remove it (openssl pkey -in OLD -out NEW)")
		}
		if p.Type != "" && !strings.HasSuffix(p.Type, "PRIVATE KEY") {
			continue
		}
		key, err := parseKey(p.Bytes)
		if err != nil {
			return nil, err
		}
		return key, nil
	}
	return nil, errors.New("holds no private key")
}

func parseKey(der []byte) (crypto.Signer, error) {
	var key any
	var err error
	if key, err = x509.ParsePKCS8PrivateKey(der); err != nil {
		if rsaKey, err2 := x509.ParsePKCS1PrivateKey(der); err2 == nil {
			key, err = rsaKey, nil
		} else if ecKey, err2 := x509.ParseECPrivateKey(der); err2 == nil {
			key, err = ecKey, nil
		}
	}
	if err != nil {
		return nil, errors.New("holds no private key that can be read: RSA and ECDSA keys in PKCS #8, PKCS #1 or SEC 1 are")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key cannot sign: use RSA, or ECDSA on P-256, P-384 or P-521")
	}
	return signer, nil
}

// Key sizes. IKEv1 has RSA, and ECDSA on three curves (RFC 4754).
const (
	MinRSA = 2048 // unless something else is asked for
	MaxRSA = 8192 // a longer one costs too much to verify
)

// CheckKey says what is wrong with a public key: its kind, or that it has less than so many bits, 0 for MinRSA.
func CheckKey(pub crypto.PublicKey, least int) error {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		if least == 0 {
			least = MinRSA
		}
		if n := k.N.BitLen(); n < least || n > MaxRSA {
			return fmt.Errorf("its RSA key has %d bits, %d to %d are accepted", n, least, MaxRSA)
		}
		if k.E < 3 || k.E&1 == 0 {
			return errors.New("its RSA key has an impossible exponent")
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return nil
		}
		return errors.New("its curve is not P-256, P-384 or P-521")
	}
	return fmt.Errorf("its key is neither RSA nor ECDSA")
}

// samePublic compares public keys.
func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// selfIssued says that a certificate names itself as its issuer: a root.
func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }
