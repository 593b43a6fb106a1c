package main

import (
	"container/list"
	"log/slog"
	"net/netip"
	"time"

	"culvert/ppp/aaa"
)

// bans keeps those off for a while who guess at keys and passwords. Its fields belong to the loop. A source is an address,
// of IPv6 a /64. What it did wrong is forgotten with time, a ban lasts longer each time, and reading the configuration
// anew lifts them all. An address from which somebody is connected is not banned: an office is one address.
type bans struct {
	log     *slog.Logger
	up      func(a netip.Addr) bool // somebody is connected from there
	sources map[netip.Prefix]*list.Element
	order   list.List // the one that did wrong last at the end
}

type offender struct {
	source  netip.Prefix
	level   float64 // wrong keys and passwords, less what has been forgotten
	at      time.Time
	until   time.Time // of the ban
	longest time.Duration
}

const (
	banAfter   = 10               // wrong keys or passwords
	banForgets = 30 * time.Second // one of them
	banFirst   = time.Minute      // doubled each time
	banLongest = time.Hour
	maxBans    = 4096 // sources remembered, some 200 octets each
)

func newBans(log *slog.Logger, up func(netip.Addr) bool) *bans {
	return &bans{log: log, up: up, sources: make(map[netip.Prefix]*list.Element)}
}

func sourceOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// failed notes a wrong key or password.
func (b *bans) failed(now time.Time, a netip.Addr) {
	source := sourceOf(a)
	el := b.sources[source]
	if el == nil {
		if b.order.Len() >= maxBans {
			oldest := b.order.Front()
			delete(b.sources, oldest.Value.(*offender).source)
			b.order.Remove(oldest)
		}
		el = b.order.PushBack(&offender{source: source, at: now})
		b.sources[source] = el
	}
	b.order.MoveToBack(el)
	o := el.Value.(*offender)
	o.level = max(0, o.level-now.Sub(o.at).Seconds()/banForgets.Seconds()) + 1
	if now.Sub(o.at) > 2*banLongest {
		o.longest = 0
	}
	o.at = now
	if o.level < banAfter-0.5 || b.up(a) { // half a one has been forgotten meanwhile
		return
	}
	o.level = 0
	o.longest = min(max(2*o.longest, banFirst), banLongest)
	o.until = now.Add(o.longest)
	b.log.Warn("banned: too many wrong keys or passwords; reading the configuration anew (SIGHUP) lifts it", "remote", a, "for", o.longest)
}

// barred says whether an address is not answered.
func (b *bans) barred(now time.Time, a netip.Addr) bool {
	el := b.sources[sourceOf(a)]
	return el != nil && now.Before(el.Value.(*offender).until) && !b.up(a)
}

// lift forgets everything.
func (b *bans) lift() {
	clear(b.sources)
	b.order.Init()
}

// connected says whether somebody is up from an address.
func (d *daemon) connected(a netip.Addr) bool {
	for _, s := range d.sessions {
		if s.up && s.l2tp.Tunnel.Peer.Remote.Addr().Unmap() == a.Unmap() {
			return true
		}
	}
	return false
}

// watched tells the bans of wrong passwords.
type watched struct {
	aaa.Authenticator
	bans *bans
	from netip.Addr
}

// Authenticate asks whoever knows.
func (w watched) Authenticate(req aaa.Request, done func(*aaa.Grant, *aaa.Reject)) {
	w.Authenticator.Authenticate(req, func(g *aaa.Grant, r *aaa.Reject) {
		if r != nil && r.Code == aaa.AuthFailure {
			w.bans.failed(time.Now(), w.from)
		}
		done(g, r)
	})
}
