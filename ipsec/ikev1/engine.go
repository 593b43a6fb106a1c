package ikev1

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"sort"
	"time"

	"culvert/ipsec"
	"culvert/ipsec/isakmp"
)

// Env is what an Engine needs of the world. Backend, Send and Rand must be there; the rest may be nil.
type Env struct {
	Backend ipsec.Backend
	// Send transmits one message; msg is valid only during the call. The socket adds the non-ESP marker.
	Send func(p ipsec.Path, msg []byte)
	// Keepalive sends the single octet of RFC 3948 section 2.3, while we are behind a NAT ourselves.
	Keepalive func(p ipsec.Path)
	Rand      io.Reader
	// Offload runs work somewhere else and then done on the engine's goroutine, or both at once before it returns.
	// It returns false when its queue is full; the message is dropped then, and the peer will send it again. nil runs inline.
	Offload func(work func() (done func(now time.Time))) bool
	// Workers is how many pieces of work Offload does at a time. More than that wait here, in order; 0 leaves it to Offload.
	Workers int
	// Failed reports that somebody at an address had the wrong key, once for each exchange; Barred says who is not
	// answered for it.
	Failed func(now time.Time, remote netip.Addr)
	Barred func(now time.Time, remote netip.Addr) bool
	Log    *slog.Logger
	// PeerUp reports the first usable child SA of a mark, PeerDown that the last one is gone. Both may call the engine.
	// A mark that Dial has given ends with exactly one PeerDown, whether it was up or not.
	PeerUp   func(ClientInfo)
	PeerDown func(m ipsec.Mark, reason string)
	// DialFailed tells, just before PeerDown, why a dialed server could not be reached or agreed with.
	DialFailed func(m ipsec.Mark, err *DialError)
}

// Engine is an IKEv1 daemon without its sockets. It is not safe for concurrent use.
type Engine struct {
	cfg Config
	env Env
	log *slog.Logger

	routes   []route // every peer's every prefix, the most specific first
	sas      map[cookies]*phase1
	firsts   map[firstKey]*phase1      // responder exchanges by where their first message came from
	ours     map[isakmp.Cookie]*phase1 // those that we began, by our cookie
	halfOpen [3]halfOpenList           // pens
	clients  map[ipsec.Mark]*client
	byKey    map[clientKey]*client
	children map[ipsec.SPI]*child // by inbound SPI, which we choose

	pieces, pieces1 *reassembly // messages in pieces: of known exchanges, and first ones
	templates       templates   // first messages that are answered without state under load
	asked           asked       // and those that are not answered at all, the first time
	answers         uint64      // so many were
	admission       *admission  // Diffie-Hellman, in order
	exchanges       budgets     // of Diffie-Hellman for each source
	loud            budgets     // of answers that are longer than their question

	timers   timers
	lastMark uint32 // rotates through the mask, so that a freed mark rests as long as possible
	drops    [numDrops]uint64
	passes   budgets      // passes over the users' keys
	lately   recent       // whose keys were right
	decoy    ipsec.Secret // stands in for the key of users that do not exist
	notifies bucket       // refusals to peers that have not authenticated
	warnings bucket       // log lines about such peers
	calls    []func()
	calling  bool
	closed   bool
	at       time.Time // of the call that is being served
}

type cookies struct {
	initiator, responder isakmp.Cookie
}

type firstKey struct {
	remote    netip.AddrPort
	initiator isakmp.Cookie
}

// route leads from an address to the peer that is configured for it.
type route struct {
	prefix netip.Prefix
	peer   *Peer
}

// New makes an Engine. It keeps cfg's slices: the caller must not change them.
func New(cfg Config, env Env) *Engine {
	e := &Engine{
		env:      env,
		log:      env.Log,
		sas:      make(map[cookies]*phase1),
		firsts:   make(map[firstKey]*phase1),
		ours:     make(map[isakmp.Cookie]*phase1),
		clients:  make(map[ipsec.Mark]*client),
		byKey:    make(map[clientKey]*client),
		children: make(map[ipsec.SPI]*child),
		notifies: bucket{burst: 20, rate: 10},
		warnings: bucket{burst: 20, rate: 1},
		passes:   budgets{burst: passBurst, rate: passRate},

		exchanges: budgets{burst: exchangeBurst, rate: exchangeRate},
		loud:      budgets{burst: loudBurst, rate: loudRate},
	}
	e.admission = newAdmission(e)
	e.decoy, _ = e.random(32) // without random numbers there is no exchange at all
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	for i := range e.halfOpen {
		e.halfOpen[i].perAddr = make(map[netip.Prefix]int)
	}
	e.pieces = newReassembly(e, maxReassembly, maxMessage, 0)
	e.pieces1 = newReassembly(e, maxReassembly1, maxFirst, maxReassembly1A)
	e.configure(cfg)
	return e
}

