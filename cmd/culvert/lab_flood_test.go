package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
	"culvert/ipsec/isakmp/isakmptest"
)

const (
	floodRate     = 20_000 // first messages that reach the server's interface in a second
	floodBatch    = 100    // of them at once
	floodTime     = 8 * time.Second
	floodMemory   = 24 << 20 // what the server may take in all
	floodPatience = 5 * time.Second
)

// A flood is a sender of first messages from addresses all over 11.0.0.0/8, on a cable of its own to the server.
type flood struct {
	r       *rig
	packets *os.File // the counter of the server's interface
	end     atomic.Bool
	ended   chan error
	seconds []int // how many reached the interface in each, after the first
}

// flood begins; message changes what is sent from one to the next.
func (r *rig) flood(from *lab.Node, message []byte, change func(msg []byte, n uint64)) *flood {
	r.Helper()
	f := &flood{r: r, ended: make(chan error, 1)}
	frames, msgs := floodFrames(message)
	var err error
	r.server.Do(func() { f.packets, err = os.Open("/sys/class/net/" + from.Name + "/statistics/rx_packets") })
	r.Must(err, "counter of the server's interface")
	from.Go(func() { f.ended <- f.send(frames, msgs, change) })
	return f
}

// stop returns the messages that reached the server in each whole second after the first.
func (f *flood) stop() []int {
	f.r.Helper()
	f.end.Store(true)
	f.r.Must(<-f.ended, "flood")
	f.packets.Close()
	return f.seconds
}

func (f *flood) received() int {
	b := make([]byte, 32)
	n, _ := f.packets.ReadAt(b, 0)
	count, _ := strconv.Atoi(string(bytes.TrimSpace(b[:n])))
	return count
}

// floodFrames are Ethernet frames to everybody with an IPv4 packet and a UDP datagram to port 500, without checksum.
func floodFrames(message []byte) (frames, msgs [][]byte) {
	to := labServer.As4()
	for range floodBatch {
		b := make([]byte, 42, 42+len(message))
		copy(b, "\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x00")
		ip := b[14:]
		ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(ip[2:], uint16(28+len(message)))
		copy(ip[16:], to[:])
		binary.BigEndian.PutUint16(ip[22:], 500)
		binary.BigEndian.PutUint16(ip[24:], uint16(8+len(message)))
		b = append(b, message...)
		frames, msgs = append(frames, b), append(msgs, b[42:])
	}
	return frames, msgs
}

// forge gives a packet another sender.
func forge(ip []byte, rnd *rand.Rand) {
	x := rnd.Uint64()
	binary.BigEndian.PutUint32(ip[12:], 0x0b000000|uint32(x)>>8) // 11.0.0.0/8
	binary.BigEndian.PutUint16(ip[20:], uint16(1024+x>>32%60000))
	ip[10], ip[11] = 0, 0
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
}

