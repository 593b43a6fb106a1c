package netif

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetNetwork brings an ordinary interface up with addresses in networks, as of a router's own port. Other addresses go,
// unless others is set because someone else (a DHCP client) manages some too; those that the kernel made itself, link-local
// and from router advertisements, stay. An MTU of 0 leaves it as it is. Calling it twice changes nothing.
func (i *Interface) SetNetwork(want []netip.Prefix, others bool, mtu int) error {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	link, err := i.n.link(i.index)
	if err != nil {
		return i.fail("set up", err)
	}
	if mtu != 0 && link.Attrs().MTU != mtu {
		if err := i.n.h.LinkSetMTU(link, mtu); err != nil {
			return i.fail(fmt.Sprintf("set the MTU to %d", mtu), err)
		}
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		if err := i.n.h.LinkSetUp(link); err != nil {
			return i.fail("bring up", err)
		}
	}
	have, err := i.n.h.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return i.fail("list the addresses", err)
	}
	var found []netip.Prefix
	var stale []netlink.Addr
	for _, a := range have {
		ip, _ := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		p := netip.PrefixFrom(ip.Unmap(), ones)
		switch {
		case slices.Contains(want, p):
			found = append(found, p)
		case p.Addr().IsLinkLocalUnicast() && p.Addr().Is6(), p.Addr().Is6() && a.Flags&unix.IFA_F_PERMANENT == 0:
			// The kernel's business.
		case !others:
			stale = append(stale, a)
		}
	}
	for _, p := range want {
		if slices.Contains(found, p) {
			continue
		}
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if err := i.n.h.AddrAdd(link, a); err != nil && !errors.Is(err, syscall.EEXIST) {
			return i.fail(fmt.Sprintf("add the address %v", p), err)
		}
	}
	for _, a := range stale {
		if err := i.n.h.AddrDel(link, &a); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return i.fail(fmt.Sprintf("remove the address %v", a.IPNet), err)
		}
	}
	return nil
}
