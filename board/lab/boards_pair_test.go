package lab

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What the boards of these tests are configured with.
const (
	pairServer = `[system]
identity = "server"
data-path = "%[1]s"
[network.interface.eth0]
address = ["192.0.2.1/24"]
[ip.pool.vpn]
ranges = ["192.168.99.2-192.168.99.100"]
[ppp.profile.road]
local-address = "192.168.99.1"
remote-address = "vpn"
[ppp.secret.user1]
password = "SecurePass123!"
profile = "road"
[l2tp.server]
enabled = true
use-ipsec = "required"
ipsec-secret = "a long pre-shared key"
`
	pairClient = `[system]
identity = "client"
data-path = "%[1]s"
[network.interface.eth0]
address = ["192.0.2.2/24"]
[l2tp.client.up]
connect-to = "192.0.2.1"
user = "user1"
password = "SecurePass123!"
use-ipsec = true
ipsec-secret = "a long pre-shared key"
`
)

// testBoard is one that runs its image with a shell on the serial line.
type testBoard struct {
	t *testing.T
	*Guest
	board *Board
	boot  time.Duration // from power on to the prompt
	image *Image
}

// requireBoards skips or fails where this machine lacks something for the boards.
func requireBoards(t *testing.T, names ...string) (boards []*Board) {
	t.Helper()
	if testing.Short() {
		t.Skip("emulated boards: make test-boards")
	}
	for _, name := range names {
		b, err := FindBoard(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Kernel(); err != nil {
			Unavailable(t, err)
		}
		boards = append(boards, b)
	}
	return boards
}

// bootImage boots a board with its image as it is shipped but for the configuration, and waits for the shell.
func bootImage(t *testing.T, b *Board, config, memory string, args ...string) *testBoard {
	t.Helper()
	image, err := BuildImage(b, t.TempDir(), map[string][]byte{"usr/share/culvert/default.toml": []byte(config)})
	if err != nil {
		t.Fatal(err)
	}
	q := image.QEMU()
	q.Memory = memory
	q.Append = "culvert.shell"
	q.Args = append(q.Args, args...)
	return start(t, q, image, `# `)
}

// start powers a board on and waits for a prompt.
func start(t *testing.T, q *QEMU, image *Image, prompt string) *testBoard {
	t.Helper()
	if dir := os.Getenv("LAB_SERIAL"); dir != "" { // to look on
		f, err := os.Create(filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "_")+"."+q.Board.Name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		q.Console = f
	}
	began := time.Now()
	g, err := q.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Kill)
	x := &testBoard{t: t, Guest: g, board: image.Board, image: image}
	if _, err := g.Expect(3*time.Minute, prompt); err != nil {
		t.Fatal(err)
	}
	x.boot = time.Since(began)
	return x
}

// run has the shell run a command that has to succeed.
func (x *testBoard) run(timeout time.Duration, command string) string {
	x.t.Helper()
	// An emulated board on a busy machine may stand still for a while.
	out, status, err := x.Shell(max(timeout, 2*time.Minute), command)
	if err != nil || status != 0 {
		x.t.Fatalf("%s: %s: status %d, %v\n%s\n%s", x.board.Name, command, status, err, out, x.log())
	}
	return out
}

// log is the end of the daemon's log, as far as the board still answers.
func (x *testBoard) log() string {
	out, _, _ := x.Shell(60*time.Second, "logread | grep -v kernel: | tail -n 60")
	return out
}

// wait repeats a command until it succeeds.
func (x *testBoard) wait(timeout time.Duration, command string) {
	x.t.Helper()
	x.run(timeout+10*time.Second, fmt.Sprintf("n=0; until %s; do n=$((n+1)); [ $n -lt %d ] || break; sleep 1; done; [ $n -lt %d ]", command, int(timeout.Seconds()), int(timeout.Seconds())))
}

// resident is the daemon's resident memory.
func (x *testBoard) resident() string {
	return strings.TrimSpace(x.run(60*time.Second, "sed -n 's/^VmRSS:[[:space:]]*//p' /proc/$(pidof culvert)/status"))
}

// A client on one architecture and a server on another, whose byte orders and word sizes differ: IPsec by the kernels'
// XFRM, an intact transfer, and nothing in the clear on the cable between them.
func TestBoardPair(t *testing.T) {
	for _, test := range []struct{ server, client, path string }{
		{"qemu-mips", "qemu-arm64", "auto"},
		{"qemu-arm64", "qemu-mips", "auto"},
		{"qemu-mipsel", "qemu-arm", "auto"},
		{"qemu-mips", "qemu-arm64", "userspace"},
		{"qemu-arm", "qemu-mipsel", "userspace"},
	} {
		t.Run(test.server+"_"+test.client+"_"+test.path, func(t *testing.T) { pair(t, test.server, test.client, test.path) })
	}
}

// pairOctets are transferred.
const pairOctets = 10 << 20

