package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Packet is an IP packet seen on an interface.
type Packet struct {
	Time     time.Time
	Out      bool           // sent by the node
	Src, Dst netip.AddrPort // ports are zero where the protocol has none or in a later fragment
	Proto    uint8          // 17 UDP, 50 ESP ...
	Fragment bool           // not the whole packet
	Payload  []byte         // after the IP header; for UDP after the UDP header; cut to 2048 octets
	Length   int            // of the payload before that cut
}

// IKE reports whether the packet is IKE, ESP, ESP in UDP, or a NAT keepalive: all that an IPsec gateway may show outside.
func (p Packet) IKE() bool {
	if p.Proto == unix.IPPROTO_ESP {
		return true
	}
	return p.Proto == unix.IPPROTO_UDP && (p.port(500) || p.port(4500))
}

// ESP reports whether the packet is ESP, bare or in UDP.
func (p Packet) ESP() bool {
	return p.Proto == unix.IPPROTO_ESP ||
		p.Proto == unix.IPPROTO_UDP && p.port(4500) && len(p.Payload) > 4 && binary.BigEndian.Uint32(p.Payload) != 0
}

func (p Packet) port(n uint16) bool { return p.Src.Port() == n || p.Dst.Port() == n }

func (p Packet) String() string {
	return fmt.Sprintf("%s %v > %v proto %d length %d", p.Time.Format("15:04:05.000"), p.Src, p.Dst, p.Proto, p.Length)
}

// A Capture collects the packets that cross an interface.
type Capture struct {
	sock int
	keep func(Packet) bool
	mu   sync.Mutex
	got  []Packet
	end  atomic.Pointer[time.Time] // set by Stop
	done chan struct{}
	once sync.Once
}

// Capture begins to collect the packets of an interface that keep approves of (nil: all), 100,000 at most.
func (n *Node) Capture(iface string, keep func(Packet) bool) *Capture {
	n.lab.Helper()
	c := &Capture{keep: keep, done: make(chan struct{})}
	var err error
	n.Do(func() { err = c.open(iface) })
	n.lab.Must(err, "capture on "+n.Name+" "+iface)
	go c.read()
	return c
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

func (c *Capture) open(iface string) error {
	// Protocol 0 receives nothing until the bind, so nothing of another interface slips in.
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ifr, err := unix.NewIfreq(iface)
	if err == nil {
		err = unix.IoctlIfreq(s, unix.SIOCGIFINDEX, ifr)
	}
	if err == nil {
		unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
		var all uint16 = unix.ETH_P_ALL
		if binary.NativeEndian.Uint16([]byte{0, 1}) != 1 {
			all = htons(all)
		}
		err = unix.Bind(s, &unix.SockaddrLinklayer{Protocol: all, Ifindex: int(ifr.Uint32())})
	}
	if err != nil {
		unix.Close(s)
		return err
	}
	c.sock = s
	return nil
}

func (c *Capture) read() {
	defer close(c.done)
	b := make([]byte, 65536)
	for {
		n, from, err := unix.Recvfrom(c.sock, b, 0)
		if err != nil {
			// What had been queued at the stop has been read by now, or a deadline is over.
			if c.end.Load() != nil {
				return
			}
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			return
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		if end := c.end.Load(); end != nil && time.Now().After(*end) {
			return
		}
		p, ok := parsePacket(b[:n])
		if !ok {
			continue
		}
		p.Time, p.Out = time.Now(), ll.Pkttype == unix.PACKET_OUTGOING
		if c.keep != nil && !c.keep(p) {
			continue
		}
		c.mu.Lock()
		if len(c.got) < 100_000 {
			p.Payload = append([]byte(nil), p.Payload[:min(len(p.Payload), 2048)]...)
			c.got = append(c.got, p)
		}
		c.mu.Unlock()
	}
}

func parsePacket(b []byte) (p Packet, ok bool) {
	if len(b) < 20 {
		return p, false
	}
	var src, dst netip.Addr
	later := false
	switch b[0] >> 4 {
	case 4:
		head := int(b[0]&15) * 4
		if head < 20 || len(b) < head {
			return p, false
		}
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		frag := binary.BigEndian.Uint16(b[6:])
		p.Proto, p.Fragment, later = b[9], frag&0x3fff != 0, frag&0x1fff != 0
		b = b[head:]
	case 6:
		if len(b) < 40 {
			return p, false
		}
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		p.Proto = b[6]
		b = b[40:]
	default:
		return p, false
	}
	var sport, dport uint16
	if (p.Proto == unix.IPPROTO_UDP || p.Proto == unix.IPPROTO_TCP) && !later && len(b) >= 8 {
		sport, dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		if p.Proto == unix.IPPROTO_UDP {
			b = b[8:]
		}
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	p.Payload, p.Length = b, len(b)
	return p, true
}

// Packets returns what was collected so far.
func (c *Capture) Packets() []Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Packet(nil), c.got...)
}

// Stop ends the capture and returns what it collected.
func (c *Capture) Stop() []Packet {
	c.once.Do(func() {
		end := time.Now().Add(100 * time.Millisecond) // for what is queued
		c.end.Store(&end)
		<-c.done
		unix.Close(c.sock)
	})
	return c.Packets()
}
