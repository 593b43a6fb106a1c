//go:build linux

package kernel

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/l2tp"
)

// fake is a system that writes down what it is asked for.
type fake struct {
	log     []string
	next    int
	fail    map[string]error
	sockets []*fakeSocket
	open    map[int]bool
}

func newFake() *fake { return &fake{next: 100, fail: map[string]error{}, open: map[int]bool{}} }

func (f *fake) note(format string, args ...any) { f.log = append(f.log, fmt.Sprintf(format, args...)) }

func (f *fake) fd() int {
	f.next++
	f.open[f.next] = true
	return f.next
}

func (f *fake) tunnelSocket(local, remote netip.AddrPort, mark uint32, prepare func(int) error) (tunnelSocket, error) {
	if err := f.fail["udp"]; err != nil {
		return nil, err
	}
	s := &fakeSocket{f: f, n: f.fd(), in: make(chan packet, 4), done: make(chan struct{})}
	f.note("udp %d %s %s mark %d", s.n, local, remote, mark)
	if prepare != nil {
		if err := prepare(s.n); err != nil {
			delete(f.open, s.n)
			return nil, err
		}
	}
	f.sockets = append(f.sockets, s)
	return s, nil
}

func (f *fake) pppSocket(addr []byte) (int, error) {
	if err := f.fail["ppp"]; err != nil {
		return -1, err
	}
	fd := f.fd()
	f.note("ppp %d %x", fd, addr)
	return fd, nil
}

func (f *fake) setOption(fd, option int, on bool) error {
	f.note("option %d %d %v", fd, option, on)
	return f.fail["option"]
}

func (f *fake) stats(fd int) (Stats, error) { return Stats{RxPackets: uint64(fd)}, nil }

func (f *fake) close(fd int) error {
	if !f.open[fd] {
		return errors.New("not open")
	}
	delete(f.open, fd)
	f.note("close %d", fd)
	return nil
}

type packet struct {
	b      string
	from   netip.AddrPort
	mark   uint32
	marked bool
	err    error
}

type fakeSocket struct {
	f    *fake
	n    int
	in   chan packet
	done chan struct{}
}

func (s *fakeSocket) fd() int { return s.n }
func (s *fakeSocket) close() error {
	close(s.done)
	return s.f.close(s.n)
}
func (s *fakeSocket) reconnect(remote netip.AddrPort) error {
	s.f.note("reconnect %d %s", s.n, remote)
	return s.f.fail["reconnect"]
}
func (s *fakeSocket) receive(b []byte) (int, netip.AddrPort, uint32, bool, error) {
	select {
	case p := <-s.in:
		return copy(b, p.b), p.from, p.mark, p.marked, p.err
	case <-s.done:
		return 0, netip.AddrPort{}, 0, false, net.ErrClosed
	}
}

var (
	local  = netip.MustParseAddrPort("192.0.2.1:1701")
	remote = netip.MustParseAddrPort("198.51.100.7:40000")
	tun    = l2tp.TunnelSpec{Peer: l2tp.Peer{Local: local, Remote: remote, Via: 9}, Local: 0x1111, Remote: 0x2222}
	call   = l2tp.SessionSpec{Tunnel: tun, Local: 0x3333, Remote: 0x4444, LNS: true, SendSeq: true}
)

