package l2tp

import (
	"container/list"
	"io"
	"slices"
	"sort"
	"time"
)

// tunnelState is the control connection's (RFC 2661 section 7.2.1), with the two ways of being on the way out apart.
type tunnelState uint8

const (
	tunnelWaitReply   tunnelState = iota // we sent SCCRQ
	tunnelWaitConnect                    // we sent SCCRP
	tunnelEstablished
	tunnelClosing   // we sent StopCCN and wait for its acknowledgement
	tunnelLingering // the peer sent StopCCN; our acknowledgement may have been lost (RFC 2661 section 5.7)
	tunnelStates
)

func (s tunnelState) String() string {
	return [...]string{"wait-reply", "wait-connect", "established", "closing", "lingering"}[s]
}

const (
	// setupTime is what the whole set-up of a tunnel or a session may take.
	setupTime = 60 * time.Second
	// idleTime is how long a tunnel that was called may stay without sessions.
	idleTime = 60 * time.Second
)

// tunnel is one control connection.
type tunnel struct {
	local, remote TunnelID
	peer          Peer
	state         tunnelState
	since         time.Time // of state
	created       time.Time
	heard         time.Time // last message, or sign of life on the data path
	idleSince     time.Time // without sessions
	lingerUntil   time.Time

	dialed    bool
	dial      *Dial
	secret    Secret
	hide      bool
	challenge []byte // ours, unanswered
	tie       [8]byte
	request   uint64 // hash of the SCCRQ, to tell a repeated one from a new one

	d        delivery
	host     string
	vendor   string
	firmware uint16

	sessions map[SessionID]*session
	setups   []*session // not yet established, oldest first
	pathOpen bool       // Plane.OpenTunnel was called
	packets  uint64     // data packets seen by TrafficCounter
	up       bool       // TunnelUp was called

	inHalfOpen, inClosed *list.Element
	due                  time.Time
	slot                 int // in the timer heap, -1 outside
	gone                 bool
}

func (t *tunnel) info() TunnelInfo {
	return TunnelInfo{Peer: t.peer, Local: t.local, Remote: t.remote, HostName: t.host, Vendor: t.vendor,
		Firmware: t.firmware, Dialed: t.dialed, Created: t.created}
}

func (t *tunnel) spec() TunnelSpec { return TunnelSpec{Peer: t.peer, Local: t.local, Remote: t.remote} }

func (t *tunnel) localKnown() bool {
	a := t.peer.Local.Addr()
	return a.IsValid() && !a.IsUnspecified()
}

func (t *tunnel) setState(now time.Time, s tunnelState) { t.state, t.since = s, now }

// ended says that no session can live here any more.
func (t *tunnel) ended() bool { return t.state == tunnelClosing || t.state == tunnelLingering }

func (e *Engine) ordered() []*tunnel {
	all := make([]*tunnel, 0, len(e.tunnels))
	for _, t := range e.tunnels {
		all = append(all, t)
	}
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		return a.local < b.local
	})
	return all
}

// newTunnel makes a tunnel with a random id. Random ids are half of what keeps a stranger out of a cleartext tunnel.
func (e *Engine) newTunnel(now time.Time, p Peer) (*tunnel, error) {
	for {
		n, err := e.random16()
		if err != nil {
			return nil, err
		}
		id := TunnelID(n)
		if e.tunnels[id] != nil {
			continue // at most half of the ids are taken
		}
		t := &tunnel{local: id, peer: p, since: now, created: now, heard: now, secret: e.cfg.Secret, slot: -1,
			sessions: make(map[SessionID]*session), d: newDelivery(e.cfg.ReceiveWindow)}
		t.hide = e.cfg.HideAVPs && t.secret != ""
		e.tunnels[id] = t
		return t, nil
	}
}

// index makes a live tunnel findable by its peer.
func (e *Engine) index(t *tunnel) {
	if t.remote != 0 {
		e.byPeer[peerKey{t.peer.Remote, t.peer.Via, t.remote}] = t
	}
	k := hostKey{t.peer.Remote.Addr(), t.peer.Via}
	e.hosts[k] = append(e.hosts[k], t)
}

func (e *Engine) unindex(t *tunnel) {
	if k := (peerKey{t.peer.Remote, t.peer.Via, t.remote}); e.byPeer[k] == t {
		delete(e.byPeer, k)
	}
	k := hostKey{t.peer.Remote.Addr(), t.peer.Via}
	list := e.hosts[k]
	if i := slices.Index(list, t); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	if len(list) == 0 {
		delete(e.hosts, k)
	} else {
		e.hosts[k] = list
	}
}