// send floods until the end, in front of everything else that wants the processor: an attacker has one of its own. It
// sleeps by the kernel's clock alone, for the runtime's timers would wait for others.
func (f *flood) send(frames, msgs [][]byte, change func(msg []byte, n uint64)) error {
	runtime.LockOSThread()
	link, err := os.ReadFile("/sys/class/net/eth0/ifindex")
	if err != nil {
		return err
	}
	index, err := strconv.Atoi(string(bytes.TrimSpace(link)))
	if err != nil {
		return err
	}
	sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	if err := unix.Bind(sock, &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: index}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(sock, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return err
	}
	type mmsghdr struct {
		hdr unix.Msghdr
		n   uint32
	}
	heads, iovs := make([]mmsghdr, len(frames)), make([]unix.Iovec, len(frames))
	for i, b := range frames {
		iovs[i].Base = &b[0]
		iovs[i].SetLen(len(b))
		heads[i].hdr.Iov = &iovs[i]
		heads[i].hdr.SetIovlen(1)
	}
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
		return fmt.Errorf("real-time scheduling: %w", err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	begin := time.Now()
	count, mark := f.received(), begin.Add(time.Second)
	for sent := uint64(0); !f.end.Load(); {
		now := time.Now()
		if !now.Before(mark) {
			c := f.received()
			if sent > floodRate*3/2 {
				f.seconds = append(f.seconds, int(float64(c-count)/now.Sub(mark.Add(-time.Second)).Seconds()))
			}
			count, mark = c, now.Add(time.Second)
		}
		due := uint64(now.Sub(begin).Seconds() * floodRate * 1.05)
		if due < sent+floodBatch {
			pause := unix.NsecToTimespec(int64(sent+floodBatch-due) * 1e9 / floodRate)
			unix.Nanosleep(&pause, nil)
			continue
		}
		for i, b := range frames {
			forge(b[14:], rnd)
			change(msgs[i], sent+uint64(i))
		}
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(sock), uintptr(unsafe.Pointer(&heads[0])), uintptr(len(heads)), 0, 0, 0)
		if errno != 0 && errno != unix.ENOBUFS && errno != unix.EINTR {
			return fmt.Errorf("sendmmsg: %w", errno)
		}
		if errno == 0 {
			sent += uint64(n)
		}
	}
	runtime.KeepAlive(frames)
	return nil
}

// A flood of first messages from everywhere: the server stays small, and a good client gets in within seconds, whether
// the messages are all alike or each one different. The client repeats its first message as Windows does, after one second.
// Rates and times are by the real clock: the guest's would hardly move while the server works.
func TestLabFlood(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		r := newRig(t, l, rigConfig{Users: 3})
		attacker := r.server.Host("attacker", "198.18.0.1")
		r.internet.IP("route add blackhole 11.0.0.0/8") // where the answers go
		c := r.client(1)
		r.connect(c)
		calm := r.Memory()
		if err := c.Disconnect(t.Context()); err != nil {
			t.Error(err)
		}
		rnd := rand.New(rand.NewPCG(3, 4))
		for i, test := range []struct {
			name    string
			message []byte
			change  func(msg []byte, n uint64)
		}{
			{"all alike", isakmptest.Windows.Main1(), func(msg []byte, _ uint64) { binary.BigEndian.PutUint64(msg, rnd.Uint64()) }},
			{"all different", isakmptest.StrongSwan.Main1(), func(msg []byte, n uint64) {
				binary.BigEndian.PutUint64(msg, rnd.Uint64())
				binary.BigEndian.PutUint64(msg[len(msg)-8:], n) // in the last vendor id
			}},
		} {
			f := r.flood(attacker, test.message, test.change)
			time.Sleep(2 * time.Second)
			good := r.client(i+2, func(c *lab.ClientConfig) { c.IKE.Retransmit = time.Second })
			begin := time.Now()
			addr := r.connect(good)
			took := time.Since(begin)
			time.Sleep(max(0, floodTime-2*time.Second-took))
			memory := r.Memory()
			seconds := f.stop()
			r.reaches(good, addr)
			stats := r.Rows("/ip ipsec statistics print")
			rate := 0
			for _, n := range seconds {
				rate += n / len(seconds)
			}
			t.Logf("%s: %d first messages a second (%v); a good client was connected after %.2f s; memory %.1f MB, before %.1f; %v",
				test.name, rate, seconds, took.Seconds(), float64(memory)/(1<<20), float64(calm)/(1<<20), stats)
			if rate < floodRate {
				t.Errorf("%s: the flood was %d messages a second", test.name, rate)
			}
			if took > floodPatience {
				t.Errorf("%s: a good client took %.1f s", test.name, took.Seconds())
			}
			if memory > floodMemory {
				t.Errorf("%s: %d octets of memory", test.name, memory)
			}
			if err := good.Disconnect(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}, lab.Kernels("6.12"), lab.RealTime(), lab.Timeout(3*time.Minute))
}
