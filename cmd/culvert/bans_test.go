package main

import (
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"culvert/ppp/aaa"
)

func TestBans(t *testing.T) {
	office := netip.MustParseAddr("198.51.100.1")
	table := make(fakeBanTable)
	b := newBans(slog.New(slog.NewTextHandler(io.Discard, nil)), func(a netip.Addr) bool { return a == office }, table)
	now := time.Unix(1000, 0)
	guesser, other := netip.MustParseAddr("2001:db8:1:2::9"), netip.MustParseAddr("2001:db8:1:3::9")
	fail := func(a netip.Addr, n int, every time.Duration) {
		for range n {
			b.failed(now, a)
			now = now.Add(every)
		}
	}
	fail(guesser, banAfter-1, time.Second)
	if b.barred(now, guesser) {
		t.Fatal("banned too soon")
	}
	fail(guesser, 2, time.Second)
	if !b.barred(now, guesser) || !b.barred(now, netip.MustParseAddr("2001:db8:1:2:3::1")) || b.barred(now, other) {
		t.Error("not banned, or another network is")
	}
	network := netip.MustParsePrefix("2001:db8:1:2::/64")
	if list := b.banned(now); len(list) != 1 || list[0].source != network || len(table) != 1 || table[network] != banFirst {
		t.Errorf("banned: %v; in the firewall: %v", list, table)
	}
	fail(office, 3*banAfter, 0)
	if b.barred(now, office) {
		t.Error("an address from which somebody is connected is banned")
	}
	now = now.Add(banFirst)
	if b.barred(now, guesser) {
		t.Error("the first ban lasts too long")
	}
	last := banFirst
	for range 10 { // longer each time
		start := now
		fail(guesser, banAfter, 0)
		for b.barred(now, guesser) {
			now = now.Add(time.Second)
		}
		if d := now.Sub(start); d < last || d > banLongest+time.Second {
			t.Fatalf("banned for %v after %v", d, last)
		} else {
			last = d
		}
	}
	router := netip.MustParseAddr("198.51.100.2")
	b.welcomed(now, router)
	b.lift()
	fail(router, 3*banAfter, 7*time.Second)
	if b.barred(now, router) {
		t.Error("an address from which somebody was connected until a moment ago is banned")
	}
	now = now.Add(banKnown)
	if fail(router, 2*banAfter, 7*time.Second); !b.barred(now, router) {
		t.Error("an address from which somebody was connected once is never banned")
	}
	fail(other, 4*banAfter, banForgets) // one now and then is human
	if b.barred(now, other) {
		t.Error("forgets nothing")
	}
	fail(guesser, banAfter, 0)
	b.lift()
	if b.barred(now, guesser) || len(b.banned(now)) > 0 || len(table) > 0 {
		t.Error("not lifted")
	}
	fail(guesser, banAfter, 0)
	if !b.pardon(now, network) || b.barred(now, guesser) || len(table) > 0 || b.pardon(now, network) {
		t.Error("not pardoned, or twice")
	}
	if fail(guesser, banAfter-1, 0); b.pardon(now, network) {
		t.Error("pardoned who was not banned")
	}
	if fail(guesser, banAfter-1, 0); b.barred(now, guesser) {
		t.Error("what was pardoned is not forgotten")
	}
	for i := range 2 * maxBans {
		b.failed(now, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(b.sources) != maxBans || b.order.Len() != maxBans {
		t.Errorf("%d and %d sources", len(b.sources), b.order.Len())
	}
}

// fakeBanTable holds the bans and for how long they were made.
type fakeBanTable map[netip.Prefix]time.Duration

func (f fakeBanTable) Ban(p netip.Prefix, d time.Duration) error { f[p] = d; return nil }
func (f fakeBanTable) Pardon(p netip.Prefix) error               { delete(f, p); return nil }
func (f fakeBanTable) Lift() error                               { clear(f); return nil }

// sure is an authenticator that always says the same.
type sure struct{ reject *aaa.Reject }

func (s sure) Authenticate(_ aaa.Request, done func(*aaa.Grant, *aaa.Reject)) {
	if s.reject != nil {
		done(nil, s.reject)
		return
	}
	done(&aaa.Grant{User: "ann", Release: func() {}}, nil)
}

// Wrong passwords count; what else a login is refused for does not.
func TestWatched(t *testing.T) {
	b := newBans(slog.New(slog.NewTextHandler(io.Discard, nil)), func(netip.Addr) bool { return false }, make(fakeBanTable))
	from := netip.MustParseAddr("192.0.2.7")
	ask := func(r *aaa.Reject) {
		for range banAfter {
			watched{sure{r}, b, from}.Authenticate(aaa.Request{}, func(g *aaa.Grant, got *aaa.Reject) {
				if (g == nil) != (r != nil) || got != r {
					t.Error("the answer is not the one given")
				}
			})
		}
	}
	ask(nil)
	ask(&aaa.Reject{Code: aaa.AccountDisabled})
	if b.barred(time.Now(), from) {
		t.Error("banned for nothing")
	}
	ask(&aaa.Reject{Code: aaa.AuthFailure, Retry: true})
	if !b.barred(time.Now(), from) {
		t.Error("not banned")
	}
}

// A tunnel made with a user's own key is that user's.
func TestKeyBound(t *testing.T) {
	for _, user := range []string{"ann", "ben"} {
		released := false
		inner := granting{&aaa.Grant{User: "ann", Release: func() { released = true }}}
		keyBound{inner, user}.Authenticate(aaa.Request{User: `DOMAIN\ann`}, func(g *aaa.Grant, r *aaa.Reject) {
			if ok := user == "ann"; (g != nil) != ok || (r != nil) == ok || released == ok {
				t.Errorf("key of %s: %v %v, released %v", user, g, r, released)
			}
		})
	}
}

type granting struct{ g *aaa.Grant }

func (x granting) Authenticate(_ aaa.Request, done func(*aaa.Grant, *aaa.Reject)) { done(x.g, nil) }
