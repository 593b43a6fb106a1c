package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// state is the file's content. It is written when a measurement is made and when priorities change, not otherwise: it
// may lie on flash.
type state struct {
	// Board and Kernel are what the measurements are of.
	Board, Kernel string
	Suites        []measured `json:",omitempty"`
	Broken        []string   `json:",omitempty"` // chains over which the machine went down

	// Boot is the boot of the machine that the rest is about.
	Boot string `json:",omitempty"`
	// Trying is the engine's chain that was being measured. If the file says so after another boot, the machine went down
	// over it.
	Trying string `json:",omitempty"`
	// Changed are the drivers that are not as they were found.
	Changed []change `json:",omitempty"`
}

// measured are the results of one suite.
type measured struct {
	Suite  string
	Chains []Result
}

// change is what it takes to undo one.
type change struct {
	Driver   string
	Priority int
	Made     bool // it was not there before
}

// readState takes what is there; a file that cannot be read or understood is as none.
func readState(file string) (s state) {
	b, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(b, &s) != nil {
		return state{}
	}
	return s
}

// write replaces the file whole, and only if it would change.
func (s *state) write(file string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, b) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// lock takes the state file's directory, making it if need be, until unlock; the kernel unlocks it when the process ends.
func lock(file string) (unlock func(), err error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		if err == unix.EWOULDBLOCK {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { unix.Close(fd) }, nil
}

// board names the hardware: by the device tree where there is one.
func board() string {
	for _, file := range []string{"/proc/device-tree/compatible", "/sys/class/dmi/id/product_name"} {
		if b, err := os.ReadFile(file); err == nil {
			if name, _, _ := strings.Cut(string(b), "\x00"); strings.TrimSpace(name) != "" {
				return strings.TrimSpace(name)
			}
		}
	}
	var uts unix.Utsname
	unix.Uname(&uts)
	return unix.ByteSliceToString(uts.Machine[:])
}

// kernelRelease is the release and the build: the same release may be built anew with other ciphers.
func kernelRelease() string {
	var uts unix.Utsname
	unix.Uname(&uts)
	return unix.ByteSliceToString(uts.Release[:]) + " " + unix.ByteSliceToString(uts.Version[:])
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}
