package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Ping sends an ICMP echo every 200 ms until one is answered, and returns that one's round trip time.
func (n *Node) Ping(addr netip.Addr, timeout time.Duration) (time.Duration, error) {
	p, err := n.StartPing(addr, 200*time.Millisecond, 56)
	if err != nil {
		return 0, err
	}
	defer p.Stop()
	if !waitFor(n.lab.Context(), timeout, func() bool { return p.received.Load() > 0 }) {
		return 0, fmt.Errorf("%s: no answer from %v within %v", n.Name, addr, timeout)
	}
	return time.Duration(p.rtt.Load()), nil
}

// A Pinger sends ICMP echoes (IPv4) at a steady pace and counts the answers.
type Pinger struct {
	sock                     int
	dst                      unix.SockaddrInet4
	id                       uint16
	sent, received, repeated atomic.Int64
	rtt                      atomic.Int64 // of the last answer
	seen                     sync.Map     // sequence -> when sent (time.Time), then nil
	stop, drained            chan struct{}
	once                     sync.Once
	senders                  sync.WaitGroup
	readers                  sync.WaitGroup
}

var pingID atomic.Uint32

// StartPing begins to send an echo of size octets every interval.
func (n *Node) StartPing(addr netip.Addr, interval time.Duration, size int) (*Pinger, error) {
	p := &Pinger{id: uint16(pingID.Add(1)), dst: unix.SockaddrInet4{Addr: addr.As4()}, stop: make(chan struct{}), drained: make(chan struct{})}
	var err error
	n.Do(func() {
		p.sock, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	})
	if err != nil {
		return nil, fmt.Errorf("ping from %s: %w", n.Name, err)
	}
	unix.SetsockoptTimeval(p.sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	p.senders.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for seq := uint32(0); ; seq++ {
			p.send(seq, size)
			select {
			case <-p.stop:
				return
			case <-tick.C:
			}
		}
	})
	p.readers.Go(p.receive)
	return p, nil
}

func (p *Pinger) send(seq uint32, size int) {
	b := make([]byte, 8+max(size, 4))
	b[0] = 8 // echo request
	binary.BigEndian.PutUint16(b[4:], p.id)
	binary.BigEndian.PutUint16(b[6:], uint16(seq))
	binary.BigEndian.PutUint32(b[8:], seq)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	p.seen.Store(seq, time.Now())
	p.sent.Add(1)
	unix.Sendto(p.sock, b, 0, &p.dst) // an error is a loss like another
}

func (p *Pinger) receive() {
	b := make([]byte, 65536)
	for {
		select {
		case <-p.drained:
			return
		default:
		}
		n, _, err := unix.Recvfrom(p.sock, b, 0)
		if err != nil {
			if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		head := int(b[0]&15) * 4
		if n < head+12 || b[head] != 0 || binary.BigEndian.Uint16(b[head+4:]) != p.id || [4]byte(b[12:16]) != p.dst.Addr {
			continue
		}
		when, ok := p.seen.LoadAndDelete(binary.BigEndian.Uint32(b[head+8:]))
		if !ok {
			p.repeated.Add(1)
			continue
		}
		p.rtt.Store(int64(time.Since(when.(time.Time))))
		p.received.Add(1)
	}
}

// Stop ends the sending, waits up to half a second for the last answers, and returns the totals.
func (p *Pinger) Stop() (sent, received int64) {
	p.once.Do(func() {
		close(p.stop)
		p.senders.Wait()
		waitFor(context.Background(), 500*time.Millisecond, func() bool { return p.received.Load() >= p.sent.Load() })
		close(p.drained)
		p.readers.Wait()
		unix.Close(p.sock)
	})
	return p.sent.Load(), p.received.Load()
}

// Counts returns the totals so far.
func (p *Pinger) Counts() (sent, received int64) { return p.sent.Load(), p.received.Load() }

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Listen opens a TCP listener on the node.
func (n *Node) Listen(addr netip.AddrPort) (ln net.Listener, err error) {
	n.Do(func() { ln, err = net.Listen("tcp", addr.String()) })
	return ln, err
}

// Dial opens a TCP connection from the node.
func (n *Node) Dial(ctx context.Context, addr netip.AddrPort) (conn net.Conn, err error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	n.Do(func() { conn, err = d.DialContext(ctx, "tcp", addr.String()) })
	return conn, err
}

// ListenUDP opens a UDP socket on the node.
func (n *Node) ListenUDP(addr netip.AddrPort) (conn *net.UDPConn, err error) {
	n.Do(func() { conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)) })
	return conn, err
}

