package l2tp

import (
	"container/list"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"time"
)

// Env is what an Engine acts on; Send, Plane and Rand have to be there. The functions are called on the goroutine that called the engine; they may call back
// CloseSession and Snapshot, but not Receive or Tick.
type Env struct {
	// Send puts a control message on the wire, as a UDP payload from p.Local to p.Remote through p.Via. msg is valid only
	// during the call. A failure to send is a lost message: it is sent again.
	Send  func(p Peer, msg []byte)
	Plane DataPlane
	Rand  io.Reader
	Log   *slog.Logger // topic=l2tp is already set

	// SessionUp: the call is connected and its data path open. The caller starts PPP.
	SessionUp func(SessionInfo)
	// SessionDown comes exactly once per SessionUp. PPP on the session has to be finished with when it returns, because
	// then the engine calls Plane.CloseSession; after a tunnel's last session comes Plane.CloseTunnel, then TunnelDown.
	SessionDown func(SessionInfo, Cause)
	// TunnelUp: the control connection is established. TunnelDown comes once per TunnelUp, and for every failed Dial.
	TunnelUp   func(TunnelInfo)
	TunnelDown func(TunnelInfo, Cause)
	// Released: nothing will be sent to or expected from this tunnel any more, its last acknowledgements included. It comes
	// for every tunnel, also for those that never came up; what protects it may go when ViaInUse says no. May be nil.
	Released func(TunnelInfo)
}

// Engine is every control connection of one server (and of its clients). It is not safe for concurrent use.
type Engine struct {
	cfg Config
	env Env

	tunnels  map[TunnelID]*tunnel
	byPeer   map[peerKey]*tunnel    // newest live tunnel by the peer's own id: finds the retransmitted SCCRQ
	hosts    map[hostKey][]*tunnel  // live tunnels by host
	sessions map[SessionID]*session // ids are unique over all tunnels, see newSessionID
	timers   timers
	halfOpen *list.List // of *tunnel, oldest first
	closed   *list.List // tunnels that only linger, oldest first
	dialing  int        // tunnels whose SCCRQ is ours and unanswered

	closing bool
	closeBy time.Time
	drops   [dropCount]uint64
	answers bucket // unsolicited answers
	warned  map[netip.Addr]time.Time
	recall  map[TunnelID]recalled

	in, out Message // scratch
	zlb     [controlHeaderLen]byte
}

// peerKey finds a tunnel by what the peer calls it. Two clients behind one NAT both like to call theirs 1.
type peerKey struct {
	remote netip.AddrPort
	via    Via
	id     TunnelID
}

type hostKey struct {
	addr netip.Addr
	via  Via
}

// New makes an engine. Zero fields of cfg that would not work mean DefaultConfig's.
func New(cfg Config, env Env) *Engine {
	e := &Engine{
		env:      env,
		tunnels:  make(map[TunnelID]*tunnel),
		byPeer:   make(map[peerKey]*tunnel),
		hosts:    make(map[hostKey][]*tunnel),
		sessions: make(map[SessionID]*session),
		halfOpen: list.New(),
		closed:   list.New(),
		answers:  bucket{rate: answerRate, size: answerBurst},
		warned:   make(map[netip.Addr]time.Time),
	}
	e.cfg = sane(cfg)
	if e.env.Log == nil {
		e.env.Log = slog.New(slog.DiscardHandler)
	}
	if e.env.SessionUp == nil {
		e.env.SessionUp = func(SessionInfo) {}
	}
	if e.env.SessionDown == nil {
		e.env.SessionDown = func(SessionInfo, Cause) {}
	}
	if e.env.TunnelUp == nil {
		e.env.TunnelUp = func(TunnelInfo) {}
	}
	if e.env.TunnelDown == nil {
		e.env.TunnelDown = func(TunnelInfo, Cause) {}
	}
	return e
}

