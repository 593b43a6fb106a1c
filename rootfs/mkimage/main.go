// Command mkimage builds a board's image, and runs it in QEMU with the serial line on the terminal.
//
//	go run ./rootfs/mkimage -board qemu-mips			build/image/qemu-mips/{kernel,initramfs.gz}
//	go run ./rootfs/mkimage -board qemu-mips -run		... and boots it; Ctrl-A X ends it
//
// The board's first interface is on QEMU's user network, where udp/500, 4500 and 1701 of this machine's loopback, each
// plus 10000, lead to the board. What is configured is kept in build/image/BOARD/flash.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"culvert/board/lab"
)

func main() {
	name := flag.String("board", "", "which `BOARD`: "+strings.Join(names(), ", "))
	dir := flag.String("out", "build/image", "`DIRECTORY` of the images")
	run := flag.Bool("run", false, "boot it")
	shell := flag.Bool("shell", false, "boot it with a shell instead of the console on the serial line")
	memory := flag.String("memory", "128M", "the board's `SIZE` of memory")
	flag.Parse()
	if err := work(*name, *dir, *memory, *run, *shell); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func names() (all []string) {
	for _, b := range lab.Boards {
		all = append(all, b.Name)
	}
	return all
}

func work(name, dir, memory string, run, shell bool) error {
	b, err := lab.FindBoard(name)
	if err != nil {
		return err
	}
	dir = filepath.Join(dir, b.Name)
	image, err := lab.BuildImage(b, dir, nil)
	if err != nil {
		return err
	}
	kernel, initrd, err := image.Sizes()
	if err != nil {
		return err
	}
	fmt.Printf("%s: kernel %.1f MB, initramfs %.1f MB in %s\n", b.Name, float64(kernel)/1e6, float64(initrd)/1e6, dir)
	if !run && !shell {
		return nil
	}
	flash := filepath.Join(dir, "flash")
	if err := lab.NewFlash(b, flash); err != nil {
		return err
	}
	q := image.QEMU()
	q.Memory = memory
	if shell {
		q.Append = "culvert.shell"
	}
	q.Args = append(q.Args, lab.Flash(b, flash)...)
	q.Args = append(q.Args, "-netdev", "user,id=n0,hostfwd=udp:127.0.0.1:10500-:500,hostfwd=udp:127.0.0.1:14500-:4500,hostfwd=udp:127.0.0.1:11701-:1701",
		"-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:00,romfile=", "-serial", "mon:stdio")
	program, args := q.Command()
	path, err := exec.LookPath(program)
	if err != nil {
		return err
	}
	fmt.Println("Ctrl-A X ends it.")
	return syscall.Exec(path, append([]string{program}, args...), os.Environ())
}
