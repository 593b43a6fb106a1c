package netif

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"culvert/board/rtnl"
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
	if mtu != 0 && link.MTU != mtu {
		if err := i.n.h.SetMTU(i.index, mtu); err != nil {
			return i.fail(fmt.Sprintf("set the MTU to %d", mtu), err)
		}
	}
	if link.Flags&unix.IFF_UP == 0 {
		if err := i.n.h.SetUp(i.index, true); err != nil {
			return i.fail("bring up", err)
		}
	}
	have, err := i.n.h.Addrs(i.index, unix.AF_UNSPEC)
	if err != nil {
		return i.fail("list the addresses", err)
	}
	var found []netip.Prefix
	var stale []rtnl.Addr
	for _, a := range have {
		p := a.Prefix
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
		if err := i.n.h.AddAddr(rtnl.Addr{Index: i.index, Prefix: p}); err != nil && !errors.Is(err, syscall.EEXIST) {
			return i.fail(fmt.Sprintf("add the address %v", p), err)
		}
	}
	for _, a := range stale {
		if err := i.n.h.RemoveAddr(a); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return i.fail(fmt.Sprintf("remove the address %v", a.Prefix), err)
		}
	}
	return nil
}
