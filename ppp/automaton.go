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
type action uint32

const (
	tld action = 0x100 << iota // This-Layer-Down
	irc                        // Initialize-Restart-Count
	zrc                        // Zero-Restart-Count
	scr                        // Send-Configure-Request
	str                        // Send-Terminate-Request
	sca                        // Send-Configure-Ack
	scn                        // Send-Configure-Nak or -Reject
	sta                        // Send-Terminate-Ack
	scj                        // Send-Code-Reject
	ser                        // Send-Echo-Reply
	tlu                        // This-Layer-Up
	tls                        // This-Layer-Started
	tlf                        // This-Layer-Finished
)

// cell is what an event leads to: actions, and below them whether the event can happen, the next state, and a footnote of
// the RFC's. So the table is data of the program, which nothing has to build.
type cell = action

const (
	legal     cell = 0x10
	nextState cell = 0x0f

	restart cell = 0x20 // footnote: restart option
	passive cell = 0x40 // passive option
	crossed cell = 0x80 // crossed connection

	actions = ^cell(0xff)
)

// The cells without an action, and none ('-'): the event cannot happen in this state, and is ignored.
const (
	none = cell(0)
	to0  = legal | cell(Initial)
	to1  = legal | cell(Starting)
	to2  = legal | cell(Closed)
	to3  = legal | cell(Stopped)
	to4  = legal | cell(Closing)
	to5  = legal | cell(Stopping)
	to6  = legal | cell(ReqSent)
	to7  = legal | cell(AckRcvd)
	to8  = legal | cell(AckSent)
	to9  = legal | cell(Opened)
)

// table is the one of RFC 1661 section 4.1: a line per event, a column per state, both in the RFC's order.
var table = [numEvents][numStates]cell{
	evUp:    {to2, to6 | irc | scr, none, none, none, none, none, none, none, none},
	evDown:  {none, none, to0, to1 | tls, to0, to1, to1, to1, to1, to1 | tld},
	evOpen:  {to1 | tls, to1, to6 | irc | scr, to3 | restart, to5 | restart, to5 | restart, to6, to7, to8, to9 | restart},
	evClose: {to0, to0 | tlf, to2, to2, to4, to4, to4 | irc | str, to4 | irc | str, to4 | irc | str, to4 | tld | irc | str},

	evTOp: {none, none, none, none, to4 | str, to5 | str, to6 | scr, to6 | scr, to8 | scr, none},
	evTOm: {none, none, none, none, to2 | tlf, to3 | tlf, to3 | tlf | passive, to3 | tlf | passive, to3 | tlf | passive, none},

	evRCRp: {none, none, to2 | sta, to8 | irc | scr | sca, to4, to5, to8 | sca, to9 | sca | tlu, to8 | sca, to8 | tld | scr | sca},
	evRCRm: {none, none, to2 | sta, to6 | irc | scr | scn, to4, to5, to6 | scn, to7 | scn, to6 | scn, to6 | tld | scr | scn},
	evRCA:  {none, none, to2 | sta, to3 | sta, to4, to5, to7 | irc, to6 | scr | crossed, to9 | irc | tlu, to6 | tld | scr | crossed},
	evRCN:  {none, none, to2 | sta, to3 | sta, to4, to5, to6 | irc | scr, to6 | scr | crossed, to8 | irc | scr, to6 | tld | scr | crossed},

	evRTR: {none, none, to2 | sta, to3 | sta, to4 | sta, to5 | sta, to6 | sta, to6 | sta, to6 | sta, to5 | tld | zrc | sta},
	evRTA: {none, none, to2, to3, to2 | tlf, to3 | tlf, to6, to6, to8, to6 | tld | scr},

	evRUC:  {none, none, to2 | scj, to3 | scj, to4 | scj, to5 | scj, to6 | scj, to7 | scj, to8 | scj, to9 | scj},
	evRXJp: {none, none, to2, to3, to4, to5, to6, to6, to8, to9},
	evRXJm: {none, none, to2 | tlf, to3 | tlf, to2 | tlf, to3 | tlf, to3 | tlf, to3 | tlf, to3 | tlf, to5 | tld | irc | str},

	evRXR: {none, none, to2, to3, to4, to5, to6, to7, to8, to9 | ser},
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
	if cl&legal == 0 {
		return
	}
	a.state = State(cl & nextState)
	do := cl & actions
	if cl&passive != 0 && a.passive {
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
	if cl&restart != 0 && a.restartable {
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
