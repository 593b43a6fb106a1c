package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// QEMU says how to start a board.
type QEMU struct {
	Board   *Board
	Kernel  string    // the image; see [Board.Kernel]
	Initrd  string    // the root file system
	Memory  string    // as QEMU's -m; 256M if empty
	Append  string    // further words of the kernel's command line
	Args    []string  // further arguments of QEMU: devices, networks, drives
	Console io.Writer // sees all that the serial line says as it comes; may be nil
}

// Command returns the emulator and its arguments, but for what the serial line is joined to.
func (q *QEMU) Command() (name string, args []string) {
	memory := q.Memory
	if memory == "" {
		memory = "256M"
	}
	args = append(args, q.Board.machine...)
	args = append(args, "-accel", "tcg", "-m", memory, "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", q.Kernel, "-initrd", q.Initrd,
		"-append", strings.TrimSpace("console="+q.Board.Console+" panic=-1 quiet "+q.Append))
	return q.Board.qemu, append(args, q.Args...)
}

// NetUser joins the board's next interface to QEMU's own user-mode network (10.0.2.0/24, with DHCP). Which of the
// virtual network's interfaces is which, the MAC address tells: 52:54:00:00:00:NN.
func NetUser(n int) []string {
	return nic(n, "user,id=n%d", n)
}

// NetListen and NetConnect join two boards by a cable: the one that listens has to be started first. The Unix socket's
// name is limited to some 100 octets.
func NetListen(n int, socket string) []string {
	return nic(n, "stream,id=n%d,server=on,addr.type=unix,addr.path="+socket, n)
}

// NetConnect is the other end of [NetListen].
func NetConnect(n int, socket string) []string {
	return nic(n, "stream,id=n%d,server=off,addr.type=unix,addr.path="+socket, n)
}

func nic(n int, format string, args ...any) []string {
	return []string{"-netdev", fmt.Sprintf(format, args...), "-device", fmt.Sprintf("virtio-net-pci,netdev=n%d,mac=52:54:00:00:00:%02x,romfile=", n, n)}
}

// A Guest is a board that runs. Its serial line is [Serial]'s methods.
type Guest struct {
	*Serial
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of the process; valid once done is closed
}

// Start powers a board on. It runs until it powers itself off, or resets, or ctx ends, or Kill; it never outlives this process.
func (q *QEMU) Start(ctx context.Context) (*Guest, error) {
	name, args := q.Command()
	args = append(args, "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console", "-monitor", "none")
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	complaints := &tail{max: 20}
	cmd.Stderr = complaints
	cmd.WaitDelay = 5 * time.Second
	g := &Guest{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Pdeathsig follows the thread that started the child, so that thread must live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		g.Serial = newSerial(stdin, stdout, q.Console)
		started <- nil
		<-g.Serial.ended // Wait would close the pipe before it is read to its end
		err := cmd.Wait()
		if s := strings.TrimSpace(complaints.String()); err != nil && s != "" {
			err = fmt.Errorf("%w: %s", err, s)
		}
		g.err = err
		close(g.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return g, nil
}

// Kill cuts the power and waits until the emulator is gone.
func (g *Guest) Kill() {
	g.cmd.Process.Kill()
	<-g.done
}

// ErrRunning says that a board has not powered itself off in time.
var ErrRunning = errors.New("the board still runs")

// Wait waits for the board to power itself off, or to be reset by its watchdog or itself: QEMU ends with both.
func (g *Guest) Wait(timeout time.Duration) error {
	select {
	case <-g.done:
		return g.err
	case <-time.After(timeout):
		return fmt.Errorf("%w after %v; the serial line's last lines:\n%s", ErrRunning, timeout, g.Last(30))
	}
}

// Running says whether the board has power.
func (g *Guest) Running() bool {
	select {
	case <-g.done:
		return false
	default:
		return true
	}
}
