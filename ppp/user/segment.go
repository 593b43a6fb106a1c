package user

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// Offsets in the headers of IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293) and UDP (RFC 768).
const (
	ip4Len, ip4Total, ip4ID, ip4Fragment, ip4Protocol, ip4Sum, ip4Addresses = 20, 2, 4, 6, 9, 10, 12
	ip6Len, ip6Payload, ip6Next, ip6Addresses                               = 40, 4, 6, 8
	tcpLen, tcpSequence, tcpOffset, tcpFlags, tcpSum                        = 20, 4, 12, 13, 16
	udpLen, udpLength, udpSum                                               = 8, 4, 6

	tcpFIN, tcpPSH, tcpACK, tcpCWR = 0x01, 0x08, 0x10, 0x80

	protocolTCP, protocolUDP = 6, 17
)

var errPacket = errors.New("tun: a packet whose offload header does not fit it")

// complete fills in the checksum that the kernel left to us (VIRTIO_NET_HDR_F_NEEDS_CSUM): its field holds the sum of the
// pseudo-header.
func complete(h vnetHeader, packet []byte) error {
	start, field := int(h.csumStart), int(h.csumStart)+int(h.csumOffset)
	if field+2 > len(packet) {
		return errPacket
	}
	sum := ^fold(checksum(packet[start:], 0))
	if sum == 0 && h.csumOffset == udpSum {
		sum = 0xffff // zero would mean none (RFC 768); TCP's 0xffff is the same number
	}
	binary.BigEndian.PutUint16(packet[field:], sum)
	return nil
}

// segmenter cuts a packet larger than the MTU, of TCP or UDP over IPv4 or IPv6, into those that the kernel would have
// made of it itself: generic segmentation offload.
type segmenter struct {
	packet    []byte
	start     int // of the TCP or UDP header
	headers   int // length of all headers
	size      int // payload of each segment but the last
	at        int // payload that comes next
	udp, ipv6 bool
	sequence  uint32
	id        uint16
	seed      uint64 // checksum field without the length in its pseudo-header
}

// init looks at the packet. What does not fit its header is errPacket.
func (s *segmenter) init(h vnetHeader, packet []byte) error {
	*s = segmenter{packet: packet, start: int(h.csumStart), size: int(h.gsoSize)}
	if h.flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM == 0 || s.size == 0 || len(packet) < ip4Len {
		return errPacket
	}
	s.ipv6 = packet[0]>>4 == 6
	switch h.gsoType &^ unix.VIRTIO_NET_HDR_GSO_ECN {
	case unix.VIRTIO_NET_HDR_GSO_TCPV4:
		if s.ipv6 {
			return errPacket
		}
	case unix.VIRTIO_NET_HDR_GSO_TCPV6:
		if !s.ipv6 {
			return errPacket
		}
	case unix.VIRTIO_NET_HDR_GSO_UDP_L4:
		s.udp = true
	default:
		return errPacket
	}
	field, minimum := tcpSum, tcpLen
	if s.udp {
		field, minimum = udpSum, udpLen
	}
	if int(h.csumOffset) != field || len(packet) < s.start+minimum {
		return errPacket
	}
	if s.ipv6 {
		if s.start < ip6Len {
			return errPacket
		}
	} else {
		if packet[0]>>4 != 4 || s.start != int(packet[0]&15)*4 || s.start < ip4Len {
			return errPacket
		}
		s.id = binary.BigEndian.Uint16(packet[ip4ID:])
	}
	s.headers = s.start + udpLen
	if !s.udp {
		s.headers = s.start + int(packet[s.start+tcpOffset]>>4)*4
		if s.headers < s.start+tcpLen || s.headers > len(packet) {
			return errPacket
		}
		s.sequence = binary.BigEndian.Uint32(packet[s.start+tcpSequence:])
	}
	if len(packet) > 0xffff || s.headers+s.size > 0xffff {
		return errPacket
	}
	s.at = s.headers
	// The kernel has put the sum of the pseudo-header there, with the length of the whole. Ones' complement takes it out.
	length := uint16(len(packet) - s.start)
	s.seed = uint64(binary.BigEndian.Uint16(packet[s.start+field:])) + uint64(^length)
	return nil
}

// most is the length of the longest segment.
func (s *segmenter) most() int { return min(s.headers+s.size, len(s.packet)) }

// next writes the next segment to dst, which holds most octets, and says how long it is; 0 when there are no more.
func (s *segmenter) next(dst []byte) int {
	if s.at > len(s.packet) || s.at == len(s.packet) && s.at > s.headers {
		return 0
	}
	first := s.at == s.headers
	end := min(s.at+s.size, len(s.packet))
	last := end == len(s.packet)
	n := copy(dst, s.packet[:s.headers])
	n += copy(dst[n:], s.packet[s.at:end])
	dst = dst[:n]
	if s.ipv6 {
		binary.BigEndian.PutUint16(dst[ip6Payload:], uint16(n-ip6Len))
	} else {
		binary.BigEndian.PutUint16(dst[ip4Total:], uint16(n))
		binary.BigEndian.PutUint16(dst[ip4ID:], s.id)
		s.id++
		binary.BigEndian.PutUint16(dst[ip4Sum:], 0)
		binary.BigEndian.PutUint16(dst[ip4Sum:], ^fold(checksum(dst[:s.start], 0)))
	}
	upper := dst[s.start:]
	field := tcpSum
	if s.udp {
		field = udpSum
		binary.BigEndian.PutUint16(upper[udpLength:], uint16(len(upper)))
	} else {
		binary.BigEndian.PutUint32(upper[tcpSequence:], s.sequence)
		s.sequence += uint32(end - s.at)
		if !last {
			upper[tcpFlags] &^= tcpFIN | tcpPSH
		}
		if !first {
			upper[tcpFlags] &^= tcpCWR // it answers one mark only (RFC 3168 section 6.1.2)
		}
	}
	binary.BigEndian.PutUint16(upper[field:], 0)
	sum := ^fold(checksum(upper, s.seed+uint64(len(upper))))
	if sum == 0 && s.udp {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(upper[field:], sum)
	s.at = end
	if last {
		s.at = len(s.packet) + 1
	}
	return n
}
