package main

import "time"

// redial says when to call again: soon after a link that had lasted, later and later while it does not come up, but never
// so late that a cause that has gone away is noticed after ten seconds. The wait counts from the beginning of an attempt,
// for one that nobody answered has taken long enough by itself.
//
// A server that refuses our key or password is another matter: it counts that as guessing, and would ban us for it, or
// lock the account. One that had accepted them until a moment ago has its settings being changed, though, and whoever does
// that waits for us: it is asked as often as any other. Only where they have not been accepted for long, or never, the
// attempts become so rare that they add up to nothing.
type redial struct {
	wait  time.Duration // before the last attempt
	at    time.Time     // of the next attempt; zero while one is under way
	since time.Time     // when the attempt under way began
	up    time.Time     // since when the link is up; zero when it is not
	ended time.Time     // when it was up last; zero when it never was
}

const (
	firstRedial   = time.Second
	lastRedial    = 5 * time.Second  // with jitter, and the time that connecting takes, less than ten
	lastRefused   = 30 * time.Second // as fast as this server's own bans forget
	redialTrusted = time.Hour        // since the server last let us in
	redialSteady  = time.Minute      // a link that lasted so long was no failure
)

// connected notes that the link is up.
func (r *redial) connected(now time.Time) { r.up = now }

// failed arranges the next attempt; refused says that the server has answered, and will not have us. jitter, from 0 to
// 1, is added as up to a quarter of the wait, so that the clients of a server that was restarted do not all come at once.
func (r *redial) failed(now time.Time, refused bool, jitter float64) {
	began := r.since
	if !r.up.IsZero() {
		began, r.ended = now, now
		if now.Sub(r.up) >= redialSteady {
			r.wait = 0
		}
	}
	most := lastRedial
	if refused && (r.ended.IsZero() || now.Sub(r.ended) >= redialTrusted) {
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
