package ikev1

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// natHash is RFC 3947 section 3.2: HASH(CKY-I | CKY-R | IP | Port) with the negotiated hash.
func (sa *phase1) natHash(a netip.AddrPort) []byte {
	return sa.chosen.hash.sum(sa.id.initiator[:], sa.id.responder[:], a.Addr().AsSlice(), binary.BigEndian.AppendUint16(nil, a.Port()))
}

// natDetections collects the NAT-D payloads of a message, copied; nil if the dialect is none.
func natDetections(payloads []isakmp.Payload, dialect *isakmp.NATT) (hashes [][]byte) {
	if dialect == nil {
		return nil
	}
	for _, p := range payloads {
		if p.Type == dialect.D {
			hashes = append(hashes, bytes.Clone(p.Body))
		}
	}
	return hashes
}

// detectNAT compares the peer's hashes with the addresses as we see them: the first is of the destination, ours; the
// others are of all the addresses the sender may use. Without at least two there is no NAT traversal. Several paths are
// given where the peer may have hashed the ports of either.
func (sa *phase1) detectNAT(hashes [][]byte, paths ...ipsec.Path) {
	if len(hashes) < 2 {
		sa.natt = nil
		return
	}
	sa.localNAT, sa.peerNAT = true, true
	for _, p := range paths {
		if bytes.Equal(hashes[0], sa.natHash(p.Local)) {
			sa.localNAT = false
		}
		seen := sa.natHash(p.Remote)
		if slices.ContainsFunc(hashes[1:], func(h []byte) bool { return bytes.Equal(h, seen) }) {
			sa.peerNAT = false
		}
	}
}

// natDetection are our own NAT-D payloads: the peer's address first, then ours.
func (sa *phase1) natDetection() []isakmp.Payload {
	if sa.natt == nil {
		return nil
	}
	return []isakmp.Payload{
		{Type: sa.natt.D, Body: sa.natHash(sa.path.Remote)},
		{Type: sa.natt.D, Body: sa.natHash(sa.path.Local)},
	}
}

func (sa *phase1) nat() bool { return sa.natt != nil && (sa.localNAT || sa.peerNAT) }

func (sa *phase1) natSides() string {
	switch {
	case sa.natt == nil:
		return "unsupported"
	case sa.localNAT && sa.peerNAT:
		return "both"
	case sa.localNAT:
		return "local"
	case sa.peerNAT:
		return "peer"
	}
	return "none"
}

// floated says that the peer talks to the port on which ESP is encapsulated: 4500, or any other than it began on.
func (sa *phase1) floated() bool {
	port := sa.path.Local.Port()
	return sa.natt != nil && (port == 4500 || port != sa.arrival)
}

// natOriginal are our NAT-OA payloads in quick mode. As answer they go only to peers that sent some: RFC 3947 section 5.2
// has two, the address of the quick mode's initiator and then the responder's, as the sender sees them; the drafts have
// one, the sender's.
func (sa *phase1) natOriginal(initiator bool) []isakmp.Payload {
	local := isakmp.Payload{Type: sa.natt.OA, Body: isakmp.AppendNATOA(nil, sa.path.Local.Addr())}
	if sa.natt.OA != isakmp.PayloadNATOA {
		return []isakmp.Payload{local}
	}
	remote := isakmp.Payload{Type: sa.natt.OA, Body: isakmp.AppendNATOA(nil, sa.path.Remote.Addr())}
	if initiator {
		return []isakmp.Payload{local, remote}
	}
	return []isakmp.Payload{remote, local}
}
