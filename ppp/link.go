package ppp

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"culvert/ppp/aaa"
)

// Phase is where a link is in its life (RFC 1661 section 3.2).
type Phase uint8

const (
	PhaseDead Phase = iota
	PhaseEstablish
	PhaseAuthenticate
	PhaseNetwork
	PhaseTerminate
)

func (p Phase) String() string {
	return [...]string{"dead", "establish", "authenticate", "network", "terminate"}[p]
}

// Env is everything a Link needs of the world. All of it is called on the goroutine that called the Link; calling the Link
// back from inside is allowed, and takes effect when the outer call is done.
type Env struct {
	Send func(frame []byte) // one PPP frame beginning with the 2-octet protocol; valid only during the call
	Auth aaa.Authenticator  // may be nil when Config.Auth is empty
	Rand io.Reader          // nil: crypto/rand
	Log  *slog.Logger       // nil: none

	// OpenUnit is called once, after authentication: make the network interface. From this call on the Grant is the
	// environment's: it releases it when the interface is gone, after Down. (A Grant that never got here the Link
	// releases itself.) done may be called at once or later; nil OpenUnit: nothing to make.
	OpenUnit func(g *aaa.Grant, done func(now time.Time, err error))
	// IPUp is called whenever IPCP opens: addresses, MTU, routes. done when traffic can flow. IPDown follows each IPUp,
	// when IPCP closes or the link ends.
	IPUp   func(n Network, done func(now time.Time, err error))
	IPDown func()
	// IPv6Up and IPv6Down are the same for IPV6CP; either may be nil.
	IPv6Up   func(local, remote InterfaceID)
	IPv6Down func()

	Up   func(Info)  // the link is fully up; at most once
	Down func(Cause) // the end, exactly once; nothing is sent after it

	// Traffic reads the data path's counters, for idle-timeout and so that a busy link is not asked whether it lives.
	// It may be nil.
	Traffic func() Traffic
	// Silent is called when the peer has not answered an echo request: whoever carries the link has until the fifth of the
	// keepalive's to mend what may be broken below. With Traffic a peer is also asked when packets go to it and none come.
	// It may be nil.
	Silent func()
}

// Caller is who is at the other end, as the layer below knows it.
type Caller struct {
	CallerID string // address or calling number
	Service  string // "l2tp"
	NASPort  uint32
}

// Network is what IPCP agreed on.
type Network struct {
	Local, Remote netip.Addr
	MTU           int // for the interface: Config.MTU, or the peer's MRU where that is less
	MRU           int // what the peer may send
	DNS           []netip.Addr
}

// Info describes a link that came up.
type Info struct {
	User    string // as granted; what the peer sent may hold any octets, so escape it before printing
	Method  aaa.Method
	Grant   *aaa.Grant
	Network Network
	Login   time.Duration // from Start until now
}

// Traffic is what went over the link besides control frames.
type Traffic struct {
	Rx, Tx uint64 // octets or packets received from the peer and sent to it; only a change matters
	// RxIdle and TxIdle are how long ago the last packet went by, in each direction. Negative: not known, then the
	// counters are compared now and then.
	RxIdle, TxIdle time.Duration
}

// Link is one PPP link. Make it with New.
type Link struct {
	cfg    Config
	caller Caller
	env    Env
	log    *slog.Logger

	now   time.Time
	depth int
	todo  []func()

	phase   Phase
	dead    bool
	cause   Cause // why it is ending; the first reason stays
	peerBye bool
	started time.Time

	lcp     *control
	lcpOpts *lcp

	server  authServer
	client  authClient
	authRun uint32
	authBy  time.Time // zero, or when authentication must be over
	user    string    // as last tried, or as granted

	grant          *aaa.Grant
	handedOver     bool // grant went to OpenUnit
	unitReady      bool
	heardAfterAuth bool // the peer knows that it is in

	ipcp      *control
	ipcpOpts  *ipcp
	ipv6cp    *control // nil: off
	ipv6Opts  *interfaceIDOption
	early     map[Protocol][]byte // the latest Configure-Request of each NCP that came before its time
	ipRun     uint32
	ipUp      bool
	ipTold    bool // IPUp was called, and IPDown not since
	ipv6Up    bool
	announced bool
	network   Network
	upAt      time.Time
	session   time.Time // when the user's time is up

	echo     echo
	meter    meter
	lookout  lookout
	refusals bucket
	out      []byte // the frame being sent
	drops    uint64
}

