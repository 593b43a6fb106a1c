//go:build linux

package sock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Datagram is where a datagram came from or goes to, and its mark; zero for none.
type Datagram struct {
	Local, Remote netip.AddrPort
	Mark          uint32
}

// Options say what to open.
type Options struct {
	// Listen is an address, or an unspecified one, and a port; 0 takes an ephemeral port. 0.0.0.0 is IPv4 only and [::]
	// IPv6 only: a server opens both.
	Listen netip.AddrPort
	// Reuse shares the port with sockets that are connected (SO_REUSEADDR).
	Reuse bool
	// Marks asks for the marks of received datagrams. Kernels before 5.19 cannot tell: see Socket.Marks.
	Marks bool
	// Control is called before the socket is bound, for what else it may need. May be nil.
	Control func(fd int) error
}

// Counters are datagrams since the socket was opened.
type Counters struct {
	Received, Sent uint64
	Truncated      uint64 // longer than any L2TP message: dropped
	NoAddress      uint64 // the kernel did not tell what it was sent to: dropped
	ReceiveErrors  uint64
	SendErrors     uint64
}

// Socket is one UDP socket. Send may be called from any goroutine, Serve from one.
type Socket struct {
	conn  *net.UDPConn
	local netip.AddrPort
	marks bool

	mu  sync.Mutex // guards oob
	oob []byte

	received, sent, truncated, noAddress, receiveErrors, sendErrors atomic.Uint64
}

// bufferLen is more than the largest datagram a link of today delivers whole.
const bufferLen = 16 << 10

// maxErrors is how many errors in a row are taken for a socket that will not recover.
const maxErrors = 64

// Open makes the socket. That marks are not supported is not an error.
func Open(o Options) (*Socket, error) {
	if !o.Listen.IsValid() {
		return nil, errors.New("l2tp socket: no address to listen on")
	}
	s := &Socket{oob: make([]byte, 128)}
	v4 := o.Listen.Addr().Unmap().Is4()
	network := "udp6" // also sets IPV6_V6ONLY
	if v4 {
		network = "udp4"
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var inner error
		err := raw.Control(func(fd uintptr) { inner = s.prepare(int(fd), v4, o) })
		return errors.Join(err, inner)
	}}
	addr := netip.AddrPortFrom(o.Listen.Addr().Unmap(), o.Listen.Port())
	conn, err := lc.ListenPacket(context.Background(), network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("l2tp socket: %w", err)
	}
	s.conn = conn.(*net.UDPConn)
	s.local = s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return s, nil
}

func (s *Socket) prepare(fd int, v4 bool, o Options) error {
	if o.Reuse {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return fmt.Errorf("SO_REUSEADDR: %w", err)
		}
	}
	var err error
	if v4 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	if err != nil {
		return fmt.Errorf("packet info: %w", err)
	}
	if o.Marks {
		s.marks = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1) == nil
	}
	if o.Control != nil {
		return o.Control(fd)
	}
	return nil
}

// LocalAddr is what the socket is bound to, with the port that an ephemeral one got.
func (s *Socket) LocalAddr() netip.AddrPort { return s.local }

// ErrNoMarks is a kernel that does not tell the marks of received datagrams (SO_RCVMARK, Linux 5.19).
var ErrNoMarks = errors.New("l2tp socket: the kernel does not tell marks")

// Probe says whether sockets can tell marks.
func Probe() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("l2tp socket: %w", err)
	}
	defer unix.Close(fd)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1) != nil {
		return ErrNoMarks
	}
	return nil
}

// Marks says whether received datagrams carry their mark. If not (Linux before 5.19) every Mark is zero.
func (s *Socket) Marks() bool { return s.marks }

// Close ends Serve.
func (s *Socket) Close() error { return s.conn.Close() }

// Counters reads the counters.
func (s *Socket) Counters() Counters {
	return Counters{s.received.Load(), s.sent.Load(), s.truncated.Load(), s.noAddress.Load(), s.receiveErrors.Load(), s.sendErrors.Load()}
}

// Serve calls handle for every datagram until Close, and then returns nil. b is valid only during the call.
func (s *Socket) Serve(handle func(d Datagram, b []byte)) error {
	buf, oob := make([]byte, bufferLen), make([]byte, 256)
	failed := 0
	for {
		n, oobn, flags, from, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			s.receiveErrors.Add(1)
			if failed++; failed >= maxErrors {
				return fmt.Errorf("l2tp socket: %w", err)
			}
			continue
		}
		failed = 0
		if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			s.truncated.Add(1)
			continue
		}
		to, mark := parseControl(oob[:oobn])
		if !to.IsValid() {
			s.noAddress.Add(1)
			continue
		}
		s.received.Add(1)
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		handle(Datagram{netip.AddrPortFrom(to, s.local.Port()), from, mark}, buf[:n])
	}
}

// Send sends b to d.Remote, from d.Local's address unless that is unspecified, with the mark unless that is zero (which
// needs CAP_NET_ADMIN).
func (s *Socket) Send(d Datagram, b []byte) error {
	s.mu.Lock()
	oob := appendControl(s.oob[:0], d.Local.Addr().Unmap(), d.Mark)
	_, _, err := s.conn.WriteMsgUDPAddrPort(b, oob, d.Remote)
	s.mu.Unlock()
	if err != nil {
		s.sendErrors.Add(1)
		return fmt.Errorf("l2tp socket: send to %s: %w", d.Remote, err)
	}
	s.sent.Add(1)
	return nil
}

// parseControl finds the destination address and the mark among the control messages of a datagram.
func parseControl(oob []byte) (to netip.Addr, mark uint32) {
	for len(oob) >= unix.CmsgLen(0) {
		hdr, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return to, mark
		}
		oob = rest
		switch {
		case hdr.Level == unix.IPPROTO_IP && hdr.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// ipi_spec_dst, which is our address even where the datagram was broadcast.
			to = netip.AddrFrom4([4]byte(data[4:8]))
		case hdr.Level == unix.IPPROTO_IPV6 && hdr.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			to = netip.AddrFrom16([16]byte(data[:16]))
		case hdr.Level == unix.SOL_SOCKET && hdr.Type == unix.SO_MARK && len(data) >= 4:
			mark = binary.NativeEndian.Uint32(data)
		}
	}
	return to, mark
}

// appendControl writes the control messages for Send. b has room for them.
func appendControl(b []byte, from netip.Addr, mark uint32) []byte {
	if from.IsValid() && !from.IsUnspecified() {
		if from.Is4() {
			var data []byte
			b, data = appendHeader(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
			a := from.As4()
			copy(data[4:8], a[:])
		} else {
			var data []byte
			b, data = appendHeader(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
			a := from.As16()
			copy(data[:16], a[:])
		}
	}
	if mark != 0 {
		var data []byte
		b, data = appendHeader(b, unix.SOL_SOCKET, unix.SO_MARK, 4)
		binary.NativeEndian.PutUint32(data, mark)
	}
	return b
}

// appendHeader appends a control message with n octets of zeroed data. CmsgSpace keeps the next one aligned.
func appendHeader(b []byte, level, kind int32, n int) (all, data []byte) {
	at := len(b)
	b = b[:at+unix.CmsgSpace(n)]
	clear(b[at:])
	hdr := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	hdr.Level, hdr.Type = level, kind
	hdr.SetLen(unix.CmsgLen(n))
	return b, b[at+unix.CmsgLen(0) : at+unix.CmsgLen(n)]
}
