package xfrm

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
)

// DefaultMarkMask and DefaultPort are what Options' zero values mean.
const (
	DefaultMarkMask = 0x7fff0000
	DefaultPort     = 1701
)

// Options say how a Backend uses the kernel.
type Options struct {
	Log *slog.Logger
	// MarkMask is where clients' marks lie in a packet's mark: 1 to 24 bits. 0 means DefaultMarkMask.
	MarkMask uint32
	// Ports are the UDP ports of L2TP that Require guards. None means DefaultPort.
	Ports []uint16
	// Require lets nothing to and from Ports pass but through an SA. See Guard.
	Require bool
	// PeerPort holds peers to the port of their selector. It must be off where a packet filter rewrites the peers' ports
	// to tell clients behind one NAT apart (kernels before 6.11 need that): the kernel checks after the rewriting.
	PeerPort bool
}

// Backend is the kernel's data plane for ESP. Its methods may be called from any goroutine.
type Backend struct {
	o   Options
	log *slog.Logger

	mu      sync.Mutex // guards what follows
	kernel  *conn
	clients map[ipsec.Mark]*client
	guarded []policy
	held    map[ipsec.Mark][]policy
	mtimer  bool

	monitor *os.File
	closed  atomic.Bool
}

// client is everything installed for one mark.
type client struct {
	sas      []*entry
	policies []policy
}

// entry is one installed SA.
type entry struct {
	sa         ipsec.SA
	softTold   bool
	dead       bool // the kernel has removed it, the owner has not
	mapped     netip.AddrPort
	mappedTold time.Time
}

var _ ipsec.Backend = (*Backend)(nil)

