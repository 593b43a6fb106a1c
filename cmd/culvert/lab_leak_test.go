package main

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
)

func TestLabCleartext(t *testing.T) { inLab(t, onKernel(cleartext)) }

// cleartext: what comes in the clear, however well it knows the tunnel, reaches nothing; and nothing of the tunnel leaves
// in the clear.
func cleartext(t *testing.T, l *lab.L, path labPath) {
	r := newRig(t, l, rigConfig{Path: path})
	outside := r.server.Capture("eth0", func(p lab.Packet) bool { return p.Src.Addr().Is4() && p.Out && !p.IKE() })
	c := r.client(1, port1701)
	addr := r.connect(c)
	r.reaches(c, addr)
	rows := r.Rows("/ppp active print")
	if len(rows) != 1 {
		t.Fatalf("/ppp active print: %v", rows)
	}
	tunnel, session := uint16(rows[0].Int("tunnel-id")), uint16(rows[0].Int("l2tp-session-id"))
	if tunnel == 0 || session == 0 {
		t.Fatalf("no tunnel in %v", rows[0])
	}
	const mark = "sent in the clear"
	inside := r.lan.Capture("eth0", func(p lab.Packet) bool { return string(p.Payload) == mark })
	arrived := r.server.Capture("eth0", func(p lab.Packet) bool { return !p.Out && p.Proto == unix.IPPROTO_UDP && p.Dst.Port() == 1701 })

	client := c.Up.Addrs[0]
	for range 20 {
		for _, frame := range [][]byte{
			l2tpData(tunnel, session, udp4(addr, labHost, 7, mark), false),
			l2tpData(tunnel, session, udp4(addr, labHost, 7, mark), true),
			l2tpControl(tunnel, 0, 4),        // StopCCN
			l2tpControl(tunnel, session, 14), // CDN
			l2tpControl(0, 0, 1),             // SCCRQ
		} {
			spoof(t, r.internet, client, labServer, frame)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := arrived.Stop(); len(got) < 100 {
		t.Errorf("only %d of 100 forged packets got to the server at all", len(got))
	}
	if got := inside.Stop(); len(got) > 0 {
		t.Errorf("%d forged packets came through, the first %v", len(got), got[0])
	}
	if rows := r.Rows("/ppp active print"); len(rows) != 1 {
		t.Errorf("the session did not survive: %v", rows)
	}
	r.reaches(c, addr)
	if _, err := c.Transfer(r.lan, labHost, 5<<20); err != nil {
		t.Error(err)
	}
	if got := outside.Stop(); len(got) > 0 {
		t.Errorf("%d packets left the server outside of IPsec, the first %v", len(got), got[0])
	}
	// With the session its route goes, and what the LAN still sends to the client is routed like any other packet.
	outside = r.server.Capture("eth0", func(p lab.Packet) bool {
		return p.Src.Addr().Is4() && p.Out && !p.IKE() && p.Src.Addr() != labHost
	})
	if err := c.Disconnect(t.Context()); err != nil {
		t.Error(err)
	}
	r.clean()
	if got := outside.Stop(); len(got) > 0 {
		t.Errorf("%d packets left the server outside of IPsec with its goodbye, the first %v", len(got), got[0])
	}
}

func TestLabEarly(t *testing.T) { inLab(t, onKernel(early)) }

// early: the client's last message of quick mode is lost, so that its L2TP comes through an SA that has no way back yet, and
// its SAs are deleted while the LAN sends to it. Neither has the server answer in the clear.
func early(t *testing.T, l *lab.L, path labPath) {
	r := newRig(t, l, rigConfig{Path: path, Users: 3, UseIPsec: "yes"})
	outside := r.server.Capture("eth0", func(p lab.Packet) bool {
		return p.Out && p.Proto == unix.IPPROTO_UDP && (p.Src.Port() == 1701 || p.Dst.Port() == 1701)
	})
	arrived := r.server.Capture("eth0", func(p lab.Packet) bool { return !p.Out && p.ESP() })
	r.internet.NFT("table ip lossy { chain forward { type filter hook forward priority 0; ip saddr 198.51.100.1 udp dport 500 udp length 84 drop; }; }")
	go func() {
		l.WaitFor(30*time.Second, func() bool { return len(arrived.Packets()) >= 2 })
		r.internet.Run("nft", "delete", "table", "ip", "lossy")
	}()
	c := r.client(1, port1701)
	addr := r.connect(c)
	r.reaches(c, addr)
	if got := arrived.Stop(); len(got) < 2 {
		t.Errorf("only %d packets of ESP", len(got))
	}
	for i := 1; ; i++ {
		down, err := r.lan.StartPing(addr, 2*time.Millisecond, 200)
		l.Must(err, "ping")
		if !l.WaitFor(10*time.Second, func() bool { _, got := down.Counts(); return got >= 100 }) {
			t.Error("no echoes come back")
		}
		if err := c.Charon.Terminate(t.Context()); err != nil {
			t.Error(err)
		}
		if sent, got := down.Stop(); got < sent/4 {
			t.Errorf("%d of %d echoes came back before the end", got, sent)
		}
		if i == 3 {
			break
		}
		c = r.client(1+i, port1701)
		addr = r.connect(c)
	}
	r.clean()
	if got := outside.Stop(); len(got) > 0 {
		t.Errorf("%d packets left the server outside of IPsec, the first %v", len(got), got[0])
	}
}

// spoof sends a UDP datagram from port 1701 to port 1701 with any source address.
func spoof(t *testing.T, from *lab.Node, src, dst netip.Addr, payload []byte) {
	t.Helper()
	var err error
	from.Do(func() {
		var s int
		if s, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return
		}
		defer unix.Close(s)
		err = unix.Sendto(s, udp4from(src, dst, 1701, 1701, payload), 0, &unix.SockaddrInet4{Addr: dst.As4()})
	})
	if err != nil {
		t.Fatalf("send a forged packet: %v", err)
	}
}

// udp4 is an IPv4 packet with a UDP datagram in it.
func udp4(src, dst netip.Addr, port uint16, payload string) []byte {
	return udp4from(src, dst, port, port, []byte(payload))
}

func udp4from(src, dst netip.Addr, sport, dport uint16, payload []byte) []byte {
	b := make([]byte, 28, 28+len(payload))
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(28+len(payload)))
	s, d := src.As4(), dst.As4()
	copy(b[12:], s[:])
	copy(b[16:], d[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(b[20:], sport)
	binary.BigEndian.PutUint16(b[22:], dport)
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(payload))) // without checksum, which IPv4 allows
	return append(b, payload...)
}