func pair(t *testing.T, serverName, clientName, path string) {
	boards := requireBoards(t, serverName, clientName)
	Reserve(t, false)
	cable := filepath.Join(t.TempDir(), "cable")
	dump := filepath.Join(t.TempDir(), "pcap")
	memory := func(b *Board) string {
		if b.nor {
			return "64M" // as the boards that they stand for
		}
		return "128M"
	}
	server := bootImage(t, boards[0], fmt.Sprintf(pairServer, path), memory(boards[0]), append(NetListen(0, cable),
		"-object", "filter-dump,id=dump,netdev=n0,maxlen=64,file="+dump)...)
	client := bootImage(t, boards[1], fmt.Sprintf(pairClient, path), memory(boards[1]), NetConnect(0, cable)...)
	server.wait(60*time.Second, "culvert console -e '/system resource print' >/dev/null 2>&1")
	server.run(time.Minute, "sleep 6") // until what only the start has needed is given back
	idle := server.resident()
	client.wait(120*time.Second, "ping -c1 -W1 192.168.99.1 >/dev/null 2>&1")
	client.run(90*time.Second, "ping -c 5 -s 1200 192.168.99.1")

	active := server.run(90*time.Second, "culvert console -e '/ppp active print'")
	if !strings.Contains(active, "user1") || !strings.Contains(active, "192.168.99.2") || !strings.Contains(active, "192.0.2.2") {
		t.Errorf("/ppp active print shows\n%s", active)
	}

	// What both have is sent: programs. The sum is taken before.
	stream := fmt.Sprintf("cat /usr/sbin/culvert /bin/busybox /usr/sbin/culvert | head -c %d", pairOctets)
	want := client.run(3*time.Minute, stream+" | md5sum")[:32]
	if err := server.Send("nc -l -p 5000 | md5sum; echo re''ceived\r"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // nc(1) says nothing when it listens
	began := time.Now()
	client.run(8*time.Minute, stream+" | nc 192.168.99.1 5000")
	m, err := server.Expect(time.Minute, `([0-9a-f]{32})  -[\s\S]*received`)
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	if m[1] != want {
		t.Errorf("the transfer's sum is %s, not %s", m[1], want)
	}
	esp, clear := captured(t, dump)
	if esp < pairOctets/1500 || clear > 0 {
		t.Errorf("on the cable: %d packets of ESP, %d of L2TP in the clear", esp, clear)
	}
	sas := server.run(90*time.Second, "culvert console -e '/ip ipsec installed-sa print detail'")
	used := server.run(90*time.Second, "culvert console -e '/system resource print'")
	wantPath := "xfrm+kernel+kernel"
	if path == "userspace" {
		wantPath = "esp+user+user"
	}
	if !strings.Contains(used, wantPath) {
		t.Errorf("the data path is not %s:\n%s", wantPath, used)
	}
	if !strings.Contains(sas, "aes") {
		t.Errorf("/ip ipsec installed-sa print shows\n%s", sas)
	}
	clockJumps(t, server, client)
	kernel, initrd, err := server.image.Sizes()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s serves %s, %s: kernel %.1f MB, initramfs %.1f MB, boot %.1f s, daemon %s idle, %s with a session, %.1f Mbit/s (emulated)", server.board.Name, client.board.Name, wantPath,
		float64(kernel)/1e6, float64(initrd)/1e6, server.boot.Seconds(), idle, server.resident(), pairOctets*8/took.Seconds()/1e6)
}

// clockJumps lets the server's clock jump as those of boards do that have none of their own: back to 1970, and ahead. The
// session outlives it, with all the timers that run out meanwhile.
func clockJumps(t *testing.T, server, client *testBoard) {
	t.Helper()
	session := func() string {
		t.Helper()
		out := server.run(90*time.Second, "culvert console -e '/ppp active print detail'")
		_, id, ok := strings.Cut(out, "session-id=")
		if !ok {
			t.Fatalf("/ppp active print detail shows\n%s", out)
		}
		return strings.Fields(id)[0]
	}
	before := session()
	// 2038 is as far as a C library with 32-bit times can go; both jumps together are more than a century.
	for _, date := range []string{"1970-01-02 00:00:00", "2037-12-31 00:00:00"} {
		server.run(30*time.Second, "date -u -s '"+date+"'")
		client.run(3*time.Minute, "ping -c 20 -i 1 192.168.99.1")
	}
	if after := session(); after != before {
		t.Errorf("session %s became session %s when the clock jumped\n%s", before, after, server.log())
	}
}

// captured counts packets in a file of QEMU's filter-dump (libpcap's format): ESP, bare or in UDP 4500, and L2TP in UDP 1701.
func captured(t *testing.T, file string) (esp, clear int) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil || len(b) < 24 {
		t.Fatalf("%d octets captured, %v", len(b), err)
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if order.Uint32(b) != 0xa1b2c3d4 {
		order = binary.BigEndian
	}
	for b = b[24:]; len(b) >= 16; {
		n := int(order.Uint32(b[8:]))
		if 16+n > len(b) {
			break
		}
		p := b[16 : 16+n]
		b = b[16+n:]
		if len(p) < 42 || p[12] != 8 || p[13] != 0 || p[14] != 0x45 { // IPv4 without options in Ethernet
			continue
		}
		switch port := binary.BigEndian.Uint16(p[36:]); {
		case p[23] == 50, p[23] == 17 && port == 4500 && binary.BigEndian.Uint32(p[42:]) != 0:
			esp++
		case p[23] == 17 && port == 1701:
			clear++
		}
	}
	return esp, clear
}
