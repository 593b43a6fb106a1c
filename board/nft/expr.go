package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Expr is an expression of a rule, or several, one behind the other. A rule ends at the first that does not match.
type Expr []byte

// Registers that expressions load, compare and look up. Key is what most use; Second holds the four octets behind the
// first four of Key, for concatenations; Value is apart from both.
const (
	Key    = unix.NFT_REG_1
	Second = unix.NFT_REG32_01
	Value  = unix.NFT_REG_2
)

const (
	verdictDrop   = 0 // NF_DROP
	verdictAccept = 1 // NF_ACCEPT
)

// Exprs strings expressions together.
func Exprs(exprs ...Expr) (all Expr) {
	for _, e := range exprs {
		all = append(all, e...)
	}
	return all
}

func expression(name string, attrs ...[]byte) Expr {
	return nest(unix.NFTA_LIST_ELEM, text(unix.NFTA_EXPR_NAME, name), nest(unix.NFTA_EXPR_DATA, attrs...))
}

// Meta loads what is known of a packet beside its octets (NFT_META_*) into Key.
func Meta(key uint32) Expr {
	return expression("meta", be32(unix.NFTA_META_KEY, key), be32(unix.NFTA_META_DREG, Key))
}

// Where a field's offset counts from.
const (
	Network   = unix.NFT_PAYLOAD_NETWORK_HEADER
	Transport = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

// Field is a part of a packet, in octets.
type Field struct{ Base, Offset, Len uint32 }

// Fields of IPv4 (RFC 791), IPv6 (RFC 8200), UDP (RFC 768) and TCP (RFC 9293 section 3.1), which have their ports in common.
var (
	Source4         = Field{Network, 12, 4}
	Destination4    = Field{Network, 16, 4}
	Source6         = Field{Network, 8, 16}
	Destination6    = Field{Network, 24, 16}
	SourcePort      = Field{Transport, 0, 2}
	DestinationPort = Field{Transport, 2, 2}
	UDPChecksum     = Field{Transport, udpChecksum, 2}
	TCPFlags        = Field{Transport, 13, 1}
)

const udpChecksum = 6

// Load takes a field of the packet into a register. A packet without it does not match.
func Load(f Field, reg uint32) Expr {
	return expression("payload", be32(unix.NFTA_PAYLOAD_DREG, reg), be32(unix.NFTA_PAYLOAD_BASE, f.Base),
		be32(unix.NFTA_PAYLOAD_OFFSET, f.Offset), be32(unix.NFTA_PAYLOAD_LEN, f.Len))
}

// Store writes a register over a field of the packet. With udpSum a UDP checksum is kept right.
func Store(f Field, reg uint32, udpSum bool) Expr {
	b := join(be32(unix.NFTA_PAYLOAD_SREG, reg), be32(unix.NFTA_PAYLOAD_BASE, f.Base),
		be32(unix.NFTA_PAYLOAD_OFFSET, f.Offset), be32(unix.NFTA_PAYLOAD_LEN, f.Len))
	if udpSum {
		return expression("payload", b, be32(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_INET), be32(unix.NFTA_PAYLOAD_CSUM_OFFSET, udpChecksum))
	}
	return expression("payload", b, be32(unix.NFTA_PAYLOAD_CSUM_TYPE, unix.NFT_PAYLOAD_CSUM_NONE))
}

// StoreMSS writes a register over TCP's option of the maximum segment size, if the packet has it and it is larger.
func StoreMSS(reg uint32) Expr {
	const option, offset, length = 2, 2, 2 // RFC 9293 section 3.2
	return expression("exthdr", be32(unix.NFTA_EXTHDR_SREG, reg), attr(unix.NFTA_EXTHDR_TYPE, []byte{option}),
		be32(unix.NFTA_EXTHDR_OFFSET, offset), be32(unix.NFTA_EXTHDR_LEN, length), be32(unix.NFTA_EXTHDR_OP, unix.NFT_EXTHDR_OP_TCPOPT))
}

// And masks a register.
func And(reg uint32, mask ...byte) Expr {
	return expression("bitwise", be32(unix.NFTA_BITWISE_SREG, reg), be32(unix.NFTA_BITWISE_DREG, reg), be32(unix.NFTA_BITWISE_LEN, uint32(len(mask))),
		value(unix.NFTA_BITWISE_MASK, mask), value(unix.NFTA_BITWISE_XOR, make([]byte, len(mask))))
}

// Equal matches where a register begins with these octets.
func Equal(reg uint32, v ...byte) Expr { return compare(reg, unix.NFT_CMP_EQ, v) }

func compare(reg, op uint32, v []byte) Expr {
	return expression("cmp", be32(unix.NFTA_CMP_SREG, reg), be32(unix.NFTA_CMP_OP, op), value(unix.NFTA_CMP_DATA, v))
}

// In matches where a set has Key.
func In(set string) Expr {
	return expression("lookup", text(unix.NFTA_LOOKUP_SET, set), be32(unix.NFTA_LOOKUP_SREG, Key))
}

// Map loads what a map has for Key into a register, and matches if there is something.
func Map(name string, reg uint32) Expr {
	return expression("lookup", text(unix.NFTA_LOOKUP_SET, name), be32(unix.NFTA_LOOKUP_SREG, Key), be32(unix.NFTA_LOOKUP_DREG, reg))
}

// Counter counts the packets that come so far, and their octets.
func Counter() Expr { return expression("counter") }

// Accept ends the chain, and those that jumped to it: the packet goes on to other tables' chains.
func Accept() Expr { return verdict(be32(unix.NFTA_VERDICT_CODE, verdictAccept)) }

// Drop ends the packet.
func Drop() Expr { return verdict(be32(unix.NFTA_VERDICT_CODE, verdictDrop)) }

// Jump goes on in another chain, and comes back from its end.
func Jump(chain string) Expr {
	toJump := int32(unix.NFT_JUMP)
	return verdict(be32(unix.NFTA_VERDICT_CODE, uint32(toJump)), text(unix.NFTA_VERDICT_CHAIN, chain))
}

func verdict(attrs ...[]byte) Expr {
	return expression("immediate", be32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT), nest(unix.NFTA_IMMEDIATE_DATA, nest(unix.NFTA_DATA_VERDICT, attrs...)))
}

// Masquerade gives the packet's connection the address of the interface that it leaves by.
func Masquerade() Expr { return expression("masq") }

// Protocol matches packets of an IP protocol, of either family.
func Protocol(p byte) Expr { return Exprs(Meta(unix.NFT_META_L4PROTO), Equal(Key, p)) }

// Family matches packets of NFPROTO_IPV4 or NFPROTO_IPV6, whose fields are found nowhere else.
func Family(f byte) Expr { return Exprs(Meta(unix.NFT_META_NFPROTO), Equal(Key, f)) }

// BE16 is a port as packets have it.
func BE16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// Native32 is what the kernel has in its own order: marks, interface indexes.
func Native32(v uint32) []byte { return host.AppendUint32(nil, v) }
