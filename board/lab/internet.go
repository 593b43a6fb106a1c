package lab

import (
	"fmt"
	"net/netip"
	"strings"
)

// A Link joins a node to its router. On the node its interface is eth0 (eth1, ...), on the router it bears the node's name.
type Link struct {
	Node, Router           *Node
	NodeIface, RouterIface string
	Addrs                  []netip.Addr // the node's
}

// Internet makes the router that everything meets at: it forwards, filters nothing, and gives nobody an address.
//
//	server 192.0.2.1 ──┐
//	                internet ── client 198.51.100.x
//	                   └── nat 203.0.113.x ── client 10.0.0.x
func (l *L) Internet() *Node {
	l.Helper()
	n := l.Namespace("internet")
	n.Forward()
	return n
}

// Forward makes the node a router.
func (n *Node) Forward() {
	n.lab.Helper()
	n.Sysctl("net.ipv4.ip_forward", "1")
	n.Sysctl("net.ipv6.conf.all.forwarding", "1")
}

// Host makes a node attached to the router n with these addresses and its default route through n.
func (n *Node) Host(name string, addrs ...string) *Node {
	n.lab.Helper()
	h := n.lab.Namespace(name)
	n.Attach(h, addrs...)
	return h
}

// NAT makes a router that hides the hosts attached to it behind its own address.
func (n *Node) NAT(name, addr string) *Node {
	n.lab.Helper()
	nat := n.Host(name, addr)
	nat.Forward()
	nat.Masquerade("eth0")
	return nat
}

// Attach joins h to the router n. The link is point to point: h keeps no neighbours but n, so addresses of one network
// may be spread over the lab, and the router answers as the 254th of each.
func (n *Node) Attach(h *Node, addrs ...string) *Link {
	n.lab.Helper()
	link := &Link{Node: h, Router: n, NodeIface: fmt.Sprintf("eth%d", h.links), RouterIface: h.Name}
	if h.links > 0 {
		link.RouterIface = fmt.Sprintf("%s.%d", h.Name, h.links)
	}
	if len(link.RouterIface) > 15 {
		n.lab.Fatalf("%q is too long for an interface's name", link.RouterIface)
	}
	first := h.links == 0
	h.links++
	near := []string{
		fmt.Sprintf("link add %s type veth peer name %s netns %d", link.RouterIface, link.NodeIface, h.tid),
		"link set " + link.RouterIface + " up",
	}
	far := []string{"link set " + link.NodeIface + " up"}
	for _, s := range addrs {
		a, err := netip.ParseAddr(s)
		n.lab.Must(err, "address of "+h.Name)
		link.Addrs = append(link.Addrs, a)
		gw, bits, nodad := gateway(a), a.BitLen(), ""
		if a.Is6() {
			nodad = " nodad"
		}
		near = append(near,
			fmt.Sprintf("addr add %s/%d dev %s%s", gw, bits, link.RouterIface, nodad),
			fmt.Sprintf("route add %s/%d dev %s", a, bits, link.RouterIface))
		far = append(far,
			fmt.Sprintf("addr add %s/%d dev %s%s", a, bits, link.NodeIface, nodad),
			fmt.Sprintf("route add %s/%d dev %s", gw, bits, link.NodeIface))
		if first {
			far = append(far, fmt.Sprintf("route add default via %s dev %s", gw, link.NodeIface))
		}
	}
	n.IP(near...)
	h.IP(far...)
	if first {
		h.Up = link
	}
	return link
}

func gateway(a netip.Addr) netip.Addr {
	if a.Is4() {
		b := a.As4()
		b[3] = 254
		return netip.AddrFrom4(b)
	}
	b := a.As16()
	b[15] = 254
	return netip.AddrFrom16(b)
}

// Masquerade hides what leaves by an interface behind the interface's address.
func (n *Node) Masquerade(iface string) {
	n.lab.Helper()
	if _, err := n.Command(n.lab.Context(), "nft", "list", "tables").Output(); err != nil { // a kernel without nf_tables
		n.Run("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-o", iface, "-j", "MASQUERADE")
		return
	}
	n.NFT(`table ip lab-nat {
	chain postrouting { type nat hook postrouting priority srcnat; oifname "` + iface + `" masquerade; }
}`)
}

// NFT loads nftables rules.
func (n *Node) NFT(rules string) {
	n.lab.Helper()
	cmd := n.Command(n.lab.Context(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.lab.Fatalf("on %s: nft: %v\n%s", n.Name, err, out)
	}
}

// Impair disturbs a link in both directions in netem's words: "delay 50ms 5ms loss 5% reorder 10% duplicate 2%".
// An empty string makes it perfect again.
func (k *Link) Impair(netem string) {
	k.Node.lab.Helper()
	for _, end := range []struct {
		n     *Node
		iface string
	}{{k.Node, k.NodeIface}, {k.Router, k.RouterIface}} {
		argv := []string{"tc", "qdisc", "replace", "dev", end.iface, "root", "netem", "limit", "10000"}
		if netem == "" {
			argv = []string{"tc", "qdisc", "replace", "dev", end.iface, "root", "pfifo"}
		}
		end.n.Run(append(argv, strings.Fields(netem)...)...)
	}
}
