package esp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
	"culvert/hwcrypto"
	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
	"culvert/ipsec/natt"
	"culvert/ipsec/xfrm"
)

// namespace is a network namespace and the thread that lives in it.
type namespace struct {
	t   *testing.T
	do  chan func()
	tid int
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{t: t, do: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		n.tid = unix.Gettid()
		ready <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range n.do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(n.do) })
	n.ip("link set lo up")
	return n
}

func (n *namespace) run(f func()) {
	done := make(chan struct{})
	n.do <- func() { defer close(done); f() }
	<-done
}

func (n *namespace) ip(format string, args ...any) {
	n.t.Helper()
	words := strings.Fields(fmt.Sprintf(format, args...))
	var out []byte
	var err error
	n.run(func() { out, err = exec.Command("ip", words...).CombinedOutput() })
	if err != nil {
		n.t.Fatalf("ip %s: %v\n%s", words, err, out)
	}
}

// must runs f in the namespace.
func (n *namespace) must(f func() error) {
	n.t.Helper()
	var err error
	n.run(func() { err = f() })
	if err != nil {
		n.t.Fatal(err)
	}
}

// ours is this package with real sockets.
type ours struct {
	*Backend
	natt *natt.Conns
	raw  *Raw
	up   chan delivery
	wire chan wirePacket // copies of what came in, the newest ones
}

func (n *namespace) ours(crypto *hwcrypto.Providers) *ours {
	n.t.Helper()
	o := &ours{up: make(chan delivery, 1000), wire: make(chan wirePacket, 1)}
	receive := func(p ipsec.Path, b []byte) {
		select {
		case <-o.wire:
		default:
		}
		o.wire <- wirePacket{flip(p), bytes.Clone(b)}
		o.Receive(p, b)
	}
	reader := func() (func(ipsec.Path, []byte), func()) { return receive, func() {} }
	n.must(func() (err error) {
		if o.natt, err = natt.Open(natt.Options{ESP: reader}); err != nil {
			return err
		}
		o.raw, err = OpenRaw(RawOptions{})
		return err
	})
	o.Backend = New(Options{
		Crypto: crypto, SendUDP: o.natt.SendESP, SendRaw: o.raw.Send,
		SendUDPBatch: o.natt.SendESPBatch, SendRawBatch: o.raw.SendBatch,
		Deliver: func(m ipsec.Mark, local, remote netip.AddrPort, payload []byte) {
			o.up <- delivery{m, local, remote, string(payload)}
		},
	})
	o.natt.Serve(func(ipsec.Path, []byte) {}, nil)
	o.raw.Serve(reader)
	n.t.Cleanup(func() { o.natt.Close(); o.raw.Close(); o.Close() })
	return o
}

func (o *ours) next(t *testing.T) (d delivery, ok bool) {
	t.Helper()
	select {
	case d := <-o.up:
		return d, true
	case <-time.After(2 * time.Second):
		return d, false
	}
}

// kernel is the other end.
type kernel struct {
	*xfrm.Backend
	t   *testing.T
	fd4 int
	fd6 int
}

func (n *namespace) kernel(ports ...uint16) *kernel {
	n.t.Helper()
	k := &kernel{t: n.t}
	n.must(func() (err error) {
		k.Backend, err = xfrm.New(xfrm.Options{Require: true})
		return err
	})
	for _, port := range ports {
		n.must(func() error {
			c, err := natt.Open(natt.Options{IKEPort: port - 4000, NATTPort: port, Encap: true})
			if err == nil {
				n.t.Cleanup(func() { c.Close() })
			}
			return err
		})
	}
	open := func(sa unix.Sockaddr, family int) (fd int) {
		n.must(func() (err error) {
			if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			if family == unix.AF_INET6 {
				unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
			}
			tv := unix.NsecToTimeval(int64(300 * time.Millisecond))
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1); err != nil {
				return err
			}
			return unix.Bind(fd, sa)
		})
		n.t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	k.fd4 = open(&unix.SockaddrInet4{Port: 1701}, unix.AF_INET)
	k.fd6 = open(&unix.SockaddrInet6{Port: 1701}, unix.AF_INET6)
	n.t.Cleanup(func() { k.Close() })
	return k
}

