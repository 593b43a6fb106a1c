package ppp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"culvert/ppp/aaa"
)

func newPair(t testing.TB, sc, cc Config) (*station, *station, *wire) {
	s := newStation(t, "server", sc, nil)
	c := newStation(t, "client", cc, func(_ *station, e *Env) { e.Rand = &counting{100}; e.Auth = nil })
	return s, c, join(t, s, c)
}

func TestPairEveryMethod(t *testing.T) {
	for _, m := range []aaa.Method{aaa.PAP, aaa.CHAP, aaa.MSCHAP1, aaa.MSCHAP2} {
		t.Run(m.String(), func(t *testing.T) {
			sc, cc := serverConfig(), clientConfig()
			sc.Auth = []aaa.Method{m}
			sc.IPv6, cc.IPv6 = true, true
			s, c, w := newPair(t, sc, cc)
			s.link.Start(epoch)
			c.link.Start(epoch)
			w.run(time.Second, nil)
			s.had("open", "ipup", "up")
			c.had("open", "ipup", "up")
			if s.info.User != "user1" || s.info.Method != m || s.users.asked != 1 {
				t.Errorf("server: %+v, asked %d times", s.info, s.users.asked)
			}
			if r := s.users.last; r.CallerID != "198.51.100.9" || r.Service != "l2tp" || r.NASPort != 7 {
				t.Errorf("request %+v", r)
			}
			want := Network{netip.MustParseAddr("192.168.99.10"), netip.MustParseAddr("192.168.99.1"), 1400, 1450,
				[]netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("1.1.1.1")}}
			if fmt.Sprint(c.network) != fmt.Sprint(want) {
				t.Errorf("client network %+v, want %+v", c.network, want)
			}
			if s.network.Remote != want.Local || s.network.MTU != 1450 || s.network.MRU != 1400 {
				t.Errorf("server network %+v", s.network)
			}
			if m == aaa.MSCHAP2 {
				send, recv, _ := aaa.MPPEKeys2(s.users.last.Response, "secret")
				if !slices.Equal(c.grant.MPPERecv, send) || !slices.Equal(c.grant.MPPESend, recv) {
					t.Error("the client's MPPE keys are not the server's, crossed over")
				}
			}
			ss, cs := s.link.Snapshot(w.now), c.link.Snapshot(w.now)
			if ss.IPV6CP != Opened || ss.LocalID != cs.RemoteID || ss.RemoteID != cs.LocalID || ss.LocalID == cs.LocalID {
				t.Errorf("interface identifiers: %x %x, %x %x", ss.LocalID, ss.RemoteID, cs.LocalID, cs.RemoteID)
			}
			if ss.Phase != PhaseNetwork || ss.LCP != Opened || ss.IPCP != Opened || ss.User != "user1" || ss.Method != m || ss.MTU != 1450 || ss.PeerMRU != 1450 || ss.Magic != cs.PeerMagic {
				t.Errorf("snapshot %+v", ss)
			}

			c.link.Close(w.now, Cause{Code: CauseAdmin})
			w.run(10*time.Second, nil)
			c.ended(CauseAdmin)
			s.ended(CausePeerTerminated)
			s.had("open", "ipup", "up", "ipdown", "down")
			if s.users.released != 1 {
				t.Errorf("grant released %d times", s.users.released)
			}
			if s.cause.Text != "administrative disconnect" {
				t.Errorf("the goodbye's text is %q", s.cause.Text)
			}
		})
	}
}

func TestPairMutual(t *testing.T) {
	sc, cc := serverConfig(), clientConfig()
	sc.User, sc.Password, sc.Allow = "router", "secret", []aaa.Method{aaa.CHAP}
	cc.Auth = []aaa.Method{aaa.PAP, aaa.CHAP}
	s := newStation(t, "server", sc, nil)
	c := newStation(t, "client", cc, func(s *station, e *Env) {
		e.Rand = &counting{100}
		s.users.grant.Local, s.users.grant.Remote = s.users.grant.Remote, s.users.grant.Local
	})
	w := join(t, s, c)
	s.link.Start(epoch)
	c.link.Start(epoch)
	w.run(time.Second, nil)
	if !w.bothUp() || s.info.User != "user1" || c.info.User != "router" || c.info.Method != aaa.CHAP {
		t.Fatalf("%+v %+v\n%s%s", s.info, c.info, s.log.String(), c.log.String())
	}
}

func TestPairWrongPassword(t *testing.T) {
	for _, m := range []aaa.Method{aaa.PAP, aaa.CHAP, aaa.MSCHAP1, aaa.MSCHAP2} {
		sc, cc := serverConfig(), clientConfig()
		sc.Auth = []aaa.Method{m}
		cc.Password = "wrong"
		s, c, w := newPair(t, sc, cc)
		s.link.Start(epoch)
		c.link.Start(epoch)
		w.run(20*time.Second, nil)
		c.ended(CauseAuthFailed)
		if m == aaa.PAP || m == aaa.CHAP {
			s.ended(CauseAuthFailed)
		} else {
			s.ended(CausePeerTerminated) // it could have tried again
		}
		if s.users.asked != 1 || s.users.released != 0 {
			t.Errorf("%v: asked %d times, released %d", m, s.users.asked, s.users.released)
		}
	}
}

