package user

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"culvert/l2tp"
)

// Headroom is how much of a buffer's front Session.Send may need: the longest header and PPP's address and control field.
const Headroom = 12

// Options of a Plane.
type Options struct {
	// Send sends the datagram buf[at:] to a peer, in a batch of one. buf[:at], and what buf's capacity leaves behind its
	// end, are Send's to write to: for the headers and trailers of what is below. It keeps nothing of buf.
	Send func(p l2tp.Peer, buf []byte, at int) error
	// SendBatch sends several datagrams to one peer, in order, and says how many have gone. The elements of bufs are its
	// to change. May be nil.
	SendBatch func(p l2tp.Peer, bufs [][]byte, at int) (sent int, err error)
}

// Stats counts a tunnel's or a session's data messages; octets are those of the PPP frames. The fields are those of the
// kernel's data plane.
type Stats struct {
	TxPackets, TxBytes, TxErrors                                   uint64
	RxPackets, RxBytes, RxSequenceDrops, RxOutOfSequence, RxErrors uint64
}

func (s *Stats) add(o Stats) {
	s.TxPackets += o.TxPackets
	s.TxBytes += o.TxBytes
	s.TxErrors += o.TxErrors
	s.RxPackets += o.RxPackets
	s.RxBytes += o.RxBytes
	s.RxSequenceDrops += o.RxSequenceDrops
	s.RxOutOfSequence += o.RxOutOfSequence
	s.RxErrors += o.RxErrors
}

// Drops counts data messages that reached no session; those that did are in its Stats.
type Drops struct {
	Malformed uint64 // header lengths wrong, or not version 2
	Unknown   uint64 // no such tunnel or session
	Foreign   uint64 // for an open session, but not from its peer's address or not out of its SA
}

// Plane implements l2tp.DataPlane, l2tp.SequenceSetter, l2tp.TunnelMover and l2tp.TrafficCounter. All methods may be
// called from any goroutine.
type Plane struct {
	opt Options

	mu      sync.Mutex // of writers
	tunnels atomic.Pointer[map[l2tp.TunnelID]*tunnel]

	malformed, unknown, foreign atomic.Uint64
}

var (
	_ l2tp.DataPlane      = (*Plane)(nil)
	_ l2tp.SequenceSetter = (*Plane)(nil)
	_ l2tp.TunnelMover    = (*Plane)(nil)
	_ l2tp.TrafficCounter = (*Plane)(nil)
)

// tunnel is read by the data path without a lock: what changes is behind atomic pointers.
type tunnel struct {
	local, remote l2tp.TunnelID
	peer          atomic.Pointer[l2tp.Peer]
	sessions      atomic.Pointer[map[l2tp.SessionID]*Session]

	mu     sync.Mutex
	closed Stats // of sessions that have ended
}

// Errors of the plane's methods.
var (
	ErrNoTunnel  = errors.New("l2tp data plane: no such tunnel")
	ErrNoSession = errors.New("l2tp data plane: no such session")
	ErrExists    = errors.New("l2tp data plane: the id is taken")
	ErrClosed    = errors.New("l2tp data plane: the session is closed")
	ErrHeadroom  = errors.New("l2tp data plane: no room for the header in front of the frame")
)

// New makes a plane.
func New(o Options) *Plane {
	p := &Plane{opt: o}
	p.tunnels.Store(&map[l2tp.TunnelID]*tunnel{})
	return p
}

// with and without are the copies in copy-on-write. Callers hold the plane's lock.
func with[K comparable, V any](table *atomic.Pointer[map[K]V], k K, v V) {
	old := *table.Load()
	m := make(map[K]V, len(old)+1)
	maps.Copy(m, old)
	m[k] = v
	table.Store(&m)
}

func without[K comparable, V any](table *atomic.Pointer[map[K]V], k K) {
	m := maps.Clone(*table.Load())
	delete(m, k)
	table.Store(&m)
}

func (p *Plane) tunnel(id l2tp.TunnelID) *tunnel { return (*p.tunnels.Load())[id] }

