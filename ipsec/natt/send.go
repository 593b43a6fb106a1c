package natt

import (
	"fmt"

	"culvert/ipsec"
)

// maxDatagram is the largest UDP payload over IPv4.
const maxDatagram = 65507

var keepalive = []byte{keepaliveOct}

// Send sends an IKE message from path.Local to path.Remote, behind the non-ESP marker if path.Local is on the NAT
// traversal port. ErrNoPath if no socket is bound there.
func (c *Conns) Send(path ipsec.Path, msg []byte) error {
	s := c.find(path)
	if s == nil {
		return fmt.Errorf("%w: %s", ErrNoPath, path.Local)
	}
	if len(msg) > maxDatagram-markerLen {
		return fmt.Errorf("natt: message of %d octets does not fit a datagram", len(msg))
	}
	if c.hold(s, path, msg) {
		return nil
	}
	return s.write(path, msg, s.marker)
}

// SendESP sends an encapsulated ESP packet, SPI first (RFC 3948 section 2.1), for a data plane in userspace.
func (c *Conns) SendESP(path ipsec.Path, packet []byte) error {
	s := c.find(path)
	if s == nil || !s.marker {
		return fmt.Errorf("%w: %s", ErrNoPath, path.Local)
	}
	return s.write(path, packet, false)
}

// SendESPBatch is SendESP for several packets, in order. It says how many have gone; the error is that of the next.
func (c *Conns) SendESPBatch(path ipsec.Path, packets [][]byte) (sent int, err error) {
	s := c.find(path)
	if s == nil || !s.marker {
		return 0, fmt.Errorf("%w: %s", ErrNoPath, path.Local)
	}
	if sent, err = s.dgrams.Send(path.Remote, path.Local.Addr(), 0, packets...); err != nil {
		return sent, fmt.Errorf("natt: send on %s: %w", path, err)
	}
	return sent, nil
}

// Keepalive sends the one octet that keeps a NAT's mapping alive (RFC 3948 section 2.3).
func (c *Conns) Keepalive(path ipsec.Path) error {
	s := c.find(path)
	if s == nil || !s.marker {
		return fmt.Errorf("%w: %s", ErrNoPath, path.Local)
	}
	return s.write(path, keepalive, false)
}

// find returns the socket bound to the path's address, or else to every address.
func (c *Conns) find(path ipsec.Path) *sock {
	var wildcard *sock
	for _, s := range c.socks {
		switch at := s.local; {
		case s.strangers || at.Port() != path.Local.Port() || at.Addr().Is4() != path.Remote.Addr().Is4():
		case at.Addr().WithZone("") == path.Local.Addr().WithZone(""):
			return s
		case at.Addr().IsUnspecified():
			wildcard = s
		}
	}
	return wildcard
}

func (s *sock) write(path ipsec.Path, msg []byte, marker bool) error {
	if marker {
		s.send.Lock()
		defer s.send.Unlock()
		s.buf = append(s.buf[:0], 0, 0, 0, 0)
		s.buf = append(s.buf, msg...)
		msg = s.buf
		if cap(s.buf) > 2*MaxMessage {
			s.buf = nil // one huge message must not hold its memory for ever
		}
	}
	if err := s.dgrams.SendOne(path.Remote, path.Local.Addr(), 0, msg); err != nil {
		return fmt.Errorf("natt: send on %s: %w", path, err)
	}
	return nil
}
