package l2tp

import (
	"crypto/md5"
	"crypto/subtle"
)

// challengeLen is the size of the challenges we send; RFC 2661 section 5.1.1 asks for one octet or more.
const challengeLen = 16

// challengeResponse is CHAP's MD5 over one octet of identifier, the secret and the challenge. The identifier is the type
// of the message that carries the response (RFC 2661 section 4.4.3, Challenge Response).
func challengeResponse(carrier MessageType, secret Secret, challenge []byte) [md5.Size]byte {
	d := md5.New()
	d.Write([]byte{byte(carrier)})
	d.Write([]byte(secret))
	d.Write(challenge)
	var r [md5.Size]byte
	d.Sum(r[:0])
	return r
}

// responseValid compares in constant time.
func responseValid(carrier MessageType, secret Secret, challenge, response []byte) bool {
	want := challengeResponse(carrier, secret, challenge)
	return subtle.ConstantTimeCompare(want[:], response) == 1
}
