package lab

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLabBoot(t *testing.T) {
	const probe = "/etc/culvert-lab-was-here"
	Run(t, func(t *testing.T, l *L) {
		if l.Kernel() == "" || os.Getuid() != 0 {
			t.Fatalf("kernel %q, uid %d", l.Kernel(), os.Getuid())
		}
		b, err := os.ReadFile("/proc/version")
		if err != nil || !strings.Contains(string(b), "Linux version "+l.Kernel()) {
			t.Errorf("%s: %v", b, err)
		}
		if year := time.Now().Year(); year < 2025 {
			t.Errorf("the guest's clock says %d", year)
		}
		for _, f := range []string{"/dev/ppp", "/dev/net/tun", "/dev/urandom", "/proc/net/dev", "/sys/class/net/lo"} {
			if _, err := os.Stat(f); err != nil {
				t.Error(err)
			}
		}
		if err := os.WriteFile(probe, nil, 0o644); err != nil {
			t.Errorf("the guest's root is its own and writable: %v", err)
		}
	})
	if !InGuest() {
		if _, err := os.Stat(probe); err == nil {
			os.Remove(probe)
			t.Error("the guest wrote to the host's files")
		}
	}
}

// The network of the lab is what the other tests stand on: addresses translated, links impaired, packets seen.
func TestLabNetwork(t *testing.T) {
	Run(t, func(t *testing.T, l *L) {
		in := l.Internet()
		server := in.Host("server", "192.0.2.1", "2001:db8::1")
		direct := in.Host("direct", "198.51.100.2", "2001:db8:1::2")
		nat := in.NAT("nat", "203.0.113.1")
		hidden := nat.Host("hidden", "10.0.0.2")
		addr := server.Up.Addrs[0]

		seen := server.Capture("eth0", func(p Packet) bool { return !p.Out && p.Proto == unix.IPPROTO_ICMP })
		for _, n := range []*Node{direct, hidden} {
			if _, err := n.Ping(addr, 5*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		from := map[netip.Addr]int{}
		for _, p := range seen.Stop() {
			from[p.Src.Addr()]++
		}
		if from[netip.MustParseAddr("198.51.100.2")] == 0 || from[netip.MustParseAddr("203.0.113.1")] == 0 || len(from) != 2 {
			t.Errorf("the server saw %v", from)
		}
		direct.Run("ping", "-6", "-c1", "-W5", "2001:db8::1")

		rate, err := hidden.Transfer(server, addr, 10<<20)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("through the NAT: %.0f Mbit/s", rate)

		direct.Up.Impair("delay 20ms loss 20% duplicate 5% reorder 10%")
		p, err := direct.StartPing(addr, 5*time.Millisecond, 56)
		if err != nil {
			t.Fatal(err)
		}
		l.WaitFor(10*time.Second, func() bool { sent, _ := p.Counts(); return sent >= 200 })
		if sent, received := p.Stop(); received == 0 || received > sent*9/10 {
			t.Errorf("of %d echoes over a bad link %d came back", sent, received)
		}
		direct.Up.Impair("")
		p, err = direct.StartPing(addr, 5*time.Millisecond, 56)
		if err != nil {
			t.Fatal(err)
		}
		l.WaitFor(10*time.Second, func() bool { sent, _ := p.Counts(); return sent >= 50 })
		if sent, received := p.Stop(); received != sent {
			t.Errorf("of %d echoes over a mended link %d came back", sent, received)
		}
	})
}

// Every node has files and processes of its own.
func TestLabNodes(t *testing.T) {
	Run(t, func(t *testing.T, l *L) {
		a, b := l.Namespace("a"), l.Namespace("b")
		a.WriteFile("/etc/ppp/options", "alpha")
		b.WriteFile("/etc/ppp/options", "beta")
		a.WriteFile("/run/x", "1")
		if out := a.Run("cat", "/etc/ppp/options") + b.Run("cat", "/etc/ppp/options"); out != "alphabeta" {
			t.Errorf("read %q", out)
		}
		if _, err := b.ReadFile("/run/x"); err == nil {
			t.Error("a file of /run is seen by another node")
		}
		d := a.Daemon("sleeper", "sh", "-c", "echo up; sleep 1000 & wait")
		l.Must(d.WaitLog(5*time.Second, "up"), "start")
		if n := len(a.Processes()); n != 2 {
			t.Errorf("%d processes on a, want 2", n)
		}
		if n := len(b.Processes()); n != 0 {
			t.Errorf("%d processes on b, want none", n)
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
		a.Kill()
		if n := len(a.Processes()); n != 0 {
			t.Errorf("%d processes after the kill", n)
		}
	}, Kernels("6.12"))
}

func TestTail(t *testing.T) {
	told := 0
	c := &tail{max: 2, word: "Kernel panic", seen: func() { told++ }}
	for _, s := range []string{"one\ntwo\nKernel ", "pan", "ic - not syncing\r\n", "Kernel panic\nfour"} {
		c.Write([]byte(s))
	}
	if told != 1 || c.String() != "Kernel panic - not syncing\nKernel panic\nfour" {
		t.Errorf("told %d times, %q", told, c)
	}
}

func TestPattern(t *testing.T) {
	for _, test := range []struct{ name, asked, want string }{
		{"TestX/6.1", "", `^TestX$/^6\.1$`},
		{"TestX/6.1", "TestX", `^TestX$/^6\.1$`},
		{"TestX/6.1", "TestX/6.1/sub", `^TestX$/^6\.1$/sub`},
		{"TestX/6.1", "TestY/6.12/deep|TestX", `^TestX$/^6\.1$`},
		{"TestX/6.1", "TestX/6.1/a|TestX/6.1/b/c|TestY", `^TestX$/^6\.1$/a|^TestX$/^6\.1$/b/c`},
	} {
		if got := pattern(test.name, test.asked); got != test.want {
			t.Errorf("pattern(%q, %q) = %q, want %q", test.name, test.asked, got, test.want)
		}
	}
}
