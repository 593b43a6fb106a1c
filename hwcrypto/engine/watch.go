package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"culvert/hwcrypto"
)

// recheck is the pause before what has failed is tested once more: it may have been the rest of the machine.
const recheck = 500 * time.Millisecond

// Watchable says whether Check has anything to do: an engine is in use, or a chain that answers later.
func (e *Engines) Watchable() bool {
	for i := range e.choices {
		if e.choices[i].suspect() != nil {
			return true
		}
	}
	return false
}

// suspect is the chain in use if it can break: what the processor does at once does not.
func (c *Choice) suspect() *Result {
	for i := range c.Results {
		if r := &c.Results[i]; r.Driver == c.Driver && r.Failure == "" && (r.Engine || r.Async) {
			return r
		}
	}
	return nil
}

// Check tests the engines in use again, in SAs of their own, for when something suggests that one has broken since Open.
// An engine fails if it does so twice while what would take its place does not: a machine that is merely busy fails both.
// It is then left for that, and stays left at later starts, until all is measured afresh. The returned choices have
// changed: SAs that are made from now on use them, and older ones have to be made anew. It takes some tenths of a second
// for each engine, and some seconds for one that hangs.
func (e *Engines) Check(ctx context.Context) (changed []Choice, err error) {
	if e.busy {
		return nil, ErrBusy
	}
	for i := range e.choices {
		c := &e.choices[i]
		r := c.suspect()
		if r == nil {
			continue
		}
		was := r.Driver
		failure := e.works(c.Suite)
		if failure == nil {
			continue
		}
		if !errors.Is(failure, errHung) {
			select {
			case <-ctx.Done():
			case <-time.After(recheck):
			}
			if err := ctx.Err(); err != nil {
				return changed, err
			}
			if failure = e.works(c.Suite); failure == nil {
				continue
			}
		}
		r.Failure = "it broke while in use: " + failure.Error()
		kept := r.Each
		r.Each = [len(r.Each)]time.Duration{}
		results := c.Results
		if cerr := e.replace(c); cerr != nil {
			c.Results = results // r is one of these
			r.Failure, r.Each = "", kept
			err = errors.Join(err, fmt.Errorf("%s fails (%w), and so does what could take its place: %w", was, failure, cerr))
			continue
		}
		_, c.Reason = pick(e.o.Engine, c.Results)
		e.keep(c.Suite, c.Results)
		e.o.Log.Warn("a crypto engine broke while in use and is left; `culvert crypto --measure` with culvert stopped gives it another chance",
			"suite", c.Suite, "engine", was, "instead", c.Driver, "error", failure)
		changed = append(changed, *c)
	}
	return changed, errors.Join(err, e.save())
}

// works tests whatever the kernel takes for a suite now.
func (e *Engines) works(s hwcrypto.Suite) error {
	return inNamespace(e.o.Install, func(b *bench) error { return b.test(s) })
}

// replace steers the kernel to the best of a choice's chains that works.
func (e *Engines) replace(c *Choice) error {
	if err := hwcrypto.Steerable(); err != nil {
		return err
	}
	if err := e.hold(); err != nil {
		return err
	}
	algs, err := hwcrypto.Discover()
	if err != nil {
		return err
	}
	for _, x := range hwcrypto.Chains(algs, c.Suite.ESPName(), pin(e.o.Engine)) { // what the setting did not want, if need be
		if !slices.ContainsFunc(c.Results, func(r Result) bool { return r.Driver == x.Driver }) {
			c.Results = append(c.Results, Result{Driver: x.Driver, Priority: x.Priority, Async: x.Async, Engine: x.Engine})
		}
	}
	next, _ := pick(e.o.Engine, c.Results)
	if next.Failure != "" {
		return errors.New(next.Failure)
	}
	lifted := e.lower(c.Driver)
	err = e.steer(c.Suite, next.Driver)
	if err == nil {
		err = e.works(c.Suite)
	}
	if err != nil {
		e.lower(next.Driver)
		if lifted {
			hwcrypto.SetPriority(c.Driver, raised)
		}
		return fmt.Errorf("%s: %w", next.Driver, err)
	}
	c.Driver, c.Engine = next.Driver, next.Engine
	return nil
}

// lower gives a driver the priority that it was found with, if it has another.
func (e *Engines) lower(driver string) (lifted bool) {
	for _, c := range e.state.Changed {
		if c.Driver == driver {
			return hwcrypto.SetPriority(driver, c.Priority) == nil
		}
	}
	return false
}
