package esp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	"culvert/ipsec"
)

const (
	// Headroom is what Send needs in front of a payload: ESP header, IV, UDP header.
	Headroom = espHeader + 16 + udpHeader
	// Tailroom is what Send needs behind it, as capacity: padding, trailer, ICV.
	Tailroom = 15 + espTrailer + 64

	// maxPayload keeps the outer packet within what an IP packet holds, whatever the suite and the encapsulation.
	maxPayload = math.MaxUint16 - 40 - udpHeader - Headroom - Tailroom

	stageLen = 2048
)

var (
	// ErrRoom says that a buffer lacks Headroom or Tailroom.
	ErrRoom = errors.New("esp: no room around the payload")
	// ErrTooLong says that a payload does not fit an IP packet.
	ErrTooLong = errors.New("esp: payload too long")
	// ErrExpired says that the SA has come to its hard lifetime or to its last sequence number.
	ErrExpired = errors.New("esp: SA is expired")
	// ErrSelector says that the SA is not for this traffic.
	ErrSelector = errors.New("esp: the selector does not admit it")
)

// Send seals the UDP payload buf[at:] in the newest SA of a mark and sends it. It needs at least Headroom octets before
// the payload and Tailroom octets of capacity behind it, writes in both, and keeps nothing of buf. The ports are those of
// local and remote; the addresses on the wire are always the SA's own, for transport mode carries no others.
// ipsec.ErrNoSA if the mark has no outbound SA: nothing ever leaves in clear.
func (b *Backend) Send(m ipsec.Mark, local, remote netip.AddrPort, buf []byte, at int) error {
	s := b.tables.Load().out[m]
	if s == nil {
		b.drops.noSA.Add(1)
		return ipsec.ErrNoSA
	}
	where := s.place.Load()
	packet, err := b.seal(s, where, local.Port(), remote.Port(), buf, at, b.o.Now())
	if err != nil {
		b.drops.send.Add(1)
		return err
	}
	if where.encap {
		err = b.o.SendUDP(where.path, packet)
	} else {
		err = b.o.SendRaw(where.path.Local.Addr(), where.path.Remote.Addr(), packet)
	}
	if err != nil {
		b.drops.send.Add(1)
	}
	return err
}

// SendBatch is Send for several payloads, each beginning at the same place in its buffer. It stops at the first error
// and says how many went. The elements of bufs are not the payloads any more when it returns.
func (b *Backend) SendBatch(m ipsec.Mark, local, remote netip.AddrPort, bufs [][]byte, at int) (sent int, err error) {
	s := b.tables.Load().out[m]
	if s == nil {
		b.drops.noSA.Add(uint64(len(bufs)))
		return 0, ipsec.ErrNoSA
	}
	where := s.place.Load()
	batched := b.o.SendRawBatch != nil
	if where.encap {
		batched = b.o.SendUDPBatch != nil
	}
	if !batched {
		for _, buf := range bufs {
			if err := b.Send(m, local, remote, buf, at); err != nil {
				return sent, err
			}
			sent++
		}
		return sent, nil
	}
	sealed, err := b.sealAll(s, where, local.Port(), remote.Port(), bufs, at, b.o.Now())
	if err != nil {
		b.drops.send.Add(uint64(len(bufs) - sealed))
	}
	if sealed == 0 {
		return 0, err
	}
	var failed error
	if where.encap {
		sent, failed = b.o.SendUDPBatch(where.path, bufs[:sealed])
	} else {
		sent, failed = b.o.SendRawBatch(where.path.Local.Addr(), where.path.Remote.Addr(), bufs[:sealed])
	}
	if failed != nil {
		b.drops.send.Add(uint64(sealed - sent))
		return sent, failed
	}
	return sent, err
}

