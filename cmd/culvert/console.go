package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"strings"
	"syscall"

	"culvert/cmd/culvert/internal/control"
	"culvert/cmd/culvert/internal/terminal"
)

// runConsole asks a running daemon: one command with -e, otherwise whatever is typed, here or on a serial line.
func runConsole(ctx context.Context, c *invocation) int {
	remote := func(ctx context.Context, r *control.Request, out io.Writer) error {
		_, err := control.Do(ctx, c.socket, r, out)
		return err
	}
	var err error
	switch {
	case c.execute != "":
		err = remote(ctx, &control.Request{Command: c.execute, JSON: c.json}, c.stdout)
	case c.tty != "":
		err = serialConsole(ctx, c, remote)
	default:
		err = localConsole(ctx, c, remote)
	}
	var refused *control.CommandError
	switch {
	case err == nil, errors.Is(err, terminal.ErrGone):
		return exitDone // of a line that drops init begins anew
	case errors.As(err, &refused):
		fmt.Fprintln(c.stderr, err)
		return refused.ExitCode()
	case ctx.Err() != nil:
		return exitDone
	}
	fmt.Fprintln(c.stderr, err)
	return exitFailed
}

// serialConsole is a login on a line that init gave us, and hung up when its time is over.
func serialConsole(ctx context.Context, c *invocation, remote terminal.Remote) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	defer stop()
	t, err := terminal.OpenTTY(c.tty, c.baud)
	if err != nil {
		return err
	}
	defer t.Close()
	defer t.Restore()
	sh := terminal.Shell{Remote: remote, Login: true, Size: t.Size}
	return sh.Run(ctx, t)
}

// localConsole is for root, who needs no login: a terminal, or a pipe.
func localConsole(ctx context.Context, c *invocation, remote terminal.Remote) error {
	name := "admin"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if in, ok := c.stdin.(*os.File); ok && c.stdout == os.Stdout {
		if t, err := terminal.RawTTY(in); err == nil {
			defer t.Restore()
			sh := terminal.Shell{Remote: remote, User: name, Size: t.Size}
			return sh.Run(ctx, struct {
				io.Reader
				io.Writer
			}{in, c.stdout})
		}
	}
	return pipedConsole(ctx, c, remote)
}

// pipedConsole reads commands from what is no terminal. It goes on after one that fails, and says so at the end.
func pipedConsole(ctx context.Context, c *invocation, remote terminal.Remote) error {
	r := &control.Request{Session: true, Confirmed: true}
	scan := bufio.NewScanner(c.stdin)
	scan.Buffer(make([]byte, 0, 1024), 64<<10)
	if err := remote(ctx, &control.Request{Verb: control.Hello}, io.Discard); err != nil {
		return err
	}
	failed := 0
	for scan.Scan() {
		line := scan.Text()
		for strings.HasSuffix(line, `\`) && scan.Scan() {
			line += "\n" + scan.Text()
		}
		switch strings.TrimSpace(line) {
		case "quit", "exit", "/quit":
			return nil
		}
		r.Command = line
		err := remote(ctx, r, c.stdout)
		var refused *control.CommandError
		switch {
		case errors.As(err, &refused):
			failed++
			fmt.Fprintln(c.stderr, err)
		case err != nil:
			return err
		}
	}
	if err := scan.Err(); err != nil {
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d commands failed", failed)
	}
	return nil
}
