package ppp

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
)

// Codes of LCP and the NCPs (RFC 1661 section 5, RFC 1570).
const (
	codeConfReq  = 1
	codeConfAck  = 2
	codeConfNak  = 3
	codeConfRej  = 4
	codeTermReq  = 5
	codeTermAck  = 6
	codeCodeRej  = 7
	codeProtRej  = 8  // LCP only, as are all that follow
	codeEchoReq  = 9  //
	codeEchoRep  = 10 //
	codeDiscard  = 11 //
	codeIdent    = 12 // RFC 1570 section 2.1: Windows sends three of them
	codeTimeLeft = 13 // RFC 1570 section 2.2
)

const (
	// maxRepeats is how many copies of a Configure-Request that was already answered an open layer takes for what they
	// most often are: retransmissions that crossed our answer, or the network's own duplicates. Bringing the layer down
	// for them, as the table has it, would cost a login. A peer that goes on really means to start again.
	maxRepeats = 4
	// maxHints is how often a Configure-Nak may suggest options that the peer did not mention.
	maxHints = 2
)

// control is one control protocol: the automaton, and the packets and options around it.
type control struct {
	automaton
	link    *Link
	proto   Protocol
	options optionSet

	up, down, finished func()
	extra              func(p packet) bool // codes of this protocol alone; false: unknown

	id       uint8  // last identifier used
	sentID   uint8  // of the last Configure-Request,
	sent     []byte // its options as they went out,
	answered bool   // and whether it has been Acked, Naked or Rejected
	termID   uint8

	in     packet // the packet being handled; aliases the frame
	reply  []byte // option list of the answer to it
	code   uint8  // code of that answer
	naks   int    // Configure-Naks sent in a row
	rounds int    // Naks and Rejects received in a row
	// Requests answered lately, newest first, which of them was the last to be acknowledged, and its options alone.
	history      [4]uint64
	acked        uint64
	ackedOptions uint64
	repeats      int
}

func newControl(l *Link, proto Protocol, options optionSet) *control {
	c := &control{link: l, proto: proto, options: options}
	c.automaton = automaton{
		owner:        c,
		period:       l.cfg.Restart,
		maxConfigure: l.cfg.MaxConfigure,
		maxTerminate: l.cfg.MaxTerminate,
	}
	return c
}

// fingerprint tells Configure-Requests apart, with and without their identifier; zero means none.
func fingerprint(p packet) (whole, options uint64) {
	h := fnv.New64a()
	h.Write(p.data)
	options = h.Sum64() | 1
	h.Write([]byte{p.id})
	return h.Sum64() | 1, options
}

// receive takes one packet of this protocol, protocol field stripped.
func (c *control) receive(b []byte) {
	p, err := parsePacket(b)
	if err != nil {
		c.link.drop("malformed packet", c.proto)
		return
	}
	if c.state < Closed {
		return
	}
	c.in = p
	switch p.code {
	case codeConfReq:
		c.receiveRequest(p)
	case codeConfAck:
		if !c.expected(p) || (c.state >= ReqSent && !bytes.Equal(p.data, c.sent)) {
			return
		}
		c.answered = true
		c.rounds = 0
		c.handle(c.link.now, evRCA)
	case codeConfNak, codeConfRej:
		c.receiveRefusal(p)
	case codeTermReq:
		if c.proto == ProtoLCP {
			c.link.peerTerminates(p.data)
		}
		c.handle(c.link.now, evRTR)
	case codeTermAck:
		c.handle(c.link.now, evRTA)
	case codeCodeRej:
		if len(p.data) < 1 {
			return
		}
		if p.data[0] >= codeConfReq && p.data[0] <= codeCodeRej {
			c.handle(c.link.now, evRXJm)
		} else {
			c.handle(c.link.now, evRXJp)
		}
	default:
		if c.extra == nil || !c.extra(p) {
			c.handle(c.link.now, evRUC)
		}
	}
	c.in = packet{}
}

// expected reports whether an answer is one to our last Configure-Request, and the first to it. Where none is
// outstanding the automaton still wants to hear of it.
func (c *control) expected(p packet) bool {
	return c.state < ReqSent || (p.id == c.sentID && !c.answered)
}

