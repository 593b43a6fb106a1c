package user

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// coalescer joins TCP segments that arrive one behind the other into one packet for the kernel: generic receive
// offload. It joins only what the kernel's own would: segments whose headers differ in nothing but what their order
// explains, and whose checksums are right, since nobody looks at those again.
type coalescer struct {
	buf      []byte // room for the packet, or nil
	n        int    // octets in it; 0: none
	start    int    // of the TCP header
	headers  int    // length of all headers
	size     int    // payload of the first segment
	count    int    // segments
	sequence uint32 // of the octet behind
	ipv6     bool
	full     bool // nothing may follow: a short segment, or a pushed one
}

// maxJoined is how long a joined packet may become: IPv4's total length.
const maxJoined = 0xffff

// segment is what coalescing has to know of a packet.
type segment struct {
	start, headers int
	sequence       uint32
	ipv6, push     bool
}

// parseSegment says whether the packet is a TCP segment that may be joined with others: with payload, no flags but ACK
// and PSH, neither options nor fragments in IP.
func parseSegment(b []byte) (s segment, ok bool) {
	if len(b) < ip4Len+tcpLen+1 {
		return s, false
	}
	var addresses []byte
	switch b[0] >> 4 {
	case 4:
		if b[0] != 0x45 || b[ip4Protocol] != protocolTCP || int(binary.BigEndian.Uint16(b[ip4Total:])) != len(b) ||
			binary.BigEndian.Uint16(b[ip4Fragment:])&^0x4000 != 0 || fold(checksum(b[:ip4Len], 0)) != 0xffff {
			return s, false
		}
		s.start, addresses = ip4Len, b[ip4Addresses:ip4Len]
	case 6:
		if len(b) < ip6Len+tcpLen+1 || b[ip6Next] != protocolTCP || int(binary.BigEndian.Uint16(b[ip6Payload:])) != len(b)-ip6Len {
			return s, false
		}
		s.start, s.ipv6, addresses = ip6Len, true, b[ip6Addresses:ip6Len]
	default:
		return s, false
	}
	tcp := b[s.start:]
	s.headers = s.start + int(tcp[tcpOffset]>>4)*4
	if s.headers < s.start+tcpLen || s.headers >= len(b) || tcp[tcpOffset]&15 != 0 || tcp[tcpFlags]&^tcpPSH != tcpACK {
		return s, false
	}
	if fold(checksum(tcp, pseudo(addresses, protocolTCP, len(tcp)))) != 0xffff {
		return s, false
	}
	s.push = tcp[tcpFlags]&tcpPSH != 0
	s.sequence = binary.BigEndian.Uint32(tcp[tcpSequence:])
	return s, true
}

// begin takes the first segment.
func (c *coalescer) begin(s segment, b []byte) {
	c.n = copy(c.buf, b)
	c.start, c.headers, c.ipv6 = s.start, s.headers, s.ipv6
	c.size, c.count = len(b)-s.headers, 1
	c.sequence = s.sequence + uint32(c.size)
	c.full = s.push
}

// join adds a segment if it continues the packet.
func (c *coalescer) join(s segment, b []byte) bool {
	payload := len(b) - s.headers
	if c.n == 0 || c.full || s.ipv6 != c.ipv6 || s.headers != c.headers || s.sequence != c.sequence ||
		payload > c.size || c.n+payload > min(len(c.buf), maxJoined) || !c.sameHeaders(b) {
		return false
	}
	c.n += copy(c.buf[c.n:], b[s.headers:])
	c.count++
	c.sequence += uint32(payload)
	c.full = s.push || payload < c.size
	if s.push {
		c.buf[c.start+tcpFlags] |= tcpPSH
	}
	return true
}

// sameHeaders compares all that segments of one stream have in common: everything but lengths, sums, the sequence number
// and PSH; the identification of IPv4 has no meaning while fragmenting is forbidden (RFC 6864 section 4.1), and counts
// up otherwise.
func (c *coalescer) sameHeaders(b []byte) bool {
	a := c.buf[:c.headers]
	if c.ipv6 {
		if !bytes.Equal(a[:ip6Payload], b[:ip6Payload]) || !bytes.Equal(a[ip6Next:ip6Len], b[ip6Next:ip6Len]) {
			return false
		}
	} else {
		if a[1] != b[1] || !bytes.Equal(a[ip4Fragment:ip4Sum], b[ip4Fragment:ip4Sum]) ||
			!bytes.Equal(a[ip4Addresses:ip4Len], b[ip4Addresses:ip4Len]) {
			return false
		}
		if a[ip4Fragment]&0x40 == 0 && binary.BigEndian.Uint16(b[ip4ID:]) != binary.BigEndian.Uint16(a[ip4ID:])+uint16(c.count) {
			return false
		}
	}
	t, u := a[c.start:], b[c.start:c.headers]
	return bytes.Equal(t[:tcpSequence], u[:tcpSequence]) && // ports
		bytes.Equal(t[tcpSequence+4:tcpFlags], u[tcpSequence+4:tcpFlags]) && // acknowledgement, offset
		bytes.Equal(t[tcpFlags+1:tcpSum], u[tcpFlags+1:tcpSum]) && // window
		bytes.Equal(t[tcpSum+2:], u[tcpSum+2:]) // urgent pointer, options
}

// finish is the packet, completed, and what the kernel has to know of it. A lone segment is as it came.
func (c *coalescer) finish() (h vnetHeader, packet []byte) {
	packet = c.buf[:c.n]
	c.n = 0
	if c.count == 1 {
		return h, packet
	}
	tcp := packet[c.start:]
	h = vnetHeader{flags: unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, hdrLen: uint16(c.headers), gsoSize: uint16(c.size),
		csumStart: uint16(c.start), csumOffset: tcpSum}
	var addresses []byte
	if c.ipv6 {
		h.gsoType = unix.VIRTIO_NET_HDR_GSO_TCPV6
		binary.BigEndian.PutUint16(packet[ip6Payload:], uint16(len(tcp)))
		addresses = packet[ip6Addresses:ip6Len]
	} else {
		h.gsoType = unix.VIRTIO_NET_HDR_GSO_TCPV4
		binary.BigEndian.PutUint16(packet[ip4Total:], uint16(len(packet)))
		binary.BigEndian.PutUint16(packet[ip4Sum:], 0)
		binary.BigEndian.PutUint16(packet[ip4Sum:], ^fold(checksum(packet[:ip4Len], 0)))
		addresses = packet[ip4Addresses:ip4Len]
	}
	binary.BigEndian.PutUint16(tcp[tcpSum:], fold(pseudo(addresses, protocolTCP, len(tcp))))
	return h, packet
}
