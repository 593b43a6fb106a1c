package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"culvert/ipsec/isakmp"
)

// maxOffered bounds the certificates that a peer may send, and so the work that it can cause.
const maxOffered = 8

// Trust says which certificates of peers are good. It is plain data: two that were read from the same files are deeply
// equal. Its methods may be called from several goroutines.
type Trust struct {
	authorities [][]byte // certificates, DER
	names       [][]byte // their subjects
	crls        []*crl
	server      bool   // peers are servers that we call
	name        string // what the peer's certificate must stand for; empty for anything
	least       int    // bits of an RSA key
}

// Terms is what else is demanded of a peer's certificate.
type Terms struct {
	Server bool   // it must be good for a server, for any client of the same authority could pose as one otherwise
	Name   string // a host name or an address that it must stand for; empty for none
	MinRSA int    // bits that an RSA key must have; 0 for MinRSA
}

// LoadTrust reads authorities and revocation lists. warnings are about what is used all the same.
func LoadTrust(ca, revoked []string, terms Terms) (t *Trust, warnings []FileError, errs []FileError) {
	t = &Trust{server: terms.Server, name: terms.Name, least: terms.MinRSA}
	var certs []*x509.Certificate
	for i, path := range ca {
		b, err := readFile(path)
		if err == nil {
			var more []*x509.Certificate
			if more, err = ParseCertificates(b); err != nil {
				err = fmt.Errorf("%s %w", path, err)
			}
			for _, c := range more {
				if !c.IsCA && c.BasicConstraintsValid {
					warnings = append(warnings, FileError{i, fmt.Errorf("%s: the certificate of %s is no authority's: only itself will be accepted", path, subjectOf(c))})
				}
				if err := CheckKey(c.PublicKey, t.least); err != nil {
					warnings = append(warnings, FileError{i, fmt.Errorf("%s: %s will not be accepted: %w", path, subjectOf(c), err)})
				}
			}
			certs = append(certs, more...)
		}
		if err != nil {
			errs = append(errs, FileError{i, err})
		}
	}
	if len(certs) > maxCerts {
		errs = append(errs, FileError{len(ca) - 1, fmt.Errorf("more than %d authorities", maxCerts)})
		return nil, warnings, errs
	}
	for _, c := range certs {
		t.authorities = append(t.authorities, c.Raw)
		if !slices.ContainsFunc(t.names, func(n []byte) bool { return bytes.Equal(n, c.RawSubject) }) {
			t.names = append(t.names, c.RawSubject)
		}
	}
	for i, path := range revoked {
		b, err := readFile(path)
		if err == nil {
			var lists []*crl
			if lists, err = parseCRLs(b, certs); err != nil {
				err = fmt.Errorf("%s %w", path, err)
			}
			t.crls = append(t.crls, lists...)
		}
		if err != nil {
			errs = append(errs, FileError{len(ca) + i, err})
		}
	}
	return t, warnings, errs
}

// FileError is a problem with one of the files of LoadTrust: Index counts the authorities' first, then the lists'.
type FileError struct {
	Index int
	Err   error
}

func (e FileError) Error() string { return e.Err.Error() }

// Authorities are the DER names of the authorities, for certificate requests (RFC 2408 section 3.10).
func (t *Trust) Authorities() [][]byte { return t.names }

// Intermediates are the authorities that others vouch for.
func (t *Trust) Intermediates() (out []*x509.Certificate) {
	for _, der := range t.authorities {
		if c, err := x509.ParseCertificate(der); err == nil && !selfIssued(c) {
			out = append(out, c)
		}
	}
	return out
}

// Outdated names the revocation lists whose successors are overdue at a time.
func (t *Trust) Outdated(now time.Time) (out []string) {
	for _, l := range t.crls {
		if ClockIsSet(now) && !l.next.IsZero() && now.After(l.next) {
			out = append(out, fmt.Sprintf("the revocation list of %s should have been renewed by %s: what it revokes stays revoked, but newer revocations are missing", l.issuer, date(l.next)))
		}
	}
	return out
}

