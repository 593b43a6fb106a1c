package user

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// reference is RFC 1071's checksum as it stands there.
func reference(b []byte, sum uint32) uint16 {
	for i, v := range b {
		if i%2 == 0 {
			sum += uint32(v) << 8
		} else {
			sum += uint32(v)
		}
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func TestChecksum(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{2})
	b := make([]byte, 300)
	for n := range b {
		rnd.Read(b)
		if n%3 == 0 {
			for i := range b {
				b[i] = 0xff
			}
		}
		if got, want := fold(checksum(b[:n], 7)), reference(b[:n], 7); got != want {
			t.Fatalf("%d octets: %04x, want %04x", n, got, want)
		}
	}
	for _, sum := range []uint64{0, 1<<64 - 1, 0xffff, 0x10000, 0xffff0000ffff} {
		if f := fold(sum); uint64(f)%0xffff != sum%0xffff || f == 0 && sum != 0 {
			t.Errorf("%x folds to %x", sum, f)
		}
	}
}

// verify checks a packet's lengths and checksums from its headers alone.
func verify(t testing.TB, b []byte, udp bool) (upper []byte) {
	t.Helper()
	var sum uint32
	add := func(b []byte) { sum = uint32(reference(b, sum)) }
	if b[0]>>4 == 4 {
		header := int(b[0]&15) * 4
		if int(binary.BigEndian.Uint16(b[2:])) != len(b) || reference(b[:header], 0) != 0xffff {
			t.Fatalf("IPv4 header %x of %d octets", b[:header], len(b))
		}
		upper = b[header:]
		add(b[12:20])
	} else {
		if int(binary.BigEndian.Uint16(b[4:])) != len(b)-40 {
			t.Fatalf("IPv6 header %x of %d octets", b[:40], len(b))
		}
		upper = b[40:]
		add(b[8:40])
	}
	protocol := byte(protocolTCP)
	if udp {
		protocol = protocolUDP
		if int(binary.BigEndian.Uint16(upper[4:])) != len(upper) || binary.BigEndian.Uint16(upper[6:]) == 0 {
			t.Fatalf("UDP header %x of %d octets", upper[:8], len(upper))
		}
	}
	add([]byte{0, protocol, byte(len(upper) >> 8), byte(len(upper))})
	if reference(upper, sum) != 0xffff {
		t.Fatalf("checksum of %x...", upper[:8])
	}
	return upper
}

// large builds a packet as the kernel gives it: the sum of the pseudo-header in place of the checksum.
func large(ipv6, udp bool, options, payload, size int, fill byte) (vnetHeader, []byte) {
	h := vnetHeader{flags: unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, gsoSize: uint16(size), csumStart: ip4Len, csumOffset: tcpSum}
	if ipv6 {
		h.csumStart = ip6Len
	}
	transport, protocol := tcpLen+options, byte(protocolTCP)
	h.gsoType = unix.VIRTIO_NET_HDR_GSO_TCPV4
	if ipv6 {
		h.gsoType = unix.VIRTIO_NET_HDR_GSO_TCPV6
	}
	if udp {
		transport, protocol = udpLen, protocolUDP
		h.gsoType, h.csumOffset = unix.VIRTIO_NET_HDR_GSO_UDP_L4, udpSum
	}
	start := int(h.csumStart)
	b := make([]byte, start+transport+payload)
	for i := range b[start:] {
		b[start+i] = fill + byte(i*i>>3)
	}
	upper := b[start:]
	addresses := b[ip4Addresses:ip4Len]
	if ipv6 {
		b[0], b[ip6Next] = 0x60, protocol
		binary.BigEndian.PutUint16(b[ip6Payload:], uint16(len(upper)))
		addresses = b[ip6Addresses:ip6Len]
	} else {
		b[0], b[ip4Protocol], b[ip4Fragment] = 0x45, protocol, 0x40
		binary.BigEndian.PutUint16(b[ip4Total:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[ip4ID:], 0xfffe)
	}
	for i := range addresses {
		addresses[i] = byte(i) ^ fill
	}
	if !ipv6 {
		binary.BigEndian.PutUint16(b[ip4Sum:], ^fold(checksum(b[:ip4Len], 0)))
	}
	field := tcpSum
	if udp {
		binary.BigEndian.PutUint16(upper[udpLength:], uint16(len(upper)))
		field = udpSum
	} else {
		upper[tcpOffset] = byte(transport/4) << 4
		upper[tcpFlags] = tcpACK | tcpPSH | tcpFIN | tcpCWR
	}
	binary.BigEndian.PutUint16(upper[field:], fold(pseudo(addresses, protocol, len(upper))))
	return h, b
}

// cut segments a packet and checks each segment, and that they make the payload again.
func cut(t testing.TB, h vnetHeader, packet []byte) [][]byte {
	t.Helper()
	var s segmenter
	if err := s.init(h, packet); err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	var payload []byte
	sequence := s.sequence
	for {
		dst := make([]byte, s.most())
		n := s.next(dst)
		if n == 0 {
			break
		}
		upper := verify(t, dst[:n], s.udp)
		data := dst[s.headers:n]
		last := len(payload)+len(data) == len(packet)-s.headers
		if !last && len(data) != int(h.gsoSize) {
			t.Fatalf("a segment of %d octets, not %d", len(data), h.gsoSize)
		}
		if !s.udp {
			if got := binary.BigEndian.Uint32(upper[tcpSequence:]); got != sequence+uint32(len(payload)) {
				t.Fatalf("sequence %d at %d octets", got, len(payload))
			}
			whole := packet[s.start+tcpFlags]
			want := whole
			if !last {
				want &^= tcpFIN | tcpPSH
			}
			if len(out) > 0 {
				want &^= tcpCWR
			}
			if upper[tcpFlags] != want {
				t.Fatalf("flags %02x, want %02x of %02x", upper[tcpFlags], want, whole)
			}
		}
		payload = append(payload, data...)
		out = append(out, dst[:n])
	}
	if !bytes.Equal(payload, packet[s.headers:]) {
		t.Fatal("the segments do not make the payload")
	}
	if s.next(make([]byte, s.most())) != 0 {
		t.Fatal("segments without end")
	}
	return out
}

func TestSegments(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for _, c := range []struct{ options, payload, size, segments int }{
				{0, 0, 1000, 1}, {0, 1, 1000, 1}, {12, 1000, 1000, 1}, {12, 1001, 1000, 2}, {40, 64000, 1348, 48}, {0, 333, 1, 333},
			} {
				h, b := large(ipv6, udp, c.options, c.payload, c.size, 3)
				if got := cut(t, h, b); len(got) != c.segments {
					t.Errorf("ipv6 %v, udp %v, %+v: %d segments", ipv6, udp, c, len(got))
				}
			}
		}
	}
	// IPv4's identification counts up, around its end.
	h, b := large(false, false, 0, 3000, 1000, 0)
	for i, s := range cut(t, h, b) {
		if id := binary.BigEndian.Uint16(s[ip4ID:]); id != 0xfffe+uint16(i) {
			t.Errorf("identification %x of segment %d", id, i)
		}
	}
}

