package portmap

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
	"culvert/board/nft"
)

var quiet = slog.New(slog.DiscardHandler)

// TestLabKernel runs this package's tests on a real kernel.
func TestLabKernel(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) {
		t.Run("Lifecycle", lifecycle)
		t.Run("Rewrite", func(t *testing.T) {
			t.Run("IPv4", func(t *testing.T) { rewrite(t, "127.0.0.1", "127.0.0.2") })
			t.Run("IPv6", func(t *testing.T) { rewrite(t, "::1", "fd00::2") })
		})
		t.Run("Guard", guard)
		t.Run("Speed", speed)
	})
}

// TestLabLacking is what a kernel without nf_tables says.
func TestLabLacking(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) {
		err := Probe()
		if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "CONFIG_NF_TABLES_INET") {
			t.Error(err)
		}
		if _, err := New(Options{MarkMask: testMask, Ports: []uint16{1701}}); err == nil {
			t.Error("and yet there is a table")
		}
	}, lab.Without("nf_tables_module_init"))
}

// ownNamespace moves the calling goroutine for good to a thread with a network namespace of its own.
func ownNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"link set lo up", "addr add fd00::2/128 dev lo nodad"} {
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
}

func open(t *testing.T, o Options) *Table {
	t.Helper()
	o.Log, o.MarkMask = quiet, testMask
	if o.Ports == nil {
		o.Ports = []uint16{1701}
	}
	table, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := table.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if s := listing(t); s != "" {
			t.Errorf("left behind: %s", s)
		}
	})
	return table
}

// listing is what a person sees of the table.
func listing(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("nft", "-n", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Errorf("nft: %v: %s", err, out)
	}
	return string(out)
}

func lifecycle(t *testing.T) {
	ownNamespace(t)
	if err := Probe(); err != nil {
		t.Fatal(err)
	}
	if s := listing(t); s != "" {
		t.Errorf("Probe left %s", s)
	}
	table := open(t, Options{Ports: []uint16{1701, 1702}})
	if err := Probe(); err != nil { // beside the table
		t.Error(err)
	}
	pristine := listing(t)
	if strings.Contains(pristine, "routing") {
		t.Errorf("with no client to map: %s", pristine)
	}
	port, err := table.Add(0x50000, 1701)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Bind(0x50000, 4711); err != nil {
		t.Fatal(err)
	}
	full := listing(t)
	for _, want := range []string{"table inet culvert", "flags owner", "1701, 1702", "0x00050000 . 1701 : 10005", "0x00050000 . 10005 : 1701", "0x00050000 . 4711", "hook prerouting", "hook postrouting"} {
		if !strings.Contains(full, want) {
			t.Errorf("the listing lacks %q", want)
		}
	}
	if port != 10005 {
		t.Error(port)
	}
	t.Log(full)
	// A firewall that is loaded anew leaves the table alone, and nobody else may have it.
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Errorf("flush: %v: %s", err, out)
	}
	if s := listing(t); s != full {
		t.Errorf("after nft flush ruleset: %s", s)
	}
	if out, err := exec.Command("nft", "delete", "table", "inet", "culvert").CombinedOutput(); err == nil {
		t.Errorf("nft deleted it: %s", out)
	}
	start := time.Now()
	if _, err := New(Options{MarkMask: testMask, Ports: []uint16{1701}}); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Errorf("a second owner: %v", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("that took %v", d)
	}
	if err := errors.Join(table.Remove(0x50000, 1701), table.Unbind(4711)); err != nil {
		t.Error(err)
	}
	if s := listing(t); s != pristine {
		t.Errorf("not as before: %s", s)
	}
	if _, err := table.Add(0x50000, 1701); err != nil {
		t.Error(err)
	}
	// The process dies: the kernel closes its files.
	table.conn.Close()
	if s := listing(t); s != "" {
		t.Errorf("left by the dead: %s", s)
	}
	table.conn = nil
	open(t, Options{})
}

// sender sends UDP datagrams with a mark and a checksum made by hand, which the receiver's kernel checks.
type sender struct {
	t  *testing.T
	fd int
	a  netip.Addr
}

func newSender(t *testing.T, from netip.Addr, mark uint32) sender {
	t.Helper()
	family := unix.AF_INET
	if from.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err == nil {
		err = errors.Join(unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0))), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return sender{t, fd, from}
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// How a datagram is summed.
const (
	summed = iota
	unsummed
	damaged
)

