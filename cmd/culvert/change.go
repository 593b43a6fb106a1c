package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"culvert/board"
	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/console"
	"culvert/cmd/culvert/internal/control"
)

// serveConsole is what the control socket answers with.
func (d *daemon) serveConsole() control.Handler {
	logins := newLogins()
	return func(ctx context.Context, r *control.Request, out io.Writer) (err error) {
		src := source{d, ctx}
		c := console.New(src)
		if r.Width >= 40 && r.Width <= 500 {
			c.Width = r.Width
		}
		defer func() { r.Identity = src.Config().System.Identity }()
		switch r.Verb {
		case control.Execute:
			q := console.Request{Command: r.Command, JSON: r.JSON, Session: r.Session, Confirmed: r.Confirmed, ReadOnly: r.ReadOnly, Redraw: r.Redraw, At: r.At}
			err = c.Execute(ctx, &q, out)
			r.At = q.At
			return err
		case control.Complete:
			return c.Complete(r.At, r.Command, out)
		case control.Hello:
			return hello(src.Config(), out)
		case control.Login:
			return logins.check(ctx, src.Config(), r, out, d.logger("system"))
		case control.FirstUser:
			return logins.first(ctx, src, r, d.logger("system"))
		}
		return fmt.Errorf("%q is no verb of this version", r.Verb)
	}
}

// ReadFile is the configuration's file as it is now.
func (s source) ReadFile() ([]byte, error) { return config.ReadFile(s.d.file) }

// Change checks a text, writes it to the file and puts it in force. What cannot change in a running daemon makes it say
// goodbye to everybody and begin anew, a moment later.
func (s source) Change(ctx context.Context, base, text []byte) error {
	d := s.d
	d.changing.Lock()
	defer d.changing.Unlock()
	now, err := s.ReadFile()
	if err != nil {
		return err
	}
	if !bytes.Equal(now, base) {
		return errors.New("the file was changed by somebody else at the same moment: try again")
	}
	cfg, err := config.Parse(d.file, text)
	if err != nil {
		return err
	}
	var why string
	if !d.loop.call(ctx, func(time.Time) { why, err = d.needsRestart(cfg) }) {
		return errors.New("culvert is stopping")
	}
	if err != nil {
		return err
	}
	mode := os.FileMode(0o600)
	if info, err := os.Stat(d.file); err == nil {
		mode = info.Mode().Perm()
	}
	if _, err := board.WriteFile(d.file, text, mode); err != nil {
		return fmt.Errorf("not saved, and not changed: %w", err)
	}
	d.loop.call(ctx, func(now time.Time) { d.apply(now, cfg) })
	if why != "" {
		// The answer to this command, and to what stands behind it on its line, goes out first.
		time.AfterFunc(restartDelay, d.beginAnew)
	}
	return nil
}

// restartDelay is for the console to read its answer.
const restartDelay = 300 * time.Millisecond

// Traffic reads the kernel's counters of an interface.
func (source) Traffic(name string) (t console.Traffic, err error) {
	f, err := os.Open("/proc/net/dev")
	if err != nil {
		return t, err
	}
	defer f.Close()
	return interfaceTraffic(f, name)
}

// interfaceTraffic finds an interface in /proc/net/dev: its name, then eight counters received and eight sent.
func interfaceTraffic(r io.Reader, name string) (t console.Traffic, err error) {
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		i := strings.LastIndexByte(scan.Text(), ':')
		if i < 0 || strings.TrimSpace(scan.Text()[:i]) != name {
			continue
		}
		f := strings.Fields(scan.Text()[i+1:])
		if len(f) < 10 {
			break
		}
		for _, x := range []struct {
			dst *uint64
			n   int
		}{{&t.RxBytes, 0}, {&t.RxPackets, 1}, {&t.TxBytes, 8}, {&t.TxPackets, 9}} {
			if *x.dst, err = strconv.ParseUint(f[x.n], 10, 64); err != nil {
				return t, fmt.Errorf("/proc/net/dev: %w", err)
			}
		}
		return t, nil
	}
	if err := scan.Err(); err != nil {
		return t, err
	}
	return t, fmt.Errorf("there is no interface %q", name)
}