func (k *kernel) send(to netip.Addr, m ipsec.Mark, text string) {
	k.t.Helper()
	oob := make([]byte, unix.CmsgSpace(4))
	h := oob[unix.SizeofCmsghdr-8:]
	if unix.SizeofCmsghdr == 16 {
		binary.NativeEndian.PutUint64(oob, uint64(unix.CmsgLen(4)))
	} else {
		binary.NativeEndian.PutUint32(oob, uint32(unix.CmsgLen(4)))
	}
	binary.NativeEndian.PutUint32(h, unix.SOL_SOCKET)
	binary.NativeEndian.PutUint32(h[4:], unix.SO_MARK)
	binary.NativeEndian.PutUint32(oob[unix.CmsgLen(0):], uint32(m))
	fd, sa := k.fd4, unix.Sockaddr(&unix.SockaddrInet4{Port: 1701, Addr: [4]byte(to.AsSlice()[:4])})
	if to.Is6() {
		fd, sa = k.fd6, &unix.SockaddrInet6{Port: 1701, Addr: to.As16()}
	}
	if err := unix.Sendmsg(fd, []byte(text), oob, sa, 0); err != nil {
		k.t.Fatalf("kernel's end: send: %v", err)
	}
}

// receive returns the next datagram and its mark.
func (k *kernel) receive(v6 bool) (text string, m ipsec.Mark, ok bool) {
	k.t.Helper()
	fd := k.fd4
	if v6 {
		fd = k.fd6
	}
	buf, oob := make([]byte, 9000), make([]byte, 200)
	n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, 0)
	if err != nil {
		return "", 0, false
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		k.t.Fatal(err)
	}
	for _, c := range msgs {
		if c.Header.Level == unix.SOL_SOCKET && c.Header.Type == unix.SO_MARK {
			m = ipsec.Mark(binary.NativeEndian.Uint32(c.Data))
		}
	}
	return string(buf[:n]), m, true
}

const kernelPort = 40001

// rig joins this package's ESP, at 10.7.0.1 and fd07::1, by a cable to the kernel's, at 10.7.0.2 and fd07::2.
func rig(t *testing.T, crypto *hwcrypto.Providers) (*ours, *kernel) {
	t.Helper()
	a, z := newNamespace(t), newNamespace(t)
	a.ip("link add wire0 type veth peer name wire0 netns %d", z.tid)
	var up []func()
	for n, last := range map[*namespace]string{a: "1", z: "2"} {
		n.run(func() { up = append(up, ipsectest.Plugged(t, "wire0")) })
		n.ip("addr add 10.7.0.%s/24 dev wire0", last)
		n.ip("addr add fd07::%s/64 dev wire0 nodad", last)
		n.ip("link set wire0 up")
	}
	for _, wait := range up {
		wait()
	}
	return a.ours(crypto), z.kernel(kernelPort, kernelPort+1)
}

// network is one way between the two ends.
type network struct {
	name       string
	ours, peer string
	port       uint16
}

var networks = []network{
	{"udp4", "10.7.0.1", "10.7.0.2", kernelPort}, {"udp6", "fd07::1", "fd07::2", kernelPort},
	{"raw4", "10.7.0.1", "10.7.0.2", 0}, {"raw6", "fd07::1", "fd07::2", 0},
}

func (w network) child(m ipsec.Mark, spiIn, spiOut ipsec.SPI, s ipsec.Suite) child {
	return newChild(m, w.ours, w.peer, w.port, spiIn, spiOut, s)
}

// install installs both ends of a child.
func installBoth(t *testing.T, o *ours, k *kernel, c child) {
	t.Helper()
	for _, sa := range []ipsec.SA{c.serverIn, c.serverOut} {
		if err := o.Install(sa); err != nil {
			t.Fatal(err)
		}
	}
	for _, sa := range []ipsec.SA{c.clientIn, c.clientOut} {
		if err := k.Install(sa); err != nil {
			t.Fatalf("kernel: %s: %v", sa.Suite, err)
		}
	}
}

func removeBoth(t *testing.T, o *ours, k *kernel, c child) {
	t.Helper()
	for _, sa := range []ipsec.SA{c.serverIn, c.serverOut} {
		if err := o.Remove(sa.ID()); err != nil {
			t.Fatal(err)
		}
	}
	for _, sa := range []ipsec.SA{c.clientIn, c.clientOut} {
		if err := k.Remove(sa.ID()); err != nil {
			t.Fatal(err)
		}
	}
}

