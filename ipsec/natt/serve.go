package natt

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
)

const (
	// MaxMessage is the longest datagram that is received. IKE allows 64 KiB, but no L2TP client's message comes near
	// this even with a chain of certificates, and a board has one such buffer for every socket.
	MaxMessage = 8 << 10

	markerLen    = 4  // RFC 3948 section 2.2
	minIKE       = 28 // the ISAKMP header, RFC 2408 section 3.1
	minESP       = 8  // SPI and sequence number, RFC 4303 section 2
	keepaliveLen = 1
	keepaliveOct = 0xff
)

// Serve starts one goroutine for each socket, which calls recv with every IKE message, without the non-ESP marker, until
// Close. recv is called from several goroutines at once and must not keep msg.
func (c *Conns) Serve(recv func(p ipsec.Path, msg []byte)) {
	for _, s := range c.socks {
		go c.read(s, recv)
	}
}

func (c *Conns) read(s *sock, recv func(ipsec.Path, []byte)) {
	buf, oob := make([]byte, MaxMessage), make([]byte, oobLen)
	for {
		if err := c.readOne(s, buf, oob, recv); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if c.stats.readErrors.Add(1) == 1 {
				c.log.Warn("IKE socket failed to read, going on", "local", s.local, "err", err)
			}
			time.Sleep(10 * time.Millisecond) // an error that stays must not become a busy loop
		}
	}
}

// readOne receives and delivers one datagram without allocating.
func (c *Conns) readOne(s *sock, buf, oob []byte, recv func(ipsec.Path, []byte)) error {
	n, oobn, flags, remote, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		return err
	}
	if flags&unix.MSG_TRUNC != 0 {
		c.stats.truncated.Add(1)
		return nil
	}
	p := ipsec.Path{Local: s.local, Remote: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())}
	if addr, ok := localAddr(oob[:oobn]); ok {
		p.Local = netip.AddrPortFrom(addr, s.local.Port())
	}
	c.deliver(s, p, buf[:n], recv)
	return nil
}

// deliver tells keepalives, IKE and ESP apart (RFC 3948 section 2).
func (c *Conns) deliver(s *sock, p ipsec.Path, b []byte, recv func(ipsec.Path, []byte)) {
	if s.marker {
		switch {
		case len(b) == keepaliveLen && b[0] == keepaliveOct:
			c.stats.keepalives.Add(1)
			return
		case len(b) < markerLen:
			c.stats.runts.Add(1)
			return
		case b[0]|b[1]|b[2]|b[3] != 0:
			if len(b) < minESP {
				c.stats.runts.Add(1)
				return
			}
			c.stats.esp.Add(1)
			if c.onESP != nil {
				c.onESP(p, b)
			}
			return
		}
		b = b[markerLen:]
	}
	if len(b) < minIKE {
		c.stats.runts.Add(1)
		return
	}
	c.stats.ike.Add(1)
	recv(p, b)
}
