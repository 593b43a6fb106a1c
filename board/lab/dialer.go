package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

// A Dialled is an L2TP tunnel with one session and PPP on it, spoken by the lab itself: no daemon, no kernel, no data, so
// that a benchmark of sessions measures the server. It shares no code with the server under test.
type Dialled struct {
	Addr netip.Addr // given by the server

	conn             *net.UDPConn
	user, password   string
	tunnel, session  uint16 // ours
	rtunnel, rsess   uint16 // the server's
	ns, nr           uint16
	lcpOut, lcpIn    bool // our request acknowledged, theirs acknowledged
	authSent, opened bool
	ipcpIn           bool
	unacked, lastPPP []byte
	id               byte
}

var dialSerial atomic.Uint32

// DialL2TP opens a tunnel and a session to a plain L2TP server from the node, with PAP, up to an open IPCP.
func (n *Node) DialL2TP(ctx context.Context, server netip.AddrPort, user, password string) (*Dialled, error) {
	var err error
	serial := dialSerial.Add(1)
	d := &Dialled{user: user, password: password, tunnel: uint16(serial%65535 + 1), session: uint16(serial%65535 + 1), rtunnel: 0}
	n.Do(func() { d.conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(server)) })
	if err != nil {
		return nil, err
	}
	if err := d.run(ctx); err != nil {
		d.conn.Close()
		return nil, err
	}
	return d, nil
}

