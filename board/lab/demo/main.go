// Command demo shows culvert at work: it builds the server, boots a virtual router (user-mode Linux) on this machine,
// lets a strongSwan + xl2tpd + pppd client connect to it through a NAT, and prints what it saw. Exit status 1 means that
// something that should have happened did not.
//
// Nothing on the machine is changed. Root is needed only to read pppd, which Debian gives to root and the group dip.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"culvert/board/lab"
)

func main() {
	if lab.InGuest() {
		os.Exit(guest())
	}
	kernel := flag.String("kernel", "", "boot this `series`, 6.1 or 6.12; the one there is by default")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := host(ctx, *kernel)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// host builds the server and boots the guest, in which this program runs again.
func host(ctx context.Context, series string) error {
	start := time.Now()
	dir, err := os.MkdirTemp("", "culvert-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "culvert")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, lab.CulvertCommand)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build culvert: %w", err)
	}
	fi, err := os.Stat(binary)
	if err != nil {
		return err
	}
	say("built culvert: one static binary, %.1f MB", float64(fi.Size())/(1<<20))

	kernels := []string{"6.12", "6.1"}
	if series != "" {
		kernels = []string{series}
	}
	var kernel lab.Kernel
	for _, k := range kernels {
		if kernel, err = lab.FindKernel(k); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	say("booting user-mode Linux %s", kernel.Name)
	m := &lab.Machine{
		Kernel: kernel, Memory: "512M", Timeout: 2 * time.Minute, Output: os.Stdout,
		Env: append(os.Environ(), lab.BinaryEnv(lab.CulvertCommand)+"="+binary),
	}
	status, err := m.Run(ctx)
	if err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("failed (in %.0f s)", time.Since(start).Seconds())
	}
	say("all of it in %.0f s", time.Since(start).Seconds())
	return nil
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

const (
	secret   = "mySecret"
	user     = "user1"
	password = "SecurePass123!"
	config   = `[system]
identity = "demo"

[ip.pool.vpn-pool]
ranges = ["192.168.99.2-192.168.99.100"]

[ppp.profile.l2tp-profile]
local-address = "192.168.99.1"
remote-address = "vpn-pool"

[ppp.secret.user1]
password = "SecurePass123!"
profile = "l2tp-profile"

[l2tp.server]
enabled = true
use-ipsec = "required"
ipsec-secret = "mySecret"
authentication = ["mschap2"]
default-profile = "l2tp-profile"
`
)

// guest runs in the virtual machine and returns the exit status.
func guest() (status int) {
	t := &teller{ctx: context.Background()}
	done := make(chan struct{})
	go func() { // Fatalf ends its goroutine, as in a test
		defer close(done)
		defer t.end()
		show(t)
	}()
	<-done
	if t.failed {
		return 1
	}
	return 0
}

func show(t *teller) {
	l := lab.New(t)
	serverAddr, inner := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.168.99.1")
	internet := l.Internet()
	server := internet.Host("server", serverAddr.String())
	home := internet.NAT("nat", "203.0.113.1").Host("client", "10.0.0.2")
	culvert := l.Culvert(server, config)
	before := server.IPsecState()
	say("culvert listens on %v; the client is at 10.0.0.2, behind a NAT that shows 203.0.113.1", serverAddr)

	client := lab.NewClient(home, lab.ClientConfig{
		Server: serverAddr, User: user, Password: password,
		IKE: lab.IKE{PSK: secret, Proposals: "aes256-sha256-modp2048", ESP: "aes256-sha256"},
	})
	outside := server.Capture("eth0", func(p lab.Packet) bool { return p.Src.Addr().Is4() })
	start := time.Now()
	l.Must(client.Secure(t.ctx), "IPsec")
	for _, line := range client.Charon.Lines("selected proposal") {
		_, proposal, _ := strings.Cut(line, "proposal: ")
		say("  strongSwan: agreed on %s", proposal)
	}
	say("IKEv1 main and quick mode done after %.2f s", time.Since(start).Seconds())
	addr, err := client.Dial(t.ctx)
	l.Must(err, "L2TP and PPP")
	say("xl2tpd and pppd are through after %.2f s: the client is %v", time.Since(start).Seconds(), addr)

	rtt, err := client.Ping(inner, 10*time.Second)
	l.Must(err, "ping")
	say("ping %v through the tunnel: %.2f ms", inner, float64(rtt.Microseconds())/1000)
	if _, err := server.Ping(addr, 10*time.Second); err != nil {
		t.Errorf("ping %v: %v", addr, err)
	} else {
		say("ping %v from the server: answered", addr)
	}
	const size = 20 << 20
	up, err := client.Transfer(server, inner, size)
	l.Must(err, "upload")
	down, err := server.Transfer(client.Node, addr, size)
	l.Must(err, "download")
	say("%d MB each way, checksums right: %.0f Mbit/s up, %.0f Mbit/s down", size>>20, up, down)

	text, err := culvert.Show("/ppp active print")
	l.Must(err, "console")
	say("[admin@demo] > /ppp active print\n%s", strings.TrimRight(text, "\n"))
	if !strings.Contains(text, user) || !strings.Contains(text, addr.String()) {
		t.Errorf("the console does not show %s at %v", user, addr)
	}

	l.Must(client.Disconnect(t.ctx), "disconnect")
	gone := func() bool {
		rows, err := culvert.Console("/ppp active print")
		used, err2 := culvert.Console("/ip pool used print")
		return err == nil && err2 == nil && len(rows)+len(used) == 0 && len(server.Interfaces("ppp")) == 0 && server.IPsecState() == before
	}
	if l.WaitFor(10*time.Second, gone) {
		say("disconnected: no session, no address, no interface, no SA is left")
	} else {
		t.Errorf("something of the session is left:\n%s", server.IPsecState())
	}
	packets, clear := outside.Stop(), 0
	for _, p := range packets {
		if !p.IKE() {
			clear++
		}
	}
	if clear > 0 {
		t.Errorf("%d of %d packets outside were not IKE or ESP", clear, len(packets))
	} else {
		say("%d packets seen outside, every one IKE or ESP", len(packets))
	}
	if err := culvert.Stop(); err != nil {
		t.Errorf("culvert ended badly: %v", err)
	} else if s := server.IPsecState(); s != "" {
		t.Errorf("culvert left in the kernel:\n%s", s)
	}
}

// teller is the lab's idea of a test, for a program.
type teller struct {
	ctx      context.Context
	failed   bool
	cleanups []func()
}

func (t *teller) Helper()                         {}
func (t *teller) Name() string                    { return "demo" }
func (t *teller) Context() context.Context        { return t.ctx }
func (t *teller) Logf(format string, args ...any) { say(format, args...) }
func (t *teller) Failed() bool                    { return t.failed }
func (t *teller) Cleanup(f func())                { t.cleanups = append(t.cleanups, f) }

func (t *teller) Errorf(format string, args ...any) {
	t.failed = true
	say("FAILED: "+format, args...)
}

func (t *teller) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

func (t *teller) end() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}
