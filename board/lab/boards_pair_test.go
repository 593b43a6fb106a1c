package lab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Two boards differ in their architecture, byte order or word size. Both come up to their consoles, are configured by
// typing a RouterOS how-to's commands, and one connects to the other: IPsec by the kernels' XFRM, by userspace with Go's
// ciphers, and by userspace with the kernel's over AF_ALG; each time an intact transfer, and nothing in the clear on the cable
// between them. Every board serves once; what the table in README says of them is printed at the end.
func TestBoardPair(t *testing.T) {
	var table []measured
	for _, pair := range []struct {
		server, client string
		jumps          bool // its clock does: once with 32-bit words, once with 64
	}{
		{"qemu-mips", "qemu-arm64", true},
		{"qemu-arm64", "qemu-mips", true},
		{"qemu-mipsel", "qemu-arm", false},
		{"qemu-arm", "qemu-mipsel", false},
	} {
		t.Run(pair.server+"_"+pair.client, func(t *testing.T) {
			p := joined(t, pair.server, pair.client)
			p.typed()
			m := p.described()
			for _, path := range dataPaths {
				p.set(path)
				l := p.measure(path, 10<<20)
				t.Log(l)
				m.lines = append(m.lines, l)
				if path.name == "XFRM" && pair.jumps {
					p.clockJumps()
				}
			}
			p.nothingClear(3 * 10 << 20)
			table = append(table, m)
		})
	}
	t.Log(readmeTable(table))
}

// The same on two boards that need no kernel built and little time: what CI runs.
func TestBoardShort(t *testing.T) {
	p := joined(t, "qemu-mipsel", "qemu-mipsel")
	p.typed()
	t.Log(p.measure(dataPaths[0], 1<<20))
	p.nothingClear(1 << 20)
}

// dataPath is one way through a board: what is set for it, and what the console then says.
type dataPath struct {
	name            string
	setting, engine string
	shown, crypto   string // patterns
}

var dataPaths = []dataPath{
	{"XFRM", "auto", "auto", `xfrm\+kernel\+kernel`, `crypto-engine: kernel`},
	{"userspace", "userspace", "software", `esp\+user\+user`, `crypto-engine: software`},
	{"userspace, AF_ALG", "userspace", "hardware", `esp\+user\+user`, `crypto-engine: af_alg`},
}

// The commands are those of a how-to for RouterOS as they stand there, but for the addresses.
var (
	serverCommands = []string{
		`/ip pool add name=l2tp-pool ranges=192.168.100.2-192.168.100.50`,
		`/ppp profile add name=l2tp-profile local-address=192.168.100.1 remote-address=l2tp-pool dns-server=8.8.8.8,1.1.1.1 use-encryption=yes`,
		`/interface l2tp-server server set enabled=yes use-ipsec=yes ipsec-secret="YourStrongPSK123!" default-profile=l2tp-profile authentication=mschap2`,
		`/ppp secret add name=user1 password=SecurePass123! service=l2tp profile=l2tp-profile`,
		`/ppp secret add name=user2 password=AnotherPass456! service=l2tp profile=l2tp-profile`,
	}
	clientCommands = []string{
		`/interface l2tp-client add name=up connect-to=192.0.2.1 user=user1 password=SecurePass123! use-ipsec=yes ipsec-secret="YourStrongPSK123!" disabled=no`,
	}
)

// onCable is the configuration of a board with an address on the cable and nothing else.
func onCable(identity string, addresses ...string) string {
	return fmt.Sprintf("[system]\nidentity = %q\n[network.interface.eth0]\naddress = [\"%s\"]\n", identity, strings.Join(addresses, `", "`))
}

// boardPair is two boards joined by a cable.
type boardPair struct {
	t              *testing.T
	server, client *testBoard
	dump           string // what passes on the cable
}

func joined(t *testing.T, server, client string) *boardPair {
	t.Helper()
	boards := requireBoards(t, server, client)
	Reserve(t, os.Getenv("CULVERT_BENCH") == "1")
	cable := filepath.Join(t.TempDir(), "cable")
	p := &boardPair{t: t, dump: filepath.Join(t.TempDir(), "pcap")}
	p.server = bootImage(t, boards[0], onCable("server", "192.0.2.1/24"), boards[0].memory(), append(NetListen(0, cable),
		"-object", "filter-dump,id=dump,netdev=n0,maxlen=64,file="+p.dump)...)
	p.client = bootImage(t, boards[1], onCable("client", "192.0.2.2/24"), boards[1].memory(), NetConnect(0, cable)...)
	return p
}

