package netif

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoMSS means that the kernel cannot change TCP's MSS for us: it has no nf_tables of the inet family.
var ErrNoMSS = errors.New("the kernel has no nf_tables of the inet family (CONFIG_NF_TABLES_INET, modprobe nf_tables), by which TCP's MSS is lowered to what fits through a tunnel: " +
	"path MTU discovery has to work, or set change-tcp-mss = false")

// clamp lowers the MSS that connections through our interfaces begin with, in a table of our own:
//
//	table inet culvert-mss {
//		map mss4 { type iface_index : inet_service; elements = { l2tp-in1 : 1360 } }
//		map mss6 { ... }
//		chain forward { type filter hook forward priority mangle; meta l4proto tcp tcp flags & (syn | rst) == syn jump clamp }
//		chain clamp { meta nfproto ipv4 tcp option maxseg size set oif map @mss4  and so for iif, and for IPv6 }
//	}
//
// The kernel never raises an MSS so. The table is there while it has something to do.
type clamp struct {
	s     *nftSocket
	ports map[int]int // interface index to MTU
}

const (
	clampTable = "culvert-mss"
	map4, map6 = "mss4", "mss6"

	tcpHeaders4, tcpHeaders6 = 40, 60 // of IP and TCP, in octets
	tableOwner               = 2      // NFT_TABLE_F_OWNER
	setMap                   = 8      // NFT_SET_MAP
	optionMSS                = 2
	hookForward              = 2
	mangle                   = -150
)

// ClampMSS lowers the MSS of TCP connections that are forwarded through the interface to what fits into packets of mtu
// octets, both ways, until Down. Zero ends it. ErrNoMSS is in the error's tree where the kernel cannot.
func (i *Interface) ClampMSS(mtu int) error {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	if err := i.n.clamp(i.index, mtu); err != nil {
		return i.fail("lower TCP's MSS", err)
	}
	return nil
}

// clamp notes the MTU of an interface; the caller holds the lock.
func (n *Netif) clamp(index, mtu int) error {
	c := n.mss
	old := 0
	if c != nil {
		old = c.ports[index]
	}
	if old == mtu {
		return nil
	}
	if c == nil {
		var err error
		if c, err = newClamp(); err != nil {
			return err
		}
		n.mss = c
	}
	var msgs []nftMessage
	if old != 0 {
		msgs = append(msgs, elements(unix.NFT_MSG_DELSETELEM, 0, index, old)...)
	}
	if mtu != 0 {
		msgs = append(msgs, elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, index, mtu)...)
	}
	err := c.s.commit(unix.NFPROTO_INET, msgs...)
	if err == nil {
		c.ports[index] = mtu
		if mtu == 0 {
			delete(c.ports, index)
		}
	}
	if len(c.ports) == 0 {
		c.close()
		n.mss = nil
	}
	return err
}

func newClamp() (*clamp, error) {
	s, err := dialNFT()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMSS, err)
	}
	for _, flags := range []uint32{tableOwner, 0} { // before Linux 5.12 a table has no owner
		if flags == 0 { // and one that a killed process left is still there
			s.commit(unix.NFPROTO_INET, nftMessage{unix.NFT_MSG_DELTABLE, 0, text(unix.NFTA_TABLE_NAME, clampTable)})
		}
		if err = s.commit(unix.NFPROTO_INET, clampRules(flags)...); err == nil {
			return &clamp{s: s, ports: make(map[int]int)}, nil
		}
	}
	s.close()
	if errors.Is(err, syscall.EPERM) {
		return nil, mend(err)
	}
	return nil, fmt.Errorf("%w: %w", ErrNoMSS, err)
}

// close removes the table.
func (c *clamp) close() {
	c.s.commit(unix.NFPROTO_INET, nftMessage{unix.NFT_MSG_DELTABLE, 0, text(unix.NFTA_TABLE_NAME, clampTable)})
	c.s.close()
}

