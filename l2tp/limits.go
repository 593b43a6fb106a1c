package l2tp

import (
	"net/netip"
	"time"
)

const (
	// answerRate and answerBurst ration what we send to those we have no tunnel with, per second.
	answerRate, answerBurst = 20, 50
	// warnEvery is how often one address gets a line in the log for being refused; warnMax bounds the memory of it.
	warnEvery = time.Minute
	warnMax   = 256
)

// bucket is a token bucket; its zero time means full.
type bucket struct {
	rate, size float64
	level      float64
	at         time.Time
}

func (b *bucket) take(now time.Time) bool {
	if b.at.IsZero() {
		b.level = b.size
	} else if d := now.Sub(b.at); d > 0 {
		b.level = min(b.size, b.level+d.Seconds()*b.rate)
	}
	b.at = now
	if b.level < 1 {
		return false
	}
	b.level--
	return true
}

// warnOnce says whether it is time for another line about an address.
func (e *Engine) warnOnce(now time.Time, a netip.Addr) bool {
	if last, ok := e.warned[a]; ok && now.Sub(last) < warnEvery {
		return false
	}
	if len(e.warned) >= warnMax {
		for k, last := range e.warned {
			if now.Sub(last) >= warnEvery {
				delete(e.warned, k)
			}
		}
		if len(e.warned) >= warnMax {
			return false // a flood: the counter tells
		}
	}
	e.warned[a] = now
	return true
}

func (e *Engine) allowed(a netip.Addr) bool {
	if len(e.cfg.Allowed) == 0 {
		return true
	}
	for _, p := range e.cfg.Allowed {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// live is how many tunnels count against MaxTunnels: all but those that only linger.
func (e *Engine) live() int { return len(e.tunnels) - e.closed.Len() }

// halfOpenMax bounds tunnels whose peer has not proved that it can hear us.
func (e *Engine) halfOpenMax() int { return min(max(e.cfg.MaxTunnels/4, 8), e.cfg.MaxTunnels, 512) }

// makeRoom evicts the oldest half-open tunnel if a new one would not fit, and says whether it now does.
func (e *Engine) makeRoom(now time.Time) bool {
	full := e.live() >= e.cfg.MaxTunnels
	if !full && e.halfOpen.Len() < e.halfOpenMax() {
		return true
	}
	oldest := e.halfOpen.Front()
	if oldest == nil {
		return false
	}
	t := oldest.Value.(*tunnel)
	e.drops[DropLimit]++
	e.closeTunnel(now, t, Cause{Reason: ReasonResources}, false)
	e.remove(t)
	e.schedule(t)
	return true
}
