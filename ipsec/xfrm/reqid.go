package xfrm

import (
	"fmt"
	"math/bits"

	"culvert/ipsec"
)

// Request ids of ours are 0xC7 followed by the mark's index: its bits under the mask, moved together. The kernel and
// other daemons count theirs up from one.
const (
	reqidBase  = 0xc7000000
	reqidIndex = 0x00ffffff
	maskBits   = 24
)

func checkMask(mask uint32) error {
	if n := bits.OnesCount32(mask); n == 0 || n > maskBits {
		return fmt.Errorf("xfrm: mark mask %#x has %d bits, 1 to %d are possible", mask, n, maskBits)
	}
	return nil
}

// markIndex gathers the bits of v under mask.
func markIndex(v, mask uint32) uint32 {
	var out uint32
	for i := 0; mask != 0; i++ {
		low := mask & -mask
		if v&low != 0 {
			out |= 1 << i
		}
		mask &^= low
	}
	return out
}

// markAt is the inverse of markIndex.
func markAt(index, mask uint32) uint32 {
	var out uint32
	for i := 0; mask != 0; i++ {
		low := mask & -mask
		if index&(1<<i) != 0 {
			out |= low
		}
		mask &^= low
	}
	return out
}

func reqidOf(m ipsec.Mark, mask uint32) uint32 { return reqidBase | markIndex(uint32(m), mask) }

// ourReqid says whether a request id is made from this mark under its own mask, whatever mask is configured today.
func ourReqid(reqid uint32, m mark) bool {
	return reqid&^uint32(reqidIndex) == reqidBase && checkMask(m.mask) == nil && m.value&^m.mask == 0 &&
		m.value != 0 && reqid == reqidOf(ipsec.Mark(m.value), m.mask)
}
