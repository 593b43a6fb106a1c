package lab

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// An Option changes how Run boots.
type Option func(*options)

type options struct {
	kernels  []string
	memory   string
	timeout  time.Duration
	parallel bool
	alone    bool
	realTime bool
	without  []string
	builds   []string
	tests    []string
	env      []string
	modules  []string
	qemu     []string
}

// Kernels picks the kernels by series; without it every kernel of the lab is used: 6.1 and 6.12.
func Kernels(names ...string) Option { return func(o *options) { o.kernels = names } }

// Memory sets the guest's memory; 512M without it.
func Memory(size string) Option { return func(o *options) { o.memory = size } }

// Timeout sets how long the test may take in each guest; two minutes without it.
func Timeout(d time.Duration) Option { return func(o *options) { o.timeout = d } }

// Parallel lets the kernels' subtests run beside other parallel tests; guests wait for a free processor anyway.
func Parallel() Option { return func(o *options) { o.parallel = true } }

// Alone keeps other guests of this machine waiting while this one runs, for what measures; its clock is real.
func Alone() Option { return func(o *options) { o.alone, o.realTime = true, true } }

// RealTime has the guest's clock go with the host's. Without it the clock leaps over the time in which the guest has nothing
// to do, so that waiting costs nothing, and hardly moves while it works: what is judged by speed, or beside a load, needs
// this. The tests' time-outs count the guest's time. With CULVERT_LONG set every guest's clock is real (make lab-long).
func RealTime() Option { return func(o *options) { o.realTime = true } }

// Without has the kernel leave out some initcalls, to be one that lacks what they start: "nf_tables_module_init".
func Without(initcalls ...string) Option { return func(o *options) { o.without = initcalls } }

// Build compiles a command of this module on the host, statically, before the guest boots; [L.Binary] finds it there.
func Build(importPath string) Option {
	return func(o *options) { o.builds = append(o.builds, importPath) }
}

// BuildTests compiles the tests of a package on the host; [L.TestBinary] finds them in the guest.
func BuildTests(importPath string) Option {
	return func(o *options) { o.tests = append(o.tests, importPath) }
}

// Run boots each kernel and runs the calling test again inside it, as the subtest named after the kernel; there, and only
// there, it calls f. What the guest prints is the subtest's output. Where a kernel is missing the subtest is skipped with
// the reason, or fails when CI=true; under -short all of it is skipped.
//
// The test's own code before Run runs on the host and again in the guest.
func Run(t *testing.T, f func(t *testing.T, l *L), opts ...Option) {
	t.Helper()
	o := options{kernels: []string{"6.1", "6.12"}, memory: "512M", timeout: 2 * time.Minute}
	for _, opt := range opts {
		opt(&o)
	}
	if InGuest() {
		t.Run(os.Getenv(kernelEnv), func(t *testing.T) {
			l := New(t)
			stop := l.warnBefore(o.timeout)
			defer stop()
			f(t, l)
		})
		return
	}
	if testing.Short() {
		t.Skip("a test of the lab: make lab")
	}
	for _, name := range o.kernels {
		t.Run(name, func(t *testing.T) {
			if o.parallel {
				t.Parallel()
			}
			host(t, name, o)
		})
	}
}

// host is Run outside the guest, for one kernel.
func host(t *testing.T, name string, o options) {
	kernel, err := FindKernel(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	env := buildAll(t, o)
	out := &relay{w: t.Output(), test: t.Name()}
	m := Machine{
		Alone:    o.alone,
		RealTime: o.realTime || os.Getenv("CULVERT_LONG") != "",
		Without:  o.without,
		Kernel:   kernel,
		Memory:   o.memory,
		Timeout:  o.timeout + 15*time.Second, // the test's own timeout strikes first and tells more
		Env:      env,
		Output:   out,
		Args:     []string{"-test.run=" + pattern(t.Name(), asked()), "-test.v=true", "-test.count=1", "-test.timeout=" + o.timeout.String()},
	}
	if raceEnabled {
		// The race detector's shadow does not fit into the guest's address space.
		if m.Program, err = buildTest(); err != nil {
			t.Fatal(err)
		}
	}
	status, err := m.Run(t.Context())
	out.flush()
	switch {
	case err != nil:
		t.Fatal(err)
	case status != 0:
		t.Errorf("failed in the guest (exit status %d, %.1f s, by its clock %s s)", status, m.Took.Seconds(), out.clock)
	case out.skipped:
		t.Skip("skipped in the guest")
	case !out.ran:
		t.Error("the guest ran no such test")
	default:
		t.Logf("guest %s: %.1f s, by its clock %s s", kernel.Name, m.Took.Seconds(), out.clock)
	}
}

// buildAll compiles what the guest is to find, and returns the environment that tells it where.
func buildAll(t *testing.T, o options) []string {
	t.Helper()
	env := os.Environ()
	for _, path := range o.builds {
		file, err := build(path)
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, BinaryEnv(path)+"="+file)
	}
	for _, path := range o.tests {
		file, err := buildTestOf(path)
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, BinaryEnv(path+".test")+"="+file)
	}
	return env
}

