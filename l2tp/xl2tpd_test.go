//go:build linux

package l2tp_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"culvert/l2tp"
	"culvert/l2tp/sock"
)

// TestXL2TPD lets a real xl2tpd call us, and calls it, on the loopback of a network namespace of its own. No kernel L2TP is
// needed: it falls back to carrying frames itself, and a script stands in for pppd.
func TestXL2TPD(t *testing.T) {
	const inside = "CULVERT_XL2TPD_INSIDE"
	if os.Getenv(inside) == "" {
		skip := t.Skip
		if os.Getenv("CI") == "true" {
			skip = t.Fatal
		}
		if os.Geteuid() != 0 {
			skip("needs root, for namespaces and port 1701")
		}
		for _, tool := range []string{"xl2tpd", "unshare", "ip", "mount", "/usr/sbin/pppd"} {
			if _, err := exec.LookPath(tool); err != nil {
				skip("needs " + tool)
			}
		}
		if out, err := exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "true").CombinedOutput(); err != nil {
			skip(fmt.Sprintf("no namespaces here: %s", out))
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		// The process namespace ends what xl2tpd may leave behind.
		args := []string{"--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", exe, "-test.run=^TestXL2TPD$"}
		if testing.Verbose() {
			args = append(args, "-test.v")
		}
		cmd := exec.Command("unshare", args...)
		cmd.Env = append(os.Environ(), inside+"=1")
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	pppd := filepath.Join(dir, "pppd")
	if err := os.WriteFile(pppd, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range [][]string{{"ip", "link", "set", "lo", "up"}, {"mount", "--bind", pppd, "/usr/sbin/pppd"}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", cmd, out)
		}
	}
	t.Run("called", func(t *testing.T) {
		n := startNode(t, l2tp.DefaultConfig(), 0)
		x := startXL2TPD(t, "[lac c]\nlns = 127.0.0.1\n", "")
		s := x.call(n)
		if s.Tunnel.Vendor != "xelerance.com" || s.Tunnel.Firmware != 0x0690 {
			t.Errorf("%+v", s.Tunnel)
		}
		// It hangs up.
		x.tell("d c")
		if c := n.waitDown(); c.Reason != l2tp.ReasonPeer {
			t.Errorf("down: %v", c)
		}
		n.waitTunnels(0, 5*time.Second)
		x.waitClosed(s.Tunnel.Remote)
		// We hang up.
		s = x.call(n)
		n.do(func(e *l2tp.Engine, now time.Time) {
			e.CloseSession(now, s.Tunnel.Local, s.Local, l2tp.Cause{Reason: l2tp.ReasonLink})
		})
		n.waitDown()
		// It keeps the tunnel for its next call. We shut down.
		x.call(n)
		n.do(func(e *l2tp.Engine, now time.Time) { e.Close(now) })
		n.waitDown()
		n.waitTunnels(0, 2*time.Second)
		x.waitLog("requester is being shut down", "Connection closed to 127.0.0.1")
	})
	t.Run("authenticated and hidden", func(t *testing.T) {
		cfg := l2tp.DefaultConfig()
		cfg.Secret, cfg.HideAVPs = "squirrel", true
		n := startNode(t, cfg, 0)
		x := startXL2TPD(t, "[lac c]\nlns = 127.0.0.1\nchallenge = yes\nhidden bit = yes\n", "* * squirrel\n")
		x.call(n)
		x.tell("d c")
		n.waitDown()
	})
	t.Run("wrong secret", func(t *testing.T) {
		cfg := l2tp.DefaultConfig()
		cfg.Secret = "squirrel"
		n := startNode(t, cfg, 0)
		x := startXL2TPD(t, "[lac c]\nlns = 127.0.0.1\nchallenge = yes\n", "* * chipmunk\n")
		x.tell("c c")
		x.waitLog("Invalid challenge", "not authorized", "Connection closed")
		n.waitTunnels(0, 5*time.Second)
	})
	t.Run("dialed", func(t *testing.T) {
		n := startNode(t, l2tp.DefaultConfig(), 0)
		x := startXL2TPD(t, "[lns default]\nip range = 10.9.0.2-10.9.0.9\nlocal ip = 10.9.0.1\n", "")
		n.do(func(e *l2tp.Engine, now time.Time) {
			_, err := e.Dial(now, l2tp.Peer{Remote: netip.MustParseAddrPort("127.0.0.2:1701")}, l2tp.Dial{Calling: "+4912345"})
			if err != nil {
				t.Error(err)
			}
		})
		s := n.waitSession()
		// It asks us to place a call, and takes no for an answer: the session stays.
		x.tell(fmt.Sprint("o ", s.Tunnel.Remote, " 5550123"))
		x.waitLog("no line to place a call on")
		select {
		case c := <-n.down:
			t.Fatalf("down: %v", c)
		default:
		}
		n.waitTunnels(1, 5*time.Second)
		n.do(func(e *l2tp.Engine, now time.Time) {
			e.CloseSession(now, s.Tunnel.Local, s.Local, l2tp.Cause{Reason: l2tp.ReasonLink})
		})
		n.waitDown()
		n.waitTunnels(0, 5*time.Second)
	})
	t.Run("restarted", func(t *testing.T) {
		// Inside an SA (any mark will do), a client that believes in a tunnel of our former life gets told.
		n := startNode(t, l2tp.DefaultConfig(), 7)
		x := startXL2TPD(t, "[lac c]\nlns = 127.0.0.1\n", "")
		s := x.call(n)
		n.restart(l2tp.DefaultConfig(), []l2tp.TunnelInfo{s.Tunnel})
		begin := time.Now()
		x.tell(fmt.Sprint("h ", s.Remote)) // its CDN is for a tunnel that is gone
		x.waitLog("Connection closed to 127.0.0.1")
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("it took %v", d)
		}
		x.waitClosed(s.Tunnel.Remote)
		x.call(n)
	})
	t.Run("restarted and forgotten", func(t *testing.T) {
		// Without a memory of the peer's ids its own StopCCN is at least acknowledged at once.
		n := startNode(t, l2tp.DefaultConfig(), 7)
		x := startXL2TPD(t, "[lac c]\nlns = 127.0.0.1\n", "")
		s := x.call(n)
		n.restart(l2tp.DefaultConfig(), nil)
		begin := time.Now()
		x.tell("d c") // its StopCCN is for a tunnel that is gone
		x.waitClosed(s.Tunnel.Remote)
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("it took %v", d)
		}
		x.call(n)
	})
}

