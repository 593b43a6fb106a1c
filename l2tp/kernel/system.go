//go:build linux

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// system is what the plane wants of the operating system.
type system interface {
	// tunnelSocket makes a UDP socket bound to local and connected to remote. prepare is called before it is bound.
	tunnelSocket(local, remote netip.AddrPort, mark uint32, prepare func(fd int) error) (tunnelSocket, error)
	// pppSocket makes a PPPoL2TP socket and connects it.
	pppSocket(addr []byte) (fd int, err error)
	setOption(fd, option int, on bool) error
	stats(fd int) (Stats, error)
	close(fd int) error
}

// tunnelSocket is the UDP socket of a tunnel.
type tunnelSocket interface {
	fd() int
	// receive waits for a datagram. marked says whether the kernel told its mark.
	receive(b []byte) (n int, from netip.AddrPort, mark uint32, marked bool, err error)
	reconnect(remote netip.AddrPort) error
	close() error
}

type linux struct{}

func (linux) tunnelSocket(local, remote netip.AddrPort, mark uint32, prepare func(fd int) error) (tunnelSocket, error) {
	s := &udpSocket{}
	control := func(_, _ string, raw syscall.RawConn) error {
		var inner error
		err := raw.Control(func(fd uintptr) {
			s.raw = int(fd)
			inner = s.setUp(int(fd), mark, local.Addr().Is4(), prepare)
		})
		return errors.Join(err, inner)
	}
	network := "udp6"
	if local.Addr().Is4() {
		network = "udp4"
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(local), Control: control}
	conn, err := d.DialContext(context.Background(), network, remote.String())
	if err != nil {
		return nil, err
	}
	s.conn = conn.(*net.UDPConn)
	return s, nil
}

type udpSocket struct {
	conn  *net.UDPConn
	raw   int // lives as long as conn
	marks bool
	oob   [128]byte
}

func (s *udpSocket) setUp(fd int, mark uint32, v4 bool, prepare func(fd int) error) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("SO_REUSEADDR: %w", err)
	}
	if mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(int32(mark))); err != nil {
			return fmt.Errorf("SO_MARK: %w", err)
		}
	}
	if mark != 0 && v4 {
		// Inside of ESP the packet is authenticated anyway (RFC 3948 section 3.1.2); UDP over IPv6 has no packets without.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			return fmt.Errorf("SO_NO_CHECK: %w", err)
		}
	}
	s.marks = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1) == nil
	if prepare != nil {
		return prepare(fd)
	}
	return nil
}

func (s *udpSocket) fd() int      { return s.raw }
func (s *udpSocket) close() error { return s.conn.Close() }

func (s *udpSocket) receive(b []byte) (n int, from netip.AddrPort, mark uint32, marked bool, err error) {
	n, oobn, _, from, err := s.conn.ReadMsgUDPAddrPort(b, s.oob[:])
	if err != nil {
		return 0, from, 0, false, err
	}
	for oob := s.oob[:oobn]; len(oob) >= unix.CmsgLen(0); {
		hdr, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		oob = rest
		if hdr.Level == unix.SOL_SOCKET && hdr.Type == unix.SO_MARK && len(data) >= 4 {
			mark = binary.NativeEndian.Uint32(data)
		}
	}
	return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), mark, s.marks, nil
}

func (s *udpSocket) reconnect(remote netip.AddrPort) error {
	var sa unix.Sockaddr
	if a := remote.Addr(); a.Is4() {
		sa = &unix.SockaddrInet4{Port: int(remote.Port()), Addr: a.As4()}
	} else {
		sa = &unix.SockaddrInet6{Port: int(remote.Port()), Addr: a.As16()}
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = unix.Connect(int(fd), sa) })
	return errors.Join(err, inner)
}

func (linux) pppSocket(addr []byte) (int, error) {
	fd, err := unix.Socket(afPPPOX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, pxProtoOL2TP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if addr == nil {
		return fd, nil
	}
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&addr[0])), uintptr(len(addr)))
	if errno != 0 {
		unix.Close(fd)
		return -1, os.NewSyscallError("connect", errno)
	}
	return fd, nil
}

func (linux) setOption(fd, option int, on bool) error {
	value := 0
	if on {
		value = 1
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_PPPOL2TP, option, value))
}

// iocStats is struct pppol2tp_ioc_stats of include/uapi/linux/ppp-ioctl.h. Its counters are aligned to 8 octets on every
// machine, which they are by where they stand.
type iocStats struct {
	tunnel, session uint16
	flags           uint32
	counters        [8]uint64
}

func (linux) stats(fd int) (Stats, error) {
	var s iocStats
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PPPIOCGL2TPSTATS, uintptr(unsafe.Pointer(&s)))
	if errno != 0 {
		return Stats{}, os.NewSyscallError("PPPIOCGL2TPSTATS", errno)
	}
	c := s.counters
	return Stats{c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]}, nil
}

func (linux) close(fd int) error { return unix.Close(fd) }

// ErrUnsupported is a kernel without PPP over L2TP.
var ErrUnsupported = errors.New("the kernel has no PPP over L2TP: modprobe l2tp_ppp, or build it with CONFIG_PPPOL2TP")

// Probe says whether this kernel can be a data plane; the error says what is missing. It may load the module.
func Probe() error { return probe(linux{}) }

func probe(sys system) error {
	fd, err := sys.pppSocket(nil)
	switch {
	case err == nil:
		return sys.close(fd)
	case errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT):
		return fmt.Errorf("l2tp data plane: %w (%w)", ErrUnsupported, err)
	}
	return fmt.Errorf("l2tp data plane: %w", err)
}
