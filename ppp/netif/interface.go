package netif

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"culvert/board/rtnl"
)

// Interface is one point-to-point interface that we are in charge of: addresses found on it that were not asked for go.
type Interface struct {
	n      *Netif
	index  int
	name   string
	peer   netip.Addr // of IPv4
	peer6  netip.Addr
	ipv6   bool
	routes []Route // those added here, in that order

	proxies []rtnl.Proxy // what ARP is answered for on other interfaces
}

// Stats are the counters since the interface was made.
type Stats struct {
	RxBytes, TxBytes, RxPackets, TxPackets uint64
	RxDropped, TxDropped                   uint64
}

// Index is the interface's number, which a new name does not change.
func (i *Interface) Index() int { return i.index }

// Name is the name it had when last we looked.
func (i *Interface) Name() string {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	return i.name
}

// fail puts the interface's name and the operation in front.
func (i *Interface) fail(what string, err error) error {
	return fmt.Errorf("interface %s: %s: %w", i.name, what, mend(gone(err)))
}

// mend adds what a person can do about an errno of the kernel.
func mend(err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w: run as root, or with CAP_NET_ADMIN and /proc/sys writable", err)
	}
	return err
}

// SetUp brings the interface up with one pair of IPv4 addresses, or none when both are zero, and an MTU of 68 to 65535
// octets. Other IPv4 addresses go. IPv6 stays off unless EnableIPv6 was called.
func (i *Interface) SetUp(local, remote netip.Addr, mtu int) error {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	local, remote = local.Unmap(), remote.Unmap()
	if local.IsValid() != remote.IsValid() || local.IsValid() && (!local.Is4() || !remote.Is4()) {
		return i.fail("set up", fmt.Errorf("%v and %v are not two IPv4 addresses", local, remote))
	}
	if local.IsValid() && local == remote {
		return i.fail("set up", fmt.Errorf("both ends have the address %v: change local-address or remote-address", local))
	}
	link, err := i.n.link(i.index)
	if err != nil {
		return i.fail("set up", err)
	}
	if link.MTU != mtu {
		if err := i.n.h.SetMTU(i.index, mtu); err != nil {
			return i.fail(fmt.Sprintf("set the MTU to %d", mtu), err)
		}
	}
	if !i.ipv6 {
		// Before it is up, or the kernel would give it an address of its own and join groups.
		if err := i.sysctl6("disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return i.fail("switch IPv6 off", err)
		}
	}
	if err := i.address(unix.AF_INET, local, remote); err != nil {
		return err
	}
	i.peer = remote
	if link.Flags&unix.IFF_UP == 0 {
		if err := i.n.h.SetUp(i.index, true); err != nil {
			return i.fail("bring up", err)
		}
	}
	return nil
}

// EnableIPv6 switches IPv6 on and gives the interface the link-local address that IPV6CP agreed on, with its /64; remote
// is the peer's, known as such to AddRoute, or zero. With acceptRA, router advertisements from the peer configure us, as a client wants
// it; without, nothing the peer sends does. Call it before SetUp or after.
func (i *Interface) EnableIPv6(local, remote netip.Addr, acceptRA bool) error {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	if !local.Is6() || local.Is4In6() || remote.IsValid() && (!remote.Is6() || remote.Is4In6()) || local == remote {
		return i.fail("enable IPv6", fmt.Errorf("%v and %v are not two IPv6 addresses", local, remote))
	}
	if _, err := i.n.link(i.index); err != nil {
		return i.fail("enable IPv6", err)
	}
	ra, autoconf := "0", "0"
	if acceptRA {
		ra, autoconf = "2", "1" // 2: also on a router that forwards
	}
	// The switches first: the kernel acts on them the moment IPv6 comes on. addr_gen_mode 1: no address of its own.
	for _, s := range [...][2]string{{"addr_gen_mode", "1"}, {"accept_ra", ra}, {"autoconf", autoconf}, {"accept_redirects", "0"},
		{"accept_dad", "0"}, {"disable_ipv6", "0"}} {
		err := i.sysctl6(s[0], s[1])
		if errors.Is(err, os.ErrNotExist) && s[0] == "addr_gen_mode" {
			continue // Linux before 4.9 has it in netlink only
		}
		if errors.Is(err, os.ErrNotExist) {
			return i.fail("enable IPv6", errors.New("the kernel has no IPv6 here: load the module ipv6, or set use-ipv6 = false on the profile"))
		}
		if err != nil {
			return i.fail("set "+s[0], err)
		}
	}
	i.ipv6 = true
	// A /64 and no peer: the kernel would forget the route to a peer when the interface comes up after its address.
	if err := i.address(unix.AF_INET6, local, netip.Addr{}); err != nil {
		return err
	}
	i.peer6 = remote
	return nil
}

