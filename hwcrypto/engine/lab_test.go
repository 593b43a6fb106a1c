package engine

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
	"culvert/hwcrypto"
	"culvert/ipsec"
	"culvert/ipsec/esp"
	"culvert/ipsec/xfrm"
)

var (
	cbcSHA1 = hwcrypto.Suite{Cipher: hwcrypto.AESCBC, KeyBits: 128, Hash: hwcrypto.SHA1, ICV: 12}
	chacha  = hwcrypto.Suite{Cipher: hwcrypto.ChaCha20Poly1305, KeyBits: 256, ICV: 16}
	gcm     = hwcrypto.Suite{Cipher: hwcrypto.AESGCM, KeyBits: 128, ICV: 16}
)

// install puts a loop into the kernel by way of package xfrm, as the daemon does.
func install(l Loop) (func() error, error) { return installKeys(l, l.Keys) }

// installKeys is install with other keys for the receiving side.
func installKeys(l Loop, in hwcrypto.Keys) (func() error, error) {
	b, err := xfrm.New(xfrm.Options{MarkMask: l.Mark | l.Mark<<1})
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(esp.Suites(), func(s ipsec.Suite) bool { h, _ := esp.Suite(s); return h == l.Suite })
	if i < 0 {
		return nil, errors.Join(fmt.Errorf("no suite %s", l.Suite), b.Close())
	}
	suite := esp.Suites()[i]
	sa := ipsec.SA{Dir: ipsec.Out, SPI: ipsec.SPI(l.SPI), Mark: ipsec.Mark(l.Mark), Local: l.Src, Remote: l.Dst, Mode: ipsec.Transport, Suite: suite,
		Keys: ipsec.Keys{Enc: l.Keys.Enc, Auth: l.Keys.Auth}}
	err = b.Install(sa)
	if err == nil {
		sa.Mark <<= 1 // with the other's mark it would be taken for sending too
		sa.Dir, sa.Local, sa.Remote, sa.Keys = ipsec.In, l.Dst, l.Src, ipsec.Keys{Enc: in.Enc, Auth: in.Auth}
		err = b.Install(sa)
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b.Close, nil
}

// priorities are those of all drivers but the ones that only instances are.
func priorities(t *testing.T) map[string]int {
	algs, err := hwcrypto.Discover()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]int)
	for _, a := range algs {
		out[a.Driver] = a.Priority
	}
	return out
}

// steered opens Engines and logs what they chose.
func steered(t *testing.T, o Options) *Engines {
	t.Helper()
	if o.Install == nil {
		o.Install = install
	}
	start := time.Now()
	e, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	for _, c := range e.Choices() {
		t.Logf("%s: %s, engine %t, by itself %s: %s", c.Suite, c.Driver, c.Engine, c.Kernel, c.Reason)
	}
	t.Logf("took %.0f ms", took.Seconds()*1e3)
	return e
}

// newSA returns the chain that an SA made now uses.
func newSA(t *testing.T, s hwcrypto.Suite) string {
	t.Helper()
	algs, err := (&Engines{o: Options{Install: install}}).probe(s)
	if err != nil {
		t.Fatal(err)
	}
	return hwcrypto.Best(algs, s.ESPName()).Driver
}

// A kernel with one chain for each suite is left alone.
func TestLabNothingToChoose(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) {
		file := filepath.Join(t.TempDir(), "state", "crypto.json")
		for _, setting := range []string{Auto, Hardware, Software, "no-such-driver"} {
			e := steered(t, Options{Suites: []hwcrypto.Suite{cbcSHA1, gcm, chacha}, State: file, Engine: setting})
			if e.Steered() {
				t.Errorf("%s: changed although there is nothing to choose: %+v", setting, e.state.Changed)
			}
			for _, c := range e.Choices() {
				if c.Driver == "" || c.Driver != c.Kernel || len(c.Results) != 1 || c.Results[0].Each[0] != 0 {
					t.Errorf("%s: %+v", setting, c)
				}
				if obeyed := !strings.Contains(c.Reason, "none to go with"); obeyed != (setting == Auto || setting == Software) {
					t.Errorf("%s: %s", setting, c.Reason)
				}
			}
			l.Must(e.Close(), "close")
		}
	}, lab.RealTime()) // speeds are measured by the clock
}

// wrap has the kernel put a driver behind a queue: cryptd, which makes it asynchronous and slower, as an engine that is
// slower than the processor.
func wrap(t *testing.T, driver string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrALG{Type: "skcipher", Name: "cryptd(" + driver + ")"})
		unix.Close(fd)
	}
	if err != nil {
		t.Fatalf("cryptd: %v", err)
	}
}