func TestComplete(t *testing.T) {
	for _, udp := range []bool{false, true} {
		for n := range 70 {
			h, b := large(n%2 == 0, udp, 0, n, 1, byte(n))
			h.gsoType, h.gsoSize = 0, 0
			if err := complete(h, b); err != nil {
				t.Fatal(err)
			}
			verify(t, b, udp)
			if err := complete(h, b[:int(h.csumStart+h.csumOffset)+1]); err == nil {
				t.Error("no room for the checksum, and no error")
			}
		}
	}
}

func FuzzSegments(f *testing.F) {
	for _, ipv6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			h, b := large(ipv6, udp, 12, 3000, 1000, 1)
			f.Add(h.flags, h.gsoType, h.gsoSize, h.csumStart, h.csumOffset, b)
		}
	}
	f.Fuzz(func(t *testing.T, flags, kind uint8, size, start, offset uint16, b []byte) {
		h := vnetHeader{flags: flags, gsoType: kind, gsoSize: size, csumStart: start, csumOffset: offset}
		complete(h, bytes.Clone(b))
		var s segmenter
		if s.init(h, b) != nil {
			return
		}
		dst, total := make([]byte, s.most()), 0
		for n := s.next(dst); n != 0; n = s.next(dst) {
			total += n - s.headers
		}
		if total != len(b)-s.headers {
			t.Fatalf("%d octets of payload became %d", len(b)-s.headers, total)
		}
	})
}

