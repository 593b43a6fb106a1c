package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"culvert/hwcrypto"
)

// The settings of Options.Engine that are not a driver's name.
const (
	Auto     = "auto"     // whatever is fastest
	Hardware = "hardware" // an engine wherever one works, however slow
	Software = "software" // the processor
)

// Options are for Open.
type Options struct {
	Suites  []hwcrypto.Suite // those in use
	Engine  string           // Auto, Hardware, Software or a driver's name; empty is Auto
	Install Installer
	// State is the file for what was measured and changed; empty: none.
	State string
	// PerPoint is how long a chain is measured with one packet size; 12 ms if zero.
	PerPoint time.Duration
	// Afresh measures although the file knows.
	Afresh bool
	// All measures, though it changes nothing, where there is nothing to choose.
	All bool
	Log *slog.Logger
}

// Result is what one chain of drivers does of one suite.
type Result struct {
	Driver   string
	Priority int // what the kernel gave it
	Async    bool
	Engine   bool // not the processor
	// Each is the time for one packet of each of hwcrypto.Sizes through both SAs; zero if it was not measured.
	Each [len(hwcrypto.Sizes)]time.Duration
	// Wins is in how many turns it was faster than the kernel's own choice by the margin.
	Wins int `json:",omitempty"`
	// Failure says why there are no times; it failed the test or hung.
	Failure string `json:",omitempty"`
}

// MBps is the throughput in megabytes of payload a second for the size at index i, 0 if it was not measured.
func (r Result) MBps(i int) float64 {
	if r.Each[i] <= 0 {
		return 0
	}
	return float64(hwcrypto.Sizes[i]) / r.Each[i].Seconds() / 1e6
}

func (r Result) String() string {
	switch {
	case r.Failure != "":
		return r.Driver + ": " + r.Failure
	case r.Each[0] == 0:
		return r.Driver
	}
	return fmt.Sprintf("%s: %.3g/%.3g/%.3g MB/s at %d/%d/%d octets", r.Driver, r.MBps(0), r.MBps(1), r.MBps(2), hwcrypto.Sizes[0], hwcrypto.Sizes[1], hwcrypto.Sizes[2])
}

func (r Result) cost() time.Duration { return cost(r.Each) }

// cost weighs the sizes as a download does: two full packets for each acknowledgement.
func cost(each [len(hwcrypto.Sizes)]time.Duration) time.Duration { return each[0] + 2*each[2] }

// Choice is the chain that the kernel's ESP will use for a suite, and why.
type Choice struct {
	Suite  hwcrypto.Suite
	Driver string // "" if the kernel cannot do the suite
	Engine bool
	// Kernel is the chain that the kernel would use by itself.
	Kernel string
	Reason string
	// Results are what it rests on, the kernel's own chain first; without times where there was nothing to choose.
	Results []Result
}

// Engines holds the kernel's priorities as chosen. Its methods may be called from one goroutine at a time.
type Engines struct {
	o       Options
	state   state
	unlock  func() // nil as long as the file is not ours to write
	busy    bool   // another process has steered the kernel
	choices []Choice
}

const (
	// margin is by how much another chain must be faster than the kernel's own to be worth a change, and wins in how many
	// of the turns.
	margin = 1.05
	wins   = passes - 1
)

// raised is the priority of what was chosen. Those of the kernel's drivers are below 10,000, instances of templates too.
const raised = 1 << 20