func (e *Engine) configure(cfg Config) {
	if cfg.HalfOpen <= 0 {
		cfg.HalfOpen = DefaultHalfOpen
	}
	if cfg.MarkMask == 0 {
		cfg.MarkMask = DefaultMarkMask
	}
	if len(cfg.Ports) == 0 {
		cfg.Ports = []uint16{defaultPort}
	}
	if cfg.Fragment == 0 {
		cfg.Fragment = DefaultFragment
	}
	cfg.Fragment = max(cfg.Fragment, minFragment)
	e.cfg = cfg
	e.templates.forget(e)
	e.routes = nil
	for i := range cfg.Peers {
		for _, prefix := range cfg.Peers[i].Remote {
			e.routes = append(e.routes, route{prefix.Masked(), &cfg.Peers[i]})
		}
	}
	sort.SliceStable(e.routes, func(i, j int) bool {
		a, b := e.routes[i], e.routes[j]
		return b.prefix.Bits() < a.prefix.Bits()
	})
}

const defaultPort = 1701 // RFC 2661 section 8.1

// peerFor finds the peer whose most specific prefix covers an address. A peer that is configured for aggressive mode is
// preferred for it, and the only kind that gets it.
func (e *Engine) peerFor(a netip.Addr, aggressive bool) *Peer {
	var fallback *Peer
	for _, r := range e.routes {
		if !r.prefix.Contains(a) {
			continue
		}
		if aggressive == (r.peer.Exchange == Aggressive) {
			return r.peer
		}
		if fallback == nil && !aggressive {
			fallback = r.peer
		}
	}
	return fallback
}

// Receive takes one message, without the non-ESP marker. msg is not kept.
func (e *Engine) Receive(now time.Time, p ipsec.Path, msg []byte) {
	p = unmap(p)
	if e.closed || !p.Valid() {
		return
	}
	e.at = now
	e.receive(now, p, msg)
	e.flush()
}

func (e *Engine) receive(now time.Time, p ipsec.Path, msg []byte) {
	h, err := isakmp.ParseHeader(msg)
	if err != nil {
		e.drop(DropHeader, p, "problem", err)
		return
	}
	msg = msg[:h.Length]
	if len(msg) > maxMessage {
		e.drop(DropTooLong, p, "octets", len(msg))
		return
	}
	if h.Initiator.IsZero() {
		e.drop(DropHeader, p, "problem", "zero initiator cookie")
		return
	}
	m := message{Header: h, path: p, raw: msg}
	if h.Next == isakmp.PayloadFragment {
		e.fragment(now, &m)
		return
	}
	if mine := e.ours[h.Initiator]; mine != nil && (h.Responder.IsZero() || mine.id.responder.IsZero()) {
		mine.rx++
		mine.answered(now, &m)
		return
	}
	if h.Responder.IsZero() {
		switch h.Exchange {
		case isakmp.Main, isakmp.Aggressive:
			e.first(now, &m)
		case isakmp.Informational:
			e.drop(DropUnauth, p)
		default:
			e.drop(DropExchange, p, "exchange", h.Exchange)
		}
		return
	}
	sa := e.sas[cookies{h.Initiator, h.Responder}]
	if sa == nil {
		sa = e.recall(now, &m)
	}
	if sa == nil {
		e.drop(DropUnknownCookie, p, "exchange", h.Exchange) // silence: an answer would serve reflection only
		return
	}
	sa.rx++
	switch h.Exchange {
	case isakmp.Main, isakmp.Aggressive:
		sa.receivePhase1(now, &m)
	case isakmp.Quick:
		sa.receiveQuick(now, &m)
	case isakmp.Informational:
		sa.receiveInformational(now, &m)
	default:
		e.drop(DropExchange, p, "exchange", h.Exchange)
	}
}

// message is one datagram with its header read.
type message struct {
	isakmp.Header
	path ipsec.Path
	raw  []byte // the whole message, header included; belongs to the caller of Receive
}

func (m *message) encrypted() bool { return m.Flags&isakmp.Encrypted != 0 }
func (m *message) body() []byte    { return m.raw[isakmp.HeaderLen:] }

// unmap makes 4-in-6 addresses plain, for keys and NAT-D hashes are taken over them.
func unmap(p ipsec.Path) ipsec.Path {
	return ipsec.Path{
		Local:  netip.AddrPortFrom(p.Local.Addr().Unmap(), p.Local.Port()),
		Remote: netip.AddrPortFrom(p.Remote.Addr().Unmap(), p.Remote.Port()),
	}
}

// Deadline is when Tick wants to be called next; zero for never.
func (e *Engine) Deadline() time.Time { return e.timers.next() }

// Tick does what is due.
func (e *Engine) Tick(now time.Time) {
	e.at = now
	e.timers.run(now)
	e.flush()
}

