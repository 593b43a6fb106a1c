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
// anew lifts them all. An address from which somebody is connected, or which we call, is not banned: an office is one
// address. Neither is it for a while afterwards: a router whose key or password has just been changed here goes on calling
// with the old one, and has to be let in as soon as it is changed back, or there. Where the firewall has a table of ours,
// what the banned send is dropped there.
type bans struct {
	log     *slog.Logger
	up      func(a netip.Addr) bool // somebody is connected from there, or called there
	table   banTable
	sources map[netip.Prefix]*list.Element
	order   list.List // the one that did wrong last at the end
}

type offender struct {
	source  netip.Prefix
	level   float64 // wrong keys and passwords, less what has been forgotten
	at      time.Time
	until   time.Time // of the ban
	longest time.Duration
	known   time.Time // when somebody from there was connected last
}

// banTable is the firewall's, as far as bans go.
type banTable interface {
	Ban(source netip.Prefix, d time.Duration) error
	Pardon(source netip.Prefix) error
	Lift() error
}

const (
	banAfter   = 10               // wrong keys or passwords
	banForgets = 30 * time.Second // one of them
	banFirst   = time.Minute      // doubled each time
	banLongest = time.Hour
	banKnown   = 2 * time.Hour // after somebody from there was connected: longer than such a router calls often
	maxBans    = 4096          // sources remembered, some 200 octets each
)

func newBans(log *slog.Logger, up func(netip.Addr) bool, table banTable) *bans {
	return &bans{log: log, up: up, table: table, sources: make(map[netip.Prefix]*list.Element)}
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

// of is what is remembered of a source, the one that has been silent for longest forgotten for it.
func (b *bans) of(now time.Time, a netip.Addr) *offender {
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
	return el.Value.(*offender)
}

// welcomed notes that somebody's connection from there has ended.
func (b *bans) welcomed(now time.Time, a netip.Addr) { b.of(now, a).known = now }

// failed notes a wrong key or password.
func (b *bans) failed(now time.Time, a netip.Addr) {
	o := b.of(now, a)
	o.level = max(0, o.level-now.Sub(o.at).Seconds()/banForgets.Seconds()) + 1
	if now.Sub(o.at) > 2*banLongest {
		o.longest = 0
	}
	o.at = now
	if o.level < banAfter-0.5 || b.up(a) || !o.known.IsZero() && now.Sub(o.known) < banKnown { // half a one has been forgotten meanwhile
		return
	}
	o.level = 0
	o.longest = min(max(2*o.longest, banFirst), banLongest)
	o.until = now.Add(o.longest)
	b.log.Warn("banned: too many wrong keys or passwords; reading the configuration anew (SIGHUP) lifts it", "remote", a, "for", o.longest)
	if err := b.table.Ban(o.source, o.longest); err != nil {
		b.log.Debug("the ban is not in the firewall", "source", o.source, "error", err)
	}
}

// barred says whether an address is not answered.
func (b *bans) barred(now time.Time, a netip.Addr) bool {
	el := b.sources[sourceOf(a)]
	return el != nil && now.Before(el.Value.(*offender).until) && !b.up(a)
}

// pardon ends the ban of a source and forgets what led to it. It says whether there was one.
func (b *bans) pardon(now time.Time, source netip.Prefix) bool {
	el := b.sources[source]
	if el == nil {
		return false
	}
	banned := now.Before(el.Value.(*offender).until)
	b.forget(el)
	if !banned {
		return false
	}
	if err := b.table.Pardon(source); err != nil {
		b.log.Warn("a ban stays in the firewall until it ends by itself", "source", source, "error", err)
	}
	return true
}

// lift forgets everything but who was connected.
func (b *bans) lift() {
	for el := b.order.Front(); el != nil; {
		next := el.Next()
		b.forget(el)
		el = next
	}
	if err := b.table.Lift(); err != nil {
		b.log.Warn("bans stay in the firewall until they end by themselves", "error", err)
	}
}

func (b *bans) forget(el *list.Element) {
	o := el.Value.(*offender)
	o.level, o.until, o.longest = 0, time.Time{}, 0
	if o.known.IsZero() {
		delete(b.sources, o.source)
		b.order.Remove(el)
	}
}

// banned are those who are.
func (b *bans) banned(now time.Time) (all []offender) {
	for el := b.order.Front(); el != nil; el = el.Next() {
		if o := el.Value.(*offender); now.Before(o.until) {
			all = append(all, *o)
		}
	}
	return all
}

// connected says whether somebody is up from an address, or a call of ours goes there.
func (d *daemon) connected(a netip.Addr) bool {
	a = a.Unmap()
	for _, s := range d.sessions {
		if s.up && s.l2tp.Tunnel.Peer.Remote.Addr().Unmap() == a {
			return true
		}
	}
	for _, dl := range d.dialers {
		if dl.remote == a {
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