// Open restores what an earlier process has left, measures what has to be, and steers the kernel. An error says that
// nothing could be done, or not all of it; the Engines are valid nevertheless and have to be closed. When ctx ends no
// further chain is tried, and suites that are not measured stay with the kernel's own choice.
//
// A suite for which the kernel has one chain is neither measured nor steered.
func Open(ctx context.Context, o Options) (*Engines, error) {
	o.Engine = cmp.Or(o.Engine, Auto)
	o.PerPoint = cmp.Or(o.PerPoint, 12*time.Millisecond)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engines{o: o}
	if o.State != "" {
		e.state = readState(o.State)
	}
	var err error
	if len(e.state.Changed) > 0 || e.state.Trying != "" {
		if e.hold() == nil {
			err = e.recover()
		} else {
			e.busy = true
			e.state.Changed, e.state.Trying = nil, "" // another's to restore
		}
	}
	e.relate()
	for _, s := range o.Suites {
		if slices.ContainsFunc(e.choices, func(c Choice) bool { return c.Suite.KernelName() == s.KernelName() }) {
			continue // the kernel chooses by name: one key length stands for all
		}
		c, cerr := e.choose(ctx, s)
		e.choices = append(e.choices, c)
		err = errors.Join(err, cerr)
	}
	return e, errors.Join(err, e.save())
}

// Choices are one for each algorithm of the kernel's that the suites need.
func (e *Engines) Choices() []Choice { return e.choices }

// Steered says whether the kernel is not as it was found.
func (e *Engines) Steered() bool { return len(e.state.Changed) > 0 }

// Close puts the kernel's priorities back and removes what was built for measuring, as far as nobody uses it.
func (e *Engines) Close() error {
	err := e.restore()
	if e.unlock != nil {
		e.unlock()
		e.unlock = nil
	}
	return err
}

// ErrBusy says that another process has steered the kernel, or is about to.
var ErrBusy = errors.New("another culvert has hold of the crypto engines")

// hold takes the file, and with it the kernel's priorities, for this process.
func (e *Engines) hold() error {
	if e.unlock != nil || e.o.State == "" {
		return nil
	}
	unlock, err := lock(e.o.State)
	switch {
	case errors.Is(err, ErrBusy):
		return err
	case err != nil:
		// A board whose files cannot be written is measured at each start.
		e.o.Log.Warn("what is measured of the crypto engines cannot be kept", "file", e.o.State, "error", err)
		e.o.State = ""
		return nil
	}
	e.unlock = unlock
	e.state = readState(e.o.State)
	e.relate()
	return nil
}

// relate drops what the state says of another board or kernel.
func (e *Engines) relate() {
	if board, kernel := board(), kernelRelease(); e.state.Board != board || e.state.Kernel != kernel {
		e.state = state{Board: board, Kernel: kernel, Boot: e.state.Boot, Trying: e.state.Trying, Changed: e.state.Changed}
	}
}

func (e *Engines) save() error {
	if e.o.State == "" || e.unlock == nil {
		return nil
	}
	e.state.Boot = ""
	if e.state.Trying != "" || len(e.state.Changed) > 0 {
		e.state.Boot = bootID()
	}
	if err := e.state.write(e.o.State); err != nil {
		return fmt.Errorf("hwcrypto: crypto engines' state: %w", err)
	}
	return nil
}

// recover puts right what a process that did not end by itself has left.
func (e *Engines) recover() error {
	if e.state.Boot != bootID() {
		e.state.Changed = nil // the boot has restored them
		if driver := e.state.Trying; driver != "" {
			e.o.Log.Warn("the machine went down while a crypto engine was measured: it is not tried again", "driver", driver)
			e.state.Broken = append(e.state.Broken, driver)
			e.state.Trying = ""
		}
		return nil
	}
	e.state.Trying = "" // the process ended, the machine did not
	if len(e.state.Changed) == 0 {
		return nil
	}
	e.o.Log.Info("restoring crypto priorities that an earlier run has left", "drivers", len(e.state.Changed))
	return e.restore()
}

