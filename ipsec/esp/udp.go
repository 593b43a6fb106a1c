package esp

import (
	"encoding/binary"
	"net/netip"
)

// sum16 adds b to a one's complement sum (RFC 1071), 32 bits at a time.
func sum16(sum uint64, b []byte) uint64 {
	for len(b) >= 4 {
		sum += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}

// sumUDP is the folded sum over the pseudo-header and a datagram (RFC 768, RFC 8200 section 8.1).
func sumUDP(src, dst netip.Addr, datagram []byte) uint16 {
	sum := uint64(protoUDP) + uint64(len(datagram))
	if src.Is4() {
		a, z := src.As4(), dst.As4()
		sum = sum16(sum16(sum, a[:]), z[:])
	} else {
		a, z := src.As16(), dst.As16()
		sum = sum16(sum16(sum, a[:]), z[:])
	}
	sum = sum16(sum, datagram)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// checksum is what belongs into a datagram whose checksum field is zero.
func checksum(src, dst netip.Addr, datagram []byte) uint16 {
	if c := ^sumUDP(src, dst, datagram); c != 0 {
		return c
	}
	return 0xffff // zero means none
}

func checksumValid(src, dst netip.Addr, datagram []byte) bool {
	return sumUDP(src, dst, datagram) == 0xffff
}
