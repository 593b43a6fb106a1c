package l2tp

import (
	"slices"
	"sort"
	"time"
)

// sessionState is an incoming call's, seen from the LNS or, where we dialed, from the LAC (RFC 2661 sections 7.4, 7.5).
type sessionState uint8

const (
	sessionWaitReply   sessionState = iota // we sent ICRQ
	sessionWaitConnect                     // we sent ICRP
	sessionEstablished
	sessionStates
)

func (s sessionState) String() string {
	return [...]string{"wait-reply", "wait-connect", "established"}[s]
}

// session is one call.
type session struct {
	t             *tunnel
	local, remote SessionID
	state         sessionState
	since         time.Time
	spec          SessionSpec
	info          SessionInfo
	pathOpen      bool
	ended         bool
}

// describe fills in what may change during a session's life.
func (c *session) describe() SessionInfo {
	i := c.info
	i.Tunnel = c.t.info()
	i.Spec = c.spec
	i.Spec.Tunnel = c.t.spec()
	i.Local, i.Remote = c.local, c.remote
	return i
}

func (c *session) setState(now time.Time, s sessionState) { c.state, c.since = s, now }

func (t *tunnel) orderedSessions() []*session {
	all := make([]*session, 0, len(t.sessions))
	for _, c := range t.sessions {
		all = append(all, c)
	}
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		return a.local < b.local
	})
	return all
}

// sessionAutomaton says what a message does to a call. An empty cell ends the call.
var sessionAutomaton = [sessionStates][messageCount]func(*Engine, time.Time, *session, *Message){
	sessionWaitReply:   {ICRP: (*Engine).onICRP, CDN: (*Engine).onCDN},
	sessionWaitConnect: {ICCN: (*Engine).onICCN, CDN: (*Engine).onCDN, WEN: ignoreCall, SLI: ignoreCall},
	sessionEstablished: {CDN: (*Engine).onCDN, WEN: ignoreCall, SLI: ignoreCall},
}

// ignoreCall: call errors and ACCM concern asynchronous lines, of which we have none.
func ignoreCall(*Engine, time.Time, *session, *Message) {}

// onCall finds the session that a message is about.
func (e *Engine) onCall(now time.Time, t *tunnel, m *Message) {
	switch m.Type {
	case ICRQ:
		e.onICRQ(now, t, m)
		return
	case OCRQ:
		e.onOCRQ(t, m)
		return
	}
	c := t.sessions[m.Session]
	if c == nil && m.Type == CDN {
		c = t.byRemote(SessionID(m.Uint(AVPAssignedSessionID)))
	}
	if c == nil {
		e.drops[DropUnknownSession]++
		return
	}
	if act := sessionAutomaton[c.state][m.Type]; act != nil {
		act(e, now, c, m)
	} else {
		e.endSession(now, c, Cause{Reason: ReasonState, Text: m.Type.String() + " in state " + c.state.String()}, true)
	}
}

// onOCRQ answers whoever asks for an outgoing call (RFC 2661 section 5.3.2): a LAC shall dial a number for it, and hand it
// what answers there. Neither end of ours has a line, and an OCCN would promise a station that is connected to one
// (section 6.11), for which the LNS would wait with PPP in vain. Section 4.4.2 has the answer for it: call failed due to lack of
// appropriate facilities, permanently. What else lives in the tunnel goes on.
func (e *Engine) onOCRQ(t *tunnel, m *Message) {
	e.env.Log.Info("outgoing call refused: there is no line here to place it on", "tunnel", t.local, "peer", t.peer, "called", m.Text(AVPCalledNumber))
	e.refuseCall(t, SessionID(m.Uint(AVPAssignedSessionID)), Cause{Reason: ReasonUnsupported, Text: "no line to place a call on"})
}

func (t *tunnel) byRemote(id SessionID) *session {
	if id == 0 {
		return nil
	}
	for _, c := range t.sessions {
		if c.remote == id {
			return c
		}
	}
	return nil
}

// newSessionID draws an id that no other tunnel uses either: Linux before 6.11 looks a session up by its id in whatever
// tunnel socket the packet reached.
func (e *Engine) newSessionID() (SessionID, error) {
	for {
		n, err := e.random16()
		if err != nil {
			return 0, err
		}
		if e.sessions[SessionID(n)] == nil {
			return SessionID(n), nil
		}
	}
}

// newSession makes a call and its id.
func (e *Engine) newSession(now time.Time, t *tunnel) (*session, error) {
	id, err := e.newSessionID()
	if err != nil {
		return nil, err
	}
	c := &session{t: t, local: id, since: now}
	c.info.Created = now
	c.spec = SessionSpec{Local: id}
	t.sessions[id] = c
	e.sessions[id] = c
	t.setups = append(t.setups, c)
	return c, nil
}

