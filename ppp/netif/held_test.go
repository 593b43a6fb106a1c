package netif

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// packet is one of IPv4 with right checksums.
func packet(src, dst string, proto byte, payload []byte) []byte {
	p := make([]byte, 20, 20+len(payload))
	p[0], p[8], p[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(p[2:], uint16(20+len(payload)))
	copy(p[12:], ip(src).AsSlice())
	copy(p[16:], ip(dst).AsSlice())
	binary.BigEndian.PutUint16(p[10:], ^sum(p))
	p = append(p, payload...)
	at := map[byte]int{6: 16, 17: 6}[proto]
	if at != 0 {
		binary.BigEndian.PutUint16(p[20+at:], 0)
		binary.BigEndian.PutUint16(p[20+at:], ^sum(pseudo(p)))
	}
	return p
}

// pseudo is what the checksum above IPv4 covers.
func pseudo(p []byte) []byte {
	b := append(bytes.Clone(p[12:20]), 0, p[9])
	b = binary.BigEndian.AppendUint16(b, uint16(len(p)-20))
	return append(b, p[20:]...)
}

func sum(b []byte) uint16 {
	var n uint32
	for i, c := range b {
		if i%2 == 0 {
			n += uint32(c) << 8
		} else {
			n += uint32(c)
		}
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}

func TestHeld(t *testing.T) {
	var h Held
	ours, theirs := packet("10.112.112.1", "192.0.2.1", 17, []byte("\x12\x34\x00\x35\x00\x0c\x00\x00abcd")), packet("192.168.1.7", "192.0.2.1", 6, bytes.Repeat([]byte("x1"), 20))
	for _, p := range [][]byte{ours, theirs} {
		if !h.Add(p) {
			t.Fatal("not held")
		}
	}
	for name, p := range map[string][]byte{
		"multicast": packet("10.112.112.1", "224.0.0.251", 17, make([]byte, 8)),
		"broadcast": packet("10.112.112.1", "255.255.255.255", 17, make([]byte, 8)),
		"short":     ours[:19], "IPv6": append([]byte{0x60}, ours[1:]...), "empty": nil, "long": append(bytes.Clone(ours), make([]byte, MaxHeld)...),
	} {
		if h.Add(p) {
			t.Errorf("%s is held", name)
		}
	}
	h.Readdress(ip("10.112.112.1"), ip("192.168.99.7"))
	var got [][]byte
	h.Release(func(p []byte) { got = append(got, p) })
	want := [][]byte{packet("192.168.99.7", "192.0.2.1", 17, ours[20:]), theirs}
	if len(got) != 2 || !bytes.Equal(got[0], want[0]) || !bytes.Equal(got[1], want[1]) {
		t.Errorf("released\n%x, want\n%x", got, want)
	}
	late := packet("10.112.112.1", "192.0.2.1", 6, bytes.Repeat([]byte("yz"), 12))
	if h.Last(late); !bytes.Equal(late, packet("192.168.99.7", "192.0.2.1", 6, late[20:])) {
		t.Errorf("%x", late)
	}
	h.Release(func([]byte) { t.Error("released twice") })
	for range 1000 {
		h.Add(theirs)
	}
	n := 0
	if h.Release(func([]byte) { n++ }); n != maxHeldPackets {
		t.Errorf("%d packets held", n)
	}
}

// Whatever a packet says of itself, its checksums stay as right or as wrong as they were.
func FuzzReaddress(f *testing.F) {
	f.Add(packet("10.112.112.1", "192.0.2.1", 17, make([]byte, 12)))
	f.Add(packet("10.112.112.1", "192.0.2.1", 6, make([]byte, 40)))
	f.Add([]byte{0x4f, 19: 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		var h Held
		h.Readdress(ip("10.112.112.1"), ip("10.0.0.1"))
		before := bytes.Clone(p)
		h.Last(p)
		if len(p) < 20 || p[0]>>4 != 4 || netip.AddrFrom4([4]byte(before[12:16])) != ip("10.112.112.1") {
			if !bytes.Equal(p, before) {
				t.Error("changed")
			}
			return
		}
		if header := int(p[0]&15) * 4; header >= 20 && header <= len(p) && sum(before[:header]) == 0xffff && sum(p[:header]) != 0xffff {
			t.Errorf("%x became %x", before, p)
		}
	})
}
