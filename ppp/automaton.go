package ppp

import "time"

// State is a state of the option negotiation automaton (RFC 1661 section 4.2), numbered as there.
type State uint8

const (
	Initial State = iota
	Starting
	Closed
	Stopped
	Closing
	Stopping
	ReqSent
	AckRcvd
	AckSent
	Opened
	numStates
)

var stateNames = [numStates]string{
	"initial", "starting", "closed", "stopped", "closing", "stopping", "req-sent", "ack-rcvd", "ack-sent", "opened",
}

func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return "unknown"
}

// event is an event of RFC 1661 section 4.3, in the order of its table.
type event uint8

const (
	evUp    event = iota // the layer below is up
	evDown               // the layer below is down
	evOpen               // administrative open
	evClose              // administrative close
	evTOp                // TO+: timeout with counter > 0
	evTOm                // TO-: timeout with counter expired
	evRCRp               // RCR+: acceptable Configure-Request
	evRCRm               // RCR-: unacceptable Configure-Request
	evRCA                // Configure-Ack
	evRCN                // Configure-Nak or -Reject
	evRTR                // Terminate-Request
	evRTA                // Terminate-Ack
	evRUC                // unknown code
	evRXJp               // RXJ+: permitted Code- or Protocol-Reject
	evRXJm               // RXJ-: catastrophic Code- or Protocol-Reject
	evRXR                // echo or discard
	numEvents
)

// action is a set of the actions of RFC 1661 section 4.4. They are carried out from the lowest bit to the highest, which
// is an order that every cell of the table can live with.
type action uint16

const (
	tld action = 1 << iota // This-Layer-Down
	irc                    // Initialize-Restart-Count
	zrc                    // Zero-Restart-Count
	scr                    // Send-Configure-Request
	str                    // Send-Terminate-Request
	sca                    // Send-Configure-Ack
	scn                    // Send-Configure-Nak or -Reject
	sta                    // Send-Terminate-Ack
	scj                    // Send-Code-Reject
	ser                    // Send-Echo-Reply
	tlu                    // This-Layer-Up
	tls                    // This-Layer-Started
	tlf                    // This-Layer-Finished
)

type cell struct {
	next  State
	do    action
	legal bool
	note  byte // the footnote: r restart option, p passive option, x crossed connection
}

func to(next State, do action) cell               { return cell{next, do, true, 0} }
func noted(next State, do action, note byte) cell { return cell{next, do, true, note} }
func rfcRow(cells ...cell) (row [numStates]cell)  { copy(row[:], cells); return row }

var none cell // '-': the event cannot happen in this state, and is ignored

// table is the one of RFC 1661 section 4.1: a line per event, a column per state, both in the RFC's order.
var table = [numEvents][numStates]cell{
	evUp:    rfcRow(to(2, 0), to(6, irc|scr), none, none, none, none, none, none, none, none),
	evDown:  rfcRow(none, none, to(0, 0), to(1, tls), to(0, 0), to(1, 0), to(1, 0), to(1, 0), to(1, 0), to(1, tld)),
	evOpen:  rfcRow(to(1, tls), to(1, 0), to(6, irc|scr), noted(3, 0, 'r'), noted(5, 0, 'r'), noted(5, 0, 'r'), to(6, 0), to(7, 0), to(8, 0), noted(9, 0, 'r')),
	evClose: rfcRow(to(0, 0), to(0, tlf), to(2, 0), to(2, 0), to(4, 0), to(4, 0), to(4, irc|str), to(4, irc|str), to(4, irc|str), to(4, tld|irc|str)),

	evTOp: rfcRow(none, none, none, none, to(4, str), to(5, str), to(6, scr), to(6, scr), to(8, scr), none),
	evTOm: rfcRow(none, none, none, none, to(2, tlf), to(3, tlf), noted(3, tlf, 'p'), noted(3, tlf, 'p'), noted(3, tlf, 'p'), none),

	evRCRp: rfcRow(none, none, to(2, sta), to(8, irc|scr|sca), to(4, 0), to(5, 0), to(8, sca), to(9, sca|tlu), to(8, sca), to(8, tld|scr|sca)),
	evRCRm: rfcRow(none, none, to(2, sta), to(6, irc|scr|scn), to(4, 0), to(5, 0), to(6, scn), to(7, scn), to(6, scn), to(6, tld|scr|scn)),
	evRCA:  rfcRow(none, none, to(2, sta), to(3, sta), to(4, 0), to(5, 0), to(7, irc), noted(6, scr, 'x'), to(9, irc|tlu), noted(6, tld|scr, 'x')),
	evRCN:  rfcRow(none, none, to(2, sta), to(3, sta), to(4, 0), to(5, 0), to(6, irc|scr), noted(6, scr, 'x'), to(8, irc|scr), noted(6, tld|scr, 'x')),

	evRTR: rfcRow(none, none, to(2, sta), to(3, sta), to(4, sta), to(5, sta), to(6, sta), to(6, sta), to(6, sta), to(5, tld|zrc|sta)),
	evRTA: rfcRow(none, none, to(2, 0), to(3, 0), to(2, tlf), to(3, tlf), to(6, 0), to(6, 0), to(8, 0), to(6, tld|scr)),

	evRUC:  rfcRow(none, none, to(2, scj), to(3, scj), to(4, scj), to(5, scj), to(6, scj), to(7, scj), to(8, scj), to(9, scj)),
	evRXJp: rfcRow(none, none, to(2, 0), to(3, 0), to(4, 0), to(5, 0), to(6, 0), to(6, 0), to(8, 0), to(9, 0)),
	evRXJm: rfcRow(none, none, to(2, tlf), to(3, tlf), to(2, tlf), to(3, tlf), to(3, tlf), to(3, tlf), to(3, tlf), to(5, tld|irc|str)),

	evRXR: rfcRow(none, none, to(2, 0), to(3, 0), to(4, 0), to(5, 0), to(6, 0), to(7, 0), to(8, 0), to(9, ser)),
}

