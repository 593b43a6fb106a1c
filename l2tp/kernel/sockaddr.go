//go:build linux

package kernel

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// include/uapi/linux/if_pppox.h and if_pppol2tp.h; golang.org/x/sys has none of these.
const (
	afPPPOX      = 24
	pxProtoOL2TP = 1

	optRecvSeq = 2 // PPPOL2TP_SO_RECVSEQ
	optSendSeq = 3 // PPPOL2TP_SO_SENDSEQ
	optLNSMode = 4 // PPPOL2TP_SO_LNSMODE
)

// ids are the four numbers of a PPPoL2TP address. Session ids of zero name the tunnel itself.
type ids struct {
	localTunnel, localSession, remoteTunnel, remoteSession uint16
}

// sockaddr encodes struct sockaddr_pppol2tp (38 octets) or sockaddr_pppol2tpin6 (50 octets), both packed. The kernel
// tells them apart by their length. Everything but the port is in native order; the ids stand before an IPv6 address and
// behind an IPv4 one.
func sockaddr(fd int, peer netip.AddrPort, id ids) []byte {
	order := binary.NativeEndian
	b := make([]byte, 0, 50)
	b = order.AppendUint16(b, afPPPOX)
	b = order.AppendUint32(b, pxProtoOL2TP)
	b = order.AppendUint32(b, 0) // pid: this process
	b = order.AppendUint32(b, uint32(fd))
	appendIDs := func() {
		b = order.AppendUint16(b, id.localTunnel)
		b = order.AppendUint16(b, id.localSession)
		b = order.AppendUint16(b, id.remoteTunnel)
		b = order.AppendUint16(b, id.remoteSession)
	}
	if addr := peer.Addr(); addr.Is4() {
		b = order.AppendUint16(b, unix.AF_INET)
		b = binary.BigEndian.AppendUint16(b, peer.Port())
		b = append(b, addr.AsSlice()...)
		b = append(b, make([]byte, 8)...)
		appendIDs()
	} else {
		appendIDs()
		b = order.AppendUint16(b, unix.AF_INET6)
		b = binary.BigEndian.AppendUint16(b, peer.Port())
		b = order.AppendUint32(b, 0) // flow label
		b = append(b, addr.AsSlice()...)
		b = order.AppendUint32(b, 0) // scope
	}
	return b
}
