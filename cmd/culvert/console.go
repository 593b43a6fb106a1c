package main

import (
	"context"
	"errors"
	"fmt"
	"os/user"

	"culvert/cmd/culvert/internal/console"
	"culvert/cmd/culvert/internal/control"
)

// runConsole asks a running daemon: one command with -e, otherwise whatever is typed.
func runConsole(ctx context.Context, c *invocation) int {
	ask := func(ctx context.Context, command string) error {
		_, err := control.Run(ctx, c.socket, command, c.json, c.stdout)
		return err
	}
	if c.execute != "" {
		if err := ask(ctx, c.execute); err != nil {
			fmt.Fprintln(c.stderr, err)
			var refused *control.CommandError
			if errors.As(err, &refused) {
				return refused.ExitCode()
			}
			return exitFailed
		}
		return exitDone
	}
	sh := console.Shell{User: "admin", Identity: "culvert", Run: ask}
	if u, err := user.Current(); err == nil {
		sh.User = u.Username
	}
	if err := sh.Loop(ctx, c.stdin, c.stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(c.stderr, err)
		return exitFailed
	}
	return exitDone
}
