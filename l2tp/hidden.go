package l2tp

import (
	"crypto/md5"
	"encoding/binary"
)

// maxHidden is the longest value that still fits an AVP with its own length in front.
const maxHidden = avpMaxValue - 2

// hiddenPad rounds hidden values up so that their size tells little (RFC 2661 section 4.3 leaves the amount open).
const hiddenPad = 8

// appendHidden appends the Hidden AVP Subformat of value (RFC 2661 section 4.3): length, value, zero padding, xored with
// a chain of MD5 over attribute type, secret and random vector. The length of what is appended is hiddenLen(len(value)).
func appendHidden(dst []byte, t AVPType, secret Secret, vector, value []byte) []byte {
	at := len(dst)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(value)))
	dst = append(dst, value...)
	for len(dst)-at < hiddenLen(len(value)) {
		dst = append(dst, 0)
	}
	xorHidden(dst[at:], dst[at:], t, secret, vector, true)
	return dst
}

func hiddenLen(n int) int { return min((n+2+hiddenPad-1)/hiddenPad*hiddenPad, avpMaxValue) }

// revealHidden appends the clear value to dst and returns it as its own slice. ok is false when the length inside does
// not fit, which is also what a wrong secret mostly looks like.
func revealHidden(dst []byte, t AVPType, secret Secret, vector, hidden []byte) (value, next []byte, ok bool) {
	if len(hidden) < 2 {
		return nil, dst, false
	}
	at := len(dst)
	dst = append(dst, hidden...)
	clear := dst[at:]
	xorHidden(clear, hidden, t, secret, vector, false)
	n := int(binary.BigEndian.Uint16(clear))
	if n > len(clear)-2 {
		return nil, dst[:at], false
	}
	return clear[2 : 2+n : 2+n], dst, true
}

// xorHidden works in place or from src to dst of the same length. The chain runs over the ciphertext, which is dst when
// hiding and src when revealing; in place, revealing has to keep the block it is about to overwrite.
func xorHidden(dst, src []byte, t AVPType, secret Secret, vector []byte, hide bool) {
	var first [2]byte
	binary.BigEndian.PutUint16(first[:], uint16(t))
	d := md5.New()
	d.Write(first[:])
	d.Write([]byte(secret))
	d.Write(vector)
	var key, cipher [md5.Size]byte
	for off := 0; ; {
		d.Sum(key[:0])
		n := min(md5.Size, len(src)-off)
		copy(cipher[:], src[off:off+n])
		for i := range n {
			dst[off+i] = src[off+i] ^ key[i]
		}
		if hide {
			copy(cipher[:], dst[off:off+n])
		}
		if off += n; off == len(src) {
			return
		}
		d.Reset()
		d.Write([]byte(secret))
		d.Write(cipher[:])
	}
}
