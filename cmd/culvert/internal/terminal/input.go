package terminal

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

// maxTyped bounds what is typed or pasted ahead, in octets. When it is full the line is not read any more: flow control, or
// the kernel's buffer, holds the rest.
const maxTyped = 64 << 10

// input is what comes from the keyboard. A goroutine reads it all the time, so that Ctrl-C and a line that drops are noticed
// while a command runs.
type input struct {
	mu    sync.Mutex
	ready *sync.Cond
	buf   []byte
	cr    bool // the last octet was a CR
	err   error

	explain   bool   // a question mark is a key of its own
	interrupt func() // what Ctrl-C does, and then nothing that was typed ahead counts; nil: the line that is edited is left
	gone      func() // called once when the line has dropped
}

func newInput(gone func()) *input {
	in := &input{gone: gone}
	in.ready = sync.NewCond(&in.mu)
	return in
}

// keyExplain is what the line editor gets for a question mark: nothing that it would write.
const keyExplain = 30

// retype puts text in front of what has been typed.
func (in *input) retype(text string) {
	in.mu.Lock()
	in.buf = append([]byte(text), in.buf...)
	in.ready.Broadcast()
	in.mu.Unlock()
}

// abandon is Ctrl-C for x/term, which itself takes it for the end: to the end of the line, erase it, Enter.
var abandon = []byte{5, 21, '\r'}

// pump reads until the line drops.
func (in *input) pump(r io.Reader) {
	var b [256]byte
	for {
		n, err := r.Read(b[:])
		in.mu.Lock()
		for len(in.buf) > maxTyped && in.err == nil {
			in.ready.Wait()
		}
		for _, c := range b[:n] {
			after := in.cr
			in.cr = c == '\r'
			switch {
			case c == 3 && in.interrupt != nil:
				in.buf = in.buf[:0]
				in.interrupt()
			case c == 3:
				in.buf = append(in.buf, abandon...)
			case c == '\n' && after: // CR LF is one Enter
			case c < ' ' && !editing(c):
			default:
				in.buf = append(in.buf, c)
			}
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			in.err = err
		}
		end := in.err != nil
		in.ready.Broadcast()
		in.mu.Unlock()
		if end {
			in.gone()
			return
		}
	}
}

// editing says which control characters the line editor knows. Noise on the line is none of them, mostly.
func editing(c byte) bool {
	switch c {
	case 1, 2, 4, 5, 6, 8, '\t', '\n', 11, 12, '\r', 14, 16, 20, 21, 23, 27:
		return true
	}
	return false
}

// Read gives out what was typed as far as the end of a line: what is behind it belongs to whoever reads next.
func (in *input) Read(p []byte) (int, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.buf) == 0 {
		if in.err != nil {
			return 0, io.EOF
		}
		in.ready.Wait()
	}
	n := 0
	for n < len(p) && n < len(in.buf) {
		c := in.buf[n]
		if p[n] = c; c == '?' && in.explain {
			p[n] = keyExplain
		}
		n++
		if c == '\r' || c == '\n' {
			break
		}
	}
	// A character is not divided, unless it never ends.
	if n == len(p) && n > utf8.UTFMax {
		for i := 1; i < utf8.UTFMax; i++ {
			if utf8.RuneStart(p[n-i]) {
				if !utf8.FullRune(p[n-i : n]) {
					n -= i
				}
				break
			}
		}
	}
	in.take(n)
	return n, nil
}

func (in *input) take(n int) {
	in.buf = in.buf[:copy(in.buf, in.buf[n:])]
	in.ready.Broadcast()
}

// key waits for one key, and gives arrows as the letter of their sequence after an escape.
func (in *input) key(wait time.Duration) (key byte, escaped, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if wait > 0 {
		late := false
		t := time.AfterFunc(wait, func() {
			in.mu.Lock()
			late = true
			in.ready.Broadcast()
			in.mu.Unlock()
		})
		defer t.Stop()
		for len(in.buf) == 0 && in.err == nil && !late {
			in.ready.Wait()
		}
	} else {
		for len(in.buf) == 0 && in.err == nil {
			in.ready.Wait()
		}
	}
	if len(in.buf) == 0 {
		return 0, false, false
	}
	key = in.buf[0]
	n := 1
	if key == 27 && len(in.buf) > 2 && (in.buf[1] == '[' || in.buf[1] == 'O') {
		escaped = true
		for n = 2; n < len(in.buf) && in.buf[n] < '@'; n++ {
		}
		if n < len(in.buf) {
			key = in.buf[n]
			n++
		}
	}
	in.take(n)
	return key, escaped, true
}

// pending says whether something has been typed, or pasted, ahead.
func (in *input) pending() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.buf) > 0
}

// onInterrupt sets what Ctrl-C does.
func (in *input) onInterrupt(f func()) {
	in.mu.Lock()
	in.interrupt = f
	in.mu.Unlock()
}

// report waits for a terminal's answer to ESC [ 6 n: ESC [ rows ; columns R. What else is typed meanwhile is kept.
func (in *input) report(wait time.Duration) (rows, columns int, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	late := false
	t := time.AfterFunc(wait, func() {
		in.mu.Lock()
		late = true
		in.ready.Broadcast()
		in.mu.Unlock()
	})
	defer t.Stop()
	for {
		if start, end, r, c := findReport(in.buf); end > 0 {
			in.buf = append(in.buf[:start], in.buf[end:]...)
			return r, c, true
		}
		if late || in.err != nil {
			return 0, 0, false
		}
		in.ready.Wait()
	}
}

func findReport(b []byte) (start, end, rows, columns int) {
	for i := range b {
		if b[i] != 27 || i+1 >= len(b) || b[i+1] != '[' {
			continue
		}
		n := [2]int{}
		which := 0
		for j := i + 2; j < len(b) && j < i+12; j++ {
			switch c := b[j]; {
			case c >= '0' && c <= '9':
				n[which] = n[which]*10 + int(c-'0')
			case c == ';' && which == 0:
				which = 1
			case c == 'R' && which == 1:
				return i, j + 1, n[0], n[1]
			default:
				j = len(b)
			}
		}
	}
	return 0, 0, 0, 0
}