// OpenTunnel makes room for a tunnel's sessions.
func (p *Plane) OpenTunnel(s l2tp.TunnelSpec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Local == 0 || s.Remote == 0 {
		return fmt.Errorf("%w: tunnel %d", ErrNoTunnel, s.Local)
	}
	if p.tunnel(s.Local) != nil {
		return fmt.Errorf("%w: tunnel %d", ErrExists, s.Local)
	}
	t := &tunnel{local: s.Local, remote: s.Remote}
	t.peer.Store(&s.Peer)
	t.sessions.Store(&map[l2tp.SessionID]*Session{})
	with(&p.tunnels, s.Local, t)
	return nil
}

// CloseTunnel ends what is left in a tunnel. Unknown tunnels are ignored.
func (p *Plane) CloseTunnel(s l2tp.TunnelSpec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tunnel(s.Local)
	if t == nil {
		return
	}
	without(&p.tunnels, s.Local)
	for _, c := range *t.sessions.Load() {
		close(c.done)
	}
}

// MoveTunnel sends to the peer's new address, and takes data from there only.
func (p *Plane) MoveTunnel(s l2tp.TunnelSpec) error {
	t := p.tunnel(s.Local)
	if t == nil {
		return ErrNoTunnel
	}
	t.peer.Store(&s.Peer)
	return nil
}

// OpenSession opens a session's path; see Session.
func (p *Plane) OpenSession(s l2tp.SessionSpec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tunnel(s.Tunnel.Local)
	if t == nil {
		return ErrNoTunnel
	}
	if s.Local == 0 || s.Remote == 0 {
		return fmt.Errorf("%w: session %d", ErrNoSession, s.Local)
	}
	if (*t.sessions.Load())[s.Local] != nil {
		return fmt.Errorf("%w: session %d", ErrExists, s.Local)
	}
	c := &Session{plane: p, tunnel: t, remote: s.Remote, done: make(chan struct{})}
	c.setFlags(s)
	with(&t.sessions, s.Local, c)
	return nil
}

// SetSequence changes SendSeq and RequireSeq of an open session.
func (p *Plane) SetSequence(s l2tp.SessionSpec) error {
	c, ok := p.Session(s.Tunnel.Local, s.Local)
	if !ok {
		return ErrNoSession
	}
	c.setFlags(s)
	return nil
}

// CloseSession ends a session's path. Unknown sessions are ignored.
func (p *Plane) CloseSession(s l2tp.SessionSpec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tunnel(s.Tunnel.Local)
	if t == nil {
		return
	}
	if c := (*t.sessions.Load())[s.Local]; c != nil {
		without(&t.sessions, s.Local)
		close(c.done)
		t.mu.Lock()
		t.closed.add(c.Stats())
		t.mu.Unlock()
	}
}

// Session is an open session.
func (p *Plane) Session(tunnel l2tp.TunnelID, session l2tp.SessionID) (s *Session, ok bool) {
	if t := p.tunnel(tunnel); t != nil {
		s = (*t.sessions.Load())[session]
	}
	return s, s != nil
}

// SessionStats reads a session's counters.
func (p *Plane) SessionStats(tunnel l2tp.TunnelID, session l2tp.SessionID) (Stats, error) {
	if s, ok := p.Session(tunnel, session); ok {
		return s.Stats(), nil
	}
	return Stats{}, ErrNoSession
}

// TunnelStats reads a tunnel's counters, those of its ended sessions among them.
func (p *Plane) TunnelStats(id l2tp.TunnelID) (Stats, error) {
	t := p.tunnel(id)
	if t == nil {
		return Stats{}, ErrNoTunnel
	}
	t.mu.Lock()
	sum := t.closed
	t.mu.Unlock()
	for _, s := range *t.sessions.Load() {
		sum.add(s.Stats())
	}
	return sum, nil
}

// Received counts the data messages that have arrived in a tunnel.
func (p *Plane) Received(s l2tp.TunnelSpec) (packets uint64, ok bool) {
	stats, err := p.TunnelStats(s.Local)
	return stats.RxPackets, err == nil
}

// Drops reads the counters of what reached no session.
func (p *Plane) Drops() Drops {
	return Drops{p.malformed.Load(), p.unknown.Load(), p.foreign.Load()}
}

// Close closes every session and tunnel.
func (p *Plane) Close() {
	for id := range *p.tunnels.Load() {
		p.CloseTunnel(l2tp.TunnelSpec{Local: id})
	}
}