// typed configures both boards at their serial lines; what was typed is in force at once, and shows.
func (p *boardPair) typed() {
	p.t.Helper()
	p.server.login()
	p.server.typed(serverCommands...)
	p.client.login()
	p.client.typed(clientCommands...)
	p.client.wait(3*time.Minute, "ping -c1 -W1 192.168.100.1 >/dev/null 2>&1")
	if out := p.server.typed("/ppp active print"); !regexp.MustCompile(`user1 +l2tp +192\.0\.2\.2 +192\.168\.100\.\d+ `).MatchString(out) {
		p.t.Errorf("%s: /ppp active print shows\n%s", p.server.board.Name, out)
	}
}

// set changes the data path of both boards, for which their daemons begin anew; at first, for a measure of one that has,
// they are made to.
func (p *boardPair) set(path dataPath) {
	p.t.Helper()
	p.client.console("/interface l2tp-client disable up")
	for _, x := range []*testBoard{p.client, p.server} {
		if path.setting == "auto" {
			x.restart(byInit)
			continue
		}
		x.restart("culvert console -e '/system settings set data-path=" + path.setting + " crypto-engine=" + path.engine + "'")
	}
}

// line is what was measured of one data path.
type line struct {
	path          string
	idle, session footprint // the server's
	mbps          float64
}

func (l line) String() string {
	return fmt.Sprintf("%s: %.1f Mbit/s emulated; the server has %v idle, %v with a session", l.path, l.mbps, l.idle, l.session)
}

// measure has the client connect, if it has not, and sends octets to the server.
func (p *boardPair) measure(path dataPath, octets int) line {
	t := p.t
	t.Helper()
	l := line{path: path.name, idle: p.server.footprint()}
	p.client.console("/interface l2tp-client enable up")
	p.client.wait(3*time.Minute, "ping -c1 -W1 192.168.100.1 >/dev/null 2>&1")
	p.client.run(time.Minute, "ping -c 5 -s 1200 192.168.100.1")
	if active := p.server.console("/ppp active print"); !strings.Contains(active, "user1") || !strings.Contains(active, "192.0.2.2") {
		t.Errorf("%s: /ppp active print shows\n%s", path.name, active)
	}

	// What the boards have is sent: programs. The sum is taken before.
	stream := fmt.Sprintf("cat /usr/sbin/culvert /bin/busybox /usr/sbin/culvert | head -c %d", octets)
	want := p.client.run(3*time.Minute, stream+" | md5sum")[:32]
	p.server.must(p.server.shell.Send("nc -l -p 5000 | md5sum; echo re''ceived\r"))
	p.client.run(time.Minute, "sleep 2") // nc(1) says nothing when it listens
	began := time.Now()
	p.client.run(10*time.Minute, stream+" | nc 192.168.100.1 5000")
	m, err := p.server.shell.Expect(answerTimeout, `([0-9a-f]{32})  -[\s\S]*received`)
	if err != nil {
		t.Fatal(err)
	}
	l.mbps = float64(octets) * 8 / time.Since(began).Seconds() / 1e6
	if m[1] != want {
		t.Errorf("%s: the transfer's sum is %s, not %s", path.name, m[1], want)
	}
	l.session = p.server.footprint()

	for _, x := range []*testBoard{p.server, p.client} {
		used := x.console("/system resource print")
		for _, pattern := range []string{path.shown, path.crypto} {
			if !regexp.MustCompile(pattern).MatchString(used) {
				t.Errorf("%s: %s: not %s but\n%s", path.name, x.board.Name, pattern, used)
			}
		}
	}
	if sas := p.server.console("/ip ipsec installed-sa print detail"); !strings.Contains(sas, "aes") {
		t.Errorf("%s: /ip ipsec installed-sa print shows\n%s", path.name, sas)
	}
	return l
}