// DisableIPv6 switches IPv6 off again, and its addresses go.
func (i *Interface) DisableIPv6() error {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	if err := i.sysctl6("disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return i.fail("switch IPv6 off", err)
	}
	i.ipv6, i.peer6 = false, netip.Addr{}
	return nil
}

// sysctl6 writes one IPv6 switch of the interface, unless it stands so already.
func (i *Interface) sysctl6(key, value string) error {
	path := filepath.Join("/proc/sys/net/ipv6/conf", i.name, key)
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if string(old) == value+"\n" {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0)
}

// address makes local and remote the only pair of their family; none when local is zero. The new pair comes before the
// old one goes, so that what can stay up stays up.
func (i *Interface) address(family uint8, local, remote netip.Addr) error {
	have, err := i.n.h.Addrs(i.index, family)
	if err != nil {
		return i.fail("list the addresses", err)
	}
	found := false
	var stale []rtnl.Addr
	for _, a := range have {
		switch {
		case local.IsValid() && samePair(a, local, remote):
			found = true
		case family == unix.AF_INET6 && a.Flags&unix.IFA_F_PERMANENT == 0:
			// From a router advertisement: the kernel's business.
		default:
			stale = append(stale, a)
		}
	}
	if local.IsValid() && !found {
		a := rtnl.Addr{Index: i.index, Prefix: hostNet(local)}
		if remote.IsValid() {
			a.Peer = hostNet(remote)
		}
		if family == unix.AF_INET6 {
			a.Flags = unix.IFA_F_NODAD // nobody else is on the link
			a.Scope = unix.RT_SCOPE_LINK
			a.Prefix = netip.PrefixFrom(local, 64)
		}
		if err := i.n.h.AddAddr(a); err != nil && !errors.Is(err, syscall.EEXIST) {
			return i.fail(fmt.Sprintf("add the address %v peer %v", local, remote), err)
		}
	}
	for _, a := range stale {
		if err := i.n.h.RemoveAddr(a); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return i.fail(fmt.Sprintf("remove the address %v", a.Prefix), err)
		}
	}
	return nil
}

func samePair(a rtnl.Addr, local, remote netip.Addr) bool {
	return a.Prefix.Addr() == local && a.Peer.Addr() == remote && (!remote.IsValid() || a.Peer.IsSingleIP())
}

func hostNet(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Down takes back what we did: our routes, the addresses, the flag. An interface that is gone is down.
func (i *Interface) Down() error {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	routesErr := errors.Join(i.setRoutes(nil), i.dropProxies(), i.n.clamp(i.index, 0))
	_, err := i.n.link(i.index)
	if err == nil {
		if err = i.address(unix.AF_INET, netip.Addr{}, netip.Addr{}); err == nil && i.ipv6 {
			err = i.address(unix.AF_INET6, netip.Addr{}, netip.Addr{})
		}
		if downErr := i.n.h.SetUp(i.index, false); err == nil && downErr != nil {
			err = i.fail("take down", downErr)
		}
	} else if !errors.Is(err, ErrGone) {
		err = i.fail("take down", err)
	}
	if err = errors.Join(routesErr, err); err != nil && !errors.Is(err, ErrGone) {
		return err
	}
	i.routes, i.peer, i.peer6 = nil, netip.Addr{}, netip.Addr{}
	return nil
}

// Rename gives the interface another name, which older kernels do only while it is down.
func (i *Interface) Rename(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	link, err := i.n.link(i.index)
	if err != nil {
		return i.fail("rename", err)
	}
	if link.Name != name {
		err := i.n.h.SetName(i.index, name)
		switch {
		case errors.Is(err, syscall.EEXIST):
			return i.fail("rename", fmt.Errorf("an interface named %s %w: remove it or choose another name", name, ErrExists))
		case errors.Is(err, syscall.EBUSY):
			return i.fail("rename to "+name, fmt.Errorf("%w: this kernel renames only interfaces that are down", err))
		case err != nil:
			return i.fail("rename to "+name, err)
		}
	}
	i.name = name
	return nil
}

// Stats reads the counters.
func (i *Interface) Stats() (Stats, error) {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	link, err := i.n.link(i.index)
	if err != nil {
		return Stats{}, i.fail("read the counters", err)
	}
	s := link.Stats
	if s == nil {
		return Stats{}, i.fail("read the counters", errors.New("the kernel gave none"))
	}
	return Stats{s.RxBytes, s.TxBytes, s.RxPackets, s.TxPackets, s.RxDropped, s.TxDropped}, nil
}
