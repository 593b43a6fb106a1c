package natt

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"culvert/board/dgram"
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
// Close; but first, unless it is nil, with those that begin an exchange, several at once. Both are called from several goroutines at once and
// must not keep what they are given. As long as first does not return, no more such messages are taken from the kernel.
func (c *Conns) Serve(recv func(p ipsec.Path, msg []byte), first func([]Message)) {
	for _, s := range c.socks {
		go c.read(s, recv, first)
	}
}

// Datagrams taken from the kernel at once: IKE comes one by one, data in bursts.
const (
	batchIKE = 1
	batchESP = 8
)

func (c *Conns) read(s *sock, recv func(ipsec.Path, []byte), first func([]Message)) {
	in := c.input(s, recv, first)
	for {
		if err := in.read(); err != nil {
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

// input is what reads one socket.
type input struct {
	c       *Conns
	s       *sock
	recv    func(ipsec.Path, []byte)
	firsts  firsts
	esp     func(ipsec.Path, []byte) // or nil
	flush   func()
	reader  *dgram.Reader
	message func(*dgram.Message)
}

func (c *Conns) input(s *sock, recv func(ipsec.Path, []byte), first func([]Message)) *input {
	in, batch, size := &input{c: c, s: s, recv: recv, firsts: firsts{recv: first}, flush: func() {}}, batchIKE, MaxMessage
	if s.marker && c.esp != nil {
		in.esp, in.flush = c.esp()
		batch = batchESP
	}
	if s.strangers {
		batch, size = batchFirst, maxFirst
	}
	in.message = in.one
	in.reader = s.dgrams.Reader(batch, size)
	return in
}

// read receives and delivers what has arrived, without allocating.
func (in *input) read() error {
	if err := in.reader.Read(in.message); err != nil {
		return err
	}
	in.flush()
	in.firsts.flush()
	return nil
}

func (in *input) one(m *dgram.Message) {
	if m.Truncated {
		in.c.stats.truncated.Add(1)
		return
	}
	p := ipsec.Path{Local: in.s.local, Remote: m.From}
	if m.To.IsValid() {
		p.Local = netip.AddrPortFrom(m.To, in.s.local.Port())
	}
	in.deliver(p, m.Data)
}

// deliver tells keepalives, IKE and ESP apart (RFC 3948 section 2).
func (in *input) deliver(p ipsec.Path, b []byte) {
	stats := &in.c.stats
	if in.s.marker {
		switch {
		case len(b) == keepaliveLen && b[0] == keepaliveOct:
			stats.keepalives.Add(1)
			return
		case len(b) < markerLen:
			stats.runts.Add(1)
			return
		case b[0]|b[1]|b[2]|b[3] != 0:
			if len(b) < minESP {
				stats.runts.Add(1)
				return
			}
			stats.esp.Add(1)
			if in.esp != nil {
				in.esp(p, b)
			}
			return
		}
		b = b[markerLen:]
	}
	switch {
	case len(b) < minIKE:
		stats.runts.Add(1)
	case len(b) > MaxMessage:
		stats.truncated.Add(1)
	case in.firsts.recv != nil && begins(b):
		stats.ike.Add(1)
		in.firsts.add(p, b)
	default:
		stats.ike.Add(1)
		in.recv(p, b)
	}
}
