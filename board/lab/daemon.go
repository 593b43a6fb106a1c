package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Daemon is a program that runs in a node until it is stopped.
type Daemon struct {
	Name string

	node *Node
	cmd  *exec.Cmd
	done chan struct{} // closed when the program has ended; err is set by then
	err  error

	mu  sync.Mutex
	log bytes.Buffer
}

// Daemon starts a program in the node and collects what it writes.
func (n *Node) Daemon(name string, argv ...string) *Daemon {
	n.lab.Helper()
	d, err := n.StartDaemon(name, argv...)
	if err != nil {
		n.lab.Fatalf("on %s: start %s: %v", n.Name, name, err)
	}
	return d
}

// StartDaemon is Daemon with an error instead of the test's failure, for use outside the test's goroutine.
func (n *Node) StartDaemon(name string, argv ...string) (*Daemon, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	d := &Daemon{Name: name, node: n, cmd: cmd, done: make(chan struct{})}
	n.Do(func() { err = cmd.Start() })
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	go func() {
		defer r.Close()
		io.Copy((*daemonLog)(d), r)
	}()
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	m := n.lab.m
	m.mu.Lock()
	m.daemons = append(m.daemons, d)
	m.mu.Unlock()
	return d, nil
}

type daemonLog Daemon

func (d *daemonLog) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	const bound = 4 << 20 // a runaway log must not take the guest's memory
	if d.log.Len() > bound {
		d.log.Next(bound / 2)
	}
	return d.log.Write(b)
}

// Pid is the daemon's process.
func (d *Daemon) Pid() int { return d.cmd.Process.Pid }

// Log returns what the daemon has written so far.
func (d *Daemon) Log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

// Lines returns the log's lines that contain all of the words.
func (d *Daemon) Lines(words ...string) (found []string) {
next:
	for _, line := range strings.Split(d.Log(), "\n") {
		if line == "" {
			continue
		}
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// WaitLog waits until a line of the log contains all of the words.
func (d *Daemon) WaitLog(timeout time.Duration, words ...string) error {
	if !waitFor(d.node.lab.Context(), timeout, func() bool { return len(d.Lines(words...)) > 0 || !d.Running() }) ||
		len(d.Lines(words...)) == 0 {
		return fmt.Errorf("%s did not say %q within %v", d.Name, words, timeout)
	}
	return nil
}

// Running reports whether the daemon has not ended.
func (d *Daemon) Running() bool {
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// Wait waits for the daemon to end by itself.
func (d *Daemon) Wait(timeout time.Duration) error {
	select {
	case <-d.done:
		return d.err
	case <-time.After(timeout):
		return fmt.Errorf("%s still runs after %v", d.Name, timeout)
	}
}

// Signal sends the daemon a signal.
func (d *Daemon) Signal(s syscall.Signal) {
	if d.Running() {
		syscall.Kill(d.Pid(), s)
	}
}

// Stop asks the daemon to end and waits; one that does not within ten seconds is killed, which is an error.
func (d *Daemon) Stop() error {
	d.Signal(syscall.SIGTERM)
	err := d.Wait(10 * time.Second)
	if d.Running() {
		d.Kill()
		return fmt.Errorf("%s ignored SIGTERM", d.Name)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
		return nil // ended by the signal itself
	}
	return err
}

// Kill ends the daemon without a chance to say goodbye and waits until it is gone.
func (d *Daemon) Kill() {
	d.Signal(syscall.SIGKILL)
	<-d.done
}

// Memory returns the daemon's resident set in octets.
func (d *Daemon) Memory() int64 { return procMemory(d.Pid(), "status", "VmRSS:") }

// CPU returns the processor time that the daemon and its ended children have used.
func (d *Daemon) CPU() time.Duration { return cpuTime(d.Pid()) }

// procMemory reads a line "NAME  123 kB" of a file of /proc/PID, as octets.
func procMemory(pid int, file, name string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0
	}
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			return kb << 10
		}
	}
	return 0
}

func cpuTime(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is the name in parentheses, which may hold spaces; utime is the 14th, then stime, cutime, cstime.
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 15 {
		return 0
	}
	var ticks int64
	for _, s := range f[11:15] {
		n, _ := strconv.ParseInt(s, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}
