package ppp

import (
	"bytes"

	"culvert/ppp/aaa"
)

// Codes of PAP (RFC 1334 section 2.2).
const (
	papReq = 1
	papAck = 2
	papNak = 3
)

// papRequest is the data of an Authenticate-Request. Longer than 255 octets neither field can be.
func papRequest(user, password string) []byte {
	user, password = user[:min(len(user), 255)], password[:min(len(password), 255)]
	b := append([]byte{uint8(len(user))}, user...)
	b = append(b, uint8(len(password)))
	return append(b, password...)
}

// parsePAP takes an Authenticate-Request's data apart.
func parsePAP(b []byte) (user string, password []byte, err error) {
	counted := func() (s []byte, ok bool) {
		if len(b) < 1 || int(b[0]) > len(b)-1 {
			return nil, false
		}
		n := 1 + int(b[0]) // not in an octet: 255 is a length too
		s, b = b[1:n], b[n:]
		return s, true
	}
	u, ok := counted()
	if !ok {
		return "", nil, errTruncated
	}
	p, ok := counted()
	if !ok {
		return "", nil, errTruncated
	}
	return string(u), p, nil
}

func papMessage(text string) []byte {
	return append([]byte{uint8(len(text))}, text...)
}

// receivePAP takes a PAP packet in the authenticate phase or later.
func (l *Link) receivePAP(p packet) {
	if p.code == papReq {
		l.server.receivePAP(p)
	} else {
		l.client.receivePAP(p)
	}
}

func (s *authServer) receivePAP(p packet) {
	if s.method != aaa.PAP || len(p.data) > maxLoginData || s.duplicate(p) || s.state != serverWaiting {
		return
	}
	user, password, err := parsePAP(p.data)
	if err != nil {
		s.l.drop("malformed packet", ProtoPAP)
		return
	}
	s.ask(p, aaa.Request{User: user, Response: bytes.Clone(password)})
}

func (k *authClient) receivePAP(p packet) {
	if k.method != aaa.PAP || k.done || k.out == nil || p.id != k.id {
		return
	}
	switch p.code {
	case papAck:
		k.succeed()
	case papNak:
		text := ""
		if len(p.data) > 0 {
			text = shorten(p.data[1:min(len(p.data), 1+int(p.data[0]))])
		}
		k.fail(text)
	}
}