// FuzzLarge: whatever the shape, a valid large packet becomes valid segments.
func FuzzLarge(f *testing.F) {
	f.Add(true, true, uint8(0), uint16(3000), uint16(1000), byte(0))
	f.Add(false, false, uint8(3), uint16(65000), uint16(7), byte(9))
	f.Fuzz(func(t *testing.T, ipv6, udp bool, options uint8, payload, size uint16, fill byte) {
		headers := ip4Len + tcpLen + int(options%11)*4
		if ipv6 {
			headers += ip6Len - ip4Len
		}
		if size == 0 || headers+int(payload) > maxPacket || headers+int(size) > maxPacket || int(payload)/int(size) > 1000 {
			return
		}
		h, b := large(ipv6, udp, int(options%11)*4, int(payload), int(size), fill)
		cut(t, h, b)
	})
}

// TestCoalesce: what is cut and joined again is what it was.
func TestCoalesce(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		h, b := large(ipv6, false, 12, 20000, 1300, 5)
		b[h.csumStart+tcpFlags] = tcpACK | tcpPSH
		c := coalescer{buf: make([]byte, maxJoined)}
		parts := cut(t, h, b)
		for i, p := range parts {
			s, ok := parseSegment(p)
			if !ok {
				t.Fatalf("segment %d is not taken", i)
			}
			if i == 0 {
				c.begin(s, p)
			} else if !c.join(s, p) {
				t.Fatalf("segment %d does not join", i)
			}
		}
		// Nothing follows what was pushed.
		s, _ := parseSegment(parts[0])
		s.sequence = c.sequence
		if c.join(s, parts[0]) {
			t.Error("joined behind the end")
		}
		g, joined := c.finish()
		if !bytes.Equal(joined, b) {
			t.Errorf("joined\n%x, not\n%x", joined[:80], b[:80])
		}
		if h.hdrLen = g.hdrLen; g != h || int(g.hdrLen) != int(h.csumStart)+tcpLen+12 {
			t.Errorf("header %+v, want %+v", g, h)
		}
		if !bytes.Equal(bytes.Join(cut(t, g, joined), nil), bytes.Join(parts, nil)) {
			t.Error("segmented otherwise")
		}
		c.begin(s, parts[0])
		if g, one := c.finish(); g != (vnetHeader{}) || !bytes.Equal(one, parts[0]) {
			t.Error("a lone segment was changed")
		}
	}
}

// fix makes the checksums of a segment right again.
func fix(b []byte) {
	start, addresses := ip4Len, b[ip4Addresses:ip4Len]
	if b[0]>>4 == 6 {
		start, addresses = ip6Len, b[ip6Addresses:ip6Len]
	} else {
		binary.BigEndian.PutUint16(b[ip4Sum:], 0)
		binary.BigEndian.PutUint16(b[ip4Sum:], ^fold(checksum(b[:start], 0)))
	}
	binary.BigEndian.PutUint16(b[start+tcpSum:], 0)
	binary.BigEndian.PutUint16(b[start+tcpSum:], ^fold(checksum(b[start:], pseudo(addresses, protocolTCP, len(b)-start))))
}

