package hwcrypto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// linux/cryptouser.h and include/linux/crypto.h.
const (
	cryptoMsgGetAlg = 0x13
	cryptoAlgLen    = 3*64 + 4*4 // struct crypto_user_alg
	cfgPriority     = 1          // CRYPTOCFGA_PRIORITY_VAL

	flagTypeMask   = 0xf
	flagAsync      = 0x80
	flagTested     = 0x400
	flagDriverOnly = 0x1000 // CRYPTO_ALG_KERN_DRIVER_ONLY: an engine or instructions that user mode cannot have
	flagInternal   = 0x2000

	maxAlgorithms = 4096 // of one dump; kernels have some hundreds
)

var typeNames = map[uint32]string{
	1: "cipher", 2: "compress", 3: "aead", 4: "lskcipher", 5: "skcipher", 8: "kpp", 0xa: "acomp", 0xb: "scomp", 0xc: "rng", 0xd: "akcipher", 0xe: "shash", 0xf: "ahash",
}

// dumpAlgorithms asks NETLINK_CRYPTO for everything.
func dumpAlgorithms() ([]Algorithm, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_CRYPTO)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	timeout := unix.NsecToTimeval(2e9)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return nil, err
	}
	req := make([]byte, unix.NLMSG_HDRLEN+cryptoAlgLen)
	binary.NativeEndian.PutUint32(req, uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], cryptoMsgGetAlg)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(req[8:], 1)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out []Algorithm
	buf := make([]byte, 32<<10)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue
		}
		done, algs, err := parseDump(buf[:n])
		if err != nil {
			return nil, err
		}
		if out = append(out, algs...); len(out) > maxAlgorithms {
			return nil, errors.New("hwcrypto: the kernel lists algorithms without end")
		}
		if done {
			return out, nil
		}
	}
}

var errShort = errors.New("hwcrypto: netlink message is cut short")

// parseDump reads one datagram of the answer.
func parseDump(b []byte) (done bool, out []Algorithm, err error) {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return false, nil, errShort
		}
		n := binary.NativeEndian.Uint32(b)
		if n < unix.NLMSG_HDRLEN || uint64(n) > uint64(len(b)) {
			return false, nil, errShort
		}
		body := b[unix.NLMSG_HDRLEN:n]
		switch binary.NativeEndian.Uint16(b[4:]) {
		case unix.NLMSG_DONE:
			return true, out, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return false, nil, errShort
			}
			if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
				return false, nil, fmt.Errorf("hwcrypto: NETLINK_CRYPTO: %w", unix.Errno(-code))
			}
		case cryptoMsgGetAlg:
			a, err := parseAlgorithm(body)
			if err != nil {
				return false, nil, err
			}
			out = append(out, a)
		}
		b = b[min(int(n+3)&^3, len(b)):]
	}
	return false, out, nil
}

func parseAlgorithm(b []byte) (Algorithm, error) {
	if len(b) < cryptoAlgLen {
		return Algorithm{}, errShort
	}
	text := func(b []byte) string {
		b, _, _ = bytes.Cut(b, []byte{0})
		return string(b)
	}
	flags := binary.NativeEndian.Uint32(b[3*64+12:])
	a := Algorithm{
		Name: text(b[:64]), Driver: text(b[64:128]), Module: text(b[128:192]),
		Type:     typeNames[flags&flagTypeMask],
		Async:    flags&flagAsync != 0,
		Tested:   flags&flagTested != 0,
		Internal: flags&flagInternal != 0,
	}
	a.Engine = flags&flagDriverOnly != 0 || engineByName(a.Driver)
	for b = b[cryptoAlgLen:]; len(b) >= unix.SizeofNlAttr; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return Algorithm{}, errShort
		}
		if binary.NativeEndian.Uint16(b[2:]) == cfgPriority && n >= unix.SizeofNlAttr+4 {
			a.Priority = int(int32(binary.NativeEndian.Uint32(b[unix.SizeofNlAttr:])))
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return a, nil
}
