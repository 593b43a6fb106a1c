package netif

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMain runs the tests again inside a network namespace of their own, so that nothing here touches the machine's.
func TestMain(m *testing.M) {
	const inside = "CULVERT_NETIF_TEST_NAMESPACE"
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	}
	noNamespace = err
	os.Exit(m.Run())
}

var noNamespace error

func cannot(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// testLink makes an interface and takes charge of it. Kind tun is point-to-point as PPP's are.
func testLink(t *testing.T, name, kind string) (*Netif, *Interface) {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "needs root, to make a network namespace")
	}
	if noNamespace != nil {
		cannot(t, "no network namespace: "+noNamespace.Error())
	}
	n, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	var link netlink.Link = &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "~"}
	if kind == "tun" {
		tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TUN, Queues: 1}
		link = tun
		t.Cleanup(func() {
			for _, f := range tun.Fds {
				f.Close()
			}
		})
	}
	if err := netlink.LinkAdd(link); err != nil {
		cannot(t, "no "+kind+" interface here: "+err.Error())
	}
	i, err := n.ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if l, err := netlink.LinkByIndex(i.Index()); err == nil {
			netlink.LinkDel(l)
		}
	})
	return n, i
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func addresses(t *testing.T, i *Interface, family int) (out []string) {
	t.Helper()
	link, err := netlink.LinkByIndex(i.Index())
	if err != nil {
		t.Fatal(err)
	}
	list, err := netlink.AddrList(link, family)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		s := a.IPNet.String()
		if a.Peer != nil {
			s += " peer " + a.Peer.String()
		}
		out = append(out, s)
	}
	return out
}

// changes counts what rtnetlink announces while f runs.
func changes(t *testing.T, f func()) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	groups := uint32(1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1) |
		1<<(unix.RTNLGRP_IPV6_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1))
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		t.Fatal(err)
	}
	read := func() (n int) {
		for buf := make([]byte, 8192); ; n++ {
			if _, _, err := unix.Recvfrom(fd, buf, 0); err != nil {
				return n
			}
		}
	}
	// The kernel finishes an IPv6 address in its own time: let what was done before come to rest.
	for quiet := false; !quiet; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 500)
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		quiet = n == 0
		read()
	}
	f()
	return read()
}

