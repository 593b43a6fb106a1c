package engine

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
	"culvert/hwcrypto"
	"culvert/ipsec"
	"culvert/ipsec/xfrm"
)

// engineModules are what Debian's kernels have as modules for ESP, and for QEMU's crypto engine.
var engineModules = lab.Modules("virtio_crypto", "crypto_user", "xfrm_user", "esp4", "authenc", "echainiv", "cbc", "drbg", "sha512_generic?", "virtio_net")

// virtioCrypto is QEMU's stand-in for a crypto engine: off the CPU, complete by interrupt, and slow on small packets.
var virtioCrypto = lab.QEMUArgs("-object", "cryptodev-backend-builtin,id=crypto0", "-device", "virtio-crypto-pci,cryptodev=crypto0")

const (
	byEngine = "echainiv(authenc(hmac(sha1-generic),virtio_crypto_aes_cbc))"
	byCPU    = "echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))"
)

// The choice between an engine and the processor follows the measurement, and the setting; an engine that fails is left.
func TestBoardEngine(t *testing.T) {
	for _, board := range []string{"qemu-arm64", "qemu-arm"} {
		t.Run(board, func(t *testing.T) { boardEngine(t, board) })
	}
}

func boardEngine(t *testing.T, board string) {
	lab.RunOn(t, board, func(t *testing.T) {
		suites := []hwcrypto.Suite{cbcSHA1}
		file := filepath.Join(t.TempDir(), "crypto.json")
		closed := func(e *Engines) {
			t.Helper()
			if err := e.Close(); err != nil {
				t.Error(err)
			}
			// The kernel believes what the engine's author says.
			if got := newSA(t, cbcSHA1); got != byEngine {
				t.Errorf("left with %s", got)
			}
		}
		e := steered(t, Options{Suites: suites, State: file, PerPoint: 500 * time.Millisecond}) // the machine under the board may be busy
		c := e.Choices()[0]
		if len(c.Results) != 2 || c.Kernel != byEngine || c.Results[1].Driver != byCPU {
			t.Fatalf("%+v", c)
		}
		engine, cpu := c.Results[0], c.Results[1]
		if !engine.Engine || !engine.Async || cpu.Engine || cpu.Async || engine.Failure != "" || cpu.Failure != "" {
			t.Errorf("%+v", c.Results)
		}
		if engine.MBps(0) >= cpu.MBps(0) {
			t.Errorf("the engine is not slower on small packets: %v, %v", engine, cpu)
		}
		if want := cpu.Wins >= wins; want != (c.Driver == byCPU) || c.Engine != (c.Driver == byEngine) {
			t.Errorf("%s was chosen", c.Driver)
		}
		if got := newSA(t, cbcSHA1); got != c.Driver {
			t.Errorf("a new SA uses %s", got)
		}
		closed(e)

		for setting, want := range map[string]string{Software: byCPU, Hardware: byEngine, "virtio_crypto_aes_cbc": byEngine} {
			e := steered(t, Options{Suites: suites, State: file, Engine: setting, PerPoint: time.Millisecond})
			if got := newSA(t, cbcSHA1); got != want {
				t.Errorf("%s: a new SA uses %s", setting, got)
			}
			closed(e)
		}

		// What the engine opens is not what was sealed.
		e = steered(t, Options{Suites: suites, PerPoint: time.Millisecond, Install: func(l Loop) (func() error, error) {
			algs, err := hwcrypto.Discover()
			if err != nil || hwcrypto.Best(algs, l.Suite.ESPName()).Driver != byEngine {
				return install(l)
			}
			wrong := l.Keys
			wrong.Enc = slices.Clone(wrong.Enc)
			wrong.Enc[0] ^= 1
			return installKeys(l, wrong)
		}})
		if c := e.Choices()[0]; c.Driver != byCPU || c.Results[0].Failure == "" || !strings.Contains(c.Reason, "own choice fails") {
			t.Errorf("%+v", c)
		}
		if got := newSA(t, cbcSHA1); got != byCPU {
			t.Errorf("a new SA uses %s", got)
		}
		closed(e)
		engineBreaks(t) // comes last: the engine stays broken
	}, engineModules, virtioCrypto, lab.Timeout(3*time.Minute))
}