func TestPairServerWithoutPassword(t *testing.T) {
	s, c, w := newPair(t, serverConfig(), clientConfig())
	accept := acceptAll{s.users}
	s.link.env.Auth = accept
	s.link.Start(epoch)
	c.link.Start(epoch)
	w.run(20*time.Second, nil)
	c.ended(CauseAuthFailed)
}

// acceptAll is a server that knows nobody's password.
type acceptAll struct{ u *users }

func (a acceptAll) Authenticate(r aaa.Request, done func(*aaa.Grant, *aaa.Reject)) {
	g := a.u.grant
	g.AuthenticatorResponse = "S=0000000000000000000000000000000000000000"
	g.Release = func() {}
	done(&g, nil)
}

func TestPairAuthNegotiation(t *testing.T) {
	all := []aaa.Method{aaa.MSCHAP2, aaa.MSCHAP1, aaa.CHAP, aaa.PAP}
	for _, server := range all {
		for _, client := range all {
			sc, cc := serverConfig(), clientConfig()
			sc.Auth = []aaa.Method{aaa.MSCHAP2, server}
			cc.Allow = []aaa.Method{client}
			s, c, w := newPair(t, sc, cc)
			s.link.Start(epoch)
			c.link.Start(epoch)
			w.run(40*time.Second, nil)
			if client == server || client == aaa.MSCHAP2 {
				if !w.bothUp() || s.info.Method != client {
					t.Errorf("server %v, client %v: %v %v", server, client, s.cause, c.cause)
				}
			} else {
				s.ended(CauseNoCommonAuth)
				c.ended(CausePeerTerminated)
			}
		}
	}
	// A client that will not log in at all.
	cc := clientConfig()
	cc.Allow = nil
	s, c, w := newPair(t, serverConfig(), cc)
	s.link.Start(epoch)
	c.link.Start(epoch)
	w.run(40*time.Second, nil)
	s.ended(CauseNoCommonAuth)
	c.ended(CausePeerTerminated)
}

// lossy is a pipe that loses, doubles and reorders.
func lossy(r *rand.Rand, loss, double, jitter float64) func([]byte) []time.Duration {
	return func([]byte) []time.Duration {
		n := 1
		if r.Float64() < loss {
			n = 0
		}
		if r.Float64() < double {
			n++
		}
		var out []time.Duration
		for range n {
			d := 5 * time.Millisecond
			if r.Float64() < jitter {
				d += time.Duration(r.Float64() * float64(2*time.Second))
			}
			out = append(out, d)
		}
		return out
	}
}

// TestPairLossy: whatever the pipe does to the handshake, both sides end up with the same link, and a login costs the
// server one question.
func TestPairLossy(t *testing.T) {
	seeds := uint64(4000)
	if testing.Short() {
		seeds = 300
	}
	methods := []aaa.Method{aaa.PAP, aaa.CHAP, aaa.MSCHAP1, aaa.MSCHAP2}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 1))
		sc, cc := serverConfig(), clientConfig()
		sc.Auth = []aaa.Method{methods[seed%4]}
		if seed%3 == 0 {
			sc.Auth = []aaa.Method{aaa.MSCHAP2, methods[seed%4]}
			cc.Allow = []aaa.Method{methods[seed%4]}
		}
		sc.IPv6, cc.IPv6 = seed%2 == 0, seed%5 == 0
		sc.AuthTimeout, cc.AuthTimeout = 5*time.Minute, 5*time.Minute
		sc.MaxConfigure, cc.MaxConfigure = 100, 100
		s, c, w := newPair(t, sc, cc)
		s.link.env.Rand, c.link.env.Rand = &noise{r}, &noise{r}
		w.fate = lossy(r, 0.25, 0.15, 0.2)
		s.link.Start(epoch)
		c.link.Start(epoch)
		w.run(10*time.Minute, func() bool { return w.bothUp() || s.cause != nil || c.cause != nil })
		if !w.bothUp() {
			t.Fatalf("seed %d: server %v %v, client %v %v\n%s%s", seed, s.cause, s.events, c.cause, c.events, s.log.String(), c.log.String())
		}
		// What was still under way must not hurt, nor what is doubled and late from now on.
		w.fate = lossy(r, 0, 0.1, 0.1)
		w.run(5*time.Minute, nil)
		if s.cause != nil || c.cause != nil {
			t.Fatalf("seed %d: the link fell: %v, %v\n%s%s", seed, s.cause, c.cause, s.log.String(), c.log.String())
		}
		ss, cs := s.link.Snapshot(w.now), c.link.Snapshot(w.now)
		if ss.LCP != Opened || cs.LCP != Opened || ss.IPCP != Opened || cs.IPCP != Opened || ss.Local != cs.Remote || ss.Remote != cs.Local || ss.Magic != cs.PeerMagic || cs.Magic != ss.PeerMagic {
			t.Fatalf("seed %d: the two disagree:\n%+v\n%+v", seed, ss, cs)
		}
		s.link.Close(w.now, Cause{Code: CauseAdmin})
		w.run(time.Minute, nil)
		s.ended(CauseAdmin)
		if c.cause == nil { // both goodbyes may be lost; then silence tells
			w.run(3*time.Minute, nil)
		}
		if c.cause == nil || s.users.released != s.users.asked {
			t.Fatalf("seed %d: client %v, %d grants, %d released", seed, c.cause, s.users.asked, s.users.released)
		}
	}
}

type noise struct{ r *rand.Rand }

func (n *noise) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(n.r.Uint32())
	}
	return len(b), nil
}
