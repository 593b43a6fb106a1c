package aaa

import (
	"crypto/sha256"
	"crypto/subtle"
)

// verifyPAP compares the password of an Authenticate-Request (RFC 1334 section 2.2.1) with ours. Both are hashed first,
// so that neither the place of the first difference nor our password's length shows in the time taken.
func verifyPAP(sent []byte, password string) bool {
	a, b := sha256.Sum256(sent), sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