// performer carries out what the automaton decides.
type performer interface {
	perform(a action) // one of the sending actions
	layer(a action)   // one of tlu, tld, tls, tlf
}

// automaton is one instance of it with its restart timer and counter.
type automaton struct {
	state State
	owner performer

	period       time.Duration // restart timer
	maxConfigure int
	maxTerminate int
	passive      bool // option p: on TO- keep waiting for the peer
	restartable  bool // option r: Open in an open link starts it afresh

	counter int
	timer   time.Time // zero: not running
	resend  bool      // the scr or str being carried out answers a timeout
}

// handle moves the automaton. The state changes before the actions, so that what they call sees the new one.
func (a *automaton) handle(now time.Time, e event) {
	cl := table[e][a.state]
	if !cl.legal {
		return
	}
	a.state = cl.next
	do := cl.do
	if cl.note == 'p' && a.passive {
		do &^= tlf
	}
	if a.state < Closing || a.state == Opened {
		a.timer = time.Time{}
	}
	a.resend = e == evTOp
	for bit := tld; bit <= tlf; bit <<= 1 {
		if do&bit == 0 {
			continue
		}
		switch bit {
		case irc:
			a.counter = a.maxConfigure
			if do&str != 0 {
				a.counter = a.maxTerminate
			}
		case zrc: // one period for the peer to hear our Terminate-Ack, and to ask again if it did not
			a.counter = 0
			a.timer = now.Add(a.period)
		case scr, str:
			a.counter--
			a.timer = now.Add(a.wait(bit))
			a.owner.perform(bit)
		case tlu, tld, tls, tlf:
			a.owner.layer(bit)
		default:
			a.owner.perform(bit)
		}
	}
	if cl.note == 'r' && a.restartable {
		a.handle(now, evDown)
		a.handle(now, evUp)
	}
}

// hurried is how many requests wait a third of the period only. A peer that starts its PPP when the session below comes up
// misses the first one, and should not wait a whole period for the next.
const hurried = 2

// wait is the restart timer's initial value for the request about to be sent (RFC 1661 section 4.6 leaves it to us).
func (a *automaton) wait(bit action) time.Duration {
	if bit == scr && a.maxConfigure-a.counter <= hurried {
		return a.period / 3
	}
	return a.period
}

// deadline is when tick wants to be called; zero: never.
func (a *automaton) deadline() time.Time { return a.timer }

func (a *automaton) tick(now time.Time) {
	if a.timer.IsZero() || now.Before(a.timer) {
		return
	}
	if a.state < Closing || a.state == Opened {
		a.timer = time.Time{}
		return
	}
	// The actions set the timer again where it has to run on.
	a.timer = time.Time{}
	if a.counter > 0 {
		a.handle(now, evTOp)
	} else {
		a.handle(now, evTOm)
	}
}
