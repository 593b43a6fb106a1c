package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Machine boots a kernel and runs one program in it as root.
// The program's executable must link this package: it is its own first process too (guest.go).
type Machine struct {
	Kernel  Kernel
	Memory  string        // as the kernel's mem=: "512M"
	Timeout time.Duration // from boot to power off; then the guest is killed
	Args    []string      // arguments of the program, which is this executable or Program
	Program string        // empty: this executable
	Env     []string      // nil: this process's
	Dir     string        // working directory; empty: the current one
	Output  io.Writer     // the program's standard output and error
	Console io.Writer     // the kernel's console; nil: dropped (the last lines are in the error when the kernel dies)

	// Alone waits until no other guest of the lab runs on this machine and keeps others waiting: for measurements.
	Alone bool
	// RealTime has the guest's clock go with the host's. Without it the clock leaps to the next timer whenever the guest has
	// nothing to do: only its work takes time.
	RealTime bool
	// Without are the initcalls that the kernel leaves out, to be one that lacks them: "nf_tables_module_init".
	Without []string
	// Took is, after Run, how long the guest ran, without the wait for a processor.
	Took time.Duration
}

// ErrTimeout is in the error of a guest that had to be killed.
var ErrTimeout = errors.New("guest did not finish in time and was killed")

// order is what the host tells the guest's first process, in the shared directory.
type order struct {
	Kernel  string
	Modules string
	Args    []string
	Env     []string
	Dir     string
}

const (
	orderFile  = "order.json"
	statusFile = "status"
	bootEnv    = "CULVERT_LAB_BOOT"   // the shared directory's name on the host; set for the first process only
	kernelEnv  = "CULVERT_LAB_KERNEL" // the series; set for the program in the guest
)

