package aaa

import (
	"crypto/md5"
	"crypto/subtle"
)

// CHAPResponse is the Value of a CHAP Response with MD5: MD5(identifier, secret, challenge), 16 octets (RFC 1994 section 4.1).
func CHAPResponse(id uint8, secret string, challenge []byte) []byte {
	h := md5.New()
	h.Write([]byte{id})
	h.Write([]byte(secret))
	h.Write(challenge)
	return h.Sum(nil)
}

// VerifyCHAP reports whether response answers our challenge.
func VerifyCHAP(id uint8, secret string, challenge, response []byte) bool {
	return subtle.ConstantTimeCompare(CHAPResponse(id, secret, challenge), response) == 1
}