// openPath opens the data path, and the tunnel's with its first session.
func (e *Engine) openPath(c *session) error {
	t := c.t
	c.spec.Tunnel, c.spec.Remote = t.spec(), c.remote
	if !t.pathOpen {
		if err := e.env.Plane.OpenTunnel(t.spec()); err != nil {
			return err
		}
		t.pathOpen = true
	}
	if err := e.env.Plane.OpenSession(c.spec); err != nil {
		return err
	}
	c.pathOpen = true
	return nil
}

func (e *Engine) onICRQ(now time.Time, t *tunnel, m *Message) {
	remote := SessionID(m.Uint(AVPAssignedSessionID))
	// A peer that gives an id out again has forgotten the call that had it; a CDN would hit the new one.
	if old := t.byRemote(remote); old != nil {
		e.endSession(now, old, Cause{Reason: ReasonSuperseded}, false)
	}
	if t.ended() {
		return
	}
	if t.dialed {
		e.refuseCall(t, remote, Cause{Reason: ReasonUnsupported})
		return
	}
	if len(e.sessions) >= e.cfg.MaxSessions {
		e.env.Log.Warn("call refused: max-sessions is reached", "peer", t.peer, "max-sessions", e.cfg.MaxSessions)
		e.refuseCall(t, remote, Cause{Reason: ReasonResources})
		return
	}
	if e.cfg.OneSessionPerHost && e.hostBusy(now, t) {
		e.env.Log.Warn("call refused: one-session-per-host is set and the host has a session", "peer", t.peer)
		e.refuseCall(t, remote, Cause{Reason: ReasonResources, Result: CDNBusy})
		return
	}
	c, err := e.newSession(now, t)
	if err != nil {
		e.env.Log.Error("no random numbers", "error", err)
		return
	}
	c.remote = remote
	c.setState(now, sessionWaitConnect)
	c.spec.LNS, c.spec.SendSeq = true, e.cfg.SequenceData
	c.info.CallSerial = m.Uint(AVPCallSerial)
	c.info.Bearer = m.Uint(AVPBearerType)
	c.info.Calling = m.Text(AVPCallingNumber)
	c.info.Called = m.Text(AVPCalledNumber)
	c.info.SubAddress = m.Text(AVPSubAddress)
	if err := e.openPath(c); err != nil {
		e.env.Log.Error("call refused: the data path does not open", "peer", t.peer, "error", err)
		e.endSession(now, c, Cause{Reason: ReasonResources}, true)
		return
	}
	r := &e.out
	r.Reset(ICRP)
	r.Session = c.remote
	r.SetUint(AVPAssignedSessionID, uint32(c.local))
	e.send(t, r)
}

// hostBusy says whether the tunnel's host has a session already. That host may be this one, come back after a crash: its
// other tunnels are asked whether anybody is there, and are gone when the client tries again.
func (e *Engine) hostBusy(now time.Time, t *tunnel) bool {
	busy := false
	for _, other := range e.hosts[hostKey{t.peer.Remote.Addr(), t.peer.Via}] {
		if len(other.sessions) == 0 {
			continue
		}
		busy = true
		if other != t && other.state == tunnelEstablished && len(other.d.queue) == 0 {
			e.out.Reset(HELLO)
			e.send(other, &e.out)
			e.finish(now, other)
		}
	}
	return busy
}

// refuseCall answers a request with a CDN, without a session. The id in it is one that nobody has.
func (e *Engine) refuseCall(t *tunnel, remote SessionID, cause Cause) {
	id, err := e.newSessionID()
	if err != nil {
		return
	}
	e.sendCDN(t, id, remote, cause)
}

func (e *Engine) sendCDN(t *tunnel, local, remote SessionID, cause Cause) {
	result, code := cause.codes(CDN)
	m := &e.out
	m.Reset(CDN)
	m.Session = remote
	m.SetBytes(AVPResultCode, appendResult(nil, result, code, cause.Text))
	m.SetUint(AVPAssignedSessionID, uint32(local))
	e.send(t, m)
}

