package demo

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// masquerade hides what leaves by the interface behind the interface's address, in the namespace of the calling thread:
//
//	table ip demo {
//		chain nat { type nat hook postrouting priority srcnat; oifname "IFACE" masquerade }
//	}
func masquerade(iface string) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	defer unix.Close(fd)
	const table, chain = "demo", "nat"
	const srcnat = 100
	hook := attr(attr(nil, unix.NFTA_HOOK_HOOKNUM, be32(unix.NF_INET_POST_ROUTING)), unix.NFTA_HOOK_PRIORITY, be32(srcnat))
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, iface)
	exprs := expression("meta", attr(attr(nil, unix.NFTA_META_DREG, be32(unix.NFT_REG_1)), unix.NFTA_META_KEY, be32(unix.NFT_META_OIFNAME)))
	exprs = append(exprs, expression("cmp", attr(attr(attr(nil, unix.NFTA_CMP_SREG, be32(unix.NFT_REG_1)), unix.NFTA_CMP_OP, be32(unix.NFT_CMP_EQ)),
		unix.NFTA_CMP_DATA|unix.NLA_F_NESTED, attr(nil, unix.NFTA_DATA_VALUE, name)))...)
	exprs = append(exprs, expression("masq", nil)...)

	var b []byte
	seq := uint32(0)
	message := func(kind, flags uint16, family uint8, resource uint16, body []byte) {
		seq++
		b = binary.NativeEndian.AppendUint32(b, uint32(unix.NLMSG_HDRLEN+4+len(body)))
		b = binary.NativeEndian.AppendUint16(b, kind)
		b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
		b = binary.NativeEndian.AppendUint32(b, seq)
		b = append(b, 0, 0, 0, 0, family, unix.NFNETLINK_V0)
		b = binary.BigEndian.AppendUint16(b, resource)
		b = append(b, body...)
	}
	const create = unix.NLM_F_CREATE | unix.NLM_F_ACK
	nft := func(kind uint16, flags uint16, body []byte) {
		message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, create|flags, unix.NFPROTO_IPV4, 0, body)
	}
	message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	nft(unix.NFT_MSG_NEWTABLE, 0, attr(nil, unix.NFTA_TABLE_NAME, text(table)))
	nft(unix.NFT_MSG_NEWCHAIN, 0, attr(attr(attr(attr(nil, unix.NFTA_CHAIN_TABLE, text(table)), unix.NFTA_CHAIN_NAME, text(chain)),
		unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, hook), unix.NFTA_CHAIN_TYPE, text("nat")))
	nft(unix.NFT_MSG_NEWRULE, unix.NLM_F_APPEND, attr(attr(attr(nil, unix.NFTA_RULE_TABLE, text(table)), unix.NFTA_RULE_CHAIN, text(chain)),
		unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, exprs))
	message(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("nf_tables: %w", err)
	}
	// Each of the three is acknowledged, or refused.
	in := make([]byte, 8192)
	for acknowledged := 0; acknowledged < 3; {
		n, _, err := unix.Recvfrom(fd, in, 0)
		if err != nil {
			return fmt.Errorf("nf_tables: %w", err)
		}
		for m := in[:n]; len(m) >= unix.NLMSG_HDRLEN+4; {
			size := int(binary.NativeEndian.Uint32(m))
			if size < unix.NLMSG_HDRLEN+4 || size > len(m) {
				return fmt.Errorf("nf_tables: an answer of %d octets", n)
			}
			if binary.NativeEndian.Uint16(m[4:]) == unix.NLMSG_ERROR {
				if code := int32(binary.NativeEndian.Uint32(m[unix.NLMSG_HDRLEN:])); code != 0 {
					return fmt.Errorf("nf_tables has no masquerading (modprobe nft_masq nft_chain_nat): %w", unix.Errno(-code))
				}
				acknowledged++
			}
			m = m[min((size+3)&^3, len(m)):]
		}
	}
	return nil
}

func expression(name string, data []byte) []byte {
	e := attr(nil, unix.NFTA_EXPR_NAME, text(name))
	if data != nil {
		e = attr(e, unix.NFTA_EXPR_DATA|unix.NLA_F_NESTED, data)
	}
	return attr(nil, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, e)
}

// attr appends one netlink attribute, padded.
func attr(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.NLA_HDRLEN+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func text(s string) []byte { return append([]byte(s), 0) }