// exchange sends a text each way under a mark.
func (w network) exchange(t *testing.T, o *ours, k *kernel, m ipsec.Mark, text string) {
	t.Helper()
	us, peer := netip.AddrPortFrom(netip.MustParseAddr(w.ours), 1701), netip.AddrPortFrom(netip.MustParseAddr(w.peer), 1701)
	k.send(us.Addr(), m, text)
	if d, ok := o.next(t); !ok || d != (delivery{m, us, peer, text}) {
		t.Fatalf("%s: from the kernel: %t, %d octets with mark %s from %s; drops %+v, raw %+v", w.name, ok, len(d.payload), d.mark, d.remote, o.Drops(), o.raw.Stats())
	}
	if err := o.SendMessage(m, us, peer, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if got, mark, ok := k.receive(us.Addr().Is6()); !ok || got != text || mark != m {
		t.Fatalf("%s: to the kernel: %t, %d octets with mark %s", w.name, ok, len(got), mark)
	}
}

// TestLabInterop holds this package against the kernel's ESP.
func TestLabInterop(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) {
		t.Run("suites", func(t *testing.T) { labSuites(t, nil) })
		t.Run("marks and rekey", labMarksAndRekey)
		t.Run("hostile", labHostile)
		t.Run("shuffle", labShuffle)
		t.Run("rebinding", labRebinding)
	})
}

// TestLabInteropAFALG does the same with the kernel's ciphers behind this package's ESP.
func TestLabInteropAFALG(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) {
		p := hwcrypto.Open(hwcrypto.Options{Mode: hwcrypto.KernelFirst, PerPoint: time.Millisecond})
		for _, s := range everySuite() {
			h, _ := Suite(s)
			if c := p.Choose(h); c.Provider == "software" {
				t.Errorf("%s: %s", s, c.Reason)
			}
		}
		labSuites(t, p)
		t.Run("fails in flight", labProviderFails)
	})
}

// labProviderFails: the kernel's ciphers give up while a stream passes to and from the kernel's ESP, in each direction after
// so many packets of it. None is lost.
func labProviderFails(t *testing.T) {
	engine := &failing{Provider: hwcrypto.AFALGAead}
	p := hwcrypto.Open(hwcrypto.Options{Mode: hwcrypto.KernelFirst, PerPoint: time.Millisecond, Providers: []hwcrypto.Provider{engine}})
	h, _ := Suite(ipsectest.AESSHA1)
	if c := p.Choose(h); c.Provider != engine.Name() {
		t.Fatalf("%+v", c)
	}
	engine.after = 50
	o, k := rig(t, p)
	w := networks[0]
	c := w.child(markA, 0xf0001000, 0x80002000, ipsectest.AESSHA1)
	installBoth(t, o, k, c)
	const packets = 120
	for i := range packets {
		w.exchange(t, o, k, markA, strings.Repeat("x", 1+i*11))
	}
	for _, id := range []ipsec.SAID{c.serverIn.ID(), c.serverOut.ID()} {
		if u, err := o.Usage(id); err != nil || u.Packets != packets || u.IntegrityFailed != 0 {
			t.Errorf("%s: usage %+v, error %v", id, u, err)
		}
	}
	if d := o.Drops(); d != (Drops{}) {
		t.Errorf("drops %+v", d)
	}
	if n := engine.failed.Load(); n == 0 || p.Choices()[0].Provider != (hwcrypto.Software{}).Name() {
		t.Errorf("failed %d times, %+v", n, p.Choices())
	}
}

// failing is a provider whose transforms fail after some packets of each, as an engine does that was unplugged.
type failing struct {
	hwcrypto.Provider
	after  int // 0: never
	failed atomic.Int32
}

func (f *failing) New(c hwcrypto.Config) (hwcrypto.Transform, error) {
	t, err := f.Provider.New(c)
	return &failingTransform{Transform: t, of: f}, err
}

type failingTransform struct {
	hwcrypto.Transform
	of      *failing
	packets int
}

func (t *failingTransform) fails() error {
	if t.packets++; t.of.after == 0 || t.packets <= t.of.after {
		return nil
	}
	t.of.failed.Add(1)
	return unix.EIO
}

func (t *failingTransform) Seal(p []byte, high uint32) error {
	if err := t.fails(); err != nil {
		return err
	}
	return t.Transform.Seal(p, high)
}

func (t *failingTransform) Open(p []byte, high uint32) error {
	if err := t.fails(); err != nil {
		return err
	}
	return t.Transform.Open(p, high)
}

