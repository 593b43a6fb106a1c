package console

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Console runs commands against a Source. It is stateless: any number may run at once.
type Console struct {
	src Source
	// Width is where `print detail` breaks lines.
	Width int
}

// New makes a console of a daemon.
func New(src Source) *Console { return &Console{src: src, Width: 80} }

// UsageError is a command that nobody could carry out: exit status 2.
type UsageError struct{ Text string }

func (e *UsageError) Error() string { return e.Text }

// ExitCode is what `culvert console -e` ends with.
func (e *UsageError) ExitCode() int { return 2 }

func usagef(format string, args ...any) error { return &UsageError{Text: fmt.Sprintf(format, args...)} }

// maxCommand bounds a command line in octets.
const maxCommand = 16 << 10

// Execute runs one command line and writes what it shows to out, as JSON where asked: an array of objects, except that
// `follow` writes one object a line until ctx ends.
func (c *Console) Execute(ctx context.Context, command string, json bool, out io.Writer) error {
	if len(command) > maxCommand {
		return usagef("the command is longer than %d octets", maxCommand)
	}
	toks, err := lex(command)
	if err != nil {
		return err
	}
	m, run, rest, err := resolve(root, toks)
	if err != nil {
		return err
	}
	if run == nil || slices.ContainsFunc(rest, func(t token) bool { return t.text == "?" && !t.quoted }) {
		m.help(out)
		return nil
	}
	a, err := parseArgs(rest)
	if err != nil {
		return err
	}
	return run.run(ctx, &call{src: c.src, args: a, json: json, out: out, width: c.Width})
}

// call is one command being run.
type call struct {
	src   Source
	args  args
	json  bool
	out   io.Writer
	width int
}

// args is what followed the command.
type args struct {
	words []token // detail, follow, names, numbers
	conds []cond  // after where, or within [find ...]
}

// has takes a bare word out of the arguments and says whether it was there.
func (a *args) has(word string) bool {
	for i, w := range a.words {
		if !w.quoted && w.text == word {
			a.words = append(a.words[:i:i], a.words[i+1:]...)
			return true
		}
	}
	return false
}

// rest complains about what no one asked for.
func (a *args) rest(allowed ...string) error {
	if len(a.words) == 0 {
		return nil
	}
	w := a.words[0].text
	return usagef("%q is not expected here%s", w, suggest(w, allowed))
}

func parseArgs(toks []token) (args, error) {
	var a args
	for i := 0; i < len(toks); i++ {
		t := toks[i]
		switch {
		case t.kind == tokWord && !t.quoted && t.text == "where":
			conds, n, err := parseConds(toks[i+1:], false)
			if err != nil {
				return a, err
			}
			a.conds = append(a.conds, conds...)
			i += n
		case t.kind == tokOpen:
			if i+1 >= len(toks) || toks[i+1].text != "find" {
				return a, usagef("only [find ...] is understood in brackets")
			}
			conds, n, err := parseConds(toks[i+2:], true)
			if err != nil {
				return a, err
			}
			if i+2+n >= len(toks) {
				return a, usagef("the bracket of [find ...] is not closed")
			}
			if len(conds) == 0 {
				return a, usagef("[find] alone is everything: name what to find, as in [find name=user1]")
			}
			a.conds = append(a.conds, conds...)
			i += n + 2
		case t.kind == tokWord:
			a.words = append(a.words, t)
		case t.kind == tokCond:
			return a, usagef("%q: conditions follow the word where", t.text+t.op+t.value)
		default:
			return a, usagef("unexpected %q", t.text)
		}
	}
	return a, nil
}

// parseConds reads conditions to the end, or to the closing bracket, and returns how many tokens they were.
func parseConds(toks []token, bracket bool) ([]cond, int, error) {
	var out []cond
	for i, t := range toks {
		switch {
		case t.kind == tokClose && bracket:
			return out, i, nil
		case t.kind == tokCond:
			c, err := newCond(t)
			if err != nil {
				return nil, 0, err
			}
			out = append(out, c)
		case t.kind == tokWord && !t.quoted && (t.text == "and" || t.text == "where"):
		case t.kind == tokWord && !t.quoted && (t.text == "detail" || t.text == "follow" || t.text == "count-only"):
			if bracket {
				return nil, 0, usagef("%q is not a condition", t.text)
			}
			return out, i, nil
		case t.kind == tokWord && !t.quoted && t.text != "":
			// A property alone is a flag: `where dynamic`, `where !disabled`.
			c := cond{key: t.text, op: "=", value: "true"}
			if name, ok := strings.CutPrefix(t.text, "!"); ok {
				c.key, c.op = name, "!="
			}
			out = append(out, c)
		default:
			return nil, 0, usagef("%q is not a condition such as name=user1 or topics~\"ipsec\"", t.text)
		}
	}
	return out, len(toks), nil
}