// clockJumps lets the server's clock jump as those of boards do that have none of their own: back to 1970, and ahead. The
// session outlives it, with all the timers that run out meanwhile.
func (p *boardPair) clockJumps() {
	p.t.Helper()
	session := func() string {
		p.t.Helper()
		out := p.server.console("/ppp active print detail")
		_, id, ok := strings.Cut(out, "session-id=")
		if !ok {
			p.t.Fatalf("/ppp active print detail shows\n%s", out)
		}
		return strings.Fields(id)[0]
	}
	before := session()
	// 2038 is as far as a C library with 32-bit times can go; both jumps together are more than a century.
	for _, date := range []string{"1970-01-02 00:00:00", "2037-12-31 00:00:00"} {
		p.server.run(time.Minute, "date -u -s '"+date+"'")
		p.client.run(3*time.Minute, "ping -c 20 -i 1 192.168.100.1")
	}
	if after := session(); after != before {
		p.t.Errorf("session %s became session %s when the clock jumped\n%s", before, after, p.server.log())
	}
}

// nothingClear looks at what has passed on the cable.
func (p *boardPair) nothingClear(octets int) {
	p.t.Helper()
	esp, clear := captured(p.t, p.dump)
	if esp < octets/1500 || len(clear) > 0 {
		p.t.Errorf("on the cable: %d packets of ESP, %d of L2TP in the clear: %s\nthe server's log:\n%s\nthe client's:\n%s",
			esp, len(clear), strings.Join(clear, "; "), p.server.log(), p.client.log())
	}
}

// measured is what one pair has shown.
type measured struct {
	server, client string
	kernel, initrd int64 // octets of the server's image
	boot           time.Duration
	lines          []line // as dataPaths
}

func (p *boardPair) described() (m measured) {
	p.t.Helper()
	m.server, m.client, m.boot = p.server.board.Name, p.client.board.Name, p.server.boot
	var err error
	m.kernel, m.initrd, err = p.server.image.Sizes()
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// readmeTable is the table of boards in README's form.
func readmeTable(rows []measured) string {
	var b strings.Builder
	fmt.Fprintln(&b, "\n| server (client) | kernel + initramfs | boot | daemon idle / with a session | in userspace | Mbit/s: XFRM, userspace, AF_ALG | as ratios |")
	fmt.Fprintln(&b, "|---|---|---|---|---|---|---|")
	for _, m := range rows {
		x, u, a := m.lines[0], m.lines[1], m.lines[2]
		mb := func(f footprint) float64 { return float64(f.resident) / 1e3 }
		fmt.Fprintf(&b, "| %s (%s) | %.1f + %.1f MB | %.0f s | %.1f / %.1f MB | %.1f / %.1f MB | %.1f, %.1f, %.1f | 1 : %.2f : %.2f |\n",
			m.server, m.client, float64(m.kernel)/1e6, float64(m.initrd)/1e6, m.boot.Seconds(),
			mb(x.idle), mb(x.session), mb(u.idle), mb(u.session), x.mbps, u.mbps, a.mbps, u.mbps/x.mbps, a.mbps/x.mbps)
	}
	return b.String()
}

// captured reads a file of QEMU's filter-dump (libpcap's format): how many packets were ESP, bare or in UDP 4500, and which were
// L2TP in UDP 1701.
func captured(t *testing.T, file string) (esp int, clear []string) {
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
		head, p := b[:16], b[16:16+n]
		b = b[16+n:]
		if len(p) < 42 || p[12] != 8 || p[13] != 0 || p[14] != 0x45 { // IPv4 without options in Ethernet
			continue
		}
		switch port := binary.BigEndian.Uint16(p[36:]); {
		case p[23] == 50, p[23] == 17 && port == 4500 && binary.BigEndian.Uint32(p[42:]) != 0:
			esp++
		case p[23] == 17 && port == 1701:
			at := time.Unix(int64(order.Uint32(head)), int64(order.Uint32(head[4:]))*1000).UTC()
			clear = append(clear, fmt.Sprintf("%s from %v: %x", at.Format("15:04:05.000"), netip.AddrFrom4([4]byte(p[26:])), p[34:]))
		}
	}
	return esp, clear
}
