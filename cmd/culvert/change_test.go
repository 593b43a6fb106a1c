package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/console"
	"culvert/cmd/culvert/internal/control"
	"culvert/cmd/culvert/internal/crypt"
)

func TestInterfaceTraffic(t *testing.T) {
	const dev = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
l2tp-user1:18446744073709551615 20 0    0    0     0          0         0      300      40    0    0    0     0       0          0
 short: 1 2 3
`
	got, err := interfaceTraffic(strings.NewReader(dev), "l2tp-user1")
	if want := (console.Traffic{RxBytes: 18446744073709551615, RxPackets: 20, TxBytes: 300, TxPackets: 40}); got != want || err != nil {
		t.Errorf("%+v %v", got, err)
	}
	for _, name := range []string{"l2tp", "short", "", "face |bytes    packets errs drop fifo frame compressed multicast|bytes"} {
		if got, err := interfaceTraffic(strings.NewReader(dev), name); err == nil {
			t.Errorf("%q: %+v", name, got)
		}
	}
}

// A wrong login costs time, more of it each time, and does not tell what was wrong.
func TestLogins(t *testing.T) {
	hash, err := crypt.Hash("swordfish")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &config.Config{Users: map[string]config.User{"admin": {PasswordHash: hash}, "watcher": {PasswordHash: hash, ReadOnly: true},
		"locked": {}, "odd": {PasswordHash: "$y$j9T$x$y"}}}
	var waits []time.Duration
	l := newLogins()
	l.wait = func(_ context.Context, d time.Duration) { waits = append(waits, d) }
	login := func(user, password string) (control.Admission, error) {
		var out bytes.Buffer
		err := l.check(t.Context(), cfg, &control.Request{User: user, Password: password}, &out, slog.New(slog.DiscardHandler))
		var a control.Admission
		if err == nil {
			err = json.Unmarshal(out.Bytes(), &a)
		}
		return a, err
	}
	texts := map[string]bool{}
	for _, x := range [][2]string{{"admin", "wrong"}, {"admin", ""}, {"nobody", "swordfish"}, {"locked", ""}, {"odd", "x"}, {"nobody", "culvert"}} {
		_, err := login(x[0], x[1])
		if err == nil {
			t.Fatalf("%v is let in", x)
		}
		texts[err.Error()] = true
	}
	if len(texts) != 1 {
		t.Errorf("the answer tells what was wrong: %v", texts)
	}
	if want := []time.Duration{1, 2, 4, 8, 16, 30}; !slices.EqualFunc(waits, want, func(a, b time.Duration) bool { return a == b*time.Second }) {
		t.Errorf("waits %v", waits)
	}
	if a, err := login("admin", "swordfish"); err != nil || a.ReadOnly {
		t.Errorf("%+v %v", a, err)
	}
	if a, err := login("watcher", "swordfish"); err != nil || !a.ReadOnly {
		t.Errorf("%+v %v", a, err)
	}
	if login("admin", "wrong"); waits[len(waits)-1] != time.Second {
		t.Errorf("after a login that was right the wait is %v", waits[len(waits)-1])
	}
}

// A router that has nothing to do yet is configured over its socket: what can change in a running daemon does, for the rest
// it begins anew in the same process, and the file keeps what people wrote into it.
func TestConsoleConfiguresADaemon(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root: network namespaces and TUN devices")
	}
	dir := t.TempDir()
	program, file, socket := filepath.Join(dir, "culvert"), filepath.Join(dir, "c.toml"), filepath.Join(dir, "c.sock")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(file, []byte("# mine\n[system]\nidentity = \"office\" # its name\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	d := exec.Command(program, "run", "-c", file, "-socket", socket)
	d.Stderr = &log
	d.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.Wait() }()
	t.Cleanup(func() {
		d.Process.Kill()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", log.String())
		}
	})
	// The mark of a restart makes clients wait for the socket, here for the first time.
	if err := control.Restarting(socket); err != nil {
		t.Fatal(err)
	}
	ask := func(r control.Request) (string, error) {
		var out bytes.Buffer
		_, err := control.Do(t.Context(), socket, &r, &out)
		return out.String(), err
	}
	do := func(command, want string) {
		t.Helper()
		out, err := ask(control.Request{Command: command})
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n got %q\nwant %q", command, err, out, want)
		}
	}
	do("/interface l2tp-server server print", "enabled: no")
	if _, err := ask(control.Request{Verb: control.Login, User: "admin", Password: "x"}); err == nil {
		t.Error("there is no user, and a login succeeds")
	}
	if _, err := ask(control.Request{Verb: control.FirstUser, User: "admin", Password: "swordfish"}); err != nil {
		t.Error(err)
	}
	if _, err := ask(control.Request{Verb: control.FirstUser, User: "other", Password: "swordfish"}); err == nil {
		t.Error("a second first user is made")
	}
	do("/system identity set name=branch", "")
	do("/system identity print", "name: branch")
	do("/ppp secret add name=ann password=x local-address=10.9.0.1 remote-address=10.9.0.2", "")
	do("/interface l2tp-server server set enabled=yes use-ipsec=yes ipsec-secret=\"a long secret\"", "")
	do("/interface l2tp-server server print", "enabled: yes") // accepted, whether or not it is in force yet
	// Whoever goes on typing, or pastes, notices nothing of the daemon's beginning anew meanwhile.
	users := 0
	for deadline, begun := time.Now().Add(30*time.Second), false; !begun || users < 40; users++ {
		do(fmt.Sprintf("/ppp secret add name=user%d password=x", users), "")
		out, err := ask(control.Request{Command: "/system resource print"})
		begun = err == nil && !strings.Contains(out, "data-path: none")
		if !begun && time.Now().After(deadline) {
			t.Fatalf("not begun anew: %v %s", err, out)
		}
	}
	do("/ppp secret print", "ann")
	for n := range users {
		do("/ppp secret print", fmt.Sprintf("user%d ", n))
	}
	if _, err := ask(control.Request{Command: "/ppp secret add name=bob profile=nowhere"}); err == nil || !strings.Contains(err.Error(), "there is no profile") {
		t.Errorf("%v", err)
	}
	if _, err := ask(control.Request{Verb: control.Login, User: "admin", Password: "swordfish"}); err != nil {
		t.Errorf("the first user does not get in: %v", err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(text); !strings.HasPrefix(s, "# mine\n[system]\nidentity = \"branch\" # its name\n") || !strings.Contains(s, "[ppp.secret.ann]\n") || strings.Contains(s, "bob") {
		t.Errorf("%s", s)
	}
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("%v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
	if n := strings.Count(log.String(), "started version="); n != 2 {
		t.Errorf("started %d times", n)
	}
	if _, err := ask(control.Request{Command: "/ppp"}); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after its end: %v", err)
	}
}
