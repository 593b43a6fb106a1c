package hwcrypto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// linux/cryptouser.h and include/linux/crypto.h.
const (
	cryptoMsgNewAlg    = 0x10
	cryptoMsgDelAlg    = 0x11
	cryptoMsgUpdateAlg = 0x12
	cryptoMsgGetAlg    = 0x13
	cryptoNameLen      = 64                    // CRYPTO_MAX_NAME, with its NUL
	cryptoAlgLen       = 3*cryptoNameLen + 4*4 // struct crypto_user_alg
	cfgPriority        = 1                     // CRYPTOCFGA_PRIORITY_VAL

	typeAEAD       = 3
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

// openCrypto opens NETLINK_CRYPTO; no answer is waited for longer than wait.
func openCrypto(wait time.Duration) (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_CRYPTO); err != nil {
		return -1, err
	}
	timeout := unix.NsecToTimeval(int64(wait))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func cryptoRequest(kind, flags uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, 1)
	b = binary.NativeEndian.AppendUint32(b, 0)
	return append(b, body...)
}

// Steerable says why the kernel's choice of drivers cannot be changed, if so.
func Steerable() error {
	fd, err := openCrypto(time.Second)
	if err != nil {
		return fmt.Errorf("hwcrypto: NETLINK_CRYPTO (CONFIG_CRYPTO_USER, or modprobe crypto_user): %w", err)
	}
	return unix.Close(fd)
}

// Instantiate has the kernel build an AEAD out of the drivers that its driver name spells out:
// "echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))". An error's tree has EEXIST if it is there already, ENOENT if
// the kernel lacks a part, ELIBBAD if it failed the kernel's own test. It needs CAP_NET_ADMIN, as the next two do.
func Instantiate(driver string) error { return change("instantiate", cryptoMsgNewAlg, driver, nil) }

// SetPriority changes which of several drivers of one name the kernel takes for whoever asks from now on: the one with the
// highest. What is in use stays as it is. Everything that was built upon the driver is forgotten by the kernel.
func SetPriority(driver string, priority int) error {
	attr := binary.NativeEndian.AppendUint16(nil, unix.SizeofNlAttr+4)
	attr = binary.NativeEndian.AppendUint16(attr, cfgPriority)
	attr = binary.NativeEndian.AppendUint32(attr, uint32(int32(priority)))
	return change("set the priority of", cryptoMsgUpdateAlg, driver, attr)
}

// Delete removes what Instantiate, or a user of it, has built; EBUSY in the error's tree says that it is in use.
func Delete(driver string) error { return change("delete", cryptoMsgDelAlg, driver, nil) }

// change sends one request about a driver and waits for the outcome. An instance is tested by the kernel before it answers.
func change(what string, kind uint16, driver string, attr []byte) error {
	fail := func(err error) error { return fmt.Errorf("hwcrypto: %s %s: %w", what, driver, err) }
	if len(driver) >= cryptoNameLen {
		return fail(unix.ENAMETOOLONG)
	}
	fd, err := openCrypto(10 * time.Second)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	body := make([]byte, cryptoAlgLen)
	copy(body[cryptoNameLen:], driver)
	if kind == cryptoMsgNewAlg {
		binary.NativeEndian.PutUint32(body[3*cryptoNameLen:], typeAEAD)
		binary.NativeEndian.PutUint32(body[3*cryptoNameLen+4:], flagTypeMask)
	}
	req := cryptoRequest(kind, unix.NLM_F_ACK, append(body, attr...))
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fail(err)
	}
	buf := make([]byte, 4096)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fail(err)
		}
		if nl, ok := from.(*unix.SockaddrNetlink); !ok || nl.Pid != 0 {
			continue
		}
		if _, _, err := parseDump(buf[:n]); err != nil {
			return fail(err)
		}
		return nil
	}
}

// dumpAlgorithms asks NETLINK_CRYPTO for everything.
func dumpAlgorithms() ([]Algorithm, error) {
	fd, err := openCrypto(2 * time.Second)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	req := cryptoRequest(cryptoMsgGetAlg, unix.NLM_F_DUMP, make([]byte, cryptoAlgLen))
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
		Name: text(b[:64]), Driver: text(b[64:128]), Module: text(b[128:192]), Users: int(int32(binary.NativeEndian.Uint32(b[3*64+8:]))),
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
