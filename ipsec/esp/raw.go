package esp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/dgram"
	"culvert/ipsec"
)

// RawOptions are for OpenRaw.
type RawOptions struct {
	// Listen are our addresses; an unspecified one means every address of its family. None at all means every address of
	// both families, or of IPv4 alone where the kernel has no IPv6.
	Listen []netip.Addr
	// Device is the VRF that the sockets are in, empty for none.
	Device string
	// Deaf sockets only send: what comes in the VRF is heard by those outside of it.
	Deaf bool
	Log  *slog.Logger
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
	rawBatch   = 48      // packets taken from the kernel at once
	rawMessage = 8 << 10 // longest packet, IP header included: as natt.MaxMessage
	rawBuffer  = 1 << 20 // octets that may wait in the kernel, either way
)

// rawSock is one raw socket.
type rawSock struct {
	file   *os.File
	dgrams *dgram.Conn
	local  netip.Addr // may be unspecified
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
		s, err := openRaw(a.Unmap(), o)
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

func openRaw(local netip.Addr, o RawOptions) (*rawSock, error) {
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
	for _, opt := range options {
		if err == nil {
			err = unix.SetsockoptInt(fd, opt.level, opt.name, opt.value)
		}
	}
	if err == nil && o.Device != "" {
		err = unix.BindToDevice(fd, o.Device)
	}
	if err == nil && o.Deaf {
		nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K} // of any packet
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &rawSock{file: os.NewFile(uintptr(fd), "esp"), local: local}
	if s.dgrams, err = dgram.New(s.file, dgram.Options{IPv6: local.Is6()}); err != nil {
		s.file.Close()
		return nil, err
	}
	s.dgrams.SetBuffers(rawBuffer)
	return s, nil
}

// Send sends an ESP packet from one of our addresses. It does not keep the slice.
func (r *Raw) Send(local, remote netip.Addr, packet []byte) error {
	s, err := r.find(local, remote)
	if err == nil {
		err = s.dgrams.SendOne(netip.AddrPortFrom(remote, 0), local, 0, packet)
	}
	if err != nil {
		return fmt.Errorf("esp: send to %s: %w", remote, err)
	}
	return nil
}

// SendBatch is Send for several packets, in order. It says how many have gone; the error is that of the next.
func (r *Raw) SendBatch(local, remote netip.Addr, packets [][]byte) (sent int, err error) {
	s, err := r.find(local, remote)
	if err == nil {
		sent, err = s.dgrams.Send(netip.AddrPortFrom(remote, 0), local, 0, packets...)
	}
	if err != nil {
		return sent, fmt.Errorf("esp: send to %s: %w", remote, err)
	}
	return sent, nil
}

func (r *Raw) find(local, remote netip.Addr) (*rawSock, error) {
	for _, s := range r.socks {
		if s.local.Is4() == remote.Is4() && local.Is4() == remote.Is4() && (s.local == local.WithZone("") || s.local.IsUnspecified()) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNoSocket, local)
}

// Serve starts one goroutine for each socket until Close. Each calls reader once, and then recv with every ESP packet,
// SPI first, and flush when those that arrived together have been handed over. The ports of the path are zero. recv must
// not keep the packet.
func (r *Raw) Serve(reader func() (recv func(p ipsec.Path, packet []byte), flush func())) {
	for _, s := range r.socks {
		go r.read(s, reader)
	}
}

func (r *Raw) read(s *rawSock, reader func() (func(ipsec.Path, []byte), func())) {
	recv, flush := reader()
	in := s.dgrams.Reader(rawBatch, rawMessage)
	one := func(m *dgram.Message) {
		p, packet, ok := s.parse(m)
		if !ok {
			r.stats.malformed.Add(1)
			return
		}
		r.stats.packets.Add(1)
		recv(p, packet)
	}
	for {
		err := in.Read(one)
		switch {
		case err == nil:
			flush()
		case errors.Is(err, os.ErrClosed):
			return
		default:
			if r.stats.readErrors.Add(1) == 1 {
				r.log.Warn("raw ESP socket failed to read, going on", "local", s.local, "err", err)
			}
			time.Sleep(10 * time.Millisecond) // an error that stays must not become a busy loop
		}
	}
}

// parse finds the ESP packet in a message; false if it is not whole.
func (s *rawSock) parse(m *dgram.Message) (p ipsec.Path, packet []byte, ok bool) {
	switch {
	case m.Truncated:
		return p, nil, false
	case !s.local.Is6():
		return parseIPv4(m.Data)
	}
	local := s.local
	if m.To.IsValid() {
		local = m.To
	}
	return ipsec.Path{Local: netip.AddrPortFrom(local, 0), Remote: netip.AddrPortFrom(m.From.Addr(), 0)}, m.Data, true
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
