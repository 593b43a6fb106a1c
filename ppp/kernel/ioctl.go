package kernel

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const device = "/dev/ppp"

// Constants of include/uapi/linux/ppp-ioctl.h and ppp_defs.h that x/sys has not. The requests themselves are x/sys's:
// their numbers differ between architectures.
const (
	scCCPOpen     = 0x00000040
	scCCPUp       = 0x00000080
	scEnableIP    = 0x00000100
	scLoopTraffic = 0x00000200
	scMustComp    = 0x00400000

	npModePass = 0
	npModeDrop = 1
)

// npioctl is struct npioctl.
type npioctl struct {
	protocol int32
	mode     int32
}

// optionData is struct ppp_option_data.
type optionData struct {
	ptr      *byte
	length   uint32
	transmit int32
}

// idleTimes is struct ppp_idle: two of the C type long, in seconds.
type idleTimes struct{ xmit, recv int }

// Probe says what the kernel or the rights lack, and how to mend it; nil when PPP links can be made.
func Probe() error {
	fd, err := openDevice()
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// openDevice opens a fresh descriptor. It must not meet a poller before it is attached: the kernel's poll function
// returns without a wait queue until then, and the descriptor would never be woken.
func openDevice() (int, error) {
	for {
		fd, err := unix.Open(device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR:
			continue
		case unix.ENOENT:
			return -1, fmt.Errorf("%s: %w: run modprobe ppp_generic, and mknod %s c 108 0 if that does not make it", device, err, device)
		case unix.ENODEV, unix.ENXIO:
			return -1, fmt.Errorf("%s: %w: the kernel has no PPP: run modprobe ppp_generic (kmod-ppp, CONFIG_PPP)", device, err)
		case unix.EPERM, unix.EACCES:
			return -1, fmt.Errorf("%s: %w: run as root or with CAP_NET_ADMIN", device, err)
		case unix.EMFILE:
			return -1, fmt.Errorf("%s: %w: raise the limit of open files, a link needs four", device, err)
		}
		return -1, fmt.Errorf("%s: %w", device, err)
	}
}

// pollable hands an attached descriptor to Go's poller, so that a waiting reader costs a goroutine and no thread.
func pollable(fd int) (*os.File, error) {
	f := os.NewFile(uintptr(fd), device)
	if err := f.SetDeadline(time.Time{}); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: cannot be polled: %w", device, err)
	}
	return f, nil
}

// control runs f on the descriptor while it is kept from being closed; ErrClosed when it is.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if raw.Control(func(fd uintptr) { inner = f(int(fd)) }) != nil {
		return ErrClosed // it has no other error
	}
	return inner
}

func ioctlPtr(fd int, req uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg))
		runtime.KeepAlive(arg)
		switch errno {
		case 0:
			return nil
		case syscall.EINTR:
			continue
		}
		return errno
	}
}

// setInt is an ioctl that reads a C int.
func setInt(fd int, req uint, value int) error {
	v := int32(value)
	return ioctlPtr(fd, req, unsafe.Pointer(&v))
}

// getInt is an ioctl that writes a C int, which on 64-bit big-endian machines is not a Go int.
func getInt(fd int, req uint) (int, error) {
	var v int32
	err := ioctlPtr(fd, req, unsafe.Pointer(&v))
	return int(v), err
}

// is reports whether err is one of the errnos.
func is(err error, errnos ...error) bool {
	for _, e := range errnos {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
