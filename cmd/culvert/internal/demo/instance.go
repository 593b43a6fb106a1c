package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"culvert/cmd/culvert/internal/control"
)

// instance is a running culvert.
type instance struct {
	name, socket string
	cmd          *exec.Cmd
	log          logBuffer
	ended        chan struct{} // closed when the process has
	err          error         // how, after that
}

// start runs the daemon in the namespace, with its files in dir.
func (s *namespace) start(program, dir, config string) (*instance, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "culvert.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	i := &instance{name: filepath.Base(dir), socket: filepath.Join(dir, "control.sock"), ended: make(chan struct{})}
	i.cmd = exec.Command(program, "run", "-c", file, "-socket", i.socket)
	i.cmd.Stdout, i.cmd.Stderr = &i.log, &i.log
	// It goes with the thread that has started it, and that with this process.
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := s.do(i.cmd.Start); err != nil {
		return nil, err
	}
	go func() {
		i.err = i.cmd.Wait()
		close(i.ended)
	}()
	return i, nil
}

// ready waits until the daemon says that it has started.
func (i *instance) ready(ctx context.Context, timeout time.Duration) error {
	return waitFor(ctx, timeout, func() (bool, error) {
		select {
		case <-i.ended:
			return true, fmt.Errorf("it has ended: %w", errors.Join(i.err, ctx.Err()))
		default:
		}
		return i.log.line("info started") != "", nil
	})
}

// dataPath is what the daemon logged about its choice.
func (i *instance) dataPath() (path, why string) {
	line := i.log.line("data path chosen")
	_, line, _ = strings.Cut(line, "data-path=")
	path, why, _ = strings.Cut(line, " why=")
	return path, strings.Trim(why, `"`)
}

// ask has the daemon's console carry out a command.
func (i *instance) ask(ctx context.Context, command string, json bool) (string, error) {
	var out bytes.Buffer
	if _, err := control.Run(ctx, i.socket, command, json, &out); err != nil {
		return "", fmt.Errorf("%s: %s: %w", i.name, command, err)
	}
	return out.String(), nil
}

// row is one line of a print command.
type row map[string]any

func (r row) text(name string) string {
	if v := r[name]; v != nil {
		return fmt.Sprint(v)
	}
	return ""
}

func (i *instance) rows(ctx context.Context, command string) (rows []row, err error) {
	out, err := i.ask(ctx, command, true)
	if err != nil {
		return nil, err
	}
	out = strings.TrimSpace(out)
	if strings.HasPrefix(out, "{") {
		out = "[" + out + "]"
	}
	if out == "" {
		return nil, nil
	}
	return rows, json.Unmarshal([]byte(out), &rows)
}

// stop ends the daemon the orderly way.
func (i *instance) stop(timeout time.Duration) error {
	i.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-i.ended:
		return i.err
	case <-time.After(timeout):
		i.kill()
		return fmt.Errorf("not within %v", timeout)
	}
}

func (i *instance) kill() {
	i.cmd.Process.Kill()
	<-i.ended
}

// logBuffer keeps the end of a daemon's log.
type logBuffer struct {
	mu sync.Mutex
	b  []byte
}

const maxLog = 64 << 10

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	if len(l.b) > maxLog {
		l.b = append([]byte(nil), l.b[len(l.b)-maxLog/2:]...)
	}
	return len(p), nil
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.b)
}

// line is the first one with this text in it; empty when there is none.
func (l *logBuffer) line(text string) string {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
