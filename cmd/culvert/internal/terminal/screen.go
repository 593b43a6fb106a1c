package terminal

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// errQuit ends a command whose output nobody wants to see any more.
var errQuit = errors.New("interrupted")

// screen writes the output of one command to a terminal: line ends as a terminal in raw mode needs them, a page at a time,
// and nothing that a terminal would obey. A frame begins with a form feed and takes the place of the one before it; only
// lines that have changed are written again.
type screen struct {
	out           io.Writer
	width, height int
	more          func() pagerKey // asks; nil: no paging

	rows  int // since the last stop
	col   int // of the cursor
	tail  []byte
	frame []string // that is shown
	next  []string // that is being received
	line  strings.Builder
	draws bool // frames have begun
}

// pagerKey is the answer at the end of a page.
type pagerKey uint8

const (
	pageDown pagerKey = iota
	lineDown
	dumpAll
	quit
)

const pagerPrompt = "-- [Q quit|D dump|down]"

// Write takes text of the daemon's.
func (s *screen) Write(p []byte) (int, error) {
	n := len(p)
	if len(s.tail) > 0 {
		p = append(s.tail, p...)
		s.tail = nil
	}
	var b strings.Builder
	for len(p) > 0 {
		if !utf8.FullRune(p) {
			s.tail = append([]byte(nil), p...)
			break
		}
		r, size := utf8.DecodeRune(p)
		p = p[size:]
		if r == '\f' {
			s.flip(&b)
			continue
		}
		if s.draws {
			if r == '\n' {
				s.next = append(s.next, s.line.String())
				s.line.Reset()
			} else {
				s.line.WriteString(safe(r, size))
			}
			continue
		}
		if r != '\n' {
			t := safe(r, size)
			if s.col >= s.width {
				s.rows, s.col = s.rows+1, 0
			}
			s.col += utf8.RuneCountInString(t)
			b.WriteString(t)
			continue
		}
		b.WriteString("\r\n")
		s.rows, s.col = s.rows+1, 0
		if s.more == nil || s.rows < s.height-1 || len(p) == 0 {
			continue
		}
		if err := s.flush(&b); err != nil {
			return 0, err
		}
		if err := s.page(); err != nil {
			return 0, err
		}
	}
	// A frame is drawn as far as it has come: the daemon sends one at a time.
	if s.draws && s.line.Len() == 0 {
		s.draw(&b)
	}
	return n, s.flush(&b)
}

func (s *screen) flush(b *strings.Builder) error {
	if b.Len() == 0 {
		return nil
	}
	_, err := io.WriteString(s.out, b.String())
	b.Reset()
	return err
}

// page stops before the screen scrolls away what has not been read.
func (s *screen) page() error {
	if _, err := io.WriteString(s.out, pagerPrompt); err != nil {
		return err
	}
	key := s.more()
	if _, err := io.WriteString(s.out, "\r"+strings.Repeat(" ", len(pagerPrompt))+"\r"); err != nil {
		return err
	}
	switch key {
	case quit:
		return errQuit
	case dumpAll:
		s.more = nil
	case lineDown:
		s.rows--
	default:
		s.rows = 0
	}
	return nil
}

// flip begins a new frame.
func (s *screen) flip(b *strings.Builder) {
	if s.draws {
		s.draw(b)
	}
	s.draws = true
	s.next = s.next[:0]
	s.line.Reset()
}

// draw brings what is shown up to the frame that has been received. The cursor is below the last line before and after.
func (s *screen) draw(b *strings.Builder) {
	// Lines that a terminal would wrap could not be found again.
	for i, l := range s.next {
		if utf8.RuneCountInString(l) >= s.width {
			s.next[i] = string([]rune(l)[:s.width-1])
		}
	}
	if len(s.next) > s.height-2 && s.height > 2 {
		s.next = s.next[:s.height-2]
	}
	at := len(s.frame) // the line that the cursor is on
	move := func(to int) {
		switch {
		case to < at:
			fmt.Fprintf(b, "\x1b[%dA", at-to)
		case to > at:
			b.WriteString(strings.Repeat("\n", to-at))
		}
		at = to
	}
	for i, l := range s.next {
		if i < len(s.frame) && s.frame[i] == l {
			continue
		}
		move(i)
		b.WriteString("\r" + l)
		if i < len(s.frame) {
			b.WriteString("\x1b[K")
		}
		b.WriteString("\r\n")
		at = i + 1
	}
	for i := len(s.next); i < len(s.frame); i++ {
		move(i)
		b.WriteString("\r\x1b[K")
	}
	move(len(s.next))
	b.WriteString("\r")
	if len(s.next) == len(s.frame) && b.Len() == 1 {
		b.Reset() // nothing has changed
	}
	s.frame = append(s.frame[:0], s.next...)
}

// safe is a character as it may go to a terminal.
func safe(r rune, size int) string {
	switch {
	case r == utf8.RuneError && size <= 1:
		return "?"
	case r == '\t':
		return " "
	case !strconv.IsPrint(r):
		q := strconv.QuoteRune(r)
		return q[1 : len(q)-1]
	}
	return string(r)
}
