package ppp

import (
	"bytes"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/ppp/aaa"
)

// counting is a random source whose octets are known: 1, 2, 3 and so on.
type counting struct{ n byte }

func (c *counting) Read(b []byte) (int, error) {
	for i := range b {
		c.n++
		b[i] = c.n
	}
	return len(b), nil
}

// users is an Authenticator with one password for everybody, and counters.
type users struct {
	password string
	grant    aaa.Grant
	reject   *aaa.Reject
	late     bool // keep the answer until flush
	waiting  []func()

	asked, released int
	last            aaa.Request
}

func (u *users) Authenticate(r aaa.Request, done func(*aaa.Grant, *aaa.Reject)) {
	u.asked++
	u.last = r
	ok := false
	g := u.grant
	switch r.Method {
	case aaa.PAP:
		ok = string(r.Response) == u.password
	case aaa.CHAP:
		ok = aaa.VerifyCHAP(r.ID, u.password, r.Challenge, r.Response)
	case aaa.MSCHAP1:
		ok, _ = aaa.VerifyMSCHAP1(r.Challenge, r.Response, u.password)
	case aaa.MSCHAP2:
		ok, _ = aaa.VerifyMSCHAP2(r.Challenge, r.Response, r.User, u.password)
		g.AuthenticatorResponse, _ = aaa.MSCHAP2AuthenticatorResponse(r.Challenge, r.Response, r.User, u.password)
	}
	g.User = r.User
	freed := false
	g.Release = func() {
		if !freed {
			freed = true
			u.released++
		}
	}
	answer := func() {
		if ok {
			done(&g, nil)
			return
		}
		j := u.reject
		if j == nil {
			j = &aaa.Reject{Code: aaa.AuthFailure, Retry: true, Text: "wrong password"}
		}
		done(nil, j)
	}
	if u.late {
		u.waiting = append(u.waiting, answer)
	} else {
		answer()
	}
}

func (u *users) flush() {
	w := u.waiting
	u.waiting = nil
	for _, f := range w {
		f()
	}
}

func newUsers() *users {
	return &users{password: "secret", grant: aaa.Grant{UseIPv6: true,
		Local:  netip.MustParseAddr("192.168.99.1"),
		Remote: netip.MustParseAddr("192.168.99.10"),
		DNS:    []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("1.1.1.1")},
	}}
}

