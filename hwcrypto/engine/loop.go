package engine

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"culvert/hwcrypto"
)

// Loop is a pair of SAs for IPv4 in transport mode that the installer puts into the kernel: what is sent from Src to Dst
// with the mark becomes ESP there and comes out of it again, both in the calling thread's network namespace, over the
// loopback interface.
type Loop struct {
	Suite    hwcrypto.Suite
	Keys     hwcrypto.Keys
	SPI      uint32
	Mark     uint32
	Src, Dst netip.Addr
}

// Installer puts a pair of SAs, and the policy that leads to them, into the kernel. It is called on a thread locked to a
// network namespace that nobody else is in, and remove on the same one.
type Installer func(Loop) (remove func() error, err error)

var (
	loopSrc = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopDst = netip.AddrFrom4([4]byte{127, 0, 0, 2})
)

const (
	loopMark = 0x10000
	// firstSPI is in nobody's way: the namespace is ours.
	firstSPI = 0x10000

	// patience is how long a packet may take through both SAs: an engine that needs longer has hung or dropped it.
	patience = 300 * time.Millisecond
	// burst is how many packets are under way at once: what is asynchronous can show what it has.
	burst = 16
)

// bench is a network namespace with the two ends of a loop in it. All its methods run on the thread that made it.
type bench struct {
	install   Installer
	near, far int // UDP sockets
	nearPort  uint16
	farPort   uint16
	spi       uint32
	in        []byte
}

// errHung says that the kernel has kept the thread that made or removed an SA, as drivers do that wait for their engine.
var errHung = errors.New("the kernel does not come back from it")

// hung is when a thread is given up.
const hung = 10 * time.Second

// inNamespace runs f on a thread in a network namespace of its own, which ends with f. After errHung f may still run.
func inNamespace(install Installer, f func(*bench) error) error {
	return inNamespaceFor(hung, install, f)
}

func inNamespaceFor(limit time.Duration, install Installer, f func(*bench) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread and its namespace end with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("network namespace of our own: %w", err)
			}
			b := &bench{install: install, near: -1, far: -1, spi: firstSPI, in: make([]byte, 4096)}
			defer b.close()
			if err := b.open(); err != nil {
				return err
			}
			return f(b)
		}()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return errHung
	}
}

func (b *bench) open() (err error) {
	if err := raise("lo"); err != nil {
		return err
	}
	// By default what stays on the machine is not for IPsec.
	const sysctl = "/proc/sys/net/ipv4/conf/lo/disable_xfrm"
	if err := os.WriteFile(sysctl, []byte("0"), 0o644); err != nil {
		return fmt.Errorf("IPsec on the loopback interface: %w", err)
	}
	if b.near, b.nearPort, err = listenUDP(loopSrc); err != nil {
		return err
	}
	if b.far, b.farPort, err = listenUDP(loopDst); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(b.near, unix.SOL_SOCKET, unix.SO_MARK, loopMark); err != nil {
		return fmt.Errorf("SO_MARK: %w", err)
	}
	return unix.Connect(b.near, &unix.SockaddrInet4{Addr: loopDst.As4(), Port: int(b.farPort)})
}

func (b *bench) close() {
	for _, fd := range []int{b.near, b.far} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func listenUDP(addr netip.Addr) (fd int, port uint16, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, 0, err
	}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.As4()}); err == nil {
		err = timeouts(fd)
	}
	var sa unix.Sockaddr
	if err == nil {
		sa, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, err
	}
	return fd, uint16(sa.(*unix.SockaddrInet4).Port), nil
}

func timeouts(fd int) error {
	tv := unix.NsecToTimeval(int64(patience))
	return errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv))
}

// raise sets an interface of the thread's namespace up.
func raise(name string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr)
	}
	if err == nil {
		ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
		err = unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
	}
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}

// pair installs the SAs of a suite and returns their keys.
func (b *bench) pair(s hwcrypto.Suite) (l Loop, remove func() error, err error) {
	l = Loop{Suite: s, SPI: b.spi, Mark: loopMark, Src: loopSrc, Dst: loopDst,
		Keys: hwcrypto.Keys{Enc: make([]byte, s.EncLen()), Auth: make([]byte, s.AuthLen())}}
	b.spi++
	rand.Read(l.Keys.Enc)
	rand.Read(l.Keys.Auth)
	remove, err = b.install(l)
	return l, remove, err
}

// errLost says that packets went into the SAs and did not come out.
var errLost = errors.New("packets are lost")

// test holds the kernel against hwcrypto's software in both directions: what is sent is opened by software, what software
// has sealed is received, and what is forged is not. Engines have been seen to go wrong around blocks and at the lengths
// of full packets.
func (b *bench) test(s hwcrypto.Suite) (err error) {
	l, remove, err := b.pair(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	soft, err := hwcrypto.Software{}.New(hwcrypto.Config{Suite: s, Keys: l.Keys})
	if err != nil {
		return err
	}
	defer soft.Close()
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ESP)
	if err != nil {
		return fmt.Errorf("raw socket for ESP: %w", err)
	}
	defer unix.Close(raw)
	if err := errors.Join(timeouts(raw), unix.Bind(raw, &unix.SockaddrInet4{Addr: loopDst.As4()})); err != nil {
		return err
	}
	lengths := []int{1, 16, 64, 100, 256, 504, 513, 1000, 1400, 1472, 2000}
	seq := uint32(0)
	for _, n := range lengths {
		text := make([]byte, n)
		rand.Read(text)
		if err := b.send(text); err != nil {
			return fmt.Errorf("%d octets: %w", n, err)
		}
		seq++
		if err := b.receive(text); err != nil {
			return fmt.Errorf("%d octets: %w", n, err)
		}
		p, err := b.sniff(raw)
		if err != nil {
			return fmt.Errorf("%d octets: %w", n, err)
		}
		if err := l.opened(soft, p, seq, b.udp(text)); err != nil {
			return fmt.Errorf("%d octets: %w", n, err)
		}
	}
	to := &unix.SockaddrInet4{Addr: loopDst.As4()}
	for i, n := range lengths {
		text := make([]byte, n)
		rand.Read(text)
		seq++
		p, err := l.sealed(soft, seq, b.udp(text))
		if err != nil {
			return err
		}
		forged := bytes.Clone(p)
		forged[len(forged)-1-i] ^= 1 << (i % 8)
		for _, p := range [][]byte{forged, p} {
			if err := unix.Sendto(raw, p, 0, to); err != nil {
				return fmt.Errorf("send ESP: %w", err)
			}
		}
		// The forged one has the same sequence number: if it counted, the good one would be a replay.
		if err := b.receive(text); err != nil {
			return fmt.Errorf("%d octets sealed by software: %w", n, err)
		}
	}
	return nil
}

