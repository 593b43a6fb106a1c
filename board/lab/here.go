package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hereKernel is the kernel's name where the lab runs on that of the machine itself.
const hereKernel = "host"

const hereEnv = "CULVERT_LAB_HERE" // set for the first process of such a lab only

// Here is [Run] without a guest: the test runs again on this machine's own kernel, at its real speed, in namespaces of its
// own that end with it. It is for programs that want no more of a kernel than sockets, TUN and namespaces; who wants
// XFRM, L2TP or PPP, a certain version, or settings that are the whole system's, needs a guest. It takes root.
func Here(t *testing.T, f func(t *testing.T, l *L), opts ...Option) {
	t.Helper()
	if InGuest() {
		Run(t, f, opts...)
		return
	}
	if testing.Short() {
		t.Skip("a test of the lab: make lab")
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root: namespaces")
		}
		t.Skip("needs root: namespaces")
	}
	o := options{timeout: 2 * time.Minute}
	for _, opt := range opts {
		opt(&o)
	}
	t.Run(hereKernel, func(t *testing.T) { here(t, o) })
}

// here is Here outside of the namespaces.
func here(t *testing.T, o options) {
	env := buildAll(t, o)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if o.alone {
		_, release, err := slot(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		defer release()
	}
	out := &relay{w: t.Output(), test: t.Name()}
	cmd := exec.CommandContext(t.Context(), exe,
		"-test.run="+pattern(t.Name(), asked()), "-test.v=true", "-test.count=1", "-test.timeout="+o.timeout.String())
	cmd.Env = append(env, hereEnv+"=1")
	cmd.Stdout, cmd.Stderr = out, out
	// With the first process of the process-id namespace all others end, and it ends with the thread that starts it.
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS, Pdeathsig: syscall.SIGKILL,
	}
	cmd.WaitDelay = 5 * time.Second
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	out.flush()
	switch exit := new(exec.ExitError); {
	case errors.As(err, &exit):
		t.Errorf("failed in its namespaces: %v", err)
	case err != nil:
		t.Fatal(err)
	case out.skipped:
		t.Skip("skipped in its namespaces")
	case !out.ran:
		t.Error("no such test was run in the namespaces")
	}
}

// The first process in the namespaces is this executable, too; see guest.go.
func init() {
	if os.Getpid() != 1 || os.Getenv(hereEnv) == "" {
		return
	}
	status, err := prepareHere()
	if err == nil {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		os.Unsetenv(hereEnv)
		cmd.Env = append(os.Environ(), kernelEnv+"="+hereKernel, "LC_ALL=C")
		status, err = reap(cmd)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		status = 1
	}
	os.Exit(status)
}

// prepareHere makes what the machine's own mounts must not see.
func prepareHere() (int, error) {
	for _, step := range []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		mount("proc", "/proc", "proc", 0, ""),
		mount("run", "/run", "tmpfs", 0, "mode=755"),
		func() error { return linkUp("lo") },
		// What is measured here is not to be what else the machine does.
		func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -20) },
	} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	return 0, nil
}
