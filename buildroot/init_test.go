package buildroot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The init script, under busybox: it starts the daemon, starts it again after a crash, passes SIGHUP on only where the
// configuration is good, and ends it.
func TestInitScript(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil || os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs busybox and root: run make deps")
		}
		t.Skip("needs busybox, and root for a root directory of its own")
	}
	root := t.TempDir()
	write := func(name string, text []byte) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{busybox: "bin/busybox", "package/culvert/S60culvert": "etc/init.d/S60culvert"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(to, b)
	}
	// A daemon that writes down what happens to it.
	write("usr/sbin/culvert", []byte(`#!/bin/sh
case $1 in
check) [ ! -e /mistake ] && exit; echo "culvert.toml:1: a mistake" >&2; exit 1 ;;
esac
echo "$* $$" >>/calls
trap 'echo hup >>/calls' HUP
trap 'echo term >>/calls; exit 0' TERM
while :; do sleep 0.1; done
`))
	for name := range strings.FieldsSeq("sh cat sleep rm mkfifo logger start-stop-daemon printf") {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"var/run", "dev"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mknod(filepath.Join(root, "dev/null"), syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Skipf("no device nodes here: %v", err)
	}
	script := func(action string) (string, error) {
		cmd := &exec.Cmd{Path: "/etc/init.d/S60culvert", Args: []string{"/etc/init.d/S60culvert", action}, Dir: "/",
			Env: []string{"PATH=/bin:/usr/sbin"}, SysProcAttr: &syscall.SysProcAttr{Chroot: root}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	calls := func() []string {
		b, _ := os.ReadFile(filepath.Join(root, "calls"))
		return strings.FieldsFunc(string(b), func(c rune) bool { return c == '\n' })
	}
	wait := func(n int, what string) string {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if c := calls(); len(c) >= n {
				if !strings.HasPrefix(c[n-1], what) {
					t.Fatalf("%q, want %s at last", c, what)
				}
				return c[n-1]
			}
		}
		t.Fatalf("%q, want %s more", calls(), what)
		return ""
	}
	pid := func(line string) int {
		t.Helper()
		n, err := strconv.Atoi(line[strings.LastIndexByte(line, ' ')+1:])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	if out, err := script("start"); err != nil || out != "Starting culvert: OK\n" {
		t.Fatalf("start: %v %q", err, out)
	}
	t.Cleanup(func() { script("stop") })
	first := pid(wait(1, "run -c /etc/culvert/culvert.toml "))
	if out, err := script("reload"); err != nil || out != "Reloading culvert: OK\n" {
		t.Errorf("reload: %v %q", err, out)
	}
	wait(2, "hup")
	write("mistake", nil)
	if out, err := script("reload"); err == nil || !strings.Contains(out, "a mistake") {
		t.Errorf("reload with a mistake: %v %q", err, out)
	}
	os.Remove(filepath.Join(root, "mistake"))
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := pid(wait(3, "run "))
	if out, err := script("stop"); err != nil || out != "Stopping culvert: OK\n" {
		t.Errorf("stop: %v %q", err, out)
	}
	wait(4, "term")
	if err := syscall.Kill(second, 0); err == nil {
		t.Error("it still runs")
	}
	if left, _ := os.ReadDir(filepath.Join(root, "var/run")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if out, err := script("stop"); err == nil || !strings.Contains(out, "FAIL") {
		t.Errorf("stop of what does not run: %v %q", err, out)
	}
}
