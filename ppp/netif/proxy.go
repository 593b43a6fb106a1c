package netif

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// protocolOurs marks what we add to the kernel's tables outside of our own interfaces, which does not go with them should
// this process be killed: the next one finds it by the mark.
const protocolOurs = 0xcb

const ndaProtocol = 12 // NDA_PROTOCOL, Linux 5.0

// proxy is an address that is answered for on a network.
type proxy struct {
	index int
	addr  netip.Addr
}

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
	links, err := i.n.h.LinkList()
	if err != nil {
		return nil, i.fail("answer ARP", err)
	}
	for _, link := range links {
		a := link.Attrs()
		if a.Index == i.index || a.Flags&(net.FlagPointToPoint|net.FlagLoopback) != 0 || a.RawFlags&unix.IFF_NOARP != 0 || len(a.HardwareAddr) != 6 {
			continue
		}
		have, err := i.n.h.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return on, i.fail("answer ARP", err)
		}
		for _, h := range have {
			ip, _ := netip.AddrFromSlice(h.IP)
			ones, _ := h.Mask.Size()
			network := netip.PrefixFrom(ip.Unmap(), ones).Masked()
			if ones >= 31 || !network.Contains(addr) || ip.Unmap() == addr {
				continue
			}
			p := proxy{a.Index, addr}
			if err := changeProxy(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, p); err != nil {
				return on, i.fail("answer ARP for "+addr.String()+" on "+a.Name, mend(err))
			}
			i.proxies = append(i.proxies, p)
			on = append(on, a.Name)
			break
		}
	}
	return on, nil
}

// dropProxies ends ProxyARP; the caller holds the lock.
func (i *Interface) dropProxies() (err error) {
	for _, p := range i.proxies {
		derr := changeProxy(unix.RTM_DELNEIGH, 0, p)
		if derr != nil && !errors.Is(derr, syscall.ENOENT) && !errors.Is(gone(derr), ErrGone) {
			err = errors.Join(err, i.fail("stop answering ARP for "+p.addr.String(), derr))
		}
	}
	i.proxies = nil
	return err
}

func changeProxy(kind int, flags int, p proxy) error {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_INET, Index: uint32(p.index), State: unix.NUD_PERMANENT, Flags: netlink.NTF_PROXY})
	req.AddData(nl.NewRtAttr(unix.NDA_DST, p.addr.AsSlice()))
	req.AddData(nl.NewRtAttr(ndaProtocol, []byte{protocolOurs}))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
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
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		var old []netlink.Route
		err := n.h.RouteListFilteredIter(family, &netlink.Route{Protocol: protocolOurs}, netlink.RT_FILTER_PROTOCOL, func(r netlink.Route) bool {
			old = append(old, r)
			return true
		})
		if err != nil && !errors.Is(err, syscall.EAFNOSUPPORT) && !errors.Is(err, syscall.EOPNOTSUPP) {
			errs = append(errs, fmt.Errorf("list routes: %w", err))
		}
		for _, r := range old {
			if err := n.h.RouteDel(&r); err != nil && !errors.Is(err, syscall.ESRCH) {
				errs = append(errs, fmt.Errorf("remove the route %v: %w", r, mend(err)))
			}
		}
	}
	old, err := ourProxies()
	errs = append(errs, err)
	for _, p := range old {
		errs = append(errs, changeProxy(unix.RTM_DELNEIGH, 0, p))
	}
	return errors.Join(errs...)
}

func ourProxies() (found []proxy, err error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_INET, Flags: netlink.NTF_PROXY})
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err != nil {
		return nil, fmt.Errorf("list proxy neighbours: %w", err)
	}
	const header = 12 // struct ndmsg
	for _, m := range msgs {
		if len(m) < header {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[header:])
		if err != nil {
			return nil, err
		}
		p, ours := proxy{index: int(int32(binary.NativeEndian.Uint32(m[4:])))}, false
		for _, a := range attrs {
			switch a.Attr.Type {
			case unix.NDA_DST:
				p.addr, _ = netip.AddrFromSlice(a.Value)
			case ndaProtocol:
				ours = len(a.Value) > 0 && a.Value[0] == protocolOurs
			}
		}
		if ours && p.addr.Is4() {
			found = append(found, p)
		}
	}
	return found, nil
}