func TestSetUp(t *testing.T) {
	for _, kind := range []string{"tun", "veth"} {
		t.Run(kind, func(t *testing.T) {
			_, i := testLink(t, "ppp-test", kind)
			apply := func(local, remote string, mtu int) {
				t.Helper()
				if err := i.SetUp(ip(local), ip(remote), mtu); err != nil {
					t.Fatal(err)
				}
			}
			apply("192.168.99.1", "192.168.99.2", 1400)
			if n := changes(t, func() { apply("192.168.99.1", "192.168.99.2", 1400) }); n != 0 {
				t.Errorf("applied twice: %d changes", n)
			}
			if got := addresses(t, i, netlink.FAMILY_V4); len(got) != 1 || got[0] != "192.168.99.1/32 peer 192.168.99.2/32" {
				t.Errorf("addresses %q", got)
			}
			link, _ := netlink.LinkByIndex(i.Index())
			if link.Attrs().MTU != 1400 || link.Attrs().Flags&1 == 0 {
				t.Errorf("link %+v", link.Attrs())
			}
			if got := addresses(t, i, netlink.FAMILY_V6); len(got) != 0 {
				t.Errorf("IPv6 addresses %q though it was not asked for", got)
			}
			apply("192.168.99.1", "192.168.99.7", 1300)
			if got := addresses(t, i, netlink.FAMILY_V4); len(got) != 1 || got[0] != "192.168.99.1/32 peer 192.168.99.7/32" {
				t.Errorf("addresses %q", got)
			}
			for range 2 {
				if err := i.Down(); err != nil {
					t.Fatal(err)
				}
			}
			if got := addresses(t, i, netlink.FAMILY_V4); len(got) != 0 {
				t.Errorf("addresses %q after Down", got)
			}
			if err := i.SetUp(netip.Addr{}, netip.Addr{}, 1400); err != nil {
				t.Errorf("no addresses: %v", err)
			}
			for _, c := range []struct {
				local, remote netip.Addr
				mtu           int
			}{{ip("10.0.0.1"), netip.Addr{}, 1400}, {ip("10.0.0.1"), ip("10.0.0.1"), 1400}, {ip("::1"), ip("::2"), 1400}, {ip("10.0.0.1"), ip("10.0.0.2"), 1}} {
				if err := i.SetUp(c.local, c.remote, c.mtu); err == nil || !strings.Contains(err.Error(), "ppp-test") {
					t.Errorf("%v: %v", c, err)
				}
			}
			if _, err := i.Stats(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSetNetwork(t *testing.T) {
	_, i := testLink(t, "port0", "veth")
	net := func(s ...string) (out []netip.Prefix) {
		for _, p := range s {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	set := func(want []netip.Prefix, others bool, mtu int) {
		t.Helper()
		if err := i.SetNetwork(want, others, mtu); err != nil {
			t.Fatal(err)
		}
	}
	is := func(want ...string) {
		t.Helper()
		if got := addresses(t, i, netlink.FAMILY_V4); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	set(net("192.0.2.1/24", "198.51.100.1/30", "2001:db8::1/64"), false, 1400)
	is("192.0.2.1/24", "198.51.100.1/30")
	link, err := netlink.LinkByIndex(i.Index())
	if err != nil || link.Attrs().MTU != 1400 || link.Attrs().Flags&unix.IFF_UP == 0 {
		t.Errorf("%+v, %v", link.Attrs(), err)
	}
	if got := addresses(t, i, netlink.FAMILY_V6); !slices.Contains(got, "2001:db8::1/64") {
		t.Errorf("IPv6: %q", got)
	}
	if n := changes(t, func() { set(net("192.0.2.1/24", "198.51.100.1/30", "2001:db8::1/64"), false, 0) }); n != 0 {
		t.Errorf("the same again made %d changes", n)
	}
	set(net("198.51.100.1/30"), true, 0) // a DHCP client may have set the other one
	is("192.0.2.1/24", "198.51.100.1/30")
	if err := i.AddRoute(Route{Dst: netip.MustParsePrefix("10.0.0.0/8"), Gateway: ip("192.0.2.254")}); err != nil {
		t.Error(err)
	}
	set(net("198.51.100.1/24"), false, 0)
	is("198.51.100.1/24")
	set(nil, false, 0)
	is()
	if got := addresses(t, i, netlink.FAMILY_V6); slices.Contains(got, "2001:db8::1/64") {
		t.Errorf("IPv6: %q", got)
	}
}

func TestIPv6(t *testing.T) {
	_, i := testLink(t, "v6-test", "tun")
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		cannot(t, "no IPv6 in this kernel")
	}
	apply := func() {
		t.Helper()
		if err := i.EnableIPv6(ip("fe80::1"), ip("fe80::2"), false); err != nil {
			t.Fatal(err)
		}
		if err := i.SetUp(ip("10.0.0.1"), ip("10.0.0.2"), 1400); err != nil {
			t.Fatal(err)
		}
	}
	apply()
	if n := changes(t, apply); n != 0 {
		t.Errorf("applied twice: %d changes", n)
	}
	if got := addresses(t, i, netlink.FAMILY_V6); len(got) != 1 || got[0] != "fe80::1/64" {
		t.Errorf("addresses %q", got)
	}
	for key, want := range map[string]string{"accept_ra": "0", "autoconf": "0", "disable_ipv6": "0"} {
		if b, _ := os.ReadFile("/proc/sys/net/ipv6/conf/v6-test/" + key); strings.TrimSpace(string(b)) != want {
			t.Errorf("%s = %q", key, b)
		}
	}
	r := Route{Dst: netip.MustParsePrefix("2001:db8:1::/48"), Gateway: ip("fe80::2")}
	for range 2 {
		if err := i.AddRoute(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := i.RemoveRoute(r); err != nil {
		t.Fatal(err)
	}
	if err := i.EnableIPv6(ip("fe80::1"), netip.Addr{}, true); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile("/proc/sys/net/ipv6/conf/v6-test/accept_ra"); strings.TrimSpace(string(b)) != "2" {
		t.Errorf("accept_ra = %q", b)
	}
	if err := i.Down(); err != nil {
		t.Fatal(err)
	}
	if err := i.EnableIPv6(ip("10.0.0.1"), netip.Addr{}, false); err == nil {
		t.Error("IPv4 address taken")
	}
}

func kernelRoutes(t *testing.T, i *Interface) (out []string) {
	t.Helper()
	link, err := netlink.LinkByIndex(i.Index())
	if err != nil {
		t.Fatal(err)
	}
	list, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		if r.Protocol == unix.RTPROT_STATIC || r.Protocol == protocolOurs {
			s := "default"
			if r.Dst != nil {
				s = r.Dst.String()
			}
			if r.Gw != nil {
				s += " via " + r.Gw.String()
			}
			out = append(out, s)
		}
	}
	return out
}

func TestRoutes(t *testing.T) {
	n, a := testLink(t, "rt-a", "tun")
	_, b := testLink(t, "rt-b", "veth")
	route := func(dst, gw string, metric int) Route {
		r := Route{Dst: netip.MustParsePrefix(dst), Metric: metric}
		if gw != "" {
			r.Gateway = ip(gw)
		}
		return r
	}
	if err := a.AddRoute(route("10.1.0.0/24", "", 1)); err == nil || !strings.Contains(err.Error(), "up first") || !strings.Contains(err.Error(), "rt-a") {
		t.Errorf("route on a link that is down: %v", err)
	}
	for i, x := range []*Interface{a, b} {
		if err := x.SetUp(ip("172.16.0.1"), netip.AddrFrom4([4]byte{172, 16, byte(i + 1), 2}), 1400); err != nil {
			t.Fatal(err)
		}
	}
	want := []Route{route("10.1.0.7/24", "172.16.1.2", 1), route("10.2.0.0/16", "", 0), route("10.3.0.0/24", "192.0.2.1", 5),
		route("0.0.0.0/0", "0.0.0.0", 7)}
	apply := func() {
		t.Helper()
		if err := a.SetRoutes(want); err != nil {
			t.Fatal(err)
		}
	}
	apply()
	if n := changes(t, apply); n != 0 {
		t.Errorf("applied twice: %d changes", n)
	}
	if got := kernelRoutes(t, a); len(got) != 4 || len(a.Routes()) != 4 {
		t.Errorf("routes %q, %v", got, a.Routes())
	}
	for _, c := range []struct {
		r    Route
		is   error
		text string
	}{
		{route("10.1.0.0/24", "", 1), ErrExists, "another metric"},
		{route("0.0.0.0/0", "", 7), ErrExists, "another metric"},
		{route("10.9.0.0/24", "172.16.1.2", 1), nil, "the gateway is on another link (rt-a)"},
		{route("10.9.0.0/24", "::1", 1), nil, "different families"},
		{route("10.9.0.0/24", "", -1), nil, "metric"},
		{Route{}, nil, "no destination"},
	} {
		err := b.AddRoute(c.r)
		if err == nil || !strings.Contains(err.Error(), c.text) || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), "rt-b") {
			t.Errorf("%v: %v", c.r, err)
		}
	}
	if err := b.AddRoute(route("10.1.0.0/24", "", 2)); err != nil {
		t.Errorf("same destination, other metric: %v", err)
	}
	// Removing what is not ours does nothing.
	if err := b.RemoveRoute(route("10.1.0.0/24", "", 1)); err != nil || len(kernelRoutes(t, a)) != 4 {
		t.Errorf("%v, %q", err, kernelRoutes(t, a))
	}
	if err := a.SetRoutes(want[:1]); err != nil {
		t.Fatal(err)
	}
	if got := kernelRoutes(t, a); len(got) != 1 || got[0] != "10.1.0.0/24" {
		t.Errorf("routes %q", got)
	}
	// The kernel flushes routes with the link; they come back when applied again.
	link, _ := netlink.LinkByIndex(a.Index())
	netlink.LinkSetDown(link)
	if err := a.SetUp(ip("172.16.0.1"), ip("172.16.1.2"), 1400); err != nil {
		t.Fatal(err)
	}
	apply()
	if got := kernelRoutes(t, a); len(got) != 4 {
		t.Errorf("routes %q", got)
	}
	unpin, err := n.Pin(ip("198.51.100.9")) // by the default route through a
	if err != nil {
		t.Fatal(err)
	}
	if got := kernelRoutes(t, a); len(got) != 5 {
		t.Errorf("routes %q", got)
	}
	again, err := n.Pin(ip("198.51.100.9"))
	if err != nil || again() != nil {
		t.Error(err)
	}
	for range 2 {
		if err := unpin(); err != nil {
			t.Error(err)
		}
	}
	if err := a.Down(); err != nil {
		t.Fatal(err)
	}
	if got := kernelRoutes(t, a); len(got) != 0 || len(a.Routes()) != 0 {
		t.Errorf("routes %q after Down", got)
	}
	if _, err := n.Pin(ip("198.51.100.9")); err == nil {
		t.Error("pinned the way to nowhere")
	}
}

func TestRename(t *testing.T) {
	n, a := testLink(t, "name-a", "veth")
	_, b := testLink(t, "name-b", "veth")
	if err := a.Rename("name-b"); !errors.Is(err, ErrExists) {
		t.Errorf("%v", err)
	}
	for range 2 {
		if err := a.Rename("l2tp.home"); err != nil {
			t.Fatal(err)
		}
	}
	if a.Name() != "l2tp.home" {
		t.Error(a.Name())
	}
	// The switches in /proc go by the new name, dot and all.
	if err := a.SetUp(ip("10.0.0.1"), ip("10.0.0.2"), 1400); err != nil {
		t.Fatal(err)
	}
	if i, err := n.Interface(a.Index()); err != nil || i.Name() != "l2tp.home" {
		t.Error(err)
	}
	link, _ := netlink.LinkByIndex(b.Index())
	netlink.LinkDel(link)
	if err := b.Rename("other"); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if err := b.SetUp(ip("10.0.0.1"), ip("10.0.0.2"), 1400); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if _, err := b.Stats(); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if err := b.AddRoute(Route{Dst: netip.MustParsePrefix("10.0.0.0/8")}); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if err := b.Down(); err != nil {
		t.Errorf("Down of an interface that is gone: %v", err)
	}
	if _, err := n.ByName("name-b"); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	if _, err := n.Interface(0); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	n.Close()
	n.Close()
	if err := a.Down(); err == nil {
		t.Error("Down after Close")
	}
	if err := n.CreatePPP("x", 0); err == nil {
		t.Error("CreatePPP after Close")
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{"ppp0": true, "<l2tp-user1>": true, "l2tp.home": true, "123456789012345": true, "1234567890123456": false,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "a:b": false, "ppp%d": false, "a\x00": false, "a\n": false} {
		if err := CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
