package explain

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Messages of the log that mark how far a client came.
const (
	phase1Up         = "phase 1 up"
	phase1Unfinished = "phase 1 not finished"
	pairUp           = "SA pair installed"
	ipsecClosed      = "closed"
	tunnelUp         = "tunnel up"
	loggedIn         = "login"
	linkDown         = "link down"
	deadPeer         = "dead peer"
)

// State is how far a client has come.
type State string

const (
	Unknown   State = "unknown"
	Failed    State = "failed"
	Trying    State = "connecting"
	Connected State = "connected"
	Gone      State = "disconnected"
)

// assume is what Windows does by default to a server behind a NAT: nothing.
const assume = "this server is behind a NAT, and Windows does not connect to such servers by default: " +
	`set the client's registry value HKLM\SYSTEM\CurrentControlSet\Services\PolicyAgent\AssumeUDPEncapsulationContextOnSendRule to 2 and restart it, or give the server a public address`

// judge says how a client stands, and in one sentence why.
func judge(events []Event) (State, string) {
	if len(events) == 0 {
		return Unknown, "nothing is known"
	}
	attempt := lastAttempt(events)
	last := &attempt[len(attempt)-1]
	if i := lastIndex(attempt, loggedIn); i >= 0 {
		login := &attempt[i]
		if j := lastIndex(attempt, linkDown); j > i {
			return Gone, fmt.Sprintf("%s was connected and is not any more: %s", login.Get("user"), attempt[j].Get("reason"))
		}
		if j := lastIndex(attempt, deadPeer); j > i {
			return Gone, fmt.Sprintf("%s was connected, and does not answer any more: its device or its network is off", login.Get("user"))
		}
		return Connected, fmt.Sprintf("%s is connected with %s since %s", login.Get("user"), login.Get("address"), login.Time.Format("15:04:05"))
	}
	// A warning says what is wrong; the last one is the nearest to the end.
	for i := len(attempt) - 1; i >= 0; i-- {
		if attempt[i].Level >= slog.LevelWarn {
			return Failed, sentence(&attempt[i])
		}
	}
	var up *Event
	if i := lastIndex(attempt, phase1Up); i >= 0 {
		up = &attempt[i]
	}
	ended := lastIndex(attempt, ipsecClosed) >= 0
	switch {
	case last.Message == phase1Unfinished && windowsToNAT(last), up != nil && windowsToNAT(up) && lastIndex(attempt, tunnelUp) < 0 && ended:
		return Failed, assume
	case last.Message == phase1Unfinished:
		return Failed, fmt.Sprintf("the client stopped in the middle of phase 1 (%s): its pre-shared key or its identity check refuses us, or UDP port 4500 is blocked on the way: compare the keys, let UDP 4500 through", last.Get("state"))
	case lastIndex(attempt, tunnelUp) >= 0 && ended:
		return Failed, "L2TP came up and PPP did not finish: " + reason(attempt)
	case lastIndex(attempt, pairUp) >= 0 && ended:
		return Failed, "IPsec is up and no L2TP came through it: ESP (or UDP port 4500) is blocked on the way, or the client's L2TP did not start: let both through (" + reason(attempt) + ")"
	case up != nil && ended:
		return Failed, "phase 1 came up and no SAs followed: " + reason(attempt)
	case last.Get("cause") != "":
		return Failed, last.Message + ": " + last.Get("cause")
	}
	return Trying, "it got as far as \"" + last.Message + "\", and nothing has failed so far"
}

// lastAttempt cuts off what a former connection has left behind: an attempt begins with phase 1 of a client that has none,
// or with L2TP's tunnel where there is no IPsec.
func lastAttempt(events []Event) []Event {
	for i := len(events) - 1; i > 0; i-- {
		switch before := events[i-1].Message; events[i].Message {
		case phase1Up, phase1Unfinished:
			if slices.Contains([]string{ipsecClosed, linkDown, phase1Unfinished}, before) || events[i-1].Level >= slog.LevelWarn {
				return events[i:]
			}
		case tunnelUp:
			if events[i].Get("peer") != "" && !strings.Contains(events[i].Get("peer"), " via ") && before != tunnelUp {
				return events[i:]
			}
		default:
			if events[i].Level >= slog.LevelWarn && (before == ipsecClosed || before == phase1Unfinished) {
				return events[i:]
			}
		}
	}
	return events
}

func lastIndex(events []Event, message string) int {
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].Message == message {
			return i
		}
	}
	return -1
}

func windowsToNAT(e *Event) bool {
	return strings.HasPrefix(e.Get("client"), "Windows") && (e.Get("nat") == "local" || e.Get("nat") == "both")
}

// reason is the last that is given.
func reason(events []Event) string {
	for i := len(events) - 1; i >= 0; i-- {
		for _, key := range []string{"reason", "cause", "problem"} {
			if s := events[i].Get(key); s != "" {
				return s
			}
		}
	}
	return "no reason is known"
}

// sentence is what a warning says, with what it needs of its keys.
func sentence(e *Event) string {
	switch {
	case strings.HasPrefix(e.Message, "no common phase 1 proposal"):
		return fmt.Sprintf("peer offers only %s, and %s is accepted: add one of the offered to enc-algorithm, hash-algorithm and dh-group of the profile", e.Get("offered"), e.Get("accepted"))
	case strings.HasPrefix(e.Message, "quick mode refused: no common suite"):
		return fmt.Sprintf("peer offers only %s for ESP, and %s is accepted: add one of the offered to enc-algorithms and auth-algorithms of the proposal", e.Get("offered"), e.Get("accepted"))
	case strings.HasPrefix(e.Message, "pre-shared key differs"):
		return fmt.Sprintf("pre-shared key differs: message 5 decrypts with none of %s keys: set the same ipsec-secret on both sides", e.Get("keys"))
	case strings.HasPrefix(e.Message, "message 5 "):
		return "pre-shared key differs: " + strings.Replace(e.Message, ": the pre-shared keys differ", "", 1)
	}
	s := e.Message
	for _, key := range []string{"cause", "problem", "error"} {
		if v := e.Get(key); v != "" {
			return s + ": " + v
		}
	}
	return s
}

// silentFailure is the cause where a client has just failed and no warning has said why; about is who it is.
func (b *Book) silentFailure(e *Event) (text, about string) {
	if e.Message != ipsecClosed && e.Message != phase1Unfinished {
		return "", ""
	}
	addr := addrOf(e)
	b.mu.Lock()
	defer b.mu.Unlock()
	el := b.clients[addr]
	if el == nil {
		return "", ""
	}
	attempt := lastAttempt(el.Value.(*history).events)
	if slices.ContainsFunc(attempt, func(e Event) bool { return e.Level >= slog.LevelWarn }) {
		return "", ""
	}
	if state, cause := judge(attempt); state == Failed {
		return cause, e.Get("remote")
	}
	return "", ""
}
