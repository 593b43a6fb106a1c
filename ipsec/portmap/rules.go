package portmap

import (
	"golang.org/x/sys/unix"

	"culvert/board/nft"
)

// What the table says, in nft's own words. PORT is `udp dport 1701`, or `udp dport @ports` where there are several:
//
//	chain input { type filter hook input priority mangle
//		PORT jump guard
//	}
//	chain guard {
//		<data message, no length> meta mark & MASK . <tunnel id> @members accept
//		<data message, no length> <tunnel id> @tunnels drop
//		<data message, length> meta mark & MASK . <tunnel id> @members accept
//		<data message, length> <tunnel id> @tunnels drop
//	}
//
// and as long as a client is mapped:
//
//	map arriving { type mark . inet_service : inet_service }     # client . its port : the port we give it
//	map leaving  { type mark . inet_service : inet_service }     # client . that port : its own
//	chain prerouting { type filter hook prerouting priority raw
//		PORT udp checksum 0 udp sport set meta mark & MASK . udp sport map @arriving accept
//		PORT udp sport set meta mark & MASK . udp sport map @arriving
//	}
//	chain postrouting { type filter hook postrouting priority mangle
//		PORT udp checksum 0 udp dport set meta mark & MASK . udp dport map @leaving accept
//		PORT udp dport set meta mark & MASK . udp dport map @leaving
//	}
//
// Decrypted packets of a transport SA pass prerouting a second time, and packets to be encrypted pass postrouting before
// they are. Before the raw priority's turn comes connection tracking's, which so sees one port for each client.
const (
	tableName nft.Table = "culvert"

	setPorts    = "ports"
	mapArriving = "arriving"
	mapLeaving  = "leaving"
	setTunnels  = "tunnels"
	setMembers  = "members"

	chainInput       = "input"
	chainGuard       = "guard"
	chainPrerouting  = "prerouting"
	chainPostrouting = "postrouting"
)

// typeMarkPort is a client's mark with a port. nft(8) has no type for tunnel ids: they are listed as ports are.
var typeMarkPort = nft.Mark.Then(nft.Port)

// Fields of L2TP's header (RFC 2661 section 3.1), which is behind UDP's: the tunnel without the optional length, and with it.
var (
	l2tpFlags        = nft.Field{Base: nft.Transport, Offset: 8, Len: 2}
	l2tpTunnel       = nft.Field{Base: nft.Transport, Offset: 10, Len: 2}
	l2tpTunnelLength = nft.Field{Base: nft.Transport, Offset: 12, Len: 2}
)

// Of the flags: type and length bit, and the version. Control messages are checked by who reads them.
const (
	l2tpMask       = 0xc00f
	l2tpData       = 0x0002
	l2tpDataLength = 0x4002
)

// ruleset is the table without translation.
func ruleset(table nft.Table, mask uint32, ports []uint16) []nft.Message {
	msgs := []nft.Message{
		table.Set(nft.Set{Name: setPorts, Key: nft.Port}),
		table.Set(nft.Set{Name: mapArriving, Key: typeMarkPort, Data: nft.Port}),
		table.Set(nft.Set{Name: mapLeaving, Key: typeMarkPort, Data: nft.Port}),
		table.Set(nft.Set{Name: setTunnels, Key: nft.Port}),
		table.Set(nft.Set{Name: setMembers, Key: typeMarkPort}),
	}
	for _, p := range ports {
		msgs = append(msgs, table.Add(setPorts, nft.Element{Key: nft.BE16(p)}))
	}
	msgs = append(msgs,
		table.BaseChain(chainInput, nft.Hook{Type: "filter", Number: unix.NF_INET_LOCAL_IN, Priority: nft.PriorityMangle}),
		table.Chain(chainGuard),
		table.Rule(chainInput, ourPort(ports, nft.DestinationPort), nft.Jump(chainGuard)))
	for _, shape := range []struct {
		flags  uint16
		tunnel nft.Field
	}{{l2tpData, l2tpTunnel}, {l2tpDataLength, l2tpTunnelLength}} {
		// The members' own rule comes first: it is the only one that most packets meet.
		msgs = append(msgs,
			table.Rule(chainGuard, dataMessage(shape.flags), client(mask), nft.Load(shape.tunnel, nft.Second), nft.In(setMembers), nft.Accept()),
			table.Rule(chainGuard, dataMessage(shape.flags), nft.Load(shape.tunnel, nft.Key), nft.In(setTunnels), nft.Drop()))
	}
	return msgs
}

// translation is the chains that rewrite ports.
func translation(table nft.Table, mask uint32, ports []uint16) []nft.Message {
	msgs := []nft.Message{
		table.BaseChain(chainPrerouting, nft.Hook{Type: "filter", Number: unix.NF_INET_PRE_ROUTING, Priority: nft.PriorityRaw}),
		table.BaseChain(chainPostrouting, nft.Hook{Type: "filter", Number: unix.NF_INET_POST_ROUTING, Priority: nft.PriorityMangle}),
	}
	// A checksum of zero is none and stays none: RFC 3948 section 3.1.2 allows it inside of ESP, and many make use of it.
	unchecked := nft.Exprs(nft.Load(nft.UDPChecksum, nft.Key), nft.Equal(nft.Key, 0, 0))
	for _, way := range []struct {
		chain, dict  string
		ours, theirs nft.Field
	}{{chainPrerouting, mapArriving, nft.DestinationPort, nft.SourcePort}, {chainPostrouting, mapLeaving, nft.SourcePort, nft.DestinationPort}} {
		// A rule ends where the map has no port.
		given := nft.Exprs(client(mask), nft.Load(way.theirs, nft.Second), nft.Map(way.dict, nft.Key))
		msgs = append(msgs,
			table.Rule(way.chain, ourPort(ports, way.ours), unchecked, given, nft.Store(way.theirs, nft.Key, false), nft.Accept()),
			table.Rule(way.chain, ourPort(ports, way.ours), given, nft.Store(way.theirs, nft.Key, true)))
	}
	return msgs
}

// noTranslation removes them, rules and all.
func noTranslation(table nft.Table) []nft.Message {
	return []nft.Message{table.DeleteChain(chainPrerouting), table.DeleteChain(chainPostrouting)}
}

// ourPort matches UDP whose port in the field is one of ours. It stands first, and is all that other packets cost.
func ourPort(ports []uint16, f nft.Field) nft.Expr {
	match := nft.In(setPorts)
	if len(ports) == 1 {
		match = nft.Equal(nft.Key, nft.BE16(ports[0])...)
	}
	return nft.Exprs(nft.Protocol(unix.IPPROTO_UDP), nft.Load(f, nft.Key), match)
}

// dataMessage matches a data message with these flags.
func dataMessage(flags uint16) nft.Expr {
	return nft.Exprs(nft.Load(l2tpFlags, nft.Key), nft.And(nft.Key, nft.BE16(l2tpMask)...), nft.Equal(nft.Key, nft.BE16(flags)...))
}

// client loads the packet's mark, our part of it.
func client(mask uint32) nft.Expr {
	return nft.Exprs(nft.Meta(unix.NFT_META_MARK), nft.And(nft.Key, nft.Native32(mask)...))
}

// markPort is a concatenated key: the mark in host order as the kernel has it, the port as it stands in the packet, each
// filled up to four octets.
func markPort(mark uint32, port uint16) []byte {
	return append(nft.Native32(mark), byte(port>>8), byte(port), 0, 0)
}