// SendMessage is Send for a payload without room around it, which stays as it is: for control messages.
func (b *Backend) SendMessage(m ipsec.Mark, local, remote netip.AddrPort, payload []byte) error {
	stage := b.stage.Get().(*[]byte)
	defer b.stage.Put(stage)
	buf := *stage
	if need := Headroom + len(payload) + Tailroom; need > len(buf) {
		buf = make([]byte, need) // not put back: one huge message must not hold its memory for ever
	}
	n := copy(buf[Headroom:], payload)
	return b.Send(m, local, remote, buf[:Headroom+n], Headroom)
}

// seal makes the packet around buf[at:], in buf.
func (b *Backend) seal(s *sa, where *place, sport, dport uint16, buf []byte, at int, now time.Time) ([]byte, error) {
	packet, err := s.frame(where, sport, dport, buf, at)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := b.number(s, packet, now); err != nil {
		return nil, err
	}
	if err := s.crypt.Seal(packet, s.seq); err != nil {
		return nil, fmt.Errorf("esp: %s: %w", s.id, err)
	}
	b.watch(s, now)
	return packet, nil
}

// sealAll is seal for several payloads, whose buffers become the packets. It says how many it has sealed; the error is that
// of the next.
func (b *Backend) sealAll(s *sa, where *place, sport, dport uint16, bufs [][]byte, at int, now time.Time) (sealed int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first, n := s.seq+1, 0
	for ; n < len(bufs); n++ {
		var packet []byte
		if packet, err = s.frame(where, sport, dport, bufs[n], at); err != nil {
			break
		}
		if err = b.number(s, packet, now); err != nil {
			break
		}
		bufs[n] = packet
	}
	sealed, failed := s.crypt.SealAll(bufs[:n], first)
	if failed != nil {
		err = fmt.Errorf("esp: %s: %w", s.id, failed)
	}
	b.watch(s, now)
	return sealed, err
}

// frame makes what is to be sealed of buf[at:], but for the sequence number.
func (s *sa) frame(where *place, sport, dport uint16, buf []byte, at int) ([]byte, error) {
	start := at - udpHeader - s.front
	switch {
	case at > len(buf) || start < 0:
		return nil, ErrRoom
	case len(buf)-at > maxPayload:
		return nil, ErrTooLong
	case !where.admits(where.path.Local.Addr(), where.path.Remote.Addr(), sport, dport):
		return nil, ErrSelector
	}
	block := s.suite.Block()
	end := len(buf)
	text := udpHeader + end - at + espTrailer
	pad := (block - text%block) % block
	need := end + pad + espTrailer + s.suite.ICV
	if need > cap(buf) {
		return nil, ErrRoom
	}
	buf = buf[:need]
	for i := range pad { // RFC 4303 section 2.4
		buf[end+i] = byte(i + 1)
	}
	buf[end+pad], buf[end+pad+1] = byte(pad), protoUDP

	udp := buf[at-udpHeader : end]
	binary.BigEndian.PutUint16(udp, sport)
	binary.BigEndian.PutUint16(udp[2:], dport)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	udp[6], udp[7] = 0, 0
	if local, remote := where.path.Local.Addr(), where.path.Remote.Addr(); local.Is6() {
		// IPv6 has no datagrams without a checksum (RFC 8200 section 8.1); over IPv4 the ICV protects better.
		binary.BigEndian.PutUint16(udp[6:], checksum(local, remote, udp))
	}
	packet := buf[start:]
	binary.BigEndian.PutUint32(packet, uint32(s.id.SPI))
	return packet, nil
}

// number gives a packet the next sequence number, and counts it. s.mu is held.
func (b *Backend) number(s *sa, packet []byte, now time.Time) error {
	if b.ended(s, now) {
		return ErrExpired
	}
	if !s.esn && s.seq == math.MaxUint32 {
		b.expire(s)
		return ErrExpired
	}
	s.seq++
	binary.BigEndian.PutUint32(packet[4:], uint32(s.seq))
	s.usage.Packets++
	s.usage.Bytes += uint64(binary.BigEndian.Uint16(packet[s.front+4:])) // the length of the UDP datagram
	s.usage.LastUsed = now
	return nil
}
