package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"culvert/cmd/culvert/internal/control"
)

// Shell is one person at one terminal.
type Shell struct {
	Remote Remote
	// User is who types, once it is known.
	User string
	// Login asks for a name and a password first, or for the first password of a router that has no users.
	Login bool
	// Size is the terminal's, or zero when it has to be asked.
	Size func() (width, height int)
	// Patience is how long a terminal may take to tell its size.
	Patience time.Duration

	in            *input
	out           io.Writer
	line          *term.Terminal
	identity      string
	at            string
	readOnly      bool
	width, height int
}

const (
	defaultWidth, defaultHeight = 80, 24
	sizePatience                = time.Second
	maxHistory                  = 100
	maxWrongLogins              = 3
)

// ErrGone says that the line dropped.
var ErrGone = errors.New("the line dropped")

// Run serves the person until they log out, the line drops (ErrGone) or ctx ends. rw is in raw mode.
func (s *Shell) Run(ctx context.Context, rw io.ReadWriter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.out = &lineWriter{w: rw, gone: cancel}
	s.in = newInput(cancel)
	go s.in.pump(rw)
	// Whoever waits for a key is let go when ctx ends.
	stop := context.AfterFunc(ctx, func() {
		s.in.mu.Lock()
		if s.in.err == nil {
			s.in.err = io.EOF
		}
		s.in.ready.Broadcast()
		s.in.mu.Unlock()
	})
	defer stop()
	err := s.session(ctx)
	if err == nil && ctx.Err() != nil {
		err = ErrGone
	}
	return err
}

// lineWriter notices when the line drops.
type lineWriter struct {
	w    io.Writer
	mu   sync.Mutex
	gone func()
}

func (l *lineWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.w.Write(p)
	if err != nil {
		l.gone()
	}
	return n, err
}