// node is an engine on a real socket and clock.
type node struct {
	t      *testing.T
	via    l2tp.Via
	sock   *sock.Socket
	inbox  chan func(now time.Time)
	engine *l2tp.Engine
	up     chan l2tp.SessionInfo
	down   chan l2tp.Cause
}

type nullPlane struct{}

func (nullPlane) OpenTunnel(l2tp.TunnelSpec) error   { return nil }
func (nullPlane) CloseTunnel(l2tp.TunnelSpec)        {}
func (nullPlane) OpenSession(l2tp.SessionSpec) error { return nil }
func (nullPlane) CloseSession(l2tp.SessionSpec)      {}

func startNode(t *testing.T, cfg l2tp.Config, via l2tp.Via) *node {
	s, err := sock.Open(sock.Options{Listen: netip.MustParseAddrPort("127.0.0.1:1701"), Reuse: true, Marks: true})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, via: via, sock: s, inbox: make(chan func(time.Time), 64), up: make(chan l2tp.SessionInfo, 16),
		down: make(chan l2tp.Cause, 16)}
	n.engine = n.newEngine(cfg)
	var done sync.WaitGroup
	stop := make(chan struct{})
	done.Add(2)
	go func() {
		defer done.Done()
		s.Serve(func(d sock.Datagram, b []byte) {
			p, b := l2tp.Peer{Local: d.Local, Remote: d.Remote, Via: via}, bytes.Clone(b)
			select {
			case n.inbox <- func(now time.Time) { n.engine.Receive(now, p, b) }:
			case <-stop:
			}
		}, nil)
	}()
	go func() {
		defer done.Done()
		for {
			var timer <-chan time.Time
			if at := n.engine.Deadline(); !at.IsZero() {
				timer = time.After(time.Until(at))
			}
			select {
			case f := <-n.inbox:
				f(time.Now())
			case <-timer:
				n.engine.Tick(time.Now())
			case <-stop:
				return
			}
		}
	}()
	t.Cleanup(func() { s.Close(); close(stop); done.Wait() })
	return n
}

func (n *node) newEngine(cfg l2tp.Config) *l2tp.Engine {
	return l2tp.New(cfg, l2tp.Env{
		Send: func(p l2tp.Peer, msg []byte) {
			if err := n.sock.Send(sock.Datagram{Local: p.Local, Remote: p.Remote}, msg); err != nil {
				n.t.Log(err)
			}
		},
		Plane:       nullPlane{},
		Rand:        rand.Reader,
		Log:         slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug})),
		SessionUp:   func(i l2tp.SessionInfo) { n.up <- i },
		SessionDown: func(_ l2tp.SessionInfo, c l2tp.Cause) { n.down <- c },
	})
}

