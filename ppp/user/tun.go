package user

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"culvert/ppp/netif"

	"golang.org/x/sys/unix"
)

var device = netif.Device{Path: "/dev/net/tun", What: "TUN", Module: "tun", Config: "kmod-tun, CONFIG_TUN", Node: "mkdir -p /dev/net; mknod /dev/net/tun c 10 200"}

// Probe says what the kernel or the rights lack, and how to mend it; nil when TUN devices can be opened.
func Probe() error { return device.Probe() }

// tun is the descriptor of a TUN device. Reads are for one goroutine; writes take turns by the caller's lock.
type tun struct {
	file *os.File
	raw  syscall.RawConn
	name string
	vnet bool // a virtio_net_hdr stands in front of each packet
	gso  bool // the kernel gives packets that are to be segmented, and takes such

	// What a write is about; RawConn wants a function, and a fresh one for each write would be an allocation.
	vector   [2]unix.Iovec
	header   [vnetLen]byte
	written  syscall.Errno
	writeRaw func(fd uintptr) bool
}

// offloads are tried one after the other: a kernel that does not know one of the flags refuses the lot. UDP
// segmentation came with Linux 6.2.
var offloads = [...]int{
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN,
	unix.TUN_F_CSUM,
}

// openTUN makes the interface, still down, in the network namespace of this thread. name may hold %d for the kernel to
// number it.
func openTUN(name string, plain bool) (*tun, error) {
	fd, err := device.Open()
	if err != nil {
		return nil, err
	}
	t := &tun{vnet: !plain}
	if err := t.create(fd, name); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if t.vnet {
		for i, flags := range offloads {
			if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags) == nil {
				t.gso = i < len(offloads)-1
				break
			}
		}
	}
	// Only now may it meet the poller, for which a descriptor without an interface is in error.
	if t.file, err = device.File(fd); err != nil {
		return nil, err
	}
	if t.raw, err = t.file.SyscallConn(); err != nil {
		t.file.Close()
		return nil, err
	}
	t.vector[0].Base = &t.header[0]
	t.vector[0].SetLen(vnetLen)
	t.writeRaw = t.writeFD
	return t, nil
}

func (t *tun) create(fd int, name string) error {
	// IFF_TUN_EXCL: an interface that is there already is somebody else's, even if nobody holds it open.
	const flags = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_TUN_EXCL
	for {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return fmt.Errorf("interface name %q: %w", name, err)
		}
		ifr.SetUint16(flags)
		if t.vnet {
			ifr.SetUint16(flags | unix.IFF_VNET_HDR)
		}
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
		switch {
		case err == nil:
			t.name = ifr.Name()
			return nil
		case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
			return fmt.Errorf("an interface named %s %w: remove it or choose another name", name, netif.ErrExists)
		case errors.Is(err, unix.EINVAL) && t.vnet:
			t.vnet = false
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("TUNSETIFF: %w: run as root or with CAP_NET_ADMIN", err)
		default:
			return fmt.Errorf("TUNSETIFF: %w", err)
		}
	}
}

// write gives the kernel one packet, as it is or, with a header, to be completed and segmented. It does not block.
func (t *tun) write(packet []byte, h vnetHeader) error {
	h.put(t.header[:])
	t.vector[1].Base = &packet[0]
	t.vector[1].SetLen(len(packet))
	err := t.raw.Write(t.writeRaw)
	t.vector[1].Base = nil
	switch {
	case err != nil:
		return err
	case t.written != 0:
		return t.written
	}
	return nil
}

// The descriptor never blocks, so the calls that read and write it are raw: told of each, Go's scheduler would on a machine
// with one processor give that away and take it back all the time.
func (t *tun) writeFD(fd uintptr) bool {
	v := t.vector[:]
	if !t.vnet {
		v = v[1:]
	}
	for {
		_, _, t.written = syscall.RawSyscall(syscall.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)))
		if t.written != syscall.EINTR {
			break
		}
	}
	runtime.KeepAlive(t)
	return true // a full queue is a lost packet, not a reason to wait
}

// readTUN reads what is there into b: the virtio_net_hdr, if there is one, and a packet.
func readTUN(fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

// vnetHeader is struct virtio_net_hdr, in the byte order of the machine.
type vnetHeader struct {
	flags, gsoType                         uint8
	hdrLen, gsoSize, csumStart, csumOffset uint16
}

const vnetLen = 10

func (h *vnetHeader) put(b []byte) {
	_ = b[vnetLen-1]
	b[0], b[1] = h.flags, h.gsoType
	binary.NativeEndian.PutUint16(b[2:], h.hdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.gsoSize)
	binary.NativeEndian.PutUint16(b[6:], h.csumStart)
	binary.NativeEndian.PutUint16(b[8:], h.csumOffset)
}

func parseVnet(b []byte) vnetHeader {
	_ = b[vnetLen-1]
	return vnetHeader{b[0], b[1], binary.NativeEndian.Uint16(b[2:]), binary.NativeEndian.Uint16(b[4:]),
		binary.NativeEndian.Uint16(b[6:]), binary.NativeEndian.Uint16(b[8:])}
}
