package pki

import (
	"encoding/asn1"
	"errors"
)

var (
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}

	errPKCS7 = errors.New("pki: not a PKCS #7 bundle of certificates")
)

// UnwrapPKCS7 takes the certificates out of a SignedData that signs nothing, the form in which Windows sends a chain
// (RFC 2315 section 9.1). At most max of them, in their order.
func UnwrapPKCS7(b []byte, max int) (certs [][]byte, err error) {
	var outer struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	if rest, err := asn1.Unmarshal(b, &outer); err != nil || len(rest) > 0 || !outer.Type.Equal(oidSignedData) {
		return nil, errPKCS7
	}
	var signed asn1.RawValue // SignedData: version, digest algorithms, content, [0] certificates, ...
	if rest, err := asn1.Unmarshal(outer.Content.Bytes, &signed); err != nil || len(rest) > 0 || signed.Tag != asn1.TagSequence || signed.Class != asn1.ClassUniversal {
		return nil, errPKCS7
	}
	rest := signed.Bytes
	for i := 0; len(rest) > 0; i++ {
		var field asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &field); err != nil {
			return nil, errPKCS7
		}
		if i < 3 || field.Class != asn1.ClassContextSpecific || field.Tag != 0 {
			continue
		}
		for inner := field.Bytes; len(inner) > 0; {
			var c asn1.RawValue
			if inner, err = asn1.Unmarshal(inner, &c); err != nil || c.Tag != asn1.TagSequence || c.Class != asn1.ClassUniversal || len(certs) == max {
				return nil, errPKCS7
			}
			certs = append(certs, c.FullBytes)
		}
		return certs, nil
	}
	return nil, nil
}
