package terminal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/cmd/culvert/internal/control"
)

// A line that is the controlling terminal of the test hangs up on it.
func TestMain(m *testing.M) {
	signal.Ignore(syscall.SIGHUP)
	os.Exit(m.Run())
}

// desk is somebody at the far end of a serial line: a pty whose master the test reads and types at. What the shell writes
// is taken off the line a few octets at a time, so that the line is always as full as a slow one would be; what it would
// have cost at 9600 baud is counted.
type desk struct {
	t      *testing.T
	master *os.File
	name   string

	mu    sync.Mutex
	ready *sync.Cond
	seen  []byte // not looked at yet
	all   int    // octets that have come
	gone  bool
	hold  bool // nothing is taken off the line
}

const chunk = 16 // octets that are taken off at a time

func newDesk(t *testing.T) *desk {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		skip(t, "no pseudo terminals: %v", err)
	}
	d := &desk{t: t, master: master}
	d.ready = sync.NewCond(&d.mu)
	var n int
	err = onFd(master, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		skip(t, "no pseudo terminals: %v", err)
	}
	d.name = fmt.Sprintf("/dev/pts/%d", n)
	// Our own hold on the other side keeps the line from hanging up between two sessions.
	line, err := os.OpenFile(d.name, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	go d.read()
	t.Cleanup(d.drop)
	return d
}

func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func (d *desk) read() {
	var b [chunk]byte
	for {
		d.mu.Lock()
		for d.hold && !d.gone {
			d.ready.Wait()
		}
		d.mu.Unlock()
		n, err := d.master.Read(b[:])
		d.mu.Lock()
		d.seen = append(d.seen, b[:n]...)
		d.all += n
		if err != nil {
			d.gone = true
		}
		d.ready.Broadcast()
		d.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// drop pulls the plug.
func (d *desk) drop() { d.master.Close() }

func (d *desk) typed(keys string) {
	d.t.Helper()
	for len(keys) > 0 {
		n, err := d.master.Write([]byte(keys))
		if err != nil {
			d.t.Fatal(err)
		}
		keys = keys[n:]
	}
}

// expect waits for text and returns what came before it, with it.
func (d *desk) expect(text string) string {
	d.t.Helper()
	late := time.AfterFunc(20*time.Second, func() {
		d.mu.Lock()
		d.gone = true
		d.ready.Broadcast()
		d.mu.Unlock()
	})
	defer late.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if i := strings.Index(string(d.seen), text); i >= 0 {
			out := string(d.seen[:i+len(text)])
			d.seen = d.seen[i+len(text):]
			return out
		}
		if d.gone {
			d.t.Fatalf("%q does not come; what came: %q", text, d.seen)
		}
		d.ready.Wait()
	}
}

// octets is what has come over the line so far.
func (d *desk) octets() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.all
}

// daemon is a fake one.
type daemon struct {
	mu       sync.Mutex
	users    map[string]string
	commands []string
	logins   int
	started  chan string // commands that wait
}