// New connects to the kernel of the calling thread's network namespace, removes what a predecessor that crashed has left
// (and nothing else), and installs the guard if it is required. Run Probe for what to do about an error. Only one Backend
// may exist in a namespace: bind the IKE sockets first, which proves it.
func New(o Options) (*Backend, error) {
	if o.MarkMask == 0 {
		o.MarkMask = DefaultMarkMask
	}
	if err := checkMask(o.MarkMask); err != nil {
		return nil, err
	}
	if len(o.Ports) == 0 {
		o.Ports = []uint16{DefaultPort}
	}
	if slices.Contains(o.Ports, 0) {
		return nil, errors.New("xfrm: port 0 cannot be guarded")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	kernel, err := dial()
	if err != nil {
		return nil, err
	}
	b := &Backend{o: o, log: o.Log, kernel: kernel, clients: make(map[ipsec.Mark]*client), held: make(map[ipsec.Mark][]policy), mtimer: true}
	if b.monitor, err = openMonitor(); err != nil {
		kernel.Close()
		return nil, err
	}
	// The guard first: what the predecessor guarded stays guarded.
	if err = b.Guard(o.Require); err == nil {
		err = b.removeLeftovers()
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Close removes every SA and policy of this Backend and nothing else.
func (b *Backend) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	errs := []error{b.monitor.Close()}
	b.mu.Lock()
	defer b.mu.Unlock()
	for m, c := range b.clients {
		for _, e := range c.sas {
			errs = append(errs, b.removeSA(e))
		}
		c.sas = nil
		errs = append(errs, b.syncPolicies(m, c))
	}
	clear(b.clients)
	for m := range b.held { // after the SAs: what is sent meanwhile is refused
		errs = append(errs, b.unhold(m))
	}
	errs = append(errs, b.guard(false), b.kernel.Close())
	return errors.Join(errs...)
}

// Install implements ipsec.Backend.
func (b *Backend) Install(sa ipsec.SA) error {
	if err := sa.Validate(); err != nil {
		return err
	}
	if extra := uint32(sa.Mark) &^ b.o.MarkMask; extra != 0 {
		return &ipsec.SAError{ID: sa.ID(), Field: "mark", Reason: fmt.Sprintf("%#x lies outside the mask %#x", extra, b.o.MarkMask)}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.clients[sa.Mark]
	if c == nil {
		c = new(client)
	}
	if e := c.find(sa.ID()); e != nil {
		if !e.dead {
			return ipsec.ErrSAExists
		}
		c.drop(e)
	}
	sa.Keys = ipsec.Keys{Enc: slices.Clone(sa.Keys.Enc), Auth: slices.Clone(sa.Keys.Auth)}
	e := &entry{sa: sa}
	r := b.request(sa)
	if err := b.add(r); err != nil {
		e.wipe()
		return err
	}
	c.sas = append(c.sas, e)
	b.clients[sa.Mark] = c
	if sa.Dir == ipsec.Out {
		if err := b.steer(c, r); err != nil {
			c.drop(e)
			err = errors.Join(err, b.deleteSA(r.key(), r.reqid), b.syncPolicies(sa.Mark, c))
			b.forget(sa.Mark, c)
			return err
		}
	}
	return nil
}

// steer sends the mark's traffic into the newest outbound SA.
func (b *Backend) steer(c *client, r *request) error {
	// The owner may have left an SA that expired to the kernel: its policy must not outlive it for ever.
	for _, e := range slices.Clone(c.sas) {
		if e.dead && e.sa.Dir == ipsec.Out {
			c.drop(e)
		}
	}
	p := markPolicy(r)
	if slices.Contains(c.policies, p) {
		// Later kernels have a list of SAs with each policy (state_cache_list), which they search before all others: a new
		// policy in place of the old one begins with an empty list, so that the new SA carries the traffic at once.
		if err := b.kernel.do("renew "+p.String(), msgUpdPolicy, p.append); err != nil {
			return err
		}
	}
	return b.syncPolicies(r.sa.Mark, c)
}

// Remove implements ipsec.Backend.
func (b *Backend) Remove(id ipsec.SAID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.clients[id.Mark]
	if c == nil {
		return nil
	}
	e := c.find(id)
	if e == nil {
		return nil
	}
	// The SA before its policy: what is sent in between is dropped and not sent in clear.
	if err := b.removeSA(e); err != nil {
		return err
	}
	c.drop(e)
	err := b.syncPolicies(id.Mark, c)
	b.forget(id.Mark, c)
	return err
}

// Usage implements ipsec.Backend. It asks for the one SA, not for the table.
func (b *Backend) Usage(id ipsec.SAID) (ipsec.Usage, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, s, err := b.lookup(id)
	if err != nil {
		return ipsec.Usage{}, err
	}
	return s.usage(), nil
}

// lookup finds an SA in our table and its state in the kernel, valid until the next request.
func (b *Backend) lookup(id ipsec.SAID) (*entry, *state, error) {
	c := b.clients[id.Mark]
	if c == nil {
		return nil, nil, ipsec.ErrNoSA
	}
	e := c.find(id)
	if e == nil || e.dead {
		return nil, nil, ipsec.ErrNoSA
	}
	r := b.request(e.sa)
	s, err := b.getSA(r.key())
	if err != nil {
		return e, nil, err
	}
	if s.reqid != r.reqid {
		return e, nil, ipsec.ErrNoSA
	}
	return e, s, nil
}

func (b *Backend) request(sa ipsec.SA) *request {
	return &request{sa: sa, reqid: reqidOf(sa.Mark, b.o.MarkMask), mask: b.o.MarkMask, peerPort: b.o.PeerPort, mtimer: b.mtimer}
}

// add installs a new SA, over one that a predecessor left under its name.
func (b *Backend) add(r *request) error {
	op := "install " + r.sa.ID().String()
	err := b.kernel.do(op, msgNewSA, r.append)
	if errors.Is(err, unix.EINVAL) && r.mtimer && r.sa.Dir == ipsec.In && r.sa.Encap != (ipsec.Encap{}) {
		// The limit on mapping reports is an attribute that only later kernels know.
		r.mtimer = false
		if err = b.kernel.do(op, msgNewSA, r.append); err == nil {
			b.mtimer = false
		}
	}
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	s, gerr := b.getSA(r.key())
	if gerr != nil || !s.ours() || b.known(s) {
		return ipsec.ErrSAExists
	}
	b.log.Info("an SA of an earlier run was in the way and is removed", "sa", r.sa.ID())
	if err := b.deleteSA(s.key, s.reqid); err != nil {
		return err
	}
	return b.kernel.do(op, msgNewSA, r.append)
}

// known says whether a state is one of this Backend's.
func (b *Backend) known(s *state) bool {
	id := b.idOf(s)
	c := b.clients[id.Mark]
	return c != nil && c.find(id) != nil
}

// idOf names a state that carries our signature under our mask.
func (b *Backend) idOf(s *state) ipsec.SAID {
	id := ipsec.SAID{Dir: ipsec.In, SPI: s.key.spi, Mark: b.markOf(s.reqid)}
	if s.key.mark != (mark{}) {
		id.Dir = ipsec.Out
	}
	return id
}

// markOf is the mark that a request id was made from, 0 if it is none of ours.
func (b *Backend) markOf(reqid uint32) ipsec.Mark {
	if reqid&^uint32(reqidIndex) != reqidBase {
		return 0
	}
	return ipsec.Mark(markAt(reqid&reqidIndex, b.o.MarkMask))
}

// getSA reads one SA; ErrNoSA if there is none.
func (b *Backend) getSA(k saKey) (*state, error) {
	m, err := b.kernel.get("read SA "+k.spi.String(), msgGetSA, k.append)
	if errors.Is(err, unix.ESRCH) {
		return nil, ipsec.ErrNoSA
	}
	if err != nil {
		return nil, err
	}
	s, err := parseState(host, m, host.lenUserSA())
	if err != nil {
		return nil, fmt.Errorf("xfrm: read SA %s: %w", k.spi, err)
	}
	return s, nil
}

// deleteSA removes one SA if it has our request id. The kernel's lookup by mark also finds SAs without a mark, so that
// it has to be seen before it is deleted. None is no error.
func (b *Backend) deleteSA(k saKey, reqid uint32) error {
	s, err := b.getSA(k)
	if errors.Is(err, ipsec.ErrNoSA) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.reqid != reqid || s.key != k {
		return nil
	}
	err = b.kernel.do("remove SA "+k.spi.String(), msgDelSA, k.append)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func (b *Backend) removeSA(e *entry) error {
	if e.dead {
		return nil
	}
	r := b.request(e.sa)
	return b.deleteSA(r.key(), r.reqid)
}

// syncPolicies makes the kernel's policies of a mark those that its outbound SAs need.
func (b *Backend) syncPolicies(m ipsec.Mark, c *client) error {
	var want []policy
	for _, e := range c.sas {
		if e.sa.Dir != ipsec.Out {
			continue
		}
		if p := markPolicy(b.request(e.sa)); !slices.Contains(want, p) {
			want = append(want, p)
		}
	}
	for _, p := range want {
		if slices.Contains(c.policies, p) {
			continue
		}
		if err := b.putPolicy(p); err != nil {
			return err
		}
		c.policies = append(c.policies, p)
	}
	var errs []error
	c.policies = slices.DeleteFunc(c.policies, func(p policy) bool {
		if slices.Contains(want, p) {
			return false
		}
		err := b.deletePolicy(p)
		errs = append(errs, err)
		return err == nil
	})
	return errors.Join(errs...)
}

// putPolicy installs a policy; one just like it that a predecessor left is taken over.
func (b *Backend) putPolicy(p policy) error {
	err := b.kernel.do("install "+p.String(), msgNewPolicy, p.append)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	have, gerr := b.getPolicy(p)
	switch {
	case gerr != nil:
		return gerr
	case have.same(p):
		return nil
	case !have.ours():
		return fmt.Errorf("xfrm: another program's IPsec policy has the place of ours (%s): see ip xfrm policy and stop its owner: %w", p, err)
	}
	return b.kernel.do("replace "+p.String(), msgUpdPolicy, p.append)
}

func (b *Backend) getPolicy(p policy) (policy, error) {
	m, err := b.kernel.get("read "+p.String(), msgGetPolicy, p.appendID)
	if err != nil {
		return policy{}, err
	}
	have, err := parsePolicy(host, m)
	if err != nil {
		return policy{}, fmt.Errorf("xfrm: read %s: %w", p, err)
	}
	return have, nil
}

// deletePolicy removes exactly p: it is looked at first and then deleted by its index. None is no error.
func (b *Backend) deletePolicy(p policy) error {
	if p.index == 0 {
		have, err := b.getPolicy(p)
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		if !have.same(p) {
			return nil
		}
		p.index = have.index
	}
	err := b.kernel.do("remove "+p.String(), msgDelPolicy, p.appendID)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// removeLeftovers removes SAs and policies that carry our signature and are not of this Backend.
func (b *Backend) removeLeftovers() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var states []*state
	err := b.kernel.dump("list SAs", msgGetSA, func(m []byte) error {
		s, err := parseState(host, m, host.lenUserSA())
		if err == nil && s.ours() {
			s.current, s.replay = nil, nil // they alias the read buffer
			states = append(states, s)
		}
		return nil // what cannot be read is not ours
	})
	if err != nil {
		return err
	}
	var policies []policy
	err = b.kernel.dump("list policies", msgGetPolicy, func(m []byte) error {
		p, err := parsePolicy(host, m)
		if err == nil && p.ours() && !slices.ContainsFunc(b.guarded, p.same) {
			policies = append(policies, p)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, s := range states {
		if err := b.deleteSA(s.key, s.reqid); err != nil {
			return err
		}
	}
	for _, p := range policies {
		if err := b.deletePolicy(p); err != nil {
			return err
		}
	}
	if len(states)+len(policies) > 0 {
		b.log.Info("removed what an earlier run left in the kernel", "sas", len(states), "policies", len(policies))
	}
	return nil
}

// forget drops a client that has nothing left.
func (b *Backend) forget(m ipsec.Mark, c *client) {
	if len(c.sas) == 0 && len(c.policies) == 0 {
		delete(b.clients, m)
	}
}

func (c *client) find(id ipsec.SAID) *entry {
	for _, e := range c.sas {
		if e.sa.Dir == id.Dir && e.sa.SPI == id.SPI {
			return e
		}
	}
	return nil
}

func (c *client) drop(e *entry) {
	c.sas = slices.DeleteFunc(c.sas, func(x *entry) bool { return x == e })
	e.wipe()
}

func (e *entry) wipe() {
	clear(e.sa.Keys.Enc)
	clear(e.sa.Keys.Auth)
}
