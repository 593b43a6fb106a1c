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
	maxSessions = 16 // connections at a time
)

type request struct {
	Command string `json:"command"`
	JSON    bool   `json:"json,omitempty"`
}

// answer is a line of output when Exit is nil, and the last line otherwise.
type answer struct {
	Output string `json:"output,omitempty"`
	Exit   *int   `json:"exit,omitempty"`
	Error  string `json:"error,omitempty"`
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
