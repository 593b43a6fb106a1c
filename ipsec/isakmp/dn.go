package isakmp

import (
	"crypto/x509/pkix"
	"encoding/asn1"
)

// maxDN bounds what is parsed of a distinguished name; a peer may fill a whole message with one.
const maxDN = 2 << 10

// DistinguishedName shows a DER distinguished name as "CN=alice,O=Example" (RFC 2253), escaped and bounded like
// ID.String; false where it is none.
func DistinguishedName(der []byte) (string, bool) {
	if len(der) > maxDN {
		return "", false
	}
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 || len(name) == 0 {
		return "", false
	}
	return escaped([]byte(name.String())), true
}
