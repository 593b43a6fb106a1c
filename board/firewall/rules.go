package firewall

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"culvert/board/nft"
)

// Rules say what the table is for. In nft's own words, with everything asked for:
//
//	set ports { type inet_service; elements = { 500, 4500, 1701 } }
//	set banned4 { type ipv4_addr; flags timeout; size 4096 }
//	set banned6 { type ipv6_addr; flags timeout; size 4096 }       # networks of 64 bits
//	set users { type ipv4_addr; flags interval }
//
//	chain prerouting { type filter hook prerouting priority raw
//		meta l4proto udp udp dport @ports jump banned
//		meta l4proto esp jump banned
//	}
//	chain banned {
//		ip saddr @banned4 counter drop
//		ip6 saddr & ffff:ffff:ffff:ffff:: @banned6 counter drop
//	}
//	chain input { type filter hook input priority filter
//		udp dport 500 counter accept
//		udp dport 4500 counter accept
//		meta l4proto esp counter accept
//		udp dport 1701 meta secpath exists counter accept      # with `ip daddr` where it listens on one address
//		udp dport 1701 counter drop
//	}
//	chain forward { type filter hook forward priority filter
//		ip saddr @users counter accept
//		ip daddr @users counter accept
//	}
//	chain postrouting { type nat hook postrouting priority srcnat
//		ip saddr @users oifname "eth0" counter masquerade
//	}
//
// Users are told by their addresses, not by their interfaces: what the kernel's L2TP sends to a user has passed the user's
// interface too. And there is no connection tracking but for those who are masqueraded.
type Rules struct {
	IPsec      bool             // the key exchange and ESP come in
	L2TP       []netip.AddrPort // where the server listens
	Protected  bool             // L2TP counts only out of an SA
	KernelESP  bool             // what comes out of the kernel's SAs passes the table again; out of our own it does not
	Users      []Range          // what they have for addresses; sorted and disjoint
	Masquerade []string         // interfaces by which users leave with the router's address
}

// Range is addresses of IPv4, inclusive at both ends.
type Range struct{ First, Last netip.Addr }

// Name is the table's, of the inet family.
const Name = "culvert-firewall"

const tableName nft.Table = Name

const (
	setPorts = "ports"
	banned4  = "banned4"
	banned6  = "banned6"
	setUsers = "users"
)

// maxBanned bounds the sets of the banned, some 100 octets of the kernel's memory each.
const maxBanned = 4096

// bits of an IPv6 address that belong to one user: the network.
const bits6 = 64

const (
	portIKE, portNATT = 500, 4500 // RFC 3947
	metaSecpath       = 25        // NFT_META_SECPATH
	ifNameSize        = unix.IFNAMSIZ
)

// messages make the table's contents.
func (r Rules) messages() []nft.Message {
	var ports []uint16
	if r.IPsec {
		ports = append(ports, portIKE, portNATT)
	}
	for _, a := range r.L2TP {
		if !slices.Contains(ports, a.Port()) {
			ports = append(ports, a.Port())
		}
	}
	msgs := append(r.sets(ports), r.bans()...)
	msgs = append(msgs, r.input(ports)...)
	return append(msgs, r.forward()...)
}

func (r Rules) sets(ports []uint16) []nft.Message {
	msgs := []nft.Message{
		tableName.Set(nft.Set{Name: setPorts, Key: nft.Port}),
		tableName.Set(nft.Set{Name: banned4, Key: nft.IPv4Address, Timeouts: true, Size: maxBanned}),
		tableName.Set(nft.Set{Name: banned6, Key: nft.IPv6Address, Timeouts: true, Size: maxBanned}),
		tableName.Set(nft.Set{Name: setUsers, Key: nft.IPv4Address, Intervals: true}),
	}
	var elements []nft.Element
	for _, p := range ports {
		elements = append(elements, nft.Element{Key: nft.BE16(p)})
	}
	if len(elements) > 0 {
		msgs = append(msgs, tableName.Add(setPorts, elements...))
	}
	const atOnce = 1000 // an attribute's length has 16 bits
	for part := range slices.Chunk(intervals(r.Users), atOnce) {
		msgs = append(msgs, tableName.Add(setUsers, part...))
	}
	return msgs
}

// intervals are the ends of ranges, which are one where nothing lies between them.
func intervals(ranges []Range) (ends []nft.Element) {
	for i, r := range ranges {
		if i == 0 || ranges[i-1].Last.Next() != r.First {
			ends = append(ends, nft.Element{Key: r.First.AsSlice()})
		}
		next := r.Last.Next()
		if next.IsValid() && (i == len(ranges)-1 || ranges[i+1].First != next) {
			ends = append(ends, nft.Element{Key: next.AsSlice(), End: true})
		}
	}
	return ends
}

