package aaa

import (
	"crypto/des"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	"golang.org/x/crypto/md4"
)

// Sizes of the fields of MS-CHAP (RFC 2433 sections 5 and 6, RFC 2759 sections 3 and 4).
const (
	MSCHAP1ChallengeLen = 8
	MSCHAP2ChallengeLen = 16
	MSCHAPResponseLen   = 49 // both versions: 24 + 24 + 1, and 16 + 8 + 24 + 1

	ntResponseLen = 24
)

// ErrMSCHAPLength is a challenge or response of a length that its version of MS-CHAP does not have.
var ErrMSCHAPLength = errors.New("MS-CHAP field of a wrong length")

// NTPasswordHash is MD4 of the password in UTF-16LE (RFC 2433 A.4, RFC 2759 section 8.3).
func NTPasswordHash(password string) [16]byte {
	units := utf16.Encode([]rune(password))
	b := make([]byte, 0, 2*len(units))
	for _, u := range units {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return md4Sum(b)
}

func md4Sum(b []byte) (sum [16]byte) {
	h := md4.New()
	h.Write(b)
	h.Sum(sum[:0])
	return sum
}

// challengeResponse encrypts the challenge under three DES keys cut from the zero-padded hash (RFC 2759 section 8.5).
func challengeResponse(challenge [8]byte, hash [16]byte) (out [ntResponseLen]byte) {
	var keys [21]byte
	copy(keys[:], hash[:])
	for i := range 3 {
		key := desKey([7]byte(keys[7*i : 7*i+7]))
		block, err := des.NewCipher(key[:])
		if err != nil {
			panic(err) // the length is right by type
		}
		block.Encrypt(out[8*i:], challenge[:])
	}
	return out
}

// desKey spreads 56 bits over eight octets, the low bit of each being the parity that DES ignores.
func desKey(k [7]byte) (out [8]byte) {
	var v uint64
	for _, b := range k {
		v = v<<8 | uint64(b)
	}
	for i := range out {
		out[i] = byte(v>>(49-7*i)) << 1
	}
	return out
}

// MSCHAP1Response is the 49-octet Value that answers an 8-octet challenge. The LAN Manager field stays zero and the
// flag says so (RFC 2433 section 6).
func MSCHAP1Response(challenge []byte, password string) ([]byte, error) {
	if len(challenge) != MSCHAP1ChallengeLen {
		return nil, ErrMSCHAPLength
	}
	nt := challengeResponse([8]byte(challenge), NTPasswordHash(password))
	out := make([]byte, ntResponseLen, MSCHAPResponseLen)
	out = append(out, nt[:]...)
	return append(out, 1), nil
}

// VerifyMSCHAP1 checks a peer's 49-octet Value. Only the NT field is looked at: a response that carries nothing but
// the LAN Manager field is refused, for it can be turned back into the password.
func VerifyMSCHAP1(challenge, response []byte, password string) (bool, error) {
	if len(challenge) != MSCHAP1ChallengeLen || len(response) != MSCHAPResponseLen {
		return false, ErrMSCHAPLength
	}
	want := challengeResponse([8]byte(challenge), NTPasswordHash(password))
	return subtle.ConstantTimeCompare(want[:], response[24:48])&subtle.ConstantTimeByteEq(response[48], 1) == 1, nil
}

// withoutDomain cuts "DOMAIN\" off: Windows sends it, and leaves it out of the hash (RFC 2759 section 4).
func withoutDomain(user string) string {
	return user[strings.LastIndexByte(user, '\\')+1:]
}

// challengeHash is RFC 2759 section 8.2.
func challengeHash(peer, authenticator []byte, user string) [8]byte {
	h := sha1.New()
	h.Write(peer)
	h.Write(authenticator)
	h.Write([]byte(withoutDomain(user)))
	return [8]byte(h.Sum(nil))
}

// MSCHAP2Response is the 49-octet Value that answers the authenticator's 16-octet challenge with a 16-octet challenge
// of our own, which must be random (RFC 2759 sections 4 and 8.1). A domain in front of the user does not enter the hash.
func MSCHAP2Response(authenticator, peer []byte, user, password string) ([]byte, error) {
	if len(authenticator) != MSCHAP2ChallengeLen || len(peer) != MSCHAP2ChallengeLen {
		return nil, ErrMSCHAPLength
	}
	nt := challengeResponse(challengeHash(peer, authenticator, user), NTPasswordHash(password))
	out := make([]byte, 0, MSCHAPResponseLen)
	out = append(out, peer...)
	out = append(out, make([]byte, 8)...)
	out = append(out, nt[:]...)
	return append(out, 0), nil
}

// VerifyMSCHAP2 checks a peer's 49-octet Value against our 16-octet challenge. The reserved octets and the flags are
// not looked at: they are zero on paper only.
func VerifyMSCHAP2(authenticator, response []byte, user, password string) (bool, error) {
	if len(authenticator) != MSCHAP2ChallengeLen || len(response) != MSCHAPResponseLen {
		return false, ErrMSCHAPLength
	}
	want := challengeResponse(challengeHash(response[:16], authenticator, user), NTPasswordHash(password))
	return subtle.ConstantTimeCompare(want[:], response[24:48]) == 1, nil
}

// The two strings of RFC 2759 section 8.7.
const (
	authenticatorMagic1 = "Magic server to client signing constant"
	authenticatorMagic2 = "Pad to make it do more than one iteration"
)

// MSCHAP2AuthenticatorResponse is the "S=<40 hex digits>" with which the authenticator proves to the sender of response
// that it knows the password too (RFC 2759 section 8.7). It returns ErrMSCHAPLength like the others.
func MSCHAP2AuthenticatorResponse(authenticator, response []byte, user, password string) (string, error) {
	if len(authenticator) != MSCHAP2ChallengeLen || len(response) != MSCHAPResponseLen {
		return "", ErrMSCHAPLength
	}
	hash := NTPasswordHash(password)
	hashHash := md4Sum(hash[:])
	h := sha1.New()
	h.Write(hashHash[:])
	h.Write(response[24:48])
	h.Write([]byte(authenticatorMagic1))
	digest := h.Sum(nil)
	challenge := challengeHash(response[:16], authenticator, user)
	h.Reset()
	h.Write(digest)
	h.Write(challenge[:])
	h.Write([]byte(authenticatorMagic2))
	return fmt.Sprintf("S=%X", h.Sum(nil)), nil
}

// VerifyMSCHAP2Success is the client's half of that: message is the Success packet's, such as "S=... M=welcome".
// A server that fails it does not know the password and must not be talked to.
func VerifyMSCHAP2Success(message string, authenticator, response []byte, user, password string) bool {
	want, err := MSCHAP2AuthenticatorResponse(authenticator, response, user, password)
	if err != nil || len(message) < len(want) || message[:2] != "S=" {
		return false
	}
	var got [sha1.Size]byte
	if _, err := hex.Decode(got[:], []byte(message[2:len(want)])); err != nil {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(fmt.Sprintf("S=%X", got)), []byte(want)) == 1
}