// send queues a message on the tunnel; finish lets it out.
func (e *Engine) send(t *tunnel, m *Message) {
	m.Tunnel = t.remote
	var secret Secret
	var vector []byte
	// Not before the peer has shown that it has the secret: xl2tpd cannot open a hidden SCCRP.
	if t.hide && t.state != tunnelWaitReply && t.state != tunnelWaitConnect {
		var random [16]byte
		if _, err := io.ReadFull(e.env.Rand, random[:]); err == nil {
			secret, vector = t.secret, random[:]
		}
	}
	if e.debug() {
		e.env.Log.Debug("send", "message", m, "tunnel", t.local, "peer", t.peer)
	}
	t.d.push(m.Append(nil, secret, vector), m.Type)
}

// finish lets out what the window allows, acknowledges what nothing rode on, and files the tunnel's next deadline. Every
// entry into the engine ends here.
func (e *Engine) finish(now time.Time, t *tunnel) {
	if !t.gone {
		r := e.retransmission()
		for msg := t.d.next(now, r); msg != nil; msg = t.d.next(now, r) {
			e.env.Send(t.peer, msg)
		}
		if !t.d.ackAt.IsZero() && !t.d.ackAt.After(now) {
			t.d.ackAt = time.Time{}
			e.env.Send(t.peer, appendControl(e.zlb[:0], t.remote, 0, t.d.high, t.d.nr))
		}
		if t.state == tunnelClosing && len(t.d.queue) == 0 {
			e.remove(t)
		}
	}
	e.schedule(t)
}

// receiveTunnel takes a message that is known to come from the tunnel's peer.
func (e *Engine) receiveTunnel(now time.Time, t *tunnel, kind MessageType, hdr Header, body []byte) {
	t.heard = now
	t.d.acknowledge(now, hdr.Nr, e.retransmission())
	if kind == ZLB {
		return // never acknowledged, or two ends would do so for ever
	}
	switch t.d.judge(hdr.Ns) {
	case duplicate:
		e.drops[DropDuplicate]++
		t.d.oweAck(now)
	case ahead:
		t.d.hold(hdr, body)
	case inOrder:
		if !e.deliver(now, t, hdr, body) {
			return
		}
		for !t.gone {
			held, ok := t.d.release()
			if !ok || !e.deliver(now, t, held.hdr, held.msg) {
				return
			}
		}
	}
}

// deliver hands on the message whose turn it is. It returns false, leaving the message unacknowledged, when it must not
// count: it makes no sense and the peer is not established, or the peer asks without ever acknowledging our answers.
func (e *Engine) deliver(now time.Time, t *tunnel, hdr Header, body []byte) bool {
	if len(t.d.queue) >= maxQueued && !t.ended() {
		e.drops[DropLimit]++
		return false
	}
	m := &e.in
	if err := m.parseBody(hdr, body, t.secret); err != nil {
		e.drops[DropMalformed]++
		return false
	}
	if e.debug() {
		e.env.Log.Debug("received", "message", m, "tunnel", t.local, "peer", t.peer)
	}
	if m.Fault != nil && m.Type != StopCCN && !t.ended() && t.state != tunnelEstablished {
		e.drops[DropFault]++
		if e.warnOnce(now, t.peer.Remote.Addr()) {
			e.env.Log.Warn("message ignored", "message", m.Type, "tunnel", t.local, "peer", t.peer, "error", m.Fault)
		}
		return false
	}
	t.d.consume(now)
	e.dispatch(now, t, m)
	return true
}

// tickTunnel does what has become due.
func (e *Engine) tickTunnel(now time.Time, t *tunnel) {
	if e.closing && !now.Before(e.closeBy) {
		e.remove(t)
		return
	}
	due := func(at time.Time) bool { return !at.IsZero() && !at.After(now) }
	if due(t.d.resendAt) {
		if t.d.queue[0].kind == HELLO && e.dataFlows(t) {
			t.d.firstAt = now // alive, only too busy or too asleep to say so
		}
		if !t.d.expire(now, e.retransmission()) {
			e.closeTunnel(now, t, Cause{Reason: ReasonTimeout}, false)
			e.remove(t)
			return
		}
	}
	switch t.state {
	case tunnelWaitReply, tunnelWaitConnect:
		if due(t.created.Add(setupTime)) {
			e.closeTunnel(now, t, Cause{Reason: ReasonSetupTimeout}, true)
		}
	case tunnelEstablished:
		e.tickSetups(now, t)
		if t.state == tunnelEstablished && due(e.idleAt(t)) {
			e.closeTunnel(now, t, Cause{Reason: ReasonIdle}, true)
		}
		if t.state == tunnelEstablished && due(e.helloAt(t)) {
			if e.dataFlows(t) {
				t.heard = now
			} else {
				e.out.Reset(HELLO)
				e.send(t, &e.out)
			}
		}
	case tunnelLingering:
		if due(t.lingerUntil) {
			e.remove(t)
		}
	}
}

