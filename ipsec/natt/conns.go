package natt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"culvert/board/dgram"
	"culvert/ipsec"
)

// The ports of RFC 2408 section 2.5.1 and RFC 3947 section 4.
const (
	IKEPort  = 500
	NATTPort = 4500
)

// Options say what Open listens on.
type Options struct {
	// Listen are our addresses; an unspecified one means every address of its family. None at all means every
	// address of both families, or of IPv4 alone where the kernel has no IPv6.
	Listen []netip.Addr
	// IKEPort and NATTPort default to 500 and 4500.
	IKEPort, NATTPort uint16
	// Encap hands encapsulated ESP on NATTPort to the kernel (UDP_ENCAP), which then never shows it to ESP.
	Encap bool
	// ESP is called once for each socket of NATTPort and returns what receives encapsulated ESP, SPI first, that reaches
	// this process: recv with each packet, flush when those that arrived together have been handed over. Both are called
	// from the socket's goroutine; recv must not keep the slice. Without ESP such datagrams are counted and dropped.
	ESP func() (recv func(p ipsec.Path, datagram []byte), flush func())
	// Strangers gives what exchanges begin with queues of their own.
	Strangers bool
	// Device is the VRF that the sockets are in, empty for none. Sockets of the same ports outside of it have to be shared
	// before (Conns.Share).
	Device string
	Log    *slog.Logger
}

// Stats count datagrams since Open.
type Stats struct {
	IKE        uint64 // delivered
	ESP        uint64 // encapsulated ESP that reached this process
	Keepalives uint64 // RFC 3948 section 4, dropped
	Runts      uint64 // shorter than any message of the protocol, dropped
	Truncated  uint64 // longer than MaxMessage, dropped
	ReadErrors uint64
	Overrun    uint64 // dropped by the kernel, whose queue for us was full
}

// Conns are the open sockets. Send, Keepalive and Stats may be called from any goroutine.
type Conns struct {
	socks []*sock
	esp   func() (recv func(p ipsec.Path, datagram []byte), flush func())
	log   *slog.Logger
	stats struct{ ike, esp, keepalives, runts, truncated, readErrors atomic.Uint64 }

	mu   sync.Mutex // guards held
	held held
}

// sock is one bound socket.
type sock struct {
	conn   *net.UDPConn
	dgrams *dgram.Conn
	local  netip.AddrPort // the address may be unspecified
	marker bool           // a NATTPort: IKE is behind the non-ESP marker

	strangers bool         // a second one, for first messages alone; nothing is sent on it
	burst     *dgram.Burst // for Together

	send sync.Mutex // guards buf
	buf  []byte
}

// dataBuffer is how many octets of ESP may wait in the kernel, either way.
const dataBuffer = 1 << 20

// ErrPortTaken says that another program holds one of the ports.
var ErrPortTaken = errors.New("port is taken")

// ErrNoPath says that no open socket has the local address and port of a path.
var ErrNoPath = errors.New("natt: no socket for this local address")

// Open binds every socket or none. ErrPortTaken is in the error's tree if another IKE daemon runs.
func Open(o Options) (*Conns, error) {
	if o.IKEPort == 0 {
		o.IKEPort = IKEPort
	}
	if o.NATTPort == 0 {
		o.NATTPort = NATTPort
	}
	if o.IKEPort == o.NATTPort {
		return nil, fmt.Errorf("natt: IKE and NAT traversal cannot share UDP %d", o.IKEPort)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Conns{esp: o.ESP, log: o.Log}
	listen, optional6 := o.Listen, false
	if len(listen) == 0 {
		listen, optional6 = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}, true
	}
	for _, addr := range listen {
		addr = addr.Unmap()
		for _, port := range []uint16{o.IKEPort, o.NATTPort} {
			s, err := c.listen(netip.AddrPortFrom(addr, port), port == o.NATTPort, o)
			if err != nil && optional6 && addr.Is6() && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
				o.Log.Info("the kernel has no IPv6, IKE listens on IPv4 alone")
				continue
			}
			if err != nil {
				c.Close()
				return nil, err
			}
			c.socks = append(c.socks, s)
			if !o.Strangers {
				continue
			}
			first, err := c.part(s, o)
			if err != nil {
				o.Log.Info("a flood of first messages will hold up the others of IKE: the kernel cannot part them", "local", s.local, "error", err)
				continue
			}
			c.socks = append(c.socks, first)
		}
	}
	return c, nil
}