// retry is for sockets with a time-out, which are not taken up again after a signal, and Go's scheduler sends some.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func (s sender) send(source uint16, to netip.AddrPort, sum int, payload []byte) {
	s.t.Helper()
	b := nft.BE16(source)
	b = append(b, nft.BE16(to.Port())...)
	b = append(b, nft.BE16(uint16(8+len(payload)))...)
	b = append(append(b, 0, 0), payload...)
	if sum != unsummed {
		pseudo := append(s.a.AsSlice(), to.Addr().AsSlice()...)
		pseudo = append(pseudo, 0, unix.IPPROTO_UDP, byte(len(b)>>8), byte(len(b)))
		v := checksum(append(pseudo, b...))
		if sum == damaged {
			v ^= 0x0100
		}
		binary.BigEndian.PutUint16(b[6:], v)
	}
	if err := retry(func() error { return unix.Sendto(s.fd, b, 0, sockaddr(netip.AddrPortFrom(to.Addr(), 0))) }); err != nil {
		s.t.Fatal(err)
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum == 0xffff {
		return 0xffff
	}
	return ^uint16(sum)
}

// receiver is a UDP socket; next returns the next datagram's source and text, or "" when there is none.
type receiver struct {
	t  *testing.T
	fd int
}

func newReceiver(t *testing.T, at netip.AddrPort) receiver {
	t.Helper()
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, sockaddr(at))
	}
	if err != nil {
		t.Fatal(err)
	}
	tv := unix.NsecToTimeval(int64(300 * time.Millisecond))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	t.Cleanup(func() { unix.Close(fd) })
	return receiver{t, fd}
}

func (r receiver) next() (port int, payload string) {
	r.t.Helper()
	b := make([]byte, 2048)
	var n int
	var from unix.Sockaddr
	err := retry(func() (err error) { n, from, err = unix.Recvfrom(r.fd, b, 0); return err })
	if errors.Is(err, unix.EAGAIN) {
		return 0, ""
	}
	if err != nil {
		r.t.Fatal(err)
	}
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		port = a.Port
	case *unix.SockaddrInet6:
		port = a.Port
	}
	return port, string(b[:n])
}

// rewrite sends both ways over the loopback, where a packet keeps its mark.
func rewrite(t *testing.T, server, client string) {
	ownNamespace(t)
	serverAddr, clientAddr := netip.MustParseAddr(server), netip.MustParseAddr(client)
	at := netip.AddrPortFrom(serverAddr, 1701)
	table := open(t, Options{})
	in := newReceiver(t, at)
	const a, b, foreignBits = 0x10000, 0x20000, 0x8000beef
	portA, err := table.Add(a, 1701)
	if err != nil {
		t.Fatal(err)
	}
	portB, err := table.Add(b, 5000)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		mark   uint32
		source uint16
		sum    int
		want   int // source port as received, 0 for nothing
	}{
		{"mapped", a, 1701, summed, int(portA)},
		{"mapped, with others' bits in the mark", a | foreignBits, 1701, summed, int(portA)},
		{"another port of the client", a, 1702, summed, 1702},
		{"a port that was negotiated", b, 5000, summed, int(portB)},
		{"another client's port", b, 1701, summed, 1701},
		{"no mark", 0, 1701, summed, 1701},
		{"not our bits", foreignBits, 1701, summed, 1701},
		{"damaged", a, 1701, damaged, 0},
		{"no checksum", a, 1701, unsummed, int(portA)},
		{"the port given, as if the client had it", a, portA, summed, int(portA)},
	} {
		want := test.want
		if test.sum == unsummed && serverAddr.Is6() {
			want = 0 // RFC 8200 section 8.1
		}
		newSender(t, clientAddr, test.mark).send(test.source, at, test.sum, []byte(test.name))
		got, text := in.next()
		if got != want || want != 0 && text != test.name {
			t.Errorf("%s: %q from port %d, want %d", test.name, text, got, want)
		}
	}
	// And back. The answer passes prerouting too, here on the loopback; to port 5000 that changes nothing.
	back := newReceiver(t, netip.AddrPortFrom(clientAddr, 5000))
	for _, test := range []struct {
		name   string
		mark   uint32
		source uint16
		to     uint16
		sum    int
		come   bool
	}{
		{"mapped", b, 1701, portB, summed, true},
		{"damaged", b, 1701, portB, damaged, false},
		{"no checksum", b, 1701, portB, unsummed, serverAddr.Is4()},
		{"another's mark", a, 1701, portB, summed, false},
		{"no mark", 0, 1701, portB, summed, false},
		{"another port of ours", b, 1702, portB, summed, false},
		{"its own port", b, 1701, 5000, summed, true},
	} {
		newSender(t, serverAddr, test.mark).send(test.source, netip.AddrPortFrom(clientAddr, test.to), test.sum, []byte(test.name))
		if _, text := back.next(); (text == test.name) != test.come {
			t.Errorf("back, %s: %q", test.name, text)
		}
	}
	if err := table.Remove(a, 1701); err != nil {
		t.Error(err)
	}
	newSender(t, clientAddr, a).send(1701, at, summed, []byte("gone"))
	if got, text := in.next(); got != 1701 || text != "gone" {
		t.Errorf("after Remove: %q from port %d", text, got)
	}
}

