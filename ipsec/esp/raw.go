package esp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
)

// RawOptions are for OpenRaw.
type RawOptions struct {
	// Listen are our addresses; an unspecified one means every address of its family. None at all means every address of
	// both families, or of IPv4 alone where the kernel has no IPv6.
	Listen []netip.Addr
	Log    *slog.Logger
}

// Raw holds the sockets of IP protocol 50. Its methods may be called from any goroutine.
type Raw struct {
	socks []*rawSock
	log   *slog.Logger
	stats struct{ packets, malformed, readErrors atomic.Uint64 }
}

// RawStats count packets since OpenRaw.
type RawStats struct {
	Packets    uint64 // handed on
	Malformed  uint64 // cut off, or not even an IP header
	ReadErrors uint64
}

const (
	protoESP   = 50
	rawBatch   = 4       // packets taken from the kernel at once
	rawMessage = 8 << 10 // longest packet, IP header included: as natt.MaxMessage
	rawBuffer  = 512 << 10
)

// rawSock is one raw socket with all that a system call on it needs, because the library's sendmsg and recvmsg allocate.
type rawSock struct {
	file  *os.File
	conn  syscall.RawConn
	local netip.Addr // may be unspecified

	send   sync.Mutex // covers the rest
	msg    unix.Msghdr
	iov    unix.Iovec
	to4    unix.RawSockaddrInet4
	to6    unix.RawSockaddrInet6
	ctl    []byte
	errno  unix.Errno
	sendFn func(fd uintptr) bool
}

// ErrNoSocket says that no open raw socket has the local address.
var ErrNoSocket = errors.New("esp: no raw socket for this local address")

// OpenRaw opens every socket or none. It needs CAP_NET_RAW.
func OpenRaw(o RawOptions) (*Raw, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Raw{log: o.Log}
	listen, optional6 := o.Listen, false
	if len(listen) == 0 {
		listen, optional6 = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, true
	}
	for _, a := range listen {
		s, err := openRaw(a.Unmap())
		if err != nil && optional6 && a.Is6() && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
			continue
		}
		if err != nil {
			r.Close()
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
				err = fmt.Errorf("run as root or with CAP_NET_RAW: %w", err)
			}
			return nil, fmt.Errorf("esp: raw socket for IP protocol %d on %s: %w", protoESP, a, err)
		}
		r.socks = append(r.socks, s)
	}
	return r, nil
}

func openRaw(local netip.Addr) (*rawSock, error) {
	family, sa := unix.AF_INET, unix.Sockaddr(nil)
	if local.Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: local.As16()}
	} else {
		sa = &unix.SockaddrInet4{Addr: local.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protoESP)
	if err != nil {
		return nil, err
	}
	type option struct{ level, name, value int }
	options := []option{
		// The outer packet may be fragmented, as the kernel's own may: L2TP sends without DF.
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT},
	}
	if local.Is6() {
		options = []option{
			{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
			{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT},
		}
	}
	for _, o := range options {
		if err == nil {
			err = unix.SetsockoptInt(fd, o.level, o.name, o.value)
		}
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, rawBuffer) // as much of it as the kernel grants
	s := &rawSock{file: os.NewFile(uintptr(fd), "esp"), local: local}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		s.file.Close()
		return nil, err
	}
	s.prepare()
	return s, nil
}

// prepare sets up what stays the same for every packet sent.
func (s *rawSock) prepare() {
	s.msg.Iov = &s.iov
	s.msg.SetIovlen(1)
	n, level, kind := unix.SizeofInet4Pktinfo, unix.IPPROTO_IP, unix.IP_PKTINFO
	if s.local.Is6() {
		n, level, kind = unix.SizeofInet6Pktinfo, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO
		s.to6.Family = unix.AF_INET6
		s.msg.Name, s.msg.Namelen = (*byte)(unsafe.Pointer(&s.to6)), unix.SizeofSockaddrInet6
	} else {
		s.to4.Family = unix.AF_INET
		s.msg.Name, s.msg.Namelen = (*byte)(unsafe.Pointer(&s.to4)), unix.SizeofSockaddrInet4
	}
	s.ctl = make([]byte, unix.CmsgSpace(n))
	h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(s.ctl)))
	h.Level, h.Type = int32(level), int32(kind)
	h.SetLen(unix.CmsgLen(n))
	s.msg.Control = unsafe.SliceData(s.ctl)
	s.msg.SetControllen(len(s.ctl))
	s.sendFn = func(fd uintptr) bool {
		_, _, s.errno = unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&s.msg)), 0)
		return s.errno != unix.EAGAIN && s.errno != unix.EINTR
	}
}

// Send sends an ESP packet from one of our addresses. It does not keep the slice.
func (r *Raw) Send(local, remote netip.Addr, packet []byte) error {
	var s *rawSock
	for _, c := range r.socks {
		if c.local.Is4() == remote.Is4() && (c.local == local.WithZone("") || c.local.IsUnspecified()) {
			s = c
			break
		}
	}
	if s == nil || local.Is4() != remote.Is4() {
		return fmt.Errorf("%w: %s", ErrNoSocket, local)
	}
	s.send.Lock()
	defer s.send.Unlock()
	data := s.ctl[unix.CmsgLen(0):]
	if s.local.Is6() {
		src := local.As16()
		s.to6.Addr = remote.As16()
		copy(data, src[:])
	} else {
		src := local.As4()
		s.to4.Addr = remote.As4()
		copy(data[4:], src[:]) // ipi_spec_dst
	}
	s.iov.Base = unsafe.SliceData(packet)
	s.iov.SetLen(len(packet))
	err := s.conn.Write(s.sendFn)
	s.iov = unix.Iovec{}
	if err == nil && s.errno != 0 {
		err = s.errno
	}
	if err != nil {
		return fmt.Errorf("esp: send to %s: %w", remote, err)
	}
	return nil
}