func (f *daemon) do(ctx context.Context, r *control.Request, out io.Writer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.Identity = "office"
	refuse := func(text string) error { return &control.CommandError{Exit: 1, Text: text} }
	switch r.Verb {
	case control.Hello:
		return json.NewEncoder(out).Encode(control.Greeting{Identity: "office", Version: "1", Users: len(f.users)})
	case control.Login:
		f.logins++
		if p, ok := f.users[r.User]; !ok || p != r.Password {
			return refuse("login failed")
		}
		return json.NewEncoder(out).Encode(control.Admission{ReadOnly: r.User == "watcher"})
	case control.FirstUser:
		f.users = map[string]string{r.User: r.Password}
		return nil
	case control.Complete:
		c := control.Completion{}
		words := []control.Word{{Text: "secret", About: "users who may log in", End: " "}, {Text: "server", About: "settings", End: " "}}
		typed := r.Command[strings.LastIndexAny(r.Command, " /")+1:]
		for _, w := range words {
			if strings.HasPrefix(w.Text, typed) {
				c.Words = append(c.Words, w)
			}
		}
		c.Typed = len(typed)
		return json.NewEncoder(out).Encode(c)
	}
	f.commands = append(f.commands, r.Command)
	switch {
	case strings.HasPrefix(r.Command, "/ppp"):
		r.At = "/ppp"
	case r.Command == "long":
		for i := range 60 {
			fmt.Fprintf(out, "line %d\n", i)
		}
	case r.Command == "evil":
		fmt.Fprint(out, "a\x1b]0;title\a\u009b2J\u202e\xffb\rc\n")
	case r.Command == "reboot":
		if !r.Confirmed {
			return &control.CommandError{Exit: 1, Text: "?", Ask: "Reboot, yes? [y/N]: "}
		}
		fmt.Fprintln(out, "down")
	case r.Command == "who":
		fmt.Fprintf(out, "read-only %v, %d columns\n", r.ReadOnly, r.Width)
	case r.Command == "frames":
		for i := range 3 {
			fmt.Fprintf(out, "\f  name: x\nstatus: connected\n rate: %d\n", i)
		}
	case r.Command == "wait":
		fmt.Fprintln(out, "waiting")
		f.mu.Unlock()
		f.started <- r.Command
		<-ctx.Done()
		f.mu.Lock()
		return ctx.Err()
	case r.Command == "bad":
		return refuse("no \x1b[31m good")
	}
	return nil
}

// sit starts a shell on the desk's line.
func sit(t *testing.T, d *desk, f *daemon, sh Shell) chan error {
	t.Helper()
	tty, err := OpenTTY(d.name, 9600)
	if err != nil {
		t.Fatal(err)
	}
	sh.Remote = f.do
	if sh.Size == nil {
		sh.Size = tty.Size
	}
	done := make(chan error, 1)
	go func() {
		err := sh.Run(context.Background(), tty)
		tty.Close()
		done <- err
	}()
	return done
}

const askSize = "\x1b[6n\x1b8"

func TestLogin(t *testing.T) {
	d := newDesk(t)
	f := &daemon{users: map[string]string{"admin": "swordfish", "watcher": "look"}}
	done := sit(t, d, f, Shell{Login: true})
	d.expect("culvert 1 on office\r\n")
	d.expect("Login: ")
	d.typed("admin\rwrong\r")
	d.expect("Password: ")
	d.expect("login failed\r\n")
	d.expect("Login: ")
	d.typed("\rwatcher\r")
	d.expect("Password: ")
	d.typed("look\r")
	d.expect(askSize)
	d.typed("\x1b[40;132R")
	d.expect("[watcher@office] > ")
	d.typed("who\r")
	d.expect("read-only true, 132 columns\r\n")
	d.expect("[watcher@office] > ")
	d.typed("\x04") // Ctrl-D
	if err := <-done; err != nil {
		t.Error(err)
	}
	if f.logins != 2 {
		t.Errorf("%d logins", f.logins)
	}
}