// pattern selects the test of that name, and of its subtests those that the host's own -test.run asks for.
func pattern(name, asked string) string {
	var parts []string
	names := strings.Split(name, "/")
	for _, n := range names {
		parts = append(parts, "^"+regexp.QuoteMeta(n)+"$")
	}
	self := strings.Join(parts, "/")
	var deeper []string
alternatives:
	for _, alternative := range strings.Split(asked, "|") { // as package testing does, but for brackets, which no name needs
		elements := strings.Split(alternative, "/")
		for i, n := range names {
			if i == len(elements) {
				break
			}
			if ok, err := regexp.MatchString(elements[i], n); err != nil || !ok {
				continue alternatives
			}
		}
		if len(elements) <= len(names) {
			return self // all of it was asked for
		}
		deeper = append(deeper, self+"/"+strings.Join(elements[len(names):], "/"))
	}
	if len(deeper) == 0 {
		return self
	}
	return strings.Join(deeper, "|")
}

// asked is the host's own -test.run.
func asked() string {
	if f := flag.Lookup("test.run"); f != nil {
		return f.Value.String()
	}
	return ""
}

// relay passes the guest's output on by lines, without package testing's own framing, which the host adds again.
type relay struct {
	w    io.Writer
	test string

	mu           sync.Mutex
	part         []byte
	ran, skipped bool
	clock        string // how long the test took by the guest's clock, as package testing writes it
}

func (r *relay) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.part = append(r.part, b...)
	for {
		line, rest, ok := bytes.Cut(r.part, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		r.line(string(line))
		r.part = append([]byte(nil), rest...)
	}
}

func (r *relay) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.part) > 0 {
		r.line(string(r.part))
		r.part = nil
	}
}

func (r *relay) line(s string) {
	s = strings.TrimRight(s, "\r") // a board's serial line
	trimmed := strings.TrimLeft(s, " ")
	switch {
	case strings.HasPrefix(s, statusMessage):
		return
	case strings.HasPrefix(s, "=== "):
		if s == "=== RUN   "+r.test {
			r.ran = true
		}
		return
	case trimmed == "PASS" || trimmed == "FAIL":
		return
	case strings.HasPrefix(trimmed, "--- SKIP: "+r.test+" "):
		r.skipped = true
		return
	case strings.HasPrefix(trimmed, "--- "):
		if head, took, ok := strings.Cut(trimmed, " ("); ok && strings.HasSuffix(head, ": "+r.test) {
			r.clock = strings.TrimSuffix(took, "s)")
		}
		rest, ok := strings.CutPrefix(trimmed[len("--- "):], "PASS: "+r.test+"/")
		if !ok {
			rest, ok = strings.CutPrefix(trimmed[len("--- "):], "FAIL: "+r.test+"/")
			rest = "FAIL " + rest
		}
		if !ok {
			return // the test itself or its parents
		}
		s = "* " + rest
	}
	io.WriteString(r.w, s+"\n")
}

// warnBefore prints the daemons' logs shortly before the test's timeout would end the process without them.
func (l *L) warnBefore(timeout time.Duration) (stop func()) {
	timer := time.AfterFunc(timeout-timeout/20-time.Second, func() {
		fmt.Println("lab: the test is about to time out")
		l.m.dump(os.Stdout)
	})
	return func() { timer.Stop() }
}

// BinaryEnv names the environment variable that tells the guest where the host has built a command, for [L.Binary].
func BinaryEnv(importPath string) string {
	return "CULVERT_LAB_BIN_" + strings.ToUpper(strings.ReplaceAll(importPath, "/", "_"))
}
