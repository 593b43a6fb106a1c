package hwcrypto

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes are the lengths of text in octets that are measured: a TCP acknowledgement, a small packet, a full one.
var Sizes = [3]int{64, 256, 1400}

// Round is one turn of a provider: the time for one packet of each of Sizes, sealed and opened.
type Round [len(Sizes)]time.Duration

// Result is what one provider does of one suite.
type Result struct {
	Suite    Suite
	Provider string
	// Driver is the kernel's driver behind the provider as far as that is known; the zero Algorithm for software.
	Driver Algorithm
	// Seal and Open are the shortest times for one packet of each of Sizes.
	Seal, Open [len(Sizes)]time.Duration
	// Rounds are what the choice rests on. The kernel's ciphers are timed by the clock, for an engine is waited for;
	// software by what it takes of the processor, which other programs do not lengthen.
	Rounds []Round
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

// textLen rounds up to whole blocks.
func textLen(s Suite, n int) int { return (n + s.Block() - 1) / s.Block() * s.Block() }

// rounds is how often each provider has its turn, one after the other: a machine that is busy for a moment is busy for all.
const rounds = 5

// Measure tests every provider against the known answers of a suite and times those that pass. Software is the last result.
func (p *Providers) Measure(s Suite) []Result {
	// What a thread has had of the processor is asked of one thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out := make([]Result, len(p.list))
	running := make([]Transform, len(p.list))
	for i, q := range p.list {
		out[i] = Result{Suite: s, Provider: q.Name(), Err: SelfTest(q, s)}
		if out[i].Err == nil {
			running[i], out[i].Err = q.New(Config{Suite: s, Keys: testKeys(s)})
		}
	}
	for range rounds {
		for i, t := range running {
			if r := &out[i]; r.Err == nil {
				r.Err = p.turn(r, t)
			}
		}
	}
	for i, t := range running {
		if t != nil {
			t.Close()
		}
		if out[i].Err == nil {
			out[i].Driver = p.driver(s, p.list[i])
		}
	}
	return out
}

// handfuls are what a round measures of one packet size at the most.
const handfuls = 12

// turn is one round of one provider.
func (p *Providers) turn(r *Result, t Transform) error {
	var round Round
	burns := r.Provider == Software{}.Name()
	for i, n := range Sizes {
		// A handful at a time, so that reading the clock, a system call on some boards, does not count.
		var packets [8][]byte
		for j := range packets {
			packets[j] = make([]byte, r.Suite.Overhead()+textLen(r.Suite, n))
		}
		const each = time.Duration(len(packets))
		// The shortest of some: interrupts, and a cache that is cold at first, are not the provider's fault.
		// So many are enough, even where the clock says that they took no time, as the laboratory's does.
		begun := p.watch.clock()
		for turns := 0; turns == 0 || turns < handfuls && p.watch.clock()-begun < p.perPoint/rounds; turns++ {
			had, start := p.watch.processor(), p.watch.clock()
			for _, b := range packets {
				if err := t.Seal(b, 0); err != nil {
					return err
				}
			}
			mid := p.watch.clock()
			for _, b := range packets {
				if err := t.Open(b, 0); err != nil {
					return err
				}
			}
			end := p.watch.clock()
			took := end - start
			// Some kernels count in ticks, and of most handfuls nothing.
			if has := p.watch.processor(); burns && has > had {
				took = min(took, has-had)
			}
			shorten(&r.Seal[i], (mid-start)/each)
			shorten(&r.Open[i], (end-mid)/each)
			shorten(&round[i], took/each)
		}
	}
	r.Rounds = append(r.Rounds, round)
	return nil
}

func shorten(d *time.Duration, to time.Duration) {
	if *d == 0 || to < *d {
		*d = to
	}
}

// stopwatch tells the time, and what the calling thread has had of the processor.
type stopwatch struct {
	clock, processor func() time.Duration
}

var realTime = stopwatch{
	clock: func() time.Duration { return time.Since(started) },
	processor: func() time.Duration {
		var ts unix.Timespec
		if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
			return 0
		}
		return time.Duration(ts.Nano())
	},
}

var started = time.Now()
