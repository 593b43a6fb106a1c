package netif

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Watch calls changed, from a goroutine of its own, whenever links, addresses or routes of the namespace change,
// ours included, until stop is called.
func (n *Netif) Watch(changed func()) (stop func(), err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	groups := uint32(1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1) |
		1<<(unix.RTNLGRP_IPV6_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1))
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	f := os.NewFile(uintptr(fd), "rtnetlink")
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	go func() {
		buf := make([]byte, 8192) // what is in a message is not looked at, so that one cut off does as well
		for {
			// ENOBUFS: more has happened than we were told of.
			if _, err := f.Read(buf); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			changed()
		}
	}()
	return func() { f.Close() }, nil
}

// Way is how packets to an address leave this machine. The zero Way is none.
type Way struct {
	Index   int        // of the interface
	Gateway netip.Addr // zero: the address is on the link
	Source  netip.Addr // ours, that they leave with
	Running bool       // the interface has its carrier
}

// Way asks the routing table, in a VRF if one is named. No way is no error.
func (n *Netif) Way(dst netip.Addr, vrf string) (w Way, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.h == nil {
		return w, errClosed
	}
	vrfIndex := 0
	if vrf != "" {
		link, err := n.h.LinkByName(vrf)
		if err != nil {
			return Way{}, nil
		}
		vrfIndex = link.Index
	}
	r, err := n.h.RouteTo(dst.Unmap().WithZone(""), vrfIndex)
	if err != nil || r.Type != unix.RTN_UNICAST && r.Type != unix.RTN_LOCAL {
		return Way{}, nil
	}
	w.Index, w.Gateway, w.Source = r.Index, r.Gateway, r.Source
	if link, err := n.link(r.Index); err == nil {
		w.Running = link.Flags&unix.IFF_RUNNING != 0
	}
	return w, nil
}
