package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

type question struct{}

func (question) Error() string { return "sure?" }
func (question) Ask() string   { return "sure?" }

type usage struct{}

func (usage) Error() string { return "wrong" }
func (usage) ExitCode() int { return ExitUsage }

// start runs a server on a fresh socket until the test ends.
func start(t *testing.T, h Handler) *Server {
	t.Helper()
	s, err := Listen(filepath.Join(t.TempDir(), "run", "c.sock"), h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func echo(ctx context.Context, r *Request, out io.Writer) error {
	switch r.Command {
	case "enter":
		r.At, r.Identity = r.At+" deeper", "office"
		return nil
	case "ask":
		if !r.Confirmed {
			return question{}
		}
		return nil
	case "fail":
		return errors.New("no \x1b good")
	case "usage":
		return fmt.Errorf("a: %w", usage{})
	case "panic":
		panic("oops")
	case "big":
		for range 1000 {
			fmt.Fprint(out, strings.Repeat("ä€𝄞", 50))
		}
		return nil
	case "halves":
		for _, b := range []byte("ä€𝄞") {
			out.Write([]byte{b})
		}
		out.Write([]byte{0xe2, 0x82}) // the start of a character that never ends
		return nil
	case "wait":
		fmt.Fprintln(out, "waiting")
		<-ctx.Done()
		return ctx.Err()
	}
	fmt.Fprintf(out, "%q %v\n", r.Command, r.JSON)
	return nil
}

func TestRun(t *testing.T) {
	s := start(t, echo)
	for _, tt := range []struct {
		command string
		json    bool
		out     string
		exit    int
		err     string
	}{
		{"/ppp active print\n\"x\"", true, "\"/ppp active print\\n\\\"x\\\"\" true\n", 0, ""},
		{"", false, "\"\" false\n", 0, ""},
		{"fail", false, "", 1, "no \x1b good"},
		{"usage", false, "", 2, "a: wrong"},
		{"panic", false, "", 1, "the command failed inside culvert: the log says more"},
		{"big", false, strings.Repeat("ä€𝄞", 50000), 0, ""},
		{"halves", false, "ä€𝄞\ufffd\ufffd", 0, ""},
		{strings.Repeat("x", maxRequest), false, "", 2, fmt.Sprintf("the command is longer than %d octets", maxRequest)},
	} {
		var out bytes.Buffer
		exit, err := Run(t.Context(), s.path, tt.command, tt.json, &out)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if out.String() != tt.out || exit != tt.exit || text != tt.err {
			t.Errorf("%.40q: exit %d, %q, output of %d octets %.80q", tt.command, exit, text, out.Len(), out.String())
		}
	}
}

func TestModes(t *testing.T) {
	s := start(t, echo)
	for path, want := range map[string]os.FileMode{s.path: 0o600 | os.ModeSocket, filepath.Dir(s.path): 0o700 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
	}
}

func TestCancel(t *testing.T) {
	ended := make(chan error, 1)
	s := start(t, func(ctx context.Context, r *Request, out io.Writer) error {
		err := echo(ctx, r, out)
		ended <- err
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	result := make(chan error, 1)
	go func() {
		_, err := Run(ctx, s.path, "wait", false, w)
		result <- err
	}()
	if line, err := bufio.NewReader(r).ReadString('\n'); line != "waiting\n" || err != nil {
		t.Fatalf("%q %v", line, err) // output comes while the command runs
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the command was not told that its console has gone: %v", err)
	}
}

func TestCloseEndsCommands(t *testing.T) {
	s := start(t, echo)
	r, w := io.Pipe()
	result := make(chan error, 1)
	go func() {
		_, err := Run(context.Background(), s.path, "wait", false, w)
		result <- err
	}()
	bufio.NewReader(r).ReadString('\n')
	s.Close()
	if err := <-result; err == nil {
		t.Error("no error though the daemon went")
	}
	if _, err := os.Stat(s.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestStaleSocketIsReplacedAndALiveOneIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	// Something else answers there: it is left alone.
	if _, err := Listen(path, echo, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrInUse) {
		t.Fatalf("%v", err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close() // as a crash leaves it
	if _, err := Run(t.Context(), path, "x", false, io.Discard); err == nil || !strings.Contains(err.Error(), "start it with `culvert run`") {
		t.Errorf("%v", err)
	}
	s, err := Listen(path, echo, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, echo, slog.New(slog.DiscardHandler)); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	s.Close()
	if s, err = Listen(path, echo, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	s.Close()

	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, []byte("precious"), 0o600)
	if _, err := Listen(file, echo, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("%v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Error("a file was overwritten")
	}
	if _, err := Listen("/tmp/"+strings.Repeat("x", 120), echo, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "107") {
		t.Errorf("%v", err)
	}
}

func TestTwoDaemonsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	var wg sync.WaitGroup
	won := make(chan *Server, 8)
	for range 8 {
		wg.Go(func() {
			s, err := Listen(path, echo, slog.New(slog.DiscardHandler))
			switch {
			case err == nil:
				won <- s
			case !errors.Is(err, ErrInUse):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	close(won)
	n := 0
	for s := range won {
		n++
		s.Close()
	}
	if n != 1 {
		t.Errorf("%d daemons hold the socket", n)
	}
}

func TestOtherUsersAreRefused(t *testing.T) {
	s, err := Listen(filepath.Join(t.TempDir(), "c.sock"), echo, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var asked uint32 = 1 << 31
	s.allowed = func(uid uint32) bool { asked = uid; return false }
	go s.Serve(context.Background())
	defer s.Close()
	exit, err := Run(t.Context(), s.path, "x", false, io.Discard)
	if exit != ExitFailed || err == nil || err.Error() != "only root may use the console" || asked != uint32(os.Geteuid()) {
		t.Errorf("%d %v, uid %d", exit, err, asked)
	}
}

// raw sends octets and returns all that comes back.
func raw(t *testing.T, s *Server, send string) string {
	t.Helper()
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(conn, send) // the server may stop reading
	b, _ := io.ReadAll(conn)
	return string(b)
}

func TestRawRequests(t *testing.T) {
	s := start(t, echo)
	if got := raw(t, s, "hello\n"); got != `{"exit":2,"error":"not a request: send {\"command\": \"/ppp active print\"} on one line"}`+"\n" {
		t.Error(got)
	}
	if got := raw(t, s, strings.Repeat("x", maxRequest+10)); !strings.Contains(got, "longer than 65536 octets") {
		t.Error(got)
	}
	// Several requests on one connection, the last of which is nonsense.
	got := raw(t, s, "{\"command\":\"a\"}\n{\"command\":\"fail\"}\n{\"command\":\"b\",\"json\":true}\n!\n")
	for _, want := range []string{`{"output":"\"a\" false\n"}` + "\n" + `{"exit":0}`, `"error":"no \u001b good"}` + "\n" + `{"output":"\"b\" true\n"}`} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
}

func TestTooManyConnections(t *testing.T) {
	s := start(t, echo)
	for range maxSessions {
		conn, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	// The server accepts in order, so all of those are counted before this one.
	exit, err := Run(t.Context(), s.path, "x", false, io.Discard)
	if exit != ExitFailed || err == nil || !strings.Contains(err.Error(), "16 consoles are open already") {
		t.Errorf("%d %v", exit, err)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("ä€𝄞\xff\xe2\x82"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		n := int(cut) % (len(data) + 1)
		if c := completeLen(data); c > len(data) || utf8.Valid(data) && c != len(data) {
			t.Fatalf("%d of %d", c, len(data))
		}
		a, b := net.Pipe()
		read := make(chan string)
		go func() {
			var out strings.Builder
			io.Copy(&out, b)
			read <- out.String()
		}()
		w := &frames{conn: a}
		w.Write(data[:n])
		w.Write(data[n:])
		w.flush()
		a.Close()
		if s := <-read; !utf8.ValidString(s) {
			t.Fatalf("%q", s)
		}
	})
}

// A session moves from menu to menu, and answers questions.
func TestSession(t *testing.T) {
	s := start(t, echo)
	r := &Request{Command: "enter", Session: true, At: "/ppp"}
	if exit, err := Do(t.Context(), s.path, r, io.Discard); exit != ExitDone || err != nil || r.At != "/ppp deeper" || r.Identity != "office" {
		t.Errorf("%d %v %+v", exit, err, r)
	}
	r.Command = "ask"
	var refused *CommandError
	if _, err := Do(t.Context(), s.path, r, io.Discard); !errors.As(err, &refused) || refused.Ask != "sure?" || r.At != "/ppp deeper" {
		t.Errorf("%v %+v", err, r)
	}
	r.Confirmed = true
	if _, err := Do(t.Context(), s.path, r, io.Discard); err != nil {
		t.Error(err)
	}
}

// A daemon that begins anew is waited for, one that is gone is not.
func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	if _, err := Run(t.Context(), path, "x", false, io.Discard); err == nil {
		t.Fatal("nobody answered")
	}
	if err := Restarting(path); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := Run(context.Background(), path, "x", false, io.Discard)
		done <- err
	}()
	s, err := Listen(path, echo, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(context.Background())
	defer s.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if restarting(path) {
		t.Error("the mark is still there")
	}
}
