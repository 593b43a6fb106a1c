package hwcrypto

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Mode says which providers may be taken.
type Mode uint8

const (
	Auto         Mode = iota // whichever is measured to be fastest
	SoftwareOnly             // never ask the kernel
	KernelFirst              // the kernel's ciphers wherever they work, however slow; so too with Options.Driver
)

// Options are for Open.
type Options struct {
	Mode Mode
	// Driver has the kernel's ciphers done by one of its drivers where that can be, and otherwise by software.
	Driver string
	// PerPoint is how long one provider is measured with one packet size; 4 ms if zero.
	PerPoint time.Duration
	Log      *slog.Logger
	// Providers replaces the kernel's; software is always behind them.
	Providers []Provider
}

// Providers are what this machine can protect packets with. Its methods may be called from any goroutine.
type Providers struct {
	list     []Provider // software is the last
	mode     Mode
	perPoint time.Duration
	watch    stopwatch
	log      *slog.Logger

	mu      sync.Mutex
	choices map[Suite]Choice
	broken  map[brokenKey]error
}

type brokenKey struct {
	suite    Suite
	provider int
}

// Choice is which provider does a suite, and why.
type Choice struct {
	Suite    Suite
	Provider string
	// Driver is the kernel's driver behind the provider as far as that is known.
	Driver string
	Reason string
	// Results are the measurements it rests on.
	Results []Result
}

// Open looks which providers there are. It measures nothing: call Choose for the suites in use, beside the loop.
func Open(o Options) *Providers {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.PerPoint == 0 {
		o.PerPoint = 4 * time.Millisecond
	}
	mode := o.Mode
	if o.Driver != "" {
		mode = KernelFirst
	}
	p := &Providers{
		mode: mode, perPoint: o.PerPoint, watch: realTime, log: o.Log,
		choices: make(map[Suite]Choice), broken: make(map[brokenKey]error),
	}
	if mode != SoftwareOnly {
		p.list = slices.Clone(o.Providers)
		if p.list == nil && algPresent() {
			p.list = []Provider{AFALGAead, AFALGCipher, AFALGSplit}
			if o.Driver != "" {
				p.list = []Provider{pinnedDriver{AFALGAead, o.Driver}, pinnedDriver{AFALGCipher, o.Driver}}
			}
		}
	}
	p.list = append(p.list, Software{})
	return p
}

// Names are the providers in the order in which they stand in for each other.
func (p *Providers) Names() []string {
	names := make([]string, len(p.list))
	for i, q := range p.list {
		names[i] = q.Name()
	}
	return names
}

const (
	// margin is how much faster than software the kernel must be to be worth its system calls and its other risks.
	margin = 1.1
	// wins is in how many of the rounds it must be, for small packets and for full ones: what is slow on acknowledgements
	// slows the download that they are for.
	wins = 4
)

// Choose tests and measures the providers for a suite, once, and says which one New takes from then on. It needs some tens
// of milliseconds on a fast processor and up to a second on a slow one.
func (p *Providers) Choose(s Suite) Choice {
	p.mu.Lock()
	c, ok := p.choices[s]
	p.mu.Unlock()
	if ok {
		return c
	}
	c = p.choose(s)
	p.mu.Lock()
	p.choices[s] = c
	p.mu.Unlock()
	p.log.Info("crypto provider chosen", "suite", s, "provider", c.Provider, "reason", c.Reason)
	return c
}

func (p *Providers) choose(s Suite) Choice {
	c := Choice{Suite: s, Provider: Software{}.Name()}
	if err := s.Validate(); err != nil {
		c.Reason = err.Error()
		return c
	}
	if len(p.list) == 1 {
		c.Reason = "it is the only provider: AF_ALG is absent or switched off"
		return c
	}
	c.Results = p.Measure(s)
	best := decide(p.mode, c.Results)
	c.Provider = best.Provider
	c.Driver = best.Driver.Driver
	soft := c.Results[len(c.Results)-1]
	var b strings.Builder
	switch {
	case p.mode == KernelFirst && best.Provider != soft.Provider:
		b.WriteString("the kernel is preferred by configuration")
	case best.Provider != soft.Provider:
		fmt.Fprintf(&b, "it is %.0f %% faster than software in %d of %d rounds", 100*(margin-1), best.ahead(soft), rounds)
	case !slices.ContainsFunc(c.Results[:len(c.Results)-1], func(r Result) bool { return r.Err == nil }):
		b.WriteString("no other works")
	default:
		fmt.Fprintf(&b, "no other is %.0f %% faster on %d and on %d octets in %d of %d rounds", 100*(margin-1), Sizes[0], Sizes[len(Sizes)-1], wins, rounds)
	}
	for _, r := range c.Results {
		b.WriteString("; ")
		switch {
		case errors.Is(r.Err, ErrUnsupported):
			fmt.Fprintf(&b, "%s: not in this kernel", r.Provider)
		case r.Err != nil:
			fmt.Fprintf(&b, "%s: %v", r.Provider, r.Err)
		default:
			fmt.Fprintf(&b, "%s: %s", r.Provider, r)
		}
		if r.Driver.Driver != "" {
			fmt.Fprintf(&b, " by %s", r.Driver.Driver)
		}
	}
	c.Reason = b.String()
	return c
}

