package l2tp

import (
	"bytes"
	"hash/fnv"
	"io"
	"time"
)

// What we say of ourselves in SCCRQ and SCCRP.
const (
	protocolVersion = 0x0100 // RFC 2661 section 4.4.3: version 1, revision 0
	framingBoth     = 3      // synchronous and asynchronous
	firmware        = 0x0100
	vendorName      = "Culvert"
)

// tunnelAutomaton is RFC 2661 section 7.2.1: what a message does in which state. An empty cell is a finite state machine
// error. Messages of sessions are handed on to the session's own automaton.
var tunnelAutomaton = [tunnelStates][messageCount]func(*Engine, time.Time, *tunnel, *Message){
	tunnelWaitReply: {
		SCCRP: (*Engine).onSCCRP, StopCCN: (*Engine).onStopCCN, HELLO: ignore,
	},
	tunnelWaitConnect: {
		SCCCN: (*Engine).onSCCCN, StopCCN: (*Engine).onStopCCN, HELLO: ignore,
	},
	tunnelEstablished: {
		StopCCN: (*Engine).onStopCCN, HELLO: ignore,
		OCRQ: (*Engine).onCall, OCRP: (*Engine).onCall, OCCN: (*Engine).onCall,
		ICRQ: (*Engine).onCall, ICRP: (*Engine).onCall, ICCN: (*Engine).onCall,
		CDN: (*Engine).onCall, WEN: (*Engine).onCall, SLI: (*Engine).onCall,
	},
	tunnelClosing:   {StopCCN: (*Engine).onLateStopCCN},
	tunnelLingering: {},
}

func ignore(*Engine, time.Time, *tunnel, *Message) {}

// dispatch acts on a message that has been received in order and acknowledged.
func (e *Engine) dispatch(now time.Time, t *tunnel, m *Message) {
	if m.Fault != nil && m.Type != StopCCN && m.Type != CDN && t.state == tunnelEstablished {
		e.onFault(now, t, m)
		return
	}
	if !m.Type.known() {
		return // without the M bit, or we are leaving anyway
	}
	if act := tunnelAutomaton[t.state][m.Type]; act != nil {
		act(e, now, t, m)
	} else if !t.ended() {
		e.closeTunnel(now, t, Cause{Reason: ReasonState, Text: m.Type.String() + " in state " + t.state.String()}, true)
	}
}

// onFault ends what a senseless message belongs to (RFC 2661 section 4.1).
func (e *Engine) onFault(now time.Time, t *tunnel, m *Message) {
	cause := Cause{Reason: ReasonProtocol, Error: m.Fault.Code, Text: m.Fault.Error()}
	switch m.Type {
	case ICRQ, OCRQ:
		e.env.Log.Warn("call refused", "tunnel", t.local, "peer", t.peer, "error", m.Fault)
		if id := SessionID(m.Uint(AVPAssignedSessionID)); id != 0 {
			e.refuseCall(t, id, cause)
		}
	case OCRP, OCCN, ICRP, ICCN, WEN, SLI:
		if c := t.sessions[m.Session]; c != nil {
			e.endSession(now, c, cause, true)
		} else {
			e.drops[DropUnknownSession]++
		}
	default:
		e.closeTunnel(now, t, cause, true)
	}
}

