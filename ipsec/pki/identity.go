package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"crypto/x509/pkix"

	"culvert/ipsec/isakmp"
)

// Own is our certificate with its key, and what stands between it and a root.
type Own struct {
	Chain [][]byte // DER, ours first
	Key   crypto.Signer
	leaf  *x509.Certificate
}

// LoadOwn reads a certificate, with the intermediate ones behind it if there are any, and its private key. more may hold
// intermediate certificates too. A *KeyError is about the key.
func LoadOwn(certificate, key string, more []*x509.Certificate) (*Own, error) {
	b, err := readFile(certificate)
	if err != nil {
		return nil, err
	}
	certs, err := ParseCertificates(b)
	if err != nil {
		return nil, fmt.Errorf("%s %w", certificate, err)
	}
	if b, err = readFile(key); err != nil {
		return nil, &KeyError{err}
	}
	signer, err := ParseKey(b)
	if err != nil {
		return nil, &KeyError{fmt.Errorf("%s: %w", key, err)}
	}
	for _, c := range certs {
		if samePublic(c.PublicKey, signer.Public()) {
			own := &Own{Key: signer, leaf: c}
			own.Chain = chainOf(c, append(certs, more...))
			return own, nil
		}
	}
	return nil, &KeyError{fmt.Errorf("%s: the key does not belong to the certificate %s: name the one that was made with it", key, certificate)}
}

// KeyError says that the private key is at fault, and not the certificate.
type KeyError struct{ Err error }

func (e *KeyError) Error() string { return e.Err.Error() }
func (e *KeyError) Unwrap() error { return e.Err }

// Leaf is our certificate.
func (o *Own) Leaf() *x509.Certificate { return o.leaf }

// Subject names our certificate for people.
func (o *Own) Subject() string { return subjectOf(o.leaf) }

// Check says what is wrong with our own certificate at a time: what peers would refuse it for.
func (o *Own) Check(now time.Time) error {
	if r := checkDates(o.leaf, now); r != nil {
		return r
	}
	return nil
}

// ID is how we show ourselves: by the subject, which every implementation takes with a certificate, or by an alternative
// name where there is no subject.
func (o *Own) ID() (isakmp.ID, error) {
	c := o.leaf
	var empty pkix.RDNSequence
	if rest, err := asn1.Unmarshal(c.RawSubject, &empty); err == nil && len(rest) == 0 && len(empty) > 0 {
		return isakmp.ID{Type: isakmp.IDDERASN1DN, Data: c.RawSubject}, nil
	}
	switch {
	case len(c.DNSNames) > 0:
		return isakmp.ID{Type: isakmp.IDFQDN, Data: []byte(c.DNSNames[0])}, nil
	case len(c.EmailAddresses) > 0:
		return isakmp.ID{Type: isakmp.IDUserFQDN, Data: []byte(c.EmailAddresses[0])}, nil
	}
	return isakmp.ID{}, errors.New("it has neither a subject nor an alternative name")
}

// chainOf follows the issuers of a certificate through a heap of others, up to the root, which everyone has who trusts it.
func chainOf(leaf *x509.Certificate, heap []*x509.Certificate) (chain [][]byte) {
	for c := leaf; c != nil && len(chain) < maxOffered; {
		chain = append(chain, c.Raw)
		var issuer *x509.Certificate
		for _, x := range heap {
			if x != c && !selfIssued(x) && string(x.RawSubject) == string(c.RawIssuer) && c.CheckSignatureFrom(x) == nil {
				issuer = x
				break
			}
		}
		c = issuer
	}
	return chain
}

