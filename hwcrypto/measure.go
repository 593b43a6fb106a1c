package hwcrypto

import (
	"fmt"
	"time"
)

// Sizes are the lengths of text in octets that are measured: a TCP acknowledgement, a small packet, a full one.
var Sizes = [3]int{64, 256, 1400}

// Result is what one provider does of one suite.
type Result struct {
	Suite    Suite
	Provider string
	// Driver is the kernel's driver behind the provider as far as that is known; the zero Algorithm for software.
	Driver Algorithm
	// Seal and Open are the times for one packet of each of Sizes.
	Seal, Open [len(Sizes)]time.Duration
	// Err says why there are no times: the suite is not supported or a known answer was not given.
	Err error
}

// MBps is the throughput in megabytes of text a second for the size at index i, sealing and opening in turn.
func (r Result) MBps(i int) float64 {
	d := r.Seal[i] + r.Open[i]
	if d <= 0 {
		return 0
	}
	return 2 * float64(textLen(r.Suite, Sizes[i])) / (float64(d) / float64(time.Second)) / 1e6
}

func (r Result) String() string {
	if r.Err != nil {
		return r.Err.Error()
	}
	return fmt.Sprintf("%.3g/%.3g/%.3g MB/s at %d/%d/%d octets", r.MBps(0), r.MBps(1), r.MBps(2), Sizes[0], Sizes[1], Sizes[2])
}

// cost weighs the sizes as a download does: two full packets for each acknowledgement.
func (r Result) cost() time.Duration {
	return r.Seal[0] + r.Open[0] + 2*(r.Seal[2]+r.Open[2])
}

// textLen rounds up to whole blocks.
func textLen(s Suite, n int) int { return (n + s.Block() - 1) / s.Block() * s.Block() }

// Measure tests every provider against the known answers of a suite and times those that pass. Software is the last result.
func (p *Providers) Measure(s Suite) []Result {
	out := make([]Result, len(p.list))
	for i, q := range p.list {
		out[i] = measure(q, s, p.perPoint)
		if out[i].Err == nil {
			out[i].Driver = p.driver(s, q)
		}
	}
	return out
}

func measure(q Provider, s Suite, perPoint time.Duration) Result {
	r := Result{Suite: s, Provider: q.Name()}
	if r.Err = SelfTest(q, s); r.Err != nil {
		return r
	}
	cfg := Config{Suite: s, Keys: testKeys(s)}
	t, err := q.New(cfg)
	if err != nil {
		r.Err = err
		return r
	}
	defer t.Close()
	for i, n := range Sizes {
		n = textLen(s, n)
		// A handful at a time, so that reading the clock, a system call on some boards, does not count.
		var packets [8][]byte
		for j := range packets {
			packets[j] = make([]byte, s.Overhead()+n)
		}
		// The shortest of many rounds: what else the machine does is not the provider's fault.
		for begun, start, round := time.Now(), time.Now(), 0; round < 3 || start.Sub(begun) < perPoint; round++ {
			for _, p := range packets {
				if r.Err = t.Seal(p, 0); r.Err != nil {
					return r
				}
			}
			mid := time.Now()
			for _, p := range packets {
				if r.Err = t.Open(p, 0); r.Err != nil {
					return r
				}
			}
			end := time.Now()
			shorten(&r.Seal[i], mid.Sub(start)/time.Duration(len(packets)))
			shorten(&r.Open[i], end.Sub(mid)/time.Duration(len(packets)))
			start = end
		}
	}
	return r
}

func shorten(d *time.Duration, to time.Duration) {
	if *d == 0 || to < *d {
		*d = to
	}
}