// sccrq makes a tunnel of an SCCRQ, or returns the one it has made if the peer repeats itself.
func (e *Engine) sccrq(now time.Time, p Peer, hdr Header, body []byte) *tunnel {
	m := &e.in
	if e.closing {
		e.drops[DropClosing]++
		return nil
	}
	if !e.allowed(p.Remote.Addr()) {
		e.drops[DropNotAllowed]++
		if e.warnOnce(now, p.Remote.Addr()) {
			e.env.Log.Warn("tunnel refused: the address is not in allowed-address", "peer", p)
		}
		return nil
	}
	if hdr.Ns != 0 {
		e.drops[DropOutside]++
		return nil
	}
	if err := m.parseBody(hdr, body, e.cfg.Secret); err != nil {
		e.drops[DropMalformed]++
		return nil
	}
	remote := TunnelID(m.Uint(AVPAssignedTunnelID))
	if m.Has(AVPProtocolVersion) && m.Uint(AVPProtocolVersion)>>8 != protocolVersion>>8 {
		e.refuse(now, p, hdr, remote, Cause{Reason: ReasonVersion})
		return nil
	}
	if m.Fault != nil {
		e.drops[DropFault]++
		if e.warnOnce(now, p.Remote.Addr()) {
			e.env.Log.Warn("tunnel request ignored", "peer", p, "error", m.Fault)
		}
		return nil
	}
	sum := fnv.New64a()
	sum.Write(body)
	request := sum.Sum64()
	if t := e.byPeer[peerKey{p.Remote, p.Via, remote}]; t != nil && !t.dialed && t.peer == p && t.request == request &&
		now.Sub(t.created) < e.retransmission().cycle() {
		return t // repeated. One that is later or differs is a peer that has restarted.
	}
	if e.dialing > 0 && !e.breakTie(now, p, m) {
		return nil
	}
	if m.Has(AVPChallenge) && e.cfg.Secret == "" {
		if e.warnOnce(now, p.Remote.Addr()) {
			e.env.Log.Warn("tunnel refused: the peer wants tunnel authentication, set tunnel-secret to the same as there", "peer", p)
		}
		e.refuse(now, p, hdr, remote, Cause{Reason: ReasonAuthorization})
		return nil
	}
	if !e.makeRoom(now) {
		e.drops[DropLimit]++
		e.refuse(now, p, hdr, remote, Cause{Reason: ReasonResources})
		return nil
	}
	t, err := e.newTunnel(now, p)
	if err != nil {
		e.env.Log.Error("no random numbers", "error", err)
		return nil
	}
	t.setState(now, tunnelWaitConnect)
	t.remote, t.request = remote, request
	t.inHalfOpen = e.halfOpen.PushBack(t)
	t.learn(m)
	e.index(t)
	e.sendSCCRP(t, m)
	t.d.consume(now) // the SCCRP acknowledges
	e.finish(now, t)
	return nil
}

// learn keeps what SCCRQ and SCCRP tell about the peer.
func (t *tunnel) learn(m *Message) {
	t.host, t.vendor = m.Text(AVPHostName), m.Text(AVPVendorName)
	t.firmware = uint16(m.Uint(AVPFirmware))
	window := defaultPeerWindow
	if m.Has(AVPReceiveWindow) {
		window = int(m.Uint(AVPReceiveWindow))
	}
	t.d.setPeerWindow(window)
}

// refuse answers an SCCRQ without keeping anything: if the answer is lost, the repeated SCCRQ earns another.
func (e *Engine) refuse(now time.Time, p Peer, hdr Header, remote TunnelID, cause Cause) {
	e.env.Log.Debug("tunnel refused", "peer", p, "cause", cause)
	if remote == 0 {
		e.drops[DropFault]++
		return
	}
	if !e.answers.take(now) {
		e.drops[DropRate]++
		return
	}
	id, err := e.random16()
	if err != nil {
		return
	}
	result, code := cause.codes(StopCCN)
	m := &e.out
	m.Reset(StopCCN)
	m.Tunnel, m.Nr = remote, hdr.Ns+1
	m.SetUint(AVPAssignedTunnelID, uint32(id))
	m.SetBytes(AVPResultCode, appendResult(nil, result, code, cause.Text))
	e.env.Send(p, m.Append(nil, "", nil))
}

// breakTie settles two SCCRQs that crossed (RFC 2661 section 4.4.3, Tie Breaker): the lower value wins, having none loses
// to having one, and equal values lose both. It says whether the peer's call goes on.
func (e *Engine) breakTie(now time.Time, p Peer, m *Message) bool {
	for _, ours := range e.hosts[hostKey{p.Remote.Addr(), p.Via}] {
		if ours.state != tunnelWaitReply || !m.Has(AVPTieBreaker) && ours.tie == [8]byte{} {
			continue
		}
		order := -1
		if theirs := m.Bytes(AVPTieBreaker); theirs != nil && ours.tie == [8]byte{} {
			order = 1
		} else if theirs != nil {
			order = bytes.Compare(ours.tie[:], theirs)
		}
		if order >= 0 {
			e.closeTunnel(now, ours, Cause{Reason: ReasonTie}, false)
			e.remove(ours)
		}
		if order <= 0 {
			e.drops[DropTie]++
			return false
		}
		break
	}
	return true
}

