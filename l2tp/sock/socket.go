//go:build linux

package sock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"culvert/board/dgram"
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
	// Data says that data messages arrive here too: datagrams are then taken many at a time.
	Data bool
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
	conn   *net.UDPConn
	dgrams *dgram.Conn
	local  netip.AddrPort
	marks  bool
	data   bool

	received, sent, truncated, noAddress, receiveErrors, sendErrors atomic.Uint64
}

// bufferLen is more than the largest datagram a link of today delivers whole.
const bufferLen = 16 << 10

// dataBuffer is how many octets of data messages may wait in the kernel, either way.
const dataBuffer = 1 << 20

// batch is how many datagrams are taken from the kernel at once where data is among them.
const batch = 8

// maxErrors is how many errors in a row are taken for a socket that will not recover.
const maxErrors = 64

// Open makes the socket. That marks are not supported is not an error.
func Open(o Options) (*Socket, error) {
	if !o.Listen.IsValid() {
		return nil, errors.New("l2tp socket: no address to listen on")
	}
	s := &Socket{data: o.Data}
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
	if s.dgrams, err = dgram.New(s.conn, dgram.Options{IPv6: !v4, Join: o.Data}); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("l2tp socket: %w", err)
	}
	if o.Data {
		s.dgrams.SetBuffers(dataBuffer)
	}
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

// Serve calls handle for every datagram until Close, and then returns nil. b is valid only during the call. flush, unless
// it is nil, is called when the datagrams that arrived together have been handed over.
func (s *Socket) Serve(handle func(d Datagram, b []byte), flush func()) error {
	messages := 1
	if s.data {
		messages = batch
	}
	r := s.dgrams.Reader(messages, bufferLen)
	one := func(m *dgram.Message) {
		switch {
		case m.Truncated || len(m.Data) > bufferLen:
			s.truncated.Add(1)
		case !m.To.IsValid():
			s.noAddress.Add(1)
		default:
			s.received.Add(1)
			handle(Datagram{netip.AddrPortFrom(m.To, s.local.Port()), m.From, m.Mark}, m.Data)
		}
	}
	for failed := 0; ; {
		err := r.Read(one)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			s.receiveErrors.Add(1)
			if failed++; failed >= maxErrors {
				return fmt.Errorf("l2tp socket: %w", err)
			}
			continue
		}
		failed = 0
		if flush != nil {
			flush()
		}
	}
}

// Send sends b to d.Remote, from d.Local's address unless that is unspecified, with the mark unless that is zero (which
// needs CAP_NET_ADMIN).
func (s *Socket) Send(d Datagram, b []byte) error {
	return s.count(d, 1, s.dgrams.SendOne(d.Remote, d.Local.Addr(), d.Mark, b))
}

// SendBatch is Send for several datagrams, in order. It says how many have gone; the error is that of the next.
func (s *Socket) SendBatch(d Datagram, batch [][]byte) (sent int, err error) {
	sent, err = s.dgrams.Send(d.Remote, d.Local.Addr(), d.Mark, batch...)
	return sent, s.count(d, sent, err)
}

func (s *Socket) count(d Datagram, sent int, err error) error {
	if err != nil {
		s.sendErrors.Add(1)
		return fmt.Errorf("l2tp socket: send to %s: %w", d.Remote, err)
	}
	s.sent.Add(uint64(sent))
	return nil
}
