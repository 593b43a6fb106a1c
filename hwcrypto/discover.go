package hwcrypto

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Algorithm is one implementation that the kernel has registered.
type Algorithm struct {
	Name     string // "cbc(aes)"
	Driver   string // "cbc-aes-neonbs"
	Module   string // "kernel" if built in
	Type     string // "aead", "skcipher", "shash", "ahash", "cipher", ...
	Priority int    // the highest of one name is taken
	Users    int    // the kernel's reference count, which every user raises: 1 when nobody uses it
	Async    bool
	Internal bool // only other algorithms may use it
	Engine   bool // off the CPU, in a crypto engine
	Tested   bool // it passed the kernel's own test
}

func (a Algorithm) String() string {
	where := "cpu"
	if a.Engine {
		where = "engine"
	}
	return fmt.Sprintf("%s: %s, priority %d, %s", a.Name, a.Driver, a.Priority, where)
}

// Discover lists what the kernel has registered, by name and then by falling priority. What only a module would bring is
// not in it until somebody asks for it.
func Discover() ([]Algorithm, error) {
	algs, err := dumpAlgorithms()
	if err != nil {
		f, ferr := os.Open("/proc/crypto")
		if ferr != nil {
			return nil, fmt.Errorf("hwcrypto: neither NETLINK_CRYPTO (CONFIG_CRYPTO_USER: %w) nor %w", err, ferr)
		}
		defer f.Close()
		if algs, err = ParseProcCrypto(f); err != nil {
			return nil, err
		}
	}
	sort.SliceStable(algs, func(i, j int) bool {
		a, b := algs[i], algs[j]
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(b.Priority, a.Priority)) < 0
	})
	return algs, nil
}

// Best is the implementation that the kernel gives to whoever asks for the name now, or the zero Algorithm.
func Best(algs []Algorithm, name string) (best Algorithm) {
	for _, a := range algs {
		if a.Name == name && !a.Internal && (best.Name == "" || a.Priority > best.Priority) {
			best = a
		}
	}
	return best
}

// engineDrivers are parts of the driver names of crypto engines, for where the kernel does not tell by a flag.
var engineDrivers = []string{
	"eip93", "safexcel", "qce", "caam", "talitos", "mv-", "mtk", "omap", "sun4i", "sun8i", "stm32", "rk-", "rockchip", "hisi",
	"ccree", "atmel", "bcm", "virtio", "octeontx", "otx", "cesa", "nss", "dcp", "sahara", "ccp", "qat", "keembay", "starfive", "artpec6", "amlogic",
}

func engineByName(driver string) bool {
	driver = strings.ToLower(driver)
	return slices.ContainsFunc(engineDrivers, func(s string) bool { return strings.Contains(driver, s) })
}

// ParseProcCrypto reads the form of /proc/crypto: lines of "key : value", a blank line after each algorithm. Driver names
// may hold blanks; keys that a type does not have are absent.
func ParseProcCrypto(r io.Reader) ([]Algorithm, error) {
	var out []Algorithm
	var a Algorithm
	done := func() {
		if a.Name != "" {
			a.Engine = engineByName(a.Driver)
			out = append(out, a)
		}
		a = Algorithm{}
	}
	in := bufio.NewScanner(r)
	for in.Scan() {
		key, value, ok := strings.Cut(in.Text(), ":")
		if !ok {
			if strings.TrimSpace(in.Text()) == "" {
				done()
			}
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "name":
			if a.Name != "" {
				done()
			}
			a.Name = value
		case "driver":
			a.Driver = value
		case "module":
			a.Module = value
		case "type":
			a.Type = value
		case "priority":
			a.Priority, _ = strconv.Atoi(value)
		case "refcnt":
			a.Users, _ = strconv.Atoi(value)
		case "async":
			a.Async = value == "yes"
		case "internal":
			a.Internal = value == "yes"
		case "selftest":
			a.Tested = value == "passed"
		}
	}
	done()
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("hwcrypto: /proc/crypto: %w", err)
	}
	return out, nil
}

// algPresent says whether the kernel has AF_ALG at all.
func algPresent() bool {
	fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}