// clampRules are the requests that make the table.
func clampRules(flags uint32) []nftMessage {
	const create = unix.NLM_F_CREATE
	set := func(name string, id uint32) nftMessage {
		return nftMessage{unix.NFT_MSG_NEWSET, create, join(text(unix.NFTA_SET_TABLE, clampTable), text(unix.NFTA_SET_NAME, name),
			be32(unix.NFTA_SET_FLAGS, setMap), be32(unix.NFTA_SET_KEY_TYPE, 9), be32(unix.NFTA_SET_KEY_LEN, 4),
			be32(unix.NFTA_SET_DATA_TYPE, 13), be32(unix.NFTA_SET_DATA_LEN, 2), be32(unix.NFTA_SET_ID, id))} // names of the types for nft(8): iface_index, inet_service
	}
	rule := func(chain string, exprs ...[]byte) nftMessage {
		return nftMessage{unix.NFT_MSG_NEWRULE, create | unix.NLM_F_APPEND, join(text(unix.NFTA_RULE_TABLE, clampTable),
			text(unix.NFTA_RULE_CHAIN, chain), nest(nil, unix.NFTA_RULE_EXPRESSIONS, exprs...))}
	}
	lower := func(family byte, key uint32, name string, id uint32) nftMessage {
		return rule("clamp", loadMeta(unix.NFT_META_NFPROTO), equals(family), loadMeta(key),
			expr("lookup", text(unix.NFTA_LOOKUP_SET, name), be32(unix.NFTA_LOOKUP_SET_ID, id), be32(unix.NFTA_LOOKUP_SREG, nftReg1), be32(unix.NFTA_LOOKUP_DREG, nftReg2)),
			expr("exthdr", be32(unix.NFTA_EXTHDR_SREG, nftReg2), attr(nil, unix.NFTA_EXTHDR_TYPE, []byte{optionMSS}),
				be32(unix.NFTA_EXTHDR_OFFSET, 2), be32(unix.NFTA_EXTHDR_LEN, 2), be32(unix.NFTA_EXTHDR_OP, unix.NFT_EXTHDR_OP_TCPOPT)))
	}
	const priority = 1<<32 + mangle
	return []nftMessage{
		{unix.NFT_MSG_NEWTABLE, create, join(text(unix.NFTA_TABLE_NAME, clampTable), be32(unix.NFTA_TABLE_FLAGS, flags))},
		set(map4, 1), set(map6, 2),
		{unix.NFT_MSG_NEWCHAIN, create, join(text(unix.NFTA_CHAIN_TABLE, clampTable), text(unix.NFTA_CHAIN_NAME, "clamp"))},
		{unix.NFT_MSG_NEWCHAIN, create, join(text(unix.NFTA_CHAIN_TABLE, clampTable), text(unix.NFTA_CHAIN_NAME, "forward"),
			nest(nil, unix.NFTA_CHAIN_HOOK, be32(unix.NFTA_HOOK_HOOKNUM, hookForward), be32(unix.NFTA_HOOK_PRIORITY, priority)),
			text(unix.NFTA_CHAIN_TYPE, "filter"))},
		rule("forward", loadMeta(unix.NFT_META_L4PROTO), equals(unix.IPPROTO_TCP),
			expr("payload", be32(unix.NFTA_PAYLOAD_DREG, nftReg1), be32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_TRANSPORT_HEADER),
				be32(unix.NFTA_PAYLOAD_OFFSET, 13), be32(unix.NFTA_PAYLOAD_LEN, 1)),
			expr("bitwise", be32(unix.NFTA_BITWISE_SREG, nftReg1), be32(unix.NFTA_BITWISE_DREG, nftReg1), be32(unix.NFTA_BITWISE_LEN, 1),
				value(unix.NFTA_BITWISE_MASK, []byte{6}), value(unix.NFTA_BITWISE_XOR, []byte{0})),
			equals(2),
			expr("immediate", be32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT), nest(nil, unix.NFTA_IMMEDIATE_DATA,
				nest(nil, unix.NFTA_DATA_VERDICT, be32(unix.NFTA_VERDICT_CODE, 1<<32+unix.NFT_JUMP), text(unix.NFTA_VERDICT_CHAIN, "clamp"))))),
		lower(unix.NFPROTO_IPV4, unix.NFT_META_OIF, map4, 1), lower(unix.NFPROTO_IPV4, unix.NFT_META_IIF, map4, 1),
		lower(unix.NFPROTO_IPV6, unix.NFT_META_OIF, map6, 2), lower(unix.NFPROTO_IPV6, unix.NFT_META_IIF, map6, 2),
	}
}

// elements put an interface into both maps, or take it out.
func elements(kind, flags uint16, index, mtu int) (msgs []nftMessage) {
	for _, m := range []struct {
		name    string
		headers int
	}{{map4, tcpHeaders4}, {map6, tcpHeaders6}} {
		mss := uint16(max(mtu-m.headers, 1))
		element := [][]byte{value(unix.NFTA_SET_ELEM_KEY, host.AppendUint32(nil, uint32(index)))}
		if kind == unix.NFT_MSG_NEWSETELEM {
			element = append(element, value(unix.NFTA_SET_ELEM_DATA, binary.BigEndian.AppendUint16(nil, mss)))
		}
		msgs = append(msgs, nftMessage{kind, flags, join(text(unix.NFTA_SET_ELEM_LIST_TABLE, clampTable), text(unix.NFTA_SET_ELEM_LIST_SET, m.name),
			nest(nil, unix.NFTA_SET_ELEM_LIST_ELEMENTS, nest(nil, unix.NFTA_LIST_ELEM, element...)))})
	}
	return msgs
}
