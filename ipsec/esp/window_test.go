package esp

import (
	"math"
	"math/rand/v2"
	"testing"
)

// TestWindowAgainstAModel compares the ring with a set of everything that was ever received.
func TestWindowAgainstAModel(t *testing.T) {
	for _, size := range []int{0, 64, 65, 100, 128, 1000, 4096} {
		for _, esn := range []bool{false, true} {
			r := rand.New(rand.NewPCG(uint64(size), 7))
			w := newWindow(size, esn)
			size := uint64(max(size, minWindow))
			seen := make(map[uint64]bool)
			var top uint64
			at := uint64(1)
			if esn {
				// Across the border of 2^32, as if the SA had carried that much.
				at = math.MaxUint32 - 3*size
				w.top, top = at-1, at-1
			}
			for range 20000 {
				switch r.IntN(20) {
				case 0:
					at += r.Uint64N(3 * size)
				default:
					at += r.Uint64N(3)
				}
				seq := at
				if back := r.Uint64N(size + size/4); r.IntN(3) == 0 && back < at {
					seq = at - back
				}
				tooOld := seq+size <= top
				if esn && tooOld {
					continue // ESN takes what is below the window for the future, where its ICV will not fit
				}
				want := seq != 0 && !tooOld && !seen[seq]
				full, fresh := w.expand(uint32(seq))
				if fresh != want || fresh && full != seq {
					t.Fatalf("size %d, ESN %t, top %x: %x fresh %t as %x, want %t", size, esn, top, seq, fresh, full, want)
				}
				if fresh && r.IntN(10) != 0 { // now and then the ICV is wrong
					if newest := w.commit(seq); newest != (seq > top) {
						t.Fatalf("%x newest %t, top %x", seq, newest, top)
					}
					seen[seq] = true
					top = max(top, seq)
				}
			}
		}
	}
}

// TestExtendedSequenceNumbers walks the cases of RFC 4303 appendix A2.2.
func TestExtendedSequenceNumbers(t *testing.T) {
	for _, tc := range []struct {
		top   uint64
		low   uint32
		want  uint64
		fresh bool
	}{
		{0, 1, 1, true},
		{0, 0, 0, false},
		{0, math.MaxUint32, 0, false}, // before the beginning
		{10, 11, 11, true},
		{0x1_0000_0000 - 1, 0, 0x1_0000_0000, true},       // case A, over the border
		{0x1_0000_0000 - 1, 5, 0x1_0000_0005, true},       //
		{0x1_0000_0005, 0xffff_fff0, 0xffff_fff0, true},   // case B, back over it
		{0x1_0000_0005, 6, 0x1_0000_0006, true},           //
		{0x2_0000_1000, 0x0000_0f00, 0x3_0000_0f00, true}, // below the window: taken for the next round
		{0x2_0000_1000, 0x0000_0fff, 0x2_0000_0fff, true}, // inside it
		{math.MaxUint64, 5, 0, false},                     // the very end
		{0xffff_ffff_ffff_fff0, 0xffff_fff5, 0xffff_ffff_ffff_fff5, true},
	} {
		w := newWindow(64, true)
		w.top = tc.top
		seq, fresh := w.expand(tc.low)
		if fresh != tc.fresh || fresh && seq != tc.want {
			t.Errorf("top %x, low %x: %x, %t, want %x, %t", tc.top, tc.low, seq, fresh, tc.want, tc.fresh)
		}
	}
}

func TestWindowJumps(t *testing.T) {
	w := newWindow(64, false)
	for _, seq := range []uint64{1, 64, 65, 1000, 1063, 1064, 1 << 31, math.MaxUint32} {
		if _, fresh := w.expand(uint32(seq)); !fresh {
			t.Errorf("%d is not fresh", seq)
		}
		w.commit(seq)
		if _, fresh := w.expand(uint32(seq)); fresh {
			t.Errorf("%d is fresh again", seq)
		}
		if seq > 2 {
			if _, fresh := w.expand(uint32(seq - 2)); !fresh {
				t.Errorf("%d is not fresh behind %d", seq-2, seq)
			}
		}
	}
}
