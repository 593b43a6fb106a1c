package ppp

import "time"

const (
	lookAfter = 1500 * time.Millisecond // without a sign of life, while there are packets to answer
	lookWait  = time.Second             // for the answer to our question
)

// lookout watches a link that somebody can mend by Env.Silent. A peer that packets go to and none come from is asked for a
// sign of life at once, not only after Config.Keepalive: a NAT that has forgotten the way back is then a matter of seconds.
// It ends no link, which is the keepalive's business.
type lookout struct {
	next  time.Time
	asked time.Time // when our question left; zero: none is open
	calm  time.Time // Env.Silent is not called before
}

func (l *Link) lookoutDeadline() time.Time {
	if l.env.Silent == nil || l.env.Traffic == nil || l.cfg.Keepalive <= 0 || !l.announced || l.phase != PhaseNetwork || l.echo.pending > 0 {
		return time.Time{}
	}
	return l.lookout.next
}

func (l *Link) lookoutTick(now time.Time) {
	due := l.lookoutDeadline()
	if due.IsZero() || now.Before(due) {
		return
	}
	l.meter.poll(now, l.env.Traffic)
	w, sign := &l.lookout, l.echo.lastHeard
	if l.meter.rxAt.After(sign) {
		sign = l.meter.rxAt
	}
	if !sign.Before(w.asked) { // answered, however late we look
		w.asked = time.Time{}
	}
	w.next = now.Add(lookAfter)
	switch {
	case now.Sub(sign) < lookAfter:
		w.next = sign.Add(lookAfter)
	case !w.asked.IsZero():
		if !now.Before(w.calm) { // a peer that takes longer to answer is not mended all the time
			w.calm = now.Add(l.cfg.Keepalive)
			l.env.Silent()
		}
	case l.meter.txAt.After(sign) && now.Sub(l.meter.txAt) < lookAfter:
		w.asked, w.next = now, now.Add(lookWait)
		l.echoRequest()
	}
}
