package hwcrypto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
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
func openCrypto(wait time.Duration) (*netlink.Conn, error) {
	return netlink.Dial(unix.NETLINK_CRYPTO, wait, 32<<10)
}

// ask sends a request about an algorithm, a struct crypto_user_alg and attributes.
func ask(c *netlink.Conn, kind, flags uint16, body []byte, f func([]byte) error) error {
	return c.Ask(kind, flags, append(make([]byte, netlink.HeaderLen), body...), f)
}

// Steerable says why the kernel's choice of drivers cannot be changed, if so.
func Steerable() error {
	c, err := openCrypto(time.Second)
	if err != nil {
		return fmt.Errorf("hwcrypto: NETLINK_CRYPTO (CONFIG_CRYPTO_USER, or modprobe crypto_user): %w", err)
	}
	return c.Close()
}

// Instantiate has the kernel build an AEAD out of the drivers that its driver name spells out:
// "echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))". An error's tree has EEXIST if it is there already, ENOENT if
// the kernel lacks a part, ELIBBAD if it failed the kernel's own test. It needs CAP_NET_ADMIN, as the next two do.
func Instantiate(driver string) error { return change("instantiate", cryptoMsgNewAlg, driver, nil) }

// SetPriority changes which of several drivers of one name the kernel takes for whoever asks from now on: the one with the
// highest. What is in use stays as it is. Everything that was built upon the driver is forgotten by the kernel.
func SetPriority(driver string, priority int) error {
	attr := netlink.AppendAttribute(binary.NativeEndian, nil, cfgPriority, binary.NativeEndian.AppendUint32(nil, uint32(int32(priority))))
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
	c, err := openCrypto(10 * time.Second)
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	body := make([]byte, cryptoAlgLen)
	copy(body[cryptoNameLen:], driver)
	if kind == cryptoMsgNewAlg {
		binary.NativeEndian.PutUint32(body[3*cryptoNameLen:], typeAEAD)
		binary.NativeEndian.PutUint32(body[3*cryptoNameLen+4:], flagTypeMask)
	}
	if err := ask(c, kind, unix.NLM_F_ACK, append(body, attr...), nil); err != nil {
		return fail(err)
	}
	return nil
}

// dumpAlgorithms asks NETLINK_CRYPTO for everything.
func dumpAlgorithms() ([]Algorithm, error) {
	c, err := openCrypto(2 * time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var out []Algorithm
	err = ask(c, cryptoMsgGetAlg, unix.NLM_F_DUMP, make([]byte, cryptoAlgLen), func(b []byte) error {
		a, err := parseAlgorithm(b)
		if out = append(out, a); len(out) > maxAlgorithms {
			return errors.New("the kernel lists algorithms without end")
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("hwcrypto: NETLINK_CRYPTO: %w", err)
	}
	return out, nil
}

var errShort = errors.New("description of an algorithm is cut short")

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
	err := netlink.Attributes(binary.NativeEndian, b[cryptoAlgLen:], func(kind uint16, data []byte) error {
		if kind == cfgPriority && len(data) >= 4 {
			a.Priority = int(int32(binary.NativeEndian.Uint32(data)))
		}
		return nil
	})
	return a, err
}