// Close ends the tunnel with a StopCCN and waits for its acknowledgement.
func (d *Dialled) Close() {
	defer d.conn.Close()
	d.control(4, 0, avp(9, be16(d.tunnel)), avp(1, be16(1)))
	buf := make([]byte, 2048)
	for range 20 {
		d.conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
		m, err := d.conn.Read(buf)
		if err != nil {
			d.conn.Write(d.unacked)
			continue
		}
		if h, _, ok := parseL2TP(buf[:m]); ok && h.control && h.nr == d.ns {
			return
		}
	}
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func avp(attribute uint16, value []byte) []byte {
	b := be16(0x8000 | uint16(6+len(value)))
	b = append(b, 0, 0)
	return append(append(b, be16(attribute)...), value...)
}

// control sends a control message and keeps it until it is acknowledged.
func (d *Dialled) control(kind uint16, session uint16, avps ...[]byte) {
	b := d.header(session)
	b = append(b, avp(0, be16(kind))...)
	for _, a := range avps {
		b = append(b, a...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	d.ns++
	d.unacked = b
	d.conn.Write(b)
}

func (d *Dialled) header(session uint16) []byte {
	b := append(be16(0xc802), 0, 12)
	b = append(append(b, be16(d.rtunnel)...), be16(session)...)
	return append(append(b, be16(d.ns)...), be16(d.nr)...)
}

// ppp sends a frame on the session.
func (d *Dialled) ppp(protocol uint16, code, id byte, body []byte) {
	b := append(append(be16(0x0002), be16(d.rtunnel)...), be16(d.rsess)...)
	b = append(append(b, 0xff, 0x03), be16(protocol)...)
	b = append(append(b, code, id), be16(uint16(4+len(body)))...)
	b = append(b, body...)
	if code == 1 {
		d.lastPPP = b
	}
	d.conn.Write(b)
}

type l2tpHeader struct {
	control         bool
	tunnel, session uint16
	ns, nr          uint16
}

func parseL2TP(b []byte) (h l2tpHeader, body []byte, ok bool) {
	if len(b) < 6 {
		return h, nil, false
	}
	flags := binary.BigEndian.Uint16(b)
	h.control = flags&0x8000 != 0
	b = b[2:]
	take := func(n int) []byte {
		if len(b) < n {
			ok = false
			return make([]byte, n)
		}
		v := b[:n]
		b = b[n:]
		return v
	}
	ok = true
	if flags&0x4000 != 0 {
		take(2)
	}
	h.tunnel, h.session = binary.BigEndian.Uint16(take(2)), binary.BigEndian.Uint16(take(2))
	if flags&0x0800 != 0 {
		h.ns, h.nr = binary.BigEndian.Uint16(take(2)), binary.BigEndian.Uint16(take(2))
	}
	if flags&0x0200 != 0 {
		take(int(binary.BigEndian.Uint16(take(2))))
	}
	return h, b, ok
}

func (d *Dialled) run(ctx context.Context) error {
	d.control(1, 0, avp(2, []byte{1, 0}), avp(3, be32(3)), avp(7, []byte("lab")), avp(9, be16(d.tunnel)), avp(10, be16(8)))
	buf := make([]byte, 2048)
	quiet := 0
	for !d.opened {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		m, err := d.conn.Read(buf)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
				// ECONNREFUSED while the server starts
				time.Sleep(20 * time.Millisecond)
			}
			if quiet++; quiet > 40 {
				return fmt.Errorf("no answer: %w", err)
			}
			if d.unacked != nil {
				d.conn.Write(d.unacked)
			} else if d.lastPPP != nil {
				d.conn.Write(d.lastPPP)
			} else if d.rsess != 0 {
				d.lcp()
			}
			continue
		}
		h, body, ok := parseL2TP(buf[:m])
		if !ok || h.tunnel != d.tunnel {
			continue
		}
		quiet = 0
		if !h.control {
			if err := d.frame(body); err != nil {
				return err
			}
			continue
		}
		if h.nr == d.ns {
			d.unacked = nil
		}
		if len(body) == 0 {
			continue
		}
		if h.ns != d.nr {
			d.conn.Write(d.header(0)) // a repetition: acknowledge again
			continue
		}
		d.nr++
		if err := d.message(body); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dialled) message(body []byte) error {
	avps := map[uint16][]byte{}
	for len(body) >= 6 {
		n := int(binary.BigEndian.Uint16(body) & 0x3ff)
		if n < 6 || n > len(body) {
			return errors.New("malformed AVP")
		}
		avps[binary.BigEndian.Uint16(body[4:])] = body[6:n]
		body = body[n:]
	}
	number := func(attribute uint16) uint16 {
		if v := avps[attribute]; len(v) >= 2 {
			return binary.BigEndian.Uint16(v)
		}
		return 0
	}
	switch kind := number(0); kind {
	case 2: // SCCRP
		d.rtunnel = number(9)
		d.control(3, 0)
		d.control(10, 0, avp(14, be16(d.session)), avp(15, be32(uint32(d.session))))
	case 11: // ICRP
		d.rsess = number(14)
		d.control(12, d.rsess, avp(24, be32(100_000_000)), avp(19, be32(1)))
		// Our first PPP frame waits for the server's: sent now, it would be lost on a server that still has to start a pppd.
	case 4, 14:
		return fmt.Errorf("refused with result %d", number(1))
	default: // HELLO, SLI ...
		d.conn.Write(d.header(0))
	}
	return nil
}

// lcp asks for a link with nothing special about it.
func (d *Dialled) lcp() {
	d.id++
	d.ppp(0xc021, 1, d.id, append([]byte{5, 6}, be32(0x10000000|uint32(d.session))...))
}

func (d *Dialled) frame(b []byte) error {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 {
		b = b[2:]
	}
	if len(b) < 6 {
		return nil
	}
	protocol, code, id := binary.BigEndian.Uint16(b), b[2], b[3]
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < 4 || n > len(b)-2 {
		return nil
	}
	body := append([]byte(nil), b[6:2+n]...)
	switch {
	case protocol == 0xc021 && code == 1:
		d.ppp(0xc021, 2, id, body)
		d.lcpIn = true
		if d.lastPPP == nil {
			d.lcp()
		}
	case protocol == 0xc021 && code == 2:
		d.lcpOut = true
	case protocol == 0xc021 && code == 5:
		return errors.New("LCP terminated")
	case protocol == 0xc021 && code == 9 && len(body) >= 4:
		d.ppp(0xc021, 10, id, append(be32(0x10000000|uint32(d.session)), body[4:]...))
	case protocol == 0xc023 && code == 2:
		if !d.opened {
			d.id++
			d.ppp(0x8021, 1, d.id, []byte{3, 6, 0, 0, 0, 0})
		}
	case protocol == 0xc023 && code == 3:
		return errors.New("PAP refused")
	case protocol == 0x8021 && code == 1:
		d.ppp(0x8021, 2, id, body)
		d.ipcpIn = true
	case protocol == 0x8021 && code == 3 && len(body) >= 6:
		d.id++
		d.ppp(0x8021, 1, d.id, body[:6])
	case protocol == 0x8021 && code == 2 && len(body) >= 6:
		d.Addr = netip.AddrFrom4([4]byte(body[2:6]))
		d.lastPPP = nil
	case protocol != 0xc021 && protocol != 0xc023 && protocol != 0x8021:
		d.id++
		d.ppp(0xc021, 8, d.id, b[:2+n]) // Protocol-Reject
	}
	if d.lcpIn && d.lcpOut && !d.authSent {
		d.authSent = true
		d.id++
		auth := append([]byte{byte(len(d.user))}, d.user...)
		auth = append(append(auth, byte(len(d.password))), d.password...)
		d.ppp(0xc023, 1, d.id, auth)
	}
	d.opened = d.Addr.IsValid() && d.ipcpIn
	return nil
}
