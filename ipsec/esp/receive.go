package esp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"time"

	"culvert/hwcrypto"
	"culvert/ipsec"
)

const (
	espHeader  = 8 // SPI and sequence number, RFC 4303 section 2
	espTrailer = 2 // pad length and next header
	udpHeader  = 8

	nextDummy = 59 // RFC 4303 section 2.6

	// mappingEvery is how often the same new address is reported while nobody moves the SA there.
	mappingEvery = time.Second
)

// Datagram is what came out of an SA: the payload of a UDP datagram, and its addresses with the inner ports.
type Datagram struct {
	Mark          ipsec.Mark
	Local, Remote netip.AddrPort
	Payload       []byte
}

// Receive is Open for those who gave Options.Deliver, which is called before it returns.
func (b *Backend) Receive(p ipsec.Path, packet []byte) {
	if d, ok := b.Open(b.o.Now(), p, packet); ok {
		b.o.Deliver(d.Mark, d.Local, d.Remote, d.Payload)
	}
}

// Open takes one ESP packet, SPI first, with the addresses it came between; both ports are zero for plain ESP. It
// decrypts in place: the payload lies in the packet. What is wrong with a packet only counts. now may be that of a batch:
// on many boards each look at the clock is a system call.
func (b *Backend) Open(now time.Time, p ipsec.Path, packet []byte) (d Datagram, ok bool) {
	if len(packet) < espHeader {
		b.drops.malformed.Add(1)
		return d, false
	}
	s := b.tables.Load().in[ipsec.SPI(binary.BigEndian.Uint32(packet))]
	if s == nil {
		b.drops.unknown.Add(1)
		return d, false
	}
	at := s.place.Load()
	if encap := p.Local.Port() != 0; encap != at.encap {
		b.drops.encap.Add(1)
		return d, false
	}
	if a := p.Local.Addr(); a.IsValid() && !a.IsUnspecified() && a != at.path.Local.Addr() {
		b.drops.unknown.Add(1)
		return d, false
	}
	datagram := b.open(s, at, p.Remote, packet, now)
	if datagram == nil {
		return d, false
	}
	local, remote := at.path.Local.Addr(), p.Remote.Addr()
	sport, dport := binary.BigEndian.Uint16(datagram), binary.BigEndian.Uint16(datagram[2:])
	length := int(binary.BigEndian.Uint16(datagram[4:]))
	switch {
	case length < udpHeader || length > len(datagram): // more than length is padding of RFC 4303 section 2.7
		b.drops.malformed.Add(1)
		return d, false
	case !at.admits(local, remote, dport, sport):
		b.drops.selector.Add(1)
		return d, false
	}
	datagram = datagram[:length]
	// A NAT that changed the outer addresses has made the checksum of an encapsulated packet meaningless (RFC 3948 3.1.2).
	if !at.encap && (datagram[6]|datagram[7]) != 0 && !checksumValid(remote, local, datagram) {
		b.drops.checksum.Add(1)
		return d, false
	}
	return Datagram{s.id.Mark, netip.AddrPortFrom(local, dport), netip.AddrPortFrom(remote, sport), datagram[udpHeader:]}, true
}

// open authenticates and decrypts a packet and returns the UDP datagram in it, or nil. Only an authentic packet touches
// the window, the SA's counters, or the address that is known of the peer.
func (b *Backend) open(s *sa, at *place, from netip.AddrPort, packet []byte, now time.Time) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.ended(s, now) {
		b.drops.expired.Add(1)
		return nil
	}
	seq, fresh := s.window.expand(binary.BigEndian.Uint32(packet[4:]))
	if !fresh {
		s.usage.Replayed++
		b.drops.replayed.Add(1)
		return nil
	}
	if err := s.crypt.Open(packet, seq); err != nil {
		switch {
		case errors.Is(err, hwcrypto.ErrAuth):
			s.usage.IntegrityFailed++
			b.drops.integrity.Add(1)
		case errors.Is(err, hwcrypto.ErrPacket):
			b.drops.malformed.Add(1)
		default:
			b.drops.crypto.Add(1)
		}
		return nil
	}
	newest := s.window.commit(seq)
	text := packet[s.front : len(packet)-s.suite.ICV]
	pad, next := int(text[len(text)-2]), text[len(text)-1]
	n := len(text) - espTrailer - pad
	s.usage.Packets++
	s.usage.Bytes += uint64(max(n, 0))
	s.usage.LastUsed = now
	b.watch(s, now)
	// A late packet that overtook nobody says nothing about where the peer is now.
	if newest && from != at.path.Remote {
		b.mapping(s, from, now)
	}
	switch {
	case n < 0:
		b.drops.malformed.Add(1)
	case next == nextDummy:
		b.drops.dummy.Add(1)
	case next != protoUDP:
		b.drops.notUDP.Add(1)
	case n < udpHeader:
		b.drops.malformed.Add(1)
	default:
		return text[:n]
	}
	return nil
}

// mapping reports a new address. The caller holds the SA's lock.
func (b *Backend) mapping(s *sa, from netip.AddrPort, now time.Time) {
	if s.told == from && now.Sub(s.toldAt) < mappingEvery {
		return
	}
	if b.emit(ipsec.Event{Kind: ipsec.EventMapping, ID: s.id, Remote: from}) {
		s.told, s.toldAt = from, now
	}
}