// mmsghdr is struct mmsghdr of sys/socket.h.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// Serve starts one goroutine for each socket, which calls recv with every ESP packet, SPI first, until Close; the ports
// of the path are zero. recv must not keep the packet: it is Backend.Receive.
func (r *Raw) Serve(recv func(p ipsec.Path, packet []byte)) {
	for _, s := range r.socks {
		go r.read(s, recv)
	}
}

func (r *Raw) read(s *rawSock, recv func(ipsec.Path, []byte)) {
	in := newRawReader(s)
	for {
		n, err := in.wait()
		if err != nil {
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if r.stats.readErrors.Add(1) == 1 {
				r.log.Warn("raw ESP socket failed to read, going on", "local", s.local, "err", err)
			}
			time.Sleep(10 * time.Millisecond) // an error that stays must not become a busy loop
			continue
		}
		for i := range n {
			p, packet, ok := in.packet(i)
			if !ok {
				r.stats.malformed.Add(1)
				continue
			}
			r.stats.packets.Add(1)
			recv(p, packet)
		}
	}
}

// rawReader takes several packets from the kernel at once.
type rawReader struct {
	s     *rawSock
	msgs  [rawBatch]mmsghdr
	iovs  [rawBatch]unix.Iovec
	from  [rawBatch]unix.RawSockaddrInet6 // the larger one
	ctl   [rawBatch][]byte
	bufs  [rawBatch][]byte
	n     int
	errno unix.Errno
	fn    func(fd uintptr) bool
}

func newRawReader(s *rawSock) *rawReader {
	in := &rawReader{s: s}
	for i := range in.msgs {
		in.bufs[i] = make([]byte, rawMessage)
		in.ctl[i] = make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
		in.iovs[i].Base = unsafe.SliceData(in.bufs[i])
		in.iovs[i].SetLen(rawMessage)
		h := &in.msgs[i].hdr
		h.Iov = &in.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&in.from[i]))
		h.Control = unsafe.SliceData(in.ctl[i])
	}
	in.fn = func(fd uintptr) bool {
		var n uintptr
		n, _, in.errno = unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&in.msgs[0])), rawBatch, unix.MSG_DONTWAIT, 0, 0)
		in.n = int(n)
		return in.errno != unix.EAGAIN && in.errno != unix.EINTR
	}
	return in
}

// wait returns how many packets there are.
func (in *rawReader) wait() (int, error) {
	for i := range in.msgs { // the kernel wrote what it used
		in.msgs[i].hdr.Namelen = unix.SizeofSockaddrInet6
		in.msgs[i].hdr.SetControllen(len(in.ctl[i]))
	}
	if err := in.s.conn.Read(in.fn); err != nil {
		return 0, err
	}
	if in.errno != 0 {
		return 0, in.errno
	}
	return in.n, nil
}

// packet returns the i-th one; false if it is not whole.
func (in *rawReader) packet(i int) (p ipsec.Path, packet []byte, ok bool) {
	m := &in.msgs[i]
	if m.hdr.Flags&unix.MSG_TRUNC != 0 {
		return p, nil, false
	}
	b := in.bufs[i][:m.n]
	if !in.s.local.Is6() {
		return parseIPv4(b)
	}
	local := in.s.local
	if a, ok := pktinfo6(in.ctl[i][:min(int(m.hdr.Controllen), len(in.ctl[i]))]); ok {
		local = a
	}
	return ipsec.Path{Local: netip.AddrPortFrom(local, 0), Remote: netip.AddrPortFrom(netip.AddrFrom16(in.from[i].Addr), 0)}, b, true
}

// parseIPv4 strips the IP header that a raw IPv4 socket leaves in front.
func parseIPv4(b []byte) (p ipsec.Path, packet []byte, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return p, nil, false
	}
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if head < 20 || total < head || total > len(b) || b[9] != protoESP {
		return p, nil, false
	}
	p.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[12:16])), 0)
	p.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[16:20])), 0)
	return p, b[head:total], true
}

// pktinfo6 finds which of our addresses a packet was sent to.
func pktinfo6(ctl []byte) (netip.Addr, bool) {
	if len(ctl) < unix.CmsgLen(unix.SizeofInet6Pktinfo) {
		return netip.Addr{}, false
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(ctl)))
	if h.Level != unix.IPPROTO_IPV6 || h.Type != unix.IPV6_PKTINFO || int(h.Len) < unix.CmsgLen(unix.SizeofInet6Pktinfo) {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(ctl[unix.CmsgLen(0):][:16])), true
}

// Close closes every socket. A callback that is running is not waited for.
func (r *Raw) Close() error {
	var errs []error
	for _, s := range r.socks {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}

// Stats returns the counters.
func (r *Raw) Stats() RawStats {
	return RawStats{Packets: r.stats.packets.Load(), Malformed: r.stats.malformed.Load(), ReadErrors: r.stats.readErrors.Load()}
}
