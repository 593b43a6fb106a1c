package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// TB is what the lab needs of a test; *testing.T is one, and a program such as the demo brings its own.
type TB interface {
	Helper()
	Name() string
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// L is the lab inside a guest, for one test: what it makes is taken down when that test ends, and when the test failed
// the ends of all daemons' logs are printed. Its methods fail the test where the lab itself fails.
type L struct {
	TB
	m *inventory
}

// inventory is what a test has made.
type inventory struct {
	mu      sync.Mutex
	nodes   []*Node
	daemons []*Daemon
}

// New returns the lab of the guest this process runs in; see [Run] for how a test gets there.
func New(tb TB) *L {
	tb.Helper()
	if !InGuest() {
		tb.Fatalf("the lab is used inside a guest: call lab.Run")
	}
	l := &L{TB: tb, m: &inventory{}}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("what the daemons said last:\n%s", l.Logs())
		}
		l.m.close()
	})
	return l
}

// Sub returns a lab for a subtest: what is made with it goes when the subtest ends.
func (l *L) Sub(tb TB) *L { return New(tb) }

// Kernel is the series of the kernel that runs: "6.1" or "6.12".
func (l *L) Kernel() string { return os.Getenv(kernelEnv) }

// Binary returns the file of a command that [Build] compiled.
func (l *L) Binary(importPath string) string {
	l.Helper()
	file := os.Getenv(BinaryEnv(importPath))
	if file == "" {
		l.Fatalf("%s was not built: give lab.Run the option lab.Build", importPath)
	}
	return file
}

// TestBinary returns the compiled tests of a package that [BuildTests] named.
func (l *L) TestBinary(importPath string) string {
	l.Helper()
	file := os.Getenv(BinaryEnv(importPath + ".test"))
	if file == "" {
		l.Fatalf("the tests of %s were not built: give lab.Run the option lab.BuildTests", importPath)
	}
	return file
}

// WaitFor polls until cond holds and reports whether it did in time.
func (l *L) WaitFor(timeout time.Duration, cond func() bool) bool {
	return waitFor(l.Context(), timeout, cond)
}

// waitFor looks ten times a second, and more seldom after some seconds: in a guest whose waiting costs nothing, looking does.
func waitFor(ctx context.Context, timeout time.Duration, cond func() bool) bool {
	start := time.Now()
	for pause := 2 * time.Millisecond; ; pause *= 2 {
		if cond() {
			return true
		}
		waited := time.Since(start)
		if waited > timeout {
			return false
		}
		pause = min(pause, max(100*time.Millisecond, min(waited/20, time.Second)))
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
}

// Must fails the test on an error, saying what was being done.
func (l *L) Must(err error, what string) {
	l.Helper()
	if err != nil {
		l.Fatalf("%s: %v", what, err)
	}
}

// Logs returns the last lines of every daemon's log.
func (l *L) Logs() string {
	var b strings.Builder
	l.m.dump(&b)
	return b.String()
}

func (m *inventory) dump(w io.Writer) {
	m.mu.Lock()
	daemons := append([]*Daemon(nil), m.daemons...)
	nodes := append([]*Node(nil), m.nodes...)
	m.mu.Unlock()
	const daemonLines, max = 60, 12
	for i, d := range daemons {
		if i > 0 && i <= len(daemons)-max { // the first, likely the server, and the newest
			continue
		}
		fmt.Fprintf(w, "## %s: %s\n%s\n", d.node.Name, d.Name, lastLines(d.Log(), daemonLines))
	}
	for i, n := range nodes {
		if i == max {
			break
		}
		for _, file := range n.logs {
			if b, err := n.ReadFile(file); err == nil {
				fmt.Fprintf(w, "## %s: %s\n%s\n", n.Name, filepath.Base(file), lastLines(string(b), daemonLines))
			}
		}
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// close ends everything, the newest first.
func (m *inventory) close() {
	m.mu.Lock()
	nodes := m.nodes
	m.nodes, m.daemons = nil, nil
	m.mu.Unlock()
	for i := len(nodes) - 1; i >= 0; i-- {
		nodes[i].close()
	}
}
