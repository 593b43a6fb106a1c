package lab

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sessionsGoal is what the daemon may have of a board's 64 MB with fifty sessions, in kilobytes.
const (
	sessions     = 50
	sessionsGoal = 20 << 10
)

// A board of 64 MB serves fifty clients with IPsec, dialled by one board with fifty addresses.
func TestBoardFifty(t *testing.T) {
	boards := requireBoards(t, "qemu-mips", "qemu-arm64")
	Reserve(t, false)
	cable := filepath.Join(t.TempDir(), "cable")
	server := bootImage(t, boards[0], onCable("server", "192.0.2.1/24"), "64M", NetListen(0, cable)...)
	server.login()
	server.typed(strings.ReplaceAll(serverCommands[0], "192.168.100.50", "192.168.100.250"))
	server.typed(serverCommands[1:]...)
	server.restart(byInit)
	idle := server.footprint()

	var addresses []string
	var clients strings.Builder
	for n := range sessions {
		addresses = append(addresses, fmt.Sprintf("192.0.2.%d/24", 10+n))
		fmt.Fprintf(&clients, "[l2tp.client.up%d]\nconnect-to = \"192.0.2.1\"\nsrc-address = \"192.0.2.%d\"\nuser = \"user1\"\npassword = \"SecurePass123!\"\nuse-ipsec = true\nipsec-secret = \"YourStrongPSK123!\"\n", n, 10+n)
	}
	client := bootImage(t, boards[1], onCable("client", addresses...)+clients.String(), "256M", NetConnect(0, cable)...)

	// So many handshakes take an emulated processor minutes.
	began := time.Now()
	connected := 0
	for deadline := began.Add(15 * time.Minute); connected < sessions; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d sessions after %v\n%s\n%s", connected, sessions, time.Since(began).Round(time.Second), server.log(), client.log())
		}
		out := server.run(time.Minute, "sleep 5; ls /sys/class/net | grep -c ppp || true")
		fmt.Sscan(out, &connected)
	}
	took := time.Since(began)
	busy := server.footprint()
	server.run(time.Minute, "sleep 20")
	rest := server.footprint()
	if active := server.console("/ppp active print"); strings.Count(active, "user1") != sessions {
		t.Errorf("/ppp active print shows\n%s", active)
	}
	for _, n := range []int{0, sessions / 2, sessions - 1} { // each packet comes back by the session it went out on
		client.run(time.Minute, fmt.Sprintf("ping -c 2 -I up%d 192.168.100.1", n))
	}
	t.Logf("%s with 64 MB: %v idle, %v with %d sessions, %v while they came, which took %.0f s; free: %s", server.board.Name, idle, rest, sessions, busy, took.Seconds(),
		strings.Join(strings.Fields(server.run(time.Minute, "grep -e MemAvailable -e MemTotal /proc/meminfo")), " "))
	if rest.resident > sessionsGoal {
		t.Errorf("the daemon has %v of memory with %d sessions, more than %d kB", rest, sessions, sessionsGoal)
	}
}