// describeUs fills what SCCRQ and SCCRP have in common. The M bits come from the table: accel-ppp checks each.
func (e *Engine) describeUs(t *tunnel, m *Message) {
	m.SetUint(AVPProtocolVersion, protocolVersion)
	m.SetUint(AVPFramingCaps, framingBoth)
	m.SetUint(AVPBearerCaps, 0)
	m.SetUint(AVPFirmware, firmware)
	m.SetText(AVPHostName, e.cfg.HostName)
	m.SetText(AVPVendorName, vendorName)
	m.SetUint(AVPAssignedTunnelID, uint32(t.local))
	m.SetUint(AVPReceiveWindow, uint32(t.d.window))
	if t.secret != "" {
		challenge := make([]byte, challengeLen)
		if _, err := io.ReadFull(e.env.Rand, challenge); err == nil {
			t.challenge = challenge
			m.SetBytes(AVPChallenge, challenge)
		}
	}
}

func (e *Engine) sendSCCRP(t *tunnel, rq *Message) {
	m := &e.out
	m.Reset(SCCRP)
	e.describeUs(t, m)
	if rq.Has(AVPChallenge) {
		response := challengeResponse(SCCRP, t.secret, rq.Bytes(AVPChallenge))
		m.SetBytes(AVPChallengeResponse, response[:])
	}
	e.send(t, m)
}

// authentic checks the peer's answer to our challenge. With a secret there has been a challenge.
func (e *Engine) authentic(now time.Time, t *tunnel, m *Message) bool {
	if t.secret == "" {
		return true
	}
	if t.challenge != nil && responseValid(m.Type, t.secret, t.challenge, m.Bytes(AVPChallengeResponse)) {
		t.challenge = nil
		return true
	}
	e.env.Log.Warn("tunnel authentication failed: the tunnel secrets differ, or the peer has none", "peer", t.peer, "host", t.host)
	e.closeTunnel(now, t, Cause{Reason: ReasonAuthorization}, true)
	return false
}

func (e *Engine) onSCCCN(now time.Time, t *tunnel, m *Message) {
	if !e.authentic(now, t, m) {
		return
	}
	e.halfOpen.Remove(t.inHalfOpen)
	t.inHalfOpen = nil
	e.establish(now, t)
}

func (e *Engine) establish(now time.Time, t *tunnel) {
	t.setState(now, tunnelEstablished)
	t.idleSince = now
	// The peer has only one tunnel of that id: what else we know by it is from before the peer restarted. A StopCCN would
	// hit the new tunnel, so there is none. Only now: this peer has proved that it hears us.
	for _, old := range append([]*tunnel(nil), e.hosts[hostKey{t.peer.Remote.Addr(), t.peer.Via}]...) {
		if old != t && old.remote == t.remote && old.peer == t.peer && !old.ended() {
			e.closeTunnel(now, old, Cause{Reason: ReasonSuperseded}, false)
			e.remove(old)
		}
	}
	t.up = true
	e.env.Log.Info("tunnel up", "tunnel", t.local, "remote", t.remote, "peer", t.peer, "host", t.host, "vendor", t.vendor)
	e.env.TunnelUp(t.info())
}

func (e *Engine) onStopCCN(now time.Time, t *tunnel, m *Message) {
	// The tunnel is the one of the header; what the AVP says is wrong from some peers.
	result, code, text := parseResult(m.Bytes(AVPResultCode))
	if text == "" && result != 0 {
		text = StopName(result)
		if code != 0 && result == StopError {
			text = ErrorName(code)
		}
	}
	if t.remote == 0 {
		t.remote = TunnelID(m.Uint(AVPAssignedTunnelID)) // where to acknowledge
	}
	e.abandon(now, t, tunnelLingering, Cause{Reason: ReasonPeer, Result: result, Error: code, Text: text})
	e.linger(now, t)
}

func (e *Engine) onLateStopCCN(now time.Time, t *tunnel, _ *Message) {
	t.setState(now, tunnelLingering) // both said it: nobody needs to hear ours
	e.linger(now, t)
}

// linger stays for a full retransmission cycle, only to acknowledge again. It is in nobody's way: the peer's next SCCRQ
// makes a new tunnel.
func (e *Engine) linger(now time.Time, t *tunnel) {
	clear(t.d.queue)
	t.d.queue, t.d.sent, t.d.resendAt = t.d.queue[:0], 0, time.Time{}
	t.d.una = t.d.high
	t.d.oweAck(now)
	t.lingerUntil = now.Add(e.retransmission().cycle())
}