// Steering: what was measured decides which chain a new SA gets, a chain that fails is left, and afterwards all is as before.
func TestLabSteering(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) {
		const (
			queued = "echainiv(authenc(hmac(sha1-generic),cryptd(cbc(aes-generic))))"
			direct = "echainiv(authenc(hmac(sha1-generic),cbc(aes-generic)))"
		)
		wrap(t, "cbc(aes-generic)")
		before := priorities(t)
		same := func(when string) {
			t.Helper()
			for driver, is := range priorities(t) {
				if was, ok := before[driver]; ok && was != is {
					t.Errorf("%s: %s has priority %d, not %d", when, driver, is, was)
				}
				if strings.HasPrefix(driver, "echainiv(") && driver != queued {
					t.Errorf("%s: %s is left", when, driver)
				}
			}
			if got := newSA(t, cbcSHA1); got != queued {
				t.Errorf("%s: a new SA uses %s", when, got)
			}
		}
		file := filepath.Join(t.TempDir(), "state", "crypto.json")
		suites := []hwcrypto.Suite{cbcSHA1}
		pairs := 0
		counting := func(l Loop) (func() error, error) { pairs++; return install(l) }
		// A chain that does wrong: the receiving side has another key.
		broken := func(driver string) Installer {
			return func(l Loop) (func() error, error) {
				pairs++
				algs, err := hwcrypto.Discover()
				if err != nil || hwcrypto.Best(algs, l.Suite.ESPName()).Driver != driver {
					return install(l)
				}
				wrong := l.Keys
				wrong.Auth = slices.Clone(wrong.Auth)
				wrong.Auth[0] ^= 1
				return installKeys(l, wrong)
			}
		}

		// The kernel's own choice is left for what is faster, if it is.
		e := steered(t, Options{Suites: suites, Install: counting})
		c := e.Choices()[0]
		if c.Kernel != queued || len(c.Results) != 2 || c.Results[0].Driver != queued || c.Results[1].Driver != direct {
			t.Fatalf("%+v", c)
		}
		for _, r := range c.Results {
			if r.Failure != "" || r.MBps(0) <= 0 || r.MBps(2) <= 0 || r.Async != (r.Driver == queued) {
				t.Errorf("%+v", r)
			}
		}
		if faster := c.Results[1].Wins >= wins; faster != (c.Driver == direct) {
			t.Errorf("%s was chosen", c.Driver)
		}
		if got := newSA(t, cbcSHA1); got != c.Driver {
			t.Errorf("a new SA uses %s", got)
		}
		l.Must(e.Close(), "close")
		same("closed")

		// It is left if it fails, and nothing else is if that fails.
		e = steered(t, Options{Suites: suites, State: file, Install: broken(direct)})
		if c := e.Choices()[0]; c.Driver != queued || c.Results[1].Failure == "" {
			t.Errorf("%+v", c)
		}
		l.Must(e.Close(), "close")
		same("another that fails")
		pairs = 0
		e = steered(t, Options{Suites: suites, State: file, Install: broken(queued), Afresh: true})
		if c := e.Choices()[0]; c.Driver != direct || !strings.Contains(c.Results[0].Failure, errLost.Error()) || !strings.Contains(c.Reason, "the kernel's own choice fails") {
			t.Errorf("%+v", c)
		}
		if got := newSA(t, cbcSHA1); got != direct {
			t.Errorf("a new SA uses %s", got)
		}
		second := steered(t, Options{Suites: suites, State: file})
		if c := second.Choices()[0]; c.Driver != direct || second.Steered() || !strings.Contains(c.Reason, "running daemon") {
			t.Errorf("a second process: %+v", c)
		}
		l.Must(second.Close(), "close the second")
		if got := newSA(t, cbcSHA1); got != direct {
			t.Errorf("with a second process a new SA uses %s", got)
		}
		measuring := pairs
		l.Must(e.Close(), "close")
		same("its own that fails")

		// The file knows.
		pairs = 0
		e = steered(t, Options{Suites: suites, State: file, Install: counting})
		if c := e.Choices()[0]; c.Driver != direct || pairs >= measuring || !strings.Contains(c.Reason, "MB/s") {
			t.Errorf("%d pairs of SAs for what is known, %d for measuring; %+v", pairs, measuring, c)
		}
		if got := newSA(t, cbcSHA1); got != direct {
			t.Errorf("a new SA uses %s", got)
		}
		// A crash: nothing is closed, the kernel unlocks.
		e.unlock()
		if s := readState(file); len(s.Changed) == 0 || s.Boot != bootID() {
			t.Errorf("the file does not say what to restore: %+v", s)
		}
		e = steered(t, Options{Suites: suites, State: file, Engine: "cryptd(cbc(aes-generic))"})
		if c := e.Choices()[0]; c.Driver != queued {
			t.Errorf("pinned: %+v", c)
		}
		same("restored after a crash, and pinned to what was there")
		l.Must(e.Close(), "close")

		// What is in use breaks later. If what would take its place fails as well, it is the machine, and all stays.
		working := Installer(install)
		e = steered(t, Options{Suites: suites, Engine: "cryptd(cbc(aes-generic))", Install: func(l Loop) (func() error, error) { return working(l) }})
		if c := e.Choices()[0]; c.Driver != queued || !e.Watchable() {
			t.Errorf("%+v", c)
		}
		check := func(what, want string, n int, fails bool) {
			t.Helper()
			changed, err := e.Check(t.Context())
			if len(changed) != n || (err != nil) != fails || e.Choices()[0].Driver != want {
				t.Errorf("%s: %+v, error %v; %+v", what, changed, err, e.Choices())
			}
			if got := newSA(t, cbcSHA1); got != want {
				t.Errorf("%s: a new SA uses %s", what, got)
			}
		}
		check("in order", queued, 0, false)
		working = func(l Loop) (func() error, error) {
			wrong := l.Keys
			wrong.Auth = make([]byte, len(wrong.Auth))
			return installKeys(l, wrong)
		}
		check("nothing works", queued, 0, true)
		working = broken(queued)
		check("broken", direct, 1, false)
		check("left", direct, 0, false)
		l.Must(e.Close(), "close")
		same("closed after one broke")

		// A chain over which the machine went down is not tried again.
		s := readState(file)
		s.Suites, s.Boot, s.Trying = nil, "another", queued
		l.Must(s.write(file), "write")
		e = steered(t, Options{Suites: suites, State: file})
		if c := e.Choices()[0]; c.Driver != direct || c.Results[0].Failure == "" || readState(file).Trying != "" {
			t.Errorf("%+v", c)
		}
		l.Must(e.Close(), "close")
		same("after a reboot")
	}, lab.Kernels("6.1"), lab.RealTime()) // what is chosen is the faster by the clock
}
