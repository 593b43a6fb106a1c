package netif

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"culvert/board/rtnl"
)

// protocolOurs marks what we add to the kernel's tables outside of our own interfaces, which does not go with them should
// this process be killed: the next one finds it by the mark.
const protocolOurs = 0xcb

// ProxyARP answers ARP requests for addr on the networks that it would belong to, so that their hosts reach it as one of
// them, until Down. It returns the names of the interfaces. The kernel answers where it forwards.
func (i *Interface) ProxyARP(addr netip.Addr) (on []string, err error) {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	addr = addr.Unmap()
	if !addr.Is4() {
		return nil, i.fail("answer ARP", fmt.Errorf("%v is not an IPv4 address", addr))
	}
	if i.n.h == nil {
		return nil, i.fail("answer ARP", errClosed)
	}
	links, err := i.n.h.Links()
	if err != nil {
		return nil, i.fail("answer ARP", err)
	}
	for _, link := range links {
		if link.Index == i.index || link.Flags&(unix.IFF_POINTOPOINT|unix.IFF_LOOPBACK|unix.IFF_NOARP) != 0 || len(link.HardwareAddr) != 6 {
			continue
		}
		have, err := i.n.h.Addrs(link.Index, unix.AF_INET)
		if err != nil {
			return on, i.fail("answer ARP", err)
		}
		for _, h := range have {
			if h.Prefix.Bits() >= 31 || !h.Prefix.Contains(addr) || h.Prefix.Addr() == addr {
				continue
			}
			p := rtnl.Proxy{Index: link.Index, Addr: addr, Protocol: protocolOurs}
			if err := i.n.h.AddProxy(p); err != nil {
				return on, i.fail("answer ARP for "+addr.String()+" on "+link.Name, mend(err))
			}
			i.proxies = append(i.proxies, p)
			on = append(on, link.Name)
			break
		}
	}
	return on, nil
}

// dropProxies ends ProxyARP; the caller holds the lock.
func (i *Interface) dropProxies() (err error) {
	for _, p := range i.proxies {
		derr := i.n.h.RemoveProxy(p)
		if derr != nil && !errors.Is(derr, syscall.ENOENT) && !errors.Is(gone(derr), ErrGone) {
			err = errors.Join(err, i.fail("stop answering ARP for "+p.Addr.String(), derr))
		}
	}
	i.proxies = nil
	return err
}

// Sweep removes what a process that was killed has left in the kernel's tables: host routes of Pin, and what ProxyARP
// answered for.
func (n *Netif) Sweep() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.h == nil {
		return errClosed
	}
	var errs []error
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		old, err := n.h.Routes(family, func(r rtnl.Route) bool { return r.Protocol == protocolOurs })
		if err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) && !errors.Is(err, syscall.EOPNOTSUPP) {
			errs = append(errs, fmt.Errorf("list routes: %w", err))
		}
		for _, r := range old {
			if err := n.h.RemoveRoute(r); err != nil && !errors.Is(err, syscall.ESRCH) {
				errs = append(errs, fmt.Errorf("remove the route %v: %w", r, mend(err)))
			}
		}
	}
	old, err := n.h.Proxies()
	if err != nil {
		errs = append(errs, fmt.Errorf("list proxy neighbours: %w", err))
	}
	for _, p := range old {
		if p.Protocol == protocolOurs {
			errs = append(errs, n.h.RemoveProxy(p))
		}
	}
	return errors.Join(errs...)
}
