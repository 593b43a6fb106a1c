package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// crl is a revocation list (RFC 5280 section 5), boiled down to what is asked of it.
type crl struct {
	rawIssuer []byte
	issuer    string
	serials   map[string]time.Time // when each was revoked
	next      time.Time            // when there should be a newer one; zero where it does not say
	// pending is the list itself where its issuer is not among the authorities: its signature can be checked only when
	// a peer sends the issuer's certificate.
	pending *x509.RevocationList
}

// parseCRLs reads revocation lists from PEM, or one from DER, and checks the signatures of those whose issuers are known.
func parseCRLs(b []byte, known []*x509.Certificate) (out []*crl, err error) {
	for _, p := range blocks(b) {
		if p.Type != "" && p.Type != "X509 CRL" {
			continue
		}
		l, err := x509.ParseRevocationList(p.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds no revocation list that can be read: %w", err)
		}
		c := &crl{rawIssuer: l.RawIssuer, issuer: nameOf(l.Issuer), serials: make(map[string]time.Time, len(l.RevokedCertificateEntries)), next: l.NextUpdate}
		for _, e := range l.RevokedCertificateEntries {
			c.serials[string(e.SerialNumber.Bytes())] = e.RevocationTime
		}
		named := false
		signed := false
		for _, a := range known {
			if bytes.Equal(a.RawSubject, l.RawIssuer) {
				named = true
				signed = signed || l.CheckSignatureFrom(a) == nil
			}
		}
		if named && !signed {
			return nil, fmt.Errorf("is not signed by %s of ca: fetch it again, or correct ca", c.issuer)
		}
		if !signed {
			l.RevokedCertificateEntries = nil
			c.pending = l
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, errors.New("holds no revocation list")
	}
	return out, nil
}

// revoked looks every certificate of a chain up that has an issuer.
func (t *Trust) revoked(chain []*x509.Certificate) *Refusal {
	for i, c := range chain[:max(len(chain)-1, 0)] {
		for _, l := range t.crls {
			if !bytes.Equal(l.rawIssuer, c.RawIssuer) {
				continue
			}
			at, named := l.serials[string(c.SerialNumber.Bytes())]
			if !named || l.pending != nil && l.pending.CheckSignatureFrom(chain[i+1]) != nil {
				continue
			}
			return refuse(Revoked, c, "make its owner a new one", "it was revoked on %s", date(at))
		}
	}
	return nil
}

// encodePEM writes blocks of one type.
func encodePEM(typ string, ders ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range ders {
		pem.Encode(&b, &pem.Block{Type: typ, Bytes: der})
	}
	return b.Bytes()
}
