package kernel

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"culvert/ppp/netif"
)

// device is where links live. A descriptor must not meet a poller before it is attached: the kernel's poll function
// returns without a wait queue until then, and the descriptor would never be woken.
var device = netif.Device{Path: "/dev/ppp", What: "PPP", Module: "ppp_generic", Config: "kmod-ppp, CONFIG_PPP", Node: "mknod /dev/ppp c 108 0"}

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
func Probe() error { return device.Probe() }

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