// TestNotCoalesced: a bit that differs anywhere keeps segments apart, or leaves a segment to the kernel.
func TestNotCoalesced(t *testing.T) {
	for _, ipv6 := range []bool{false, true} {
		h, b := large(ipv6, false, 12, 2600, 1300, 5)
		b[h.csumStart+tcpFlags] = tcpACK
		parts := cut(t, h, b)
		headers := int(h.csumStart) + tcpLen + 12
		first, ok := parseSegment(parts[0])
		if !ok {
			t.Fatal("not taken")
		}
		for bit := range headers * 8 {
			for _, right := range []bool{false, true} {
				p := bytes.Clone(parts[1])
				p[bit/8] ^= 0x80 >> (bit % 8)
				at := bit/8 - int(h.csumStart)
				if right {
					fix(p)
					if at == tcpFlags && p[bit/8] == tcpACK|tcpPSH {
						continue // may be joined
					}
					if !ipv6 && (bit/8 == ip4ID || bit/8 == ip4ID+1) || at == tcpSum || at == tcpSum+1 || !ipv6 && (bit/8 == ip4Sum || bit/8 == ip4Sum+1) {
						continue // without meaning, or put right
					}
				} else if ipv6 && bit/8 < ip6Addresses && bit/8 != ip6Next && bit/8 != 0 && bit/8 != ip6Payload && bit/8 != ip6Payload+1 {
					continue // no checksum, compared
				}
				s, ok := parseSegment(p)
				if !right && ok && !(ipv6 && bit/8 == 0) {
					t.Errorf("ipv6 %v: taken with bit %d wrong", ipv6, bit)
				}
				c := coalescer{buf: make([]byte, maxJoined)}
				c.begin(first, parts[0])
				if ok && c.join(s, p) {
					t.Errorf("ipv6 %v: joined although bit %d differs (checksums right: %v)", ipv6, bit, right)
				}
			}
		}
		for n := range parts[0] {
			if _, ok := parseSegment(parts[0][:n]); ok {
				t.Fatalf("taken although cut at %d", n)
			}
		}
		if !ipv6 { // identifications without DF have to count
			p, q := bytes.Clone(parts[0]), bytes.Clone(parts[1])
			p[ip4Fragment], q[ip4Fragment] = 0, 0
			fix(p)
			for _, id := range []uint16{0xfffe, 0xffff} {
				binary.BigEndian.PutUint16(q[ip4ID:], id)
				fix(q)
				a, _ := parseSegment(p)
				s, _ := parseSegment(q)
				c := coalescer{buf: make([]byte, maxJoined)}
				c.begin(a, p)
				if c.join(s, q) != (id == 0xffff) {
					t.Errorf("identification %x behind fffe", id)
				}
			}
		}
	}
}

func FuzzCoalesce(f *testing.F) {
	h, b := large(false, false, 12, 3000, 1000, 1)
	b[h.csumStart+tcpFlags] = tcpACK
	fix(b)
	f.Add(b[:ip4Len+tcpLen+12+1000], b)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		c := coalescer{buf: make([]byte, maxJoined)}
		s, ok := parseSegment(a)
		if !ok || len(a) > maxJoined {
			return
		}
		c.begin(s, a)
		if s, ok = parseSegment(b); !ok || !c.join(s, b) {
			return
		}
		g, joined := c.finish()
		cut(t, g, joined)
	})
}

func TestOffloadAllocations(t *testing.T) {
	h, b := large(false, false, 12, 60000, 1300, 5)
	b[h.csumStart+tcpFlags] = tcpACK
	parts := cut(t, h, b)
	dst := make([]byte, 2048)
	c := coalescer{buf: make([]byte, maxJoined)}
	if n := testing.AllocsPerRun(20, func() {
		var s segmenter
		s.init(h, b)
		for s.next(dst) != 0 {
		}
		for i, p := range parts {
			if s, _ := parseSegment(p); i == 0 {
				c.begin(s, p)
			} else {
				c.join(s, p)
			}
		}
		c.finish()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSegment(b *testing.B) {
	h, p := large(false, false, 12, 60000, 1348, 5)
	dst := make([]byte, 2048)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		var s segmenter
		s.init(h, p)
		for s.next(dst) != 0 {
		}
	}
}

func BenchmarkChecksum(b *testing.B) {
	p := make([]byte, 1400)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		checksum(p, 0)
	}
}