// restore undoes all changes, the newest first.
func (e *Engines) restore() error {
	if len(e.state.Changed) == 0 {
		return nil
	}
	var errs []error
	patience := 20
	for _, c := range slices.Backward(e.state.Changed) {
		if c.Made {
			c.Priority = 0 // should it be in use, and stay: nobody had it before, nobody shall get it
		}
		err := hwcrypto.SetPriority(c.Driver, c.Priority)
		if err == nil && c.Made {
			// The kernel takes its time to forget SAs, and namespaces even more.
			for err = hwcrypto.Delete(c.Driver); errors.Is(err, unix.EBUSY) && patience > 0; patience-- {
				time.Sleep(10 * time.Millisecond)
				err = hwcrypto.Delete(c.Driver)
			}
		}
		// Gone with its module or forgotten with a part of it; or in use.
		if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, err)
		}
	}
	e.state.Changed = nil
	return errors.Join(append(errs, e.save())...)
}

// set gives a driver a priority, remembering first what it had.
func (e *Engines) set(a hwcrypto.Algorithm, priority int) error {
	if !slices.ContainsFunc(e.state.Changed, func(c change) bool { return c.Driver == a.Driver }) {
		e.state.Changed = append(e.state.Changed, change{Driver: a.Driver, Priority: a.Priority})
		if err := e.save(); err != nil {
			e.o.Log.Warn("a crash would leave crypto priorities changed until the next boot", "error", err)
		}
	}
	return hwcrypto.SetPriority(a.Driver, priority)
}

// build has the kernel instantiate a chain if it is not there, and notes all that comes into being.
func (e *Engines) build(driver string) (hwcrypto.Algorithm, error) {
	before, err := hwcrypto.Discover()
	if err != nil {
		return hwcrypto.Algorithm{}, err
	}
	if a := find(before, driver); a.Driver != "" {
		return a, nil
	}
	if err = hwcrypto.Instantiate(driver); errors.Is(err, unix.EEXIST) {
		err = nil
	}
	after, derr := hwcrypto.Discover()
	if derr == nil {
		e.note(before, after, driver)
	}
	if err = errors.Join(err, derr); err != nil {
		return hwcrypto.Algorithm{}, err
	}
	a := find(after, driver)
	if a.Driver == "" {
		err = fmt.Errorf("the kernel has built %s and lost it", driver)
	}
	return a, err
}

// note remembers those parts of a chain that came into being between two listings, so that they are removed again.
func (e *Engines) note(before, after []hwcrypto.Algorithm, driver string) {
	var made []change
	for _, a := range after {
		if len(a.Driver) < hwcrypto.MaxDriver && strings.ContainsRune(a.Driver, '(') && hwcrypto.Uses(driver, a.Driver) && find(before, a.Driver).Driver == "" {
			made = append(made, change{Driver: a.Driver, Priority: a.Priority, Made: true})
		}
	}
	// What is within is removed last.
	sort.Slice(made, func(i, j int) bool {
		a, b := made[i], made[j]
		return len(a.Driver) < len(b.Driver)
	})
	e.state.Changed = append(e.state.Changed, made...)
}

func find(algs []hwcrypto.Algorithm, driver string) hwcrypto.Algorithm {
	for _, a := range algs {
		if a.Driver == driver {
			return a
		}
	}
	return hwcrypto.Algorithm{}
}

