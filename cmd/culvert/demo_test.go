package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestDemo is `culvert demo` as a newcomer runs it, but for the time it measures.
func TestDemo(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root: network namespaces and TUN devices")
	}
	program := filepath.Join(t.TempDir(), "culvert")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	interfaces := func() string {
		out, err := os.ReadFile("/proc/net/dev")
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`:.*`).ReplaceAllString(string(out), "")
	}
	before := interfaces()
	play := func(t *testing.T, who *syscall.Credential) {
		tmp := t.TempDir()
		if who != nil {
			for _, dir := range []string{filepath.Dir(filepath.Dir(program)), filepath.Dir(tmp)} {
				if err := os.Chmod(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chown(tmp, int(who.Uid), int(who.Gid)); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		cmd := exec.Command(program, "demo", "-seconds", "0.3")
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.Dir, cmd.Env = "/", append(os.Environ(), "TMPDIR="+tmp)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
		err := cmd.Run()
		if who != nil && strings.Contains(out.String(), "run it as root") {
			t.Skip(out.String())
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		t.Logf("\n%s", out.String())
		suite := "esp aes-256-cbc/sha256"
		if hasGCM() {
			suite = "esp aes-256-gcm"
		}
		for _, want := range []string{"esp+user+user", "noticed the NAT", "anna", suite, "Mbit/s", "not one readable", "All of it worked"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("it does not say %q", want)
			}
		}
		if after := interfaces(); after != before {
			t.Errorf("interfaces before:\n%s\nafter:\n%s", before, after)
		}
		if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	t.Run("root", func(t *testing.T) { play(t, nil) })
	// Where the kernel lets anybody be root in a user namespace, anybody can see it.
	t.Run("nobody", func(t *testing.T) { play(t, &syscall.Credential{Uid: 65534, Gid: 65534}) })
}
