package main

import "time"

// redial says when to call again: soon after a link that had lasted, later and later while it does not come up.
type redial struct {
	wait time.Duration // before the last attempt
	at   time.Time     // of the next attempt; zero while one is under way
	up   time.Time     // since when the link is up; zero when it is not
}

const (
	firstRedial  = time.Second
	lastRedial   = 30 * time.Second
	redialSteady = time.Minute // a link that lasted so long was no failure
)

// connected notes that the link is up.
func (r *redial) connected(now time.Time) { r.up = now }

// failed arranges the next attempt. jitter, from 0 to 1, is added as up to a quarter of the wait, so that the clients
// of a server that was restarted do not all come at once.
func (r *redial) failed(now time.Time, jitter float64) {
	if !r.up.IsZero() && now.Sub(r.up) >= redialSteady {
		r.wait = 0
	}
	r.wait = min(max(2*r.wait, firstRedial), lastRedial)
	r.up, r.at = time.Time{}, now.Add(r.wait+time.Duration(jitter*float64(r.wait/4)))
}

// begun notes that an attempt is under way.
func (r *redial) begun() { r.at = time.Time{} }

// due says whether it is time for the next attempt.
func (r *redial) due(now time.Time) bool { return !r.at.IsZero() && !now.Before(r.at) }
