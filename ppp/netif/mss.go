package netif

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"culvert/board/nft"
)

// ErrNoMSS means that the kernel cannot change TCP's MSS for us.
var ErrNoMSS = errors.New("TCP's MSS cannot be lowered to what fits through a tunnel: path MTU discovery has to work, or set change-tcp-mss = false")

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
	conn  *nft.Conn
	ports map[int]int // interface index to MTU
}

const (
	clampTable nft.Table = "culvert-mss"
	map4, map6           = "mss4", "mss6"

	tcpHeaders4, tcpHeaders6 = 40, 60 // of IP and TCP, in octets
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
	var msgs []nft.Message
	if old != 0 {
		msgs = append(msgs, clampRemove(index, old)...)
	}
	if mtu != 0 {
		msgs = append(msgs, clampAdd(index, mtu)...)
	}
	err := c.conn.Commit("lower MSS", msgs...)
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
	conn, err := nft.Own(clampTable, clampRules()...)
	if errors.Is(err, syscall.EPERM) {
		return nil, mend(err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoMSS, err)
	}
	return &clamp{conn: conn, ports: make(map[int]int)}, nil
}

// close removes the table.
func (c *clamp) close() {
	c.conn.Commit("remove table", clampTable.Delete())
	c.conn.Close()
}

// clampRules are what the table says.
func clampRules() []nft.Message {
	const syn, rst = 2, 4
	lower := func(family byte, key uint32, dict string) nft.Message {
		return clampTable.Rule("clamp", nft.Family(family), nft.Meta(key), nft.Map(dict, nft.Value), nft.StoreMSS(nft.Value))
	}
	return []nft.Message{
		clampTable.Set(nft.Set{Name: map4, Key: nft.IfIndex, Data: nft.Port}), // nft(8) has no type for an MSS
		clampTable.Set(nft.Set{Name: map6, Key: nft.IfIndex, Data: nft.Port}),
		clampTable.Chain("clamp"),
		clampTable.BaseChain("forward", nft.Hook{Type: "filter", Number: unix.NF_INET_FORWARD, Priority: nft.PriorityMangle}),
		clampTable.Rule("forward", nft.Protocol(unix.IPPROTO_TCP), nft.Load(nft.TCPFlags, nft.Key), nft.And(nft.Key, syn|rst), nft.Equal(nft.Key, syn), nft.Jump("clamp")),
		lower(unix.NFPROTO_IPV4, unix.NFT_META_OIF, map4), lower(unix.NFPROTO_IPV4, unix.NFT_META_IIF, map4),
		lower(unix.NFPROTO_IPV6, unix.NFT_META_OIF, map6), lower(unix.NFPROTO_IPV6, unix.NFT_META_IIF, map6),
	}
}

// clampAdd puts an interface into both maps, and clampRemove takes it out.
func clampAdd(index, mtu int) []nft.Message {
	return []nft.Message{clampTable.Add(map4, lowest(index, mtu-tcpHeaders4)), clampTable.Add(map6, lowest(index, mtu-tcpHeaders6))}
}

func clampRemove(index, mtu int) []nft.Message {
	return []nft.Message{clampTable.Remove(map4, lowest(index, mtu-tcpHeaders4)), clampTable.Remove(map6, lowest(index, mtu-tcpHeaders6))}
}

func lowest(index, mss int) nft.Element {
	return nft.Element{Key: nft.Native32(uint32(index)), Data: nft.BE16(uint16(max(mss, 1)))}
}
