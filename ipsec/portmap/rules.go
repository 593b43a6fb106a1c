package portmap

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
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
	tableName = "culvert"

	setPorts    = "ports"
	mapArriving = "arriving"
	mapLeaving  = "leaving"
	setTunnels  = "tunnels"
	setMembers  = "members"

	chainGuard       = "guard"
	chainPrerouting  = "prerouting"
	chainPostrouting = "postrouting"

	priorityRaw    = -300
	priorityMangle = -150
)

// nft's names of data types (nftables' enum datatypes), for `nft list`; a concatenation takes six bits for each part.
// There is none for tunnel ids: they are listed as ports are.
const (
	typePort     = 13
	typeMark     = 19
	typeMarkPort = typeMark<<6 | typePort
)

const (
	flagOwner = 0x2 // NFT_TABLE_F_OWNER

	acceptVerdict = 1 // NF_ACCEPT
	dropVerdict   = 0 // NF_DROP
)

// Registers: the mark in the first four octets of a concatenated key, the port in the next four.
const (
	regKey  = unix.NFT_REG_1
	regPort = unix.NFT_REG32_01
)

// Offsets from the UDP header (RFC 768), and in L2TP's behind it (RFC 2661 section 3.1).
const (
	udpSource, udpDestination, udpChecksum = 0, 2, 6

	l2tpFlags        = 8
	l2tpTunnel       = 10 // without the optional length
	l2tpTunnelLength = 12
)

// Of the flags: type and length bit, and the version. Control messages are checked by who reads them.
const (
	l2tpMask       = 0xc00f
	l2tpData       = 0x0002
	l2tpDataLength = 0x4002
)

// ruleset is the table without translation, as one transaction.
func ruleset(table string, mask uint32, ports []uint16) []message {
	name := func(kind uint16, s string) []byte { return attr(nil, kind, text(s)) }
	msgs := []message{{
		kind: unix.NFT_MSG_NEWTABLE, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		body: attr(name(unix.NFTA_TABLE_NAME, table), unix.NFTA_TABLE_FLAGS, be32(flagOwner)),
	}}
	set := func(id uint32, set string, keyType, keyLen uint32, isMap bool) {
		b := attr(name(unix.NFTA_SET_TABLE, table), unix.NFTA_SET_NAME, text(set))
		b = attr(b, unix.NFTA_SET_KEY_TYPE, be32(keyType))
		b = attr(b, unix.NFTA_SET_KEY_LEN, be32(keyLen))
		if isMap {
			b = attr(b, unix.NFTA_SET_FLAGS, be32(unix.NFT_SET_MAP))
			b = attr(b, unix.NFTA_SET_DATA_TYPE, be32(typePort))
			b = attr(b, unix.NFTA_SET_DATA_LEN, be32(2))
		}
		b = attr(b, unix.NFTA_SET_ID, be32(id))
		msgs = append(msgs, message{kind: unix.NFT_MSG_NEWSET, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: b})
	}
	set(1, setPorts, typePort, 2, false)
	set(2, mapArriving, typeMarkPort, 8, true)
	set(3, mapLeaving, typeMarkPort, 8, true)
	set(4, setTunnels, typePort, 2, false)
	set(5, setMembers, typeMarkPort, 8, false)
	for _, p := range ports {
		msgs = append(msgs, elementOf(table, unix.NFT_MSG_NEWSETELEM, setPorts, port16(p), nil))
	}
	base := basechain(table, "input", unix.NF_INET_LOCAL_IN, priorityMangle)
	guard := message{kind: unix.NFT_MSG_NEWCHAIN, flags: unix.NLM_F_CREATE, body: chainName(table, chainGuard)}
	msgs = append(msgs, base, guard,
		ruleOf(table, "input", ourPort(ports, udpDestination), jump(chainGuard)))
	for _, shape := range []struct {
		flags  uint16
		tunnel uint32
	}{{l2tpData, l2tpTunnel}, {l2tpDataLength, l2tpTunnelLength}} {
		// The members' own rule comes first: it is the only one that most packets meet.
		msgs = append(msgs,
			ruleOf(table, chainGuard, dataMessage(shape.flags), client(mask), load(shape.tunnel, regPort), lookup(setMembers, 0), verdict(acceptVerdict)),
			ruleOf(table, chainGuard, dataMessage(shape.flags), load(shape.tunnel, regKey), lookup(setTunnels, 0), verdict(dropVerdict)))
	}
	return msgs
}

