package console

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Shell is the interactive side: it keeps the menu that the person is in, and hands complete commands to Run.
type Shell struct {
	User, Identity string
	// Run carries out one command from the root, and shows its output.
	Run func(ctx context.Context, command string) error

	at *menu
}

// maxLine bounds what is read at a time.
const maxLine = maxCommand

// Loop reads commands until the input ends, the person quits, or ctx is done.
func (s *Shell) Loop(ctx context.Context, in io.Reader, out io.Writer) error {
	s.at = root
	scan := bufio.NewScanner(in)
	scan.Buffer(make([]byte, 0, 1024), maxLine)
	for {
		if _, err := io.WriteString(out, s.Prompt()); err != nil {
			return err
		}
		if !scan.Scan() {
			fmt.Fprintln(out)
			return scan.Err()
		}
		command, quit, err := s.step(scan.Text())
		if quit {
			return nil
		}
		if err == nil && command != "" {
			err = s.Run(ctx, command)
		}
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			fmt.Fprintln(out, err)
			if errors.Is(err, io.ErrClosedPipe) {
				return err
			}
		}
	}
}

// Prompt is `[admin@office] /ppp active> `.
func (s *Shell) Prompt() string {
	path := ""
	if s.at != nil {
		path = s.at.path
	}
	if path != "" {
		return fmt.Sprintf("[%s@%s] %s> ", valueText(s.User), valueText(s.Identity), path)
	}
	return fmt.Sprintf("[%s@%s] > ", valueText(s.User), valueText(s.Identity))
}

// step takes one line: it moves through the menus, or gives the command to run, complete from the root.
func (s *Shell) step(line string) (command string, quit bool, err error) {
	if s.at == nil {
		s.at = root
	}
	line = strings.TrimSpace(line)
	switch line {
	case "":
		return "", false, nil
	case "quit", "exit", "/quit":
		return "", true, nil
	case "/":
		s.at = root
		return "", false, nil
	case "..":
		s.at = parent(root, s.at)
		return "", false, nil
	}
	toks, err := lex(line)
	if err != nil {
		return "", false, err
	}
	m, cmd, _, err := resolve(s.at, toks)
	if err != nil {
		return "", false, err
	}
	if cmd == nil && !strings.HasSuffix(line, "?") {
		s.at = m
		return "", false, nil
	}
	if strings.HasPrefix(line, "/") {
		return line, false, nil
	}
	if s.at.path == "" {
		return "/" + line, false, nil
	}
	return s.at.path + " " + line, false, nil
}

// parent finds the menu above m within at; what is at the top stays there.
func parent(at, m *menu) *menu {
	for _, s := range at.menus {
		if s == m {
			return at
		}
		if p := parent(s, m); p != s || slices.Contains(s.menus, m) {
			return p
		}
	}
	return at
}