func (n *node) do(f func(e *l2tp.Engine, now time.Time)) {
	done := make(chan struct{})
	n.inbox <- func(now time.Time) { f(n.engine, now); close(done) }
	<-done
}

// restart is a crash: nobody is told anything.
func (n *node) restart(cfg l2tp.Config, recall []l2tp.TunnelInfo) {
	time.Sleep(250 * time.Millisecond) // for the last acknowledgement to be out
	n.do(func(_ *l2tp.Engine, now time.Time) {
		n.engine = n.newEngine(cfg)
		n.engine.Recall(now, recall)
	})
}

// call lets it call until a session comes up: it takes no command while it still clears up the last call.
func (x *xl2tpd) call(n *node) l2tp.SessionInfo {
	x.t.Helper()
	for range 20 {
		x.tell("c c")
		select {
		case s := <-n.up:
			return s
		case <-time.After(500 * time.Millisecond):
		}
	}
	x.t.Fatal("no session came up")
	panic("unreachable")
}

func (n *node) waitSession() l2tp.SessionInfo {
	n.t.Helper()
	select {
	case s := <-n.up:
		return s
	case <-time.After(10 * time.Second):
		n.t.Fatal("no session came up")
		panic("unreachable")
	}
}

func (n *node) waitDown() l2tp.Cause {
	n.t.Helper()
	select {
	case c := <-n.down:
		return c
	case <-time.After(10 * time.Second):
		n.t.Fatal("the session stays up")
		panic("unreachable")
	}
}

// waitTunnels waits until so many tunnels are neither closing nor lingering.
func (n *node) waitTunnels(want int, patience time.Duration) {
	n.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		live := 0
		var s l2tp.Snapshot
		n.do(func(e *l2tp.Engine, now time.Time) { s = e.Snapshot(now) })
		for _, t := range s.Tunnels {
			if t.State != "lingering" {
				live++
			}
		}
		if live == want {
			return
		}
		if time.Now().After(end) {
			n.t.Fatalf("want %d tunnels: %+v", want, s)
		}
	}
}

type xl2tpd struct {
	t       *testing.T
	control string
	log     *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Reset()
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func startXL2TPD(t *testing.T, sections, secrets string) *xl2tpd {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	auth := write("secrets", secrets)
	conf := write("conf", "[global]\nlisten-addr = 127.0.0.2\nauth file = "+auth+
		"\ndebug tunnel = yes\ndebug avp = yes\ndebug state = yes\ndebug network = yes\n"+sections)
	x := &xl2tpd{t: t, control: filepath.Join(dir, "control"), log: &safeBuffer{}}
	cmd := exec.Command("xl2tpd", "-D", "-c", conf, "-p", filepath.Join(dir, "pid"), "-C", x.control)
	cmd.Stdout, cmd.Stderr = x.log, x.log
	cmd.WaitDelay = 500 * time.Millisecond // pppd's stand-in holds the log open
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		gone := make(chan struct{})
		go func() { cmd.Wait(); close(gone) }()
		select {
		case <-gone:
		case <-time.After(3 * time.Second):
			cmd.Process.Kill()
			<-gone
		}
		if t.Failed() {
			t.Log(x.log.String())
		}
	})
	x.waitLog("Listening on IP address")
	return x
}

func (x *xl2tpd) tell(command string) {
	x.t.Helper()
	f, err := os.OpenFile(x.control, os.O_WRONLY, 0)
	if err != nil {
		x.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(command + "\n"); err != nil {
		x.t.Fatal(err)
	}
}

// waitClosed waits until it has forgotten its tunnel: it would call again in the one that is being closed.
func (x *xl2tpd) waitClosed(tunnel l2tp.TunnelID) {
	x.t.Helper()
	x.waitLog(fmt.Sprintf("build_fdset: closing down tunnel %d\n", tunnel))
	x.log.reset()
}

// waitLog waits for any of the phrases, from wherever in the log.
func (x *xl2tpd) waitLog(phrases ...string) {
	x.t.Helper()
	for range 400 {
		log := x.log.String()
		for _, p := range phrases {
			if strings.Contains(log, p) {
				return
			}
		}
		time.Sleep(25 * time.Millisecond)
	}
	x.t.Fatalf("xl2tpd never said any of %q", phrases)
}