// Verify judges what a peer has sent: certificates, its own first as a rule, and the identity it shows. It returns the
// public key of its own, and the chain that was followed, for Verify to be asked again when the lists have changed. The
// error is a *Refusal.
func (t *Trust) Verify(now time.Time, offered []isakmp.Cert, id isakmp.ID) (key crypto.PublicKey, chain [][]byte, err error) {
	certs, refusal := parseOffered(offered)
	if refusal != nil {
		return nil, nil, refusal
	}
	leaf, refusal := ownOf(certs, id)
	if refusal != nil {
		return nil, nil, refusal
	}
	if err := CheckKey(leaf.PublicKey, t.least); err != nil {
		return nil, nil, refuse(WeakKey, leaf, "make it one with a longer key or with ECDSA, or lower minimum-rsa-bits", "%s", err)
	}
	found, refusal := t.follow(now, leaf, certs)
	if refusal != nil {
		return nil, nil, refusal
	}
	if refusal := t.checkUsage(leaf); refusal != nil {
		return nil, nil, refusal
	}
	if t.name != "" && !stands(leaf, t.name) {
		return nil, nil, refuse(WrongName, leaf, "call it by one of its names, or make it a certificate with this one",
			"it does not stand for %q; it has %s", escape(t.name), describeNames(leaf))
	}
	for _, c := range found {
		chain = append(chain, c.Raw)
	}
	return leaf.PublicKey, chain, nil
}

// parseOffered reads what a peer has sent. What cannot be read is no part of a chain.
func parseOffered(offered []isakmp.Cert) (certs []*x509.Certificate, refusal *Refusal) {
	var ders [][]byte
	var first error
	for _, o := range offered {
		switch o.Encoding {
		case isakmp.CertX509Signature, isakmp.CertX509KeyExchange:
			ders = append(ders, o.Data)
		case isakmp.CertPKCS7:
			more, err := UnwrapPKCS7(o.Data, maxOffered)
			if err != nil && first == nil {
				first = err
			}
			ders = append(ders, more...)
		}
	}
	if len(ders) > maxOffered {
		return nil, refuse(Malformed, nil, "let the peer send its own and those between it and the root, no more", "the peer has sent %d, at most %d are read", len(ders), maxOffered)
	}
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		certs = append(certs, c)
	}
	switch {
	case len(certs) > 0:
	case first != nil:
		return nil, refuse(Malformed, nil, "make a new one", "it cannot be read (%s)", escape(first.Error()))
	default:
		return nil, refuse(Malformed, nil, "choose a certificate in the peer's settings", "the peer has sent none")
	}
	return certs, nil
}

// ownOf finds the peer's own certificate among what it has sent: the first that is no authority's and carries its
// identity. Which one it is counts only together with the signature, which is made with its key.
func ownOf(certs []*x509.Certificate, id isakmp.ID) (*x509.Certificate, *Refusal) {
	var refusal *Refusal
	for _, c := range certs {
		if c.IsCA && len(certs) > 1 {
			continue
		}
		r := matchIdentity(c, id)
		if r == nil {
			return c, nil
		}
		if refusal == nil {
			refusal = r
		}
	}
	if refusal == nil {
		refusal = matchIdentity(certs[0], id)
	}
	if refusal == nil {
		return certs[0], nil
	}
	return nil, refusal
}

// follow finds a chain from the peer's certificate to one of the authorities, in which everything is in date and nothing
// revoked.
func (t *Trust) follow(now time.Time, leaf *x509.Certificate, certs []*x509.Certificate) ([]*x509.Certificate, *Refusal) {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	var authorities []*x509.Certificate
	for _, der := range t.authorities {
		if c, err := x509.ParseCertificate(der); err == nil && CheckKey(c.PublicKey, t.least) == nil {
			roots.AddCert(c)
			authorities = append(authorities, c)
		}
	}
	for _, c := range certs {
		if c != leaf && CheckKey(c.PublicKey, t.least) == nil {
			between.AddCert(c)
		}
	}
	// Dates are looked at here, for the message that they deserve.
	if r := checkDates(leaf, now); r != nil {
		// A stranger's dates are of no interest.
		if _, err := leaf.Verify(options(roots, between, leaf.NotAfter)); isUnknown(err) {
			return nil, t.untrusted(leaf, authorities)
		}
		return nil, r
	}
	chains, err := leaf.Verify(options(roots, between, now))
	if err != nil {
		return nil, t.explain(leaf, authorities, now, err)
	}
	var refusal *Refusal
	for _, chain := range chains {
		r := t.revoked(chain)
		if r == nil {
			return chain, nil
		}
		if refusal == nil {
			refusal = r
		}
	}
	return nil, refusal
}

