package ppp

import (
	"encoding/binary"
	"slices"

	"culvert/ppp/aaa"
)

// authOption is the Authentication-Protocol (RFC 1661 section 6.2). What we request is how the peer is to log in here;
// what the peer requests is how we are to log in there.
type authOption struct {
	link    *Link
	demand  aaa.Method   // what we ask for now; 0: nothing
	refused []aaa.Method // what the peer would not have

	grant aaa.Method // what the peer asked for and we agreed to
	offer int        // next of Config.Allow to propose instead
}

func newAuthOption(l *Link) authOption {
	o := authOption{link: l}
	if len(l.cfg.Auth) > 0 {
		o.demand = l.cfg.Auth[0]
	}
	return o
}

// authValue is the option's value: the protocol, and CHAP's algorithm (RFC 1994 section 3, RFC 2433 section 3, RFC 2759 section 2).
func authValue(m aaa.Method) []byte {
	switch m {
	case aaa.PAP:
		return []byte{0xc0, 0x23}
	case aaa.CHAP:
		return []byte{0xc2, 0x23, 0x05}
	case aaa.MSCHAP1:
		return []byte{0xc2, 0x23, 0x80}
	case aaa.MSCHAP2:
		return []byte{0xc2, 0x23, 0x81}
	}
	return nil
}

// authMethod is the inverse; 0: none of ours.
func authMethod(v []byte) aaa.Method {
	if len(v) < 2 {
		return 0
	}
	switch p := Protocol(binary.BigEndian.Uint16(v)); {
	case p == ProtoPAP && len(v) == 2:
		return aaa.PAP
	case p == ProtoCHAP && len(v) == 3:
		switch v[2] {
		case 0x05:
			return aaa.CHAP
		case 0x80:
			return aaa.MSCHAP1
		case 0x81:
			return aaa.MSCHAP2
		}
	}
	return 0
}

func (*authOption) kind() uint8 { return optAuth }

func (o *authOption) request() ([]byte, bool) {
	v := authValue(o.demand)
	return v, v != nil
}

// naked moves on to what the peer would rather do, if that is allowed, else to the next in our order. Each is tried once.
func (o *authOption) naked(v []byte) {
	o.refused = append(o.refused, o.demand)
	allowed := o.link.cfg.Auth
	if m := authMethod(v); m != 0 && slices.Contains(allowed, m) && !slices.Contains(o.refused, m) {
		o.demand = m
		return
	}
	for _, m := range allowed {
		if !slices.Contains(o.refused, m) {
			o.demand = m
			return
		}
	}
	wants := "an unknown protocol"
	if m := authMethod(v); m != 0 {
		wants = m.String()
	} else if len(v) >= 2 {
		wants = Protocol(binary.BigEndian.Uint16(v)).String()
	}
	o.link.log.Warn("login refused: no common authentication: allow the method here, or another one at the client",
		"wanted", wants, "allowed", methodList(allowed), "caller", printable(o.link.caller.CallerID))
	o.link.terminate(Cause{CauseNoCommonAuth, "the peer wants " + wants + ", allowed is " + methodList(allowed)})
}

func (o *authOption) rejected() {
	if o.link.lcpOpts.magic.collisions > 0 {
		return // our own refusal, come back on a looped line; that will be noticed in its own right
	}
	o.link.log.Warn("login refused: the client will not authenticate itself: give it a user name and a password",
		"caller", printable(o.link.caller.CallerID))
	o.link.terminate(Cause{CauseNoCommonAuth, "the peer refuses to authenticate itself"})
}

func (o *authOption) reset() { o.grant = 0 }

func (o *authOption) consider(v []byte) (verdict, []byte) {
	allow := o.link.cfg.Allow
	if len(allow) == 0 {
		return reject, nil
	}
	if m := authMethod(v); m != 0 && slices.Contains(allow, m) {
		o.grant = m
		return ack, nil
	}
	m := allow[o.offer%len(allow)]
	o.offer++
	return nak, authValue(m)
}

func (*authOption) missing() []byte { return nil }

func methodList(ms []aaa.Method) string {
	s := ""
	for i, m := range ms {
		if i > 0 {
			s += ", "
		}
		s += m.String()
	}
	if s == "" {
		return "none"
	}
	return s
}
