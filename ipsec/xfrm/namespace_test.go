package xfrm

import (
	"fmt"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
	"culvert/ipsec/ipsectest"
	"culvert/ipsec/natt"
)

// namespace is a network namespace and the thread that lives in it.
type namespace struct {
	t   *testing.T
	do  chan func()
	tid int
}

// newNamespace starts one; it ends with the test.
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

// run executes f in the namespace.
func (n *namespace) run(f func()) {
	done := make(chan struct{})
	n.do <- func() { defer close(done); f() }
	<-done
}

// ip runs iproute2 in the namespace.
func (n *namespace) ip(args string, more ...any) string {
	n.t.Helper()
	args = fmt.Sprintf(args, more...)
	var out []byte
	var err error
	n.run(func() { out, err = exec.Command("ip", strings.Fields(args)...).CombinedOutput() })
	if err != nil {
		n.t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	return string(out)
}

func (n *namespace) backend(o Options) *Backend {
	n.t.Helper()
	var b *Backend
	var err error
	n.run(func() { b, err = New(o) })
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { b.Close() })
	return b
}

// encap opens the sockets through which the kernel receives encapsulated ESP on port.
func (n *namespace) encap(port uint16) *natt.Conns {
	n.t.Helper()
	var c *natt.Conns
	var err error
	n.run(func() { c, err = natt.Open(natt.Options{IKEPort: port - 4000, NATTPort: port, Encap: true}) })
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { c.Close() })
	return c
}

// endpoint is an L2TP socket: it receives with marks and sends with marks.
type endpoint struct {
	t  *testing.T
	fd int
	v6 bool
}

// datagram is what an endpoint received.
type datagram struct {
	text string
	from netip.AddrPort
	mark ipsec.Mark
}

func (n *namespace) endpoint(at string) *endpoint {
	n.t.Helper()
	addr := netip.MustParseAddrPort(at)
	e := &endpoint{t: n.t, v6: addr.Addr().Is6()}
	var err error
	n.run(func() {
		e.fd, err = unix.Socket(int(familyOf(addr.Addr())), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { unix.Close(e.fd) })
	tv := unix.NsecToTimeval(int64(300 * time.Millisecond))
	for _, err := range []error{
		unix.SetsockoptTimeval(e.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
		unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVMARK, 1),
		unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(e.fd, sockaddr(addr)),
	} {
		if err != nil {
			n.t.Fatal(err)
		}
	}
	return e
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// send sends text under a mark.
func (e *endpoint) send(to string, m ipsec.Mark, text string) error {
	oob := make([]byte, unix.CmsgSpace(4))
	h := oob[unix.SizeofCmsghdr-8:]
	if unix.SizeofCmsghdr == 16 {
		host.PutUint64(oob, uint64(unix.CmsgLen(4)))
	} else {
		host.PutUint32(oob, uint32(unix.CmsgLen(4)))
	}
	host.PutUint32(h, unix.SOL_SOCKET)
	host.PutUint32(h[4:], unix.SO_MARK)
	host.PutUint32(oob[unix.CmsgLen(0):], uint32(m))
	return unix.Sendmsg(e.fd, []byte(text), oob, sockaddr(netip.MustParseAddrPort(to)), 0)
}

// receive waits a moment for a datagram.
func (e *endpoint) receive() (datagram, bool) {
	e.t.Helper()
	buf, oob := make([]byte, 2000), make([]byte, 200)
	n, oobn, _, from, err := unix.Recvmsg(e.fd, buf, oob, 0)
	if err == unix.EAGAIN {
		return datagram{}, false
	}
	if err != nil {
		e.t.Fatalf("receive: %v", err)
	}
	d := datagram{text: string(buf[:n])}
	switch sa := from.(type) {
	case *unix.SockaddrInet4:
		d.from = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		d.from = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		e.t.Fatal(err)
	}
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_MARK {
			d.mark = ipsec.Mark(host.Uint32(m.Data))
		}
	}
	return d, true
}

// expect receives exactly this text with this mark.
func (e *endpoint) expect(text string, m ipsec.Mark) datagram {
	e.t.Helper()
	d, ok := e.receive()
	if !ok {
		e.t.Fatalf("%q did not arrive", text)
	}
	if d.text != text || d.mark != m {
		e.t.Fatalf("%q with mark %s arrived, want %q with %s", d.text, d.mark, text, m)
	}
	return d
}

func (e *endpoint) expectNothing() {
	e.t.Helper()
	if d, ok := e.receive(); ok {
		e.t.Fatalf("%q from %s with mark %s arrived, want nothing", d.text, d.from, d.mark)
	}
}

// wire listens to what really passes an interface.
type wire struct {
	mu     sync.Mutex
	frames map[string]int // by kind: "udp 1701", "udp 4500", "esp"
}

func (n *namespace) sniff() *wire {
	n.t.Helper()
	var fd int
	var err error
	n.run(func() {
		all := int(unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8)
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
	})
	if err != nil {
		n.t.Fatal(err)
	}
	w := &wire{frames: make(map[string]int)}
	tv := unix.NsecToTimeval(int64(100 * time.Millisecond))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		buf := make([]byte, 2000)
		for {
			select {
			case <-stop:
				return
			default:
			}
			// Only what comes from the other end, so that nothing is looked at before the kernel has encrypted it.
			if l, from, err := unix.Recvfrom(fd, buf, 0); err == nil {
				if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
					w.see(buf[:l])
				}
			}
		}
	}()
	n.t.Cleanup(func() { close(stop); <-stopped; unix.Close(fd) })
	return w
}

func (w *wire) see(b []byte) {
	if len(b) < 28 {
		return
	}
	proto, rest := b[9], b[20:]
	if b[0]>>4 == 6 {
		if len(b) < 48 {
			return
		}
		proto, rest = b[6], b[40:]
	}
	kind := ""
	switch sport, dport := be16(rest), be16(rest[2:]); {
	case proto == unix.IPPROTO_ESP:
		kind = "esp"
	case proto != unix.IPPROTO_UDP:
	case sport == 1701 || dport == 1701:
		kind = "udp 1701"
	case sport == 4500 || dport == 4500:
		kind = "udp 4500"
	}
	w.mu.Lock()
	w.frames[kind]++
	w.mu.Unlock()
}

func (w *wire) count(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frames[kind]
}

// cable joins two namespaces by a cable: a has 10.7.0.1 and fd07::1, z has 10.7.0.2, 10.7.0.3 and fd07::2.
func cable(t *testing.T) (a, z *namespace) {
	t.Helper()
	needKernel(t)
	a, z = newNamespace(t), newNamespace(t)
	a.ip("link add wire0 type veth peer name wire0 netns %d", z.tid)
	a.ip("addr add 10.7.0.1/24 dev wire0")
	a.ip("addr add fd07::1/64 dev wire0 nodad")
	z.ip("addr add 10.7.0.2/24 dev wire0")
	z.ip("addr add 10.7.0.3/24 dev wire0")
	z.ip("addr add fd07::2/64 dev wire0 nodad")
	var up []func()
	for _, n := range []*namespace{a, z} {
		n.run(func() { up = append(up, ipsectest.Plugged(t, "wire0")) })
		n.ip("link set wire0 up")
	}
	for _, wait := range up {
		wait()
	}
	return a, z
}