// matchIdentity holds the identification payload that a peer shows against its certificate (RFC 4945 section 3.1).
func matchIdentity(c *x509.Certificate, id isakmp.ID) *Refusal {
	ok := false
	switch id.Type {
	case isakmp.IDDERASN1DN:
		ok = sameName(c.RawSubject, id.Data)
	case isakmp.IDFQDN:
		ok = hasDNSName(c, string(id.Data))
	case isakmp.IDUserFQDN:
		ok = hasEmail(c, string(id.Data))
	case isakmp.IDIPv4, isakmp.IDIPv6:
		if a, single := id.Addr(); single {
			ok = hasAddress(c, net.IP(a.AsSlice()))
		}
	}
	if ok {
		return nil
	}
	shown := isakmp.ID{Type: id.Type, Data: id.Data}
	return refuse(WrongPerson, c, "let the peer show one of these names, or its subject, as its identity, or make it a certificate with this one",
		"the peer shows itself as %s (%s), which is not in it; it has %s", shown, id.Type, describeNames(c))
}

// describeNames lists what a certificate stands for.
func describeNames(c *x509.Certificate) string {
	names := altNames(c)
	if len(names) == 0 {
		return "no alternative name"
	}
	return escape(strings.Join(names, ", "))
}

// hasDNSName compares as DNS does. The common name counts where there is no alternative name at all, as it did for
// everyone once. Wildcards stand for one label, and only for a name that we look for.
func hasDNSName(c *x509.Certificate, name string) bool {
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return false
	}
	for _, n := range c.DNSNames {
		if strings.EqualFold(strings.TrimSuffix(n, "."), name) {
			return true
		}
	}
	return len(altNames(c)) == 0 && strings.EqualFold(c.Subject.CommonName, name)
}

// hasEmail compares the domain as DNS does and the rest exactly; most certificates have the address in their subject.
func hasEmail(c *x509.Certificate, name string) bool {
	same := func(a string) bool {
		i, j := strings.LastIndexByte(a, '@'), strings.LastIndexByte(name, '@')
		return i > 0 && j > 0 && a[:i] == name[:j] && strings.EqualFold(a[i:], name[j:])
	}
	for _, a := range c.EmailAddresses {
		if same(a) {
			return true
		}
	}
	for _, rdn := range c.Subject.Names {
		if a, ok := rdn.Value.(string); ok && rdn.Type.Equal(oidEmail) && same(a) {
			return true
		}
	}
	return len(altNames(c)) == 0 && c.Subject.CommonName == name
}

func hasAddress(c *x509.Certificate, ip net.IP) bool {
	for _, a := range c.IPAddresses {
		if a.Equal(ip) {
			return true
		}
	}
	return len(altNames(c)) == 0 && c.Subject.CommonName == ip.String()
}

var oidEmail = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}

// sameName compares distinguished names: octet for octet, or value for value where the two sides have encoded the same
// text as different types of string.
func sameName(a, b []byte) bool {
	if string(a) == string(b) {
		return true
	}
	const most = 2 << 10
	var x, y pkix.RDNSequence
	if len(a) > most || len(b) > most {
		return false
	}
	if rest, err := asn1.Unmarshal(a, &x); err != nil || len(rest) > 0 {
		return false
	}
	if rest, err := asn1.Unmarshal(b, &y); err != nil || len(rest) > 0 || len(x) != len(y) {
		return false
	}
	for i := range x {
		if len(x[i]) != len(y[i]) {
			return false
		}
		for j := range x[i] {
			v, isText := x[i][j].Value.(string)
			w, isToo := y[i][j].Value.(string)
			if !x[i][j].Type.Equal(y[i][j].Type) || !isText || !isToo || v != w {
				return false
			}
		}
	}
	return len(x) > 0
}

// stands says whether a certificate is good for a name or an address that was called (RFC 4945 section 5.1.3.6). A
// wildcard stands for one label on the left (RFC 6125 section 6.4.3).
func stands(c *x509.Certificate, name string) bool {
	if ip := net.ParseIP(name); ip != nil {
		return hasAddress(c, ip)
	}
	if hasDNSName(c, name) {
		return true
	}
	if _, parent, ok := strings.Cut(strings.TrimSuffix(name, "."), "."); ok && strings.Contains(parent, ".") {
		for _, n := range c.DNSNames {
			if rest, wild := strings.CutPrefix(n, "*."); wild && strings.EqualFold(rest, parent) {
				return true
			}
		}
	}
	return strings.Contains(name, "@") && hasEmail(c, name)
}
