package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

var builds struct {
	sync.Mutex
	done map[string]func() (string, error)
}

// build compiles a command without cgo once per process and returns the file, named after its content.
func build(importPath string) (string, error) {
	return once(importPath, func(out string) *exec.Cmd {
		cmd := exec.Command("go", "build", "-o", out, importPath)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		return cmd
	})
}

// buildTest compiles the package in the current directory (go test runs there) as a test without the race detector.
func buildTest() (string, error) { return buildTestOf(".") }

// buildTestOf does the same for any package.
func buildTestOf(importPath string) (string, error) {
	return once(strings.ReplaceAll(importPath, "/", "_")+".test", func(out string) *exec.Cmd {
		cmd := exec.Command("go", "test", "-c", "-o", out, importPath)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		return cmd
	})
}

func once(key string, command func(out string) *exec.Cmd) (string, error) {
	builds.Lock()
	f := builds.done[key]
	if f == nil {
		f = sync.OnceValues(func() (string, error) { return compile(filepath.Base(key), command) })
		if builds.done == nil {
			builds.done = map[string]func() (string, error){}
		}
		builds.done[key] = f
	}
	builds.Unlock()
	return f()
}

func compile(name string, command func(out string) *exec.Cmd) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	out := filepath.Join(tmp, name)
	if msg, err := command(out).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, strings.TrimSpace(string(msg)))
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	file := filepath.Join(dir, name+"-"+hex.EncodeToString(sum[:6]))
	if err := os.Rename(out, file); err != nil {
		return "", err
	}
	now := time.Now()
	os.Chtimes(file, now, now)
	old, _ := filepath.Glob(filepath.Join(dir, "*-*"))
	for _, f := range old {
		if fi, err := os.Stat(f); err == nil && now.Sub(fi.ModTime()) > 24*time.Hour {
			os.RemoveAll(f)
		}
	}
	return file, nil
}
