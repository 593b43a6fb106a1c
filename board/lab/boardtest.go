package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Modules names kernel modules that the test needs on a board, for [RunOn]; what they need themselves is found. A name
// that ends in "?" may be missing. A board whose kernel has no modules has all of it built in.
func Modules(names ...string) Option {
	return func(o *options) { o.modules = append(o.modules, names...) }
}

// QEMUArgs adds arguments of QEMU, devices for example, for [RunOn].
func QEMUArgs(args ...string) Option { return func(o *options) { o.qemu = append(o.qemu, args...) } }

const (
	boardEnv      = "CULVERT_LAB_BOARD" // the board's name; the kernel's command line has it, the first process hands it on
	boardOrder    = "/lab/order.json"
	statusMessage = "lab: the program ended with status "
)

// boardModules are what any test of a board can use.
var boardModules = []string{"virtio_pci", "virtio_mmio?", "virtio_rng"}

// InBoard returns the name of the board that this process runs on, or "".
func InBoard() string { return os.Getenv(boardEnv) }

// RunOn boots a board, by its name in [Boards], and runs the calling test again on it, compiled for it; there, and only
// there, it calls f. The board has nothing but this program: no shell, no ip(8). Where QEMU is missing the test is skipped
// with the reason, or fails when CI=true; under -short it is skipped. Options: [Memory], [Timeout], [Modules], [QEMUArgs].
//
//	func TestEngine(t *testing.T) {
//		lab.RunOn(t, "qemu-arm64", func(t *testing.T) { ... },
//			lab.Modules("virtio_crypto", "algif_skcipher", "crypto_user"),
//			lab.QEMUArgs("-object", "cryptodev-backend-builtin,id=c0", "-device", "virtio-crypto-pci,cryptodev=c0"))
//	}
func RunOn(t *testing.T, board string, f func(t *testing.T), opts ...Option) {
	t.Helper()
	if InBoard() != "" {
		f(t)
		return
	}
	if testing.Short() {
		t.Skip("a test on an emulated board")
	}
	o := options{memory: "256M", timeout: 2 * time.Minute, modules: boardModules}
	for _, opt := range opts {
		opt(&o)
	}
	b, err := FindBoard(board)
	if err != nil {
		t.Fatal(err)
	}
	k, err := b.Kernel()
	if err != nil {
		Unavailable(t, err)
	}
	program, err := buildTestFor(b)
	if err != nil {
		t.Fatal(err)
	}
	out := &relay{w: t.Output(), test: t.Name()}
	status, took, err := b.run(t.Context(), k, program, o, out,
		"-test.run="+pattern(t.Name(), asked()), "-test.v=true", "-test.count=1", "-test.timeout="+o.timeout.String())
	out.flush()
	switch {
	case err != nil:
		t.Fatal(err)
	case status != 0:
		t.Errorf("failed on the board (exit status %d, %.1f s)", status, took.Seconds())
	case out.skipped:
		t.Skip("skipped on the board")
	case !out.ran:
		t.Error("the board ran no such test")
	default:
		t.Logf("board %s: %.1f s", board, took.Seconds())
	}
}

// Unavailable skips a test that lacks something on this machine, or fails it where nothing may lack: in CI.
func Unavailable(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// Reserve waits for a processor of this machine for an emulated board, or for all of them, until the test ends.
func Reserve(t *testing.T, all bool) {
	t.Helper()
	_, release, err := slot(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
}

// buildTestFor compiles the tests of the package in the current directory for a board.
func buildTestFor(b *Board) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	return once(filepath.Base(dir)+".test."+b.Name, func(out string) *exec.Cmd {
		cmd := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-o", out, ".")
		cmd.Env = append(append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0"), b.Env...)
		return cmd
	})
}

// BuildFor compiles a command of this module for a board as it is shipped, and returns the file.
func BuildFor(b *Board, importPath string) (string, error) {
	flags, err := compilerFlags()
	if err != nil {
		return "", err
	}
	return once(importPath+"."+b.Name, func(out string) *exec.Cmd {
		cmd := exec.Command("go", slices.Concat([]string{"build", "-trimpath", "-ldflags=-s -w"}, flags, []string{"-o", out, importPath})...)
		cmd.Env = append(append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0"), b.Env...)
		return cmd
	})
}

// compilerFlags are those of a router's binary.
func compilerFlags() (flags []string, err error) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", CulvertCommand).Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "gcflags"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "-") {
			flags = append(flags, strings.TrimSpace(line))
		}
	}
	return flags, nil
}

// run boots a board with the program, which links this package, as its only file and first process.
func (b *Board) run(ctx context.Context, k *BoardKernel, program string, o options, out *relay, args ...string) (status int, took time.Duration, err error) {
	dir, err := os.MkdirTemp("", sharePrefix)
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	q, err := b.program(dir, k, program, o, args...)
	if err != nil {
		return 0, 0, err
	}
	q.Console = out
	_, release, err := slot(ctx, o.alone)
	if err != nil {
		return 0, 0, err
	}
	defer release()
	start := time.Now()
	g, err := q.Start(ctx)
	if err != nil {
		return 0, 0, err
	}
	err = g.Wait(o.timeout + 15*time.Second) // the test's own timeout strikes first and tells more
	if err != nil {
		g.Kill()
		return 0, time.Since(start), err
	}
	m := regexp.MustCompile(regexp.QuoteMeta(statusMessage) + `(\d+)`).FindStringSubmatch(g.Last(20))
	if m == nil {
		return 0, time.Since(start), fmt.Errorf("the board went off without a result; the serial line's last lines:\n%s", g.Last(40))
	}
	status, err = strconv.Atoi(m[1])
	return status, time.Since(start), err
}

// program makes, in dir, what a board boots that has nothing but a program, and returns how to start it.
func (b *Board) program(dir string, k *BoardKernel, program string, o options, args ...string) (*QEMU, error) {
	r := NewInitramfs()
	r.File("init", program)
	modules, err := k.Modules(r, o.modules...)
	if err != nil {
		return nil, err
	}
	order, err := json.Marshal(boardTask{Modules: modules, Args: args, Env: o.env})
	if err != nil {
		return nil, err
	}
	r.Data(boardOrder, 0o600, order)
	initrd := filepath.Join(dir, "initrd")
	file, err := os.Create(initrd)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := r.Write(file, 1); err != nil {
		return nil, err
	}
	return &QEMU{Board: b, Kernel: k.Image, Initrd: initrd, Memory: o.memory, Append: boardEnv + "=" + b.Name,
		Args: append([]string{"-object", "rng-builtin,id=rng0", "-device", "virtio-rng-pci,rng=rng0"}, o.qemu...)}, nil
}

// boardTask is what a board's first process has to do.
type boardTask struct {
	Modules []string // files, in order
	Args    []string // of the program, which is this executable
	Env     []string
}

func init() {
	if os.Getpid() == 1 && InBoard() != "" {
		bootBoard()
	}
}

// bootBoard is the board's first process: it makes the place, loads the modules, starts itself again as the program and
// switches off. It never returns to main.
func bootBoard() {
	status, err := onBoard()
	if err != nil {
		fmt.Println("lab: board:", err)
	} else {
		fmt.Println(statusMessage + strconv.Itoa(status))
	}
	unix.Sync()
	// Not every kernel can cut a board's power, but all can reset it, and that ends QEMU too.
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}

func onBoard() (status int, err error) {
	steps := []func() error{
		mkdir("/proc", "/sys", "/dev", "/tmp", "/run"),
		mount("proc", "/proc", "proc", 0, ""),
		mount("sys", "/sys", "sysfs", 0, ""),
		mount("dev", "/dev", "devtmpfs", 0, "mode=755"),
		mkdir("/dev/pts", "/dev/net"),
		mount("devpts", "/dev/pts", "devpts", 0, "mode=620,ptmxmode=666"),
		mount("tmp", "/tmp", "tmpfs", 0, "mode=1777"),
	}
	for i, step := range steps {
		if err := step(); err != nil {
			return 0, fmt.Errorf("step %d: %w", i, err)
		}
	}
	b, err := os.ReadFile(boardOrder)
	if err != nil {
		return 0, err
	}
	var task boardTask
	if err := json.Unmarshal(b, &task); err != nil {
		return 0, err
	}
	for _, file := range task.Modules {
		// One that finds no hardware of its own refuses; the test that needs it will tell.
		if err := loadModule(file); err != nil {
			fmt.Printf("lab: board: %s: %v\n", filepath.Base(file), err)
		}
	}
	for _, node := range []func() error{mknod("/dev/ppp", 108, 0), mknod("/dev/net/tun", 10, 200), func() error { return linkUp("lo") }} {
		if err := node(); err != nil {
			return 0, err
		}
	}
	env := append(task.Env, boardEnv+"="+InBoard(), "TMPDIR=/tmp", "HOME=/", "PATH=/")
	cmd := exec.Command("/init", task.Args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdout, os.Stderr, env
	return reap(cmd)
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

// boardArch is the machine's name as uname(2) tells it, for tests of the boards themselves.
func boardArch() string {
	var uts unix.Utsname
	unix.Uname(&uts)
	return strings.TrimSpace(unix.ByteSliceToString(uts.Machine[:]))
}
