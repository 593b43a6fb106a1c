package user

import (
	"math/rand/v2"
	"testing"

	"culvert/l2tp"
)

// numbers runs a sequence over a list and tells which numbers pass.
func numbers(q *sequence, in ...uint16) (out []uint16) {
	for _, n := range in {
		if ok, _ := q.accept(n); ok {
			out = append(out, n)
		}
	}
	return out
}

func equal(a, b []uint16) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestSequence(t *testing.T) {
	for name, c := range map[string]struct{ in, out []uint16 }{
		"in order":       {[]uint16{0, 1, 2}, []uint16{0, 1, 2}},
		"begins late":    {[]uint16{40000, 40001}, []uint16{40000, 40001}},
		"loss":           {[]uint16{0, 3, 4}, []uint16{0, 3, 4}},
		"duplicates":     {[]uint16{0, 0, 1, 1, 0}, []uint16{0, 1}},
		"reordered":      {[]uint16{0, 2, 1, 3}, []uint16{0, 2, 3}},
		"wraps":          {[]uint16{65534, 65535, 0, 65535, 1}, []uint16{65534, 65535, 0, 1}},
		"window":         {[]uint16{0, 0x8000}, []uint16{0, 0x8000}},
		"outside of it":  {[]uint16{0, 0x8001, 1}, []uint16{0, 1}},
		"peer restarts":  {[]uint16{999, 1000, 0, 1, 2, 3, 4, 5}, []uint16{999, 1000, 4, 5}},
		"stray old ones": {[]uint16{999, 0, 1, 2, 3, 1000, 4, 5, 6, 7}, []uint16{999, 1000}},
	} {
		if got := numbers(&sequence{}, c.in...); !equal(got, c.out) {
			t.Errorf("%s: %v became %v, want %v", name, c.in, got, c.out)
		}
	}
}

// TestSequenceProperties: over a line that loses, doubles and delays by less than a restart's run, what passes only
// ever moves forward, nothing passes twice, and what arrives ahead of all before it always passes.
func TestSequenceProperties(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		start := uint16(rnd.Uint32())
		var line []uint16
		for i := range 20000 {
			n := start + uint16(i)
			switch rnd.IntN(10) {
			case 0: // lost
			case 1:
				line = append(line, n, n)
			case 2: // overtaken by up to three
				at := max(0, len(line)-rnd.IntN(4))
				line = append(line[:at], append([]uint16{n}, line[at:]...)...)
			default:
				line = append(line, n)
			}
		}
		q := &sequence{}
		var last, highest uint16
		for i, n := range line {
			ok, gap := q.accept(n)
			if i == 0 {
				if !ok || gap {
					t.Fatal("the first is not taken")
				}
				last, highest = n, n
				continue
			}
			ahead := n-highest-1 < 0x8000
			if ok != ahead {
				t.Fatalf("seed %d: %d behind %d: %v", seed, n, highest, ok)
			}
			if ok {
				if n-last == 0 || n-last >= 0x8000 {
					t.Fatalf("seed %d: %d passed behind %d", seed, n, last)
				}
				if gap != (n != last+1) {
					t.Fatalf("seed %d: gap %v between %d and %d", seed, gap, last, n)
				}
				last, highest = n, n
			}
		}
	}
}

// TestRestartRecovers: from any state, a peer that counts anew loses less than a run.
func TestRestartRecovers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	for range 1000 {
		q := &sequence{}
		numbers(q, uint16(rnd.Uint32()))
		start := uint16(rnd.Uint32())
		in := make([]uint16, 50)
		for i := range in {
			in[i] = start + uint16(i)
		}
		if got := numbers(q, in...); len(got) < len(in)-restartRun+1 {
			t.Fatalf("%d of %d passed", len(got), len(in))
		}
	}
}

// TestSwitching: the LNS decides about sequence numbers, and RequireSeq drops what has none.
func TestSwitching(t *testing.T) {
	without := func(f *fixture) { f.Deliver(peer, unhex(t, "0002 0a01 0c03 c021")) }
	n := byte(0)
	with := func(f *fixture) {
		f.Deliver(peer, []byte{8, 2, 0x0a, 1, 0x0c, 3, 0, n, 0, 0, 0xc0, 0x21})
		n++
	}
	sends := func(f *fixture) bool {
		f.sent = nil
		f.session.Send(make([]byte, 20), 16)
		return f.sent[0][0]&8 != 0
	}
	for _, c := range []struct {
		name            string
		spec            l2tp.SessionSpec
		passes          bool // a message without a number
		before, on, off bool // we send numbers before any came, after one with and after one without
	}{
		{"LAC", l2tp.SessionSpec{}, true, false, true, false},
		{"LAC that numbers", l2tp.SessionSpec{SendSeq: true}, true, true, true, false},
		{"LAC, required", l2tp.SessionSpec{SendSeq: true, RequireSeq: true}, false, true, true, true},
		{"LNS", l2tp.SessionSpec{LNS: true}, true, false, false, false},
		{"LNS that numbers", l2tp.SessionSpec{LNS: true, SendSeq: true}, true, true, true, true},
		{"LNS, required", l2tp.SessionSpec{LNS: true, SendSeq: true, RequireSeq: true}, false, true, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := spec
			s.LNS, s.SendSeq, s.RequireSeq = c.spec.LNS, c.spec.SendSeq, c.spec.RequireSeq
			f := open(t, s)
			f.serve()
			if got := sends(f); got != c.before {
				t.Errorf("before: %v", got)
			}
			with(f)
			if got := sends(f); got != c.on || len(f.frames) != 1 {
				t.Errorf("after a number: %v, %d frames", got, len(f.frames))
			}
			without(f)
			if got := sends(f); got != c.off || len(f.frames) == 2 != c.passes {
				t.Errorf("after none: %v, %d frames", got, len(f.frames))
			}
			if st := f.session.Stats(); st.RxSequenceDrops == 1 == c.passes {
				t.Errorf("%+v", st)
			}
		})
	}
}
