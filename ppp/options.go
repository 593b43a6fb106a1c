package ppp

import "bytes"

// verdict is the answer to one option of a peer's Configure-Request.
type verdict uint8

const (
	ack verdict = iota
	nak         // with another value
	reject
)

// option is one configuration option of one control protocol, both halves of it: what we ask of the peer, and what the
// peer asks of us. Options that are not in a protocol's list are rejected.
type option interface {
	kind() uint8
	// request returns the value to ask for; false: leave the option out.
	request() (value []byte, ok bool)
	// naked is the peer's counterproposal to what request returned last, rejected its refusal to hear of it.
	naked(value []byte)
	rejected()
	// reset forgets what the peer asked for, before another of its requests is looked at.
	reset()
	// consider judges what the peer asks for; value goes with nak.
	consider(value []byte) (v verdict, counter []byte)
	// missing is asked when the peer's request lacks the option: a value to suggest to it, or nil.
	missing() []byte
}

// passiveOption is the half that options have which we never ask for.
type passiveOption struct{}

func (passiveOption) request() ([]byte, bool) { return nil, false }
func (passiveOption) naked([]byte)            {}
func (passiveOption) rejected()               {}
func (passiveOption) reset()                  {}
func (passiveOption) missing() []byte         { return nil }

// nextOption splits one option off a list. ok is false at the end and at a malformed option; rest then tells which.
func nextOption(b []byte) (kind uint8, value, rest []byte, ok bool) {
	if len(b) < 2 || int(b[1]) < 2 || int(b[1]) > len(b) {
		return 0, nil, b, false
	}
	return b[0], b[2:b[1]], b[b[1]:], true
}

func appendOption(b []byte, kind uint8, value []byte) []byte {
	b = append(b, kind, uint8(2+len(value)))
	return append(b, value...)
}

// wellFormed reports whether the list can be walked to its very end.
func wellFormed(b []byte) bool {
	for {
		_, _, rest, ok := nextOption(b)
		if !ok {
			return len(rest) == 0
		}
		b = rest
	}
}

// findOption returns the first option of that kind.
func findOption(b []byte, kind uint8) (value []byte, ok bool) {
	for {
		k, v, rest, more := nextOption(b)
		if !more {
			return nil, false
		}
		if k == kind {
			return v, true
		}
		b = rest
	}
}

// optionSet is all the options of a protocol, in the order they are sent.
type optionSet []option

func (s optionSet) find(kind uint8) option {
	for _, o := range s {
		if o.kind() == kind {
			return o
		}
	}
	return nil
}

// appendRequest builds the option list of a Configure-Request.
func (s optionSet) appendRequest(b []byte) []byte {
	for _, o := range s {
		if v, ok := o.request(); ok {
			b = appendOption(b, o.kind(), v)
		}
	}
	return b
}

// consider judges a well-formed Configure-Request (RFC 1661 sections 5.1 to 5.4): rejections go before counterproposals,
// each option at most once, so that the answer is never longer than the request and a handful of octets. With final
// set, counterproposals have been made often enough and become rejections. reply is appended to buf, except that an
// acknowledgement is the request itself.
func (s optionSet) consider(request []byte, final, hint bool, buf []byte) (v verdict, reply []byte) {
	for _, o := range s {
		o.reset()
	}
	var seen [256]bool
	rejects, naks := buf[:0], []byte(nil)
	for b := request; ; {
		kind, value, rest, ok := nextOption(b)
		if !ok {
			break
		}
		b = rest
		judged, counter := reject, []byte(nil)
		if o := s.find(kind); o != nil && !seen[kind] {
			judged, counter = o.consider(value)
		}
		seen[kind] = true
		if judged == nak && final {
			judged = reject
		}
		switch judged {
		case reject:
			rejects = appendOption(rejects, kind, value)
		case nak:
			naks = appendOption(naks, kind, counter)
		}
	}
	if len(rejects) > 0 {
		return reject, rejects
	}
	if hint && !final {
		for _, o := range s {
			if seen[o.kind()] {
				continue
			}
			if value := o.missing(); value != nil {
				naks = appendOption(naks, o.kind(), value)
			}
		}
	}
	if len(naks) > 0 {
		return nak, naks
	}
	return ack, request
}

// naked hands out the values of a Configure-Nak. Options that were not asked for are suggestions, and not taken.
func (s optionSet) naked(sent, answer []byte) {
	var seen [256]bool
	for {
		kind, value, rest, ok := nextOption(answer)
		if !ok {
			return
		}
		answer = rest
		if _, asked := findOption(sent, kind); asked && !seen[kind] {
			seen[kind] = true
			s.find(kind).naked(value)
		}
	}
}

// rejected tells the options of a Configure-Reject. It reports false, and does nothing, unless all of them are among
// those sent, octet for octet, as RFC 1661 section 5.4 demands.
func (s optionSet) rejected(sent, answer []byte) bool {
	if len(answer) == 0 {
		return false
	}
	for b := answer; ; {
		kind, value, rest, ok := nextOption(b)
		if !ok {
			break
		}
		if v, asked := findOption(sent, kind); !asked || !bytes.Equal(v, value) {
			return false
		}
		b = rest
	}
	for {
		kind, _, rest, ok := nextOption(answer)
		if !ok {
			return true
		}
		s.find(kind).rejected()
		answer = rest
	}
}
