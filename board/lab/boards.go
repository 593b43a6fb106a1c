package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A Board is a kind of machine that QEMU emulates, standing for a family of routers. Unlike the guests of [Run] it has a
// kernel and instructions of its own, and so tells what a processor's byte order, word size and a real kernel's build do.
type Board struct {
	Name    string   // as in make image BOARD=...
	Family  string   // the routers it stands for
	Env     []string // what makes the Go compiler build for it
	Console string   // the serial line's device in the guest

	qemu    string   // the emulator
	machine []string // its arguments
	nor     bool     // it keeps its configuration on NOR flash
	debian  string   // Debian's name of the architecture; empty: the kernel is built from Debian's source
}

// Boards are those that there are.
var Boards = []*Board{
	{
		Name: "qemu-arm64", Family: "RB5009, hAP ax2 and ax3", Env: []string{"GOARCH=arm64"}, Console: "ttyAMA0",
		qemu: "qemu-system-aarch64", machine: []string{"-M", "virt", "-cpu", "cortex-a53"}, debian: "arm64",
	},
	{
		Name: "qemu-arm", Family: "hAP ac2 and ac3, RB4011, RB3011", Env: []string{"GOARCH=arm", "GOARM=7"}, Console: "ttyAMA0",
		qemu: "qemu-system-arm", machine: []string{"-M", "virt,highmem=off", "-cpu", "cortex-a7"}, debian: "armhf",
	},
	{
		Name: "qemu-mipsel", Family: "hEX RB750Gr3, hEX S", Env: []string{"GOARCH=mipsle", "GOMIPS=softfloat"}, Console: "ttyS0",
		qemu: "qemu-system-mipsel", machine: []string{"-M", "malta", "-cpu", "24Kc", "-vga", "none"}, nor: true, debian: "mipsel",
	},
	{
		Name: "qemu-mips", Family: "RB951G, RB2011, hEX lite, hAP ac lite", Env: []string{"GOARCH=mips", "GOMIPS=softfloat"}, Console: "ttyS0",
		qemu: "qemu-system-mips", machine: []string{"-M", "malta", "-cpu", "24Kc", "-vga", "none"}, nor: true,
	},
}

// FindBoard returns the board of that name.
func FindBoard(name string) (*Board, error) {
	var names []string
	for _, b := range Boards {
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	return nil, fmt.Errorf("no board %q: %s", name, strings.Join(names, ", "))
}

// A BoardKernel is what a board boots.
type BoardKernel struct {
	Image   string      // what QEMU loads
	modules *moduleTree // nil: it has everything built in
	busybox string      // Debian's, for the same architecture; empty: to be built
}

// Kernel returns the board's kernel from the cache, fetching Debian's if it is not there. The one that has to be built
// takes a quarter of an hour and is not built here: the error says how.
func (b *Board) Kernel() (*BoardKernel, error) {
	if _, err := exec.LookPath(b.qemu); err != nil {
		return nil, fmt.Errorf("%s is missing: run make deps-boards", b.qemu)
	}
	dir, err := sourceDir()
	if err != nil {
		return nil, err
	}
	scripts := filepath.Join(dir, "../../rootfs/kernel")
	if b.debian == "" {
		image, err := script(filepath.Join(scripts, "malta-be.sh"), "--print")
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(image); err != nil {
			return nil, fmt.Errorf("the kernel of board %s is not built: run make kernel-boards", b.Name)
		}
		return &BoardKernel{Image: image}, nil
	}
	root, err := script(filepath.Join(scripts, "debian.sh"), b.debian)
	if err != nil {
		return nil, err
	}
	images, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return nil, fmt.Errorf("%s has %d kernels, not one", root, len(images))
	}
	k := &BoardKernel{Image: images[0], busybox: filepath.Join(root, "bin/busybox")}
	if k.modules, err = openModules(root); err != nil {
		return nil, err
	}
	return k, nil
}

// Modules puts the modules of names, and what they need, into an initramfs, and returns the files to load, in order.
// A kernel that has everything built in has none. A name ending in "?" may be missing.
func (k *BoardKernel) Modules(r *Initramfs, names ...string) ([]string, error) {
	if k.modules == nil {
		return nil, nil
	}
	return k.modules.pack(r, names)
}

// script runs one of the project's scripts and returns what it prints, or what it complains of.
func script(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", errors.New(strings.TrimSpace(string(exit.Stderr)))
	}
	return strings.TrimSpace(string(out)), err
}