// Event takes what the Backend reports.
func (e *Engine) Event(now time.Time, ev ipsec.Event) {
	e.at = now
	if c := e.childOf(ev.ID); c != nil {
		switch ev.Kind {
		case ipsec.EventSoftExpire:
			c.softExpired(now)
		case ipsec.EventHardExpire:
			e.log.Info("SA expired", "mark", c.client.mark, "spi-in", c.in, "spi-out", c.out)
			c.remove(now, "its SA expired")
		case ipsec.EventMapping:
			if ev.Remote.IsValid() && c.choice.udp() {
				c.client.move(now, netip.AddrPortFrom(ev.Remote.Addr().Unmap(), ev.Remote.Port()))
			}
		}
	}
	e.flush()
}

func (e *Engine) childOf(id ipsec.SAID) *child {
	if id.Dir == ipsec.In {
		if c := e.children[id.SPI]; c != nil && c.client.mark == id.Mark {
			return c
		}
		return nil
	}
	if cl := e.clients[id.Mark]; cl != nil {
		for _, c := range cl.children {
			if c.out == id.SPI {
				return c
			}
		}
	}
	return nil
}

// ClosePeer deletes the child SAs and ISAKMP SAs of a client and tells it so, for instance when its last L2TP tunnel
// has ended; it hangs up where Dial has called. A mark that is not in use is ignored.
func (e *Engine) ClosePeer(now time.Time, m ipsec.Mark, reason string) {
	e.at = now
	if c := e.clients[m]; c != nil {
		c.goodbye(now, reason)
	}
	e.flush()
}

// Close says goodbye to every client, and forgets everything. Messages are sent before it returns; the engine ignores
// whatever comes afterwards.
func (e *Engine) Close(now time.Time) {
	e.at = now
	for _, c := range e.clients {
		c.goodbye(now, "shutting down")
	}
	for _, sa := range e.sas {
		sa.remove()
	}
	e.closed = true
	e.flush()
}

// Reconfigure replaces the configuration. Clients stay as they are, under the new settings of their peer, unless their
// peer is gone, their secret is another or their certificate not trusted any more; then they are told goodbye. Half-open
// exchanges are dropped: clients try again.
// What Dial has begun goes on as it was begun.
func (e *Engine) Reconfigure(now time.Time, cfg Config) {
	e.at = now
	e.configure(cfg)
	for _, c := range e.clients {
		if c.dial != nil { // it brought its peer along
			continue
		}
		p := e.peerNamed(c.peer.Name)
		if why := c.disowned(now, p); why != "" {
			c.goodbye(now, why)
			continue
		}
		c.peer = p
		for _, sa := range c.phase1s {
			sa.peer = p
			sa.armDPD(now)
		}
	}
	for _, sa := range e.sas {
		if sa.state != stateEstablished && sa.dial == nil {
			sa.remove()
		}
	}
	e.flush()
}

func (e *Engine) peerNamed(name string) *Peer {
	for i := range e.cfg.Peers {
		if e.cfg.Peers[i].Name == name {
			return &e.cfg.Peers[i]
		}
	}
	return nil
}

// failed reports a wrong key.
func (e *Engine) failed(now time.Time, a netip.Addr) {
	if e.env.Failed != nil {
		e.later(func() { e.env.Failed(now, a) })
	}
}

// barred says whether an address is not answered.
func (e *Engine) barred(a netip.Addr) bool { return e.env.Barred != nil && e.env.Barred(e.at, a) }

// later queues a call out of the engine until its state is consistent again.
func (e *Engine) later(f func()) { e.calls = append(e.calls, f) }

// flush makes the queued calls; they may come back into the engine and queue more.
func (e *Engine) flush() {
	if e.calling {
		return
	}
	e.calling = true
	for len(e.calls) > 0 {
		f := e.calls[0]
		e.calls = e.calls[1:]
		f()
	}
	e.calls = nil
	e.calling = false
}

// drop counts a message that is ignored. It logs at debug level only: anybody can cause it.
func (e *Engine) drop(why Drop, p ipsec.Path, args ...any) {
	e.drops[why]++
	e.log.Debug("message ignored", append([]any{"reason", why, "remote", p.Remote}, args...)...)
}

// warn logs what an operator should see about a peer that is not authenticated, at a bounded rate.
func (e *Engine) warn(now time.Time, msg string, args ...any) {
	if !e.warnings.take(now) {
		return
	}
	if n := e.warnings.refused; n > 0 {
		args = append(args, "suppressed", n)
		e.warnings.refused = 0
	}
	e.log.Warn(msg, args...)
}

// random returns n octets, or an error that ends what needed them.
func (e *Engine) random(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(e.env.Rand, b)
	return b, err
}

var errRandom = errors.New("ikev1: random source failed")

// cookie draws a cookie that is not zero.
func (e *Engine) cookie() (c isakmp.Cookie, err error) {
	for range 8 {
		b, err := e.random(len(c))
		if err != nil {
			return c, err
		}
		if copy(c[:], b); !c.IsZero() {
			return c, nil
		}
	}
	return c, errRandom
}
