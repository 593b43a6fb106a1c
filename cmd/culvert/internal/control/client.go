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
	// Ask is a question; the command is carried out when it is sent again as Confirmed.
	Ask string
}

func (e *CommandError) Error() string { return e.Text }

// ExitCode is what the program should end with.
func (e *CommandError) ExitCode() int { return e.Exit }

// Run has the daemon at path carry out one command, copying its output to stdout as it comes. The error is a *CommandError
// when the daemon refused the command, and something else when it could not be reached; exit fits either.
func Run(ctx context.Context, path, command string, json bool, stdout io.Writer) (exit int, err error) {
	return Do(ctx, path, &Request{Command: command, JSON: json}, stdout)
}

// Do is Run for a session: r gets the menu that was entered, and the router's name. A daemon that is about to begin anew
// is waited for.
func Do(ctx context.Context, path string, r *Request, stdout io.Writer) (exit int, err error) {
	for {
		exit, err = once(ctx, path, r, stdout)
		// The daemon left without having read the request: what it has read it answers.
		if unread := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE); !unread || !restarting(path) {
			return exit, err
		}
	}
}

func once(ctx context.Context, path string, r *Request, stdout io.Writer) (exit int, err error) {
	d := net.Dialer{Timeout: dialWait}
	conn, err := d.DialContext(ctx, "unix", path)
	for err != nil && (errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)) && restarting(path) {
		select {
		case <-time.After(100 * time.Millisecond):
			conn, err = d.DialContext(ctx, "unix", path)
		case <-ctx.Done():
			return ExitFailed, ctx.Err()
		}
	}
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
	exit, err = exchange(conn, r, stdout)
	if err != nil && ctx.Err() != nil {
		return ExitFailed, ctx.Err()
	}
	return exit, err
}

// restartMark is beside the socket while a daemon gives way to the next run of itself.
func restartMark(path string) string { return path + ".restart" }

// restarting says whether the daemon will be back in a moment.
func restarting(path string) bool {
	info, err := os.Stat(restartMark(path))
	return err == nil && time.Since(info.ModTime()).Abs() < restartWait
}

// Restarting tells clients to wait: the daemon is about to begin anew. Listen takes it back.
func Restarting(path string) error { return os.WriteFile(restartMark(path), nil, 0o600) }

func exchange(conn net.Conn, r *Request, stdout io.Writer) (int, error) {
	b, err := json.Marshal(r)
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
		r.Identity = a.Identity
		if a.Error != "" || *a.Exit != ExitDone {
			return *a.Exit, &CommandError{Exit: *a.Exit, Text: a.Error, Ask: a.Ask}
		}
		r.At = a.At
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
