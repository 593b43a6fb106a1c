package ppp

import (
	"bytes"
	"time"

	"culvert/ppp/aaa"
)

// Codes of CHAP and both MS-CHAPs (RFC 1994 section 4).
const (
	chapChallenge = 1
	chapResponse  = 2
	chapSuccess   = 3
	chapFailure   = 4
)

// chapValue is the data of a Challenge or Response.
func chapValue(value []byte, name string) []byte {
	b := append([]byte{uint8(len(value))}, value...)
	return append(b, name...)
}

// parseCHAP takes a Challenge's or Response's data apart. A name is as long as the packet allows, and no longer than 255.
func parseCHAP(b []byte) (value []byte, name string, err error) {
	if len(b) < 1 || int(b[0]) > len(b)-1 {
		return nil, "", errTruncated
	}
	n := 1 + int(b[0]) // not in an octet: 255 is a length too
	value, b = b[1:n], b[n:]
	if len(value) == 0 || len(b) > 255 {
		return nil, "", errTruncated
	}
	return value, string(b), nil
}

// challengeLen and responseLen are the sizes of CHAP's value per method.
func challengeLen(m aaa.Method) int {
	if m == aaa.MSCHAP1 {
		return aaa.MSCHAP1ChallengeLen
	}
	return aaa.MSCHAP2ChallengeLen // which MD5 gets as well
}

func responseLen(m aaa.Method) int {
	if m == aaa.CHAP {
		return 16
	}
	return aaa.MSCHAPResponseLen
}

// receiveCHAP takes a CHAP packet in the authenticate phase or later.
func (l *Link) receiveCHAP(p packet) {
	if p.code == chapResponse {
		l.server.receiveCHAP(p)
	} else {
		l.client.receiveCHAP(p)
	}
}

func (s *authServer) newChallenge() {
	s.challenge = make([]byte, challengeLen(s.method))
	s.l.random(s.challenge)
	s.sends = 0
	s.id++
}

func (s *authServer) sendChallenge() {
	s.sends++
	s.timer = s.l.now.Add(s.l.cfg.Restart)
	s.l.send(ProtoCHAP, chapChallenge, s.id, chapValue(s.challenge, s.l.cfg.Name))
}

func (s *authServer) receiveCHAP(p packet) {
	if s.proto() != ProtoCHAP || len(p.data) > maxLoginData || s.duplicate(p) || s.state != serverWaiting {
		return
	}
	if p.id != s.id && !(s.retrying && p.id == s.answerID) {
		return
	}
	value, name, err := parseCHAP(p.data)
	if err != nil || len(value) != responseLen(s.method) {
		s.l.drop("malformed packet", ProtoCHAP)
		return
	}
	s.ask(p, aaa.Request{User: name, Response: bytes.Clone(value)})
}

func (k *authClient) receiveCHAP(p packet) {
	if k.proto() != ProtoCHAP {
		return
	}
	switch p.code {
	case chapChallenge:
		k.challenged(p)
	case chapSuccess, chapFailure:
		// One that we did not earn with a response proves nothing.
		if k.done || k.out == nil || p.id != k.id {
			return
		}
		if p.code == chapFailure {
			k.fail(failureReason(k.method, p.data))
		} else if k.method == aaa.MSCHAP2 && !aaa.VerifyMSCHAP2Success(string(p.data), k.challenge, k.response, k.l.cfg.User, string(k.l.cfg.Password)) {
			k.l.log.Warn("the server did not prove that it knows our password: it is not the one it claims to be", "user", printable(k.l.cfg.User))
			k.timer = time.Time{}
			k.l.terminate(Cause{CauseAuthFailed, "the server does not know our password"})
		} else {
			k.succeed()
		}
	}
}

// challenged answers a Challenge. The same one again gets the same answer; a new one, even on an open link, a new answer.
func (k *authClient) challenged(p packet) {
	value, _, err := parseCHAP(p.data)
	if err != nil || (k.method != aaa.CHAP && len(value) != challengeLen(k.method)) {
		k.l.drop("malformed packet", ProtoCHAP)
		return
	}
	if k.out == nil || p.id != k.id || !bytes.Equal(value, k.challenge) {
		password := string(k.l.cfg.Password)
		var response []byte
		switch k.method {
		case aaa.CHAP:
			response = aaa.CHAPResponse(p.id, password, value)
		case aaa.MSCHAP1:
			response, err = aaa.MSCHAP1Response(value, password)
		case aaa.MSCHAP2:
			var own [aaa.MSCHAP2ChallengeLen]byte
			k.l.random(own[:])
			response, err = aaa.MSCHAP2Response(value, own[:], k.l.cfg.User, password)
		}
		if err != nil || response == nil {
			return
		}
		user := k.l.cfg.User
		k.id, k.challenge, k.response = p.id, bytes.Clone(value), response
		k.out = chapValue(response, user[:min(len(user), 255)])
		k.sends = 0
	}
	k.transmit()
}

// keys are the MPPE start keys our login gave, seen from our side.
func (k *authClient) keys() (send, recv []byte) {
	password := string(k.l.cfg.Password)
	switch k.method {
	case aaa.MSCHAP1:
		key, err := aaa.MPPEKeys1(k.challenge, password)
		if err != nil {
			return nil, nil
		}
		return key, key
	case aaa.MSCHAP2:
		theirSend, theirRecv, err := aaa.MPPEKeys2(k.response, password)
		if err != nil {
			return nil, nil
		}
		return theirRecv, theirSend
	}
	return nil, nil
}
