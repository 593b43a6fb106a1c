package aaa

import (
	"bytes"
	"crypto/rc4"
	"crypto/sha1"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 2759 section 9.2.
const (
	v2User      = "User"
	v2Password  = "clientPass"
	v2Auth      = "5B5D7C7D7B3F2F3E3C2C602132262628"
	v2Peer      = "21402324255E262A28295F2B3A337C7E"
	v2Challenge = "D02E4386BCE91226"
	v2Hash      = "44EBBA8D5312B8D611474411F56989AE"
	v2HashHash  = "41C00C584BD2D91C4017A2A12FA59F3F"
	v2NT        = "82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF"
	v2Success   = "S=407A5589115FD0D6209F510FE9C04566932CDA56"
)

func TestMSCHAP2Vectors(t *testing.T) {
	auth, peer := unhex(t, v2Auth), unhex(t, v2Peer)
	hash := NTPasswordHash(v2Password)
	if !bytes.Equal(hash[:], unhex(t, v2Hash)) {
		t.Errorf("password hash %X", hash)
	}
	if hh := md4Sum(hash[:]); !bytes.Equal(hh[:], unhex(t, v2HashHash)) {
		t.Errorf("password hash hash %X", hh)
	}
	for _, user := range []string{v2User, `BIGCO\User`} {
		if c := challengeHash(peer, auth, user); !bytes.Equal(c[:], unhex(t, v2Challenge)) {
			t.Errorf("%s: challenge hash %X", user, c)
		}
		response, err := MSCHAP2Response(auth, peer, user, v2Password)
		if err != nil || !bytes.Equal(response[24:48], unhex(t, v2NT)) || len(response) != 49 {
			t.Fatalf("%s: response %X, %v", user, response, err)
		}
		if ok, err := VerifyMSCHAP2(auth, response, user, v2Password); !ok || err != nil {
			t.Errorf("%s: own response refused: %v", user, err)
		}
		if ok, _ := VerifyMSCHAP2(auth, response, user, "clientpass"); ok {
			t.Error("wrong password accepted")
		}
		s, err := MSCHAP2AuthenticatorResponse(auth, response, user, v2Password)
		if s != v2Success || err != nil {
			t.Errorf("authenticator response %s, %v", s, err)
		}
		for message, want := range map[string]bool{
			v2Success:                             true,
			v2Success + " M=Welcome":              true,
			strings.ToLower(v2Success):            false,
			"S=" + strings.ToLower(v2Success[2:]): true,
			v2Success[:41]:                        false,
			"":                                    false,
			"S=":                                  false,
			"S=" + strings.Repeat("0", 40):        false,
			"S=" + strings.Repeat("z", 40):        false,
			"E=691 R=0":                           false,
		} {
			if got := VerifyMSCHAP2Success(message, auth, response, user, v2Password); got != want {
				t.Errorf("success %q: %v", message, got)
			}
		}
	}
}

// The parity of the DES keys, RFC 2759 section 9.2's expanded keys without it.
func TestDESKey(t *testing.T) {
	key := desKey([7]byte(unhex(t, "FC156AF7EDCD6C")))
	want := unhex(t, "FD0B5B5E7F6E34D9") // RFC 2433 B.2, odd parity
	for i := range key {
		if key[i] != want[i]&0xfe {
			t.Fatalf("key %X, want %X apart from parity", key, want)
		}
	}
}

// RFC 2433 appendix B.2.
func TestMSCHAP1Vectors(t *testing.T) {
	challenge := unhex(t, "102DB5DF085D3041")
	if h := NTPasswordHash("MyPw"); !bytes.Equal(h[:], unhex(t, "FC156AF7EDCD6C0EDDE3337D427F4EAC")) {
		t.Errorf("hash %X", h)
	}
	response, err := MSCHAP1Response(challenge, "MyPw")
	if err != nil || !bytes.Equal(response[24:48], unhex(t, "4E9D3C8F9CFD385D5BF4D3246791956CA4C351AB409A3D61")) {
		t.Fatalf("response %X, %v", response, err)
	}
	if ok, err := VerifyMSCHAP1(challenge, response, "MyPw"); !ok || err != nil {
		t.Error("own response refused")
	}
	if ok, _ := VerifyMSCHAP1(challenge, response, "mypw"); ok {
		t.Error("wrong password accepted")
	}
	lm := append([]byte(nil), response...)
	copy(lm, response[24:48]) // the right answer in the wrong field
	clear(lm[24:48])
	lm[48] = 0
	if ok, _ := VerifyMSCHAP1(challenge, lm, "MyPw"); ok {
		t.Error("LAN Manager field accepted")
	}
	lm = append([]byte(nil), response...)
	lm[48] = 0
	if ok, _ := VerifyMSCHAP1(challenge, lm, "MyPw"); ok {
		t.Error("response that asks for the LAN Manager field accepted")
	}
}

func TestMSCHAPLengths(t *testing.T) {
	for n := range 64 {
		b := make([]byte, n)
		if _, err := VerifyMSCHAP1(make([]byte, 8), b, ""); (err == nil) != (n == 49) {
			t.Errorf("v1 response of %d octets: %v", n, err)
		}
		if _, err := VerifyMSCHAP1(b, make([]byte, 49), ""); (err == nil) != (n == 8) {
			t.Errorf("v1 challenge of %d octets: %v", n, err)
		}
		if _, err := MSCHAP1Response(b, ""); (err == nil) != (n == 8) {
			t.Errorf("v1 challenge of %d octets: %v", n, err)
		}
		if _, err := MPPEKeys1(b, ""); (err == nil) != (n == 8) {
			t.Errorf("v1 challenge of %d octets: %v", n, err)
		}
		if _, err := VerifyMSCHAP2(make([]byte, 16), b, "", ""); (err == nil) != (n == 49) {
			t.Errorf("v2 response of %d octets: %v", n, err)
		}
		if _, err := VerifyMSCHAP2(b, make([]byte, 49), "", ""); (err == nil) != (n == 16) {
			t.Errorf("v2 challenge of %d octets: %v", n, err)
		}
		if _, err := MSCHAP2Response(make([]byte, 16), b, "", ""); (err == nil) != (n == 16) {
			t.Errorf("v2 peer challenge of %d octets: %v", n, err)
		}
		if _, err := MSCHAP2AuthenticatorResponse(make([]byte, 16), b, "", ""); (err == nil) != (n == 49) {
			t.Errorf("v2 response of %d octets: %v", n, err)
		}
		if _, _, err := MPPEKeys2(b, ""); (err == nil) != (n == 49) {
			t.Errorf("v2 response of %d octets: %v", n, err)
		}
	}
}

// newMPPEKey is GetNewKeyFromSHA of RFC 3079 section 3.4, for 128 bits: the first session key out of a start key.
func newMPPEKey(start []byte) []byte {
	pad2 := bytes.Repeat([]byte{0xf2}, 40)
	h := sha1.New()
	h.Write(start)
	h.Write(make([]byte, 40))
	h.Write(start)
	h.Write(pad2)
	return h.Sum(nil)[:16]
}

// RFC 3079 sections 2.5.3 and 3.5.3.
func TestMPPEVectors(t *testing.T) {
	start, err := MPPEKeys1(unhex(t, "102DB5DF085D3041"), v2Password)
	if err != nil || !bytes.Equal(start, unhex(t, "A8947850CFC0ACC1D1789FB62DDCDDB0")) {
		t.Errorf("v1 start key %X, %v", start, err)
	}
	if k := newMPPEKey(start); !bytes.Equal(k, unhex(t, "59D159BC09F76F1DA2A86A28FFEC0B1E")) {
		t.Errorf("v1 session key %X", k)
	}
	response := make([]byte, 49)
	copy(response[24:], unhex(t, v2NT))
	if m := mppeMasterKey(response[24:48], v2Password); !bytes.Equal(m[:], unhex(t, "FDECE3717A8C838CB388E527AE3CDD31")) {
		t.Errorf("master key %X", m)
	}
	send, recv, err := MPPEKeys2(response, v2Password)
	if err != nil || !bytes.Equal(send, unhex(t, "8B7CDC149B993A1BA118CB153F56DCCB")) {
		t.Errorf("send start key %X, %v", send, err)
	}
	if !bytes.Equal(recv, unhex(t, "D5F0E9521E3EA9589645E86051C82226")) {
		t.Errorf("receive start key %X", recv)
	}
	session := newMPPEKey(send)
	if !bytes.Equal(session, unhex(t, "405CB2247A7956E6E211007AE27B22D4")) {
		t.Errorf("send session key %X", session)
	}
	c, err := rc4.NewCipher(session)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("test message")
	c.XORKeyStream(text, text)
	if !bytes.Equal(text, unhex(t, "81848317DF68846272FB5ABE")) {
		t.Errorf("encrypted %X", text)
	}
}

// A character outside the basic plane becomes a surrogate pair, little-endian.
func TestNTPasswordHashUTF16(t *testing.T) {
	if got, want := NTPasswordHash("é😀"), md4Sum(unhex(t, "e9003dd800de")); got != want {
		t.Errorf("hash %x, want %x", got, want)
	}
}

func TestCHAP(t *testing.T) {
	challenge := unhex(t, "00112233445566778899aabbccddeeff")
	response := CHAPResponse(7, "secret", challenge)
	if !VerifyCHAP(7, "secret", challenge, response) {
		t.Error("own response refused")
	}
	if VerifyCHAP(8, "secret", challenge, response) || VerifyCHAP(7, "Secret", challenge, response) {
		t.Error("wrong response accepted")
	}
	for n := range response {
		if VerifyCHAP(7, "secret", challenge, response[:n]) {
			t.Errorf("response cut to %d octets accepted", n)
		}
	}
	if !verifyPAP([]byte("pw"), "pw") || verifyPAP([]byte("pw "), "pw") || verifyPAP(nil, "pw") {
		t.Error("pap")
	}
}