// udp is the datagram from near to far that ESP carries.
func (b *bench) udp(text []byte) []byte {
	d := binary.BigEndian.AppendUint16(nil, b.nearPort)
	d = binary.BigEndian.AppendUint16(d, b.farPort)
	d = binary.BigEndian.AppendUint16(d, uint16(8+len(text)))
	return append(append(d, 0, 0), text...)
}

// opened checks a packet of the kernel's.
func (l *Loop) opened(soft hwcrypto.Transform, p []byte, seq uint32, want []byte) error {
	if len(p) < l.Suite.Overhead() || binary.BigEndian.Uint32(p) != l.SPI || binary.BigEndian.Uint32(p[4:]) != seq {
		return errors.New("the packet is not of the SA")
	}
	if err := soft.Open(p, 0); err != nil {
		return fmt.Errorf("sealed otherwise than by software: %w", err)
	}
	text := p[8+l.Suite.IVLen() : len(p)-l.Suite.ICV]
	pad := int(text[len(text)-2])
	if text[len(text)-1] != unix.IPPROTO_UDP || len(text)-2-pad != len(want) {
		return errors.New("the packet's trailer is wrong")
	}
	text = text[:len(want)]
	copy(text[6:8], want[6:8]) // the kernel may fill in a checksum
	if !bytes.Equal(text, want) {
		return errors.New("the packet's text is not what was sent")
	}
	return nil
}

// sealed makes a packet for the kernel.
func (l *Loop) sealed(soft hwcrypto.Transform, seq uint32, payload []byte) ([]byte, error) {
	s := l.Suite
	block := max(s.Block(), 4)
	pad := (block - (len(payload)+2)%block) % block
	p := make([]byte, 8+s.IVLen(), s.Overhead()+len(payload)+pad+2)
	binary.BigEndian.PutUint32(p, l.SPI)
	binary.BigEndian.PutUint32(p[4:], seq)
	rand.Read(p[8:])
	p = append(p, payload...)
	for i := range pad {
		p = append(p, byte(i+1))
	}
	p = append(p, byte(pad), unix.IPPROTO_UDP)
	p = p[:cap(p)]
	return p, soft.Seal(p, 0)
}

func (b *bench) send(text []byte) error {
	for {
		_, err := unix.Write(b.near, text)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EAGAIN:
			return fmt.Errorf("%w: the SA takes no more", errLost)
		default:
			return fmt.Errorf("send through the SA: %w", err)
		}
	}
}

// receive waits for that very text.
func (b *bench) receive(want []byte) error {
	n, err := b.read(b.far)
	if err != nil {
		return err
	}
	if !bytes.Equal(b.in[:n], want) {
		return errors.New("what came out is not what went in")
	}
	return nil
}

func (b *bench) read(fd int) (int, error) {
	for {
		n, err := unix.Read(fd, b.in)
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, fmt.Errorf("%w, or take longer than %v", errLost, patience)
		default:
			return 0, err
		}
	}
}

// sniff returns the ESP packet that the raw socket has seen, without its IP header.
func (b *bench) sniff(raw int) ([]byte, error) {
	n, err := b.read(raw)
	if err != nil {
		return nil, err
	}
	head := int(b.in[0]&15) * 4
	if n < head || head < 20 {
		return nil, errors.New("not an IPv4 packet")
	}
	return bytes.Clone(b.in[head:n]), nil
}

// time measures how long a packet of each of hwcrypto.Sizes takes from one socket to the other, both SAs included, and
// keeps it where it is less than what is known: what else the machine does is not the cipher's fault.
func (b *bench) time(s hwcrypto.Suite, perPoint time.Duration, each *[len(hwcrypto.Sizes)]time.Duration) (err error) {
	_, remove, err := b.pair(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	const most = 24 // bursts, even where the clock says that they took no time, as the laboratory's does
	for i, n := range hwcrypto.Sizes {
		text := make([]byte, n)
		begun := time.Now()
		for rounds := 0; rounds < 2 || rounds < most && time.Since(begun) < perPoint; rounds++ {
			start := time.Now()
			for range burst {
				if err := b.send(text); err != nil {
					return fmt.Errorf("many of %d octets: %w", n, err)
				}
			}
			for range burst {
				if _, err := b.read(b.far); err != nil {
					return fmt.Errorf("many of %d octets: %w", n, err)
				}
			}
			if d := time.Since(start) / burst; each[i] == 0 || d < each[i] {
				each[i] = d
			}
		}
	}
	return nil
}
