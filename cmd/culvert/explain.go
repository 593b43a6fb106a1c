package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"culvert/cmd/culvert/internal/control"
	"culvert/cmd/culvert/internal/logring"
)

// explainCommand is what the control socket understands besides the console's commands.
const explainCommand = "/ip ipsec explain "

// explained is the control socket's handler with explain in front of the console.
func (d *daemon) explained(next control.Handler) control.Handler {
	return func(ctx context.Context, r *control.Request, out io.Writer) error {
		who, ok := strings.CutPrefix(strings.Join(strings.Fields(r.Command), " ")+" ", explainCommand)
		if !ok || r.Verb != control.Execute {
			return next(ctx, r, out)
		}
		who = strings.Trim(strings.TrimSpace(who), `"`)
		if who == "" {
			return &control.CommandError{Exit: exitUsage, Text: "of whom? " + explainCommand + "ADDRESS or USER"}
		}
		return d.book.Print(out, who, r.JSON, logring.Escape)
	}
}

// runExplain asks a running daemon why a client is, or is not, connected.
func runExplain(ctx context.Context, c *invocation) int {
	if _, err := control.Run(ctx, c.socket, explainCommand+c.who, c.json, c.stdout); err != nil {
		fmt.Fprintln(c.stderr, err)
		var refused *control.CommandError
		if errors.As(err, &refused) {
			return refused.ExitCode()
		}
		return exitFailed
	}
	return exitDone
}
