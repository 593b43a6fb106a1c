package control

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"time"
	"unicode/utf8"
)

// DefaultPath is where the daemon listens and clients look.
const DefaultPath = "/run/culvert/control.sock"

// Exit statuses of commands, and of the program.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

const (
	maxRequest  = 64 << 10         // octets of a request line
	maxFrame    = 16 << 10         // octets of text in one line of an answer
	maxAnswer   = 8 * maxFrame     // octets of such a line: JSON may escape every character
	firstWait   = 10 * time.Second // for the first request of a connection
	idleWait    = 5 * time.Minute  // for further ones
	writeWait   = 10 * time.Second // for a peer that does not read
	dialWait    = 5 * time.Second
	restartWait = 20 * time.Second // for a daemon that begins anew
	leaveWait   = 2 * time.Second  // for the commands that it still carries out: one that watches something has no end
	maxSessions = 16               // connections at a time
)

// Request is a command, and what the session remembers that it is part of.
type Request struct {
	Command string `json:"command"`
	JSON    bool   `json:"json,omitempty"`
	// Verb is what is to be done with Command; nothing: carry it out.
	Verb Verb `json:"verb,omitempty"`
	// Session, Confirmed, ReadOnly and Redraw are as the console has them.
	Session   bool `json:"session,omitempty"`
	Confirmed bool `json:"confirmed,omitempty"`
	ReadOnly  bool `json:"read-only,omitempty"`
	Redraw    bool `json:"redraw,omitempty"`
	// Width is the terminal's, in columns.
	Width int `json:"width,omitempty"`
	// User and Password are of Login and FirstUser.
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	// At is the menu of the session; the answer brings the one that was entered.
	At string `json:"at,omitempty"`
	// Identity is the router's name, which the answer brings.
	Identity string `json:"-"`
}

// Verb is what a request wants.
type Verb string

const (
	Execute   Verb = ""
	Complete  Verb = "complete"   // what could follow Command; the output is JSON
	Hello     Verb = "hello"      // who this is, and whether there are users; the output is JSON
	Login     Verb = "login"      // is it User's Password; the output is JSON
	FirstUser Verb = "first-user" // make User with Password, where there is no user yet
)

// Greeting is the daemon's answer to Hello.
type Greeting struct {
	Identity string `json:"identity"`
	Version  string `json:"version"`
	Users    int    `json:"users"`
}

// Admission is the daemon's answer to a login that is right.
type Admission struct {
	ReadOnly bool `json:"read-only"`
}

// Completion is what could follow what has been typed.
type Completion struct {
	// Typed is how many octets at the end of the text each word begins with.
	Typed int    `json:"typed"`
	Words []Word `json:"words"`
}

// Word is one way to go on.
type Word struct {
	Text  string `json:"text"`
	About string `json:"about,omitempty"`
	// End is what follows the word when it is the only one: a blank, or nothing after `name=`.
	End string `json:"end,omitempty"`
}

// answer is a line of output when Exit is nil, and the last line otherwise.
type answer struct {
	Output   string `json:"output,omitempty"`
	Exit     *int   `json:"exit,omitempty"`
	Error    string `json:"error,omitempty"`
	Ask      string `json:"ask,omitempty"` // the command waits for a yes
	At       string `json:"at,omitempty"`
	Identity string `json:"identity,omitempty"`
}

func writeAnswer(c net.Conn, a answer) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	c.SetWriteDeadline(time.Now().Add(writeWait))
	if _, err = c.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("the console went away: %w", err)
	}
	return nil
}

// frames cuts what a command writes into answers, never within a character: JSON has no way to carry half of one.
type frames struct {
	conn net.Conn
	tail []byte // an incomplete character at the end of what was written
	err  error
}

var _ io.Writer = (*frames)(nil)

func (f *frames) Write(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n := len(p)
	if len(f.tail) > 0 {
		p = append(f.tail, p...)
		f.tail = nil
	}
	for len(p) > 0 {
		chunk := p[:min(len(p), maxFrame)]
		cut := completeLen(chunk)
		if cut == 0 {
			f.tail = append([]byte(nil), p...)
			break
		}
		if f.err = writeAnswer(f.conn, answer{Output: string(chunk[:cut])}); f.err != nil {
			return 0, f.err
		}
		p = p[cut:]
	}
	return n, nil
}

// flush sends what was held back, which no further octet will complete.
func (f *frames) flush() {
	if len(f.tail) > 0 && f.err == nil {
		f.err = writeAnswer(f.conn, answer{Output: string(f.tail)})
		f.tail = nil
	}
}

// completeLen is how much of b ends with a whole character.
func completeLen(b []byte) int {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return len(b) - i
			}
			break
		}
	}
	return len(b)
}
