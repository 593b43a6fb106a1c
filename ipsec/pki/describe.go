package pki

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Describe prints a certificate for people, over several lines.
func Describe(c *x509.Certificate) string {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "\n  %-14s %s", key, fmt.Sprintf(format, args...))
	}
	b.WriteString(subjectOf(c))
	if names := altNames(c); len(names) > 0 {
		line("names", "%s", describeNames(c))
	}
	line("issuer", "%s", nameOf(c.Issuer))
	line("valid", "%s to %s", date(c.NotBefore), date(c.NotAfter))
	line("serial number", "%x", c.SerialNumber)
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		line("key", "RSA, %d bits", k.N.BitLen())
	case *ecdsa.PublicKey:
		line("key", "ECDSA, %s", k.Curve.Params().Name)
	default:
		line("key", "%v", c.PublicKeyAlgorithm)
	}
	line("signed with", "%v", c.SignatureAlgorithm)
	switch {
	case c.IsCA:
		line("is for", "issuing certificates")
	case len(usages(c)) > 0:
		line("is for", "%s", strings.Join(usages(c), ", "))
	}
	return b.String()
}

// usages names the extended key usages that have to do with IKE.
func usages(c *x509.Certificate) (out []string) {
	for _, u := range c.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageAny:
			out = append(out, "anything")
		case x509.ExtKeyUsageServerAuth:
			out = append(out, "server")
		case x509.ExtKeyUsageClientAuth:
			out = append(out, "client")
		case x509.ExtKeyUsageIPSECEndSystem, x509.ExtKeyUsageIPSECTunnel, x509.ExtKeyUsageIPSECUser:
			out = append(out, "IPsec")
		default:
			out = append(out, "other things")
		}
	}
	for _, u := range c.UnknownExtKeyUsage {
		switch {
		case u.Equal(oidIKE):
			out = append(out, "IKE")
		case u.Equal(oidIKEIntermediate):
			out = append(out, "IKE intermediate")
		default:
			out = append(out, u.String())
		}
	}
	return out
}

// CheckDates says why a certificate is not good at a time; nil where it is.
func CheckDates(c *x509.Certificate, now time.Time) error {
	if r := checkDates(c, now); r != nil {
		return errors.New(r.Reason)
	}
	return nil
}

// ParseCRL reads one revocation list, PEM or DER; its signature is not checked.
func ParseCRL(b []byte) (*x509.RevocationList, error) {
	for _, p := range blocks(b) {
		if p.Type == "" || p.Type == "X509 CRL" {
			return x509.ParseRevocationList(p.Bytes)
		}
	}
	return nil, errors.New("holds no revocation list")
}
