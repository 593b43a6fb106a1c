package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is, in the guest, the directory shared with the host for this run: what is written there the host can read.
const Dir = "/lab"

// InGuest reports whether this process runs in a guest of the lab.
func InGuest() bool { return os.Getenv(kernelEnv) != "" }

// The guest's first process is the very executable that the host runs: it makes the place, starts itself again as the
// program, reaps what is left to it, and powers off. It never returns to main.
func init() {
	if os.Getpid() == 1 && os.Getenv(bootEnv) != "" {
		boot(os.Getenv(bootEnv))
	}
	if InGuest() {
		// Namespaces are entered by thread; the process's first thread, which /proc/self stands for, must stay out of that.
		runtime.LockOSThread()
	}
}

func boot(share string) {
	status, err := runProgram(share)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab: guest:", err) // the kernel's console: shown with its last lines
	} else if err := os.WriteFile(filepath.Join(Dir, statusFile), []byte(strconv.Itoa(status)), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "lab: guest:", err)
	}
	unix.Sync()
	unix.Unmount(Dir, 0)
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// prepare turns the read-only mount of the host's files into a machine of its own.
func prepare(share, modules string) error {
	const stage = "/tmp" // any directory there is for sure
	upper, work, root := stage+"/upper", stage+"/work", stage+"/root"
	steps := []func() error{
		mount("tmpfs", stage, "tmpfs", 0, "mode=755"),
		mkdir(upper, work, root),
		mount("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work),
		mkdir(root+Dir, root+"/lib/modules", root+"/run", root+"/old"),
		mount("none", root+Dir, "hostfs", unix.MS_NOSUID, share),
		mount("proc", root+"/proc", "proc", 0, ""),
		mount("sys", root+"/sys", "sysfs", 0, ""),
		mount("dev", root+"/dev", "devtmpfs", 0, "mode=755"),
		mkdir(root+"/dev/pts", root+"/dev/shm", root+"/dev/net"),
		mount("devpts", root+"/dev/pts", "devpts", 0, "mode=620,ptmxmode=666"),
		mount("shm", root+"/dev/shm", "tmpfs", 0, "mode=1777"),
		mount("run", root+"/run", "tmpfs", 0, "mode=755"),
		func() error { return unix.PivotRoot(root, root+"/old") },
		func() error { return os.Chdir("/") },
		func() error { return unix.Unmount("/old", unix.MNT_DETACH) },
		mkdir("/run/lock"),
		mount(modules, "/lib/modules", "", unix.MS_BIND, ""),
		mknod("/dev/ppp", 108, 0),
		mknod("/dev/net/tun", 10, 200),
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("prepare, step %d: %w", i, err)
		}
	}
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	for name, value := range map[string]string{
		"kernel/hostname":                  "lab",
		"net/ipv4/conf/all/rp_filter":      "0",
		"net/ipv4/conf/default/rp_filter":  "0",
		"net/ipv6/conf/default/accept_dad": "0",
		"net/core/rmem_max":                "4194304",
		"net/core/wmem_max":                "4194304",
	} {
		os.WriteFile("/proc/sys/"+name, []byte(value), 0o644)
	}
	return linkUp("lo")
}

// runProgram starts this executable as the program and returns its exit status.
func runProgram(share string) (int, error) {
	b, err := os.ReadFile(filepath.Join(share, orderFile))
	if err != nil {
		return 0, err
	}
	var o order
	if err := json.Unmarshal(b, &o); err != nil {
		return 0, err
	}
	if err := prepare(share, o.Modules); err != nil {
		return 0, err
	}
	tty, err := rawTerminal("/dev/tty1") // the host's end is Machine.Output
	if err != nil {
		return 0, err
	}
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(exe, o.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = o.Dir, tty, tty
	cmd.Env = append(o.Env, "PATH="+os.Getenv("PATH")+":"+lookup(o.Env, "PATH"), kernelEnv+"="+o.Kernel, "TMPDIR=/tmp", "HOME=/root", "LC_ALL=C")
	return reap(cmd)
}

// reap runs a program to its end and returns its exit status, along with the duties of a first process.
func reap(cmd *exec.Cmd) (status int, err error) {
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case pid == cmd.Process.Pid && ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case pid == cmd.Process.Pid && ws.Exited():
			return ws.ExitStatus(), nil
		}
	}
}

func lookup(env []string, name string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

func mount(source, target, kind string, flags uintptr, data string) func() error {
	return func() error {
		if err := unix.Mount(source, target, kind, flags, data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", kind, target, err)
		}
		return nil
	}
}

func mkdir(dirs ...string) func() error {
	return func() error {
		for _, d := range dirs {
			if err := os.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		return nil
	}
}

func mknod(name string, major, minor uint32) func() error {
	return func() error {
		err := unix.Mknod(name, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor)))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make %s: %w", name, err)
		}
		return nil
	}
}

// rawTerminal opens a terminal that passes octets as they are.
func rawTerminal(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	tio, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		tio.Oflag &^= unix.OPOST
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, tio)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("set up %s: %w", name, err)
	}
	return f, nil
}

// linkUp raises an interface of the calling thread's network namespace.
func linkUp(name string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
		return fmt.Errorf("flags of %s: %w", name, err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("raise %s: %w", name, err)
	}
	return nil
}