func sane(cfg Config) Config {
	def := DefaultConfig()
	if cfg.HostName == "" {
		cfg.HostName = def.HostName
	}
	if cfg.ReceiveWindow <= 0 {
		cfg.ReceiveWindow = def.ReceiveWindow
	}
	cfg.ReceiveWindow = min(cfg.ReceiveWindow, 1024)
	if cfg.RetransmitFirst <= 0 {
		cfg.RetransmitFirst = def.RetransmitFirst
	}
	if cfg.RetransmitCap < cfg.RetransmitFirst {
		cfg.RetransmitCap = max(def.RetransmitCap, cfg.RetransmitFirst)
	}
	if cfg.RetransmitTries <= 0 {
		cfg.RetransmitTries = def.RetransmitTries
	}
	if cfg.MaxTunnels <= 0 {
		cfg.MaxTunnels = DefaultMaxTunnels
	}
	cfg.MaxTunnels = min(cfg.MaxTunnels, 32768) // ids stay guesswork with half of them free
	if cfg.MaxSessions <= 0 || cfg.MaxSessions > 32768 {
		cfg.MaxSessions = 32768
	}
	cfg.Allowed = append([]netip.Prefix(nil), cfg.Allowed...)
	return cfg
}

func (e *Engine) retransmission() retransmission {
	return retransmission{e.cfg.RetransmitFirst, e.cfg.RetransmitCap, e.cfg.RetransmitTries}
}