// bans drop first of all, and only what is meant for us: an address may be an office's.
func (r Rules) bans() []nft.Message {
	const chain = "banned"
	msgs := []nft.Message{
		tableName.Chain(chain),
		tableName.Rule(chain, nft.Family(unix.NFPROTO_IPV4), nft.Load(nft.Source4, nft.Key), nft.In(banned4), nft.Counter(), nft.Drop()),
		tableName.Rule(chain, nft.Family(unix.NFPROTO_IPV6), nft.Load(nft.Source6, nft.Key), nft.And(nft.Key, mask6()...), nft.In(banned6), nft.Counter(), nft.Drop()),
		tableName.BaseChain("prerouting", nft.Hook{Type: "filter", Number: unix.NF_INET_PRE_ROUTING, Priority: nft.PriorityRaw}),
		tableName.Rule("prerouting", nft.Protocol(unix.IPPROTO_UDP), nft.Load(nft.DestinationPort, nft.Key), nft.In(setPorts), nft.Jump(chain)),
	}
	if r.IPsec {
		msgs = append(msgs, tableName.Rule("prerouting", nft.Protocol(unix.IPPROTO_ESP), nft.Jump(chain)))
	}
	return msgs
}

func mask6() []byte {
	m := make([]byte, 16)
	for i := range bits6 / 8 {
		m[i] = 0xff
	}
	return m
}

func (r Rules) input(ports []uint16) []nft.Message {
	const chain = "input"
	msgs := []nft.Message{tableName.BaseChain(chain, nft.Hook{Type: "filter", Number: unix.NF_INET_LOCAL_IN, Priority: nft.PriorityFilter})}
	if r.IPsec {
		msgs = append(msgs,
			tableName.Rule(chain, udpTo(portIKE), nft.Counter(), nft.Accept()),
			tableName.Rule(chain, udpTo(portNATT), nft.Counter(), nft.Accept()),
			tableName.Rule(chain, nft.Protocol(unix.IPPROTO_ESP), nft.Counter(), nft.Accept()))
	}
	for _, a := range r.L2TP {
		at := nft.Exprs(to(a.Addr()), udpTo(a.Port()))
		switch {
		case !r.Protected:
			msgs = append(msgs, tableName.Rule(chain, at, nft.Counter(), nft.Accept()))
			continue
		case r.KernelESP:
			msgs = append(msgs, tableName.Rule(chain, at, nft.Meta(metaSecpath), nft.Equal(nft.Key, 1), nft.Counter(), nft.Accept()))
		}
		msgs = append(msgs, tableName.Rule(chain, at, nft.Counter(), nft.Drop()))
	}
	return msgs
}

func udpTo(port uint16) nft.Expr {
	return nft.Exprs(nft.Protocol(unix.IPPROTO_UDP), nft.Load(nft.DestinationPort, nft.Key), nft.Equal(nft.Key, nft.BE16(port)...))
}

// to matches packets to an address, or any of its family.
func to(a netip.Addr) nft.Expr {
	family, field := byte(unix.NFPROTO_IPV4), nft.Destination4
	if a.Is6() {
		family, field = unix.NFPROTO_IPV6, nft.Destination6
	}
	if a.IsUnspecified() {
		return nft.Family(family)
	}
	return nft.Exprs(nft.Family(family), nft.Load(field, nft.Key), nft.Equal(nft.Key, a.AsSlice()...))
}

func (r Rules) forward() []nft.Message {
	if len(r.Users) == 0 {
		return nil
	}
	user := func(address nft.Field) nft.Expr {
		return nft.Exprs(nft.Family(unix.NFPROTO_IPV4), nft.Load(address, nft.Key), nft.In(setUsers))
	}
	msgs := []nft.Message{
		tableName.BaseChain("forward", nft.Hook{Type: "filter", Number: unix.NF_INET_FORWARD, Priority: nft.PriorityFilter}),
		tableName.Rule("forward", user(nft.Source4), nft.Counter(), nft.Accept()),
		tableName.Rule("forward", user(nft.Destination4), nft.Counter(), nft.Accept()),
	}
	if len(r.Masquerade) == 0 {
		return msgs
	}
	msgs = append(msgs, tableName.BaseChain("postrouting", nft.Hook{Type: "nat", Number: unix.NF_INET_POST_ROUTING, Priority: nft.PrioritySrcNAT}))
	for _, name := range r.Masquerade {
		var padded [ifNameSize]byte
		copy(padded[:], name)
		msgs = append(msgs, tableName.Rule("postrouting", user(nft.Source4), nft.Meta(unix.NFT_META_OIFNAME), nft.Equal(nft.Key, padded[:]...),
			nft.Counter(), nft.Masquerade()))
	}
	return msgs
}