func (e *Engine) onICCN(now time.Time, c *session, m *Message) {
	c.info.TxSpeed, c.info.RxSpeed = m.Uint(AVPTxSpeed), m.Uint(AVPRxSpeed)
	c.info.Framing = m.Uint(AVPFramingType)
	c.info.PrivateGroup = m.Text(AVPPrivateGroup)
	c.info.Proxy = Proxy{
		InitialReceivedLCP: slices.Clone(m.Bytes(AVPInitialReceivedLCP)),
		LastSentLCP:        slices.Clone(m.Bytes(AVPLastSentLCP)),
		LastReceivedLCP:    slices.Clone(m.Bytes(AVPLastReceivedLCP)),
		AuthType:           uint16(m.Uint(AVPProxyAuthType)),
		AuthName:           m.Text(AVPProxyAuthName),
		AuthChallenge:      slices.Clone(m.Bytes(AVPProxyAuthChallenge)),
		AuthResponse:       slices.Clone(m.Bytes(AVPProxyAuthResponse)),
		AuthID:             uint16(m.Uint(AVPProxyAuthID)),
	}
	if m.Has(AVPSequencingRequired) && !c.spec.SendSeq {
		spec := c.spec
		spec.SendSeq = true
		if err := e.setSequence(c, spec); err != nil {
			e.env.Log.Error("call ended: the data path does not number packets", "peer", c.t.peer, "error", err)
			e.endSession(now, c, Cause{Reason: ReasonResources}, true)
			return
		}
	}
	e.connect(now, c)
}

func (e *Engine) setSequence(c *session, spec SessionSpec) error {
	spec.Tunnel = c.t.spec()
	if s, ok := e.env.Plane.(SequenceSetter); ok {
		if err := s.SetSequence(spec); err != nil {
			return err
		}
		c.spec = spec
		return nil
	}
	old := c.spec
	old.Tunnel = spec.Tunnel
	e.env.Plane.CloseSession(old)
	c.pathOpen = false
	c.spec = spec
	return e.openPath(c)
}

// connect is the end of the set-up. The callback may end the session at once.
func (e *Engine) connect(now time.Time, c *session) {
	c.setState(now, sessionEstablished)
	c.t.dropSetup(c)
	e.env.Log.Info("session up", "tunnel", c.t.local, "session", c.local, "peer", c.t.peer, "calling", c.info.Calling)
	e.env.SessionUp(c.describe())
}

func (e *Engine) onCDN(now time.Time, c *session, m *Message) {
	result, code, text := parseResult(m.Bytes(AVPResultCode))
	if text == "" && result != 0 {
		text = CDNName(result)
		if code != 0 && result == CDNError {
			text = ErrorName(code)
		}
	}
	e.endSession(now, c, Cause{Reason: ReasonPeer, Result: result, Error: code, Text: text}, false)
}

// endSession ends a call: CDN with tell, then PPP (SessionDown), then the data path.
func (e *Engine) endSession(now time.Time, c *session, cause Cause, tell bool) {
	if c.ended {
		return
	}
	c.ended = true
	t := c.t
	delete(t.sessions, c.local)
	delete(e.sessions, c.local)
	t.dropSetup(c)
	if tell {
		e.sendCDN(t, c.local, c.remote, cause)
	}
	if c.state == sessionEstablished {
		e.env.Log.Info("session down", "tunnel", t.local, "session", c.local, "peer", t.peer, "cause", cause)
		e.env.SessionDown(c.describe(), cause)
	} else {
		e.env.Log.Info("session failed", "tunnel", t.local, "session", c.local, "peer", t.peer, "cause", cause)
	}
	if c.pathOpen {
		c.pathOpen = false
		spec := c.spec
		spec.Tunnel = t.spec()
		e.env.Plane.CloseSession(spec)
	}
	if len(t.sessions) == 0 {
		t.idleSince = now
		if t.dialed && !t.ended() {
			e.closeTunnel(now, t, cause.relayed(), true) // we called for this one session
		}
	}
}

// relayed is the cause of a tunnel that ends with its session: the codes of a CDN mean other things in a StopCCN.
func (c Cause) relayed() Cause {
	if c.Reason != ReasonPeer {
		c.Result, c.Error = 0, 0
	}
	return c
}

func (t *tunnel) dropSetup(c *session) {
	if i := slices.Index(t.setups, c); i >= 0 {
		t.setups = slices.Delete(t.setups, i, i+1)
	}
}

// setupAt is when the oldest call that is still being set up has taken too long.
func (t *tunnel) setupAt() time.Time {
	if len(t.setups) == 0 {
		return time.Time{}
	}
	return t.setups[0].info.Created.Add(setupTime)
}

func (e *Engine) tickSetups(now time.Time, t *tunnel) {
	for at := t.setupAt(); !at.IsZero() && !at.After(now); at = t.setupAt() {
		e.endSession(now, t.setups[0], Cause{Reason: ReasonSetupTimeout}, true)
	}
}