// Receive takes one UDP payload. It keeps nothing of msg.
func (e *Engine) Receive(now time.Time, p Peer, msg []byte) {
	hdr, body, err := ParseHeader(msg)
	if err != nil {
		e.drops[DropMalformed]++
		return
	}
	p.Local, p.Remote = unmap(p.Local), unmap(p.Remote)
	if !e.protected(now, p, hdr) {
		return
	}
	if !hdr.Control {
		e.drops[DropData]++
		return
	}
	kind, err := checkBody(body)
	if err != nil {
		e.drops[DropMalformed]++
		if e.debug() {
			e.env.Log.Debug("dropped malformed control message", "peer", p, "error", err)
		}
		return
	}
	t := e.tunnels[hdr.Tunnel]
	switch {
	case hdr.Tunnel == 0 && kind == SCCRQ:
		t = e.sccrq(now, p, hdr, body)
	case hdr.Tunnel == 0:
		t = e.unaddressed(p, kind, hdr, body)
	case t == nil:
		e.unknownTunnel(now, p, kind, hdr, body)
	}
	if t == nil {
		return
	}
	if !e.belongs(t, p, hdr, kind) {
		return
	}
	e.receiveTunnel(now, t, kind, hdr, body)
	e.finish(now, t)
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// protected drops what has to come through IPsec and did not. Calls of our own are as protected as their caller wanted.
func (e *Engine) protected(now time.Time, p Peer, hdr Header) bool {
	if e.cfg.Protection != ProtectionRequired || p.Via != 0 {
		return true
	}
	if t := e.tunnels[hdr.Tunnel]; t != nil && t.dialed && t.peer.Via == 0 {
		return true
	}
	e.drops[DropUnprotected]++
	if e.warnOnce(now, p.Remote.Addr()) {
		e.env.Log.Warn("cleartext L2TP refused: switch IPsec on at the client, or set use-ipsec=yes here to allow both",
			"peer", p)
	}
	return false
}

// belongs checks that a datagram for a live tunnel comes from that tunnel's peer. Inside an SA the peer has proved
// itself, so that a new source port (a NAT in front of plain ESP, or a peer that answers our call from another port) is
// followed; in the clear anyone could claim it.
func (e *Engine) belongs(t *tunnel, p Peer, hdr Header, kind MessageType) bool {
	if t.dialed && !t.localKnown() && p.Remote == t.peer.Remote && p.Via == t.peer.Via {
		t.peer.Local = p.Local // routing chose the address we called from
	}
	if p == t.peer {
		if t.d.plausible(hdr, kind == ZLB) {
			return true
		}
		e.drops[DropOutside]++
		return false
	}
	answered := t.state == tunnelWaitReply && kind == SCCRP
	if p.Via != t.peer.Via || p.Local != t.peer.Local || p.Remote.Addr() != t.peer.Remote.Addr() || p.Via == 0 && !answered {
		e.drops[DropForeign]++
		if e.debug() {
			e.env.Log.Debug("dropped a message that is not from the tunnel's peer", "peer", p, "tunnel", t.local, "belongs", t.peer)
		}
		return false
	}
	if !t.d.plausible(hdr, kind == ZLB) {
		e.drops[DropOutside]++
		return false
	}
	e.move(t, p)
	return true
}

// move re-addresses a tunnel.
func (e *Engine) move(t *tunnel, p Peer) {
	e.env.Log.Info("tunnel peer moved", "tunnel", t.local, "from", t.peer, "to", p)
	if t.ended() {
		t.peer = p // only to acknowledge where it is
		return
	}
	e.unindex(t)
	t.peer = p
	e.index(t)
	if t.pathOpen {
		if mover, ok := e.env.Plane.(TunnelMover); ok {
			if err := mover.MoveTunnel(t.spec()); err != nil {
				e.env.Log.Warn("data path did not follow its peer", "tunnel", t.local, "error", err)
			}
		}
	}
}

// Move re-addresses the tunnels of a Via whose peer got a new address from its NAT. The integrator calls it when the key
// exchange has followed the peer; a cleartext peer is never followed.
func (e *Engine) Move(now time.Time, via Via, addr netip.Addr) {
	if via == 0 {
		return
	}
	for _, t := range e.byVia(via) {
		if p := t.peer; p.Remote.Addr() != addr {
			p.Remote = netip.AddrPortFrom(addr.Unmap(), p.Remote.Port())
			e.move(t, p)
		}
	}
}

// unaddressed finds the tunnel of a message with tunnel id 0 that is no SCCRQ: a StopCCN from a peer that never saw our
// id names its own; a few gateways leave the id out altogether, which works as long as they have one tunnel only.
func (e *Engine) unaddressed(p Peer, kind MessageType, hdr Header, body []byte) *tunnel {
	if kind == StopCCN {
		if err := e.in.parseBody(hdr, body, e.cfg.Secret); err == nil {
			if t := e.byPeer[peerKey{p.Remote, p.Via, TunnelID(e.in.Uint(AVPAssignedTunnelID))}]; t != nil {
				return t
			}
		}
	}
	var only *tunnel
	for _, t := range e.hosts[hostKey{p.Remote.Addr(), p.Via}] {
		if t.peer != p {
			continue
		}
		if only != nil {
			only = nil
			break
		}
		only = t
	}
	if only == nil {
		e.drops[DropUnknownTunnel]++ // also Apple's HELLO in the clear, which only wakes its own IPsec policy
	}
	return only
}

// unknownTunnel answers a peer that believes in a tunnel we do not have: this server was restarted under it. Only inside
// an SA, where the source address is proved; a peer that is told comes back in seconds instead of a minute.
func (e *Engine) unknownTunnel(now time.Time, p Peer, kind MessageType, hdr Header, body []byte) {
	e.drops[DropUnknownTunnel]++
	if p.Via == 0 || kind == ZLB || !e.allowed(p.Remote.Addr()) {
		return
	}
	if !e.answers.take(now) {
		e.drops[DropRate]++
		return
	}
	// Its Nr is what it expects from us next, and acknowledging its Ns acknowledges everything before.
	if kind == StopCCN {
		if err := e.in.parseBody(hdr, body, e.cfg.Secret); err == nil && e.in.Uint(AVPAssignedTunnelID) != 0 {
			e.env.Send(p, appendControl(e.zlb[:0], TunnelID(e.in.Uint(AVPAssignedTunnelID)), 0, hdr.Nr, hdr.Ns+1))
		}
		return
	}
	// The peer's id is known if a former run left it with Recall. Otherwise RFC 2661 section 4.4.3 lets a StopCCN go to
	// tunnel 0 and name the tunnel in its Assigned Tunnel ID.
	var remote TunnelID
	if r, ok := e.recall[hdr.Tunnel]; ok && r.addr == p.Remote.Addr() && now.Before(r.until) {
		remote = r.remote
	}
	e.env.Log.Info("told a peer that its tunnel is gone", "peer", p, "tunnel", hdr.Tunnel, "message", kind)
	m := &e.out
	m.Reset(StopCCN)
	m.Tunnel, m.Ns, m.Nr = remote, hdr.Nr, hdr.Ns+1
	m.SetUint(AVPAssignedTunnelID, uint32(hdr.Tunnel))
	m.SetBytes(AVPResultCode, appendResult(nil, StopError, ErrorNoControl, ""))
	e.env.Send(p, m.Append(nil, "", nil))
}

type recalled struct {
	remote TunnelID
	addr   netip.Addr
	until  time.Time
}

// recallFor is how long tunnels of a former run are remembered: longer than a client needs to notice.
const recallFor = 10 * time.Minute

// Recall tells the engine which tunnels a former run of this server had when it died, so that their peers can be told
// by name. What it does is only quicker: without it a peer notices by its own HELLO.
func (e *Engine) Recall(now time.Time, old []TunnelInfo) {
	e.recall = make(map[TunnelID]recalled)
	for _, t := range old[:min(len(old), e.cfg.MaxTunnels)] {
		e.recall[t.Local] = recalled{t.Remote, t.Peer.Remote.Addr().Unmap(), now.Add(recallFor)}
	}
}

// CloseSession ends one session with a CDN. An unknown one is no error.
func (e *Engine) CloseSession(now time.Time, tunnel TunnelID, id SessionID, cause Cause) {
	t := e.tunnels[tunnel]
	if t == nil || t.sessions[id] == nil {
		return
	}
	e.endSession(now, t.sessions[id], cause, true)
	e.finish(now, t)
}

// CloseTunnel ends one tunnel with a StopCCN. An unknown one is no error.
func (e *Engine) CloseTunnel(now time.Time, id TunnelID, cause Cause) {
	if t := e.tunnels[id]; t != nil {
		e.closeTunnel(now, t, cause, true)
		e.finish(now, t)
	}
}

// CloseVia ends everything that lives in a security association that is gone. Nothing is sent: it could not arrive.
func (e *Engine) CloseVia(now time.Time, via Via, cause Cause) {
	if via == 0 {
		return
	}
	if cause.Reason == ReasonUnknown {
		cause.Reason = ReasonVia
	}
	for _, t := range e.byVia(via) {
		e.closeTunnel(now, t, cause, false)
		e.remove(t)
		e.finish(now, t)
	}
}

// ViaInUse says whether any tunnel, a lingering one included, still needs the security association.
func (e *Engine) ViaInUse(via Via) bool { return len(e.byVia(via)) > 0 }

func (e *Engine) byVia(via Via) (found []*tunnel) {
	for _, t := range e.ordered() {
		if t.peer.Via == via {
			found = append(found, t)
		}
	}
	return found
}

// drainFor bounds how long Close tries to say goodbye.
const drainFor = 5 * time.Second

// Close sends StopCCN to everybody and takes no new tunnels. Sessions are down when it returns; go on calling Receive and
// Tick until Drained, which is at most five seconds away.
func (e *Engine) Close(now time.Time) {
	e.closing, e.closeBy = true, now.Add(drainFor)
	for _, t := range e.ordered() {
		if t.state == tunnelLingering {
			e.remove(t) // nothing is owed to it but repeated acknowledgements
		} else {
			e.closeTunnel(now, t, Cause{Reason: ReasonShutdown}, true)
		}
		e.finish(now, t)
	}
}

// Drained says that every goodbye has been acknowledged or given up.
func (e *Engine) Drained() bool { return len(e.tunnels) == 0 }

// Reconfigure obeys a new configuration. Secret and names count for new tunnels. Cleartext tunnels are closed when
// protection has become required; nobody else is disturbed.
func (e *Engine) Reconfigure(now time.Time, cfg Config) {
	e.cfg = sane(cfg)
	for _, t := range e.ordered() {
		if e.cfg.Protection == ProtectionRequired && t.peer.Via == 0 && !t.dialed {
			e.closeTunnel(now, t, Cause{Reason: ReasonProtection}, true)
		}
		e.finish(now, t)
	}
}

func (e *Engine) debug() bool { return e.env.Log.Enabled(context.Background(), slog.LevelDebug) }

// random16 is never zero. Its callers try again where the number is taken.
func (e *Engine) random16() (uint16, error) {
	var b [2]byte
	for {
		if _, err := io.ReadFull(e.env.Rand, b[:]); err != nil {
			return 0, err
		}
		if n := binary.BigEndian.Uint16(b[:]); n != 0 {
			return n, nil
		}
	}
}
