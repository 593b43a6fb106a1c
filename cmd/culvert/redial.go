package main

import "time"

// redial says when to call again: soon after a link that had lasted, later and later while it does not come up. The wait
// counts from the beginning of an attempt, for one that nobody answered has taken long enough by itself.
type redial struct {
	wait  time.Duration // before the last attempt
	at    time.Time     // of the next attempt; zero while one is under way
	since time.Time     // when the attempt under way began
	up    time.Time     // since when the link is up; zero when it is not
}

const (
	firstRedial  = time.Second
	lastRedial   = 8 * time.Second  // so that a server that is back is found back within ten
	lastRefused  = 30 * time.Second // where the server refuses us: asking more often would only annoy it
	redialSteady = time.Minute      // a link that lasted so long was no failure
)

// connected notes that the link is up.
func (r *redial) connected(now time.Time) { r.up = now }

// failed arranges the next attempt; refused says that the server has answered, and will not have us. jitter, from 0 to
// 1, is added as up to a quarter of the wait, so that the clients of a server that was restarted do not all come at once.
func (r *redial) failed(now time.Time, refused bool, jitter float64) {
	began := r.since
	if !r.up.IsZero() {
		began = now
		if now.Sub(r.up) >= redialSteady {
			r.wait = 0
		}
	}
	most := lastRedial
	if refused {
		most = lastRefused
	}
	r.wait = min(max(2*r.wait, firstRedial), most)
	r.up, r.at = time.Time{}, began.Add(r.wait)
	if soonest := now.Add(firstRedial); r.at.Before(soonest) {
		r.at = soonest
	}
	r.at = r.at.Add(time.Duration(jitter * float64(r.at.Sub(now)/4)))
}

// begun notes that an attempt is under way.
func (r *redial) begun(now time.Time) { r.at, r.since = time.Time{}, now }

// hurry makes the next attempt due at once: something has changed that may have been in its way.
func (r *redial) hurry(now time.Time) {
	if !r.at.IsZero() && r.at.After(now) {
		r.at = now
	}
}

// due says whether it is time for the next attempt.
func (r *redial) due(now time.Time) bool { return !r.at.IsZero() && !now.Before(r.at) }
