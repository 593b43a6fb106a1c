package demo

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"culvert/board/rtnl"
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

// veth makes a pair of interfaces, the far one in another namespace.
func veth(near, far string, ns *os.File) error {
	return withLinks(func(c *rtnl.Conn) error {
		return c.AddLink(near, "veth", rtnl.Attr(vethPeer, rtnl.IfInfo(), rtnl.Text(unix.IFLA_IFNAME, far), rtnl.Uint32(unix.IFLA_NET_NS_FD, uint32(ns.Fd()))))
	})
}

const vethPeer = 1 // VETH_INFO_PEER

// withLinks is for the namespace of this thread.
func withLinks(f func(*rtnl.Conn) error) error {
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

func address(iface string, prefix netip.Prefix) error {
	return withLinks(func(c *rtnl.Conn) error {
		link, err := c.LinkByName(iface)
		if err != nil {
			return err
		}
		return errors.Join(c.AddAddr(rtnl.Addr{Index: link.Index, Prefix: prefix}), c.SetUp(link.Index, true))
	})
}

func linkUp(iface string) error {
	return withLinks(func(c *rtnl.Conn) error {
		link, err := c.LinkByName(iface)
		if err != nil {
			return err
		}
		return c.SetUp(link.Index, true)
	})
}

func defaultRoute(via netip.Addr) error {
	return withLinks(func(c *rtnl.Conn) error {
		everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		return c.AddRoute(rtnl.Route{Dst: everywhere, Gateway: via, Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_BOOT})
	})
}
