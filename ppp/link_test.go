package ppp

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"culvert/ppp/aaa"
)

// opened brings a server's LCP up: the challenge has been sent.
func opened(t testing.TB, cfg Config, tune func(*station, *Env)) *station {
	s := newStation(t, "server", cfg, tune)
	s.link.Start(s.now)
	request := s.sent[0]
	s.sent = nil
	s.recv("c021 01 01 000e 01040578 0506 a1a2a3a4")
	request[2] = codeConfAck
	s.link.Receive(s.now, request)
	if s.link.lcp.state != Opened {
		t.Fatalf("lcp %v", s.link.lcp.state)
	}
	return s
}

// loggedIn has a user as well; IPCP is being negotiated.
func loggedIn(t *testing.T, cfg Config, tune func(*station, *Env)) *station {
	s := opened(t, cfg, tune)
	s.sent = nil
	s.recv(respond(t, 1, "user1", "secret"))
	return s
}

// up is a link with everything.
func up(t *testing.T, cfg Config, tune func(*station, *Env)) *station {
	s := loggedIn(t, cfg, tune)
	s.recv("8021 01 01 000a 0306 c0a8630a")
	s.recv("8021 02 01 000a 0306 c0a86301")
	if s.info == nil {
		t.Fatalf("not up: %v\n%s", s.events, s.log.String())
	}
	s.sent = nil
	return s
}

func failure(id uint8, text string) string {
	return fmt.Sprintf("c223 04 %02x %04x %x", id, 4+len(text), text)
}

func TestMSCHAP2Retry(t *testing.T) {
	s := opened(t, serverConfig(), nil)
	s.sent = nil
	first := respond(t, 1, "user1", "wrong")
	s.recv(first)
	f1 := failure(1, "E=691 R=1 C=15161718191A1B1C1D1E1F2021222324 V=3 M=Authentication failed")
	s.expect(f1)
	s.recv(first) // a duplicate: the same answer, and no second question
	s.expect(f1)
	if s.users.asked != 1 {
		t.Fatalf("asked %d times", s.users.asked)
	}
	// Typing takes its time.
	s.run(25 * time.Second)
	challenge := unhex(t, "15161718191a1b1c1d1e1f2021222324")
	v, _ := aaa.MSCHAP2Response(challenge, make([]byte, 16), "user1", "wrong again")
	s.sent = nil
	s.recv(fmt.Sprintf("c223 02 02 003b 31 %x 7573657231", v))
	s.expect(failure(2, "E=691 R=1 C=25262728292A2B2C2D2E2F3031323334 V=3 M=Authentication failed"))
	s.run(25 * time.Second)
	// The third time, under the old identifier, as some peers do, and right.
	challenge = unhex(t, "25262728292a2b2c2d2e2f3031323334")
	v, _ = aaa.MSCHAP2Response(challenge, make([]byte, 16), "user1", "secret")
	s.sent = nil
	s.recv(fmt.Sprintf("c223 02 02 003b 31 %x 7573657231", v))
	s.expect(success(t, s, 2, "user1"), "8021 01 01 000a 0306 c0a86301")
	if s.users.asked != 3 {
		t.Errorf("asked %d times", s.users.asked)
	}
	// Duplicates in the network phase are answered from memory (RFC 1994 section 4.1).
	s.recv(fmt.Sprintf("c223 02 02 003b 31 %x 7573657231", v))
	s.expect(success(t, s, 2, "user1"))
	if s.users.asked != 3 {
		t.Error("a duplicate was a login")
	}
}

func TestMSCHAP2ThreeFailures(t *testing.T) {
	s := opened(t, serverConfig(), nil)
	for i, id := range []uint8{1, 2, 3} {
		s.sent = nil
		s.recv(respond(t, id, "user1", fmt.Sprint("wrong", i)))
	}
	if n := len(s.sent); n != 2 {
		t.Fatalf("%d frames", n)
	}
	if text := string(s.sent[0][6:]); !strings.HasPrefix(text, "E=691 R=0 C=") {
		t.Errorf("last failure: %q", text)
	}
	if s.sent[1][2] != codeTermReq {
		t.Errorf("no Terminate-Request after the failure: %x", s.sent[1])
	}
	s.recv("c021 06 02 0004")
	s.ended(CauseAuthFailed)
	s.had("down")
	if log := s.log.String(); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, `cause="wrong password"`) || strings.Contains(log, "wrong2") {
		t.Error(log)
	}
}

