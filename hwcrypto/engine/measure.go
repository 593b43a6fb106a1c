package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"culvert/hwcrypto"
)

// passes is how many turns each chain has, one after the other: a machine that is busy for a moment shall not decide.
const passes = 5

// measure fills the results in. The error is for what makes a choice impossible, not for a chain that fails.
func (e *Engines) measure(ctx context.Context, s hwcrypto.Suite, results []Result) error {
	tested, failed := make([]bool, len(results)), make([]bool, len(results))
	for range passes {
		var own time.Duration // cost of the first in this turn, the kernel's choice
		for i := range results {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("out of time: %w", context.Cause(ctx))
			}
			r := &results[i]
			if r.Failure != "" || !allowed(e.o.Engine, r.Driver, r.Engine) {
				continue
			}
			if slices.Contains(e.state.Broken, r.Driver) {
				r.Failure = "the machine went down while it was measured"
				continue
			}
			each, err := e.try(s, r, !tested[i])
			switch {
			case err == nil:
				tested[i] = true
				r.shorten(each)
				if i == 0 {
					own = cost(each)
				} else if margin*float64(cost(each)) < float64(own) {
					r.Wins++
				}
			case errors.Is(err, unix.EPERM):
				return err
			case !failed[i] && !errors.Is(err, errHung):
				failed[i] = true // it may have been the rest of the machine: once more
			default:
				r.Failure, r.Each, r.Wins = err.Error(), [len(r.Each)]time.Duration{}, 0
			}
		}
	}
	if !slices.ContainsFunc(results, func(r Result) bool { return r.Failure == "" }) {
		return fmt.Errorf("every one fails, %s", results[0])
	}
	return nil
}

// shorten keeps the shorter times.
func (r *Result) shorten(each [len(hwcrypto.Sizes)]time.Duration) {
	for i, d := range each {
		if r.Each[i] == 0 || d < r.Each[i] {
			r.Each[i] = d
		}
	}
}

// try measures one chain, after testing it if asked to.
func (e *Engines) try(s hwcrypto.Suite, r *Result, test bool) (each [len(hwcrypto.Sizes)]time.Duration, err error) {
	algs, err := hwcrypto.Discover()
	if err != nil {
		return each, err
	}
	a := hwcrypto.Best(algs, s.ESPName())
	// What the kernel takes anyway, it is let. The name of that may be too long to be told by.
	byItself := a.Driver == r.Driver
	if !byItself {
		if a, err = e.build(r.Driver); err != nil {
			return each, err
		}
	}
	r.Priority, r.Async = a.Priority, a.Async
	if r.Engine && test {
		e.state.Trying = r.Driver
		if err := e.save(); err != nil {
			e.o.Log.Warn("if the engine takes the machine down, the next start will not know", "error", err)
		}
		defer func() { e.state.Trying = "" }()
	}
	if !byItself {
		if err := e.set(a, 2*raised); err != nil {
			return each, err
		}
		defer func() { err = errors.Join(err, hwcrypto.SetPriority(a.Driver, a.Priority)) }()
	}
	driver := r.Driver
	var timed [len(hwcrypto.Sizes)]time.Duration
	err = inNamespace(e.o.Install, func(b *bench) error {
		if test {
			if err := b.taken(s, driver); err != nil {
				return err
			}
			if err := b.test(s); err != nil {
				return err
			}
		}
		return b.time(s, e.o.PerPoint/passes, &timed)
	})
	if err != nil { // of a thread that hangs nothing is read
		return each, err
	}
	return timed, nil
}

// taken says whether SAs made now use a chain: they must raise its count of users.
func (b *bench) taken(s hwcrypto.Suite, driver string) error {
	users := func() (int, error) {
		algs, err := hwcrypto.Discover()
		return find(algs, driver).Users, err
	}
	for range 5 {
		before, err := users()
		if err != nil {
			return err
		}
		_, remove, err := b.pair(s)
		if err != nil {
			return err
		}
		after, err := users()
		if err := errors.Join(err, remove()); err != nil {
			return err
		}
		if after > before {
			return nil
		}
		// The kernel forgets SAs at its leisure: an earlier one may have gone just now.
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the kernel does not take it for an SA")
}

// steer makes the kernel take a chain from now on, and sees that it does.
func (e *Engines) steer(s hwcrypto.Suite, driver string) error {
	a, err := e.build(driver)
	if err != nil {
		return err
	}
	if err := e.set(a, raised); err != nil {
		return err
	}
	err = inNamespace(e.o.Install, func(b *bench) error { return b.taken(s, driver) })
	if err != nil {
		return errors.Join(err, hwcrypto.SetPriority(a.Driver, a.Priority))
	}
	e.o.Log.Info("ESP's ciphers are chosen", "suite", s, "driver", driver)
	return nil
}

// choosable are the results that a setting wants and that work.
func choosable(setting string, results []Result) (out []Result) {
	for _, r := range results {
		if r.Failure == "" && allowed(setting, r.Driver, r.Engine) {
			out = append(out, r)
		}
	}
	return out
}

// pick takes the best of the results, of which the first is the kernel's own choice.
func pick(setting string, results []Result) (best Result, reason string) {
	own := results[0]
	list := choosable(setting, results)
	var why string
	if len(list) == 0 {
		why = fmt.Sprintf("crypto-engine = %q cannot be obeyed; ", setting)
		list = choosable(Auto, results)
	}
	if len(list) == 0 {
		return own, "every one fails"
	}
	best = list[0]
	for _, r := range list[1:] {
		if best.Driver == own.Driver && r.Wins >= wins || best.Driver != own.Driver && r.cost() < best.cost() {
			best = r // from the kernel's own a change must be worth it
		}
	}
	switch {
	case own.Failure != "":
		why += "the kernel's own choice fails; "
	case setting != Auto && why == "":
		why = fmt.Sprintf("crypto-engine = %q; ", setting)
	case best.Driver == own.Driver:
		why += "no other is faster; "
	default:
		why += "it is the fastest; "
	}
	var all []string
	for _, r := range results {
		all = append(all, r.String())
	}
	return best, why + strings.Join(all, "; ")
}

// cached returns the file's results if they are of just these chains.
func (e *Engines) cached(s hwcrypto.Suite, list []hwcrypto.Chain) []Result {
	for _, m := range e.state.Suites {
		if m.Suite != s.String() || len(m.Chains) != len(list) {
			continue
		}
		for _, r := range m.Chains {
			if !slices.ContainsFunc(list, func(c hwcrypto.Chain) bool { return c.Driver == r.Driver }) {
				return nil
			}
		}
		out := slices.Clone(m.Chains)
		// The kernel's own choice comes first.
		sort.SliceStable(out, func(i, j int) bool {
			a, b := out[i], out[j]
			return boolInt(a.Driver != list[0].Driver) < boolInt(b.Driver != list[0].Driver)
		})
		return out
	}
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (e *Engines) keep(s hwcrypto.Suite, results []Result) {
	e.state.Suites = slices.DeleteFunc(e.state.Suites, func(m measured) bool { return m.Suite == s.String() })
	e.state.Suites = append(e.state.Suites, measured{Suite: s.String(), Chains: slices.Clone(results)})
}