// Run boots, waits for the program and the power off, and returns the program's exit status.
// An error means that the machine failed, not the program.
func (m *Machine) Run(ctx context.Context) (int, error) {
	exe := m.Program
	if exe == "" {
		var err error
		if exe, err = os.Executable(); err != nil {
			return 0, err
		}
	}
	sweep()
	share, err := os.MkdirTemp("", sharePrefix)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(share)
	o := order{Kernel: m.Kernel.Name, Modules: m.Kernel.Modules, Args: m.Args, Env: m.Env, Dir: m.Dir}
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if o.Dir == "" {
		if o.Dir, err = os.Getwd(); err != nil {
			return 0, err
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(share, orderFile), b, 0o600); err != nil {
		return 0, err
	}
	lane, release, err := slot(ctx, m.Alone)
	if err != nil {
		return 0, err
	}
	defer release()

	start := time.Now()
	defer func() { m.Took = time.Since(start) }()
	ctx, cancel := context.WithTimeout(ctx, m.Timeout)
	defer cancel()
	ctx, panicked := context.WithCancelCause(ctx)
	defer panicked(nil)
	// A kernel that is the first process of its namespace cannot abort itself, and would try for ever.
	console := &tail{max: 60, word: "Kernel panic", seen: func() { time.AfterFunc(time.Second, func() { panicked(errPanic) }) }}
	out, outW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer out.Close()
	args := []string{
		"mem=" + m.Memory, "root=/dev/root", "rootfstype=hostfs", "ro", "init=" + exe,
		"con=null", "con0=null,fd:1", "con1=null,fd:3", "quiet", "panic=-1",
		"uml_dir=" + share, bootEnv + "=" + share,
	}
	without := slices.Clone(m.Without)
	if !m.RealTime {
		args = append(args, "time-travel")
		without = append(without, "jent_mod_init") // would search such a clock for noise, for half a minute and in vain
	}
	if len(without) > 0 {
		args = append(args, "initcall_blacklist="+strings.Join(without, ","))
	}
	cmd := exec.CommandContext(ctx, m.Kernel.Path, args...)
	cmd.ExtraFiles = []*os.File{outW}
	cmd.Stdout = console
	if m.Console != nil {
		cmd.Stdout = io.MultiWriter(console, m.Console)
	}
	cmd.Stderr = cmd.Stdout
	// The guest's processes are processes of the host, traced by the kernel's. Its own process-id namespace takes all of
	// them down with the kernel, and the kernel goes when this process does, even by SIGKILL. Without root the group must do.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second

	// Pdeathsig follows the thread that started the child, so that thread must live as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	free := pin(lane)
	err = cmd.Start()
	free()
	outW.Close()
	if err != nil {
		return 0, err
	}
	var copying sync.WaitGroup
	copying.Go(func() { io.Copy(m.Output, out) })
	err = cmd.Wait()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // stubs that outlived a kernel killed without its namespace
	copied := make(chan struct{})
	go func() { copying.Wait(); close(copied) }()
	select {
	case <-copied:
	case <-time.After(5 * time.Second):
		out.Close()
		<-copied
	}

	if cause := context.Cause(ctx); cause == errPanic {
		return 0, fmt.Errorf("%w; its last lines:\n%s", cause, console)
	} else if cause != nil {
		return 0, fmt.Errorf("%w (%v); the kernel's last lines:\n%s", ErrTimeout, cause, console)
	}
	b, serr := os.ReadFile(filepath.Join(share, statusFile))
	status, aerr := strconv.Atoi(strings.TrimSpace(string(b)))
	if serr != nil || aerr != nil {
		return 0, fmt.Errorf("guest ended without a result (%v); the kernel's last lines:\n%s", err, console)
	}
	return status, nil
}

const sharePrefix = "culvert-lab-share-"

// sweep removes what runs that were killed have left.
func sweep() {
	old, _ := filepath.Glob(filepath.Join(os.TempDir(), sharePrefix+"*"))
	for _, dir := range old {
		if fi, err := os.Lstat(dir); err == nil && fi.IsDir() && time.Since(fi.ModTime()) > 24*time.Hour {
			os.RemoveAll(dir)
		}
	}
}

// slot waits until fewer guests run on this machine, in whatever process, than it has processors (at least two).
// With all set it waits until none does. lane is which of those that may run this one is. One process at a time waits for
// slots, the others wait for its place: so one that needs all of them gets them as those that run now end.
func slot(ctx context.Context, all bool) (lane int, release func(), err error) {
	turn, err := lockFile("turn")
	if err != nil {
		return 0, nil, err
	}
	defer turn.Close()
	var slots []*os.File
	release = func() {
		for _, f := range slots {
			f.Close()
		}
	}
	for i := range max(2, runtime.NumCPU()) {
		f, err := lockFile(strconv.Itoa(i))
		if err != nil {
			release()
			return 0, nil, err
		}
		slots = append(slots, f)
	}
	for mine, held := false, 0; ; {
		mine = mine || tryLock(turn)
		for i, f := range slots[held:] {
			if !mine || !tryLock(f) {
				if all {
					break // in order: those held are the first
				}
				continue
			}
			if held++; !all || held == len(slots) {
				return i, release, nil
			}
		}
		select {
		case <-ctx.Done():
			release()
			return 0, nil, fmt.Errorf("wait for another guest to end: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// pin has what this thread starts from now on run on one processor, until free: a guest has one processor, and is several
// processes of ours that wait for each other. Where each of them wakes another processor, it is three times as slow.
func pin(lane int) (free func()) {
	var may, one unix.CPUSet
	if unix.SchedGetaffinity(0, &may) != nil {
		return func() {}
	}
	lane %= may.Count()
	for cpu := range 1024 { // CPU_SETSIZE
		if may.IsSet(cpu) {
			if lane == 0 {
				one.Set(cpu)
				break
			}
			lane--
		}
	}
	if unix.SchedSetaffinity(0, &one) != nil {
		return func() {}
	}
	return func() { unix.SchedSetaffinity(0, &may) }
}

func lockFile(name string) (*os.File, error) {
	name = filepath.Join(os.TempDir(), fmt.Sprintf("culvert-lab-slot-%d-%s", os.Getuid(), name))
	return os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
}

func tryLock(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil
}

var errPanic = errors.New("the guest's kernel has panicked")

// tail keeps the last max lines written to it, and tells once when one of them has the word.
type tail struct {
	max  int
	word string // empty for none
	seen func()

	mu    sync.Mutex
	lines []string
	part  string
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(t.part+strings.ReplaceAll(string(b), "\r", ""), "\n")
	t.part = lines[len(lines)-1]
	t.lines = append(t.lines, lines[:len(lines)-1]...)
	if t.word != "" && slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, t.word) }) {
		t.word = ""
		t.seen()
	}
	if n := len(t.lines) - t.max; n > 0 {
		t.lines = append([]string(nil), t.lines[n:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(append(append([]string(nil), t.lines...), t.part), "\n")
}
