package dgram

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tells says whether this kernel tells marks.
var tells bool

// socket opens a UDP socket that tells addresses and marks.
func socket(t testing.TB, addr string, join bool) (*Conn, *net.UDPConn, netip.AddrPort) {
	t.Helper()
	listen := netip.MustParseAddrPort(addr)
	network := "udp6"
	if listen.Addr().Is4() {
		network = "udp4"
	}
	u, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(listen))
	if err != nil {
		t.Skipf("%v", err)
	}
	t.Cleanup(func() { u.Close() })
	at := u.LocalAddr().(*net.UDPAddr).AddrPort()
	raw, err := u.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if at.Addr().Is6() {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
		tells = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVMARK, 1) == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(u, Options{IPv6: at.Addr().Is6(), Join: join})
	if err != nil {
		t.Fatal(err)
	}
	return c, u, at
}

// collect reads until n datagrams have come, and says how many reads that took.
func collect(t *testing.T, r *Reader, u *net.UDPConn, n int) (got []Message, reads int) {
	t.Helper()
	u.SetReadDeadline(time.Now().Add(5 * time.Second))
	for len(got) < n {
		if err := r.Read(func(m *Message) {
			k := *m
			k.Data = bytes.Clone(m.Data)
			got = append(got, k)
		}); err != nil {
			t.Fatalf("after %d of %d datagrams: %v", len(got), n, err)
		}
		reads++
	}
	return got, reads
}

// packets of these lengths, each filled with its number.
func packets(lengths ...int) (out [][]byte) {
	for i, n := range lengths {
		out = append(out, bytes.Repeat([]byte{byte(i + 1)}, n))
	}
	return out
}

func repeat(n, length int) (out []int) {
	for range n {
		out = append(out, length)
	}
	return out
}

// What is sent arrives as it was, in order, whichever way it is sent and received.
func TestBatches(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, lengths := range [][]int{
			{10}, {0}, {0, 0, 3}, {100, 100, 100}, {100, 100, 50}, {100, 100, 50, 100, 100}, {50, 100, 200}, {200, 100, 50},
			repeat(64, 1400), repeat(200, 1000), append(repeat(63, 1400), 1), append(append(repeat(70, 900), 100), repeat(70, 900)...),
			repeat(3, 30000), {20000, 20000, 20000, 20000, 20000, 1, 20000},
		} {
			for _, join := range []bool{false, true} {
				for _, one := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s/%d of %d/join=%v/one=%v", addr, len(lengths), lengths[0], join, one), func(t *testing.T) {
						from, _, local := socket(t, addr, join)
						to, u, remote := socket(t, addr, join)
						to.SetBuffers(16 << 20)
						from.out.one = one
						r := to.Reader(4, 1<<16)
						r.one = one
						in := packets(lengths...)
						if n, err := from.Send(remote, local.Addr(), 0, in...); err != nil || n != len(in) {
							t.Fatalf("%d of %d sent: %v", n, len(in), err)
						}
						got, reads := collect(t, r, u, len(in))
						for i, m := range got {
							if !bytes.Equal(m.Data, in[i]) || m.From != local || m.To != remote.Addr() || m.Truncated || m.Mark != 0 {
								t.Fatalf("datagram %d: %d octets from %s to %s, want %d from %s to %s", i, len(m.Data), m.From, m.To, len(in[i]), local, remote.Addr())
							}
						}
						if join && to.joined && from.out.cut && !one && len(in) == 200 && reads > 10 {
							t.Errorf("%d reads for %d datagrams of one size", reads, len(in))
						}
					})
				}
			}
		}
	}
}

func TestMarksAndSources(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("SO_MARK needs root")
		}
		t.Skip("SO_MARK needs root")
	}
	from, _, local := socket(t, "0.0.0.0:0", true)
	to, u, remote := socket(t, "127.0.0.1:0", true)
	r := to.Reader(4, 2000)
	source := netip.MustParseAddr("127.0.0.9")
	for _, mark := range []uint32{0, 7, 0xfedcba98} {
		if n, err := from.Send(remote, source, mark, packets(10, 10, 10, 20)...); n != 4 || err != nil {
			t.Fatal(n, err)
		}
		got, _ := collect(t, r, u, 4)
		for _, m := range got {
			if m.From != netip.AddrPortFrom(source, local.Port()) {
				t.Errorf("from %s", m.From)
			}
			if m.Mark != mark && tells {
				t.Errorf("mark %#x, want %#x", m.Mark, mark)
			}
		}
	}
}

