package nft

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// BaseChain is a chain that packets enter at a hook, of any table of the machine.
type BaseChain struct {
	Family      uint8 // NFPROTO_*
	Table, Name string
	Hook        uint32 // NF_INET_*
	Drop        bool   // its policy: what no rule decides about is dropped
}

func (b BaseChain) String() string {
	family := map[uint8]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_ARP: "arp",
		unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev"}[b.Family]
	return family + " " + b.Table + " " + b.Name
}

// maxChains bounds what is listed of a machine's chains, which are its own affair.
const maxChains = 1000

// BaseChains lists those of all tables.
func (c *Conn) BaseChains() (all []BaseChain, err error) {
	msg := make([]byte, netlink.HeaderLen+lenFamily) // of every family
	err = c.Ask(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, msg, func(body []byte) error {
		chain, base, err := parseChain(body)
		if base && len(all) < maxChains {
			all = append(all, chain)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("nftables: list chains: %w", err)
	}
	return all, nil
}

const lenFamily = 4 // struct nfgenmsg

// parseChain reads the description of a chain, and says whether it is a base chain.
func parseChain(b []byte) (chain BaseChain, base bool, err error) {
	if len(b) < lenFamily {
		return chain, false, fmt.Errorf("chain of %d octets", len(b))
	}
	chain.Family = b[0]
	number := func(data []byte) uint32 {
		if len(data) < 4 {
			return 0
		}
		return binary.BigEndian.Uint32(data)
	}
	err = netlink.Attributes(host, b[lenFamily:], func(kind uint16, data []byte) error {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			chain.Table = unix.ByteSliceToString(data)
		case unix.NFTA_CHAIN_NAME:
			chain.Name = unix.ByteSliceToString(data)
		case unix.NFTA_CHAIN_POLICY:
			chain.Drop = len(data) >= 4 && number(data) == verdictDrop
		case unix.NFTA_CHAIN_HOOK:
			base = true
			return netlink.Attributes(host, data, func(kind uint16, data []byte) error {
				if kind == unix.NFTA_HOOK_HOOKNUM {
					chain.Hook = number(data)
				}
				return nil
			})
		}
		return nil
	})
	return chain, base, err
}