// decide takes one of the results, of which the last is software's.
func decide(mode Mode, results []Result) (best Result) {
	soft := results[len(results)-1]
	best = soft
	for _, r := range results[:len(results)-1] {
		switch {
		case r.Err != nil:
		case best.Provider == soft.Provider && mode == KernelFirst, r.ahead(best) >= wins:
			best = r
		}
	}
	return best
}

// ahead is in how many rounds r was faster than another by the margin, on small packets and on full ones.
func (r Result) ahead(of Result) (n int) {
	for i := range min(len(r.Rounds), len(of.Rounds)) {
		mine, other := r.Rounds[i], of.Rounds[i]
		faster := func(k int) bool { return margin*float64(mine[k]) < float64(other[k]) }
		if faster(0) && faster(len(Sizes)-1) {
			n++
		}
	}
	return n
}

// Speed is the throughput in MB/s that full packets of a suite were measured to have, by the provider that was chosen; 0 if
// it was not measured, as where there is nothing to choose.
func (p *Providers) Speed(s Suite) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.choices[s]
	for _, r := range c.Results {
		if r.Provider == c.Provider && r.Err == nil {
			return r.MBps(len(Sizes) - 1)
		}
	}
	return 0
}

// driver is the kernel's driver that a provider gets for a suite, which it has asked for by now.
func (p *Providers) driver(s Suite, q Provider) Algorithm {
	a, ok := q.(interface{ kernelName(Suite) string })
	if !ok {
		return Algorithm{}
	}
	algs, err := Discover()
	if err != nil {
		return Algorithm{}
	}
	if q, ok := q.(pinnedDriver); ok {
		a, _ := q.algorithm(s, algs)
		return a
	}
	return Best(algs, a.kernelName(s))
}

// Choices are all that were made, in the order of Suites.
func (p *Providers) Choices() []Choice {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Choice
	for _, s := range Suites() {
		if c, ok := p.choices[s]; ok {
			out = append(out, c)
		}
	}
	return out
}

// pick is the index of the provider that a new Crypter begins with.
func (p *Providers) pick(s Suite) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	soft := len(p.list) - 1
	c, ok := p.choices[s]
	if !ok {
		return soft
	}
	for i, q := range p.list {
		if q.Name() != c.Provider {
			continue
		}
		for i < soft && p.broken[brokenKey{s, i}] != nil {
			i++
		}
		return i
	}
	return soft
}

// failed notes that a provider broke at run time; new Crypters of the suite do without it.
func (p *Providers) failed(s Suite, i int, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken[brokenKey{s, i}] != nil {
		return
	}
	p.broken[brokenKey{s, i}] = cause
	if c, ok := p.choices[s]; ok {
		c.Reason = fmt.Sprintf("%s failed: %v; before: %s", p.list[i].Name(), cause, c.Reason)
		c.Provider, c.Driver = Software{}.Name(), ""
		for j := i + 1; j < len(p.list); j++ {
			if p.broken[brokenKey{s, j}] == nil && (j == len(p.list)-1 || slices.ContainsFunc(c.Results, func(r Result) bool {
				return r.Provider == p.list[j].Name() && r.Err == nil
			})) {
				c.Provider = p.list[j].Name()
				break
			}
		}
		p.choices[s] = c
	}
	p.log.Warn("a crypto provider failed and is left; set the crypto mode to software if this repeats", "suite", s, "provider", p.list[i].Name(), "err", cause)
}