func TestFailureTexts(t *testing.T) {
	c8 := []byte{1, 2, 3, 4, 5, 6, 7, 0xab}
	if got := failureText(aaa.MSCHAP1, aaa.AccountDisabled, false, c8); got != "E=647 R=0 C=01020304050607AB V=2 M=Account disabled" {
		t.Error(got)
	}
	if got := failureText(aaa.MSCHAP2, 0, true, c8); got != "E=691 R=1 C=01020304050607AB V=3 M=Authentication failed" {
		t.Error(got)
	}
	for in, want := range map[string]string{
		"E=691 R=0 C=00 V=3 M=Access denied": "error 691, Access denied",
		"E=647":                              "error 647, Account disabled",
		"E=":                                 "E=",
		"E=99999999999999999999 M=":          "E=99999999999999999999 M=",
		"":                                   "",
		"\x00\xffE=6":                        `\x00\xffE=6`,
	} {
		if got := failureReason(aaa.MSCHAP2, []byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestLateAnswers: an Authenticator that thinks for a while, duplicates meanwhile, and a link that dies meanwhile.
func TestLateAnswers(t *testing.T) {
	s := opened(t, serverConfig(), func(s *station, _ *Env) { s.users.late = true })
	s.sent = nil
	r := respond(t, 1, "user1", "secret")
	for range 3 {
		s.recv(r)
		s.run(5 * time.Second)
	}
	s.expect()
	if s.users.asked != 1 {
		t.Fatalf("asked %d times", s.users.asked)
	}
	s.users.flush()
	s.expect(success(t, s, 1, "user1"), "8021 01 01 000a 0306 c0a86301")

	s = opened(t, serverConfig(), func(s *station, _ *Env) { s.users.late = true })
	s.recv(r)
	s.link.Lost(s.now, Cause{Code: CauseNoCarrier})
	s.users.flush()
	s.ended(CauseNoCarrier)
	s.had("down")
	if s.users.released != 1 {
		t.Error("a grant for a dead link was not released")
	}

	s = opened(t, serverConfig(), func(s *station, _ *Env) { s.users.late = true })
	s.recv(r)
	s.run(40 * time.Second)
	s.ended(CauseAuthTimeout)
	s.users.flush()
	if s.users.released != 1 {
		t.Error("a grant that came too late was not released")
	}

	// LCP starts over while the question is out: the answer belongs to the old link.
	s = opened(t, serverConfig(), func(s *station, _ *Env) { s.users.late = true })
	s.recv(r)
	s.recv("c021 01 09 000e 01040578 0506 b1b2b3b4")
	s.sent = nil
	s.users.flush()
	s.expect()
	if s.users.released != 1 || s.link.phase != PhaseEstablish {
		t.Errorf("%v, released %d", s.link.phase, s.users.released)
	}
}

// TestEarlyIPCP: what the peer asks while the interface is being made is answered the moment it is there.
func TestEarlyIPCP(t *testing.T) {
	s := loggedIn(t, serverConfig(), func(s *station, _ *Env) { s.holdUnit = true })
	s.expect(success(t, s, 1, "user1"))
	s.recv("8021 01 01 0010 0306 00000000 8106 00000000")
	s.recv("8021 01 02 000a 0306 00000000")
	s.recv("8057 01 03 000e 010a 0123456789abcdef") // refused at once, the interface does not matter
	s.expect("c021 08 02 0014 8057 01 03 000e 010a 0123456789abcdef")
	s.run(time.Second)
	s.unitDone(s.now, nil)
	s.expect("8021 01 01 000a 0306 c0a86301", "8021 03 02 000a 0306 c0a8630a")
	s.unitDone(s.now, errors.New("twice"))
	s.expect()

	s = loggedIn(t, serverConfig(), func(s *station, _ *Env) { s.holdUnit = true })
	s.unitDone(s.now, errors.New("no such device"))
	s.run(10 * time.Second)
	s.ended(CauseInterface)
	s.had("open", "down")

	s = loggedIn(t, serverConfig(), func(s *station, _ *Env) { s.holdIP = true })
	s.recv("8021 01 01 000a 0306 c0a8630a")
	s.recv("8021 02 01 000a 0306 c0a86301")
	s.had("open", "ipup")
	stale := s.ipDone
	s.recv("8021 01 02 000a 0306 c0a8630b") // it changes its mind
	s.had("open", "ipup", "ipdown")
	stale(s.now, nil)
	if s.info != nil {
		t.Error("an answer to the IPUp before last brought the link up")
	}
	s.recv("8021 01 03 000a 0306 c0a8630a")
	s.recv("8021 02 02 000a 0306 c0a86301")
	s.ipDone(s.now, nil)
	s.had("open", "ipup", "ipdown", "ipup", "up")
	s.link.Lost(s.now, Cause{Code: CauseNoCarrier})
	s.had("open", "ipup", "ipdown", "ipup", "up", "ipdown", "down")
}

// TestLostSuccess: a peer that never repeats its response hears of its success again.
func TestLostSuccess(t *testing.T) {
	s := loggedIn(t, serverConfig(), nil)
	s.sent = nil
	s.run(3 * time.Second)
	s.expect("8021 01 01 000a 0306 c0a86301", "8021 01 01 000a 0306 c0a86301", success(t, s, 1, "user1"))
	s.recv("8021 01 01 000a 0306 c0a8630a") // it has heard
	s.sent = nil
	s.run(3 * time.Second)
	s.expect("8021 01 01 000a 0306 c0a86301")
}

func TestGrantsThatCannotBe(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*aaa.Grant)
		code  CauseCode
		hint  string
	}{
		{"MPPE", func(g *aaa.Grant) { g.Encrypt = aaa.EncryptRequired }, CauseEncryption, "use-encryption"},
		{"no local", func(g *aaa.Grant) { g.Local = g.Local.Next().Unmap(); *g = aaa.Grant{Remote: g.Remote} }, CauseNoAddress, "local-address"},
		{"no remote", func(g *aaa.Grant) { *g = aaa.Grant{Local: g.Local} }, CauseNoAddress, "pool"},
	} {
		s := loggedIn(t, serverConfig(), func(s *station, _ *Env) { tc.spoil(&s.users.grant) })
		if text := string(s.sent[0][6:]); !strings.HasPrefix(text, "E=691 R=0 ") {
			t.Errorf("%s: %q", tc.name, text)
		}
		s.run(10 * time.Second)
		s.ended(tc.code)
		s.had("down")
		if s.users.released != 1 || strings.Count(s.log.String(), "WARN") != 1 || !strings.Contains(s.log.String(), tc.hint) {
			t.Errorf("%s: released %d\n%s", tc.name, s.users.released, s.log.String())
		}
	}
}

func TestNobodyThere(t *testing.T) {
	s := newStation(t, "server", serverConfig(), nil)
	s.link.Start(s.now)
	s.run(25 * time.Second)
	if len(s.sent) != 10 || s.cause != nil {
		t.Errorf("%d requests in 25 s, %v", len(s.sent), s.cause)
	}
	s.run(time.Second)
	s.ended(CauseNoAnswer)

	s = opened(t, serverConfig(), nil)
	s.run(27 * time.Second)
	if n := len(s.sent); n != 11 { // an LCP acknowledgement is before them
		t.Errorf("%d challenges", n-1)
	}
	s.run(15 * time.Second)
	s.ended(CauseAuthTimeout)

	// Authenticated, and then no word of IPCP.
	c := serverConfig()
	c.Keepalive = 0
	s = loggedIn(t, c, nil)
	s.run(40 * time.Second)
	s.ended(CauseNoNetwork)
}

func TestClose(t *testing.T) {
	s := up(t, serverConfig(), nil)
	s.link.Close(s.now, Cause{Code: CauseAdmin})
	s.link.Close(s.now, Cause{Code: CauseInternal})
	text := fmt.Sprintf("%x", "administrative disconnect")
	s.expect("c021 05 02 001d " + text)
	s.had("open", "ipup", "up", "ipdown")
	s.recv("8021 01 09 000a 0306 00000000") // all but LCP is over
	s.run(3 * time.Second)
	s.expect("c021 05 02 001d " + text)
	s.run(2999 * time.Millisecond)
	if s.cause != nil {
		t.Error("ended early")
	}
	s.run(time.Millisecond)
	s.ended(CauseAdmin)
	s.had("open", "ipup", "up", "ipdown", "down")
	s.link.Close(s.now, Cause{Code: CauseAdmin})
	s.link.Lost(s.now, Cause{Code: CauseAdmin})
	s.link.Start(s.now)
	s.link.Tick(s.now)
	s.recv("c021 01 09 0004")
	s.expect()

	// Before it ever started.
	s = newStation(t, "server", serverConfig(), nil)
	s.link.Close(s.now, Cause{Code: CauseAdmin})
	s.ended(CauseAdmin)
	s.had("down")

	// From inside the callbacks.
	s = up(t, serverConfig(), func(s *station, e *Env) {
		note := e.Up
		e.Up = func(i Info) {
			note(i)
			s.link.Close(s.now, Cause{Code: CauseAdmin})
			s.link.Lost(s.now, Cause{Code: CauseNoCarrier})
		}
	})
	s.ended(CauseAdmin)
	s.had("open", "ipup", "up", "ipdown", "down")
}

func TestKeepalive(t *testing.T) {
	silent := 0
	s := up(t, serverConfig(), func(_ *station, e *Env) { e.Silent = func() { silent++ } })
	start := s.now
	s.run(29 * time.Second)
	s.expect()
	s.run(time.Second)
	s.expect("c021 09 01 0008 01020304")
	s.recv("c021 0a 01 0008 a1a2a3a4")
	s.run(29 * time.Second)
	s.expect()
	if silent != 0 {
		t.Error("silent, though every request was answered")
	}
	s.run(3 * time.Second)
	s.expect("c021 09 02 0008 01020304", "c021 09 03 0008 01020304", "c021 09 04 0008 01020304")
	if snap := s.link.Snapshot(s.now); snap.EchoLost != 2 || snap.EchoSent != 4 {
		t.Errorf("sent %d lost %d", snap.EchoSent, snap.EchoLost)
	}
	s.recv("c021 0a 02 0008 01020304") // our own magic number is no sign of life
	s.run(1999 * time.Millisecond)
	s.expect("c021 09 05 0008 01020304")
	s.run(time.Millisecond)
	s.expect("c021 09 06 0008 01020304")
	s.run(time.Second)
	if s.sent[0][2] != codeTermReq {
		t.Errorf("%x", s.sent)
	}
	s.run(10 * time.Second)
	s.ended(CauseKeepalive)
	if silent != 1 {
		t.Errorf("silence was told %d times", silent)
	}
	if d := s.now.Sub(start); d > 80*time.Second {
		t.Errorf("took %v", d)
	}
}

// TestLookout: packets that go out and bring nothing back raise a question long before the keepalive does, and silence is
// told a second later, whether the data path knows ages to the instant or in whole seconds.
func TestLookout(t *testing.T) {
	for _, unit := range []time.Duration{1, time.Second} {
		silent := 0
		var rx, tx time.Time
		s := up(t, serverConfig(), func(s *station, e *Env) {
			rx, tx = s.now, s.now
			e.Silent = func() { silent++ }
			s.traffic = func() Traffic {
				return Traffic{RxIdle: s.now.Sub(rx).Truncate(unit), TxIdle: s.now.Sub(tx).Truncate(unit)}
			}
		})
		flow := func(d time.Duration, both bool) {
			for end := s.now.Add(d); s.now.Before(end); {
				if tx = s.now; both {
					rx = s.now
				}
				s.run(100 * time.Millisecond)
			}
		}
		asked := func(request string) {
			t.Helper()
			for began := s.now; len(s.sent) == 0 && s.now.Sub(began) < 3*time.Second; {
				flow(100*time.Millisecond, false)
			}
			s.expect(request)
		}
		flow(20*time.Second, true)
		s.run(20 * time.Second) // nothing to answer
		s.expect()
		asked("c021 09 01 0008 01020304")
		s.recv("c021 0a 01 0008 a1a2a3a4")
		s.now = s.now.Add(2 * time.Second) // a slow machine looks late
		tx = s.now
		s.run(0)
		s.expect("c021 09 02 0008 01020304")
		s.recv("c021 0a 02 0008 a1a2a3a4")
		flow(2*time.Second, true)
		s.expect()
		if silent != 0 {
			t.Fatalf("%v: silent, though every question was answered", unit)
		}
		asked("c021 09 03 0008 01020304")
		flow(1100*time.Millisecond, false)
		if silent != 1 {
			t.Fatalf("%v: silence was told %d times", unit, silent)
		}
		flow(5*time.Second, false)
		flow(2*time.Second, true) // mended
		flow(5*time.Second, false)
		if silent != 1 {
			t.Errorf("%v: silence was told %d times within one keepalive", unit, silent)
		}
		s.expect("c021 09 04 0008 01020304")
		flow(2*time.Second, true)
		flow(15*time.Second, false)
		flow(2*time.Second, true)
		flow(5*time.Second, false)
		if silent != 2 || s.cause != nil {
			t.Errorf("%v: silence was told %d times, the end: %v", unit, silent, s.cause)
		}
	}
}

// TestKeepaliveTraffic: who sends data is alive, whether the data path knows ages or counts only.
func TestKeepaliveTraffic(t *testing.T) {
	for _, blind := range []bool{false, true} {
		var traffic Traffic
		var last time.Time
		s := up(t, serverConfig(), func(s *station, _ *Env) {
			last = s.now
			s.traffic = func() Traffic {
				traffic.RxIdle, traffic.TxIdle = s.now.Sub(last), s.now.Sub(last)
				if blind {
					traffic.RxIdle, traffic.TxIdle = -1, -1
				}
				return traffic
			}
		})
		for range 100 {
			s.run(7 * time.Second)
			traffic.Rx++
			last = s.now
		}
		s.expect()
		if idle := s.link.Snapshot(s.now).Idle; idle != 0 {
			t.Errorf("idle %v", idle)
		}
		s.run(39 * time.Second) // then silence: 30 s, and what counters are behind
		if len(s.sent) == 0 {
			t.Errorf("blind %v: no echo", blind)
		}
		s.run(10 * time.Second)
		s.ended(CauseKeepalive)
	}
}

// TestKeepaliveRoundedAges: a data path that counts in whole seconds, asked a little late each time, dates its last packet
// anew with every answer. The peer is silent all the same.
func TestKeepaliveRoundedAges(t *testing.T) {
	var last time.Time
	s := up(t, serverConfig(), func(s *station, _ *Env) {
		last = s.now
		s.traffic = func() Traffic {
			age := s.now.Sub(last).Truncate(time.Second)
			return Traffic{RxIdle: age, TxIdle: age}
		}
	})
	start := s.now
	for s.cause == nil && s.now.Sub(start) < 2*time.Minute {
		s.now = s.link.Deadline().Add(3 * time.Millisecond)
		s.link.Tick(s.now)
		s.run(0) // Terminate-Requests to nobody
	}
	s.ended(CauseKeepalive)
	if took := s.now.Sub(start); took > serverConfig().Keepalive+15*time.Second {
		t.Errorf("noticed after %v", took)
	}
}

func TestTimeouts(t *testing.T) {
	c := serverConfig()
	c.Keepalive = 0
	s := up(t, c, func(s *station, _ *Env) { s.users.grant.SessionTimeout = time.Hour })
	s.run(time.Hour - time.Second)
	if s.cause != nil {
		t.Fatal(s.cause)
	}
	s.run(10 * time.Second)
	s.ended(CauseSessionTimeout)

	for _, blind := range []bool{false, true} {
		var traffic Traffic
		last := epoch
		s = up(t, c, func(s *station, _ *Env) {
			s.users.grant.IdleTimeout = 10 * time.Minute
			s.traffic = func() Traffic {
				traffic.RxIdle, traffic.TxIdle = s.now.Sub(epoch), s.now.Sub(last)
				if blind {
					traffic.RxIdle, traffic.TxIdle = -1, -1
				}
				return traffic
			}
		})
		for range 5 {
			s.run(9 * time.Minute)
			traffic.Tx += 1500
			last = s.now
		}
		if s.cause != nil {
			t.Fatal(s.cause)
		}
		s.run(9 * time.Minute)
		if s.cause != nil {
			t.Fatalf("blind %v: %v", blind, s.cause)
		}
		s.run(5 * time.Minute)
		s.ended(CauseIdleTimeout)
	}
}

func TestLoopedLine(t *testing.T) {
	s := newStation(t, "server", serverConfig(), nil)
	s.carry = func(f []byte) { s.link.Receive(s.now, f) }
	s.link.Start(s.now)
	s.run(time.Minute)
	s.ended(CauseLooped)
}

func TestOutOfPhase(t *testing.T) {
	s := newStation(t, "server", serverConfig(), nil)
	s.recv("c021 01 01 0004") // before Start
	s.link.Start(s.now)
	s.sent = nil
	s.recv("c223 02 01 0036 31" + strings.Repeat("00", 49))
	s.recv("8021 01 01 000a 0306 00000000")
	s.recv("80fd 01 01 0004")
	s.recv("c021 09 01 0008 00000000") // echo before opened
	s.recv("c021 08 01 0006 8021")
	s.expect()

	s = opened(t, serverConfig(), nil)
	s.sent = nil
	s.recv("c023 01 01 000e 05 7573657231 03 616263") // PAP was not agreed on
	s.recv("c227 02 01 0004")
	s.recv("8021 01 01 000a 0306 00000000")
	s.recv("80fd 01 01 0004")
	s.recv("c223 03 01 0004") // success to nothing
	s.recv("c223 01 01 0009 04 01020304")
	s.recv(respond(t, 2, "user1", "secret")) // to no challenge of ours
	s.expect()
	if s.users.asked != 0 {
		t.Error("asked")
	}
	s.recv("c021 08 01 0006 c223") // it refuses what it agreed to
	s.run(10 * time.Second)
	s.ended(CauseNoCommonAuth)

	s = loggedIn(t, serverConfig(), nil)
	s.sent = nil
	s.recv("c223 02 02 0036 31" + strings.Repeat("00", 49)) // a second login on a link that has one
	s.expect()
	s.recv("c021 08 01 0006 8021") // no IPCP
	s.run(10 * time.Second)
	s.ended(CauseNoNetwork)

	// LCP over again after the login: the link ends, it does not change hands.
	s = up(t, serverConfig(), nil)
	s.recv("c021 01 07 000e 01040578 0506 b1b2b3b4")
	s.run(10 * time.Second)
	s.ended(CausePeerTerminated)
	if s.users.released != 1 {
		t.Errorf("released %d", s.users.released)
	}
}

// TestCopies: copies of a request that was answered do not bring an open layer down; going on for ever does.
func TestCopies(t *testing.T) {
	s := up(t, serverConfig(), nil)
	for range maxRepeats {
		s.recv("8021 01 01 000a 0306 c0a8630a")
		s.expect("8021 02 01 000a 0306 c0a8630a")
	}
	s.had("open", "ipup", "up")
	s.recv("8021 01 01 000a 0306 c0a8630a")
	s.had("open", "ipup", "up", "ipdown")
	s.expect("8021 01 02 000a 0306 c0a86301", "8021 02 01 000a 0306 c0a8630a")
	s.recv("8021 02 02 000a 0306 c0a86301")
	s.had("open", "ipup", "up", "ipdown", "ipup")
	// Under a new identifier it lacks our half.
	s.recv("8021 01 05 000a 0306 c0a8630a")
	s.expect("8021 02 05 000a 0306 c0a8630a", "8021 01 02 000a 0306 c0a86301")
	s.recv("8021 02 02 000a 0306 c0a86301")
	s.had("open", "ipup", "up", "ipdown", "ipup")
}

func TestRefusals(t *testing.T) {
	s := up(t, serverConfig(), nil)
	// Code-Reject of a code nobody knows, for LCP and IPCP, cut to the peer's MRU.
	s.recv("c021 2a 07 0006 abcd")
	s.expect("c021 07 02 000a 2a 07 0006 abcd")
	s.recv("8021 08 07 0006 abcd") // IPCP has no Protocol-Reject
	s.expect("8021 07 02 000a 08 07 0006 abcd")
	big := append(unhex(t, "80fd 01 01"), make([]byte, 1496)...)
	big[4], big[5] = 1498>>8, 1498&255
	s.link.Receive(s.now, big)
	if n := len(s.sent[0]); n != 2+1400 {
		t.Errorf("Protocol-Reject of %d octets to a peer that takes 1400", n-2)
	}
	s.sent = nil
	echo := append(unhex(t, "c021 09 01 05d8"), make([]byte, 0x5d8-4)...)
	s.link.Receive(s.now, echo)
	if n := len(s.sent[0]); n != 2+1400 {
		t.Errorf("Echo-Reply of %d octets to a peer that takes 1400", n-2)
	}
	s.sent = nil
	for range 100 {
		s.recv("80fd 01 01 0004")
	}
	if n := len(s.sent); n == 0 || n > bucketBurst {
		t.Errorf("%d refusals at once", n)
	}
	s.run(5 * time.Second)
	s.sent = nil
	for range 100 {
		s.recv("80fd 01 01 0004")
	}
	if n := len(s.sent); n != 5 {
		t.Errorf("%d refusals after 5 s", n)
	}
	// A peer that cannot do what LCP stands on.
	s.recv("c021 07 01 0008 09 01 0008")
	if s.cause != nil || s.link.lcp.state != Opened {
		t.Error("a refused echo ended the link")
	}
	s.recv("c021 07 01 0008 01 01 0008")
	s.run(10 * time.Second)
	if s.cause == nil {
		t.Error("a refused Configure-Request did not end the link")
	}
}

func TestUserNameInLog(t *testing.T) {
	s := opened(t, serverConfig(), nil)
	s.recv(respond(t, 1, "evil\n\x1b[2Jname", "secret"))
	log := s.log.String()
	if s.users.last.User != "evil\n\x1b[2Jname" || strings.ContainsAny(strings.ReplaceAll(log, "\n", ""), "\x1b") {
		t.Errorf("%q", log)
	}
	if got := s.link.Snapshot(s.now).User; got != `evil\x0a\x1b[2Jname` {
		t.Errorf("%q", got)
	}
}

func TestSecretsNotLogged(t *testing.T) {
	cfg := serverConfig()
	cfg.Auth = []aaa.Method{aaa.PAP}
	s := opened(t, cfg, nil)
	s.recv("c023 01 01 0013 05 7573657231 08 68756e7465723221")
	if s.users.asked != 1 || bytes.Contains(s.log.Bytes(), []byte("hunter2")) {
		t.Errorf("asked %d: %s", s.users.asked, s.log.String())
	}
}

// TestAllocations: a link that is up makes next to no garbage.
func TestAllocations(t *testing.T) {
	s := up(t, serverConfig(), nil)
	s.link.env.Send = func([]byte) {}
	frame := unhex(t, "c021 09 01 0008 a1a2a3a4")
	if n := testing.AllocsPerRun(200, func() { s.link.Receive(s.now, frame) }); n > 2 {
		t.Errorf("%v allocations per echo", n)
	}
	unknown := unhex(t, "80fd 01 01 0004")
	if n := testing.AllocsPerRun(200, func() { s.link.Receive(s.now, unknown) }); n > 0 {
		t.Errorf("%v allocations per refused frame once the limit is reached", n)
	}
	if n := testing.AllocsPerRun(200, func() { s.link.Tick(s.now); s.link.Deadline() }); n > 0 {
		t.Errorf("%v allocations per idle tick", n)
	}
}
