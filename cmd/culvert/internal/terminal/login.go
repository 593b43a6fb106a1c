package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.org/x/term"

	"culvert/cmd/culvert/internal/control"
)

// ErrRefused says that nobody logged in.
var ErrRefused = errors.New("no login")

const (
	firstUser   = "admin"
	minPassword = 4 // characters; a first password has to be one
)

// greet finds the daemon, and on a serial line who is there.
func (s *Shell) greet(ctx context.Context) error {
	s.width, s.height = defaultWidth, defaultHeight
	g, err := s.hello(ctx)
	for err != nil && s.Login {
		// The daemon may be starting. Whoever presses Enter is told how it stands.
		if ctx.Err() != nil {
			return ErrGone
		}
		s.say(fmt.Sprintf("culvert does not answer: %v\nPress Enter to try again.\n", err))
		if _, _, ok := s.in.key(10 * time.Second); !ok && ctx.Err() != nil {
			return ErrGone
		}
		g, err = s.hello(ctx)
	}
	if err != nil {
		return err
	}
	s.identity = g.Identity
	if !s.Login {
		return nil
	}
	for try := 0; try < maxWrongLogins; try++ {
		s.say(fmt.Sprintf("\nculvert %s on %s\n", g.Version, g.Identity))
		if g.Users == 0 {
			err = s.first(ctx)
		} else {
			err = s.login(ctx)
		}
		var refused *control.CommandError
		switch {
		case err == nil:
			s.say("\nTab completes, ? explains, /help lists the menus, quit logs out.\n\n")
			return nil
		case !errors.As(err, &refused):
			return err
		}
		s.say(refused.Text + "\n")
		if g, err = s.hello(ctx); err != nil {
			return err
		}
	}
	return ErrRefused
}

func (s *Shell) hello(ctx context.Context) (g control.Greeting, err error) {
	var out bytes.Buffer
	if err := s.Remote(ctx, &control.Request{Verb: control.Hello}, &out); err != nil {
		return g, err
	}
	return g, json.Unmarshal(out.Bytes(), &g)
}

// login asks for a name and a password.
func (s *Shell) login(ctx context.Context) error {
	t := s.editor()
	user, err := ask(t, "Login: ")
	for err == nil && user == "" {
		user, err = ask(t, "Login: ")
	}
	if err != nil {
		return ErrGone
	}
	password, err := t.ReadPassword("Password: ")
	if err != nil {
		return ErrGone
	}
	var out bytes.Buffer
	if err := s.Remote(ctx, &control.Request{Verb: control.Login, User: user, Password: password}, &out); err != nil {
		return err
	}
	var a control.Admission
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		return err
	}
	s.User, s.readOnly = user, a.ReadOnly
	return nil
}

func ask(t *term.Terminal, prompt string) (string, error) {
	t.SetPrompt(prompt)
	return t.ReadLine()
}

// first has whoever is at the console of a new router choose the password of its first user.
func (s *Shell) first(ctx context.Context) error {
	s.say("This router has no console user yet: choose a password for \"" + firstUser + "\".\n")
	t := s.editor()
	for {
		password, err := t.ReadPassword("New password: ")
		if err != nil {
			return ErrGone
		}
		if len([]rune(password)) < minPassword {
			s.say(fmt.Sprintf("Too short: %d characters or more.\n", minPassword))
			continue
		}
		again, err := t.ReadPassword("Once more: ")
		if err != nil {
			return ErrGone
		}
		if again != password {
			s.say("They differ.\n")
			continue
		}
		if err := s.Remote(ctx, &control.Request{Verb: control.FirstUser, User: firstUser, Password: password}, &bytes.Buffer{}); err != nil {
			return err
		}
		s.User = firstUser
		return nil
	}
}