func (c *Conns) listen(at netip.AddrPort, natt bool, o Options) (*sock, error) {
	s, err := c.bind(at, natt, o, nil)
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("natt: UDP %d on %s: %w: stop the other IKE daemon (strongSwan's charon, libreswan's pluto, racoon) or listen on other addresses: %w",
			at.Port(), at.Addr(), ErrPortTaken, err)
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("natt: UDP %d on %s: run as root or with CAP_NET_BIND_SERVICE: %w", at.Port(), at.Addr(), err)
	case err != nil:
		return nil, fmt.Errorf("natt: UDP %d on %s: %w", at.Port(), at.Addr(), err)
	}
	if natt && c.esp != nil {
		s.dgrams.SetBuffers(dataBuffer)
	}
	return s, nil
}

// bind opens a socket; before it is bound, more is done with it, where there is more.
func (c *Conns) bind(at netip.AddrPort, natt bool, o Options, more func(fd uintptr) error) (*sock, error) {
	network := "udp4"
	if at.Addr().Is6() {
		network = "udp6" // for a literal address Go sets IPV6_V6ONLY by the network's name
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return control(raw, func(fd uintptr) error {
			if o.Device != "" {
				if err := enter(int(fd), o.Device); err != nil {
					return err
				}
			}
			if more != nil {
				if err := more(fd); err != nil {
					return err
				}
			}
			return c.prepare(int(fd), at.Addr().Is6(), natt && o.Encap)
		})
	}}
	pc, err := lc.ListenPacket(context.Background(), network, at.String())
	if err != nil {
		return nil, err
	}
	s := &sock{conn: pc.(*net.UDPConn), local: at, marker: natt}
	if s.dgrams, err = dgram.New(s.conn, dgram.Options{IPv6: at.Addr().Is6(), Join: natt && c.esp != nil}); err != nil {
		s.conn.Close()
		return nil, err
	}
	return s, nil
}

// prepare sets a socket's options before it is bound, so that no datagram arrives without them.
func (c *Conns) prepare(fd int, v6, encap bool) error {
	if v6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return fmt.Errorf("IPV6_V6ONLY: %w", err)
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
			return fmt.Errorf("IPV6_RECVPKTINFO: %w", err)
		}
	} else {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1); err != nil {
			return fmt.Errorf("IP_PKTINFO: %w", err)
		}
		// Large IKE messages must get through where ICMP does not: let routers fragment them.
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	}
	if encap {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_ENCAP, unix.UDP_ENCAP_ESPINUDP); err != nil {
			return fmt.Errorf("the kernel cannot decapsulate ESP (UDP_ENCAP): CONFIG_XFRM and CONFIG_INET_ESP are needed (modprobe esp4 esp6), or ESP in userspace: %w", err)
		}
	}
	if err := bypass(fd, v6); err != nil {
		// A kernel without XFRM has no policies to bypass.
		level := slog.LevelDebug
		if !errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.EOPNOTSUPP) {
			level = slog.LevelWarn
		}
		c.log.Log(context.Background(), level, "IKE has no bypass around IPsec policies: a policy for all UDP would hold it up", "err", err)
	}
	return nil
}

// enter puts a socket into a VRF.
func enter(fd int, device string) error {
	if err := unix.BindToDevice(fd, device); err != nil {
		return fmt.Errorf("VRF %s: %w: see that it exists (ip link show type vrf)", device, err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return fmt.Errorf("SO_REUSEADDR: %w", err)
	}
	return nil
}

// Share lets sockets of the same ports be opened in a VRF: until then nobody else can have the ports.
func (c *Conns) Share() error {
	var errs []error
	for _, s := range c.socks {
		errs = append(errs, s.control(func(fd uintptr) error { return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }))
	}
	return errors.Join(errs...)
}

// Close closes every socket. A callback that is running is not waited for: it may itself be waiting for the caller.
func (c *Conns) Close() error {
	var errs []error
	for _, s := range c.socks {
		errs = append(errs, s.conn.Close())
	}
	return errors.Join(errs...)
}

// Locals returns what the sockets are bound to; addresses may be unspecified.
func (c *Conns) Locals() (out []netip.AddrPort) {
	for _, s := range c.socks {
		if !s.strangers {
			out = append(out, s.local)
		}
	}
	return out
}

// Stats returns the counters.
func (c *Conns) Stats() Stats {
	overrun := uint64(0)
	for _, s := range c.socks {
		overrun += s.overrun()
	}
	return Stats{
		Overrun: overrun,
		IKE:     c.stats.ike.Load(), ESP: c.stats.esp.Load(), Keepalives: c.stats.keepalives.Load(),
		Runts: c.stats.runts.Load(), Truncated: c.stats.truncated.Load(), ReadErrors: c.stats.readErrors.Load(),
	}
}