func labSuites(t *testing.T, crypto *hwcrypto.Providers) {
	o, k := rig(t, crypto)
	for i, suite := range everySuite() {
		for _, w := range networks {
			c := w.child(markA, 0xf0001000+ipsec.SPI(i), 0x80002000+ipsec.SPI(i), suite)
			installBoth(t, o, k, c)
			// Up to what needs fragments, on the wire of 1500 octets and in the kernel's own way.
			for _, n := range []int{1, 100, 1400, 1460, 3000} {
				w.exchange(t, o, k, markA, strings.Repeat("x", n))
			}
			ku, err := k.Usage(c.clientOut.ID())
			if err != nil {
				t.Fatal(err)
			}
			if u, err := o.Usage(c.serverIn.ID()); err != nil || u.Packets != 5 || u.Packets != ku.Packets {
				t.Errorf("%s: usage %+v, kernel's %+v, error %v", suite, u, ku, err)
			}
			removeBoth(t, o, k, c)
		}
	}
	if d := o.Drops(); d != (Drops{}) {
		t.Errorf("drops %+v", d)
	}
}

func labMarksAndRekey(t *testing.T) {
	o, k := rig(t, nil)
	suite := ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: 256, Integrity: ipsec.HMACSHA256, ICVBits: 128}
	w := networks[0]
	second := w
	second.port++
	a, b := w.child(markA, 0x1001, 0x2001, suite), second.child(markB, 0x1002, 0x2002, suite)
	installBoth(t, o, k, a)
	installBoth(t, o, k, b)
	for i, m := range []ipsec.Mark{markA, markB, markA, markB} {
		w.exchange(t, o, k, m, fmt.Sprint("to ", m, i))
	}
	young := w.child(markA, 0x1003, 0x2003, suite)
	// Ours is rekeyed first, in and out: the kernel still sends on the old one.
	installBoth(t, o, k, young)
	w.exchange(t, o, k, markA, "young")
	us := netip.MustParseAddr(w.ours)
	if u, err := o.Usage(young.serverOut.ID()); err != nil || u.Packets != 1 {
		t.Errorf("the new SA sent %+v, error %v", u, err)
	}
	if err := k.Remove(young.clientOut.ID()); err != nil {
		t.Fatal(err)
	}
	k.send(us, markA, "on the old one again")
	if d, ok := o.next(t); !ok || d.payload != "on the old one again" {
		t.Errorf("%t %+v", ok, d)
	}
	if err := o.Remove(a.serverOut.ID()); err != nil {
		t.Fatal(err)
	}
	if err := o.SendMessage(markA, netip.AddrPortFrom(us, 1701), netip.MustParseAddrPort(w.peer+":1701"), []byte("new")); err != nil {
		t.Fatal(err)
	}
	if text, m, ok := k.receive(false); !ok || text != "new" || m != markA {
		t.Errorf("%q %s %t", text, m, ok)
	}
}

// labHostile replays and spoils packets of each side to the other.
func labHostile(t *testing.T) {
	o, k := rig(t, nil)
	for i, suite := range []ipsec.Suite{
		{Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA1, ICVBits: 96}, {Cipher: ipsec.AESGCM, KeyBits: 256, ICVBits: 128},
	} {
		for _, w := range networks {
			c := w.child(markA, 0x1001+ipsec.SPI(i), 0x2001+ipsec.SPI(i), suite)
			installBoth(t, o, k, c)
			w.exchange(t, o, k, markA, "genuine")
			before := o.Drops()
			genuine := <-o.wire
			forged := bytes.Clone(genuine.packet)
			putHeader(forged, uint32(c.serverIn.SPI), 1000)
			for range 100 {
				o.receive1(genuine)
				o.receive1(wirePacket{genuine.path, forged})
				for cut := range genuine.packet {
					o.receive1(wirePacket{genuine.path, genuine.packet[:cut]})
				}
			}
			after := o.Drops()
			if n := after.Replayed - before.Replayed; n < 100 || after.Integrity-before.Integrity < 100 || len(o.up) != 0 {
				t.Errorf("%s %s: drops before %+v, after %+v", w.name, suite, before, after)
			}
			// And the kernel gets the same from us.
			send := o.SendUDPPacket
			if w.port == 0 {
				send = o.SendRawPacket
			}
			s := o.tables.Load().out[markA]
			packet := sealed(t, o, s, "once")
			bad := sealed(t, o, s, "never")
			bad[len(bad)-1] ^= 1
			for range 5 {
				send(t, s, packet)
				send(t, s, bad)
			}
			if text, _, ok := k.receive(strings.Contains(w.peer, ":")); !ok || text != "once" {
				t.Errorf("%s: %q, %t", w.name, text, ok)
			}
			if text, _, ok := k.receive(strings.Contains(w.peer, ":")); ok {
				t.Errorf("%s: %q came again", w.name, text)
			}
			w.exchange(t, o, k, markA, "still alive")
			removeBoth(t, o, k, c)
		}
	}
}