// engineBreaks has the engine stall under an SA that uses it: new ones get the processor. That those which are there can be
// made anew is shown by package xfrm.
func engineBreaks(t *testing.T) {
	var log bytes.Buffer
	file := filepath.Join(t.TempDir(), "crypto.json")
	o := Options{Suites: []hwcrypto.Suite{cbcSHA1}, State: file, Engine: Hardware, PerPoint: time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))}
	e := steered(t, o)
	if !e.Watchable() || e.Choices()[0].Driver != byEngine {
		t.Fatalf("%+v", e.Choices())
	}
	if changed, err := e.Check(t.Context()); err != nil || len(changed) != 0 {
		t.Fatalf("an engine in order: %+v, error %v", changed, err)
	}
	pass := func(b *bench, text string) error {
		if err := b.send([]byte(text)); err != nil {
			return err
		}
		return b.receive([]byte(text))
	}
	err := inNamespaceFor(time.Minute, install, func(b *bench) error {
		if _, _, err := b.pair(cbcSHA1); err != nil {
			return err
		}
		if err := pass(b, "before"); err != nil {
			return err
		}
		if err := stallVirtioCrypto(); err != nil {
			return err
		}
		if err := pass(b, "lost"); !errors.Is(err, errLost) {
			return fmt.Errorf("the engine is broken, and a packet: %v", err)
		}
		start := time.Now()
		changed, err := e.Check(t.Context())
		if err != nil {
			return err
		}
		t.Logf("left after %.1f s: %+v", time.Since(start).Seconds(), changed)
		if len(changed) != 1 || changed[0].Driver != byCPU || changed[0].Engine || !strings.Contains(changed[0].Reason, "it broke while in use") {
			t.Errorf("changed %+v", changed)
		}
		if err := pass(b, "still lost"); !errors.Is(err, errLost) {
			return fmt.Errorf("the SA still has the broken engine, and a packet: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := inNamespace(install, func(b *bench) error {
		_, _, err := b.pair(cbcSHA1)
		for i := 0; i < 20 && err == nil; i++ {
			err = pass(b, fmt.Sprint("after ", i))
		}
		return err
	}); err != nil {
		t.Errorf("a new SA: %v", err)
	}
	if n := strings.Count(log.String(), "broke while in use and is left"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, &log)
	}
	// Nothing is left to be suspected, and the next start knows.
	if e.Watchable() {
		t.Error("the processor is suspected")
	}
	if changed, err := e.Check(t.Context()); err != nil || len(changed) != 0 {
		t.Errorf("once more: %+v, error %v", changed, err)
	}
	if s := readState(file); len(s.Suites) != 1 || s.Suites[0].Chains[0].Failure == "" {
		t.Errorf("the file does not say it: %+v", s)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// stallVirtioCrypto takes the bus from QEMU's virtio-crypto and gives it back. The device counts as not driven from then on:
// it still answers the requests that make sessions, and none that has data.
func stallVirtioCrypto() error {
	dirs, err := filepath.Glob("/sys/bus/pci/devices/*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		if id, err := os.ReadFile(dir + "/device"); err != nil || strings.TrimSpace(string(id)) != "0x1054" {
			continue
		}
		f, err := os.OpenFile(dir+"/config", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		const at, busMaster = 4, 4 // the command register, and the bit
		var command [2]byte
		if _, err := f.ReadAt(command[:], at); err != nil {
			return err
		}
		for range 2 {
			command[0] ^= busMaster
			if _, err := f.WriteAt(command[:], at); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("no virtio-crypto on the PCI bus")
}

// Two boards pass ESP, one by its engine, the other by its processor, which has the other byte order.
func TestBoardESP(t *testing.T) {
	dir, err := os.MkdirTemp("", "culvert-esp-") // short: a socket's name is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	addrs := [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	for i, side := range []struct{ setting, board string }{{Hardware, "qemu-arm64"}, {Software, "qemu-mips"}} {
		setting := side.setting
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			cable := lab.QEMUArgs(
				"-netdev", fmt.Sprintf("dgram,id=n0,local.type=unix,local.path=%s/%d,remote.type=unix,remote.path=%s/%d", dir, i, dir, 1-i),
				"-device", fmt.Sprintf("virtio-net-pci,netdev=n0,mac=52:54:00:00:00:%02x,romfile=", i+1))
			lab.RunOn(t, side.board, func(t *testing.T) {
				e := steered(t, Options{Suites: []hwcrypto.Suite{cbcSHA1}, Engine: setting, PerPoint: time.Millisecond})
				defer e.Close()
				if got, want := newSA(t, cbcSHA1), map[string]string{Hardware: byEngine, Software: byCPU}[setting]; got != want {
					t.Fatalf("a new SA uses %s", got)
				}
				exchange(t, addrs[i], addrs[1-i], i == 0)
			}, engineModules, virtioCrypto, cable, lab.Timeout(13*time.Minute))
		})
	}
}

// exchange sends packets of all lengths to the peer through SAs, which answers each; both count what their SAs have seen.
func exchange(t *testing.T, local, remote netip.Addr, first bool) {
	const mark, port, packets = 0x10000, 4000, 60
	if err := errors.Join(raise("eth0"), address("eth0", local)); err != nil {
		t.Fatal(err)
	}
	b, err := xfrm.New(xfrm.Options{MarkMask: 3 * mark})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	// Each direction has keys of its own, made from the sender's address.
	sa := func(dir ipsec.Direction, mark ipsec.Mark, from netip.Addr) ipsec.SA {
		key := sha256.Sum256(from.AsSlice())
		return ipsec.SA{Dir: dir, SPI: ipsec.SPI(0x1000 + uint32(from.As4()[3])), Mark: mark, Local: local, Remote: remote, Mode: ipsec.Transport,
			Suite: ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA1, ICVBits: 96},
			Keys:  ipsec.Keys{Enc: key[:16], Auth: key[12:]}}
	}
	in, out := sa(ipsec.In, 2*mark, remote), sa(ipsec.Out, mark, local)
	if err := errors.Join(b.Install(in), b.Install(out)); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(5e8)
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: local.As4(), Port: port}),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: remote.As4(), Port: port}),
	); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	text := func(i int) []byte {
		b := make([]byte, 1+i*1399/(packets-1))
		b[0] = byte(i)
		for j := 1; j < len(b); j++ {
			b[j] = byte(i * j)
		}
		return b
	}
	// The other board may come much later, and the last answer may be lost: what is not answered is sent again.
	deadline := time.Now().Add(12 * time.Minute)
	start := time.Time{}
	for i := 0; i < packets; {
		if time.Now().After(deadline) {
			t.Fatalf("only %d packets have passed", i)
		}
		if first {
			unix.Write(fd, text(i)) // an error is the peer's absence
		}
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			continue
		}
		if i == 0 {
			start = time.Now()
		}
		got := int(buf[0])
		if got >= packets || got > i || string(buf[:n]) != string(text(got)) {
			t.Fatalf("packet %d of %d octets instead of %d", got, n, i)
		}
		if !first {
			unix.Write(fd, buf[:n])
		}
		if got == i {
			i++
		}
	}
	t.Logf("%d packets in %.0f ms", packets, time.Since(start).Seconds()*1e3)
	for _, sa := range []ipsec.SA{in, out} {
		u, err := b.Usage(sa.ID())
		if err != nil || u.Packets < packets {
			t.Errorf("the SA %s has carried %d packets, error %v", sa.Dir, u.Packets, err)
		}
	}
	if first {
		return
	}
	// The first one may be waiting for the last answer.
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if n, err := unix.Read(fd, buf); err == nil {
			unix.Write(fd, buf[:n])
		}
	}
}

// address gives an interface an address of a network of 24 bits.
func address(name string, addr netip.Addr) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	for _, set := range []struct {
		request uint
		addr    [4]byte
	}{{unix.SIOCSIFADDR, addr.As4()}, {unix.SIOCSIFNETMASK, [4]byte{255, 255, 255, 0}}} {
		ifr, err := unix.NewIfreq(name)
		if err == nil {
			err = ifr.SetInet4Addr(set.addr[:])
		}
		if err == nil {
			err = unix.IoctlIfreq(s, set.request, ifr)
		}
		if err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
	}
	return nil
}
