package natt

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Control messages are walked and built by hand: the library's parser allocates for every datagram.

const (
	pktinfo4Len = 12 // struct in_pktinfo: ifindex, spec_dst, addr
	pktinfo6Len = 20 // struct in6_pktinfo: addr, ifindex
)

// oobLen holds one packet-info message of either family.
var oobLen = unix.CmsgSpace(pktinfo6Len)

// cmsgLen reads cmsg_len, a size_t in host order.
func cmsgLen(b []byte) int {
	if unix.SizeofCmsghdr == 16 {
		n := binary.NativeEndian.Uint64(b)
		if n > 1<<16 {
			return 0
		}
		return int(n)
	}
	n := binary.NativeEndian.Uint32(b)
	if n > 1<<16 {
		return 0
	}
	return int(n)
}

// localAddr finds which of our addresses a datagram was sent to.
func localAddr(oob []byte) (netip.Addr, bool) {
	const levelOff = unix.SizeofCmsghdr - 8
	for len(oob) >= unix.SizeofCmsghdr {
		n := cmsgLen(oob)
		if n < unix.SizeofCmsghdr || n > len(oob) {
			return netip.Addr{}, false
		}
		level := int(int32(binary.NativeEndian.Uint32(oob[levelOff:])))
		kind := int(int32(binary.NativeEndian.Uint32(oob[levelOff+4:])))
		data := oob[unix.CmsgLen(0):max(n, unix.CmsgLen(0))]
		switch {
		case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= pktinfo4Len:
			return netip.AddrFrom4([4]byte(data[4:8])), true
		case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= pktinfo6Len:
			return netip.AddrFrom16([16]byte(data[:16])), true
		}
		next := unix.CmsgSpace(n - unix.CmsgLen(0))
		if next > len(oob) {
			break
		}
		oob = oob[next:]
	}
	return netip.Addr{}, false
}

// appendSource appends the control message that sends from addr. The kernel picks the interface.
func appendSource(oob []byte, addr netip.Addr) []byte {
	n, level, kind := pktinfo4Len, unix.IPPROTO_IP, unix.IP_PKTINFO
	if addr.Is6() {
		n, level, kind = pktinfo6Len, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
	}
	start := len(oob)
	for range unix.CmsgSpace(n) {
		oob = append(oob, 0)
	}
	b := oob[start:]
	if unix.SizeofCmsghdr == 16 {
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(n)))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.CmsgLen(n)))
	}
	binary.NativeEndian.PutUint32(b[unix.SizeofCmsghdr-8:], uint32(level))
	binary.NativeEndian.PutUint32(b[unix.SizeofCmsghdr-4:], uint32(kind))
	data := b[unix.CmsgLen(0):]
	if addr.Is6() {
		a := addr.As16()
		copy(data, a[:])
	} else {
		a := addr.As4()
		copy(data[4:], a[:])
	}
	return oob
}