// translation is the chains that rewrite ports.
func translation(table string, mask uint32, ports []uint16) []message {
	msgs := []message{
		basechain(table, chainPrerouting, unix.NF_INET_PRE_ROUTING, priorityRaw),
		basechain(table, chainPostrouting, unix.NF_INET_POST_ROUTING, priorityMangle),
	}
	// A checksum of zero is none and stays none: RFC 3948 section 3.1.2 allows it inside of ESP, and many make use of it.
	unchecked := rule(load(udpChecksum, regKey), compare(regKey, 0))
	for _, way := range []struct {
		chain, dict  string
		ours, theirs uint32
	}{{chainPrerouting, mapArriving, udpDestination, udpSource}, {chainPostrouting, mapLeaving, udpSource, udpDestination}} {
		msgs = append(msgs,
			ruleOf(table, way.chain, ourPort(ports, way.ours), unchecked,
				translate(mask, way.theirs, way.dict, unix.NFT_PAYLOAD_CSUM_NONE), verdict(acceptVerdict)),
			ruleOf(table, way.chain, ourPort(ports, way.ours), translate(mask, way.theirs, way.dict, unix.NFT_PAYLOAD_CSUM_INET)))
	}
	return msgs
}

// noTranslation removes them, rules and all.
func noTranslation(table string) []message {
	return []message{
		{kind: unix.NFT_MSG_DELCHAIN, body: chainName(table, chainPrerouting)},
		{kind: unix.NFT_MSG_DELCHAIN, body: chainName(table, chainPostrouting)},
	}
}

func chainName(table, chain string) []byte {
	return attr(attr(nil, unix.NFTA_CHAIN_TABLE, text(table)), unix.NFTA_CHAIN_NAME, text(chain))
}

func basechain(table, chain string, hook uint32, priority int32) message {
	b := nest(chainName(table, chain), unix.NFTA_CHAIN_HOOK,
		attr(attr(nil, unix.NFTA_HOOK_HOOKNUM, be32(hook)), unix.NFTA_HOOK_PRIORITY, be32(uint32(priority))))
	b = attr(b, unix.NFTA_CHAIN_POLICY, be32(acceptVerdict))
	b = attr(b, unix.NFTA_CHAIN_TYPE, text("filter"))
	return message{kind: unix.NFT_MSG_NEWCHAIN, flags: unix.NLM_F_CREATE, body: b}
}

// ruleOf appends a rule of these expressions to the chain.
func ruleOf(table, chain string, parts ...[]byte) message {
	b := attr(attr(nil, unix.NFTA_RULE_TABLE, text(table)), unix.NFTA_RULE_CHAIN, text(chain))
	b = nest(b, unix.NFTA_RULE_EXPRESSIONS, rule(parts...))
	return message{kind: unix.NFT_MSG_NEWRULE, flags: unix.NLM_F_CREATE | unix.NLM_F_APPEND, body: b}
}

// ourPort matches UDP whose port at the offset is one of ours. It stands first, and is all that other packets cost.
func ourPort(ports []uint16, offset uint32) []byte {
	l4proto := expression("meta", attr(attr(nil, unix.NFTA_META_KEY, be32(unix.NFT_META_L4PROTO)), unix.NFTA_META_DREG, be32(regKey)))
	match := lookup(setPorts, 0)
	if len(ports) == 1 {
		match = compare(regKey, ports[0])
	}
	return rule(l4proto, compareBytes(regKey, []byte{unix.IPPROTO_UDP}), load(offset, regKey), match)
}

// translate replaces the port at the offset by the map's, and ends the rule where the map has none.
func translate(mask uint32, offset uint32, m string, checksum uint32) []byte {
	b := attr(nil, unix.NFTA_PAYLOAD_SREG, be32(regKey))
	b = attr(b, unix.NFTA_PAYLOAD_BASE, be32(unix.NFT_PAYLOAD_TRANSPORT_HEADER))
	b = attr(b, unix.NFTA_PAYLOAD_OFFSET, be32(offset))
	b = attr(b, unix.NFTA_PAYLOAD_LEN, be32(2))
	b = attr(b, unix.NFTA_PAYLOAD_CSUM_TYPE, be32(checksum))
	if checksum != unix.NFT_PAYLOAD_CSUM_NONE {
		b = attr(b, unix.NFTA_PAYLOAD_CSUM_OFFSET, be32(udpChecksum))
	}
	return rule(client(mask), load(offset, regPort), lookup(m, regKey), expression("payload", b))
}

// dataMessage matches a data message with these flags.
func dataMessage(flags uint16) []byte {
	return rule(load(l2tpFlags, regKey), and(regKey, port16(l2tpMask)), compare(regKey, flags))
}

// client loads the packet's mark, our part of it.
func client(mask uint32) []byte {
	load := expression("meta", attr(attr(nil, unix.NFTA_META_KEY, be32(unix.NFT_META_MARK)), unix.NFTA_META_DREG, be32(regKey)))
	return rule(load, and(regKey, native32(mask)))
}