// choose does all for one suite.
func (e *Engines) choose(ctx context.Context, s hwcrypto.Suite) (c Choice, err error) {
	c.Suite = s
	name := s.ESPName()
	kept := func(reason string, args ...any) (Choice, error) {
		c.Driver, c.Reason = c.Kernel, fmt.Sprintf(reason, args...)
		return c, nil
	}
	// A first pair of SAs loads the modules, and has the kernel build what it would use.
	before, err := hwcrypto.Discover()
	if err != nil {
		return kept("the kernel does not tell its ciphers: %v", err)
	}
	algs, err := e.probe(s)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOSYS) {
			c, _ = kept("not in this kernel: %v", err)
			return c, nil
		}
		for _, x := range hwcrypto.Chains(before, name, pin(e.o.Engine)) {
			c.Results = append(c.Results, Result{Driver: x.Driver, Priority: x.Priority, Async: x.Async, Engine: x.Engine})
		}
		c, _ = kept("not tried: %v", err)
		return c, err
	}
	own := hwcrypto.Best(algs, name)
	c.Kernel, c.Engine = own.Driver, false
	list := hwcrypto.Chains(algs, name, pin(e.o.Engine))
	if i := slices.IndexFunc(list, func(x hwcrypto.Chain) bool { return x.Driver == own.Driver }); i > 0 {
		list = slices.Concat(list[i:i+1], list[:i], list[i+1:])
	} else if i < 0 {
		list = slices.Concat([]hwcrypto.Chain{{Driver: own.Driver, Priority: own.Priority, Async: own.Async, Engine: own.Engine}}, list)
	}
	// What the setting does not want is not tried: it may be forbidden because it hangs.
	list = slices.DeleteFunc(list, func(x hwcrypto.Chain) bool { return x.Driver != own.Driver && !allowed(e.o.Engine, x.Driver, x.Engine) })
	for _, x := range list {
		c.Results = append(c.Results, Result{Driver: x.Driver, Priority: x.Priority, Async: x.Async, Engine: x.Engine})
	}
	c.Engine = list[0].Engine
	if e.busy {
		why := "the running daemon has seen to it"
		for _, m := range e.state.Suites {
			if m.Suite == s.String() && slices.ContainsFunc(m.Chains, func(r Result) bool { return r.Driver == own.Driver }) {
				c.Results = m.Chains
				_, reason := pick(e.o.Engine, m.Chains)
				why += "; " + reason
			}
		}
		return kept("%s", why)
	}
	if len(list) == 1 {
		if !allowed(e.o.Engine, list[0].Driver, list[0].Engine) {
			return kept("it is the only one: there is none to go with crypto-engine = %q", e.o.Engine)
		}
		if e.o.All {
			r := &c.Results[0]
			if err := inNamespace(e.o.Install, func(b *bench) error { return errors.Join(b.test(s), b.time(s, e.o.PerPoint, &r.Each)) }); err != nil {
				r.Failure = err.Error()
			}
		}
		return kept("it is the only one")
	}
	if err := hwcrypto.Steerable(); err != nil {
		return kept("nothing can be chosen: %v", err)
	}
	if err := e.hold(); err != nil {
		return kept("%v", err)
	}
	if e.o.Afresh {
		e.state.Broken = nil
	}
	e.note(before, algs, own.Driver)
	if cached := e.cached(s, list); cached != nil && !e.o.Afresh {
		c.Results = cached
	} else if err := e.measure(ctx, s, c.Results); err != nil {
		c, _ = kept("not measured: %v", err)
		return c, err
	} else {
		e.keep(s, c.Results)
	}
	best, reason := pick(e.o.Engine, c.Results)
	c.Reason = reason
	c.Driver, c.Engine = best.Driver, best.Engine
	if algs, err = hwcrypto.Discover(); err == nil && hwcrypto.Best(algs, name).Driver == best.Driver {
		return c, nil // as by itself
	}
	if err := e.steer(s, best.Driver); err != nil {
		c, _ = kept("%s could not be chosen: %v", best.Driver, err)
		return c, err
	}
	return c, nil
}

// pin is the driver that Options.Engine names, if it does.
func pin(setting string) string {
	switch setting {
	case Auto, Hardware, Software:
		return ""
	}
	return setting
}

// allowed says whether a setting other than Auto wants a chain.
func allowed(setting, driver string, engine bool) bool {
	switch setting {
	case Auto:
		return true
	case Hardware:
		return engine
	case Software:
		return !engine
	}
	return hwcrypto.Uses(driver, setting)
}

// probe makes an SA pair of the suite and returns the kernel's ciphers while it is there.
func (e *Engines) probe(s hwcrypto.Suite) (algs []hwcrypto.Algorithm, err error) {
	err = inNamespace(e.o.Install, func(b *bench) error {
		_, remove, err := b.pair(s)
		if err != nil {
			return err
		}
		found, err := hwcrypto.Discover()
		if err = errors.Join(err, remove()); err == nil {
			algs = found
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return algs, nil
}
