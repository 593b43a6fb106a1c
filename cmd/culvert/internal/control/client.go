package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// CommandError is a command that the daemon refused; its text is for people.
type CommandError struct {
	Exit int
	Text string
}

func (e *CommandError) Error() string { return e.Text }

// ExitCode is what the program should end with.
func (e *CommandError) ExitCode() int { return e.Exit }

// Run has the daemon at path carry out one command, copying its output to stdout as it comes. The error is a *CommandError
// when the daemon refused the command, and something else when it could not be reached; exit fits either.
func Run(ctx context.Context, path, command string, json bool, stdout io.Writer) (exit int, err error) {
	d := net.Dialer{Timeout: dialWait}
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
			return ExitFailed, fmt.Errorf("no culvert is listening on %s: start it with `culvert run`", path)
		case errors.Is(err, os.ErrPermission):
			return ExitFailed, fmt.Errorf("%s is for root: try again as root", path)
		}
		return ExitFailed, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	exit, err = exchange(conn, command, json, stdout)
	if err != nil && ctx.Err() != nil {
		return ExitFailed, ctx.Err()
	}
	return exit, err
}

func exchange(conn net.Conn, command string, asJSON bool, stdout io.Writer) (int, error) {
	b, err := json.Marshal(request{Command: command, JSON: asJSON})
	if err != nil {
		return ExitFailed, err
	}
	if len(b) >= maxRequest {
		return ExitUsage, fmt.Errorf("the command is longer than %d octets", maxRequest)
	}
	conn.SetWriteDeadline(time.Now().Add(writeWait))
	// A refusal may be waiting already, on a connection that is closed for writing: it is read in any case.
	_, writeErr := conn.Write(append(b, '\n'))
	scan := bufio.NewScanner(conn)
	scan.Buffer(make([]byte, 0, 4096), maxAnswer)
	for scan.Scan() {
		var a answer
		if err := json.Unmarshal(scan.Bytes(), &a); err != nil {
			return ExitFailed, fmt.Errorf("the daemon's answer is not understood: %w", err)
		}
		if a.Output != "" {
			if _, err := io.WriteString(stdout, a.Output); err != nil {
				return ExitFailed, err
			}
		}
		if a.Exit == nil {
			continue
		}
		if a.Error != "" || *a.Exit != ExitDone {
			return *a.Exit, &CommandError{Exit: *a.Exit, Text: a.Error}
		}
		return ExitDone, nil
	}
	if err := scan.Err(); err != nil {
		return ExitFailed, fmt.Errorf("the daemon's answer broke off: %w", err)
	}
	if writeErr != nil {
		return ExitFailed, writeErr
	}
	return ExitFailed, errors.New("the daemon ended in the middle of its answer")
}
