package board

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestLED(t *testing.T) {
	dir := t.TempDir()
	led := filepath.Join(dir, "green:user")
	if err := os.Mkdir(led, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(name, content string) {
		if err := os.WriteFile(filepath.Join(led, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"brightness": "0\n", "max_brightness": "1\n", "trigger": "[none] timer default-on\n", "delay_on": "", "delay_off": ""} {
		put(name, content)
	}
	is := func(name, want string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(led, name)); err != nil || string(b) != want {
			t.Errorf("%s is %q, %v; want %q", name, b, err, want)
		}
	}
	l, err := OpenLED(dir, "green:user")
	if err != nil {
		t.Fatal(err)
	}
	show := func(to Light) {
		t.Helper()
		for _, name := range []string{"brightness", "trigger"} {
			put(name, "")
		}
		if err := l.Show(to); err != nil {
			t.Error(err)
		}
	}
	show(LightOn)
	is("trigger", "none")
	is("brightness", "1")
	show(LightOn) // nothing is written
	is("trigger", "")
	show(LightBlink)
	is("trigger", "timer")
	is("delay_on", "500")
	show(LightOff)
	is("trigger", "none")
	is("brightness", "0")
	if _, err := OpenLED(dir, "red"); err == nil || !strings.Contains(err.Error(), "green:user") {
		t.Errorf("the error does not list what there is: %v", err)
	}
	if _, err := OpenLED(dir, "../led"); err == nil {
		t.Error("a path is no name")
	}
	os.RemoveAll(led)
	if err := l.Show(LightOn); err == nil {
		t.Error("no error when the light is gone")
	}
}

// The loop's proof is what feeds; a loop that stands does not, and it does again when it goes on.
func TestWatchdogGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		var stuck atomic.Bool
		var fed atomic.Int32
		alive := func(ctx context.Context) bool {
			if stuck.Load() {
				<-ctx.Done()
				return false
			}
			return true
		}
		done := make(chan struct{})
		go func() {
			guard(ctx, 5*time.Second, func() error { fed.Add(1); return nil }, alive, slog.New(slog.NewTextHandler(&log, nil)))
			close(done)
		}()
		time.Sleep(21 * time.Second)
		if n := fed.Load(); n != 5 { // at once, and every five seconds
			t.Errorf("fed %d times", n)
		}
		stuck.Store(true)
		time.Sleep(30 * time.Second)
		if n := fed.Load(); n != 5 {
			t.Errorf("fed %d times while the loop stood", n-5)
		}
		stuck.Store(false)
		time.Sleep(20 * time.Second)
		if n := fed.Load(); n < 8 {
			t.Errorf("not fed again: %d", n)
		}
		cancel()
		<-done
		if strings.Count(log.String(), "does not answer") != 1 || strings.Count(log.String(), "answers again") != 1 {
			t.Errorf("said %s", &log)
		}
	})
}

func TestWatchdogNone(t *testing.T) {
	if _, err := OpenWatchdog(filepath.Join(t.TempDir(), "watchdog"), time.Minute); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// press is one event as the kernel writes it, with a wall clock's time that says nothing.
func press(code uint16, value uint32) []byte {
	e := make([]byte, eventSize)
	b := e[eventSize-8:]
	binary.NativeEndian.PutUint16(b, evKey)
	binary.NativeEndian.PutUint16(b[2:], code)
	binary.NativeEndian.PutUint32(b[4:], value)
	return e
}

func TestButton(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		var presses atomic.Int32
		done := make(chan error)
		go func() { done <- watchKey(r, keyRestart, 5*time.Second, func() { presses.Add(1) }) }()
		for _, step := range []struct {
			events []byte
			wait   time.Duration
			total  int32
		}{
			{press(keyRestart, 1), 2 * time.Second, 0},
			{press(keyRestart, 0), 10 * time.Second, 0}, // too short
			{press(0x211, 1), 10 * time.Second, 0},      // another button
			{press(keyRestart, 1), 4 * time.Second, 0},
			{press(keyRestart, 2), 2 * time.Second, 1}, // its repetition does not start anew
			{press(keyRestart, 0), time.Second, 1},
			{append(press(keyRestart, 1), press(keyRestart, 0)...), 10 * time.Second, 1},
		} {
			w.Write(step.events)
			time.Sleep(step.wait)
			synctest.Wait()
			if n := presses.Load(); n != step.total {
				t.Fatalf("%d presses, want %d", n, step.total)
			}
		}
		w.Write(press(keyRestart, 1))
		w.Close()
		if err := <-done; !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if presses.Load() != 1 {
			t.Error("pressed by a device that is gone")
		}
	})
}

