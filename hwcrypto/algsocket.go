package hwcrypto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// algSocket is an operation socket of AF_ALG (linux/if_alg.h). Everything a request needs is prepared once, because the
// library's sendmsg allocates. Data is copied in and out: splicing into the kernel's ciphers has been a source of holes.
type algSocket struct {
	fd      int
	msg     unix.Msghdr
	iov     [2]unix.Iovec
	control []byte
	op, iv  []byte // where control holds the operation and the IV
}

const (
	algDecrypt, algEncrypt = 0, 1 // ALG_OP_*
	rtaKeyParam            = 1    // CRYPTO_AUTHENC_KEYA_PARAM
)

// openAlg binds kind ("aead", "skcipher", "hash") and name, and sets the key. authSize and assocLen are for AEAD, ivLen
// for whatever has an IV.
func openAlg(kind, name string, key []byte, authSize, assocLen, ivLen int) (*algSocket, error) {
	fail := func(what string, err error) (*algSocket, error) {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EPROTONOSUPPORT) {
			err = fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		return nil, fmt.Errorf("hwcrypto: AF_ALG %s %s: %s: %w", kind, name, what, err)
	}
	fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail("socket (CONFIG_CRYPTO_USER_API)", err)
	}
	defer unix.Close(fd) // the operation socket keeps its parent
	if err := unix.Bind(fd, &unix.SockaddrALG{Type: kind, Name: name}); err != nil {
		return fail("bind", err)
	}
	// Not by a library call that wants a string: a key must not be copied to where nobody clears it.
	if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_ALG, unix.ALG_SET_KEY,
		uintptr(unsafe.Pointer(unsafe.SliceData(key))), uintptr(len(key)), 0); errno != 0 {
		return fail("key", errno)
	}
	if authSize != 0 {
		if _, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.SOL_ALG, unix.ALG_SET_AEAD_AUTHSIZE,
			0, uintptr(authSize), 0); errno != 0 {
			return fail("ICV length", errno)
		}
	}
	// The library's accept chokes on the address, which this family does not have.
	op, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return fail("accept", errno)
	}
	s := &algSocket{fd: int(op)}
	if kind != "hash" {
		size := unix.CmsgSpace(4) + unix.CmsgSpace(4+ivLen)
		if kind == "aead" {
			size += unix.CmsgSpace(4)
		}
		s.control = make([]byte, size)
		at := 0
		put := func(option, n int) []byte {
			b := s.control[at:]
			h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
			h.Level, h.Type = unix.SOL_ALG, int32(option)
			h.SetLen(unix.CmsgLen(n))
			at += unix.CmsgSpace(n)
			return b[unix.CmsgLen(0):][:n]
		}
		s.op = put(unix.ALG_SET_OP, 4)
		iv := put(unix.ALG_SET_IV, 4+ivLen)
		binary.NativeEndian.PutUint32(iv, uint32(ivLen))
		s.iv = iv[4:]
		if kind == "aead" {
			binary.NativeEndian.PutUint32(put(unix.ALG_SET_AEAD_ASSOCLEN, 4), uint32(assocLen))
		}
		s.msg.Control = unsafe.SliceData(s.control)
		s.msg.SetControllen(size)
	}
	s.msg.Iov = &s.iov[0]
	return s, nil
}

// do sends in and tail and receives as much as out holds. EBADMSG comes back as ErrAuth.
func (s *algSocket) do(op uint32, iv, in, tail, out []byte) error {
	if s.fd < 0 {
		return errClosed
	}
	if s.control != nil {
		binary.NativeEndian.PutUint32(s.op, op)
		copy(s.iv, iv)
	}
	s.setIov(0, in)
	s.msg.SetIovlen(1)
	if len(tail) > 0 {
		s.setIov(1, tail)
		s.msg.SetIovlen(2)
	}
	n, err := s.call(unix.SYS_SENDMSG, uintptr(unsafe.Pointer(&s.msg)), 0)
	s.iov = [2]unix.Iovec{} // a packet's buffer is not ours to keep
	if err != nil {
		return fmt.Errorf("hwcrypto: AF_ALG: send: %w", err)
	}
	if n != len(in)+len(tail) {
		return fmt.Errorf("hwcrypto: AF_ALG took %d of %d octets", n, len(in)+len(tail))
	}
	n, err = s.call(unix.SYS_READ, uintptr(unsafe.Pointer(unsafe.SliceData(out))), uintptr(len(out)))
	runtime.KeepAlive(out)
	switch {
	case err == unix.EBADMSG:
		return ErrAuth
	case err != nil:
		return fmt.Errorf("hwcrypto: AF_ALG: %w", err)
	case n != len(out):
		return fmt.Errorf("hwcrypto: AF_ALG gave %d of %d octets", n, len(out))
	}
	return nil
}

func (s *algSocket) setIov(i int, b []byte) {
	s.iov[i].Base = unsafe.SliceData(b)
	s.iov[i].SetLen(len(b))
}

//go:uintptrescapes
func (s *algSocket) call(trap, a, b uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(trap, uintptr(s.fd), a, b)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

func (s *algSocket) close() error {
	if s.fd < 0 {
		return nil
	}
	err := unix.Close(s.fd)
	s.fd = -1
	return err
}
