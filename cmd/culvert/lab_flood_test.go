package main

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
	"culvert/ipsec/isakmp/isakmptest"
)

const (
	floodRate     = 20_000   // first messages a second, or as many as the guest can make
	floodMemory   = 24 << 20 // what the server may take in all
	floodPatience = 5 * time.Second
)

// flood sends first messages from addresses all over the internet until stopped, and returns how many. An attacker has
// machines of its own: here it gets the processor when nobody else wants it.
func flood(r *rig, from *lab.Node, message func(n uint64) []byte) (stop func() uint64) {
	r.Helper()
	var sent atomic.Uint64
	end, ended := make(chan struct{}), make(chan error, 1)
	from.Go(func() {
		sock, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err == nil {
			defer unix.Close(sock)
			err = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
		}
		to := &unix.SockaddrInet4{Addr: labServer.As4()}
		rnd := rand.New(rand.NewPCG(1, 2))
		for start := time.Now(); err == nil; {
			select {
			case <-end:
				ended <- nil
				return
			default:
			}
			due := uint64(time.Since(start).Seconds() * floodRate)
			if sent.Load() >= due {
				time.Sleep(time.Millisecond)
			}
			for range min(due-sent.Load(), 20) {
				if unix.Sendto(sock, forged(rnd, message(sent.Load())), 0, to) == nil {
					sent.Add(1)
				}
			}
		}
		ended <- err
	})
	return func() uint64 {
		close(end)
		r.Must(<-ended, "flood")
		return sent.Load()
	}
}

// forged is an IPv4 packet with a UDP datagram to port 500, from anybody. The kernel fills in the checksum.
func forged(r *rand.Rand, msg []byte) []byte {
	b := make([]byte, 28, 28+len(msg))
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint32(b[12:], 0x0b000000|r.Uint32()>>8) // 11.0.0.0/8
	a := labServer.As4()
	copy(b[16:], a[:])
	binary.BigEndian.PutUint16(b[20:], uint16(1024+r.IntN(60000)))
	binary.BigEndian.PutUint16(b[22:], 500)
	binary.BigEndian.PutUint16(b[24:], uint16(8+len(msg)))
	return append(b, msg...)
}

// A flood of first messages from everywhere: the server stays small, and a good client gets in within seconds, whether
// the messages are all alike or each one different.
func TestLabFlood(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		r := newRig(t, l, rigConfig{Users: 3})
		attacker := r.internet.Host("attacker", "198.51.100.250")
		c := r.client(1)
		r.connect(c)
		calm := r.Memory()
		if err := c.Disconnect(t.Context()); err != nil {
			t.Error(err)
		}
		rnd := rand.New(rand.NewPCG(3, 4))
		alike := isakmptest.Windows.Main1()
		for i, test := range []struct {
			name    string
			message func(n uint64) []byte
		}{
			{"all alike", func(uint64) []byte {
				binary.BigEndian.PutUint64(alike, rnd.Uint64())
				return alike
			}},
			{"all different", func(n uint64) []byte {
				msg := isakmptest.StrongSwan.Main1()
				binary.BigEndian.PutUint64(msg, rnd.Uint64())
				binary.BigEndian.PutUint64(msg[len(msg)-8:], n) // in the last vendor id
				return msg
			}},
		} {
			stop := flood(r, attacker, test.message)
			start := time.Now()
			time.Sleep(2 * time.Second)
			good := r.client(i + 2)
			begin := time.Now()
			addr := r.connect(good)
			took := time.Since(begin)
			memory := r.Memory()
			sent := stop()
			rate := float64(sent) / time.Since(start).Seconds()
			r.reaches(good, addr)
			stats := r.Rows("/ip ipsec statistics print")
			t.Logf("%s: %.0f first messages a second; a good client was connected after %.2f s; memory %.1f MB, before %.1f; %v",
				test.name, rate, took.Seconds(), float64(memory)/(1<<20), float64(calm)/(1<<20), stats)
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
	}, lab.Kernels("6.12"), lab.Timeout(3*time.Minute))
}