// load takes two octets of the packet, from the UDP header on.
func load(offset, reg uint32) []byte {
	b := attr(nil, unix.NFTA_PAYLOAD_DREG, be32(reg))
	b = attr(b, unix.NFTA_PAYLOAD_BASE, be32(unix.NFT_PAYLOAD_TRANSPORT_HEADER))
	b = attr(b, unix.NFTA_PAYLOAD_OFFSET, be32(offset))
	b = attr(b, unix.NFTA_PAYLOAD_LEN, be32(2))
	return expression("payload", b)
}

// and masks a register.
func and(reg uint32, mask []byte) []byte {
	b := attr(nil, unix.NFTA_BITWISE_SREG, be32(reg))
	b = attr(b, unix.NFTA_BITWISE_DREG, be32(reg))
	b = attr(b, unix.NFTA_BITWISE_LEN, be32(uint32(len(mask))))
	b = nest(b, unix.NFTA_BITWISE_MASK, attr(nil, unix.NFTA_DATA_VALUE, mask))
	b = nest(b, unix.NFTA_BITWISE_XOR, attr(nil, unix.NFTA_DATA_VALUE, make([]byte, len(mask))))
	return expression("bitwise", b)
}

func compare(reg uint32, v uint16) []byte { return compareBytes(reg, port16(v)) }

func compareBytes(reg uint32, v []byte) []byte {
	b := attr(nil, unix.NFTA_CMP_SREG, be32(reg))
	b = attr(b, unix.NFTA_CMP_OP, be32(unix.NFT_CMP_EQ))
	b = nest(b, unix.NFTA_CMP_DATA, attr(nil, unix.NFTA_DATA_VALUE, v))
	return expression("cmp", b)
}

// lookup finds regKey, and what follows it where the set's keys are concatenated. A map's value goes to the register to.
func lookup(set string, to uint32) []byte {
	b := attr(nil, unix.NFTA_LOOKUP_SET, text(set))
	b = attr(b, unix.NFTA_LOOKUP_SREG, be32(regKey))
	if to != 0 {
		b = attr(b, unix.NFTA_LOOKUP_DREG, be32(to))
	}
	return expression("lookup", b)
}

func verdict(code uint32) []byte {
	return verdictOf(attr(nil, unix.NFTA_VERDICT_CODE, be32(code)))
}

// jump goes on in another chain, and comes back from its end.
func jump(chain string) []byte {
	toJump := int32(unix.NFT_JUMP)
	return verdictOf(attr(attr(nil, unix.NFTA_VERDICT_CODE, be32(uint32(toJump))), unix.NFTA_VERDICT_CHAIN, text(chain)))
}

func verdictOf(v []byte) []byte {
	b := attr(nil, unix.NFTA_IMMEDIATE_DREG, be32(unix.NFT_REG_VERDICT))
	return expression("immediate", nest(b, unix.NFTA_IMMEDIATE_DATA, nest(nil, unix.NFTA_DATA_VERDICT, v)))
}

func expression(name string, data []byte) []byte {
	return nest(nil, unix.NFTA_LIST_ELEM, nest(attr(nil, unix.NFTA_EXPR_NAME, text(name)), unix.NFTA_EXPR_DATA, data))
}

// rule strings expressions together.
func rule(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func element(kind uint16, set string, key, data []byte) message {
	return elementOf(tableName, kind, set, key, data)
}

// elementOf adds or deletes (NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM) an element of a set, or of a map where data is given.
func elementOf(table string, kind uint16, set string, key, data []byte) message {
	e := nest(nil, unix.NFTA_SET_ELEM_KEY, attr(nil, unix.NFTA_DATA_VALUE, key))
	if data != nil {
		e = nest(e, unix.NFTA_SET_ELEM_DATA, attr(nil, unix.NFTA_DATA_VALUE, data))
	}
	b := attr(nil, unix.NFTA_SET_ELEM_LIST_TABLE, text(table))
	b = attr(b, unix.NFTA_SET_ELEM_LIST_SET, text(set))
	b = nest(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS, nest(nil, unix.NFTA_LIST_ELEM, e))
	m := message{kind: kind, body: b}
	if kind == unix.NFT_MSG_NEWSETELEM {
		m.flags = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	}
	return m
}

// markPort is a concatenated key: the mark in host order as the kernel has it, the port as it stands in the packet, each
// filled up to four octets.
func markPort(mark uint32, port uint16) []byte {
	return append(native32(mark), byte(port>>8), byte(port), 0, 0)
}

func port16(v uint16) []byte   { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte     { return binary.BigEndian.AppendUint32(nil, v) }
func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