func (c *control) receiveRequest(p packet) {
	if !wellFormed(p.data) {
		c.link.drop("malformed options", c.proto)
		return
	}
	print, options := fingerprint(p)
	if c.state == Opened && c.repeated(print, options) {
		return
	}
	if c.state != Stopped && c.state < ReqSent {
		c.handle(c.link.now, evRCRp) // the options do not matter: it is refused or ignored
		return
	}
	v, reply := c.options.consider(p.data, c.naks >= c.link.cfg.MaxFailure, c.naks < maxHints, c.reply[:0])
	if v != ack {
		c.reply = reply
	}
	again := c.history[0] == print // the answer was lost: this round has been counted
	if !again {
		c.remember(print)
	}
	switch v {
	case ack:
		c.naks = 0
		c.acked, c.ackedOptions = print, options
		c.handle(c.link.now, evRCRp)
	case nak:
		if !again {
			c.naks++
		}
		c.code = codeConfNak
		c.handle(c.link.now, evRCRm)
	case reject:
		c.code = codeConfRej
		c.handle(c.link.now, evRCRm)
	}
}

func (c *control) remember(print uint64) {
	copy(c.history[1:], c.history[:])
	c.history[0] = print
}

// repeated deals with a copy of a Configure-Request that was answered before this layer opened. A copy under a new
// identifier comes from a peer that has our answer and lacks our request: it gets both again.
func (c *control) repeated(print, options uint64) bool {
	if c.repeats >= maxRepeats {
		return false
	}
	for _, h := range c.history {
		if h != print {
			continue
		}
		c.repeats++
		if print == c.acked {
			c.perform(sca)
		}
		return true
	}
	if options != c.ackedOptions {
		return false
	}
	c.repeats++
	c.remember(print)
	c.acked = print
	c.perform(sca)
	c.link.send(c.proto, codeConfReq, c.sentID, c.sent)
	return true
}

func (c *control) receiveRefusal(p packet) {
	if !c.expected(p) || !wellFormed(p.data) {
		return
	}
	if c.state >= ReqSent {
		// A peer that never stops proposing must not keep us at it for ever.
		if c.rounds > 2*c.link.cfg.MaxFailure {
			c.link.terminate(Cause{CauseNegotiation, c.proto.String() + " does not converge"})
			return
		}
		if p.code == codeConfRej {
			if !c.options.rejected(c.sent, p.data) {
				return
			}
		} else {
			c.options.naked(c.sent, p.data)
		}
		c.rounds++
		c.answered = true
	}
	c.handle(c.link.now, evRCN)
}

// perform is the automaton's sending half.
func (c *control) perform(a action) {
	l := c.link
	switch a {
	case scr:
		// What was answered is never sent again unchanged: that the other half of the handshake is missing has to be said
		// with a new identifier, which a peer that already opened cannot take for a duplicate.
		if !c.resend || c.answered || c.sent == nil {
			c.id++
			c.sentID = c.id
			c.sent = c.options.appendRequest(c.sent[:0])
			c.answered = false
		}
		l.send(c.proto, codeConfReq, c.sentID, c.sent)
	case sca:
		l.send(c.proto, codeConfAck, c.in.id, c.in.data)
	case scn:
		l.send(c.proto, c.code, c.in.id, c.reply)
	case str:
		if !c.resend {
			c.id++
			c.termID = c.id
		}
		var why string
		if c.proto == ProtoLCP {
			why = l.cause.Code.String()
		}
		l.send(c.proto, codeTermReq, c.termID, []byte(why))
	case sta:
		l.send(c.proto, codeTermAck, c.in.id, nil)
	case scj:
		if !l.refusals.take(l.now) {
			return
		}
		c.id++
		b := append(c.reply[:0], c.in.code, c.in.id)
		b = binary.BigEndian.AppendUint16(b, uint16(headerLen+len(c.in.data)))
		b = append(b, c.in.data...)
		c.reply = b
		l.send(c.proto, codeCodeRej, c.id, b[:min(len(b), l.peerMRU()-headerLen)])
	case ser:
		if c.in.code == codeEchoReq {
			l.echoReply(c.in)
		}
	}
}

// layer is its other half: what the layers above and below are told.
func (c *control) layer(a action) {
	switch a {
	case tlu:
		c.repeats = 0
		c.rounds = 0
		if c.up != nil {
			c.up()
		}
	case tld:
		if c.down != nil {
			c.down()
		}
	case tlf:
		if c.finished != nil {
			c.finished()
		}
	}
}
