package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// Route is an entry of a routing table, or the kernel's answer to how it would route something.
type Route struct {
	Dst      netip.Prefix
	Gateway  netip.Addr // zero: Dst is on the link
	Source   netip.Addr // that packets leave with, in an answer
	Index    int        // of the link
	Metric   int
	Table    uint32 // RT_TABLE_*
	Protocol uint8  // RTPROT_*
	Scope    uint8  // RT_SCOPE_*
	Type     uint8  // RTN_*; of a route to add or remove 0 is unicast
	Flags    uint32 // RTNH_F_*
}

func (r Route) String() string {
	s := r.Dst.String()
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	return s
}

// AddRoute adds a route. EEXIST: there is one to the same destination with the same metric.
func (c *Conn) AddRoute(r Route) error {
	return c.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r.message(unix.RTN_UNICAST))
}

// RemoveRoute removes the route that is like r. ESRCH: there is none.
func (c *Conn) RemoveRoute(r Route) error {
	return c.do(unix.RTM_DELROUTE, 0, r.message(unix.RTN_UNSPEC))
}

func (r Route) message(kind uint8) []byte {
	if r.Type != 0 {
		kind = r.Type
	}
	table := uint8(r.Table)
	if r.Table > 0xff {
		table = unix.RT_TABLE_UNSPEC
	}
	b := []byte{family(r.Dst.Addr()), uint8(r.Dst.Bits()), 0, 0, table, r.Protocol, r.Scope, kind}
	b = host.AppendUint32(b, r.Flags)
	if r.Dst.Bits() > 0 {
		b = append(b, address(unix.RTA_DST, r.Dst.Masked().Addr())...)
	}
	if r.Gateway.IsValid() {
		b = append(b, address(unix.RTA_GATEWAY, r.Gateway)...)
	}
	if r.Table > 0xff {
		b = append(b, Uint32(unix.RTA_TABLE, r.Table)...)
	}
	if r.Metric != 0 {
		b = append(b, Uint32(unix.RTA_PRIORITY, uint32(r.Metric))...)
	}
	if r.Index != 0 {
		b = append(b, Uint32(unix.RTA_OIF, uint32(r.Index))...)
	}
	return b
}

// Routes are those of the main table in a family (AF_INET, AF_INET6) that wanted takes: the table may be long.
func (c *Conn) Routes(family uint8, wanted func(Route) bool) ([]Route, error) {
	question := make([]byte, unix.SizeofRtMsg)
	question[0] = family
	return dump(c, unix.RTM_GETROUTE, question, func(b []byte) (Route, bool, error) {
		r, err := parseRoute(b)
		return r, err == nil && r.Table == unix.RT_TABLE_MAIN && r.Flags&unix.RTM_F_CLONED == 0 && wanted(r), err
	})
}

// RouteTo asks how the kernel would route a packet to dst, in the VRF whose index is given, if any.
func (c *Conn) RouteTo(dst netip.Addr, vrf int) (r Route, err error) {
	b := []byte{family(dst), uint8(dst.BitLen()), 0, 0, 0, 0, 0, 0}
	b = host.AppendUint32(b, unix.RTM_F_LOOKUP_TABLE)
	b = append(b, address(unix.RTA_DST, dst)...)
	if vrf != 0 {
		b = append(b, Uint32(unix.RTA_OIF, uint32(vrf))...)
	}
	err = c.get(unix.RTM_GETROUTE, b, func(b []byte) (err error) {
		r, err = parseRoute(b)
		return err
	})
	return r, err
}

func parseRoute(b []byte) (r Route, err error) {
	if len(b) < unix.SizeofRtMsg {
		return r, fmt.Errorf("rtnetlink: route of %d octets", len(b))
	}
	dst := netip.IPv6Unspecified()
	if b[0] == unix.AF_INET {
		dst = netip.IPv4Unspecified()
	}
	r.Table, r.Protocol, r.Scope, r.Type, r.Flags = uint32(b[4]), b[5], b[6], b[7], host.Uint32(b[8:])
	err = netlink.Attributes(host, b[unix.SizeofRtMsg:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.RTA_DST:
			dst = ip(v)
		case unix.RTA_GATEWAY:
			r.Gateway = ip(v)
		case unix.RTA_PREFSRC:
			r.Source = ip(v)
		case unix.RTA_OIF:
			r.Index = int(int32(number(v)))
		case unix.RTA_PRIORITY:
			r.Metric = int(number(v))
		case unix.RTA_TABLE:
			r.Table = number(v)
		}
		return nil
	})
	r.Dst = netip.PrefixFrom(dst, int(b[1]))
	return r, err
}