func TestPasswordIsNotShown(t *testing.T) {
	d := newDesk(t)
	f := &daemon{users: map[string]string{"admin": "swordfish"}}
	done := sit(t, d, f, Shell{Login: true, Patience: time.Millisecond})
	d.expect("Login: ")
	d.typed("admin\r")
	d.expect("Password: ")
	d.typed("swordfish\r")
	if out := d.expect("> "); strings.Contains(out, "sword") {
		t.Errorf("the password is shown: %q", out)
	}
	// A terminal that never says how large it is is a VT100's size.
	d.typed("who\rquit\r")
	d.expect("80 columns")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestThreeWrongLogins(t *testing.T) {
	d := newDesk(t)
	done := sit(t, d, &daemon{users: map[string]string{"admin": "x"}}, Shell{Login: true})
	for range maxWrongLogins {
		d.expect("Login: ")
		d.typed("admin\r")
		d.expect("Password: ")
		d.typed("y\r")
		d.expect("login failed")
	}
	if err := <-done; !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

// A router that is new has its first password chosen.
func TestFirstUser(t *testing.T) {
	d := newDesk(t)
	f := &daemon{}
	done := sit(t, d, f, Shell{Login: true, Patience: time.Millisecond})
	d.expect("choose a password for \"admin\"")
	d.expect("New password: ")
	d.typed("abc\r")
	d.expect("Too short")
	d.typed("abcdef\r")
	d.expect("Once more: ")
	d.typed("abcdeg\r")
	d.expect("They differ.")
	d.expect("New password: ")
	d.typed("abcdef\r")
	d.expect("Once more: ")
	d.typed("abcdef\r")
	d.expect("[admin@office] > ")
	d.typed("exit\r")
	if err := <-done; err != nil || f.users["admin"] != "abcdef" {
		t.Errorf("%v %v", err, f.users)
	}
}

// user is a session without a login.
func user(t *testing.T) (*desk, *daemon, chan error) {
	d := newDesk(t)
	f := &daemon{started: make(chan string, 1)}
	done := sit(t, d, f, Shell{User: "admin", Size: func() (int, int) { return 80, 24 }})
	d.expect("[admin@office] > ")
	return d, f, done
}

func TestKeys(t *testing.T) {
	d, f, _ := user(t)
	for keys, want := range map[string]string{
		"abc\x01x\x05y\r":                 "xabcy",     // Ctrl-A, Ctrl-E
		"abc\x02\x02x\x06y\r":             "axbyc",     // Ctrl-B, Ctrl-F
		"one two\x17three\r":              "one three", // Ctrl-W
		"garbage\x15clean\r":              "clean",     // Ctrl-U
		"abcdef\x1b[D\x1b[D\x0b\r":        "abcd",      // left, left, Ctrl-K
		"abc\x7f\x08d\r":                  "ad",        // backspaces
		"noise\x00\x07\x1c\x1f here\r":    "noise here",
		"half\x03whole\r":                 "whole", // Ctrl-C leaves the line
		"put \"a?b\"\r":                   `put "a?b"`,
		"a\\\r\nb\r":                      "a\\\nb", // goes on
		"/x\r\n":                          "/x",     // CR LF is one Enter
		"caf\xc3\xa9 \xe2\x82\xac\x7fx\r": "café x",
	} {
		d.typed(keys)
		d.expect("> ")
		deadline := time.Now().Add(20 * time.Second)
		for {
			f.mu.Lock()
			got := ""
			if len(f.commands) > 0 {
				got = f.commands[len(f.commands)-1]
			}
			f.mu.Unlock()
			if got == want {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%q: %q, want %q", keys, got, want)
			}
			d.expect("> ")
		}
	}
}

func (f *daemon) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.commands) == 0 {
		return ""
	}
	return f.commands[len(f.commands)-1]
}

func TestHistoryAndMenus(t *testing.T) {
	d, f, done := user(t)
	d.typed("first\r")
	d.expect("> ")
	d.typed("/ppp\r")
	d.expect("[admin@office] /ppp> ")
	d.typed("\x1b[A\x1b[A\r") // up, up
	d.expect("first\r\n")
	d.expect("> ")
	if f.last() != "first" {
		t.Errorf("%q", f.last())
	}
	d.typed("reboot\r")
	d.expect("Reboot, yes? [y/N]: ")
	d.typed("n")
	d.expect("n\r\n")
	d.expect("> ")
	d.typed("reboot\r")
	d.expect("[y/N]: ")
	d.typed("y")
	d.expect("down\r\n")
	d.typed("bad\r")
	d.expect(`no \x1b[31m good`)
	d.typed("/quit\r")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestCompletion(t *testing.T) {
	d, f, _ := user(t)
	d.typed("/ppp se\t")
	d.expect("secret  server\r\n") // two: listed
	d.expect("/ppp se")
	before := d.octets()
	d.typed("c\t")
	d.expect("cret ")
	if n := d.octets() - before; n > len("cret ") {
		t.Errorf("the rest of a word costs %d octets", n)
	}
	d.typed("print\r")
	d.expect("> ")
	if f.last() != "/ppp secret print" {
		t.Errorf("%q", f.last())
	}
	d.typed("/ppp s?")
	d.expect("  secret  users who may log in\r\n  server  settings\r\n")
	d.expect("/ppp s")
	d.typed("\x15")
}

func TestPages(t *testing.T) {
	d, _, _ := user(t)
	d.typed("long\r")
	out := d.expect(pagerPrompt)
	if !strings.Contains(out, "line 22\r\n") || strings.Contains(out, "line 23") {
		t.Errorf("a page is not a page: %q", out)
	}
	d.typed("\r") // a line
	if out := d.expect(pagerPrompt); !strings.Contains(out, "line 23\r\n") || strings.Contains(out, "line 24") {
		t.Errorf("a line is not a line: %q", out)
	}
	d.typed(" ") // a page
	if out := d.expect(pagerPrompt); !strings.Contains(out, "line 46\r\n") || strings.Contains(out, "line 47") {
		t.Errorf("a second page is not a page: %q", out)
	}
	d.typed("d")
	d.expect("line 59\r\n")
	d.expect("> ")
	d.typed("long\r")
	d.expect(pagerPrompt)
	d.typed("q")
	if out := d.expect("> "); strings.Contains(out, "line 23") {
		t.Errorf("not stopped: %q", out)
	}
	d.typed("long\r")
	d.expect(pagerPrompt)
	d.typed("\x03")
	if out := d.expect("[admin@office] > "); strings.Contains(out, "line 23") {
		t.Errorf("Ctrl-C does not stop: %q", out)
	}
}

// A script that is pasted is not stopped by pages, and all of it arrives although the line is full both ways.
func TestPaste(t *testing.T) {
	d, f, _ := user(t)
	var script strings.Builder
	script.WriteString("long\r\n")
	for i := range 200 {
		fmt.Fprintf(&script, "add name=user%d password=secret-%d comment=\"a user of many\"\r\n", i, i)
	}
	script.WriteString("the end\r\n")
	go d.typed(script.String())
	d.expect("the end\r\n")
	d.expect("> ")
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.commands) != 202 || f.commands[150] != `add name=user149 password=secret-149 comment="a user of many"` {
		t.Errorf("%d commands", len(f.commands))
	}
}

