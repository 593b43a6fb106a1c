package rtnl

import (
	"fmt"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// Link is a network interface.
type Link struct {
	Index        int
	Name         string
	Flags        uint32 // IFF_*
	MTU          int
	HardwareAddr []byte
	Stats        *Stats // nil where the kernel gave none
}

// Stats are the counters of a link since it was made.
type Stats struct {
	RxPackets, TxPackets, RxBytes, TxBytes uint64
	RxDropped, TxDropped                   uint64
}

// ifinfo is struct ifinfomsg.
func ifinfo(index int, flags, change uint32) []byte {
	b := host.AppendUint32(make([]byte, 4, unix.SizeofIfInfomsg), uint32(index))
	return host.AppendUint32(host.AppendUint32(b, flags), change)
}

// IfInfo is the empty struct ifinfomsg that the description of a link begins with, a veth's peer for example.
func IfInfo() []byte { return ifinfo(0, 0, 0) }

// Link asks for one by its index. ENODEV: there is none.
func (c *Conn) Link(index int) (Link, error) { return c.link(ifinfo(index, 0, 0)) }

// LinkByName asks for one by its name.
func (c *Conn) LinkByName(name string) (Link, error) {
	return c.link(append(ifinfo(0, 0, 0), Text(unix.IFLA_IFNAME, name)...))
}

func (c *Conn) link(question []byte) (l Link, err error) {
	err = c.get(unix.RTM_GETLINK, question, func(b []byte) (err error) {
		l, err = parseLink(b)
		return err
	})
	return l, err
}

// Links are all there are.
func (c *Conn) Links() ([]Link, error) {
	return dump(c, unix.RTM_GETLINK, ifinfo(0, 0, 0), func(b []byte) (Link, bool, error) {
		l, err := parseLink(b)
		return l, true, err
	})
}

func parseLink(b []byte) (l Link, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return l, fmt.Errorf("rtnetlink: link of %d octets", len(b))
	}
	l.Index, l.Flags = int(int32(host.Uint32(b[4:]))), host.Uint32(b[8:])
	err = netlink.Attributes(host, b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) error {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = unix.ByteSliceToString(v)
		case unix.IFLA_MTU:
			l.MTU = int(number(v))
		case unix.IFLA_ADDRESS:
			l.HardwareAddr = append([]byte(nil), v...)
		case unix.IFLA_STATS64:
			if len(v) < 8*8 {
				break
			}
			at := func(i int) uint64 { return host.Uint64(v[8*i:]) } // struct rtnl_link_stats64
			l.Stats = &Stats{RxPackets: at(0), TxPackets: at(1), RxBytes: at(2), TxBytes: at(3), RxDropped: at(6), TxDropped: at(7)}
		}
		return nil
	})
	return l, err
}

// SetUp brings a link up, or down.
func (c *Conn) SetUp(index int, up bool) error {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	return c.do(unix.RTM_NEWLINK, 0, ifinfo(index, flags, unix.IFF_UP))
}

// SetMTU changes the largest packet of a link, in octets.
func (c *Conn) SetMTU(index, mtu int) error {
	return c.do(unix.RTM_SETLINK, 0, append(ifinfo(index, 0, 0), Uint32(unix.IFLA_MTU, uint32(mtu))...))
}

// SetName changes the name of a link.
func (c *Conn) SetName(index int, name string) error {
	return c.do(unix.RTM_SETLINK, 0, append(ifinfo(index, 0, 0), Text(unix.IFLA_IFNAME, name)...))
}

// AddLink makes a link of a kind, with the attributes that describe one of that kind. Without a name the kernel finds one.
func (c *Conn) AddLink(name, kind string, data ...[]byte) error {
	b := IfInfo()
	if name != "" {
		b = append(b, Text(unix.IFLA_IFNAME, name)...)
	}
	info := Attr(unix.IFLA_LINKINFO, Attr(unix.IFLA_INFO_KIND, []byte(kind)), Attr(unix.IFLA_INFO_DATA, data...))
	return c.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, append(b, info...))
}
