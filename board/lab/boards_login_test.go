package lab

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bootConsole boots a board as it comes and waits for the console on its serial line, which on a new board asks for the
// first password.
func bootConsole(t *testing.T, b *Board, config, memory string, args ...string) *testBoard {
	t.Helper()
	files := map[string][]byte{}
	if config != "" {
		files["usr/share/culvert/default.toml"] = []byte(config)
	}
	image, err := BuildImage(b, t.TempDir(), files)
	if err != nil {
		t.Fatal(err)
	}
	q := image.QEMU()
	q.Memory = memory
	q.Args = append(q.Args, args...)
	x := start(t, q, image, `New password: `)
	x.line("secret enough", `Once more: `)
	x.line("secret enough", `\] > `)
	return x
}

// line types a line, and waits for what is to come.
func (x *testBoard) line(text, expect string) string {
	x.t.Helper()
	if err := x.Send(text + "\r"); err != nil {
		x.t.Fatal(err)
	}
	m, err := x.Expect(2*time.Minute, `(?s)(.*?)`+expect)
	if err != nil {
		x.t.Fatalf("after %q: %v", text, err)
	}
	return m[1]
}

// Each board comes up to the console on its serial line, takes a first password, asks for it the next time, and shows
// what it is.
func TestBoardLogin(t *testing.T) {
	for _, b := range Boards {
		t.Run(b.Name, func(t *testing.T) {
			requireBoards(t, b.Name)
			Reserve(t, false)
			x := bootConsole(t, b, "", "128M", NetUser(0)...)
			if out := x.line("/system resource print", `log-lines-dropped: \d+\r*\n`); !strings.Contains(out, "architecture-name") {
				t.Errorf("/system resource print shows\n%s", out)
			}
			x.line("/quit", `Login: `)
			x.line("admin", `Password: `)
			x.line("wrong", `Login: `)
			x.line("admin", `Password: `)
			x.line("secret enough", `\] > `)
			t.Logf("%s: %.1f s from power on to the console", b.Name, x.boot.Seconds())
		})
	}
}

// A big-endian board is made a server by typing at its serial line, and an ARM board connects to it.
func TestBoardTyped(t *testing.T) {
	boards := requireBoards(t, "qemu-mips", "qemu-arm64")
	Reserve(t, false)
	cable := filepath.Join(t.TempDir(), "cable")
	server := bootConsole(t, boards[0], "[network.interface.eth0]\naddress = [\"192.0.2.1/24\"]\n", "64M", NetListen(0, cable)...)
	for _, command := range []string{
		`/ip pool add name=vpn ranges=192.168.99.2-192.168.99.100`,
		`/ppp profile add name=road local-address=192.168.99.1 remote-address=vpn`,
		`/ppp secret add name=user1 password=SecurePass123! profile=road`,
		`/interface l2tp-server server set enabled=yes use-ipsec=required ipsec-secret="a long pre-shared key"`,
	} {
		if out := server.line(command, `\] > `); strings.Contains(out, "failure") || strings.Contains(out, "expected") {
			t.Errorf("%s says %s", command, out)
		}
	}
	client := bootImage(t, boards[1], fmt.Sprintf(pairClient, "auto"), "128M", NetConnect(0, cable)...)
	client.wait(3*time.Minute, "ping -c1 -W1 192.168.99.1 >/dev/null 2>&1")
	if out := server.line("/ppp active print", `192\.168\.99\.2 `); !strings.Contains(out, "user1") {
		t.Errorf("/ppp active print shows\n%s", out)
	}
}
