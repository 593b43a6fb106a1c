package xfrm

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// Message types and attributes of linux/xfrm.h.
const (
	msgNewSA     = 0x10
	msgDelSA     = 0x11
	msgGetSA     = 0x12
	msgNewPolicy = 0x13
	msgDelPolicy = 0x14
	msgGetPolicy = 0x15
	msgExpire    = 0x18
	msgUpdPolicy = 0x19
	msgUpdSA     = 0x1a
	msgMapping   = 0x26

	attrAlgCrypt     = 2
	attrEncap        = 4
	attrTmpl         = 5
	attrLifetimeVal  = 9
	attrReplayVal    = 10
	attrLastUsed     = 15
	attrAlgAEAD      = 18
	attrAlgAuthTrunc = 20
	attrMark         = 21
	attrReplayESN    = 23
	attrSetMark      = 29
	attrSetMarkMask  = 30
	attrMTimer       = 32

	groupExpire  = 2
	groupMapping = 8
)

// Sizes and offsets of the structures. All members are naturally aligned on every architecture, so that only the padding
// at the end of those with 64-bit members differs, on i386.
const (
	lenAddr     = 16
	lenSelector = 56
	lenID       = 24
	lenLifeCfg  = 64
	lenLifeCur  = 32
	lenUserSAID = 24
	lenTmpl     = 64
	lenPolicyID = 64
	lenEncap    = 24
	lenMapping  = 64
	lenReplay   = 12
	lenESN      = 24 // without its bitmap
	lenAlgName  = 64

	// struct xfrm_usersa_info
	saOffID      = lenSelector
	saOffSaddr   = saOffID + lenID
	saOffLimits  = saOffSaddr + lenAddr
	saOffCurrent = saOffLimits + lenLifeCfg
	saOffStats   = saOffCurrent + lenLifeCur
	saOffSeq     = saOffStats + 12
	saOffReqID   = saOffSeq + 4
	saOffFamily  = saOffReqID + 4
	saOffMode    = saOffFamily + 2
	saOffWindow  = saOffMode + 1
	saOffFlags   = saOffWindow + 1
	saUsed       = saOffFlags + 1

	// struct xfrm_userpolicy_info
	polOffLimits   = lenSelector
	polOffPriority = polOffLimits + lenLifeCfg + lenLifeCur
	polOffIndex    = polOffPriority + 4
	polOffDir      = polOffIndex + 4
	polOffAction   = polOffDir + 1
	polUsed        = polOffAction + 3
)

type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// layout is how one kind of machine writes the structures: byte order and how 64-bit members are aligned.
type layout struct {
	byteOrder
	align int
}

// host is this machine. i386 alone aligns 64-bit members to four octets; ARM and MIPS, 32-bit ones too, to eight.
var host = layout{binary.NativeEndian, hostAlign()}

func hostAlign() int {
	if runtime.GOARCH == "386" {
		return 4
	}
	return 8
}

func (l layout) round(n int) int           { return (n + l.align - 1) / l.align * l.align }
func (l layout) lenUserSA() int            { return l.round(saUsed) }
func (l layout) lenPolicy() int            { return l.round(polUsed) }
func (l layout) lenExpire() int            { return l.round(l.lenUserSA() + 1) }
func (l layout) offExpireHard() int        { return l.lenUserSA() }
func pad(b []byte, n int) []byte           { return append(b, make([]byte, n-len(b))...) }
func be16(b []byte) uint16                 { return binary.BigEndian.Uint16(b) }
func putBE16(b []byte, v uint16)           { binary.BigEndian.PutUint16(b, v) }
func familyOf(a netip.Addr) uint16         { return familyIf(a.Is6()) }
func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func familyIf(v6 bool) uint16 {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// putAddr writes an xfrm_address_t: network order, IPv4 in the first four octets.
func putAddr(b []byte, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		copy(b, v[:])
	} else if a.IsValid() {
		v := a.As16()
		copy(b, v[:])
	}
}

func getAddr(b []byte, family uint16) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.AddrFrom16([16]byte(b[:16]))
	}
	return netip.AddrFrom4([4]byte(b[:4]))
}

// attr appends one netlink attribute.
func (l layout) attr(b []byte, kind uint16, data []byte) []byte {
	return netlink.AppendAttribute(l, b, kind, data)
}

func (l layout) attr32(b []byte, kind uint16, v uint32) []byte {
	return l.attr(b, kind, l.AppendUint32(nil, v))
}

// mark appends XFRMA_MARK, struct xfrm_mark.
func (l layout) mark(b []byte, m mark) []byte {
	return l.attr(b, attrMark, l.AppendUint32(l.AppendUint32(nil, m.value), m.mask))
}

// attrs calls f with each attribute of a message's tail.
func (l layout) attrs(b []byte, f func(kind uint16, data []byte) error) error {
	return netlink.Attributes(l, b, f)
}

// short is the error for an attribute or message too short for its structure.
func short(what string, have, want int) error {
	return fmt.Errorf("%s has %d octets, %d are needed", what, have, want)
}

// mark is a value under a mask, struct xfrm_mark.
type mark struct{ value, mask uint32 }

// selector is struct xfrm_selector, which reads in the direction of the packet. A zero port or protocol means any.
type selector struct {
	src, dst     netip.Prefix // invalid means any address
	sport, dport uint16
	proto        uint8
	family       uint16
}

func (s selector) append(l layout, b []byte) []byte {
	start := len(b)
	b = pad(b, start+lenSelector)
	w := b[start:]
	if s.dst.IsValid() {
		putAddr(w, s.dst.Masked().Addr())
		w[42] = byte(s.dst.Bits())
	}
	if s.src.IsValid() {
		putAddr(w[16:], s.src.Masked().Addr())
		w[43] = byte(s.src.Bits())
	}
	if s.dport != 0 {
		putBE16(w[32:], s.dport)
		putBE16(w[34:], 0xffff)
	}
	if s.sport != 0 {
		putBE16(w[36:], s.sport)
		putBE16(w[38:], 0xffff)
	}
	l.PutUint16(w[40:], s.family)
	w[44] = s.proto
	return b
}

// parseSelector reads a selector as append writes it; others (port ranges, interfaces) come back as what they have of that.
func parseSelector(l layout, b []byte) selector {
	s := selector{family: l.Uint16(b[40:]), proto: b[44], dport: be16(b[32:]), sport: be16(b[36:])}
	if bits := int(b[42]); bits != 0 {
		s.dst = netip.PrefixFrom(getAddr(b, s.family), bits)
	}
	if bits := int(b[43]); bits != 0 {
		s.src = netip.PrefixFrom(getAddr(b[16:], s.family), bits)
	}
	return s
}
