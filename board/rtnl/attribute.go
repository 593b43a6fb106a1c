package rtnl

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

// Attr is one attribute with its padding. Attributes that are its values are nested in it.
func Attr(kind uint16, values ...[]byte) []byte {
	return netlink.AppendAttribute(host, nil, kind, slices.Concat(values...))
}

// Uint32 is an attribute that holds a number in the processor's order.
func Uint32(kind uint16, v uint32) []byte { return Attr(kind, host.AppendUint32(nil, v)) }

// Text is an attribute that holds a string with its zero.
func Text(kind uint16, s string) []byte { return Attr(kind, append([]byte(s), 0)) }

func address(kind uint16, a netip.Addr) []byte { return Attr(kind, a.AsSlice()) }

// number reads an attribute of four octets, or 0 from one cut short.
func number(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return host.Uint32(v)
}

// ip reads an address; the zero Addr from what is none.
func ip(v []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(v)
	return a
}

// family is that of an address for the kernel.
func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
