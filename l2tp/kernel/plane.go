//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"culvert/l2tp"
)

// Options of a Plane.
type Options struct {
	// Protect is called with a tunnel's socket before it is bound, so that IPsec policy can be attached to it, or a VRF. May
	// be nil.
	Protect func(fd int, p l2tp.Peer) error
	// Receive gets what a tunnel's socket receives and the kernel does not take: the peer's control messages, which no
	// longer reach the shared socket. It is called on one goroutine per tunnel; msg is valid only during the call.
	Receive func(p l2tp.Peer, msg []byte)
	Log     *slog.Logger
}

// Stats counts a tunnel's or a session's data messages (struct pppol2tp_ioc_stats).
type Stats struct {
	TxPackets, TxBytes, TxErrors                                   uint64
	RxPackets, RxBytes, RxSequenceDrops, RxOutOfSequence, RxErrors uint64
}

// Plane implements l2tp.DataPlane, l2tp.SequenceSetter, l2tp.TunnelMover and l2tp.TrafficCounter. Session and SessionStats
// may be called from any goroutine.
type Plane struct {
	opt Options
	sys system

	mu      sync.Mutex
	tunnels map[l2tp.TunnelID]*tunnel

	readErrors atomic.Uint64
}

var (
	_ l2tp.DataPlane      = (*Plane)(nil)
	_ l2tp.SequenceSetter = (*Plane)(nil)
	_ l2tp.TunnelMover    = (*Plane)(nil)
	_ l2tp.TrafficCounter = (*Plane)(nil)
)

type tunnel struct {
	spec     l2tp.TunnelSpec
	socket   tunnelSocket
	manager  int // the PPPoL2TP socket that made the tunnel
	sessions map[l2tp.SessionID]int
}

// Errors of the plane's methods.
var (
	ErrNoTunnel  = errors.New("l2tp data plane: no such tunnel")
	ErrNoSession = errors.New("l2tp data plane: no such session")
	ErrExists    = errors.New("l2tp data plane: the id is taken")
)

// New makes a plane. It does not probe.
func New(o Options) *Plane { return newPlane(o, linux{}) }

func newPlane(o Options, sys system) *Plane {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Plane{opt: o, sys: sys, tunnels: make(map[l2tp.TunnelID]*tunnel)}
}

// OpenTunnel makes the tunnel's socket and the kernel's tunnel on it.
func (p *Plane) OpenTunnel(s l2tp.TunnelSpec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tunnels[s.Local] != nil {
		return fmt.Errorf("%w: tunnel %d", ErrExists, s.Local)
	}
	var prepare func(fd int) error
	if p.opt.Protect != nil {
		prepare = func(fd int) error { return p.opt.Protect(fd, s.Peer) }
	}
	socket, err := p.sys.tunnelSocket(s.Peer.Local, s.Peer.Remote, uint32(s.Peer.Via), prepare)
	if err != nil {
		return fmt.Errorf("l2tp data plane: socket of tunnel %d to %s: %w", s.Local, s.Peer, err)
	}
	manager, err := p.sys.pppSocket(sockaddr(socket.fd(), s.Peer.Remote,
		ids{localTunnel: uint16(s.Local), remoteTunnel: uint16(s.Remote)}))
	if err != nil {
		socket.close()
		return fmt.Errorf("l2tp data plane: tunnel %d to %s: %w", s.Local, s.Peer, err)
	}
	t := &tunnel{spec: s, socket: socket, manager: manager, sessions: make(map[l2tp.SessionID]int)}
	p.tunnels[s.Local] = t
	go p.read(t.socket, s.Peer.Local, s.Peer.Via)
	return nil
}

// maxErrors is how many errors in a row are taken for a socket that will not recover. A peer's ICMP is one error each.
const maxErrors = 64

// read hands on what arrives at a tunnel's socket. Between bind and connect the socket also took what was for the shared
// one: the sender's address and mark are those of the datagram, never assumed.
func (p *Plane) read(s tunnelSocket, local netip.AddrPort, via l2tp.Via) {
	buf := make([]byte, 4096)
	for failed := 0; failed < maxErrors; {
		n, from, mark, marked, err := s.receive(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			p.readErrors.Add(1)
			failed++
			continue
		}
		failed = 0
		peer := l2tp.Peer{Local: local, Remote: from, Via: via}
		if marked {
			peer.Via = l2tp.Via(mark)
		}
		if p.opt.Receive != nil {
			p.opt.Receive(peer, buf[:n])
		}
	}
	p.opt.Log.Error("the tunnel's socket fails, its control messages are lost", "local", local)
}

// ReadErrors counts errors of the tunnels' sockets.
func (p *Plane) ReadErrors() uint64 { return p.readErrors.Load() }

// CloseTunnel ends the kernel's tunnel and what is left in it. Unknown tunnels are ignored.
func (p *Plane) CloseTunnel(s l2tp.TunnelSpec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.tunnels[s.Local]; t != nil {
		p.closeTunnel(t)
	}
}

