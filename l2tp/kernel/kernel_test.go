//go:build linux

package kernel

import (
	"bytes"
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"culvert/l2tp"
)

// needKernel skips on a kernel without PPP over L2TP. CULVERT_KERNEL_TESTS=1, which whoever boots a kernel for these tests
// sets, turns that into a failure: the machine that only compiles them cannot be blamed.
func needKernel(t *testing.T) {
	t.Helper()
	skip := t.Skipf
	if os.Getenv("CULVERT_KERNEL_TESTS") == "1" {
		skip = t.Fatalf
	}
	if os.Geteuid() != 0 {
		skip("needs root")
	}
	if err := Probe(); err != nil {
		skip("%v", err)
	}
	if _, err := os.Stat("/dev/ppp"); err != nil {
		skip("%v", err)
	}
}

// channel is a PPP channel: reads and writes are frames that begin with the protocol.
type channel struct {
	t *testing.T
	f *os.File
}

func attach(t *testing.T, session int) *channel {
	t.Helper()
	index, err := unix.IoctlGetInt(session, unix.PPPIOCGCHAN)
	if err != nil {
		t.Fatalf("PPPIOCGCHAN: %v", err)
	}
	fd, err := unix.Open("/dev/ppp", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	value := int32(index)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PPPIOCATTCHAN, uintptr(unsafe.Pointer(&value))); errno != 0 {
		t.Fatalf("PPPIOCATTCHAN: %v", errno)
	}
	f := os.NewFile(uintptr(fd), "/dev/ppp")
	t.Cleanup(func() { f.Close() })
	return &channel{t, f}
}

