package dgram

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options are for New.
type Options struct {
	// IPv6 says that the socket is of that family.
	IPv6 bool
	// Join lets the kernel join and cut datagrams; for UDP alone. Where it cannot, it does without.
	Join bool
}

// Conn is one socket. Send may be called from any goroutine; each Reader is for one.
type Conn struct {
	raw    syscall.RawConn
	ipv6   bool
	joined bool // received datagrams may be joined
	out    sender
}

// New wraps a bound socket, which stays the caller's to close; that ends Reader.Read.
func New(socket syscall.Conn, o Options) (*Conn, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &Conn{raw: raw, ipv6: o.IPv6}
	if o.Join {
		err := raw.Control(func(fd uintptr) {
			c.joined = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
			// The size is given with each message; this only asks whether the kernel knows of it.
			_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
			c.out.cut = err == nil
		})
		if err != nil {
			return nil, err
		}
	}
	c.out.prepare(c)
	return c, nil
}

// SetBuffers asks for room for n octets in the socket's queues, past the system's limit if we may.
func (c *Conn) SetBuffers(n int) {
	c.raw.Control(func(fd uintptr) {
		for _, o := range [][2]int{{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF}, {unix.SO_SNDBUFFORCE, unix.SO_SNDBUF}} {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[0], n) != nil {
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, o[1], n) // as much of it as is granted
			}
		}
	})
}

// mmsghdr is struct mmsghdr of sys/socket.h.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// addrPort reads a socket address of either family.
func addrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	if sa.Family == unix.AF_INET {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), port(&sa4.Port))
	}
	a := netip.AddrFrom16(sa.Addr).Unmap()
	if sa.Scope_id != 0 && a.IsLinkLocalUnicast() {
		a = a.WithZone(strconv.Itoa(int(sa.Scope_id)))
	}
	return netip.AddrPortFrom(a, port(&sa.Port))
}

func port(p *uint16) uint16 { return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:]) }

// putAddrPort writes a socket address of the family and returns its length.
func putAddrPort(sa *unix.RawSockaddrInet6, ipv6 bool, to netip.AddrPort) uint32 {
	if !ipv6 {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		sa4.Family, sa4.Addr = unix.AF_INET, to.Addr().Unmap().As4()
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa4.Port))[:], to.Port())
		return unix.SizeofSockaddrInet4
	}
	sa.Family, sa.Addr, sa.Scope_id = unix.AF_INET6, to.Addr().As16(), zone(to.Addr())
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], to.Port())
	return unix.SizeofSockaddrInet6
}

// zone is the index of the interface that a link-local address is on.
func zone(a netip.Addr) uint32 {
	z := a.Zone()
	if z == "" {
		return 0
	}
	if n, err := strconv.ParseUint(z, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(z); err == nil {
		return uint32(i.Index)
	}
	return 0
}
