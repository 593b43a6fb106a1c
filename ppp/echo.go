package ppp

import (
	"encoding/binary"
	"time"
)

const (
	echoInterval = time.Second
	echoTries    = 5
)

// echo is the keepalive, as RouterOS does it: after Config.Keepalive without a word from the peer an Echo-Request every
// second, and the fifth without an answer ends the link.
type echo struct {
	lastHeard time.Time
	// What the two below were before the frame being handled.
	heardBefore   time.Time
	pendingBefore int
	pending       int       // requests since then
	next          time.Time // when the next is due, while pending
	id            uint8
	sent          uint64
	lost          uint64
}

func (e *echo) heard(now time.Time) {
	e.heardBefore, e.pendingBefore = e.lastHeard, e.pending
	e.lastHeard = now
	e.pending = 0
}

func (l *Link) echoDeadline() time.Time {
	if l.cfg.Keepalive <= 0 || l.lcp.state != Opened || l.phase == PhaseTerminate {
		return time.Time{}
	}
	if l.echo.pending > 0 {
		return l.echo.next
	}
	due := l.echo.lastHeard.Add(l.cfg.Keepalive)
	return l.meter.sooner(due, l.cfg.Keepalive)
}

func (l *Link) echoTick(now time.Time) {
	due := l.echoDeadline()
	if due.IsZero() || now.Before(due) {
		return
	}
	l.meter.poll(now, l.env.Traffic)
	if rx := l.meter.rxAt; rx.After(l.echo.lastHeard) {
		l.echo.heard(rx)
	}
	if l.echo.pending == 0 && now.Before(l.echo.lastHeard.Add(l.cfg.Keepalive)) {
		return
	}
	e := &l.echo
	if e.pending >= echoTries {
		e.lost++
		e.pending = 0
		l.log.Debug("peer silent", "since", now.Sub(e.lastHeard))
		l.terminate(Cause{CauseKeepalive, "five echo requests without an answer"})
		return
	}
	if e.pending > 0 {
		e.lost++
	}
	e.pending++
	if e.pending == 2 && l.env.Silent != nil {
		l.env.Silent()
	}
	e.next = now.Add(echoInterval)
	l.echoRequest()
}

func (l *Link) echoRequest() {
	l.echo.sent++
	l.echo.id++
	l.send(ProtoLCP, codeEchoReq, l.echo.id, binary.BigEndian.AppendUint32(nil, l.lcpOpts.magic.ours))
}

// echoReceived checks an Echo-Request, Echo-Reply or Discard-Request; false: it is malformed, or our own.
func (l *Link) echoReceived(p packet) bool {
	if len(p.data) < 4 {
		l.drop("malformed packet", ProtoLCP)
		return false
	}
	if n := binary.BigEndian.Uint32(p.data); n != 0 && n == l.lcpOpts.magic.ours {
		l.echo.lastHeard, l.echo.pending = l.echo.heardBefore, l.echo.pendingBefore // the line is looped, or somebody mirrors us: no sign of life
		l.drop("our own magic number", ProtoLCP)
		return false
	}
	return true
}

// echoReply sends back what came, under our magic number, and not more than the peer can take.
func (l *Link) echoReply(p packet) {
	data := append([]byte(nil), p.data[:min(len(p.data), l.peerMRU()-headerLen)]...)
	binary.BigEndian.PutUint32(data, l.lcpOpts.magic.ours)
	l.send(ProtoLCP, codeEchoRep, p.id, data)
}

// meter remembers when the data path last carried something.
type meter struct {
	at         time.Time // of the last reading
	rx, tx     uint64
	rxAt, txAt time.Time // of the last packet, as far as is known
	blind      bool      // the data path has counters only
}

func (m *meter) start(now time.Time) { m.at, m.rxAt, m.txAt = now, now, now }

func (m *meter) poll(now time.Time, read func() Traffic) {
	if read == nil {
		return
	}
	t := read()
	m.blind = t.RxIdle < 0 || t.TxIdle < 0
	m.rxAt = lastSeen(now, m.rxAt, t.RxIdle, t.Rx != m.rx)
	m.txAt = lastSeen(now, m.txAt, t.TxIdle, t.Tx != m.tx)
	m.rx, m.tx, m.at = t.Rx, t.Tx, now
}

// last is when a packet went by in either direction.
func (m *meter) last() time.Time {
	if m.txAt.After(m.rxAt) {
		return m.txAt
	}
	return m.rxAt
}

// sooner brings a deadline forward where the data path has counters only: a period is then looked at in quarters, or
// silence would be noticed up to a whole period late.
func (m *meter) sooner(due time.Time, period time.Duration) time.Time {
	if poll := m.at.Add(period / 4); m.blind && poll.Before(due) {
		return poll
	}
	return due
}

// idleUnit is what ages are rounded down to: the kernel counts whole seconds.
const idleUnit = time.Second

// lastSeen dates the last packet: by the age that is known, else by the counter having moved. The rounded age of one and
// the same packet dates it anew each time, later by the odd millisecond: that is no packet.
func lastSeen(now, before time.Time, idle time.Duration, moved bool) time.Time {
	if idle >= 0 {
		if t := now.Add(-idle); !t.Before(before.Add(idleUnit)) {
			return t
		}
		return before
	}
	if moved {
		return now
	}
	return before
}

// idleDeadline is when the user's idle-timeout is worth a look.
func (l *Link) idleDeadline() time.Time {
	if !l.announced || l.grant == nil || l.grant.IdleTimeout <= 0 || l.env.Traffic == nil || l.phase != PhaseNetwork {
		return time.Time{}
	}
	return l.meter.sooner(l.meter.last().Add(l.grant.IdleTimeout), l.grant.IdleTimeout)
}

func (l *Link) idleTick(now time.Time) {
	if due := l.idleDeadline(); due.IsZero() || now.Before(due) {
		return
	}
	l.meter.poll(now, l.env.Traffic)
	if !now.Before(l.meter.last().Add(l.grant.IdleTimeout)) {
		l.terminate(Cause{CauseIdleTimeout, ""})
	}
}