func TestSockaddr(t *testing.T) {
	le := func(s string) []byte { // the goldens are little-endian
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if [2]byte(sockaddr(0, remote, ids{})[:2]) != [2]byte{24, 0} {
		t.Skip("the goldens are little-endian")
	}
	id := ids{0x1111, 0x3333, 0x2222, 0x4444}
	v4 := le("1800 01000000 00000000 07000000 0200 9c40 c6336407 0000000000000000 1111 3333 2222 4444")
	if got := sockaddr(7, remote, id); !bytes.Equal(got, v4) || len(got) != 38 {
		t.Errorf("IPv4\n got %x\nwant %x", got, v4)
	}
	v6 := le("1800 01000000 00000000 07000000 1111 3333 2222 4444 0a00 06a5 00000000 20010db8000000000000000000000007 00000000")
	if got := sockaddr(7, netip.MustParseAddrPort("[2001:db8::7]:1701"), id); !bytes.Equal(got, v6) || len(got) != 50 {
		t.Errorf("IPv6\n got %x\nwant %x", got, v6)
	}
}

func TestLifeOfASession(t *testing.T) {
	f := newFake()
	var protected []string
	p := newPlane(Options{Protect: func(fd int, p l2tp.Peer) error {
		protected = append(protected, fmt.Sprint(fd, p.Via))
		return nil
	}}, f)
	if err := p.OpenSession(call); !errors.Is(err, ErrNoTunnel) {
		t.Errorf("session without a tunnel: %v", err)
	}
	for _, err := range []error{p.OpenTunnel(tun), p.OpenSession(call)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := p.OpenTunnel(tun); !errors.Is(err, ErrExists) {
		t.Errorf("second tunnel: %v", err)
	}
	if err := p.OpenSession(call); !errors.Is(err, ErrExists) {
		t.Errorf("second session: %v", err)
	}
	zero := call
	zero.Local = 0
	if err := p.OpenSession(zero); err == nil {
		t.Error("a session of id zero, which names the tunnel")
	}
	if !slices.Equal(protected, []string{"101 9"}) {
		t.Errorf("protected %q", protected)
	}
	if fd, ok := p.Session(tun.Local, call.Local); !ok || fd != 103 {
		t.Errorf("session fd %d %v", fd, ok)
	}
	if s, err := p.SessionStats(tun.Local, call.Local); err != nil || s.RxPackets != 103 {
		t.Errorf("%+v %v", s, err)
	}
	if n, ok := p.Received(tun); !ok || n != 102 {
		t.Errorf("received %d %v", n, ok)
	}
	seq := call
	seq.RequireSeq = true
	if err := p.SetSequence(seq); err != nil {
		t.Error(err)
	}
	moved := tun
	moved.Peer.Remote = netip.MustParseAddrPort("198.51.100.7:40001")
	if err := p.MoveTunnel(moved); err != nil {
		t.Error(err)
	}
	p.CloseSession(call)
	p.CloseSession(call)
	if _, ok := p.Session(tun.Local, call.Local); ok {
		t.Error("closed session is still there")
	}
	p.CloseTunnel(tun)
	p.CloseTunnel(tun)
	want := []string{
		"udp 101 192.0.2.1:1701 198.51.100.7:40000 mark 9",
		fmt.Sprintf("ppp 102 %x", sockaddr(101, remote, ids{localTunnel: 0x1111, remoteTunnel: 0x2222})),
		fmt.Sprintf("ppp 103 %x", sockaddr(101, remote, ids{0x1111, 0x3333, 0x2222, 0x4444})),
		"option 103 4 true", "option 103 3 true", "option 103 2 false",
		"option 103 4 true", "option 103 3 true", "option 103 2 true",
		"reconnect 101 198.51.100.7:40001",
		"close 103", "close 102", "close 101",
	}
	if !slices.Equal(f.log, want) {
		t.Errorf("calls\n got %s\nwant %s", strings.Join(f.log, "\n     "), strings.Join(want, "\n     "))
	}
}

func TestNothingLeaks(t *testing.T) {
	boom := errors.New("boom")
	for _, step := range []string{"udp", "ppp", "protect", "option", "none"} {
		t.Run(step, func(t *testing.T) {
			f := newFake()
			o := Options{}
			if step == "protect" {
				o.Protect = func(int, l2tp.Peer) error { return boom }
			}
			p := newPlane(o, f)
			f.fail[step] = boom
			err := p.OpenTunnel(tun)
			if err == nil {
				err = p.OpenSession(call)
			}
			if step != "none" && !errors.Is(err, boom) {
				t.Errorf("error %v", err)
			}
			p.Close()
			if len(f.open) != 0 {
				t.Errorf("left open: %v", f.open)
			}
		})
	}
}

func TestReceive(t *testing.T) {
	f := newFake()
	type got struct {
		p l2tp.Peer
		b string
	}
	c := make(chan got, 1)
	p := newPlane(Options{Receive: func(p l2tp.Peer, b []byte) { c <- got{p, string(b)} }}, f)
	if err := p.OpenTunnel(tun); err != nil {
		t.Fatal(err)
	}
	other := netip.MustParseAddrPort("203.0.113.9:1701")
	s := f.sockets[0]
	for _, tt := range []struct {
		in   packet
		want l2tp.Peer
	}{
		{packet{b: "a", from: remote, mark: 9, marked: true}, tun.Peer},
		{packet{b: "b", from: remote}, tun.Peer}, // a kernel that tells no marks
		{packet{b: "c", from: remote, mark: 0, marked: true}, l2tp.Peer{Local: local, Remote: remote}},
		{packet{b: "d", from: other, mark: 7, marked: true}, l2tp.Peer{Local: local, Remote: other, Via: 7}},
	} {
		s.in <- packet{err: errors.New("connection refused")}
		s.in <- tt.in
		select {
		case g := <-c:
			if g.p != tt.want || g.b != tt.in.b {
				t.Errorf("got %v, want %v", g, tt.want)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nothing received")
		}
	}
	if p.ReadErrors() != 4 {
		t.Errorf("%d errors", p.ReadErrors())
	}
	p.Close()
}

func TestProbe(t *testing.T) {
	f := newFake()
	if err := probe(f); err != nil || len(f.open) != 0 {
		t.Errorf("%v, open %v", err, f.open)
	}
	f.fail["ppp"] = unix.EPROTONOSUPPORT
	if err := probe(f); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "modprobe l2tp_ppp") {
		t.Error(err)
	}
	f.fail["ppp"] = unix.EPERM
	if err := probe(f); err == nil || errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}
