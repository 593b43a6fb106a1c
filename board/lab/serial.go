package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Serial is a serial line with a person at it who reads, waits for a prompt, and types.
type Serial struct {
	out io.Writer

	mu      sync.Mutex
	unread  []byte // what Expect has not passed yet
	log     tail
	changed chan struct{} // closed and replaced at every arrival
	ended   chan struct{} // closed when the other end is gone
}

// maxUnread bounds what a line may say that nobody waits for.
const maxUnread = 1 << 20

func newSerial(in io.Writer, out io.Reader, copyTo io.Writer) *Serial {
	s := &Serial{out: in, log: tail{max: 400}, changed: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			if n > 0 {
				if copyTo != nil {
					copyTo.Write(buf[:n])
				}
				s.mu.Lock()
				s.log.Write(buf[:n])
				s.unread = append(s.unread, buf[:n]...)
				if over := len(s.unread) - maxUnread; over > 0 {
					s.unread = append([]byte(nil), s.unread[over:]...)
				}
				close(s.changed)
				s.changed = make(chan struct{})
				s.mu.Unlock()
			}
			if err != nil {
				return
			}
		}
	}()
	return s
}

// Send types text as it is; a line ends with "\r", as a terminal's Enter does.
func (s *Serial) Send(text string) error {
	_, err := io.WriteString(s.out, text)
	return err
}

// ErrNotSeen says that a line did not say in time what was waited for.
var ErrNotSeen = errors.New("the serial line did not say it")

// Expect waits until what was not yet read matches the regular expression, passes it, and returns the match and its groups.
func (s *Serial) Expect(timeout time.Duration, pattern string) ([]string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	over := false
	for {
		s.mu.Lock()
		m := re.FindSubmatchIndex(s.unread)
		changed := s.changed
		if m != nil {
			var groups []string
			for i := 0; i < len(m); i += 2 {
				g := ""
				if m[i] >= 0 {
					g = string(s.unread[m[i]:m[i+1]])
				}
				groups = append(groups, g)
			}
			s.unread = append([]byte(nil), s.unread[m[1]:]...)
			s.mu.Unlock()
			return groups, nil
		}
		s.mu.Unlock()
		if over {
			return nil, fmt.Errorf("%w in %v: %q; its last lines:\n%s", ErrNotSeen, timeout, pattern, s.Last(40))
		}
		select {
		case <-changed:
		case <-s.ended:
			over = true
		case <-timer.C:
			over = true
		}
	}
}

// Shell has a shell at its prompt run a command of one line, and returns what it printed and its exit status.
func (s *Serial) Shell(timeout time.Duration, command string) (output string, status int, err error) {
	// The marks are split where they are typed, so that the echo of the command is not taken for them.
	mark := rand.Text()[:8]
	split := mark[:4] + "''" + mark[4:]
	if err := s.Send(fmt.Sprintf("echo; echo %s; %s; echo %s:$?\r", split, command, split)); err != nil {
		return "", 0, err
	}
	if _, err := s.Expect(timeout, `\n`+mark+`\r*\n`); err != nil {
		return "", 0, err
	}
	m, err := s.Expect(timeout, `(?s)(.*?)`+mark+`:(\d+)`)
	if err != nil {
		return "", 0, err
	}
	status, err = strconv.Atoi(m[2])
	return strings.ReplaceAll(m[1], "\r", ""), status, err
}

// Last returns the last lines that the line said.
func (s *Serial) Last(lines int) string { return lastLines(s.log.String(), lines) }