// Nothing that a terminal obeys comes out, whatever the daemon or its peers put in.
func TestNothingRaw(t *testing.T) {
	d, _, _ := user(t)
	d.typed("evil\r")
	d.expect("evil\r\n")
	if out := d.expect("> "); !strings.HasPrefix(out, `a\x1b]0;title\a\u009b2J\u202e?b\rc`+"\r\n") {
		t.Errorf("%q", out)
	}
}

// A frame that is shown again costs only what changed, so that a slow line keeps up.
func TestFrames(t *testing.T) {
	d, _, _ := user(t)
	d.typed("frames\r")
	d.expect("frames\r\n")
	out := d.expect("[admin@office] > ")
	if want := "\r  name: x\r\n\rstatus: connected\r\n\r rate: 0\r\n\r\x1b[1A\r rate: 1\x1b[K\r\n\r\x1b[1A\r rate: 2\x1b[K\r\n\r[admin@office] > "; out != want {
		t.Errorf("\n got %q\nwant %q", out, want)
	}
}

// What editing costs on a line of 960 octets a second.
func TestFewOctets(t *testing.T) {
	d, _, _ := user(t)
	before := d.octets()
	d.typed("/ppp secret print\r")
	d.expect("print\r\n")
	if n := d.octets() - before; n > 2*len("/ppp secret print")+len("[admin@office] /ppp> ")+8 {
		t.Errorf("typing 18 characters costs %d octets", n)
	}
	d.expect("> ")
	line := strings.Repeat("x", 40)
	d.typed(line)
	d.expect(line[:20])
	d.expect(line[20:])
	before = d.octets()
	d.typed("y\x7f")
	d.expect("\x1b[D")
	if n := d.octets() - before; n > 20 {
		t.Errorf("a character and its removal cost %d octets", n)
	}
}

// Ctrl-C ends what runs, and what was typed ahead of it.
func TestInterrupt(t *testing.T) {
	d, f, _ := user(t)
	d.typed("wait\r")
	d.expect("waiting\r\n")
	<-f.started
	d.typed("forgotten\r\x03")
	d.expect("[admin@office] > ")
	d.typed("who\r")
	d.expect("80 columns")
	for _, c := range f.commands {
		if c == "forgotten" {
			t.Error("what was typed ahead of Ctrl-C is carried out")
		}
	}
}

