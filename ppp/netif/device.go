package netif

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Device is a character device that interfaces are made of.
type Device struct {
	Path   string
	What   string // the kernel has none of: "PPP"
	Module string // "ppp_generic"
	Config string // where kernels and OpenWrt have it: "kmod-ppp, CONFIG_PPP"
	Node   string // makes the file: "mknod /dev/ppp c 108 0"
}

// Probe says what the kernel or the rights lack, and how to mend it; nil when the device can be opened.
func (d Device) Probe() error {
	fd, err := d.Open()
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// Open opens a fresh descriptor, which does not block and has not met Go's poller.
func (d Device) Open() (fd int, err error) {
	for {
		fd, err := unix.Open(d.Path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR:
			continue
		case unix.ENOENT:
			return -1, fmt.Errorf("%s: %w: run modprobe %s, and %s if that does not make it", d.Path, err, d.Module, d.Node)
		case unix.ENODEV, unix.ENXIO:
			return -1, fmt.Errorf("%s: %w: the kernel has no %s: run modprobe %s (%s)", d.Path, err, d.What, d.Module, d.Config)
		case unix.EPERM, unix.EACCES:
			return -1, fmt.Errorf("%s: %w: run as root or with CAP_NET_ADMIN", d.Path, err)
		case unix.EMFILE:
			return -1, fmt.Errorf("%s: %w: raise the limit of open files, a link needs four", d.Path, err)
		}
		return -1, fmt.Errorf("%s: %w", d.Path, err)
	}
}

// File hands a descriptor to Go's poller, so that a waiting reader costs a goroutine and no thread. It is closed if that
// cannot be.
func (d Device) File(fd int) (*os.File, error) {
	f := os.NewFile(uintptr(fd), d.Path)
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: cannot be polled: %w", d.Path, err)
	}
	return f, nil
}