func (p *Plane) closeTunnel(t *tunnel) {
	delete(p.tunnels, t.spec.Local)
	var err error
	for _, fd := range t.sessions {
		err = errors.Join(err, p.sys.close(fd))
	}
	err = errors.Join(err, p.sys.close(t.manager), t.socket.close())
	if err != nil {
		p.opt.Log.Warn("tunnel did not close cleanly", "tunnel", t.spec.Local, "error", err)
	}
}

// OpenSession makes the session's PPPoL2TP socket; see Session.
func (p *Plane) OpenSession(s l2tp.SessionSpec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tunnels[s.Tunnel.Local]
	if t == nil {
		return ErrNoTunnel
	}
	if _, ok := t.sessions[s.Local]; ok {
		return fmt.Errorf("%w: session %d", ErrExists, s.Local)
	}
	if s.Local == 0 || s.Remote == 0 {
		return fmt.Errorf("%w: session %d", ErrNoSession, s.Local) // zero would name the tunnel
	}
	fd, err := p.sys.pppSocket(sockaddr(t.socket.fd(), t.spec.Peer.Remote,
		ids{uint16(t.spec.Local), uint16(s.Local), uint16(t.spec.Remote), uint16(s.Remote)}))
	if err != nil {
		return fmt.Errorf("l2tp data plane: session %d of tunnel %d: %w", s.Local, t.spec.Local, err)
	}
	if err := p.setOptions(fd, s); err != nil {
		p.sys.close(fd)
		return err
	}
	t.sessions[s.Local] = fd
	return nil
}

func (p *Plane) setOptions(fd int, s l2tp.SessionSpec) error {
	err := errors.Join(
		p.sys.setOption(fd, optLNSMode, s.LNS),
		p.sys.setOption(fd, optSendSeq, s.SendSeq),
		p.sys.setOption(fd, optRecvSeq, s.RequireSeq))
	if err != nil {
		return fmt.Errorf("l2tp data plane: session %d: %w", s.Local, err)
	}
	return nil
}

// SetSequence changes SendSeq and RequireSeq of an open session.
func (p *Plane) SetSequence(s l2tp.SessionSpec) error {
	fd, ok := p.Session(s.Tunnel.Local, s.Local)
	if !ok {
		return ErrNoSession
	}
	return p.setOptions(fd, s)
}

// CloseSession closes the session's socket. Unknown sessions are ignored.
func (p *Plane) CloseSession(s l2tp.SessionSpec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tunnels[s.Tunnel.Local]
	if t == nil {
		return
	}
	if fd, ok := t.sessions[s.Local]; ok {
		delete(t.sessions, s.Local)
		if err := p.sys.close(fd); err != nil {
			p.opt.Log.Warn("session did not close cleanly", "tunnel", s.Tunnel.Local, "session", s.Local, "error", err)
		}
	}
}

// Session is the PPPoL2TP socket of an open session, for PPPIOCGCHAN. It stays the plane's, and open until CloseSession:
// the PPP channel made from it has to be finished with by then.
func (p *Plane) Session(tunnel l2tp.TunnelID, session l2tp.SessionID) (fd int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.tunnels[tunnel]; t != nil {
		fd, ok = t.sessions[session]
	}
	return fd, ok
}

// SessionStats reads a session's counters.
func (p *Plane) SessionStats(tunnel l2tp.TunnelID, session l2tp.SessionID) (Stats, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.tunnels[tunnel]; t != nil {
		if fd, ok := t.sessions[session]; ok {
			return p.sys.stats(fd)
		}
	}
	return Stats{}, ErrNoSession
}

// TunnelStats reads a tunnel's counters.
func (p *Plane) TunnelStats(id l2tp.TunnelID) (Stats, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.tunnels[id]; t != nil {
		return p.sys.stats(t.manager)
	}
	return Stats{}, ErrNoTunnel
}

// Received counts the data messages that have arrived in a tunnel.
func (p *Plane) Received(s l2tp.TunnelSpec) (packets uint64, ok bool) {
	stats, err := p.TunnelStats(s.Local)
	return stats.RxPackets, err == nil
}

// MoveTunnel points the tunnel's socket at the peer's new address or port; sessions stay.
func (p *Plane) MoveTunnel(s l2tp.TunnelSpec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.tunnels[s.Local]
	if t == nil {
		return ErrNoTunnel
	}
	if err := t.socket.reconnect(s.Peer.Remote); err != nil {
		return fmt.Errorf("l2tp data plane: move of tunnel %d to %s: %w", s.Local, s.Peer, err)
	}
	t.spec.Peer = s.Peer
	return nil
}

// Close closes every session and tunnel.
func (p *Plane) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, t := range p.tunnels {
		p.closeTunnel(t)
	}
}
