package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// KeyKind is what key a certificate gets.
type KeyKind uint8

const (
	RSA2048 KeyKind = iota // what Windows, Apple and Android accept
	RSA3072
	RSA4096
	P256 // quick on a small board; IKEv1 then wants it on both sides
	P384
)

var keyKinds = []string{"rsa2048", "rsa3072", "rsa4096", "p256", "p384"}

func (k KeyKind) String() string { return keyKinds[k] }

// ParseKeyKind reads the name of a kind of key.
func ParseKeyKind(s string) (KeyKind, error) {
	if i := slices.Index(keyKinds, s); i >= 0 {
		return KeyKind(i), nil
	}
	return 0, fmt.Errorf("%q is not one of %s", s, strings.Join(keyKinds, ", "))
}

func newKey(k KeyKind) (crypto.Signer, error) {
	switch k {
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, 2048)
}

const (
	// MaxValidity is the longest that Apple's systems accept a server's certificate for.
	MaxValidity = 825 * 24 * time.Hour
	// CAValidity is how long an authority lasts unless something else is said.
	CAValidity = 3650 * 24 * time.Hour
	// backdate is how far behind a peer's clock may be.
	backdate = 24 * time.Hour
	// CRLValidity is how long a revocation list counts as fresh.
	CRLValidity = 365 * 24 * time.Hour
)

var (
	errClock    = errors.New("the clock of this machine is not set, and certificates carry dates: set it first (NTP)")
	errNotCA    = errors.New("is no authority's certificate: it cannot issue others")
	errNoName   = errors.New("a certificate needs a name")
	errValidity = errors.New("validity must be from one day to 825 days: Apple's systems refuse certificates that last longer")
)

// Pair is a certificate and its private key.
type Pair struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// CertPEM and KeyPEM are the two as files have them.
func (p *Pair) CertPEM() []byte { return encodePEM("CERTIFICATE", p.Cert.Raw) }

func (p *Pair) KeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.Key)
	if err != nil {
		return nil, err
	}
	return encodePEM("PRIVATE KEY", der), nil
}

// ReadPair reads what CertPEM and KeyPEM write.
func ReadPair(cert, key []byte) (*Pair, error) {
	certs, err := ParseCertificates(cert)
	if err != nil {
		return nil, fmt.Errorf("the certificate's file %w", err)
	}
	signer, err := ParseKey(key)
	if err != nil {
		return nil, fmt.Errorf("the key's file: %w", err)
	}
	if !samePublic(certs[0].PublicKey, signer.Public()) {
		return nil, errors.New("the key does not belong to the certificate")
	}
	return &Pair{certs[0], signer}, nil
}

// NewCA makes an authority that signs itself. It may issue certificates for peers, and no further authorities.
func NewCA(now time.Time, name string, kind KeyKind, validity time.Duration) (*Pair, error) {
	if strings.TrimSpace(name) == "" {
		return nil, errNoName
	}
	if !ClockIsSet(now) {
		return nil, errClock
	}
	key, err := newKey(kind)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: start(now), NotAfter: now.Add(validity).UTC().Truncate(time.Second),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return sign(t, nil, key, key)
}

func start(now time.Time) time.Time { return now.Add(-backdate).UTC().Truncate(time.Second) }

// Request is what a peer's certificate shall say.
type Request struct {
	Names    []string // host names, addresses and mail addresses; the first is also the common name
	Server   bool
	Kind     KeyKind
	Key      crypto.Signer // what the peer has already; nil makes a new one of Kind
	Validity time.Duration
}