// l2tpData is a data message (RFC 2661 section 3.1) with an IPv4 packet in PPP.
func l2tpData(tunnel, session uint16, packet []byte, length bool) []byte {
	var b []byte
	if length {
		b = binary.BigEndian.AppendUint16(b, 0x4002)
		b = binary.BigEndian.AppendUint16(b, uint16(8+4+len(packet)))
	} else {
		b = binary.BigEndian.AppendUint16(b, 0x0002)
	}
	b = binary.BigEndian.AppendUint16(b, tunnel)
	b = binary.BigEndian.AppendUint16(b, session)
	return append(append(b, 0xff, 0x03, 0x00, 0x21), packet...)
}

// l2tpControl is a control message with no more than its type and, for a goodbye, an assigned id and a result code.
func l2tpControl(tunnel, session, kind uint16) []byte {
	avp := func(attribute uint16, value ...byte) []byte {
		b := binary.BigEndian.AppendUint16(nil, 0x8000|uint16(6+len(value)))
		b = binary.BigEndian.AppendUint16(b, 0)
		return append(binary.BigEndian.AppendUint16(b, attribute), value...)
	}
	avps := avp(0, byte(kind>>8), byte(kind))
	switch kind {
	case 1: // SCCRQ
		avps = append(avps, avp(2, 1, 0)...)                                      // protocol version
		avps = append(avps, avp(7, []byte("forged")...)...)                       // host name
		avps = append(append(avps, avp(3, 0, 0, 0, 3)...), avp(9, 0x12, 0x34)...) // framing, assigned tunnel id
	case 4:
		avps = append(append(avps, avp(9, 0x12, 0x34)...), avp(1, 0, 1)...)
	case 14:
		avps = append(append(avps, avp(1, 0, 1)...), avp(14, 0x12, 0x34)...)
	}
	b := binary.BigEndian.AppendUint16(nil, 0xc802)
	b = binary.BigEndian.AppendUint16(b, uint16(12+len(avps)))
	b = binary.BigEndian.AppendUint16(b, tunnel)
	b = binary.BigEndian.AppendUint16(b, session)
	b = binary.BigEndian.AppendUint16(b, 3) // Ns, Nr: what the peer may well expect next
	b = binary.BigEndian.AppendUint16(b, 2)
	return append(b, avps...)
}
