package netif

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Held keeps packets of IPv4 for a link that is being dialled, as they were sent through its interface.
type Held struct {
	packets  [][]byte
	octets   int
	from, to netip.Addr // of the last Readdress
}

const (
	// MaxHeld is the longest packet that is held, in octets.
	MaxHeld = 9000

	maxHeldPackets = 64
	maxHeldOctets  = 128 << 10
)

// Add keeps a copy of a packet and says whether it is one to dial for: to a single host, and not too much with the
// others. Of more than there is room for the newest go, for the first are what began it all.
func (h *Held) Add(packet []byte) bool {
	if len(packet) < 20 || packet[0]>>4 != 4 || len(packet) > MaxHeld {
		return false
	}
	if dst := netip.AddrFrom4([4]byte(packet[16:20])); dst.IsMulticast() || dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	if len(h.packets) < maxHeldPackets && h.octets+len(packet) <= maxHeldOctets {
		h.packets, h.octets = append(h.packets, slices.Clone(packet)), h.octets+len(packet)
	}
	return true
}

// Forget drops all.
func (h *Held) Forget() { *h = Held{} }

// Readdress replaces one source address of those packets by another: a packet that was sent while the interface had a
// placeholder's address leaves with the one that the link got. Later packets are for Last.
func (h *Held) Readdress(from, to netip.Addr) {
	h.from, h.to = from, to
	for _, p := range h.packets {
		readdress(p, from, to)
	}
}

// Last does what Readdress did to a packet that came too late for it.
func (h *Held) Last(packet []byte) { readdress(packet, h.from, h.to) }

// Release gives away all, in the order they came.
func (h *Held) Release(send func(packet []byte)) {
	for _, p := range h.packets {
		send(p)
	}
	h.packets, h.octets = nil, 0
}

// readdress changes the source of a packet, and the checksums that cover it (RFC 1624).
func readdress(p []byte, from, to netip.Addr) {
	if !from.Is4() || !to.Is4() || from == to || len(p) < 20 || p[0]>>4 != 4 || netip.AddrFrom4([4]byte(p[12:16])) != from {
		return
	}
	header := int(p[0]&15) * 4
	if header < 20 || header > len(p) {
		return
	}
	old, now := from.As4(), to.As4()
	adjust(p[10:12], old, now)
	copy(p[12:16], now[:])
	if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
		return // a later fragment has no checksum of the layer above
	}
	switch rest := p[header:]; p[9] {
	case 6: // TCP
		if len(rest) >= 18 {
			adjust(rest[16:18], old, now)
		}
	case 17: // UDP; zero is none
		if len(rest) >= 8 && (rest[6] != 0 || rest[7] != 0) {
			if adjust(rest[6:8], old, now); rest[6] == 0 && rest[7] == 0 {
				rest[6], rest[7] = 0xff, 0xff
			}
		}
	}
}

// adjust corrects a checksum for one address in place of another.
func adjust(sum []byte, old, now [4]byte) {
	n := uint32(^binary.BigEndian.Uint16(sum))
	for i := 0; i < 4; i += 2 {
		n += uint32(^binary.BigEndian.Uint16(old[i:])) + uint32(binary.BigEndian.Uint16(now[i:]))
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	binary.BigEndian.PutUint16(sum, ^uint16(n))
}
