package user

import (
	"encoding/binary"
	"math/bits"
)

// checksum adds the 16-bit words of b to sum (RFC 1071), an odd octet as if a zero followed. The result is not folded.
func checksum(b []byte, sum uint64) uint64 {
	// Eight octets at a time: a carry out of the top is worth one at the bottom.
	var carry uint64
	for len(b) >= 32 {
		_ = b[31]
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), 0)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b[24:]), carry)
		sum, carry = bits.Add64(sum, 0, carry)
		sum += carry
		b = b[32:]
	}
	for len(b) >= 4 {
		sum, carry = bits.Add64(sum, uint64(binary.BigEndian.Uint32(b)), 0)
		sum += carry
		b = b[4:]
	}
	var last uint64
	switch len(b) {
	case 3:
		last = uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8
	case 2:
		last = uint64(b[0])<<8 | uint64(b[1])
	case 1:
		last = uint64(b[0]) << 8
	}
	sum, carry = bits.Add64(sum, last, 0)
	return sum + carry
}

// fold brings a sum down to 16 bits.
func fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return uint16(sum)
}

// pseudo sums the pseudo-header of an IPv4 or IPv6 packet (RFC 9293 section 3.1): addresses, protocol, length.
func pseudo(addresses []byte, protocol uint8, length int) uint64 {
	return checksum(addresses, uint64(protocol)+uint64(length))
}