func (o *ours) receive1(p wirePacket) { o.Receive(flip(p.path), bytes.Clone(p.packet)) }

func (o *ours) SendUDPPacket(t *testing.T, s *sa, packet []byte) {
	t.Helper()
	if err := o.natt.SendESP(s.place.Load().path, packet); err != nil {
		t.Fatal(err)
	}
}

func (o *ours) SendRawPacket(t *testing.T, s *sa, packet []byte) {
	t.Helper()
	p := s.place.Load().path
	if err := o.raw.Send(p.Local.Addr(), p.Remote.Addr(), packet); err != nil {
		t.Fatal(err)
	}
}

// sealed is a packet that is not sent yet.
func sealed(t *testing.T, o *ours, s *sa, text string) []byte {
	t.Helper()
	buf := make([]byte, Headroom+len(text), Headroom+len(text)+Tailroom)
	copy(buf[Headroom:], text)
	packet, err := o.seal(s, s.place.Load(), 1701, 1701, buf, Headroom, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

// labShuffle sends to the kernel in disorder, inside its window of 128.
func labShuffle(t *testing.T) {
	o, k := rig(t, nil)
	w := networks[0]
	c := w.child(markA, 0x1001, 0x2001, ipsec.Suite{Cipher: ipsec.AESGCM, KeyBits: 128, ICVBits: 128})
	installBoth(t, o, k, c)
	s := o.tables.Load().out[markA]
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 4 {
		var block [][]byte
		for i := range 64 {
			block = append(block, sealed(t, o, s, fmt.Sprint(round, i)))
		}
		r.Shuffle(len(block), func(i, j int) { block[i], block[j] = block[j], block[i] })
		got := make(map[string]bool)
		for _, p := range block {
			o.SendUDPPacket(t, s, p)
			if text, _, ok := k.receive(false); ok {
				got[text] = true
			}
		}
		if len(got) != 64 {
			t.Errorf("round %d: %d of 64 arrived", round, len(got))
		}
	}
}

// labRebinding moves the kernel's end to another port, as a NAT does.
func labRebinding(t *testing.T) {
	o, k := rig(t, nil)
	w := networks[0]
	c := w.child(markA, 0x1001, 0x2001, ipsec.Suite{Cipher: ipsec.AESCBC, KeyBits: 128, Integrity: ipsec.HMACSHA1, ICVBits: 96})
	installBoth(t, o, k, c)
	events := make(chan ipsec.Event, 10)
	o.Serve(func(e ipsec.Event) { events <- e })
	w.exchange(t, o, k, markA, "before")
	// The kernel's own SAs get another port, with their sequence numbers.
	for _, sa := range []*ipsec.SA{&c.clientIn, &c.clientOut} {
		if err := k.Remove(sa.ID()); err != nil {
			t.Fatal(err)
		}
		sa.Encap.Local = kernelPort + 1
	}
	// A fresh SA of the kernel begins at 1 again; what it sends first is a replay to us.
	for _, sa := range []ipsec.SA{c.clientIn, c.clientOut} {
		if err := k.Install(sa); err != nil {
			t.Fatal(err)
		}
	}
	us := netip.MustParseAddr(w.ours)
	k.send(us, markA, "a replay, by its number")
	k.send(us, markA, "from the new port")
	if d, ok := o.next(t); !ok || d.payload != "from the new port" {
		t.Fatalf("%t %+v, drops %+v", ok, d, o.Drops())
	}
	want := netip.AddrPortFrom(netip.MustParseAddr(w.peer), kernelPort+1)
	select {
	case e := <-events:
		if e.Kind != ipsec.EventMapping || e.Remote != want || e.ID != c.serverIn.ID() {
			t.Errorf("event %+v", e)
		}
	case <-time.After(2 * time.Second):
		t.Fatal("no event")
	}
	if err := o.Move(markA, want); err != nil {
		t.Fatal(err)
	}
	w.exchange(t, o, k, markA, "after")
}
