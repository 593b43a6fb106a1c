package demo

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// network is where it plays.
type network struct {
	client, middle, server *namespace
	noNAT                  error // why the middle is only a router; nil: it is a NAT
}

// Names of interfaces in the middle.
const (
	toClient, toServer = "to-client", "to-server"
)

func newNetwork() (n *network, err error) {
	n = &network{}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	for _, s := range []**namespace{&n.client, &n.middle, &n.server} {
		if *s, err = newNamespace(); err != nil {
			return nil, err
		}
	}
	if err := n.middle.join(toClient, natInside, n.client, clientOutside); err != nil {
		return nil, err
	}
	if err := n.middle.join(toServer, natOutside, n.server, serverOutside); err != nil {
		return nil, err
	}
	if err := n.client.do(func() error { return defaultRoute(natInside.Addr()) }); err != nil {
		return nil, fmt.Errorf("route of the client: %w", err)
	}
	if err := n.middle.do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
	}); err != nil {
		return nil, fmt.Errorf("forwarding between the namespaces: %w", err)
	}
	if n.noNAT = n.middle.do(func() error { return masquerade(toServer) }); n.noNAT != nil {
		// The server then has to know the way.
		if err := n.server.do(func() error { return defaultRoute(natOutside.Addr()) }); err != nil {
			return nil, fmt.Errorf("route of the server: %w", err)
		}
	}
	return n, nil
}

func (n *network) close() {
	for _, s := range []*namespace{n.client, n.middle, n.server} {
		if s != nil {
			s.close()
		}
	}
}

// namespace is a network namespace, kept by a thread.
type namespace struct {
	work chan func()
	file *os.File
}

// newNamespace makes one with nothing but its loopback.
func newNamespace() (*namespace, error) {
	s := &namespace{work: make(chan func())}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and the namespace with the thread
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			err = fmt.Errorf("a network namespace cannot be made (run as root, on a kernel with CONFIG_NET_NS): %w", err)
		} else if s.file, err = os.Open("/proc/thread-self/ns/net"); err == nil {
			err = linkUp("lo")
		}
		made <- err
		for f := range s.work {
			f()
		}
	}()
	if err := <-made; err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// do runs f on the namespace's thread. Sockets that it opens and programs that it starts live there; the latter die with
// the thread.
func (s *namespace) do(f func() error) error {
	done := make(chan error, 1)
	s.work <- func() { done <- f() }
	return <-done
}

func (s *namespace) close() {
	close(s.work)
	if s.file != nil {
		s.file.Close()
	}
}

// join makes a link to another namespace, where its interface is eth0.
func (s *namespace) join(name string, near netip.Prefix, other *namespace, far netip.Prefix) error {
	err := s.do(func() error {
		if err := veth(name, "eth0", other.file); err != nil {
			return fmt.Errorf("a link between namespaces cannot be made (modprobe veth): %w", err)
		}
		return address(name, near)
	})
	if err == nil {
		err = other.do(func() error { return address("eth0", far) })
	}
	return err
}

// veth makes a pair of interfaces, the far one in another namespace. netlink.LinkAdd would bring every kind of link there
// is into the binary.
func veth(near, far string, ns *os.File) error {
	r := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(near)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(unix.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	peer.AddRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(far))
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(ns.Fd())))
	r.AddData(info)
	_, err := r.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func address(iface string, prefix netip.Prefix) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(prefix.String())
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
}

func linkUp(iface string) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func defaultRoute(via netip.Addr) error {
	return netlink.RouteAdd(&netlink.Route{Gw: via.AsSlice()})
}
