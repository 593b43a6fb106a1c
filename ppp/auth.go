package ppp

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"culvert/ppp/aaa"
)

const (
	// maxLogins is how often a user may mistype on one link.
	maxLogins = 3
	// maxResults is how often an authentication result is repeated unasked to a peer that has been silent since.
	maxResults = 3
	// maxLoginData bounds a response that is kept to recognise its duplicates: two counted strings.
	maxLoginData = 2 + 2*255
)

type serverState uint8

const (
	serverIdle    serverState = iota
	serverWaiting             // for the peer's response
	serverAsking              // the Authenticator has it
	serverGranted             // said Success
	serverRefused             // said Failure for the last time
)

// authServer lets the peer log in here. PAP and CHAP differ in what they send; when is the same.
type authServer struct {
	l      *Link
	method aaa.Method
	state  serverState

	id        uint8  // of the challenge that is out, or of the request being answered
	challenge []byte // CHAP value
	sends     int    // how often this challenge, or this result, went out
	timer     time.Time
	logins    int
	answerID  uint8 // with another challenge out inside a Failure: its identifier
	retrying  bool
	warned    bool // a refused login has been warned of

	// The last response and our answer to it, for duplicates: a second Authenticate would count as a second login.
	lastID    uint8
	last      []byte
	result    []byte
	resultFor packet // code and identifier of result
}

// start begins to wait for a login by method m.
func (s *authServer) start(m aaa.Method) {
	*s = authServer{l: s.l, method: m, state: serverWaiting, id: s.id}
	if m != aaa.PAP {
		s.newChallenge()
		s.sendChallenge()
	}
}

// stop forgets everything but the identifier in use.
func (s *authServer) stop() { *s = authServer{l: s.l, id: s.id} }

func (s *authServer) proto() Protocol { return methodProtocol(s.method) }

func methodProtocol(m aaa.Method) Protocol {
	switch m {
	case aaa.PAP:
		return ProtoPAP
	case aaa.CHAP, aaa.MSCHAP1, aaa.MSCHAP2:
		return ProtoCHAP
	}
	return 0
}

// duplicate answers a response that is the last one over again; what is still being decided is answered in its time.
func (s *authServer) duplicate(p packet) bool {
	if s.last == nil || p.id != s.lastID || !bytes.Equal(p.data, s.last) {
		return false
	}
	if s.result != nil {
		s.sendResult()
	}
	return true
}

func (s *authServer) sendResult() {
	s.l.send(s.proto(), s.resultFor.code, s.resultFor.id, s.result)
}

// ask hands a login to the Authenticator.
func (s *authServer) ask(p packet, r aaa.Request) {
	s.lastID, s.last, s.result = p.id, bytes.Clone(p.data), nil
	s.state = serverAsking
	s.timer = time.Time{}
	s.logins++
	l := s.l
	if l.env.Auth == nil {
		l.terminate(Cause{CauseInternal, "nobody to ask about logins"})
		return
	}
	l.authRun++
	run := l.authRun
	l.user = r.User
	r.Method, r.ID, r.Challenge = s.method, p.id, s.challenge
	r.Service, r.CallerID, r.NASPort = l.caller.Service, l.caller.CallerID, l.caller.NASPort
	l.env.Auth.Authenticate(r, func(g *aaa.Grant, j *aaa.Reject) { l.authenticated(run, g, j) })
}

// authenticated is the Authenticator's answer to login number run.
func (l *Link) authenticated(run uint32, g *aaa.Grant, j *aaa.Reject) {
	l.enter(l.now)
	defer l.leave()
	s := &l.server
	if run != l.authRun || l.dead || s.state != serverAsking || l.phase != PhaseAuthenticate || l.cause.Code != CauseNone {
		release(g) // too late
		return
	}
	l.authRun++ // a second answer is too late as well
	if g == nil && j == nil {
		j = &aaa.Reject{Code: aaa.AuthFailure, Text: "no answer"}
	}
	if g != nil {
		if cause, ok := l.admissible(g); !ok {
			release(g)
			g = nil
			j = &aaa.Reject{Code: aaa.AuthFailure, Text: cause.Text}
			l.refused(j, cause)
		}
	}
	if g == nil {
		s.refuse(j)
		return
	}
	s.state = serverGranted
	s.accept(g)
	s.sends = 1
	if s.method != aaa.PAP { // PAP's peer repeats its request
		s.timer = l.now.Add(l.cfg.Restart)
	}
	l.grant = g
	if g.User != "" {
		l.user = g.User
	}
	l.authProgress()
}

// admissible says whether we can carry out a grant at all.
func (l *Link) admissible(g *aaa.Grant) (Cause, bool) {
	switch {
	case g.Encrypt == aaa.EncryptRequired:
		return Cause{CauseEncryption, "the user's profile demands MPPE, which is not spoken here: use IPsec, and use-encryption=default in the profile"}, false
	case !g.Local.Unmap().Is4():
		return Cause{CauseNoAddress, "the user's profile has no local-address"}, false
	case !g.Remote.Unmap().Is4():
		return Cause{CauseNoAddress, "no remote-address for the user: set one in the secret or the profile, or enlarge the pool"}, false
	}
	return Cause{}, true
}

