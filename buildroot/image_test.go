package buildroot

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
)

// Two big-endian MIPS boards boot the image that Buildroot made, and are configured as a person at their serial lines
// would: one serves, the other dials it, with IPsec.
func TestImageDials(t *testing.T) {
	image := os.Getenv("CULVERT_BUILDROOT_IMAGE")
	if image == "" {
		t.Skip("needs an image that Buildroot made: make buildroot-image BUILDROOT=...")
	}
	board, err := lab.FindBoard("qemu-mips")
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := board.Kernel()
	if err != nil {
		t.Fatal(err)
	}
	// Unix sockets have short names only.
	dir, err := os.MkdirTemp("", "culvert-image-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	cable := filepath.Join(dir, "cable")

	server := boot(t, &lab.QEMU{Board: board, Kernel: kernel.Image, Initrd: image, Memory: "128M", Append: "culvert.shell",
		Args: append(lab.NetUser(0), lab.NetListen(1, cable)...)})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(cable); err == nil {
			break // the server's end waits for the other
		}
		if time.Now().After(deadline) {
			t.Fatal("the cable is not there")
		}
	}
	client := boot(t, &lab.QEMU{Board: board, Kernel: kernel.Image, Initrd: image, Memory: "128M", Append: "culvert.shell",
		Args: append(lab.NetUser(0), lab.NetConnect(2, cable)...)})
	for _, g := range []*lab.Guest{server, client} {
		expect(t, g, `# `)
	}

	if out := must(t, server, "culvert check && culvert console -e '/system resource print' 2>&1; ls -l /etc/culvert"); !strings.Contains(out, "-rw-------") {
		t.Errorf("the configuration that comes with the image:\n%s", out)
	}
	configure(t, server, "192.0.2.1/24", `
[system]
identity = "office"
[log]
topics = ["info", "ipsec,debug"]
[ip.pool.vpn]
ranges = ["192.168.99.2-192.168.99.100"]
[ppp.profile.default-encryption]
local-address = "192.168.99.1"
remote-address = "vpn"
[ppp.secret.alice]
password = "correct horse"
[l2tp.server]
enabled = true
use-ipsec = "required"
ipsec-secret = "a long pre-shared key"
`)
	configure(t, client, "192.0.2.2/24", `
[l2tp.client.l2tp-out1]
connect-to = "192.0.2.1"
user = "alice"
password = "correct horse"
use-ipsec = true
ipsec-secret = "a long pre-shared key"
`)
	must(t, client, "for i in $(seq 10); do ping -c 1 192.0.2.1 && break; done") // the cable
	const monitor = "culvert console -e '/interface l2tp-client monitor l2tp-out1'"
	out := ""
	for deadline := time.Now().Add(3 * time.Minute); !strings.Contains(out, "status: connected"); {
		if time.Now().After(deadline) {
			t.Fatalf("the client is not connected:\n%s\n%s\nserver:\n%s", out,
				must(t, client, "culvert console -e '/log print'"), must(t, server, "culvert console -e '/log print'; cat /proc/net/udp /proc/net/xfrm_stat; grep Udp: /proc/net/snmp; ip addr; cat /proc/net/arp /proc/net/dev"))
		}
		if out, _, err = client.Shell(2*time.Minute, "sleep 1; "+monitor); err != nil { // there may be no daemon yet
			t.Fatal(err)
		}
	}
	if out := must(t, client, "ping -c 3 -s 1200 192.168.99.1"); !strings.Contains(out, "3 packets received") {
		t.Errorf("ping through the tunnel:\n%s", out)
	}
	if out := must(t, server, "culvert console -e '/ppp active print'"); !strings.Contains(out, "alice") || !strings.Contains(out, "esp ") {
		t.Errorf("/ppp active print:\n%s", out)
	}

	// The console at the serial line's own prompt.
	server.Send("culvert console\r")
	expect(t, server, `\[root@[a-z]+\] > `)
	server.Send("/system resource print\r")
	expect(t, server, `architecture-name: \S*mips`)
	server.Send("\x04")
	if out := must(t, server, "logread | grep -c culvert"); out == "0\n" {
		t.Error("the daemon's log is not in the system's")
	}
	if out := must(t, server, "killall -9 culvert; sleep 10; pidof culvert || echo none came"); strings.Contains(out, "none came") {
		t.Errorf("a daemon that crashed is not started again:\n%s", out)
	}
	for _, g := range []*lab.Guest{client, server} {
		g.Send("poweroff\r")
		if err := g.Wait(time.Minute); err != nil {
			t.Error(err)
		}
	}
}

func boot(t *testing.T, q *lab.QEMU) *lab.Guest {
	t.Helper()
	if testing.Verbose() {
		q.Console = os.Stdout
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	t.Cleanup(cancel)
	g, err := q.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Kill)
	return g
}

// configure types a configuration in, with the address of the cable's end.
func configure(t *testing.T, g *lab.Guest, addr, toml string) {
	t.Helper()
	must(t, g, "ip addr add "+addr+" dev eth1 && ip link set eth1 up")
	must(t, g, ": >/etc/culvert/culvert.toml")
	for line := range strings.Lines(strings.TrimSpace(toml)) {
		must(t, g, "echo '"+strings.TrimSpace(line)+"' >>/etc/culvert/culvert.toml")
	}
	must(t, g, "culvert check")
	must(t, g, "killall culvert") // init starts it again
	must(t, g, "for i in $(seq 30); do sleep 1; culvert console -e '/system identity print' >/dev/null 2>&1 && break; done")
}

func expect(t *testing.T, g *lab.Guest, pattern string) {
	t.Helper()
	if _, err := g.Expect(2*time.Minute, pattern); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, g *lab.Guest, command string) string {
	t.Helper()
	out, status, err := g.Shell(2*time.Minute, command)
	if err != nil {
		t.Fatal(err)
	}
	if status != 0 {
		t.Errorf("%s: exit status %d\n%s", command, status, out)
	}
	return out
}

// The scripts are POSIX as busybox understands it, and shellcheck finds nothing in them.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("*.sh")
	if err != nil {
		t.Fatal(err)
	}
	board, err := filepath.Glob("board/*.sh")
	if err != nil {
		t.Fatal(err)
	}
	scripts = append(append(scripts, board...), "package/culvert/S60culvert")
	for _, tool := range [][]string{{"busybox", "ash", "-n"}, {"shellcheck", "-x"}} {
		if _, err := exec.LookPath(tool[0]); err != nil {
			if os.Getenv("CI") == "true" {
				t.Errorf("%s is missing: run make deps", tool[0])
			}
			t.Logf("not checked by %s, which is not installed", tool[0])
			continue
		}
		for _, s := range scripts {
			if out, err := exec.Command(tool[0], append(tool[1:len(tool):len(tool)], s)...).CombinedOutput(); err != nil {
				t.Errorf("%s %s: %v\n%s", tool[0], s, err, out)
			}
		}
	}
}