// Issue makes a certificate for a server or a client. Both have the usages that the systems of the world look for: Windows
// wants serverAuth or ikeIntermediate of a server and clientAuth of a client, Apple serverAuth and the name in the
// alternative names, strongSwan nothing.
func (ca *Pair) Issue(now time.Time, r Request) (*Pair, error) {
	switch {
	case len(r.Names) == 0:
		return nil, errNoName
	case !ClockIsSet(now):
		return nil, errClock
	case !ca.Cert.IsCA:
		return nil, errNotCA
	case r.Validity < 24*time.Hour || r.Validity > MaxValidity:
		return nil, errValidity
	}
	if refusal := checkDates(ca.Cert, now); refusal != nil {
		return nil, refusal
	}
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: r.Names[0]}, NotBefore: start(now), NotAfter: now.Add(r.Validity).UTC().Truncate(time.Second),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidIKEIntermediate},
	}
	// No chain outlives its root.
	if t.NotAfter.After(ca.Cert.NotAfter) {
		t.NotAfter = ca.Cert.NotAfter
	}
	if t.NotBefore.Before(ca.Cert.NotBefore) {
		t.NotBefore = ca.Cert.NotBefore
	}
	if r.Server {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	for i, name := range r.Names {
		if err := addName(t, name, i == 0 && !r.Server); err != nil {
			return nil, err
		}
	}
	key, err := r.Key, error(nil)
	if key == nil {
		if key, err = newKey(r.Kind); err != nil {
			return nil, err
		}
	}
	if _, isRSA := key.Public().(*rsa.PublicKey); isRSA {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	return sign(t, ca, key, ca.Key)
}

// addName puts a name where peers look for its kind. The first name of a client may be anything, such as a person's.
func addName(t *x509.Certificate, name string, free bool) error {
	if a, err := netip.ParseAddr(name); err == nil {
		t.IPAddresses = append(t.IPAddresses, a.Unmap().AsSlice())
		// Windows before 10 looks for addresses among the host names.
		return nil
	}
	local, domain, isMail := strings.Cut(name, "@")
	switch {
	case isMail && local != "" && isHostName(domain):
		t.EmailAddresses = append(t.EmailAddresses, name)
	case isHostName(name):
		t.DNSNames = append(t.DNSNames, name)
	case free && strings.TrimSpace(name) != "" && len(name) <= 64:
	default:
		return fmt.Errorf("%q is neither a host name, an address nor a mail address", name)
	}
	return nil
}

// isHostName accepts letters, digits, hyphens and dots, and a wildcard on the left.
func isHostName(s string) bool {
	s = strings.TrimPrefix(s, "*.")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.ContainsFunc(label, func(c rune) bool {
			return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
		}) {
			return false
		}
	}
	return true
}

// sign completes a certificate: serial number, key identifiers, signature. A nil issuer signs itself.
func sign(t *x509.Certificate, ca *Pair, key, with crypto.Signer) (*Pair, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and of one length
	t.SerialNumber = new(big.Int).SetBytes(serial)
	var err error
	if t.SubjectKeyId, err = keyID(key.Public()); err != nil {
		return nil, err
	}
	parent := t
	if ca != nil {
		parent = ca.Cert
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), with)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Pair{c, key}, nil
}

// keyID is RFC 5280 section 4.2.1.2, method 1.
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &spki); err != nil {
		return nil, err
	}
	sum := sha1.Sum(spki.Key.Bytes)
	return sum[:], nil
}

// Revoke makes the next revocation list: what old (nil for none, DER or PEM) holds, and a certificate's serial number.
// serial may be nil, to renew a list. Adding one that is there changes nothing but the dates.
func (ca *Pair) Revoke(now time.Time, old []byte, serial *big.Int) (pemList []byte, err error) {
	if !ClockIsSet(now) {
		return nil, errClock
	}
	if !ca.Cert.IsCA {
		return nil, errNotCA
	}
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.UTC().Truncate(time.Second), NextUpdate: now.Add(CRLValidity).UTC().Truncate(time.Second)}
	if len(bytes.TrimSpace(old)) > 0 {
		last, err := x509.ParseRevocationList(blocks(old)[0].Bytes)
		if err != nil {
			return nil, fmt.Errorf("the revocation list cannot be read: %w", err)
		}
		if err := last.CheckSignatureFrom(ca.Cert); err != nil {
			return nil, errors.New("the revocation list is another authority's")
		}
		if last.Number != nil {
			list.Number.Add(last.Number, big.NewInt(1))
		}
		for _, e := range last.RevokedCertificateEntries {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: e.SerialNumber, RevocationTime: e.RevocationTime, ReasonCode: e.ReasonCode})
		}
	}
	there := func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serial) == 0 }
	if serial != nil && !slices.ContainsFunc(list.RevokedCertificateEntries, there) {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: list.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Cert, ca.Key)
	if err != nil {
		return nil, err
	}
	return encodePEM("X509 CRL", der), nil
}
