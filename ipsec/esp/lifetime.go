package esp

import (
	"time"

	"culvert/ipsec"
)

// ended says whether an SA may carry nothing any more. Bytes and packets are judged by what has passed already, as the
// kernel does. The caller holds the SA's lock.
func (b *Backend) ended(s *sa, now time.Time) bool {
	if !s.expired {
		u, h := &s.usage, &s.hard
		if h.Bytes != 0 && u.Bytes >= h.Bytes || h.Packets != 0 && u.Packets >= h.Packets || h.Time > 0 && now.Sub(s.added) >= h.Time {
			b.expire(s)
		}
	}
	return s.expired
}

// expire ends an SA and reports it. The caller holds its lock.
func (b *Backend) expire(s *sa) {
	s.expired = true
	if !s.hardTold {
		s.hardTold = b.emit(ipsec.Event{Kind: ipsec.EventHardExpire, ID: s.id})
	}
}

// watch reports the end of a soft lifetime, once. The caller holds the SA's lock.
func (b *Backend) watch(s *sa, now time.Time) {
	if s.softTold || s.expired {
		return
	}
	u, l := &s.usage, &s.soft
	if l.Bytes != 0 && u.Bytes >= l.Bytes || l.Packets != 0 && u.Packets >= l.Packets || l.Time > 0 && now.Sub(s.added) >= l.Time {
		s.softTold = b.emit(ipsec.Event{Kind: ipsec.EventSoftExpire, ID: s.id})
	}
}

// emit queues an event without waiting. What does not fit is reported again by Tick.
func (b *Backend) emit(e ipsec.Event) bool {
	select {
	case b.events <- e:
		return true
	default:
		b.unsent.Store(true)
		return false
	}
}

// Deadline is when Tick is wanted: when the next lifetime ends, or at once and again if events wait for room.
func (b *Backend) Deadline() time.Time {
	if b.unsent.Load() {
		// What is due already has been looked at by the last Tick, and is among what waits.
		if retry := b.ticked.Add(eventRetry); b.due.IsZero() || !b.due.After(b.ticked) || retry.Before(b.due) {
			return retry
		}
	}
	return b.due
}

// Tick ends what has come to its time. Lifetimes end for SAs without traffic too.
func (b *Backend) Tick(now time.Time) {
	b.ticked = now
	if !b.unsent.Swap(false) && (b.due.IsZero() || now.Before(b.due)) {
		return
	}
	for _, s := range b.all {
		s.mu.Lock()
		if b.ended(s, now) {
			b.expire(s) // again, if there was no room for the report
		} else {
			b.watch(s, now)
		}
		s.mu.Unlock()
	}
	b.schedule()
}

// schedule finds the next end of a lifetime.
func (b *Backend) schedule() {
	b.due = time.Time{}
	for _, s := range b.all {
		s.mu.Lock()
		var t time.Time
		switch {
		case s.expired:
		case s.soft.Time > 0 && !s.softTold && (s.hard.Time <= 0 || s.soft.Time < s.hard.Time):
			t = s.added.Add(s.soft.Time)
		case s.hard.Time > 0:
			t = s.added.Add(s.hard.Time)
		}
		s.mu.Unlock()
		if !t.IsZero() && (b.due.IsZero() || t.Before(b.due)) {
			b.due = t
		}
	}
}
