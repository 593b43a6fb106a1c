package user

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPathAllocations: nothing is allocated per packet, in either direction, through a real TUN.
func TestPathAllocations(t *testing.T) {
	for _, plain := range []bool{false, true} {
		h := newHost(t)
		p := &counting{pipe: newPipe(), arrived: make(chan int, 1024)}
		c, err := Attach(p)
		if err != nil {
			t.Fatal(err)
		}
		var u *Unit
		h.run(func() (err error) {
			if u, err = c.OpenUnit(Options{Net: h.net, plain: plain}); err != nil {
				return err
			}
			return u.Interface().SetUp(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), 1400)
		})
		go c.Serve(func([]byte) {})
		<-p.ready
		var conn *net.UDPConn
		h.run(func() (err error) {
			conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.2:9")))
			return err
		})
		payload := make([]byte, 1000)
		vh, tcp := large(false, false, 0, 1000, 1, 1)
		tcp[ip4Len+tcpFlags] = tcpACK
		if err := complete(vh, tcp); err != nil {
			t.Fatal(err)
		}
		frame := append([]byte{0, protocolIPv4}, tcp...)
		if n := testing.AllocsPerRun(200, func() {
			conn.Write(payload)
			for n := 0; n == 0; {
				n = <-p.arrived
			}
			for range 3 {
				p.deliver(frame, true)
			}
			p.flush()
			p.deliver(frame, false)
		}); n != 0 {
			t.Errorf("plain %v: %v allocations", plain, n)
		}
		if s, err := u.Stats(); err != nil || s.RxPackets < 800 || s.TxPackets < 200 || s.RxDropped != 0 {
			t.Errorf("%+v %v", s, err)
		}
		conn.Close()
		c.Close()
	}
}

// counting is a pipe that tells how many frames came.
type counting struct {
	*pipe
	arrived chan int
}

func (c *counting) SendBatch(bufs [][]byte, at int) error {
	select {
	case c.arrived <- len(bufs):
	default:
	}
	return nil
}

// BenchmarkLink measures TCP through two ends, and a flood of small packets out of one. copy-loop, which the others are
// to be compared with, moves bare packets between a plain TUN and the socket, without L2TP and PPP.
func BenchmarkLink(b *testing.B) {
	run := func(name string, open func(wire, h *host, number int)) {
		b.Run(name, func(b *testing.B) {
			wire, ha, hb := newHost(b), newHost(b), newHost(b)
			open(wire, ha, 1)
			open(wire, hb, 2)
			const size = 64 << 20
			b.SetBytes(size)
			used := processor()
			for b.Loop() {
				pump(b, ha, hb, "10.0.0.2", 0, size, func([]byte) {}, nothing{}, nothing{})
			}
			b.StopTimer()
			// Other work on the machine spoils the clock, but less this.
			b.ReportMetric(float64(b.N)*size/1e6/(processor()-used).Seconds(), "MB/cpu-s")
			sent, arrived, took := flood(b, ha, hb)
			b.ReportMetric(float64(arrived)/took.Seconds(), "small-packets/s")
			b.ReportMetric(100-100*float64(arrived)/float64(sent), "%lost")
		})
	}
	run("copy-loop", func(wire, h *host, number int) { copyLoop(wire, h, number) })
	for _, m := range []mode{{plain: true}, {}, {plain: true, batch: true}, {batch: true}} {
		run(m.String(), func(wire, h *host, number int) {
			h.address(newEnd(wire, h, number, m).unit.Interface(), number, 1400)
		})
	}
}

// nothing is a hash that costs nothing.
type nothing struct{}

func (nothing) Write(b []byte) (int, error) { return len(b), nil }
func (nothing) Sum(b []byte) []byte         { return b }
func (nothing) Reset()                      {}
func (nothing) Size() int                   { return 0 }
func (nothing) BlockSize() int              { return 1 }

// processor is the time that this process has spent on processors, in the kernel's network stack too.
func processor() time.Duration {
	var r unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// flood sends small UDP packets for a moment as fast as one sender can, and counts what arrives.
func flood(b *testing.B, from, to *host) (sent, arrived int, took time.Duration) {
	b.Helper()
	at := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.2:9000"))
	var in, out *net.UDPConn
	to.run(func() (err error) { in, err = net.ListenUDP("udp4", at); return err })
	from.run(func() (err error) { out, err = net.DialUDP("udp4", nil, at); return err })
	in.SetReadBuffer(4 << 20)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 100)
		for {
			if _, err := in.Read(buf); err != nil {
				return
			}
			arrived++
		}
	})
	payload := make([]byte, 36)
	start := time.Now()
	for ; time.Since(start) < 500*time.Millisecond; sent++ {
		out.Write(payload)
	}
	took = time.Since(start)
	in.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	wg.Wait()
	in.Close()
	out.Close()
	return sent, arrived, took
}

func copyLoop(wire, h *host, number int) {
	peer := specFor(number, false).Tunnel.Peer
	var conn *net.UDPConn
	wire.run(func() (err error) {
		conn, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(peer.Local), net.UDPAddrFromAddrPort(peer.Remote))
		return err
	})
	roomy(h.t, conn)
	var t *tun
	h.run(func() (err error) {
		if t, err = openTUN("ppp%d", true); err != nil {
			return err
		}
		i, err := h.net.ByName(t.name)
		if err != nil {
			return err
		}
		return i.SetUp(netip.AddrFrom4([4]byte{10, 0, 0, byte(number)}), netip.AddrFrom4([4]byte{10, 0, 0, byte(3 - number)}), 1400)
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, err := t.file.Read(buf)
			if err != nil {
				return
			}
			conn.Write(buf[:n])
		}
	})
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, err := conn.Read(buf)
			if n == 0 && err != nil {
				return
			}
			t.file.Write(buf[:n])
		}
	})
	h.t.Cleanup(func() {
		t.file.Close()
		conn.Close()
		wg.Wait()
	})
}