// New makes a link that waits for Start.
func New(cfg Config, caller Caller, env Env) *Link {
	l := &Link{cfg: cfg.withDefaults(), caller: caller, env: env, log: env.Log}
	if l.env.Rand == nil {
		l.env.Rand = rand.Reader
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.server.l, l.client.l = l, l
	l.lcpOpts = newLCP(l)
	l.lcp = newControl(l, ProtoLCP, l.lcpOpts.set())
	l.lcp.up, l.lcp.down, l.lcp.finished, l.lcp.extra = l.lcpUp, l.lcpDown, l.lcpFinished, l.lcpExtra

	l.ipcpOpts = newIPCP(l)
	l.ipcp = newControl(l, ProtoIPCP, l.ipcpOpts.set())
	l.ipcp.up, l.ipcp.down, l.ipcp.finished = l.ipcpUp, l.ipcpDown, l.ncpFinished
	if l.cfg.IPv6 {
		l.ipv6Opts = &interfaceIDOption{link: l}
		l.ipv6cp = newControl(l, ProtoIPV6CP, optionSet{l.ipv6Opts})
		l.ipv6cp.up, l.ipv6cp.down, l.ipv6cp.finished = l.ipv6cpUp, l.ipv6cpDown, l.ncpFinished
	}
	return l
}

// enter and leave bracket every entry point: what handlers want done outside their own automaton, and what callbacks
// ask of the Link, waits in todo until the outermost call is through.
func (l *Link) enter(now time.Time) {
	if l.depth == 0 && now.After(l.now) {
		l.now = now
	}
	l.depth++
}

func (l *Link) leave() {
	if l.depth == 1 {
		for len(l.todo) > 0 {
			f := l.todo[0]
			l.todo[0] = nil
			l.todo = l.todo[1:]
			f()
		}
		l.todo = nil
	}
	l.depth--
}

func (l *Link) later(f func()) { l.todo = append(l.todo, f) }

// Start says that the layer below is up: negotiation begins.
func (l *Link) Start(now time.Time) {
	l.enter(now)
	defer l.leave()
	if l.dead || !l.started.IsZero() {
		return
	}
	l.started = l.now
	l.phase = PhaseEstablish
	l.lcp.handle(l.now, evOpen)
	l.lcp.handle(l.now, evUp)
}

// Close says goodbye to the peer (RFC 1661 section 3.7) and ends the link, at the latest after Config.MaxTerminate restart
// periods. Calling it again changes nothing.
func (l *Link) Close(now time.Time, cause Cause) {
	l.enter(now)
	defer l.leave()
	if !l.dead {
		l.terminate(cause)
	}
}

// Lost ends the link at once: the layer below is gone, and there is nobody to say goodbye to.
func (l *Link) Lost(now time.Time, cause Cause) {
	l.enter(now)
	defer l.leave()
	if l.dead {
		return
	}
	if l.cause.Code == CauseNone {
		l.cause = cause
	}
	l.later(l.finish)
}

// terminate starts the end of the link. It may be called from any handler.
func (l *Link) terminate(cause Cause) {
	if l.dead || l.cause.Code != CauseNone {
		return
	}
	if cause.Code == CauseNone {
		cause.Code = CauseAdmin
	}
	l.cause = cause
	l.later(func() {
		if l.dead {
			return
		}
		l.phase = PhaseTerminate
		if l.lcp.state < Closed {
			l.finish() // never started
			return
		}
		l.lcp.handle(l.now, evClose)
		if l.lcp.state == Closed || l.lcp.state == Stopped {
			l.finish()
		}
	})
}

// finish is the end.
func (l *Link) finish() {
	if l.dead {
		return
	}
	l.networksDown()
	l.dead = true
	l.phase = PhaseDead
	l.lcp.state = Initial
	l.lcp.timer = time.Time{}
	l.server.stop()
	l.client.stop()
	l.authRun++
	l.early = nil
	if l.cause.Code == CauseNone {
		l.cause = Cause{CauseNoCarrier, ""}
	}
	if !l.handedOver {
		release(l.grant)
		l.grant = nil
	}
	l.log.Info("link down", "user", printable(l.user), "duration", l.now.Sub(l.started).Round(time.Millisecond), "reason", l.cause.String())
	if l.env.Down != nil {
		cause := l.cause
		l.later(func() { l.env.Down(cause) })
	}
}

// peerTerminates notes the goodbye of the peer; the automaton does the rest.
func (l *Link) peerTerminates(text []byte) {
	l.peerBye = true
	if l.lcp.state != Opened || l.cause.Code != CauseNone {
		return
	}
	l.cause = Cause{CausePeerTerminated, l.goodbye(text)}
	l.phase = PhaseTerminate
}

// goodbye is the text of a Terminate-Request where it is one; Windows sends its magic number and a code instead.
func (l *Link) goodbye(b []byte) string {
	for _, c := range b {
		if c < 0x20 || c > 0x7e {
			return ""
		}
	}
	return shorten(b)
}

// Receive takes one control frame; it begins with the protocol field, or with address and control in front of that. The
// frame is not kept.
func (l *Link) Receive(now time.Time, frame []byte) {
	if l.depth > 0 {
		frame = bytes.Clone(frame)
		l.later(func() { l.receive(frame) })
		return
	}
	l.enter(now)
	defer l.leave()
	l.receive(frame)
}

func (l *Link) receive(frame []byte) {
	if l.dead || l.phase == PhaseDead {
		return
	}
	proto, b, err := splitFrame(frame)
	if err != nil {
		l.drop("truncated frame", 0)
		return
	}
	if len(b) > defaultMRU {
		l.drop("control packet longer than any MRU", proto) // its refusal would not fit into a frame
		return
	}
	l.echo.heard(l.now)
	if proto == ProtoLCP {
		l.lcp.receive(b)
		return
	}
	// RFC 1661 sections 3.4 and 3.5: before a phase is reached its packets are dropped without a word.
	if l.lcp.state != Opened || l.phase == PhaseTerminate {
		return
	}
	l.lcp.repeats = 0 // the peer's LCP is open: copies of its request are the network's doing
	switch proto {
	case ProtoPAP, ProtoCHAP:
		if proto == l.server.proto() || proto == l.client.proto() {
			p, err := parsePacket(b)
			if err != nil {
				l.drop("malformed packet", proto)
			} else if proto == ProtoPAP {
				l.receivePAP(p)
			} else {
				l.receiveCHAP(p)
			}
		}
		return
	case ProtoLQR:
		return
	}
	if l.phase != PhaseNetwork {
		return
	}
	l.heardAfterAuth = true
	switch c := l.ncp(proto); {
	case c != nil && l.unitReady:
		c.receive(b)
	case c != nil:
		// The interface is still being made. A peer that asks now would ask again only after its restart timer.
		if len(b) > headerLen && len(b) <= maxEarly && b[0] == codeConfReq {
			if l.early == nil {
				l.early = make(map[Protocol][]byte, 2)
			}
			l.early[proto] = append(l.early[proto][:0], b...)
		}
	case proto == ProtoIP || proto == ProtoIPv6:
		// The data path lets these past only before its network is up.
	default:
		l.protocolReject(proto, b)
	}
}

// maxEarly bounds a packet that is kept.
const maxEarly = defaultMRU

func (l *Link) ncp(p Protocol) *control {
	switch p {
	case ProtoIPCP:
		return l.ipcp
	case ProtoIPV6CP:
		return l.ipv6cp
	}
	return nil
}

// send builds and sends one packet. Everything sent goes through here.
func (l *Link) send(p Protocol, code, id uint8, data []byte) {
	if l.dead {
		return
	}
	l.out = appendPacket(l.out[:0], p, code, id, data)
	l.env.Send(l.out)
}

// peerMRU is how much the peer can take in.
func (l *Link) peerMRU() int {
	if l.lcp.state != Opened {
		return defaultMRU
	}
	return l.lcpOpts.mru.peer
}

func (l *Link) drop(why string, p Protocol) {
	l.drops++
	l.log.Debug("frame dropped", "cause", why, "protocol", p.String())
}

// protocolReject refuses a protocol (RFC 1661 section 5.7).
func (l *Link) protocolReject(p Protocol, b []byte) {
	if !l.refusals.take(l.now) {
		return
	}
	l.log.Debug("protocol refused", "protocol", p.String())
	l.lcp.id++
	data := binary.BigEndian.AppendUint16(nil, uint16(p))
	data = append(data, b[:min(len(b), l.peerMRU()-headerLen-2)]...)
	l.send(ProtoLCP, codeProtRej, l.lcp.id, data)
}

// protocolRejected is the peer's refusal of one of ours.
func (l *Link) protocolRejected(p Protocol) {
	switch {
	case p == ProtoLCP:
		l.lcp.handle(l.now, evRXJm)
	case l.ncp(p) != nil:
		l.ncp(p).handle(l.now, evRXJm)
	case p != 0 && (p == l.server.proto() || p == l.client.proto()) && l.phase == PhaseAuthenticate:
		l.terminate(Cause{CauseNoCommonAuth, "the peer agreed to " + p.String() + " and then refused it"})
	}
}

// bucket limits how much we say about what we do not understand: a burst, and then one a second.
type bucket struct {
	used int
	last time.Time
}

const bucketBurst = 8

func (b *bucket) take(now time.Time) bool {
	if n := int64(now.Sub(b.last) / time.Second); n > 0 || b.last.IsZero() {
		b.used = int(max(0, int64(b.used)-n))
		b.last = now
	}
	if b.used >= bucketBurst {
		return false
	}
	b.used++
	return true
}

// random fills b from Env.Rand, without which no link is safe.
func (l *Link) random(b []byte) {
	if _, err := io.ReadFull(l.env.Rand, b); err != nil {
		l.log.Error("no random numbers", "error", err)
		l.terminate(Cause{CauseInternal, "no random numbers"})
	}
}

// Deadline is when Tick wants to be called; zero: never.
func (l *Link) Deadline() time.Time {
	if l.dead || l.started.IsZero() {
		return time.Time{}
	}
	var first time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	sooner(l.lcp.deadline())
	sooner(l.ipcp.deadline())
	if l.ipv6cp != nil {
		sooner(l.ipv6cp.deadline())
	}
	sooner(l.server.deadline())
	sooner(l.client.deadline())
	sooner(l.authBy)
	sooner(l.session)
	sooner(l.echoDeadline())
	sooner(l.lookoutDeadline())
	sooner(l.idleDeadline())
	return first
}

// Tick does what has become due.
func (l *Link) Tick(now time.Time) {
	l.enter(now)
	defer l.leave()
	if l.dead || l.started.IsZero() {
		return
	}
	now = l.now
	l.lcp.tick(now)
	l.ipcp.tick(now)
	if l.ipv6cp != nil {
		l.ipv6cp.tick(now)
	}
	l.server.tick(now)
	l.client.tick(now)
	if !l.authBy.IsZero() && !now.Before(l.authBy) {
		l.authBy = time.Time{}
		l.terminate(Cause{CauseAuthTimeout, ""})
	}
	if !l.session.IsZero() && !now.Before(l.session) {
		l.session = time.Time{}
		l.terminate(Cause{CauseSessionTimeout, ""})
	}
	l.echoTick(now)
	l.lookoutTick(now)
	l.idleTick(now)
}