// deadline is when tickTunnel or finish has something to do; zero for never.
func (t *tunnel) deadline(e *Engine) time.Time {
	at := t.d.deadline()
	if e.closing {
		at = earliest(at, e.closeBy)
	}
	switch t.state {
	case tunnelWaitReply, tunnelWaitConnect:
		at = earliest(at, t.created.Add(setupTime))
	case tunnelEstablished:
		at = earliest(at, t.setupAt())
		at = earliest(at, e.idleAt(t))
		at = earliest(at, e.helloAt(t))
	case tunnelLingering:
		at = earliest(at, t.lingerUntil)
	}
	return at
}

// helloAt is when silence has lasted long enough (RFC 2661 section 6.5). Messages in flight do the same service.
func (e *Engine) helloAt(t *tunnel) time.Time {
	if e.cfg.Hello <= 0 || len(t.d.queue) > 0 {
		return time.Time{}
	}
	return t.heard.Add(e.cfg.Hello)
}

func (e *Engine) idleAt(t *tunnel) time.Time {
	if len(t.sessions) > 0 {
		return time.Time{}
	}
	return t.idleSince.Add(idleTime)
}

// dataFlows says whether data has arrived since it was last asked, as far as the plane can tell.
func (e *Engine) dataFlows(t *tunnel) bool {
	counter, ok := e.env.Plane.(TrafficCounter)
	if !ok || !t.pathOpen {
		return false
	}
	n, ok := counter.Received(t.spec())
	moved := ok && n != t.packets
	if ok {
		t.packets = n
	}
	return moved
}

// closeTunnel ends a tunnel: sessions, data path, and with tell a StopCCN. Without it the caller removes the tunnel.
func (e *Engine) closeTunnel(now time.Time, t *tunnel, cause Cause, tell bool) {
	if !e.abandon(now, t, tunnelClosing, cause) || !tell {
		return
	}
	t.d.dropUnsent()
	result, code := cause.codes(StopCCN)
	m := &e.out
	m.Reset(StopCCN)
	m.SetUint(AVPAssignedTunnelID, uint32(t.local))
	m.SetBytes(AVPResultCode, appendResult(nil, result, code, cause.Text))
	e.send(t, m)
}

// abandon takes a tunnel out of service, once.
func (e *Engine) abandon(now time.Time, t *tunnel, to tunnelState, cause Cause) bool {
	if t.ended() {
		return false
	}
	level := e.env.Log.Info
	if !t.up && !t.dialed {
		level = e.env.Log.Debug // a stranger who knocks must not fill the log
	}
	level("tunnel down", "tunnel", t.local, "peer", t.peer, "host", t.host, "cause", cause)
	if t.state == tunnelWaitReply {
		e.dialing--
	}
	t.setState(now, to)
	e.unindex(t)
	if t.inHalfOpen != nil {
		e.halfOpen.Remove(t.inHalfOpen)
		t.inHalfOpen = nil
	}
	t.inClosed = e.closed.PushBack(t)
	t.d.held = nil
	for _, c := range t.orderedSessions() {
		e.endSession(now, c, cause, false)
	}
	if t.pathOpen {
		t.pathOpen = false
		e.env.Plane.CloseTunnel(t.spec())
	}
	if t.up || t.dialed {
		e.env.TunnelDown(t.info(), cause)
	}
	if e.closed.Len() > e.cfg.MaxTunnels {
		e.remove(e.closed.Front().Value.(*tunnel))
	}
	return true
}

// remove forgets a tunnel that was abandoned before.
func (e *Engine) remove(t *tunnel) {
	if t.gone {
		return
	}
	t.gone = true
	delete(e.tunnels, t.local)
	if t.inClosed != nil {
		e.closed.Remove(t.inClosed)
		t.inClosed = nil
	}
	e.schedule(t)
	if e.env.Released != nil {
		e.env.Released(t.info())
	}
}
