package ppp

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"culvert/board/lab"
	"culvert/ppp/aaa"

	"golang.org/x/sys/unix"
)

// hdlc is asynchronous HDLC framing (RFC 1662) on a terminal, which is how pppd talks without a kernel's L2TP.
type hdlc struct {
	tty *os.File
	in  []byte
	esc bool
}

func fcs16(b []byte) uint16 {
	fcs := uint16(0xffff)
	for _, c := range b {
		fcs ^= uint16(c)
		for range 8 {
			if fcs&1 == 1 {
				fcs = fcs>>1 ^ 0x8408
			} else {
				fcs >>= 1
			}
		}
	}
	return ^fcs
}

func (h *hdlc) send(frame []byte) {
	b := append([]byte{0xff, 0x03}, frame...)
	sum := fcs16(b)
	b = append(b, byte(sum), byte(sum>>8))
	out := []byte{0x7e}
	for _, c := range b {
		if c < 0x20 || c == 0x7d || c == 0x7e {
			out = append(out, 0x7d, c^0x20)
		} else {
			out = append(out, c)
		}
	}
	h.tty.Write(append(out, 0x7e))
}

// feed takes octets from the line and hands complete frames on, address and control still in front.
func (h *hdlc) feed(b []byte, frame func([]byte)) {
	for _, c := range b {
		switch {
		case c == 0x7e:
			if n := len(h.in); n > 4 && fcs16(h.in[:n-2]) == uint16(h.in[n-2])|uint16(h.in[n-1])<<8 {
				frame(bytes.Clone(h.in[:n-2]))
			}
			h.in, h.esc = h.in[:0], false
		case c == 0x7d:
			h.esc = true
		case h.esc:
			h.in, h.esc = append(h.in, c^0x20), false
		default:
			h.in = append(h.in, c)
		}
	}
}

// journal is what pppd prints.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// line is pppd on one end of a terminal and a station of ours on the other, in real time.
type line struct {
	t    *testing.T
	s    *station
	pppd *exec.Cmd
	log  *journal
	in   chan []byte
	exit chan error
	h    *hdlc
}

func dial(t *testing.T, cfg Config, tune func(*station, *Env), options string) *line {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master := os.NewFile(uintptr(fd), "ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	// Raw from the start, or the terminal echoes what we say before pppd has opened it.
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	mode.Iflag, mode.Oflag, mode.Lflag = 0, 0, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, mode); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	l := &line{t: t, in: make(chan []byte, 64), exit: make(chan error, 1), h: &hdlc{tty: master}, log: &journal{}}
	cfg.Restart = 500 * time.Millisecond // pppd opens the terminal only after our first request
	l.s = newStation(t, "culvert", cfg, tune)
	l.s.now = time.Now()
	l.s.carry = l.h.send
	args := append([]string{"/dev/pts/" + strconv.Itoa(n), "nodetach", "local", "debug", "nodefaultroute", "lcp-max-configure", "20"}, strings.Fields(options)...)
	l.pppd = exec.Command("pppd", args...)
	l.pppd.Stdout, l.pppd.Stderr = l.log, l.log
	if err := l.pppd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { l.exit <- l.pppd.Wait() }()
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			if err != nil {
				if strings.Contains(err.Error(), "input/output") { // nobody has the other end open yet, or any more
					time.Sleep(20 * time.Millisecond)
					continue
				}
				close(l.in)
				return
			}
			l.in <- bytes.Clone(b[:n])
		}
	}()
	t.Cleanup(func() {
		l.pppd.Process.Kill()
		master.Close()
		if t.Failed() {
			t.Logf("%s\n%s", l.log.String(), l.s.log.String())
		}
	})
	l.s.link.Start(l.s.now)
	return l
}

// run lets both talk until cond.
func (l *line) run(what string, cond func() bool) {
	l.t.Helper()
	end := time.After(30 * time.Second)
	for !cond() {
		if what == "up" && l.down() {
			l.t.Fatalf("never up: %v", l.s.cause)
		}
		tick := time.After(50 * time.Millisecond) // what pppd prints or does is seen at the latest then
		if d := l.s.link.Deadline(); !d.IsZero() && time.Until(d) < 50*time.Millisecond {
			tick = time.After(max(0, time.Until(d)))
		}
		select {
		case b := <-l.in:
			l.s.now = time.Now()
			l.h.feed(b, func(f []byte) { l.s.link.Receive(l.s.now, f) })
		case now := <-tick:
			l.s.now = now
			l.s.link.Tick(now)
		case <-end:
			l.t.Fatalf("%s: not in time: %+v", what, l.s.link.Snapshot(l.s.now))
		}
	}
}

// hungUp lets them talk until pppd has exited, and returns its log.
func (l *line) hungUp() string {
	l.t.Helper()
	gone := false
	l.run("pppd's exit", func() bool {
		select {
		case <-l.exit:
			gone = true
		default:
		}
		return gone
	})
	return l.log.String()
}

func (l *line) up() bool   { return l.s.info != nil }
func (l *line) down() bool { return l.s.cause != nil }

