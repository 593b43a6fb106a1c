package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// Table is the name of a table of the inet family. Its methods write requests.
type Table string

// with is the table, new, and its contents.
func (t Table) with(flags uint32, contents []Message) []Message {
	table := Message{unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		join(text(unix.NFTA_TABLE_NAME, string(t)), be32(unix.NFTA_TABLE_FLAGS, flags))}
	return append([]Message{table}, contents...)
}

// Delete removes the table and all that is in it.
func (t Table) Delete() Message {
	return Message{Kind: unix.NFT_MSG_DELTABLE, Body: text(unix.NFTA_TABLE_NAME, string(t))}
}

// Chain makes a chain to jump to.
func (t Table) Chain(name string) Message {
	return Message{unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, t.chain(name)}
}

// Hook is where packets enter a base chain, and what kind that is.
type Hook struct {
	Type     string // "filter" or "nat"
	Number   uint32 // NF_INET_*
	Priority int32
}

// nft's names of priorities (netfilter_ipv4.h's enum nf_ip_hook_priorities).
const (
	PriorityRaw    = -300
	PriorityMangle = -150
	PriorityFilter = 0
	PrioritySrcNAT = 100
)

// BaseChain makes a chain that packets enter at a hook. Those that no rule decides about go on.
func (t Table) BaseChain(name string, h Hook) Message {
	return Message{unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, join(t.chain(name),
		nest(unix.NFTA_CHAIN_HOOK, be32(unix.NFTA_HOOK_HOOKNUM, h.Number), be32(unix.NFTA_HOOK_PRIORITY, uint32(h.Priority))),
		be32(unix.NFTA_CHAIN_POLICY, verdictAccept), text(unix.NFTA_CHAIN_TYPE, h.Type))}
}

// DeleteChain removes a chain with its rules.
func (t Table) DeleteChain(name string) Message {
	return Message{Kind: unix.NFT_MSG_DELCHAIN, Body: t.chain(name)}
}

func (t Table) chain(name string) []byte {
	return join(text(unix.NFTA_CHAIN_TABLE, string(t)), text(unix.NFTA_CHAIN_NAME, name))
}

// Rule appends a rule of these expressions to the chain.
func (t Table) Rule(chain string, exprs ...Expr) Message {
	var all []byte
	for _, e := range exprs {
		all = append(all, e...)
	}
	return Message{unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE | unix.NLM_F_APPEND, join(text(unix.NFTA_RULE_TABLE, string(t)),
		text(unix.NFTA_RULE_CHAIN, chain), nest(unix.NFTA_RULE_EXPRESSIONS, all))}
}

// Type is a type of data: how long it is, and what nft(8) calls it (nftables' enum datatypes).
type Type struct{ id, len uint32 }

// The types of nft(8) that tables of ours have.
var (
	IPv4Address = Type{7, 4}
	IPv6Address = Type{8, 16}
	IfIndex     = Type{9, 4}  // in host order
	Port        = Type{13, 2} // inet_service
	Mark        = Type{19, 4} // in host order
)

// Then is a concatenation: each part is filled up to four octets, and nft's name of it takes six bits for each.
func (t Type) Then(u Type) Type {
	padded := func(n uint32) uint32 { return (n + 3) &^ 3 }
	return Type{t.id<<6 | u.id, padded(t.len) + padded(u.len)}
}

// Set describes a set, or a map where it has Data.
type Set struct {
	Name      string
	Key, Data Type
	Intervals bool   // elements come in pairs: a first key, and the first one behind with End
	Timeouts  bool   // elements may go by themselves
	Size      uint32 // how many elements there may be; 0: any number
}

// Set makes a set.
func (t Table) Set(s Set) Message {
	var flags uint32
	b := join(text(unix.NFTA_SET_TABLE, string(t)), text(unix.NFTA_SET_NAME, s.Name),
		be32(unix.NFTA_SET_KEY_TYPE, s.Key.id), be32(unix.NFTA_SET_KEY_LEN, s.Key.len))
	if s.Data != (Type{}) {
		flags |= unix.NFT_SET_MAP
		b = join(b, be32(unix.NFTA_SET_DATA_TYPE, s.Data.id), be32(unix.NFTA_SET_DATA_LEN, s.Data.len))
	}
	if s.Intervals {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.Timeouts {
		flags |= unix.NFT_SET_TIMEOUT
	}
	if s.Size > 0 {
		b = join(b, nest(unix.NFTA_SET_DESC, be32(unix.NFTA_SET_DESC_SIZE, s.Size)))
	}
	// The kernel wants a number, by which nobody asks: names are known within a transaction, too.
	return Message{unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE | unix.NLM_F_EXCL, join(b, be32(unix.NFTA_SET_FLAGS, flags), be32(unix.NFTA_SET_ID, 1))}
}

// Element is one of a set's, or of a map's where it has Data.
type Element struct {
	Key, Data []byte
	End       bool   // an interval ends before Key
	Timeout   uint64 // in milliseconds; 0: it stays
}

// Add puts elements into a set; one that is there is an error.
func (t Table) Add(set string, elements ...Element) Message {
	return t.elements(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE|unix.NLM_F_EXCL, set, elements)
}

// Remove takes elements out of a set; one that is not there is an error.
func (t Table) Remove(set string, elements ...Element) Message {
	return t.elements(unix.NFT_MSG_DELSETELEM, 0, set, elements)
}

// Flush takes all elements out of a set.
func (t Table) Flush(set string) Message {
	return Message{Kind: unix.NFT_MSG_DELSETELEM, Body: t.set(set)}
}

func (t Table) set(name string) []byte {
	return join(text(unix.NFTA_SET_ELEM_LIST_TABLE, string(t)), text(unix.NFTA_SET_ELEM_LIST_SET, name))
}

func (t Table) elements(kind, flags uint16, set string, elements []Element) Message {
	var list []byte
	for _, e := range elements {
		b := value(unix.NFTA_SET_ELEM_KEY, e.Key)
		if e.Data != nil {
			b = join(b, value(unix.NFTA_SET_ELEM_DATA, e.Data))
		}
		if e.End {
			b = join(b, be32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END))
		}
		if e.Timeout > 0 {
			b = join(b, attr(unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, e.Timeout)))
		}
		list = append(list, nest(unix.NFTA_LIST_ELEM, b)...)
	}
	return Message{kind, flags, join(t.set(set), nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list))}
}

// attr is one attribute, padded; nest one that consists of attributes.
func attr(kind uint16, data []byte) []byte {
	return netlink.AppendAttribute(host, nil, kind, data)
}

func nest(kind uint16, attrs ...[]byte) []byte { return attr(kind|unix.NLA_F_NESTED, join(attrs...)) }

func text(kind uint16, s string) []byte { return attr(kind, append([]byte(s), 0)) }

func be32(kind uint16, v uint32) []byte {
	return attr(kind, binary.BigEndian.AppendUint32(nil, v))
}

func value(kind uint16, v []byte) []byte { return nest(kind, attr(unix.NFTA_DATA_VALUE, v)) }

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