func options(roots, between *x509.CertPool, at time.Time) x509.VerifyOptions {
	return x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
}

func isUnknown(err error) bool {
	var unknown x509.UnknownAuthorityError
	return errors.As(err, &unknown)
}

func (t *Trust) untrusted(leaf *x509.Certificate, authorities []*x509.Certificate) *Refusal {
	var names []string
	for _, c := range authorities {
		names = append(names, subjectOf(c))
	}
	for _, c := range authorities {
		if bytes.Equal(c.RawSubject, leaf.RawIssuer) {
			return refuse(Untrusted, leaf, "give the peer a certificate of the authority that is in use, or add the other one to ca",
				"its issuer has the name of %s, but not its key", subjectOf(c))
		}
	}
	return refuse(Untrusted, leaf, "add that authority to ca, or let the peer send the certificates in between",
		"it was issued by %s, which leads to none of ca (%s)", nameOf(leaf.Issuer), escape(fmt.Sprint(names)))
}

// explain puts what the library found into words.
func (t *Trust) explain(leaf *x509.Certificate, authorities []*x509.Certificate, now time.Time, err error) *Refusal {
	var invalid x509.CertificateInvalidError
	var insecure x509.InsecureAlgorithmError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		if r := checkDates(invalid.Cert, now); r != nil {
			return r
		}
	case errors.As(err, &insecure):
		return refuse(Untrusted, leaf, "have it issued again with SHA-256", "it, or one above it, is signed with %s, which can be forged", x509.SignatureAlgorithm(insecure))
	case isUnknown(err):
		var unknown x509.UnknownAuthorityError
		if errors.As(err, &unknown) {
			// The library looks no further than names; the reason why the named one did not do is in its text only.
			for _, c := range authorities {
				if e := leaf.CheckSignatureFrom(c); errors.As(e, &insecure) {
					return refuse(Untrusted, leaf, "have it issued again with SHA-256", "it is signed with %s, which can be forged", x509.SignatureAlgorithm(insecure))
				}
			}
		}
		return t.untrusted(leaf, authorities)
	}
	return refuse(Untrusted, leaf, "have it issued again without that", "%s", escape(err.Error()))
}

// Extended key usages that stand in certificates for IKE (RFC 4945 section 5.1.3.12, and what came before it).
var (
	oidIKE             = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 17}
	oidIKEIntermediate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 2, 2}
)

// checkUsage asks of a key that it may sign, and of a server's that it is meant for one. Client certificates come with
// every usage that has to do with the network.
func (t *Trust) checkUsage(c *x509.Certificate) *Refusal {
	if c.KeyUsage != 0 && c.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
		return refuse(WrongUsage, c, "have it issued with digitalSignature", "its key usage does not let it sign")
	}
	if len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageIPSECEndSystem, x509.ExtKeyUsageIPSECTunnel:
			return nil
		case x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageIPSECUser:
			if !t.server {
				return nil
			}
		}
	}
	for _, u := range c.UnknownExtKeyUsage {
		if u.Equal(oidIKE) || !t.server && u.Equal(oidIKEIntermediate) {
			return nil
		}
		// Our own client certificates have this one as well, beside clientAuth: it does not make a server.
		if u.Equal(oidIKEIntermediate) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
			return nil
		}
	}
	if t.server {
		return refuse(WrongUsage, c, "have it issued with serverAuth", "it is a client's, and the peer is a server")
	}
	return refuse(WrongUsage, c, "have it issued with clientAuth", "its extended key usage is for something else")
}
