package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// ping sends ICMP echoes (RFC 792) until one is answered, and returns how long that took.
func (s *namespace) ping(ctx context.Context, to netip.Addr, timeout time.Duration) (rtt time.Duration, err error) {
	var fd int
	if err := s.do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		return err
	}); err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000})
	echo := make([]byte, 64)
	rand.Read(echo[8:])
	echo[0] = 8 // echo request; without an identifier, the payload tells whose it is
	binary.BigEndian.PutUint16(echo[2:], ^sum(echo))
	answer := make([]byte, 1500)
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline) && ctx.Err() == nil; {
		sent := time.Now()
		if err := unix.Sendto(fd, echo, 0, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
			return 0, err
		}
		for {
			n, _, err := unix.Recvfrom(fd, answer, 0)
			if err != nil {
				break // the time is over
			}
			// IP header, ICMP header, payload.
			if n == 20+len(echo) && answer[20] == 0 && string(answer[28:n]) == string(echo[8:]) {
				return time.Since(sent), nil
			}
		}
	}
	return 0, errors.Join(fmt.Errorf("no answer within %v", timeout), ctx.Err())
}

// sum is the folded ones' complement sum (RFC 1071).
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// report is how a transfer went.
type report struct {
	octets int
	took   time.Duration
}

func (r report) String() string {
	return fmt.Sprintf("%.0f MB at %.0f Mbit/s", float64(r.octets)/(1<<20), float64(r.octets)*8/1e6/r.took.Seconds())
}

const (
	chunk       = 1 << 20 // octets, of random content, that are sent over and over with a number in front
	mostOctets  = 1 << 30
	leastOctets = 4 << 20
	stallTime   = 20 * time.Second
)

// transfer sends by TCP from one namespace to an address in another for about so many seconds. Both ends take the SHA-256
// of the stream, and the receiver's comes back.
func transfer(ctx context.Context, from, to *namespace, addr netip.Addr, seconds float64) (report, error) {
	var listener net.Listener
	if err := to.do(func() (err error) {
		listener, err = net.Listen("tcp4", netip.AddrPortFrom(addr, 0).String())
		return err
	}); err != nil {
		return report{}, err
	}
	defer listener.Close()
	go receive(listener)
	var conn net.Conn
	dialer := net.Dialer{Timeout: stallTime}
	if err := from.do(func() (err error) {
		conn, err = dialer.DialContext(ctx, "tcp4", listener.Addr().String())
		return err
	}); err != nil {
		return report{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	block := make([]byte, chunk)
	rand.Read(block)
	hash := sha256.New()
	var r report
	begun := time.Now()
	for n := uint64(0); r.octets < leastOctets || r.octets < mostOctets && time.Since(begun).Seconds() < seconds; n++ {
		binary.BigEndian.PutUint64(block, n)
		hash.Write(block)
		conn.SetDeadline(time.Now().Add(stallTime))
		if _, err := conn.Write(block); err != nil {
			return r, err
		}
		r.octets += len(block)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return r, err
	}
	conn.SetDeadline(time.Now().Add(stallTime))
	theirs := make([]byte, sha256.Size)
	if _, err := io.ReadFull(conn, theirs); err != nil {
		return r, fmt.Errorf("the receiver's hash: %w", err)
	}
	r.took = time.Since(begun)
	if string(theirs) != string(hash.Sum(nil)) {
		return r, fmt.Errorf("SHA-256 of %d octets differs: %x here, %x there", r.octets, hash.Sum(nil), theirs)
	}
	return r, nil
}

// receive answers one connection with the hash of what came.
func receive(l net.Listener) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	hash := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{hash}, struct{ io.Reader }{conn}, make([]byte, 256<<10)); err == nil {
		conn.Write(hash.Sum(nil))
	}
}