func TestFindButton(t *testing.T) {
	bit := "1000000" + strings.Repeat(" 0", keyRestart/64) // 64-bit words
	if eventSize == 16 {
		bit = "1000000" + strings.Repeat(" 0", keyRestart/32)
	}
	root := tree(map[string]string{
		"sys/class/input/event0/device/capabilities/key": "10000000000000 0\n",
		"sys/class/input/event1/device/capabilities/key": bit + "\n",
		"sys/class/input/mouse0/device/capabilities/key": bit + "\n",
	})
	if got, err := FindButton(root); err != nil || got != "dev/input/event1" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := FindButton(tree(nil)); err == nil {
		t.Error("a button where there is none")
	}
}

func TestModules(t *testing.T) {
	root := tree(map[string]string{
		"lib/modules/6.1.0/modules.builtin": "kernel/net/xfrm/xfrm_user.ko\nkernel/drivers/net/ppp/slhc.ko\n",
		"lib/modules/6.1.0/modules.dep": "kernel/drivers/net/ppp/ppp_generic.ko:\nkernel/drivers/net/ppp/pppox.ko: kernel/drivers/net/ppp/ppp_generic.ko\n" +
			"kernel/net/l2tp/l2tp_core.ko: kernel/net/udp_tunnel.ko kernel/net/x.ko\nkernel/net/l2tp/l2tp_ppp.ko: kernel/net/l2tp/l2tp_core.ko kernel/net/udp_tunnel.ko\nkernel/net/ipv4/esp4.ko: kernel/net/broken.ko\n",
		"sys/module/ppp_generic/refcnt": "0\n",
		"proc/modules":                  "ppp_generic 1 0 - Live 0x0\n",
	})
	var loaded []string
	l := &Loader{
		Root: root, Release: "6.1.0",
		Probe: func(string) error { return fs.ErrNotExist },
		Insert: func(file string) error {
			if strings.Contains(file, "broken") {
				return unix.ENOEXEC
			}
			loaded = append(loaded, strings.TrimPrefix(file, "lib/modules/6.1.0/kernel/"))
			return nil
		},
	}
	missing := l.Load(append(append([]Requirement(nil), KernelPath...), IPsecPath[0], Requirement{"ESP", []string{"esp4", "no_such"}, "CONFIG_INET_ESP"}))
	want := []string{"drivers/net/ppp/ppp_generic.ko", "drivers/net/ppp/pppox.ko", "net/x.ko", "net/udp_tunnel.ko", "net/l2tp/l2tp_core.ko",
		"net/udp_tunnel.ko", "net/l2tp/l2tp_core.ko", "net/l2tp/l2tp_ppp.ko"}
	if !reflect.DeepEqual(loaded, want) {
		t.Errorf("loaded %q", loaded)
	}
	if len(missing) != 2 || missing[0].Module != "esp4" || !errors.Is(missing[0].Err, unix.ENOEXEC) || missing[1].Module != "no_such" || !errors.Is(missing[1].Err, fs.ErrNotExist) {
		t.Errorf("missing %v", missing)
	}
	if s := missing[1].Error(); !strings.Contains(s, "CONFIG_INET_ESP") || !strings.Contains(s, "no_such") {
		t.Error(s)
	}
	without := *l
	without.Root = tree(map[string]string{"proc/cpuinfo": ""})
	if missing := without.Load(KernelPath); missing != nil {
		t.Errorf("a kernel without modules lacks %v", missing)
	}
	// modprobe does it where there is one.
	var asked []string
	l.Probe = func(name string) error {
		asked = append(asked, name)
		if name == "pppox" {
			return errors.New("exit status 1")
		}
		return nil
	}
	missing = l.Load(KernelPath)
	if fmt.Sprint(asked) != "[pppox l2tp_core l2tp_ppp]" || len(missing) != 1 || missing[0].Module != "pppox" {
		t.Errorf("asked %v, missing %v", asked, missing)
	}
}

func TestEntropy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		asked := 0
		err := waitEntropy(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), func() error {
			if asked++; asked < 10 {
				return unix.EAGAIN
			}
			return nil
		}, time.Second)
		if err != nil || asked != 10 || !strings.Contains(log.String(), "waiting") || !strings.Contains(log.String(), "after=9s") {
			t.Errorf("%v, %d, %s", err, asked, &log)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := waitEntropy(ctx, slog.New(slog.DiscardHandler), func() error { return unix.EAGAIN }, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	if err := WaitEntropy(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}