// guard sends data messages for tunnels of one's own and of others.
func guard(t *testing.T) {
	ownNamespace(t)
	table := open(t, Options{})
	server, client := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	in := newReceiver(t, netip.AddrPortFrom(server, 1701))
	const a, b = 0x10000, 0x20000
	for tunnel, mark := range map[uint16]uint32{7: a, 0x1007: b, 9: 0} {
		if err := table.Bind(mark, tunnel); err != nil {
			t.Fatal(err)
		}
	}
	message := func(flags uint16, tunnel uint16) []byte {
		m := nft.BE16(flags)
		if flags&0x4000 != 0 {
			m = append(m, 0, 12)
		}
		return append(append(m, nft.BE16(tunnel)...), 0, 1, 0xff, 3, 0, 0x21)
	}
	for _, test := range []struct {
		name   string
		mark   uint32
		flags  uint16
		tunnel uint16
		come   bool
	}{
		{"its own", a, 0x0002, 7, true},
		{"its own, with length", a, 0x4002, 7, true},
		{"its own, sequenced", a, 0x0802, 7, true},
		{"another's", b, 0x0002, 7, false},
		{"another's, with length", b, 0x4002, 7, false},
		{"another's, sequenced, offset, priority", b, 0x0b02, 7, false},
		{"another's, with length and all", b, 0x4b02, 7, false},
		{"another's, reserved bits", b, 0x34f2, 7, false},
		{"another's from outside of IPsec", 0, 0x0002, 7, false},
		{"one outside of IPsec, from inside", a, 0x4002, 9, false},
		{"one outside of IPsec", 0, 0x4002, 9, true},
		{"a control message", b, 0xc802, 7, true},
		{"L2TPv3", b, 0x0003, 7, true},
		{"nobody's", b, 0x0002, 8, true},
		{"nobody's, with length", b, 0x4002, 8, true},
	} {
		m := message(test.flags, test.tunnel)
		newSender(t, client, test.mark).send(1701, netip.AddrPortFrom(server, 1701), summed, m)
		if _, got := in.next(); (got == string(m)) != test.come {
			t.Errorf("%s: came %q", test.name, got)
		}
	}
	short := []byte{0, 2, 0}
	newSender(t, client, b).send(1701, netip.AddrPortFrom(server, 1701), summed, short)
	if _, got := in.next(); got != string(short) {
		t.Error("too short to judge, and yet dropped")
	}
	if err := table.Unbind(7); err != nil {
		t.Error(err)
	}
	m := message(2, 7)
	newSender(t, client, b).send(1701, netip.AddrPortFrom(server, 1701), summed, m)
	if _, got := in.next(); got != string(m) {
		t.Error("after Unbind: dropped")
	}
}

// speed is how long the control loop waits for a change.
func speed(t *testing.T) {
	ownNamespace(t)
	table := open(t, Options{})
	const n = 500
	start := time.Now()
	for i := range uint32(n) {
		if _, err := table.Add((i+1)<<16, 1701); err != nil {
			t.Fatal(err)
		}
	}
	added := time.Since(start)
	for i := range uint32(n) {
		if err := table.Remove((i+1)<<16, 1701); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d clients: %v to add each, %v to remove", n, added/n, (time.Since(start)-added)/n)
	if os.Getenv("CI") != "true" && added/n > 5*time.Millisecond {
		t.Errorf("too long for the control loop")
	}
}
