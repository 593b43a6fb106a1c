package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/control"
	"culvert/cmd/culvert/internal/crypt"
)

// logins check passwords of `[user.NAME]`, one at a time, each wrong one at the price of a wait that doubles.
type logins struct {
	turn  sync.Mutex
	wrong int // in a row
	wait  func(ctx context.Context, d time.Duration)
}

const (
	wrongWait    = time.Second
	wrongWaitMax = 30 * time.Second
)

func newLogins() *logins {
	return &logins{wait: func(ctx context.Context, d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}}
}

func hello(cfg *config.Config, out io.Writer) error {
	return json.NewEncoder(out).Encode(control.Greeting{Identity: cfg.System.Identity, Version: buildVersion(), Users: len(cfg.Users)})
}

// nobody's hash is checked where there is no such user, so that names cannot be told by the time it takes.
const nobody = "$6$culvertculvert.$kf2hhx9pAe4LZ1rMHX0u1S7nvOTYZTd8aVcOSAi/ciXBvRqbFLWjlqCTWhRm1yTZ8CV2Kf1mhzcLkBsbFnHfU0"

// check answers whether it is the user's password, and what the user may do.
func (l *logins) check(ctx context.Context, cfg *config.Config, r *control.Request, out io.Writer, log *slog.Logger) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	u, known := cfg.Users[r.User]
	hash := u.PasswordHash
	if !known || hash == "" {
		hash = nobody
	}
	ok, err := crypt.Check(hash, r.Password)
	switch {
	case err != nil && known && u.PasswordHash != "":
		log.Warn("console login: the user's password cannot be checked", "user", r.User, "error", err)
	case ok && known && u.PasswordHash != "":
		l.wrong = 0
		log.Info("console login", "user", r.User, "read-only", u.ReadOnly)
		return json.NewEncoder(out).Encode(control.Admission{ReadOnly: u.ReadOnly})
	}
	log.Warn("console login failed", "user", r.User)
	l.wait(ctx, min(wrongWait<<min(l.wrong, 8), wrongWaitMax))
	l.wrong++
	return errors.New("login failed, incorrect user name or password")
}

// first makes the first user, of whom somebody at the console of a new router has chosen the password.
func (l *logins) first(ctx context.Context, src source, r *control.Request, log *slog.Logger) error {
	l.turn.Lock()
	defer l.turn.Unlock()
	if len(src.Config().Users) > 0 {
		return errors.New("there is a user already: log in")
	}
	hash, err := crypt.Hash(r.Password)
	if err != nil {
		return err
	}
	base, err := src.ReadFile()
	if err != nil {
		return err
	}
	doc, err := config.NewDocument(src.d.file, base)
	if err != nil {
		return err
	}
	path := []string{"user", r.User}
	if err := errors.Join(doc.Set(path, "password-hash", hash), doc.Set(path, "group", "full")); err != nil {
		return fmt.Errorf("the user is not made: %w", err)
	}
	if err := src.Change(ctx, base, doc.Bytes()); err != nil {
		return err
	}
	log.Info("first console user made", "user", r.User)
	return nil
}
