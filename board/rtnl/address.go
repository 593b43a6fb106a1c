package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// Addr is an address of a link: in a network, or with a peer, whose network Peer is then.
type Addr struct {
	Index  int          // of the link
	Prefix netip.Prefix // the address, and its network unless there is a peer
	Peer   netip.Prefix
	Flags  uint32 // IFA_F_*
	Scope  uint8  // RT_SCOPE_*
}

// Addrs are those of a link. The family is AF_INET, AF_INET6 or AF_UNSPEC for both.
func (c *Conn) Addrs(index int, family uint8) ([]Addr, error) {
	question := make([]byte, unix.SizeofIfAddrmsg)
	question[0] = family
	return dump(c, unix.RTM_GETADDR, question, func(b []byte) (Addr, bool, error) {
		a, err := parseAddr(b)
		return a, a.Index == index && a.Prefix.IsValid(), err
	})
}

func parseAddr(b []byte) (a Addr, err error) {
	if len(b) < unix.SizeofIfAddrmsg {
		return a, fmt.Errorf("rtnetlink: address of %d octets", len(b))
	}
	bits := int(b[1])
	a.Flags, a.Scope, a.Index = uint32(b[2]), b[3], int(int32(host.Uint32(b[4:])))
	var addr, local netip.Addr
	err = netlink.Attributes(host, b[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.IFA_ADDRESS:
			addr = ip(v)
		case unix.IFA_LOCAL:
			local = ip(v)
		case unix.IFA_FLAGS:
			a.Flags = number(v)
		}
		return nil
	})
	// IPv6 has the address of a network in IFA_ADDRESS alone; with a peer, that is the peer's.
	if !local.IsValid() || local == addr {
		a.Prefix = netip.PrefixFrom(addr, bits)
	} else {
		a.Prefix, a.Peer = netip.PrefixFrom(local, local.BitLen()), netip.PrefixFrom(addr, bits)
	}
	return a, err
}

// AddAddr adds an address, one in an IPv4 network with the network's broadcast address. EEXIST: it is there.
func (c *Conn) AddAddr(a Addr) error {
	return c.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, a.message())
}

// RemoveAddr removes one. EADDRNOTAVAIL: it is not there.
func (c *Conn) RemoveAddr(a Addr) error { return c.do(unix.RTM_DELADDR, 0, a.message()) }

func (a Addr) message() []byte {
	local, net := a.Prefix.Addr(), a.Prefix
	if a.Peer.IsValid() {
		net = a.Peer
	}
	b := host.AppendUint32([]byte{family(local), uint8(net.Bits()), uint8(a.Flags), a.Scope}, uint32(a.Index))
	b = append(b, address(unix.IFA_LOCAL, local)...)
	b = append(b, address(unix.IFA_ADDRESS, net.Addr())...)
	if a.Flags > 0xff {
		b = append(b, Uint32(unix.IFA_FLAGS, a.Flags)...)
	}
	if local.Is4() && net.Bits() < 31 { // RFC 3021: smaller networks have none
		last := local.As4()
		for i := net.Bits(); i < 32; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		b = append(b, Attr(unix.IFA_BROADCAST, last[:])...)
	}
	return b
}
