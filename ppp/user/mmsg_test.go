package user

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"culvert/l2tp"

	"golang.org/x/sys/unix"
)

// Batches of a UDP socket as its owner would make them: recvmmsg and sendmmsg.

type mmsghdr struct {
	unix.Msghdr
	n uint32
	_ [unsafe.Sizeof(uintptr(0)) - 4]byte
}

type batchSender struct {
	raw  syscall.RawConn
	mu   sync.Mutex
	msgs [maxFrames]mmsghdr
	iov  [maxFrames]unix.Iovec
	to   unix.RawSockaddrInet4
	at   int
	n    int
	err  syscall.Errno
	call func(fd uintptr) bool
}

func newBatchSender(t testing.TB, c *net.UDPConn) *batchSender {
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	s := &batchSender{raw: raw}
	s.to.Family = unix.AF_INET
	for i := range s.msgs {
		m := &s.msgs[i]
		m.Name, m.Namelen = (*byte)(unsafe.Pointer(&s.to)), unix.SizeofSockaddrInet4
		m.Iov = &s.iov[i]
		m.SetIovlen(1)
	}
	s.call = func(fd uintptr) bool {
		for s.at < s.n {
			n, _, errno := syscall.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&s.msgs[s.at])), uintptr(s.n-s.at), 0, 0, 0)
			switch {
			case errno == syscall.EAGAIN:
				return false
			case errno == syscall.EINTR:
			case errno != 0:
				s.err = errno
				return true
			default:
				s.at += int(n)
			}
		}
		return true
	}
	return s
}

func (s *batchSender) send(p l2tp.Peer, bufs [][]byte, at int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to.Addr = p.Remote.Addr().As4()
	port := p.Remote.Port()
	*(*[2]byte)(unsafe.Pointer(&s.to.Port)) = [2]byte{byte(port >> 8), byte(port)}
	for i, b := range bufs {
		s.iov[i].Base = &b[at]
		s.iov[i].SetLen(len(b) - at)
	}
	s.at, s.n, s.err = 0, len(bufs), 0
	err := s.raw.Write(s.call)
	runtime.KeepAlive(bufs)
	if err == nil && s.err != 0 {
		err = s.err
	}
	return s.at, err
}

func receiveBatches(t testing.TB, c *net.UDPConn, handle func([][]byte)) {
	raw, err := c.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	const size = 2048
	msgs, iov := make([]mmsghdr, maxFrames), make([]unix.Iovec, maxFrames)
	buf, out := make([]byte, maxFrames*size), make([][]byte, maxFrames)
	for i := range msgs {
		iov[i].Base = &buf[i*size]
		iov[i].SetLen(size)
		msgs[i].Iov = &iov[i]
		msgs[i].SetIovlen(1)
	}
	n := 0
	call := func(fd uintptr) bool {
		r, _, errno := syscall.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), maxFrames, unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			n = 0
			return errno != syscall.EAGAIN
		}
		n = int(r)
		return true
	}
	for {
		if err := raw.Read(call); err != nil {
			if !errors.Is(err, net.ErrClosed) && n > 0 {
				t.Error(err)
			}
			return
		}
		for i := range n {
			out[i] = buf[i*size:][:msgs[i].n]
		}
		handle(out[:n])
	}
}
