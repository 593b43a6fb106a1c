package netif

import (
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestProxyARP(t *testing.T) {
	n, link := testLink(t, "proxy-test", "tun")
	_, lan := testLink(t, "lan-test", "veth")
	l, err := netlink.LinkByIndex(lan.Index())
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: ip("192.168.88.1").AsSlice(), Mask: net.CIDRMask(24, 32)}}); err != nil {
		t.Fatal(err)
	}
	has := func() int {
		t.Helper()
		p, err := n.h.Proxies()
		if err != nil {
			t.Fatal(err)
		}
		return len(p)
	}
	on := func(addr string, want ...string) {
		t.Helper()
		got, err := link.ProxyARP(ip(addr))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: on %q, %v", addr, got, err)
		}
	}
	on("192.168.88.50", "lan-test")
	on("192.168.88.50", "lan-test") // again: nothing changes
	on("192.168.89.50")
	on("192.168.88.1") // our own
	if has() != 1 {
		t.Errorf("%d addresses are answered for", has())
	}
	if err := link.Down(); err != nil {
		t.Fatal(err)
	}
	if has() != 0 {
		t.Error("still answered for")
	}
	// What a killed process leaves is found, with its host routes.
	on("192.168.88.51", "lan-test")
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Pin(ip("192.168.88.77")); err != nil {
		t.Fatal(err)
	}
	routes := func() int {
		r, _ := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: protocolOurs}, netlink.RT_FILTER_PROTOCOL)
		return len(r)
	}
	if routes() != 1 {
		t.Error("no host route")
	}
	if err := n.Sweep(); err != nil {
		t.Fatal(err)
	}
	if has() != 0 || routes() != 0 {
		t.Errorf("%d addresses and %d routes are left", has(), routes())
	}
	if _, err := link.ProxyARP(ip("fe80::1")); err == nil {
		t.Error("ARP for IPv6")
	}
}

func TestClampMSS(t *testing.T) {
	_, link := testLink(t, "mss-test", "tun")
	for range 2 {
		if err := link.ClampMSS(1400); errors.Is(err, ErrNoMSS) {
			t.Skip(err) // the lab's kernels can
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := link.ClampMSS(1300); err != nil {
		t.Fatal(err)
	}
	if link.n.mss == nil || link.n.mss.ports[link.Index()] != 1300 {
		t.Error("not noted")
	}
	if err := link.Down(); err != nil {
		t.Fatal(err)
	}
	if link.n.mss != nil {
		t.Error("the table stays")
	}
}
