package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// A Kernel is a user-mode Linux that this machine has.
type Kernel struct {
	Name    string // series: "6.1", "6.12"
	Path    string // what to execute
	Modules string // the directory of its modules, as /lib/modules
}

// FindKernel returns the kernel of the series "6.1" or "6.12", both built by kernel.sh from Debian's sources.
// The error says which make target provides a missing one.
func FindKernel(name string) (Kernel, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return Kernel{}, fmt.Errorf("user-mode Linux needs linux/amd64, not %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	if name != "6.1" && name != "6.12" {
		return Kernel{}, fmt.Errorf("no kernel %q in the lab: 6.1 or 6.12", name)
	}
	dir, err := sourceDir()
	if err != nil {
		return Kernel{}, err
	}
	out, err := exec.Command(filepath.Join(dir, "kernel.sh"), "--print", name).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return Kernel{}, errors.New(strings.TrimSpace(string(exit.Stderr)))
		}
		return Kernel{}, err
	}
	path := strings.TrimSpace(string(out))
	if _, err := os.Stat(path); err != nil {
		return Kernel{}, fmt.Errorf("kernel %s is not built: run make kernel", name)
	}
	return Kernel{Name: name, Path: path, Modules: filepath.Join(filepath.Dir(path), "modules")}, nil
}

// sourceDir is the directory of this package's sources, where kernel.sh is.
func sourceDir() (string, error) {
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		return filepath.Dir(file), nil
	}
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "culvert/board/lab").Output() // built with -trimpath
	if err != nil {
		return "", fmt.Errorf("find the lab's sources: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// cacheDir is where kernels and built programs are kept between runs, the same as kernel.sh's.
func cacheDir() (string, error) {
	if dir := os.Getenv("LAB_CACHE"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "culvert"), nil
}