func release(g *aaa.Grant) {
	if g != nil && g.Release != nil {
		g.Release()
	}
}

// accept says Success in the method's words, and refuse its opposite.
func (s *authServer) accept(g *aaa.Grant) {
	if s.method == aaa.PAP {
		s.resultFor = packet{code: papAck, id: s.lastID}
		s.result = papMessage("Welcome")
	} else {
		s.resultFor = packet{code: chapSuccess, id: s.lastID}
		s.result = []byte(successText(s.method, g))
	}
	s.sendResult()
}

func (s *authServer) refuse(j *aaa.Reject) {
	l := s.l
	again := j.Retry && s.logins < maxLogins && (s.method == aaa.MSCHAP1 || s.method == aaa.MSCHAP2)
	switch s.method {
	case aaa.PAP:
		s.resultFor = packet{code: papNak, id: s.lastID}
		s.result = papMessage("Authentication failed")
	case aaa.CHAP:
		s.resultFor = packet{code: chapFailure, id: s.lastID}
		s.result = []byte("Authentication failed")
	default:
		s.newChallenge()
		s.resultFor = packet{code: chapFailure, id: s.lastID}
		s.result = []byte(failureText(s.method, j.Code, again, s.challenge))
		// RFC 2759 section 6 has the retry carry the Failure's identifier plus one; some keep the old one.
		s.answerID, s.id = s.lastID, s.lastID+1
	}
	s.sendResult()
	if again {
		l.logRefusal(j)
		s.state = serverWaiting
		s.retrying = true
		l.authBy = l.now.Add(l.cfg.AuthTimeout) // somebody is typing
		return
	}
	s.state = serverRefused
	if l.cause.Code == CauseNone {
		l.refused(j, Cause{CauseAuthFailed, "login of " + printable(l.user) + " refused: " + printable(j.Text)})
	}
}

// refused writes the one line that a login which came to nothing gets, and ends the link after what is being sent.
func (l *Link) refused(j *aaa.Reject, cause Cause) {
	l.logRefusal(j)
	l.terminate(cause)
}

// logRefusal is what the operator reads; the peer is told the code alone. Further tries on the same link are not worth
// another warning.
func (l *Link) logRefusal(j *aaa.Reject) {
	level := slog.LevelWarn
	if l.server.warned {
		level = slog.LevelInfo
	}
	l.server.warned = true
	l.log.Log(context.Background(), level, "login refused", "user", printable(l.user), "method", l.server.method.String(),
		"caller", printable(l.caller.CallerID), "error", int(j.Code), "cause", printable(j.Text))
}

func (s *authServer) deadline() time.Time { return s.timer }

func (s *authServer) tick(now time.Time) {
	if s.timer.IsZero() || now.Before(s.timer) {
		return
	}
	s.timer = time.Time{}
	switch s.state {
	case serverWaiting:
		if s.sends >= s.l.cfg.MaxConfigure {
			s.l.terminate(Cause{CauseAuthTimeout, "the peer does not answer the challenge"})
			return
		}
		s.sendChallenge()
	case serverGranted:
		// Most peers never repeat a response: if the Success was lost they would wait for it, and we for their IPCP.
		if s.sends < maxResults && !s.l.heardAfterAuth {
			s.sends++
			s.timer = now.Add(s.l.cfg.Restart)
			s.sendResult()
		}
	}
}

// authClient logs us in at the peer.
type authClient struct {
	l      *Link
	method aaa.Method
	done   bool

	id        uint8
	challenge []byte
	response  []byte // CHAP value last sent
	out       []byte // packet data last sent; nil: nothing yet
	sends     int
	timer     time.Time
}

func (k *authClient) start(m aaa.Method) {
	*k = authClient{l: k.l, method: m}
	if m == aaa.PAP {
		k.id = 1
		k.out = papRequest(k.l.cfg.User, string(k.l.cfg.Password))
		k.transmit()
	}
}

func (k *authClient) stop() { *k = authClient{l: k.l} }

func (k *authClient) proto() Protocol { return methodProtocol(k.method) }

func (k *authClient) transmit() {
	k.sends++
	k.timer = k.l.now.Add(k.l.cfg.Restart)
	code := uint8(chapResponse)
	if k.method == aaa.PAP {
		code = papReq
	}
	k.l.send(k.proto(), code, k.id, k.out)
}

func (k *authClient) deadline() time.Time { return k.timer }

func (k *authClient) tick(now time.Time) {
	if k.timer.IsZero() || now.Before(k.timer) {
		return
	}
	k.timer = time.Time{}
	if k.done {
		return
	}
	if k.sends >= k.l.cfg.MaxConfigure {
		k.l.terminate(Cause{CauseAuthTimeout, "the peer does not answer our login"})
		return
	}
	k.transmit()
}

func (k *authClient) succeed() {
	k.done = true
	k.timer = time.Time{}
	k.l.authProgress()
}

func (k *authClient) fail(text string) {
	k.timer = time.Time{}
	k.l.log.Warn("the peer refused our login", "user", printable(k.l.cfg.User), "method", k.method.String(), "cause", text)
	k.l.terminate(Cause{CauseAuthFailed, "the peer refused our login: " + text})
}