// station is a Link with everything around it written down.
type station struct {
	t     testing.TB
	name  string
	now   time.Time
	link  *Link
	users *users
	sent  [][]byte // frames not yet looked at
	carry func(frame []byte)

	events  []string
	info    *Info
	grant   *aaa.Grant
	cause   *Cause
	network Network
	log     bytes.Buffer
	traffic func() Traffic

	holdUnit bool // keep OpenUnit's done
	unitDone func(time.Time, error)
	holdIP   bool
	ipDone   func(time.Time, error)
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newStation(t testing.TB, name string, cfg Config, tune func(*station, *Env)) *station {
	s := &station{t: t, name: name, now: epoch, users: newUsers()}
	env := Env{
		Send: func(f []byte) {
			if s.cause != nil {
				t.Errorf("%s sent %x after its end", name, f)
			}
			if len(f) < 6 || len(f) > 2+defaultMRU {
				t.Errorf("%s sent a frame of %d octets", name, len(f))
			}
			if s.carry != nil {
				s.carry(bytes.Clone(f))
			} else {
				s.sent = append(s.sent, bytes.Clone(f))
			}
		},
		Auth: s.users,
		Rand: &counting{},
		Log:  slog.New(slog.NewTextHandler(&s.log, nil)),
		OpenUnit: func(g *aaa.Grant, done func(time.Time, error)) {
			s.grant = g
			s.events = append(s.events, "open")
			if s.holdUnit {
				s.unitDone = done
			} else {
				done(s.now, nil)
			}
		},
		IPUp: func(n Network, done func(time.Time, error)) {
			s.network = n
			s.events = append(s.events, "ipup")
			if s.holdIP {
				s.ipDone = done
			} else {
				done(s.now, nil)
			}
		},
		IPDown: func() { s.events = append(s.events, "ipdown") },
		Up: func(i Info) {
			if s.info != nil {
				t.Errorf("%s: Up twice", name)
			}
			s.info = &i
			s.events = append(s.events, "up")
		},
		Down: func(c Cause) {
			if s.cause != nil {
				t.Errorf("%s: Down twice", name)
			}
			s.cause = &c
			s.events = append(s.events, "down")
			if s.grant != nil {
				s.grant.Release()
			}
		},
	}
	if tune != nil {
		tune(s, &env)
	}
	env.Traffic = s.traffic
	s.link = New(cfg, Caller{CallerID: "198.51.100.9", Service: "l2tp", NASPort: 7}, env)
	return s
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	if i := strings.IndexByte(s, '#'); i >= 0 {
		s = s[:i]
	}
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// recv hands one frame in.
func (s *station) recv(hexFrame string) {
	s.t.Helper()
	s.link.Receive(s.now, unhex(s.t, hexFrame))
}

// expect looks at what was sent since the last time.
func (s *station) expect(frames ...string) {
	s.t.Helper()
	for i, f := range frames {
		if i >= len(s.sent) {
			s.t.Fatalf("%s did not send %s", s.name, f)
		}
		if want := unhex(s.t, f); !bytes.Equal(s.sent[i], want) {
			s.t.Fatalf("%s sent\n  %x, expected\n  %x  (%s)", s.name, s.sent[i], want, f)
		}
	}
	if len(s.sent) > len(frames) {
		s.t.Fatalf("%s also sent %x", s.name, s.sent[len(frames):])
	}
	s.sent = nil
}

// run lets time pass, with every deadline on the way.
func (s *station) run(d time.Duration) {
	end := s.now.Add(d)
	for n := 0; ; n++ {
		next := s.link.Deadline()
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(s.now) {
			s.now = next
		}
		s.link.Tick(s.now)
		if n > 10000 {
			s.t.Fatalf("%s: its deadline %v does not move", s.name, next)
		}
	}
	s.now = end
	s.link.Tick(s.now)
}

func (s *station) had(events ...string) {
	s.t.Helper()
	if got, want := strings.Join(s.events, " "), strings.Join(events, " "); got != want {
		s.t.Errorf("%s: events %q, expected %q", s.name, got, want)
	}
}

func (s *station) ended(code CauseCode) {
	s.t.Helper()
	if s.cause == nil || s.cause.Code != code {
		s.t.Fatalf("%s ended with %v, expected %v\n%s", s.name, s.cause, code, s.log.String())
	}
	if !s.link.Deadline().IsZero() {
		s.t.Errorf("%s: a deadline after the end", s.name)
	}
}

func serverConfig() Config {
	c := DefaultConfig()
	c.MRU = 1400
	return c
}

func clientConfig() Config {
	c := DefaultConfig()
	c.Auth = nil
	c.User = "user1"
	c.Password = "secret"
	c.Allow = []aaa.Method{aaa.MSCHAP2, aaa.MSCHAP1, aaa.CHAP, aaa.PAP}
	c.PeerDNS = true
	c.Keepalive = 60 * time.Second
	return c
}

// wire joins two stations with a pipe that takes delay, in virtual time.
type wire struct {
	t     testing.TB
	now   time.Time
	a, b  *station
	queue []flight
	seq   int
	// fate decides about each frame: when its copies arrive.
	fate func(frame []byte) []time.Duration
	tap  func(from *station, frame []byte)
}

type flight struct {
	at    time.Time
	seq   int
	to    *station
	frame []byte
}

func join(t testing.TB, a, b *station) *wire {
	w := &wire{t: t, now: epoch, a: a, b: b}
	w.fate = func([]byte) []time.Duration { return []time.Duration{10 * time.Millisecond} }
	a.carry = func(f []byte) { w.put(a, b, f) }
	b.carry = func(f []byte) { w.put(b, a, f) }
	return w
}

func (w *wire) put(from, to *station, f []byte) {
	if w.tap != nil {
		w.tap(from, f)
	}
	for _, d := range w.fate(f) {
		w.seq++
		w.queue = append(w.queue, flight{w.now.Add(d), w.seq, to, f})
	}
}

// run passes d, or less when until says so.
func (w *wire) run(d time.Duration, until func() bool) {
	w.t.Helper()
	end := w.now.Add(d)
	for n := 0; until == nil || !until(); n++ {
		if n > 200000 {
			w.t.Fatal("no end of events")
		}
		next, which := end, -1
		for i, f := range w.queue {
			if f.at.Before(next) || (which >= 0 && f.at.Equal(next) && f.seq < w.queue[which].seq) {
				next, which = f.at, i
			}
		}
		var tick *station
		for _, s := range []*station{w.a, w.b} {
			if d := s.link.Deadline(); !d.IsZero() && d.Before(next) {
				next, which, tick = d, -1, s
			}
		}
		if which < 0 && tick == nil {
			w.now = end
			break
		}
		if next.After(w.now) {
			w.now = next
		}
		w.a.now, w.b.now = w.now, w.now
		if tick != nil {
			tick.link.Tick(w.now)
			continue
		}
		f := w.queue[which]
		w.queue = append(w.queue[:which], w.queue[which+1:]...)
		f.to.link.Receive(w.now, f.frame)
	}
	w.a.now, w.b.now = w.now, w.now
}

func (w *wire) bothUp() bool { return w.a.info != nil && w.b.info != nil }