func (s *Shell) session(ctx context.Context) error {
	if err := s.greet(ctx); err != nil {
		return err
	}
	s.measure()
	s.line = s.editor()
	s.line.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) { return s.complete(ctx, line, pos, key) }
	s.in.mu.Lock()
	s.in.explain = true
	s.in.mu.Unlock()
	for ctx.Err() == nil {
		s.resize()
		s.line.SetPrompt(s.Prompt())
		text, err := s.line.ReadLine()
		if err != nil && !errors.Is(err, term.ErrPasteIndicator) {
			if ctx.Err() == nil {
				s.say("\n")
			}
			return nil // Ctrl-D
		}
		switch strings.Trim(text, " \t/") {
		case "":
			if strings.TrimSpace(text) != "/" {
				continue
			}
		case "quit", "exit", "logout":
			return nil
		}
		// What ends in a backslash goes on.
		for strings.HasSuffix(text, `\`) && len(text) < 16<<10 {
			s.line.SetPrompt(`\... `)
			next, err := s.line.ReadLine()
			if err != nil {
				return nil
			}
			text += "\n" + next
		}
		s.execute(ctx, text)
	}
	return nil
}

// editor is a line editor on this terminal.
func (s *Shell) editor() *term.Terminal {
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{s.in, s.out}, "")
	t.History = &history{}
	t.SetSize(s.width, s.height)
	return t
}

func (s *Shell) resize() {
	if s.Size == nil {
		return
	}
	if w, h := s.Size(); w > 0 && h > 0 && (w != s.width || h != s.height) {
		s.width, s.height = w, h
		s.line.SetSize(w, h)
	}
}

// measure finds out how large the terminal is: a serial line cannot say, so the terminal is sent to its far corner and
// asked where it is. One that does not answer is a VT100's size.
func (s *Shell) measure() {
	s.width, s.height = defaultWidth, defaultHeight
	if s.Size != nil {
		if w, h := s.Size(); w > 0 && h > 0 {
			s.width, s.height = w, h
			return
		}
	}
	if s.in.pending() {
		return // somebody pastes already
	}
	io.WriteString(s.out, "\x1b7\x1b[999;999H\x1b[6n\x1b8")
	wait := s.Patience
	if wait == 0 {
		wait = sizePatience
	}
	if h, w, ok := s.in.report(wait); ok && w >= 20 && w <= 999 && h >= 5 && h <= 999 {
		s.width, s.height = w, h
	}
}

// Prompt is `[admin@office] /ppp active> `.
func (s *Shell) Prompt() string {
	if s.at == "" {
		return fmt.Sprintf("[%s@%s] > ", clean(s.User), clean(s.identity))
	}
	return fmt.Sprintf("[%s@%s] %s> ", clean(s.User), clean(s.identity), s.at)
}

func clean(s string) string {
	var b strings.Builder
	for _, r := range s {
		b.WriteString(safe(r, 2))
	}
	return b.String()
}

// say writes text of our own.
func (s *Shell) say(text string) {
	scr := &screen{out: s.out, width: max(s.width, defaultWidth), height: defaultHeight}
	scr.Write([]byte(text))
}

// execute carries out a command. Ctrl-C ends it.
func (s *Shell) execute(ctx context.Context, text string) {
	confirmed := false
	for {
		err := s.try(ctx, text, confirmed)
		var refused *control.CommandError
		switch {
		case err == nil, errors.Is(err, errQuit), errors.Is(err, context.Canceled):
			return
		case errors.As(err, &refused) && refused.Ask != "" && !confirmed:
			if !s.yes(refused.Ask) {
				return
			}
			confirmed = true
		default:
			s.say(err.Error() + "\n")
			return
		}
	}
}

func (s *Shell) try(ctx context.Context, text string, confirmed bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.in.onInterrupt(cancel)
	defer s.in.onInterrupt(nil)
	r := &control.Request{Command: text, Session: true, Confirmed: confirmed, ReadOnly: s.readOnly, Redraw: true, At: s.at, Width: s.width}
	sp := newSpool()
	stop := context.AfterFunc(ctx, func() { sp.stop(errQuit) })
	defer stop()
	failed := make(chan error, 1)
	go func() {
		err := s.Remote(ctx, r, sp)
		sp.end()
		failed <- err
	}()
	scr := &screen{out: s.out, width: s.width, height: s.height, more: s.more}
	if s.in.pending() {
		scr.more = nil // a script is being pasted: nobody presses keys
	}
	err := sp.drain(scr)
	if err != nil {
		cancel()
	}
	if scr.col > 0 {
		io.WriteString(s.out, "\r\n")
	}
	remote := <-failed
	if r.Identity != "" {
		s.identity = r.Identity
	}
	s.at = r.At
	if err != nil {
		return err
	}
	return remote
}

// more waits at the end of a page.
func (s *Shell) more() pagerKey {
	s.in.onInterrupt(nil)
	var key byte
	var escaped, ok bool
	interrupted := false
	s.in.onInterrupt(func() { // with the lock held
		interrupted = true
		s.in.buf = append(s.in.buf, 'q')
		s.in.ready.Broadcast()
	})
	for {
		key, escaped, ok = s.in.key(0)
		switch {
		case !ok || interrupted:
			return quit
		case escaped && key == 'B', key == '\r', key == '\n':
			return lineDown
		case escaped && key == '~', !escaped && key == ' ': // Page Down
			return pageDown
		case !escaped && (key == 'q' || key == 'Q' || key == 4):
			return quit
		case !escaped && (key == 'd' || key == 'D'):
			return dumpAll
		}
	}
}

// yes asks.
func (s *Shell) yes(question string) bool {
	io.WriteString(s.out, clean(question))
	key, escaped, ok := s.in.key(0)
	yes := ok && !escaped && (key == 'y' || key == 'Y')
	if yes {
		s.say("y\n")
	} else {
		s.say("n\n")
	}
	return yes
}

// complete answers Tab and ?, both from what the daemon knows.
func (s *Shell) complete(ctx context.Context, line string, pos int, key rune) (string, int, bool) {
	switch {
	case key == keyExplain && quoted(line[:pos]):
		return line[:pos] + "?" + line[pos:], pos + 1, true
	case key != '\t' && key != keyExplain:
		return "", 0, false
	}
	// Neither key writes anything, so the editor has nothing to draw again but what it is told to.
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.Remote(ctx, &control.Request{Verb: control.Complete, Command: line[:pos], At: s.at}, &out); err != nil {
		return "", 0, false
	}
	var c control.Completion
	if json.Unmarshal(out.Bytes(), &c) != nil || c.Typed < 0 || c.Typed > pos {
		return "", 0, false
	}
	if key == keyExplain {
		s.list(c, true)
		return "", 0, false
	}
	if len(c.Words) == 0 {
		return "", 0, false
	}
	common := c.Words[0].Text
	for _, w := range c.Words[1:] {
		common = commonPrefix(common, w.Text)
	}
	end := ""
	if len(c.Words) == 1 {
		end = c.Words[0].End
	}
	typed := line[pos-c.Typed : pos]
	if common+end == typed || len(common) < len(typed) {
		s.list(c, false)
		return "", 0, false
	}
	s.in.retype((common + end)[len(typed):])
	return "", 0, false
}

// list shows what could follow: with ? one a line and what it is, with Tab in columns.
func (s *Shell) list(c control.Completion, explain bool) {
	words := slices.Clone(c.Words)
	sort.Slice(words, func(i, j int) bool {
		a, b := words[i], words[j]
		return a.Text < b.Text
	})
	width := 0
	for _, w := range words {
		width = max(width, len(w.Text))
	}
	var b strings.Builder
	if explain {
		for _, w := range words {
			fmt.Fprintf(&b, "  %-*s  %s\n", width, w.Text, w.About)
		}
	} else {
		per := max(1, s.width/(width+2))
		for i, w := range words {
			if i%per == per-1 || i == len(words)-1 {
				b.WriteString(w.Text + "\n")
			} else {
				fmt.Fprintf(&b, "%-*s  ", width, w.Text)
			}
		}
	}
	if len(words) == 0 {
		b.WriteString("nothing more\n")
	}
	// The editor redraws its line below.
	var safeText strings.Builder
	scr := &screen{out: &safeText, width: s.width, height: s.height}
	scr.Write([]byte(b.String()))
	s.line.Write([]byte(strings.ReplaceAll(safeText.String(), "\r\n", "\n")))
}

// quoted says whether the end of a text is within quotes, where a question mark is one.
func quoted(s string) bool {
	in := false
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			in = !in
		}
	}
	return in
}

func commonPrefix(a, b string) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return a[:i]
}

// history keeps the last lines that say something, each once in a row.
type history struct{ lines []string }

func (h *history) Add(line string) {
	if line = strings.TrimSpace(line); line == "" || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return
	}
	h.lines = append(h.lines, line)
	if len(h.lines) > maxHistory {
		h.lines = slices.Delete(h.lines, 0, 1)
	}
}

func (h *history) Len() int { return len(h.lines) }

func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }
