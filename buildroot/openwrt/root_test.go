package openwrt

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Programs that the tests' roots need: culvert itself, and what stands in for OpenWrt's.
var programs struct{ culvert, stub string }

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "culvert-openwrt-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programs.culvert, programs.stub = filepath.Join(dir, "culvert"), filepath.Join(dir, "stub")
	for out, src := range map[string]string{programs.culvert: "culvert/cmd/culvert", programs.stub: "./testdata/stub/main.go"} {
		cmd := exec.Command("go", "build", "-o", out, src)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if b, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build %s: %v\n%s", src, err, b)
			os.Exit(1)
		}
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// missing skips a test for want of something, where CI would have it.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: run make deps", what)
	}
	t.Skip(what)
}

// root is a small OpenWrt: the package's files, busybox, and testdata's stand-ins.
type root struct {
	t   testing.TB
	dir string
}

func newRoot(t testing.TB) *root {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "needs root, for a root directory of its own")
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		missing(t, "busybox is missing")
	}
	r := &root{t: t, dir: t.TempDir()}
	for _, tree := range []string{"testdata/root", "culvert/files"} {
		r.must(filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
			to := strings.TrimPrefix(path, tree)
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			r.must(err)
			b, err := os.ReadFile(path)
			r.must(err)
			r.write(to, string(b), info.Mode().Perm())
			return nil
		}))
	}
	r.copy(busybox, "/bin/busybox")
	r.copy(programs.stub, "/stub/stub")
	r.copy(programs.culvert, "/usr/sbin/culvert.real")
	for _, name := range []string{"jshn", "uci-shell", "uci", "ubus", "logger", "resolveip"} {
		r.must(os.Symlink("stub", filepath.Join(r.dir, "stub", name)))
	}
	r.must(os.Symlink("/stub/stub", filepath.Join(r.dir, "usr/sbin/culvert")))
	for name := range strings.FieldsSeq("sh cat mkdir chmod rm mv ln grep awk sed tr sleep head hexdump echo kill touch") {
		r.must(os.Symlink("busybox", filepath.Join(r.dir, "bin", name)))
	}
	for _, dir := range []string{"dev", "tmp", "run", "proc"} {
		r.must(os.MkdirAll(filepath.Join(r.dir, dir), 0o755))
	}
	for name, minor := range map[string]int{"null": 3, "urandom": 9} {
		if err := syscall.Mknod(filepath.Join(r.dir, "dev", name), syscall.S_IFCHR|0o666, 1<<8|minor); err != nil {
			missing(t, "needs device nodes: "+err.Error())
		}
	}
	return r
}

func (r *root) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *root) write(name, text string, mode os.FileMode) {
	r.t.Helper()
	file := filepath.Join(r.dir, name)
	r.must(os.MkdirAll(filepath.Dir(file), 0o755))
	r.must(os.WriteFile(file, []byte(text), mode))
	r.must(os.Chmod(file, mode))
}

func (r *root) copy(from, to string) {
	r.t.Helper()
	b, err := os.ReadFile(from)
	r.must(err)
	r.write(to, string(b), 0o755)
}

func (r *root) read(name string) string {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, name))
	r.must(err)
	return string(b)
}

func (r *root) exists(name string) bool {
	_, err := os.Stat(filepath.Join(r.dir, name))
	return err == nil
}

// command is a program inside the root.
func (r *root) command(args ...string) *exec.Cmd {
	cmd := &exec.Cmd{Path: args[0], Args: args, Dir: "/", Env: []string{"PATH=/stub:/usr/sbin:/usr/bin:/sbin:/bin"}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: r.dir}
	return cmd
}

// run has it end, and returns what it printed and what it asked the stand-ins for since the last run.
func (r *root) run(cmd *exec.Cmd) (out string, calls []string, err error) {
	r.t.Helper()
	os.Remove(filepath.Join(r.dir, "calls"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if s := stderr.String(); s != "" {
		r.t.Errorf("%v complains:\n%s", cmd.Args, s)
	}
	return stdout.String(), r.calls(), err
}

func (r *root) calls() (calls []string) {
	b, _ := os.ReadFile(filepath.Join(r.dir, "calls"))
	return strings.FieldsFunc(string(b), func(c rune) bool { return c == '\n' })
}

// service runs the init script.
func (r *root) service(action string) []string {
	r.t.Helper()
	_, calls, _ := r.run(r.command("/bin/sh", "/etc/rc.common", "/etc/init.d/culvert", action))
	return calls
}

// handler runs netifd's protocol handler as netifd does.
func (r *root) handler(action, interface_, config string) ([]string, error) {
	r.t.Helper()
	cmd := r.command("/lib/netifd/proto/culvert.sh", "culvert", action, interface_, config)
	cmd.Dir = "/lib/netifd/proto"
	_, calls, err := r.run(cmd)
	return calls, err
}
