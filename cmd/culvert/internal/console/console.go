package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Console runs commands against a Source. It is stateless: any number may run at once.
type Console struct {
	src Source
	// Width is where `print detail` breaks lines.
	Width int
	// Every calls show now and then once a second until ctx ends; tests put their own clock here.
	Every func(ctx context.Context, show func(now time.Time) error) error
	// Pause is how long a single rate is measured.
	Pause time.Duration
}

// New makes a console of a daemon.
func New(src Source) *Console {
	return &Console{src: src, Width: 80, Every: everySecond, Pause: time.Second}
}

func everySecond(ctx context.Context, show func(time.Time) error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := show(time.Now()); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Request is one or more commands, and what the session they are part of remembers.
type Request struct {
	Command string
	// JSON asks for an array of objects; `follow` and `monitor` write one object a line.
	JSON bool
	// Session says that a person types: a menu alone is entered, and dangerous commands ask first.
	Session bool
	// Confirmed is the answer to an AskError.
	Confirmed bool
	// ReadOnly refuses what changes anything.
	ReadOnly bool
	// Redraw lets monitor write frames that begin with a form feed and take each other's place.
	Redraw bool
	// At is the menu that relative commands begin in; Execute leaves the one that was entered.
	At string
}

// UsageError is a command that nobody could carry out: exit status 2.
type UsageError struct{ Text string }

func (e *UsageError) Error() string { return e.Text }

// ExitCode is what `culvert console -e` ends with.
func (e *UsageError) ExitCode() int { return 2 }

func usagef(format string, args ...any) error { return &UsageError{Text: fmt.Sprintf(format, args...)} }

// AskError is a question to be answered with yes before the command is carried out.
type AskError struct{ Question string }

func (e *AskError) Error() string { return e.Question }

// Ask marks the error for those who do not know the type.
func (e *AskError) Ask() string { return e.Question }

var errReadOnly = errors.New("not permitted: this user's group is read")

// maxCommand bounds a command line in octets.
const maxCommand = 16 << 10

// Execute runs the commands of r and writes what they show to out. It stops at the first that fails.
func (c *Console) Execute(ctx context.Context, r *Request, out io.Writer) error {
	if len(r.Command) > maxCommand {
		return usagef("the command is longer than %d octets", maxCommand)
	}
	statements, err := lex(r.Command)
	if err != nil {
		return err
	}
	s := &script{console: c, request: r, out: out, at: menuAt(r.At)}
	if err := s.run(ctx, statements); err != nil {
		return err
	}
	r.At = s.at.path
	if !r.Session && len(statements) == 1 && s.at != root && s.entered {
		s.at.help(out) // `culvert console -e /ppp` asks what there is
	}
	return nil
}

// script is commands that are run one after the other; each menu that is entered is where the next begins.
type script struct {
	console *Console
	request *Request
	out     io.Writer
	at      *menu
	entered bool  // the last command was a menu
	edit    *edit // changes that are not in force yet, while a file is imported
	depth   int   // of files that import files
}

// call is one command being run.
type call struct {
	src    Source
	args   args
	json   bool
	out    io.Writer
	width  int
	script *script
	menu   *menu
}

func (s *script) run(ctx context.Context, statements []statement) error {
	for _, st := range statements {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.statement(ctx, st.toks); err != nil {
			return err
		}
	}
	return nil
}

func (s *script) statement(ctx context.Context, toks []token) error {
	s.entered = false
	if first := toks[0]; first.kind == tokWord && !first.quoted && strings.HasPrefix(first.text, ":") {
		return s.colon(ctx, toks)
	}
	m, cmd, rest, err := resolve(s.at, toks)
	if err != nil {
		return err
	}
	asked := func(t token) bool { return t.text == "?" && !t.quoted }
	if cmd == nil && !slices.ContainsFunc(toks, func(t token) bool { return !t.quoted && strings.HasSuffix(t.text, "?") }) {
		s.at, s.entered = m, true
		return nil
	}
	if cmd == nil || slices.ContainsFunc(rest, asked) {
		m.help(s.out)
		return nil
	}
	rest, next := unfold(m, cmd, rest)
	a, err := parseArgs(rest)
	if err != nil {
		return err
	}
	if cmd.writes && s.request.ReadOnly {
		return errReadOnly
	}
	if cmd.ask != "" && s.request.Session && !s.request.Confirmed {
		return &AskError{Question: cmd.ask}
	}
	if s.edit != nil && !cmd.edits {
		if err := s.flush(ctx); err != nil { // it has to see what was changed before it
			return err
		}
	}
	if err := cmd.run(ctx, &call{src: s.console.src, args: a, json: s.request.JSON, out: s.out, width: s.console.Width, script: s, menu: m}); err != nil {
		return err
	}
	if next == nil {
		return nil
	}
	at := s.at
	s.at = m
	err = s.statement(ctx, next)
	s.at = at
	return err
}

// unfold finds the end of a command in a text that lost its line ends, as web pages do with examples: after `add` a bare
// word that is a command, or a path from the root, begins the next one.
func unfold(m *menu, cmd *command, toks []token) (own, next []token) {
	for i, t := range toks {
		if t.kind != tokWord || t.quoted {
			continue
		}
		path := len(t.text) > 1 && t.text[0] == '/' && pick(root.menus, strings.SplitN(t.text[1:], "/", 2)[0], menuName) != nil
		if cmd.edits && path || cmd.name == "add" && slices.ContainsFunc(m.commands, func(c *command) bool { return c.name == t.text && c.edits }) {
			return toks[:i], toks[i:]
		}
	}
	return toks, nil
}

// colon runs the few commands of RouterOS's scripting that stand alone.
func (s *script) colon(ctx context.Context, toks []token) error {
	var words []string
	for _, t := range toks[1:] {
		switch t.kind {
		case tokCond:
			words = append(words, t.text+t.op+t.value)
		default:
			words = append(words, t.text)
		}
	}
	text := strings.Join(words, " ")
	switch name := toks[0].text; name {
	case ":put":
		_, err := fmt.Fprintln(s.out, valueText(text))
		return err
	case ":delay":
		d, err := parseSpan(text)
		if err != nil || d > time.Hour {
			return usagef(":delay takes a time of up to an hour, such as 5s")
		}
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
		return nil
	case ":beep", ":environment", ":nothing":
		return nil
	case ":log":
		if s.request.ReadOnly {
			return errReadOnly
		}
		if len(words) < 2 {
			return usagef(`:log takes a level and a text: :log info "..."`)
		}
		return s.console.src.Act(ctx, Action{Verb: Note, Text: strings.Join(words[1:], " ")})
	default:
		return &NotOursError{What: name, Why: "scripting is not culvert's: commands run one after the other"}
	}
}
