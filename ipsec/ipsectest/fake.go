package ipsectest

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"culvert/ipsec"
)

// Op names a Backend method, for Fake.FailNext.
type Op string

const (
	OpInstall Op = "install"
	OpRemove  Op = "remove"
	OpMove    Op = "move"
	OpUsage   Op = "usage"
)

// Call is one call a Fake received, in order. SA is set for OpInstall, ID for all but OpMove, Mark and Remote for OpMove.
type Call struct {
	Op     Op
	SA     ipsec.SA
	ID     ipsec.SAID
	Mark   ipsec.Mark
	Remote netip.AddrPort
	Err    error
}

// Fake is a Backend in memory. Its methods may be called from any goroutine. The zero value is ready to use.
type Fake struct {
	mu    sync.Mutex
	sas   map[ipsec.SAID]ipsec.SA
	usage map[ipsec.SAID]ipsec.Usage
	fail  map[Op][]error
	calls []Call
	emit  func(ipsec.Event)
}

var _ ipsec.Backend = (*Fake)(nil)

// NewFake returns an empty Fake.
func NewFake() *Fake { return &Fake{} }

// Install implements ipsec.Backend.
func (f *Fake) Install(sa ipsec.SA) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sa = clone(sa)
	defer func() { f.calls = append(f.calls, Call{Op: OpInstall, SA: sa, ID: sa.ID(), Err: err}) }()
	if err := sa.Validate(); err != nil {
		return err
	}
	if err := f.failure(OpInstall); err != nil {
		return err
	}
	for id := range f.sas {
		// Inbound SAs are found by SPI alone: the mark is known only after the lookup.
		if id == sa.ID() || id.Dir == ipsec.In && sa.Dir == ipsec.In && id.SPI == sa.SPI {
			return ipsec.ErrSAExists
		}
	}
	if f.sas == nil {
		f.sas = make(map[ipsec.SAID]ipsec.SA)
	}
	f.sas[sa.ID()] = sa
	return nil
}

// Remove implements ipsec.Backend.
func (f *Fake) Remove(id ipsec.SAID) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.calls = append(f.calls, Call{Op: OpRemove, ID: id, Err: err}) }()
	if err := f.failure(OpRemove); err != nil {
		return err
	}
	delete(f.sas, id)
	delete(f.usage, id)
	return nil
}

// Move implements ipsec.Backend.
func (f *Fake) Move(m ipsec.Mark, remote netip.AddrPort) (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.calls = append(f.calls, Call{Op: OpMove, Mark: m, Remote: remote, Err: err}) }()
	if err := f.failure(OpMove); err != nil {
		return err
	}
	moved := make(map[ipsec.SAID]ipsec.SA)
	for id, sa := range f.sas {
		if id.Mark != m {
			continue
		}
		sa, err := sa.MovedTo(remote)
		if err != nil {
			return err
		}
		moved[id] = sa
	}
	if len(moved) == 0 {
		return ipsec.ErrNoSA
	}
	for id, sa := range moved {
		f.sas[id] = sa
	}
	return nil
}

// Usage implements ipsec.Backend.
func (f *Fake) Usage(id ipsec.SAID) (u ipsec.Usage, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.calls = append(f.calls, Call{Op: OpUsage, ID: id, Err: err}) }()
	if err := f.failure(OpUsage); err != nil {
		return ipsec.Usage{}, err
	}
	if _, ok := f.sas[id]; !ok {
		return ipsec.Usage{}, ipsec.ErrNoSA
	}
	return f.usage[id], nil
}

// FailNext makes the next call of op that reaches the data plane return err; several are queued.
func (f *Fake) FailNext(op Op, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail == nil {
		f.fail = make(map[Op][]error)
	}
	f.fail[op] = append(f.fail[op], err)
}

// SetUsage is what Usage answers for id while it is installed.
func (f *Fake) SetUsage(id ipsec.SAID, u ipsec.Usage) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.usage == nil {
		f.usage = make(map[ipsec.SAID]ipsec.Usage)
	}
	f.usage[id] = u
}

// OnEvent sets who receives what Emit sends.
func (f *Fake) OnEvent(fn func(ipsec.Event)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.emit = fn
}

// Emit sends an event on the caller's goroutine. A hard expiry removes the SA first, as a kernel does.
func (f *Fake) Emit(e ipsec.Event) {
	f.mu.Lock()
	if e.Kind == ipsec.EventHardExpire {
		delete(f.sas, e.ID)
		delete(f.usage, e.ID)
	}
	fn := f.emit
	f.mu.Unlock()
	if fn != nil {
		fn(e)
	}
}

// SAs returns what is installed, ordered by mark, direction and SPI.
func (f *Fake) SAs() []ipsec.SA {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]ipsec.SA, 0, len(f.sas))
	for _, sa := range f.sas {
		out = append(out, clone(sa))
	}
	slices.SortFunc(out, func(a, b ipsec.SA) int {
		return cmp.Or(cmp.Compare(a.Mark, b.Mark), cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.SPI, b.SPI))
	})
	return out
}

// Policies returns the marks whose traffic is steered into ESP: those with an outbound SA, in order.
func (f *Fake) Policies() []ipsec.Mark {
	var out []ipsec.Mark
	for _, sa := range f.SAs() {
		if sa.Dir == ipsec.Out && !slices.Contains(out, sa.Mark) {
			out = append(out, sa.Mark)
		}
	}
	return out
}

// Calls returns every call so far, refused ones included.
func (f *Fake) Calls() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *Fake) failure(op Op) error {
	q := f.fail[op]
	if len(q) == 0 {
		return nil
	}
	f.fail[op] = q[1:]
	return q[0]
}

func clone(sa ipsec.SA) ipsec.SA {
	sa.Keys.Enc = slices.Clone(sa.Keys.Enc)
	sa.Keys.Auth = slices.Clone(sa.Keys.Auth)
	return sa
}