// TestLabPppd speaks with pppd 2.4.9, both ways round, over a terminal in a machine whose kernel has asynchronous PPP.
func TestLabPppd(t *testing.T) {
	lab.Run(t, func(t *testing.T, _ *lab.L) {
		if _, err := exec.LookPath("pppd"); err != nil {
			t.Fatal(err)
		}
		methods := []struct {
			m       aaa.Method
			require string
		}{{aaa.PAP, "pap"}, {aaa.CHAP, "chap"}, {aaa.MSCHAP1, "mschap"}, {aaa.MSCHAP2, "mschap-v2"}}
		for _, m := range methods {
			t.Run("client/"+m.m.String(), func(t *testing.T) {
				cfg := serverConfig()
				cfg.IPv6 = true
				cfg.Auth = []aaa.Method{aaa.MSCHAP2, aaa.MSCHAP1, aaa.CHAP, aaa.PAP}
				refuse := "refuse-eap "
				for _, other := range methods {
					if other != m {
						refuse += "refuse-" + other.require + " "
					}
				}
				l := dial(t, cfg, nil, refuse+"noauth user user1 password secret usepeerdns mru 1420 +ipv6")
				l.run("up", l.up)
				if l.s.info.Method != m.m || l.s.info.User != "user1" || l.s.network.MTU != 1420 || l.s.users.asked != 1 {
					t.Errorf("%+v", l.s.info)
				}
				l.run("pppd's word", func() bool {
					log := l.log.String()
					return l.s.link.Snapshot(l.s.now).IPV6CP == Opened && strings.Contains(log, "remote LL address") && strings.Contains(log, "secondary DNS")
				})
				l.s.link.Close(l.s.now, Cause{Code: CauseAdmin})
				log := l.hungUp()
				l.run("down", l.down)
				l.s.ended(CauseAdmin)
				for _, want := range []string{"local  IP address 192.168.99.10", "remote IP address 192.168.99.1", "primary   DNS address 8.8.8.8", "secondary DNS address 1.1.1.1", "LCP terminated by peer (administrative disconnect)"} {
					if !strings.Contains(log, want) {
						t.Errorf("pppd did not say %q", want)
					}
				}
			})
			t.Run("server/"+m.m.String(), func(t *testing.T) {
				for _, f := range []string{"/etc/ppp/chap-secrets", "/etc/ppp/pap-secrets"} {
					if err := os.WriteFile(f, []byte("user1 * secret *\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				cfg := clientConfig()
				cfg.IPv6 = true
				l := dial(t, cfg, func(_ *station, e *Env) { e.Auth = nil }, "auth require-"+m.require+" name server 10.9.0.1:10.9.0.2 ms-dns 9.9.9.9 ms-dns 9.9.9.10 +ipv6")
				l.run("up", l.up)
				want := Network{Local: netip.MustParseAddr("10.9.0.2"), Remote: netip.MustParseAddr("10.9.0.1"), MTU: 1450, MRU: 1450,
					DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("9.9.9.10")}}
				if fmt.Sprint(l.s.network) != fmt.Sprint(want) || l.s.info.Method != m.m {
					t.Errorf("%+v", l.s.info)
				}
				l.pppd.Process.Signal(syscall.SIGTERM)
				l.run("down", l.down)
				l.s.ended(CausePeerTerminated)
				if l.s.cause.Text != "User request" {
					t.Errorf("%v", l.s.cause)
				}
				l.hungUp()
			})
		}
		t.Run("wrong password", func(t *testing.T) {
			cfg := serverConfig()
			l := dial(t, cfg, func(s *station, _ *Env) { s.users.reject = &aaa.Reject{Code: aaa.AuthFailure, Text: "wrong password"} },
				"refuse-eap noauth user user1 password wrong")
			log := l.hungUp()
			l.run("down", l.down)
			l.s.ended(CauseAuthFailed)
			if !strings.Contains(log, "MS-CHAP authentication failed: Authentication failed") || !strings.Contains(log, "CHAP authentication failed") {
				t.Error("pppd did not hear why")
			}
		})
		t.Run("no common method", func(t *testing.T) {
			l := dial(t, serverConfig(), nil, "refuse-eap refuse-mschap-v2 noauth user user1 password secret")
			l.run("down", l.down)
			l.s.ended(CauseNoCommonAuth)
		})
		t.Run("silence", func(t *testing.T) {
			cfg := serverConfig()
			cfg.Keepalive = time.Second
			l := dial(t, cfg, nil, "refuse-eap noauth user user1 password secret noipv6")
			l.run("up", l.up)
			l.run("echo replies", func() bool { s := l.s.link.Snapshot(l.s.now); return s.EchoSent >= 3 && s.EchoLost == 0 })
			l.pppd.Process.Signal(syscall.SIGSTOP)
			l.run("down", l.down)
			l.s.ended(CauseKeepalive)
			l.pppd.Process.Signal(syscall.SIGCONT)
		})
	}, lab.Kernels("6.1"))
}