func (c *channel) write(frame string) {
	c.t.Helper()
	if _, err := c.f.Write([]byte(frame)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *channel) read() string {
	c.t.Helper()
	c.f.SetReadDeadline(time.Now().Add(3 * time.Second))
	b := make([]byte, 2000)
	n, err := c.f.Read(b)
	if err != nil {
		c.t.Fatalf("nothing on the channel: %v", err)
	}
	return string(b[:n])
}

const lcp = "\xc0\x21\x09\x01\x00\x08\x00\x00\x00\x00" // an echo request

func udp(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func receive(t *testing.T, c *net.UDPConn) []byte {
	t.Helper()
	b := make([]byte, 2000)
	c.SetReadDeadline(time.Now().Add(3 * time.Second))
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

func TestKernelDataPath(t *testing.T) {
	needKernel(t)
	// The kernel forgets a tunnel's id only some time after the tunnel: each has its own.
	for id, host := range map[byte]string{1: "127.0.0.1", 2: "::1"} {
		t.Run(host, func(t *testing.T) {
			type control struct {
				p l2tp.Peer
				b string
			}
			in := make(chan control, 8)
			var protected l2tp.Via
			plane := New(Options{
				Receive: func(p l2tp.Peer, b []byte) { in <- control{p, string(b)} },
				Protect: func(fd int, p l2tp.Peer) error { protected = p.Via; return nil },
			})
			defer plane.Close()
			at := func(port int) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(host), uint16(port)) }
			peer := udp(t, at(40701).String())
			wild, err := (&net.ListenConfig{Control: reuse}).ListenPacket(t.Context(), "udp", at(1701).String())
			if err != nil {
				t.Fatal(err)
			}
			defer wild.Close()
			ts := l2tp.TunnelSpec{Peer: l2tp.Peer{Local: at(1701), Remote: at(40701), Via: 5}, Local: 0x0a00 + l2tp.TunnelID(id), Remote: 0x0b02}
			ss := l2tp.SessionSpec{Tunnel: ts, Local: 0x0c03, Remote: 0x0d04, LNS: true}
			for _, err := range []error{plane.OpenTunnel(ts), plane.OpenSession(ss)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if protected != 5 {
				t.Errorf("Protect was called for via %d", protected)
			}
			fd, ok := plane.Session(ts.Local, ss.Local)
			if !ok {
				t.Fatal("no session")
			}
			ppp := attach(t, fd)

			// Out: header without L, address and control field in front.
			ppp.write(lcp)
			want := []byte("\x00\x02\x0b\x02\x0d\x04\xff\x03" + lcp)
			if got := receive(t, peer); !bytes.Equal(got, want) {
				t.Errorf("sent %x, want %x", got, want)
			}
			// In: with and without length, with and without address and control field.
			tid := "\x0a" + string(rune(id))
			for _, header := range []string{"\x00\x02" + tid + "\x0c\x03\xff\x03", "\x00\x02" + tid + "\x0c\x03",
				"\x40\x02\x00\x14" + tid + "\x0c\x03\xff\x03"} {
				if _, err := peer.WriteToUDPAddrPort([]byte(header+lcp), at(1701)); err != nil {
					t.Fatal(err)
				}
				if got := ppp.read(); got != lcp {
					t.Errorf("received %x behind %x", got, header)
				}
			}
			if s, err := plane.SessionStats(ts.Local, ss.Local); err != nil || s.TxPackets != 1 || s.RxPackets != 3 {
				t.Errorf("session: %+v %v", s, err)
			}
			if n, ok := plane.Received(ts); !ok || n != 3 {
				t.Errorf("tunnel received %d %v", n, ok)
			}
			// Control messages, and data of sessions that are not there, come out of the tunnel's socket.
			for _, msg := range []string{"\xc8\x02\x00\x0c" + tid + "\x00\x00\x00\x01\x00\x01", "\x00\x02" + tid + "\x7f\x7f\xff\x03" + lcp} {
				peer.WriteToUDPAddrPort([]byte(msg), at(1701))
				select {
				case c := <-in:
					// The loopback carries no SA: the mark that arrives is none, which is not the tunnel's.
					want := l2tp.Peer{Local: at(1701), Remote: at(40701)}
					if c.b != msg || c.p != want && c.p != ts.Peer {
						t.Errorf("received %x from %v", c.b, c.p)
					}
				case <-time.After(3 * time.Second):
					t.Fatalf("%x did not come up", msg)
				}
			}
			// Sequence numbers.
			seq := ss
			seq.SendSeq = true
			if err := plane.SetSequence(seq); err != nil {
				t.Error(err)
			}
			for n := range 2 {
				ppp.write(lcp)
				want := []byte("\x08\x02\x0b\x02\x0d\x04\x00" + string(rune(n)) + "\x00\x00\xff\x03" + lcp)
				got := receive(t, peer)
				if len(got) < 10 || binary.BigEndian.Uint16(got[6:]) != uint16(n) || !bytes.Equal(got[:6], want[:6]) || !bytes.Equal(got[10:], want[10:]) {
					t.Errorf("sent %x, want %x", got, want)
				}
			}
			// An LNS that numbers its messages takes none without a number: back to normal.
			if err := plane.SetSequence(ss); err != nil {
				t.Error(err)
			}
			// The peer's port changes.
			peer2 := udp(t, at(40702).String())
			moved := ts
			moved.Peer.Remote = at(40702)
			if err := plane.MoveTunnel(moved); err != nil {
				t.Fatal(err)
			}
			ppp.write(lcp)
			receive(t, peer2)
			peer2.WriteToUDPAddrPort([]byte("\x00\x02"+tid+"\x0c\x03\xff\x03"+lcp), at(1701))
			if got := ppp.read(); got != lcp {
				t.Errorf("after the move: %x", got)
			}
			// Everything goes, and the ids are free again.
			ppp.f.Close()
			plane.CloseSession(ss)
			plane.CloseTunnel(moved)
			peer.WriteToUDPAddrPort([]byte("still here?"), at(1701))
			wild.SetReadDeadline(time.Now().Add(3 * time.Second))
			if _, _, err := wild.ReadFrom(make([]byte, 100)); err != nil {
				t.Errorf("the shared socket does not get the peer's messages back: %v", err)
			}
			var err2 error
			for range 50 { // the kernel takes tunnels down on a work queue
				if err2 = plane.OpenTunnel(ts); err2 == nil {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if err2 != nil {
				t.Errorf("the tunnel does not open again: %v", err2)
			}
		})
	}
}

// TestKernelCall is a server and a client, each with its engine and the kernel, calling over loopback until PPP frames pass.
func TestKernelCall(t *testing.T) {
	needKernel(t)
	type event struct {
		end  int
		peer l2tp.Peer
		msg  []byte
	}
	events := make(chan event, 64)
	type side struct {
		engine *l2tp.Engine
		plane  *Plane
		conn   *net.UDPConn
		up     *l2tp.SessionInfo
	}
	var sides [2]*side
	for i := range sides {
		s := &side{}
		at := netip.MustParseAddrPort(fmt.Sprintf("127.0.0.%d:1701", i+1))
		c, err := (&net.ListenConfig{Control: reuse}).ListenPacket(t.Context(), "udp4", at.String())
		if err != nil {
			t.Fatal(err)
		}
		s.conn = c.(*net.UDPConn)
		defer s.conn.Close()
		go func() {
			b := make([]byte, 2000)
			for {
				n, from, err := s.conn.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				events <- event{i, l2tp.Peer{Local: at, Remote: from}, bytes.Clone(b[:n])}
			}
		}()
		s.plane = New(Options{Receive: func(p l2tp.Peer, b []byte) { events <- event{i, p, bytes.Clone(b)} }})
		defer s.plane.Close()
		s.engine = l2tp.New(l2tp.DefaultConfig(), l2tp.Env{
			Send:      func(p l2tp.Peer, b []byte) { s.conn.WriteToUDPAddrPort(b, p.Remote) },
			Plane:     s.plane,
			Rand:      crand.Reader,
			SessionUp: func(i l2tp.SessionInfo) { s.up = &i },
		})
		sides[i] = s
	}
	run := func(until func() bool) {
		t.Helper()
		end := time.After(5 * time.Second)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for !until() {
			select {
			case e := <-events:
				sides[e.end].engine.Receive(time.Now(), e.peer, e.msg)
			case <-tick.C:
				for _, s := range sides {
					s.engine.Tick(time.Now())
				}
			case <-end:
				t.Fatal("it does not happen")
			}
		}
	}
	peer := l2tp.Peer{Local: netip.MustParseAddrPort("127.0.0.2:1701"), Remote: netip.MustParseAddrPort("127.0.0.1:1701")}
	if _, err := sides[1].engine.Dial(time.Now(), peer, l2tp.Dial{Sequence: true}); err != nil {
		t.Fatal(err)
	}
	run(func() bool { return sides[0].up != nil && sides[1].up != nil })
	var ppp [2]*channel
	for i, s := range sides {
		fd, ok := s.plane.Session(s.up.Spec.Tunnel.Local, s.up.Local)
		if !ok {
			t.Fatal("no session socket")
		}
		ppp[i] = attach(t, fd)
	}
	for i := range ppp {
		for range 3 {
			ppp[i].write(lcp)
			if got := ppp[1-i].read(); got != lcp {
				t.Errorf("side %d read %x", 1-i, got)
			}
		}
	}
	ppp[0].f.Close()
	ppp[1].f.Close()
	// The control messages of the end now pass through the tunnels' sockets.
	sides[1].engine.Close(time.Now())
	run(func() bool { return sides[1].engine.Drained() && sides[0].engine.Snapshot(time.Now()).Sessions == 0 })
}

func reuse(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
}
