package esp

import "math"

// window is the anti-replay window of RFC 4303 section 3.4.3 and appendix A, on sequence numbers of 64 bits, of which the
// packets carry the lower half. Without ESN the upper half is always zero. The bitmap is a ring of words (RFC 6479), so
// that moving ahead clears words instead of shifting all of them.
type window struct {
	bits []uint64
	mask uint64 // number of words, a power of two, less one
	size uint64 // packets
	top  uint64 // the highest sequence number received
	esn  bool
}

// minWindow is the least that RFC 4303 section 3.4.3 recommends as a default; a smaller one would lose what networks reorder.
const minWindow = 64

// newWindow rounds the size up to minWindow.
func newWindow(size int, esn bool) window {
	size = max(size, minWindow)
	words := 2 // the window touches one word more than it fills
	for words*64 < size+64 {
		words *= 2
	}
	return window{bits: make([]uint64, words), mask: uint64(words - 1), size: uint64(size), esn: esn}
}

// expand returns the whole sequence number of a packet (appendix A2.2), and false if it was received before or is too old.
func (w *window) expand(low uint32) (seq uint64, fresh bool) {
	seq = uint64(low)
	if w.esn {
		bottom := uint32(w.top) - uint32(w.size) + 1 // modulo 2^32
		high := w.top >> 32
		if uint64(uint32(w.top)) >= w.size-1 {
			if low < bottom {
				high++
			}
		} else if low >= bottom {
			if high == 0 {
				return 0, false // before the first packet
			}
			high--
		}
		if high > math.MaxUint32 {
			return 0, false
		}
		seq |= high << 32
	}
	switch {
	case seq == 0: // the first packet of an SA has number 1
		return 0, false
	case seq > w.top:
		return seq, true
	case w.top-seq >= w.size:
		return seq, false
	}
	return seq, w.bits[seq>>6&w.mask]&(1<<(seq&63)) == 0
}

// commit marks a packet that was found authentic, and says whether it is the newest so far.
func (w *window) commit(seq uint64) (newest bool) {
	if seq > w.top {
		newest = true
		old, last := w.top>>6, seq>>6
		if last-old > w.mask {
			clear(w.bits)
		} else {
			for i := old + 1; i <= last; i++ {
				w.bits[i&w.mask] = 0
			}
		}
		w.top = seq
	}
	w.bits[seq>>6&w.mask] |= 1 << (seq & 63)
	return newest
}