// The line drops: at the prompt, while a command runs, at a page, while the line is full, at the login.
func TestDrop(t *testing.T) {
	gone := func(t *testing.T, done chan error) {
		t.Helper()
		select {
		case err := <-done:
			if !errors.Is(err, ErrGone) {
				t.Errorf("%v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the session goes on")
		}
	}
	t.Run("prompt", func(t *testing.T) {
		d, _, done := user(t)
		d.typed("half a lin")
		d.drop()
		gone(t, done)
	})
	t.Run("command", func(t *testing.T) {
		d, f, done := user(t)
		d.typed("wait\r")
		<-f.started
		d.drop()
		gone(t, done)
	})
	t.Run("page", func(t *testing.T) {
		d, _, done := user(t)
		d.typed("long\r")
		d.expect(pagerPrompt)
		d.drop()
		gone(t, done)
	})
	t.Run("full", func(t *testing.T) {
		d, _, done := user(t)
		d.mu.Lock()
		d.hold = true
		d.mu.Unlock()
		d.typed(strings.Repeat("long\r", 100))
		d.drop()
		d.mu.Lock()
		d.hold = false
		d.ready.Broadcast()
		d.mu.Unlock()
		gone(t, done)
	})
	t.Run("login", func(t *testing.T) {
		d := newDesk(t)
		done := sit(t, d, &daemon{users: map[string]string{"admin": "x"}}, Shell{Login: true})
		d.expect("Login: ")
		d.typed("adm")
		d.drop()
		gone(t, done)
	})
	t.Run("again", func(t *testing.T) {
		// As under init: the next shell on the same line begins at the login.
		d := newDesk(t)
		f := &daemon{users: map[string]string{"admin": "x"}}
		for range 3 {
			done := sit(t, d, f, Shell{Login: true, Patience: time.Millisecond})
			d.expect("Login: ")
			d.typed("admin\r")
			d.expect("Password: ")
			d.typed("x\r")
			d.expect("[admin@office] > ")
			d.typed("quit\r")
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestOpenTTY(t *testing.T) {
	d := newDesk(t)
	tty, err := OpenTTY(d.name, 115200)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	onFd(tty.File, func(fd int) error {
		m, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if m.Cflag&unix.CBAUD != unix.B115200 || m.Lflag&(unix.ECHO|unix.ICANON|unix.ISIG) != 0 || m.Oflag&unix.OPOST != 0 {
			t.Errorf("%+v", m)
		}
		return nil
	})
	if _, err := OpenTTY(d.name, 12345); err == nil {
		t.Error("any speed will do")
	}
	if _, err := OpenTTY("/dev/null", 0); err == nil {
		t.Error("/dev/null is a terminal")
	}
}

func TestScreenWraps(t *testing.T) {
	var out strings.Builder
	asked := 0
	s := &screen{out: &out, width: 10, height: 4, more: func() pagerKey { asked++; return pageDown }}
	s.Write([]byte(strings.Repeat("0123456789", 2) + "\nb\nc\nd\n"))
	if asked != 1 {
		t.Errorf("asked %d times: lines that wrap count as they are seen", asked)
	}
	s = &screen{out: &out, width: 10, height: 4}
	s.Write([]byte{0xe2, 0x82})
	out.Reset()
	s.Write([]byte{0xac, '\n'})
	if out.String() != "€\r\n" {
		t.Errorf("%q", out.String())
	}
}

func FuzzScreen(f *testing.F) {
	f.Add("a\nb\fx\ny\n\fx\nz\n", 3)
	f.Add("\x1b[2J\u0085\n", 1)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		var out strings.Builder
		s := &screen{out: &out, width: 10, height: 5, more: func() pagerKey { return pageDown }}
		if cut < 0 || cut > len(text) {
			cut = len(text)
		}
		s.Write([]byte(text[:cut]))
		s.Write([]byte(text[cut:]))
		left := out.String()
		for _, own := range []string{"\x1b[K", "\r", "\n"} {
			left = strings.ReplaceAll(left, own, "")
		}
		for i := range 10 {
			left = strings.ReplaceAll(left, fmt.Sprintf("\x1b[%dA", i), "")
		}
		if strings.ContainsFunc(left, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x202e }) {
			t.Errorf("%q lets %q through", text, left)
		}
	})
}
