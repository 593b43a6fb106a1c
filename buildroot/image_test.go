package buildroot

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
)

// Two big-endian MIPS boards boot the image that Buildroot made. One comes up to the console on its serial line, is
// configured there and serves; the other, with root's shell, dials it with IPsec.
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

	// What the console does not set: the cable's address. The kernel unpacks a second archive over the first.
	served, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	addressed := bytes.NewBuffer(served)
	r := lab.NewInitramfs()
	r.Data("etc/culvert/culvert.toml", 0o600, []byte("[system]\nidentity = \"office\"\n[network.interface.eth0]\naddress = [\"192.0.2.1/24\"]\n"))
	if err := r.Write(addressed, gzip.BestSpeed); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(dir, "initrd")
	if err := os.WriteFile(initrd, addressed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	server := boot(t, &lab.QEMU{Board: board, Kernel: kernel.Image, Initrd: initrd, Memory: "128M", Args: lab.NetListen(0, cable)})
	types(t, server, "", `New password: `)
	types(t, server, "secret enough", `Once more: `)
	types(t, server, "secret enough", `\[admin@office\] > `)
	types(t, server, "/quit", `Login: `)
	types(t, server, "admin", `Password: `)
	types(t, server, "secret enough", `\[admin@office\] > `)
	for _, command := range []string{
		`/ip pool add name=l2tp-pool ranges=192.168.100.2-192.168.100.50`,
		`/ppp profile add name=l2tp-profile local-address=192.168.100.1 remote-address=l2tp-pool dns-server=8.8.8.8,1.1.1.1 use-encryption=yes`,
		`/interface l2tp-server server set enabled=yes use-ipsec=yes ipsec-secret="YourStrongPSK123!" default-profile=l2tp-profile authentication=mschap2`,
		`/ppp secret add name=user1 password=SecurePass123! service=l2tp profile=l2tp-profile`,
	} {
		if out := types(t, server, command, `\] > `); strings.Contains(out, "failure") || strings.Contains(out, "expected") {
			t.Errorf("%s says %s", command, out)
		}
	}
	if out := types(t, server, "/system resource print", `\] > `); !strings.Contains(out, "mips") {
		t.Errorf("/system resource print shows\n%s", out)
	}

	client := boot(t, &lab.QEMU{Board: board, Kernel: kernel.Image, Initrd: image, Memory: "128M", Append: "culvert.shell",
		Args: append(lab.NetUser(0), lab.NetConnect(2, cable)...)})
	expect(t, client, `# `)
	if out := must(t, client, "culvert check && culvert console -e '/system resource print' 2>&1; ls -l /etc/culvert"); !strings.Contains(out, "-rw-------") {
		t.Errorf("the configuration that comes with the image:\n%s", out)
	}
	configure(t, client, "192.0.2.2/24", `
[l2tp.client.l2tp-out1]
connect-to = "192.0.2.1"
user = "user1"
password = "SecurePass123!"
use-ipsec = true
ipsec-secret = "YourStrongPSK123!"
`)
	must(t, client, "for i in $(seq 10); do ping -c 1 192.0.2.1 && break; done") // the cable
	const monitor = "culvert console -e '/interface l2tp-client monitor l2tp-out1'"
	out := ""
	for deadline := time.Now().Add(5 * time.Minute); !strings.Contains(out, "status: connected"); {
		if time.Now().After(deadline) {
			t.Fatalf("the client is not connected:\n%s\n%s\nserver:\n%s", out, must(t, client, "culvert console -e '/log print'"), types(t, server, "/log print", `\] > `))
		}
		if out, _, err = client.Shell(2*time.Minute, "sleep 1; "+monitor); err != nil { // there may be no daemon yet
			t.Fatal(err)
		}
	}
	if out := must(t, client, "ping -c 3 -s 1200 192.168.100.1"); !strings.Contains(out, "3 packets received") {
		t.Errorf("ping through the tunnel:\n%s", out)
	}
	if out := types(t, server, "/ppp active print", `\] > `); !strings.Contains(out, "user1") || !strings.Contains(out, "esp ") {
		t.Errorf("/ppp active print:\n%s", out)
	}

	if out := must(t, client, "logread | grep -c culvert"); out == "0\n" {
		t.Error("the daemon's log is not in the system's")
	}
	if out := must(t, client, "killall -9 culvert; sleep 10; pidof culvert || echo none came"); strings.Contains(out, "none came") {
		t.Errorf("a daemon that crashed is not started again:\n%s", out)
	}
	if err := client.Send("poweroff\r"); err != nil {
		t.Error(err)
	}
	types(t, server, "/system reboot", `Reboot, yes\? \[y/N\]: `)
	if err := server.Send("y\r"); err != nil {
		t.Error(err)
	}
	for _, g := range []*lab.Guest{client, server} {
		if err := g.Wait(2 * time.Minute); err != nil {
			t.Error(err)
		}
	}
}

// types types a line at the console, if there is one, and returns what comes before what is waited for.
func types(t *testing.T, g *lab.Guest, line, pattern string) string {
	t.Helper()
	if line != "" {
		if err := g.Send(line + "\r"); err != nil {
			t.Fatal(err)
		}
	}
	m, err := g.Expect(3*time.Minute, `(?s)(.*?)`+pattern)
	if err != nil {
		t.Fatalf("after %q: %v", line, err)
	}
	return m[1]
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