// Transfer sends size octets of noise by TCP from one node to an address of another and compares their SHA-256.
// It returns the rate in Mbit/s. The connection may stall for at most 30 s.
func (n *Node) Transfer(to *Node, addr netip.Addr, size int64) (mbits float64, err error) {
	ln, err := to.Listen(netip.AddrPortFrom(addr, 0))
	if err != nil {
		return 0, fmt.Errorf("listen on %s: %w", to.Name, err)
	}
	defer ln.Close()
	type result struct {
		n   int64
		sum []byte
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			got <- result{err: err}
			return
		}
		defer c.Close()
		h := sha256.New()
		n, err := io.Copy(h, stallReader{c})
		got <- result{n, h.Sum(nil), err}
	}()
	port := netip.MustParseAddrPort(ln.Addr().String()).Port()
	ctx, cancel := context.WithTimeout(n.lab.Context(), 15*time.Second)
	defer cancel()
	c, err := n.Dial(ctx, netip.AddrPortFrom(addr, port))
	if err != nil {
		return 0, fmt.Errorf("dial from %s: %w", n.Name, err)
	}
	defer c.Close()
	start := time.Now()
	h := sha256.New()
	noise := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 128<<10)
	for left := size; left > 0; {
		b := buf[:min(int64(len(buf)), left)]
		noise.Read(b)
		h.Write(b)
		c.SetWriteDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Write(b); err != nil {
			return 0, fmt.Errorf("after %d octets: %w", size-left, err)
		}
		left -= int64(len(b))
	}
	c.(*net.TCPConn).CloseWrite()
	r := <-got
	switch {
	case r.err != nil:
		return 0, fmt.Errorf("received %d of %d octets: %w", r.n, size, r.err)
	case r.n != size:
		return 0, fmt.Errorf("received %d of %d octets", r.n, size)
	case !bytes.Equal(r.sum, h.Sum(nil)):
		return 0, fmt.Errorf("%d octets arrived damaged", size)
	}
	return float64(size) * 8 / 1e6 / time.Since(start).Seconds(), nil
}

// stallReader gives up on a connection that is silent for 30 s.
type stallReader struct{ net.Conn }

func (r stallReader) Read(b []byte) (int, error) {
	r.SetReadDeadline(time.Now().Add(30 * time.Second))
	return r.Conn.Read(b)
}

// Iperf measures TCP from the node to an address of another with iperf3, in Mbit/s of payload. The flags are iperf3's:
// "-R" for the way back, "-P", "4" for four streams.
func (n *Node) Iperf(to *Node, addr netip.Addr, seconds int, flags ...string) (mbits float64, err error) {
	port := strconv.Itoa(5201 + int(pingID.Add(1))%10000)
	ctx, cancel := context.WithTimeout(n.lab.Context(), time.Duration(seconds+20)*time.Second)
	defer cancel()
	server := to.Command(ctx, "iperf3", "-s", "-1", "-B", addr.String(), "-p", port)
	if err := server.Start(); err != nil {
		return 0, err
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
	}()
	if !waitFor(ctx, 5*time.Second, func() bool { return to.listens(addr, port) }) {
		return 0, fmt.Errorf("iperf3 does not listen on %v of %s", addr, to.Name)
	}
	out, err := n.Command(ctx, append([]string{"iperf3", "-J", "-c", addr.String(), "-p", port, "-t", strconv.Itoa(seconds)}, flags...)...).Output()
	var report struct {
		Error string
		End   struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if jerr := json.Unmarshal(out, &report); jerr == nil && report.Error != "" {
		return 0, fmt.Errorf("iperf3: %s", report.Error)
	}
	if err != nil {
		return 0, err
	}
	return report.End.Received.Rate / 1e6, nil
}

// listens reports whether somebody listens on a TCP port, without connecting to it.
func (n *Node) listens(addr netip.Addr, port string) bool {
	p, _ := strconv.Atoi(port)
	a := addr.As4()
	// /proc/net/tcp shows the address as a number of the host's order.
	want := fmt.Sprintf("%08X:%04X 00000000:0000 0A", binary.NativeEndian.Uint32(a[:]), p)
	b, err := n.ReadFile("/proc/thread-self/net/tcp")
	return err == nil && bytes.Contains(b, []byte(want))
}
