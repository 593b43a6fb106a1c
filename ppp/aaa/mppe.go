package aaa

import "crypto/sha1"

// The magic constants of RFC 3079 section 3.4.
const (
	mppeMagic1 = "This is the MPPE Master Key"
	mppeMagic2 = "On the client side, this is the send key; on the server side, it is the receive key."
	mppeMagic3 = "On the client side, this is the receive key; on the server side, it is the send key."
)

// MPPEKeys1 derives the 16-octet start key of MPPE after MS-CHAPv1 (RFC 3079 section 2.4), the same in both directions.
// Only the 128-bit kind is made: the shorter ones come from the LAN Manager hash.
func MPPEKeys1(challenge []byte, password string) ([]byte, error) {
	if len(challenge) != MSCHAP1ChallengeLen {
		return nil, ErrMSCHAPLength
	}
	hash := NTPasswordHash(password)
	hashHash := md4Sum(hash[:])
	h := sha1.New()
	h.Write(hashHash[:])
	h.Write(hashHash[:])
	h.Write(challenge)
	return h.Sum(nil)[:16], nil
}

// MPPEKeys2 derives the two 16-octet start keys of MPPE after MS-CHAPv2 (RFC 3079 section 3.4) from the 49-octet Value
// of the response, as the server sees them; a client swaps the two.
func MPPEKeys2(response []byte, password string) (send, recv []byte, err error) {
	if len(response) != MSCHAPResponseLen {
		return nil, nil, ErrMSCHAPLength
	}
	master := mppeMasterKey(response[24:48], password)
	return mppeStartKey(master, mppeMagic3), mppeStartKey(master, mppeMagic2), nil
}

// mppeMasterKey is GetMasterKey of RFC 3079 section 3.4.
func mppeMasterKey(ntResponse []byte, password string) [16]byte {
	hash := NTPasswordHash(password)
	hashHash := md4Sum(hash[:])
	h := sha1.New()
	h.Write(hashHash[:])
	h.Write(ntResponse)
	h.Write([]byte(mppeMagic1))
	return [16]byte(h.Sum(nil))
}

// mppeStartKey is GetAsymmetricStartKey of RFC 3079 section 3.4 for 128 bits.
func mppeStartKey(master [16]byte, magic string) []byte {
	var pad1, pad2 [40]byte // SHSpad1 is zeros
	for i := range pad2 {
		pad2[i] = 0xf2
	}
	h := sha1.New()
	h.Write(master[:])
	h.Write(pad1[:])
	h.Write([]byte(magic))
	h.Write(pad2[:])
	return h.Sum(nil)[:16]
}
