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

// modules are what Debian's kernel has as modules and the lab's own kernel built in.
// Most would load on demand; loading them at once keeps that time out of what the tests measure.
var modules = strings.Fields(`ipv6 veth dummy tun vrf ifb ppp_generic pppox l2tp_ppp ppp_async ppp_mppe ppp_deflate bsd_comp
	xfrm_user esp4 esp6 authenc echainiv seqiv cbc ctr hmac gcm ghash-generic des_generic arc4 chacha20poly1305
	af_alg algif_hash algif_skcipher algif_aead crypto_user sha512_generic
	nf_tables nft_ct nft_masq nft_xfrm nft_limit nft_compat nf_nat
	ip_tables iptable_nat iptable_mangle iptable_filter xt_MASQUERADE xt_policy xt_mark xt_tcpudp xt_TCPMSS
	sch_netem sch_tbf sch_htb sch_ingress cls_u32 cls_matchall act_police act_mirred udp_diag`)

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
	status, err := prepare(share)
	if err == nil {
		status, err = runProgram()
	}
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
func prepare(share string) (int, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return 0, err
	}
	release := unix.ByteSliceToString(uts.Release[:])
	const debian = "/usr/lib/uml/modules"
	insmod(filepath.Join(debian, release, "kernel/fs/overlayfs/overlay.ko")) // missing: built in

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
		mknod("/dev/ppp", 108, 0),
		mknod("/dev/net/tun", 10, 200),
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return 0, fmt.Errorf("prepare, step %d: %w", i, err)
		}
	}
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	if _, err := os.Stat(filepath.Join(debian, release)); err == nil {
		if err := unix.Mount(debian, "/lib/modules", "", unix.MS_BIND, ""); err != nil {
			return 0, fmt.Errorf("bind modules: %w", err)
		}
		exec.Command("modprobe", append([]string{"-a", "-q"}, modules...)...).Run() // a missing one fails the test that needs it
	}
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
	return 0, linkUp("lo")
}

// runProgram starts this executable as the program and returns its exit status.
func runProgram() (int, error) {
	b, err := os.ReadFile(filepath.Join(Dir, orderFile))
	if err != nil {
		return 0, err
	}
	var o order
	if err := json.Unmarshal(b, &o); err != nil {
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

func insmod(file string) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	unix.FinitModule(int(f.Fd()), "", 0)
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
