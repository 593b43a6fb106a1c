package l2tp

import (
	"errors"
	"io"
	"time"
)

// Dial says what to ask for as a client (LAC): one tunnel with one session.
type Dial struct {
	Secret   Secret // tunnel authentication; empty: none offered, a challenge cannot be answered
	Calling  string // Calling Number AVP, left out when empty
	Called   string
	SubAddr  string
	TxSpeed  uint32 // bit/s; 0: 100 Mbit/s
	Sequence bool   // tell the LNS that data messages must be numbered
}

// Errors of Engine.Dial.
var (
	ErrClosing = errors.New("l2tp: shutting down")
	ErrTunnels = errors.New("l2tp: max tunnels reached")
	ErrPeer    = errors.New("l2tp: not a valid address and port to call")
)

const (
	defaultTxSpeed  = 100_000_000
	framingSync     = 1
	bearerNone      = 0
	firstCallSerial = 1
)

// Dial calls an LNS. p.Local may be unspecified; it becomes known with the first answer. What follows is TunnelUp and
// SessionUp, or TunnelDown alone. The tunnel goes when its session does.
func (e *Engine) Dial(now time.Time, p Peer, opt Dial) (TunnelID, error) {
	p.Local, p.Remote = unmap(p.Local), unmap(p.Remote)
	switch {
	case e.closing:
		return 0, ErrClosing
	case !p.Remote.IsValid() || p.Remote.Port() == 0 || p.Remote.Addr().IsUnspecified():
		return 0, ErrPeer
	case e.live() >= e.cfg.MaxTunnels:
		return 0, ErrTunnels
	}
	t, err := e.newTunnel(now, p)
	if err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(e.env.Rand, t.tie[:]); err != nil {
		delete(e.tunnels, t.local)
		return 0, err
	}
	t.dialed, t.dial = true, &opt
	t.secret = opt.Secret
	t.hide = false // the server's choice of HideAVPs is not the client's
	t.setState(now, tunnelWaitReply)
	e.dialing++
	e.index(t)
	m := &e.out
	m.Reset(SCCRQ)
	e.describeUs(t, m)
	m.SetBytes(AVPTieBreaker, t.tie[:])
	e.send(t, m)
	e.finish(now, t)
	return t.local, nil
}

func (e *Engine) onSCCRP(now time.Time, t *tunnel, m *Message) {
	e.dialing--
	e.unindex(t)
	t.remote = TunnelID(m.Uint(AVPAssignedTunnelID))
	t.learn(m)
	t.setState(now, tunnelWaitConnect) // as far as anybody outside can tell
	e.index(t)
	if m.Uint(AVPProtocolVersion)>>8 != protocolVersion>>8 {
		e.closeTunnel(now, t, Cause{Reason: ReasonVersion}, true)
		return
	}
	if m.Has(AVPChallenge) && t.secret == "" {
		e.env.Log.Warn("the server wants tunnel authentication and no tunnel-secret is set", "peer", t.peer)
		e.closeTunnel(now, t, Cause{Reason: ReasonAuthorization}, true)
		return
	}
	if !e.authentic(now, t, m) {
		return
	}
	r := &e.out
	r.Reset(SCCCN)
	if m.Has(AVPChallenge) {
		response := challengeResponse(SCCCN, t.secret, m.Bytes(AVPChallenge))
		r.SetBytes(AVPChallengeResponse, response[:])
	}
	e.send(t, r)
	e.establish(now, t)
	if t.state != tunnelEstablished {
		return
	}
	c, err := e.newSession(now, t)
	if err != nil {
		e.env.Log.Error("no random numbers", "error", err)
		e.closeTunnel(now, t, Cause{Reason: ReasonResources}, true)
		return
	}
	c.info.Dialed = true
	c.info.Calling, c.info.Called, c.info.SubAddress = t.dial.Calling, t.dial.Called, t.dial.SubAddr
	c.info.CallSerial = firstCallSerial
	c.setState(now, sessionWaitReply)
	r.Reset(ICRQ)
	r.SetUint(AVPAssignedSessionID, uint32(c.local))
	r.SetUint(AVPCallSerial, c.info.CallSerial)
	r.SetUint(AVPBearerType, bearerNone)
	for _, number := range [...]struct {
		t AVPType
		s string
	}{{AVPCallingNumber, t.dial.Calling}, {AVPCalledNumber, t.dial.Called}, {AVPSubAddress, t.dial.SubAddr}} {
		if number.s != "" {
			r.SetText(number.t, number.s)
		}
	}
	e.send(t, r)
}

func (e *Engine) onICRP(now time.Time, c *session, m *Message) {
	t := c.t
	c.remote = SessionID(m.Uint(AVPAssignedSessionID))
	c.spec.SendSeq = t.dial.Sequence || e.cfg.SequenceData
	if err := e.openPath(c); err != nil {
		e.env.Log.Error("call ended: the data path does not open", "peer", t.peer, "error", err)
		e.endSession(now, c, Cause{Reason: ReasonResources}, true)
		return
	}
	c.info.TxSpeed = t.dial.TxSpeed
	if c.info.TxSpeed == 0 {
		c.info.TxSpeed = defaultTxSpeed
	}
	c.info.Framing = framingSync
	r := &e.out
	r.Reset(ICCN)
	r.Session = c.remote
	r.SetUint(AVPTxSpeed, c.info.TxSpeed)
	r.SetUint(AVPFramingType, c.info.Framing)
	if t.dial.Sequence {
		r.SetBytes(AVPSequencingRequired, nil)
	}
	e.send(t, r)
	e.connect(now, c)
}
