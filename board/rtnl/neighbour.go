package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// Proxy is an IPv4 address that the kernel answers ARP for on a link.
type Proxy struct {
	Index    int
	Addr     netip.Addr
	Protocol uint8 // who asked for it, RTPROT_*; not kept before Linux 5.0
}

const ndaProtocol = 12 // NDA_PROTOCOL

// AddProxy makes the kernel answer; it may do so already.
func (c *Conn) AddProxy(p Proxy) error {
	return c.do(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, p.message())
}

// RemoveProxy ends it. ENOENT: it does not.
func (c *Conn) RemoveProxy(p Proxy) error { return c.do(unix.RTM_DELNEIGH, 0, p.message()) }

// ndmsg is struct ndmsg of a proxied neighbour.
func ndmsg(index int, state uint16) []byte {
	b := host.AppendUint32([]byte{unix.AF_INET, 0, 0, 0}, uint32(index))
	return append(host.AppendUint16(b, state), unix.NTF_PROXY, 0)
}

func (p Proxy) message() []byte {
	b := append(ndmsg(p.Index, unix.NUD_PERMANENT), address(unix.NDA_DST, p.Addr)...)
	return append(b, Attr(ndaProtocol, []byte{p.Protocol})...)
}

// Proxies are all that the kernel answers for.
func (c *Conn) Proxies() ([]Proxy, error) {
	return dump(c, unix.RTM_GETNEIGH, ndmsg(0, 0), func(b []byte) (Proxy, bool, error) {
		p, err := parseProxy(b)
		return p, p.Addr.Is4(), err
	})
}

func parseProxy(b []byte) (p Proxy, err error) {
	if len(b) < unix.SizeofNdMsg {
		return p, fmt.Errorf("rtnetlink: neighbour of %d octets", len(b))
	}
	p.Index = int(int32(host.Uint32(b[4:])))
	err = netlink.Attributes(host, b[unix.SizeofNdMsg:], func(kind uint16, v []byte) error {
		switch {
		case kind == unix.NDA_DST:
			p.Addr = ip(v)
		case kind == ndaProtocol && len(v) > 0:
			p.Protocol = v[0]
		}
		return nil
	})
	return p, err
}
