package main

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/control"
)

// ending is what the process does after the last goodbye.
type ending func(d *daemon) error

// endWith says goodbye to everybody, and then does what was asked for.
func (d *daemon) endWith(now time.Time, e ending) {
	if d.ending == nil {
		d.ending = e
		d.stop(now)
	}
}

// end runs when nothing of the daemon is left but the process. It returns only if it did not succeed, or for nothing.
func (d *daemon) end() error {
	if d.ending == nil {
		return nil
	}
	return d.ending(d)
}

// beginAnew lets the consoles have what they have asked for, and has those that ask next wait for the next run. It is not
// for the loop, which the answers need.
func (d *daemon) beginAnew() {
	d.anew.Do(func() {
		if err := d.console.Leave(); err != nil {
			d.logger("console").Warn("consoles are not told of the restart", "error", err)
		}
		d.loop.post(func(now time.Time) { d.endWith(now, restart) })
	})
}

// restart begins the program anew in the same process, so that whoever started it does not notice. Consoles wait.
func restart(d *daemon) error {
	if err := control.Restarting(d.socket); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}

// reboot and powerOff ask init, which ends everything else in order; where there is none, the kernel is asked.
func reboot(*daemon) error { return leave("reboot", unix.LINUX_REBOOT_CMD_RESTART) }

func powerOff(*daemon) error { return leave("poweroff", unix.LINUX_REBOOT_CMD_POWER_OFF) }

func leave(command string, kernel int) error {
	unix.Sync()
	path, err := exec.LookPath(command)
	if err == nil {
		err = exec.Command(path).Run()
	}
	if errors.Is(err, exec.ErrNotFound) {
		err = unix.Reboot(kernel)
	}
	return err
}

// busy says whether a configuration asks for anything.
func busy(cfg *config.Config) bool {
	if cfg.Server.Enabled {
		return true
	}
	for i := range cfg.Clients {
		if cfg.Clients[i].Dialled() {
			return true
		}
	}
	return false
}