// What the kernel refuses to cut is sent one by one.
func TestLargerThanTheMTU(t *testing.T) {
	from, _, local := socket(t, "127.0.0.1:0", true)
	to, u, remote := socket(t, "127.0.0.1:0", true)
	r := to.Reader(4, 1<<16)
	// The loopback's MTU is 65536: the kernel cuts nothing that is longer with its headers. A socket that may not
	// fragment tells so sooner: here parts larger than a datagram may be stand for it.
	huge := packets(65508, 65508)
	if n, err := from.Send(remote, local.Addr(), 0, huge...); n != 0 || !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("%d sent, error %v; want EMSGSIZE", n, err)
	}
	// The socket is as good as before.
	if n, err := from.Send(remote, local.Addr(), 0, packets(100, 100, 65508, 100)...); n != 2 || !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("%d sent, error %v; want 2 and EMSGSIZE", n, err)
	}
	collect(t, r, u, 2)
	if err := from.SendOne(remote, local.Addr(), 0, huge[0][:10]); err != nil {
		t.Error(err)
	}
	if got, _ := collect(t, r, u, 1); len(got[0].Data) != 10 {
		t.Error(got[0])
	}
	if err := from.SendOne(netip.MustParseAddrPort("[::1]:9"), netip.Addr{}, 0, huge[0][:10]); !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Errorf("to the other family: %v", err)
	}
}

func TestTruncated(t *testing.T) {
	from, _, local := socket(t, "127.0.0.1:0", false)
	to, u, remote := socket(t, "127.0.0.1:0", false)
	if n, err := from.Send(remote, local.Addr(), 0, packets(100, 101)...); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	got, _ := collect(t, to.Reader(2, 100), u, 2)
	if got[0].Truncated || !got[1].Truncated {
		t.Errorf("%v", got)
	}
}

func TestClosed(t *testing.T) {
	c, u, at := socket(t, "127.0.0.1:0", true)
	done := make(chan error)
	go func() { done <- c.Reader(1, 100).Read(func(*Message) {}) }()
	u.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Send(at, netip.Addr{}, 0, packets(1)...); !errors.Is(err, net.ErrClosed) {
		t.Errorf("send: %v", err)
	}
}

func TestNoAllocation(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		from, _, local := socket(t, addr, true)
		to, _, remote := socket(t, addr, true)
		r := to.Reader(4, 2000)
		n, want := 0, 0
		deliver := func(m *Message) { n += len(m.Data) }
		in := packets(1400, 1400, 1400, 100)
		if allocs := testing.AllocsPerRun(100, func() {
			if _, err := from.Send(remote, local.Addr(), 0, in...); err != nil {
				t.Fatal(err)
			}
			if err := from.SendOne(remote, local.Addr(), 0, in[0]); err != nil {
				t.Fatal(err)
			}
			for want += 5700; n < want; {
				if err := r.Read(deliver); err != nil {
					t.Fatal(err)
				}
			}
		}); allocs > 0 || n != want {
			t.Errorf("%s: %v allocations, %d of %d octets", addr, allocs, n, want)
		}
	}
}

func TestAlike(t *testing.T) {
	for _, tt := range []struct {
		lengths []int
		room    int
		want    int
	}{
		{[]int{5}, 64, 1}, {[]int{0, 0}, 64, 1}, {[]int{5, 0}, 64, 1}, {[]int{5, 5, 5}, 64, 3}, {[]int{5, 5, 3, 3}, 64, 3}, {[]int{5, 6}, 64, 1},
		{repeat(100, 10), 70, 64}, {repeat(100, 10), 7, 7}, {repeat(64, 1440), 64, 45}, {[]int{40000, 40000}, 64, 1}, {[]int{66000}, 64, 1},
	} {
		if got := alike(packets(tt.lengths...), tt.room); got != tt.want {
			t.Errorf("%d of %d: %d, want %d", len(tt.lengths), tt.lengths[0], got, tt.want)
		}
	}
}

func FuzzControl(f *testing.F) {
	f.Add(appendSource(make([]byte, 0, ctlOut), netip.MustParseAddr("192.0.2.1")))
	f.Add(appendSource(make([]byte, 0, ctlOut), netip.MustParseAddr("2001:db8::1")))
	f.Add(appendControl(make([]byte, 0, ctlOut), unix.IPPROTO_UDP, unix.UDP_GRO, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		aligned := make([]byte, len(b)) // as the kernel is given it
		copy(aligned, b)
		for i := range aligned {
			new(Message).parse(aligned[:i])
		}
		new(Message).parse(aligned)
	})
}
