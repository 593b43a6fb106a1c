package ikev1

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"culvert/ipsec"
)

// pipe carries messages between the engine and its clients, and loses, repeats and reorders them.
type pipe struct {
	r     *rand.Rand
	queue pipeQueue
	n     int
}

type parcel struct {
	at       time.Time
	n        int
	toServer bool
	path     ipsec.Path
	client   *initiator
	msg      []byte
}

type pipeQueue []*parcel

func (q pipeQueue) Len() int { return len(q) }
func (q pipeQueue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].n < q[j].n
}
func (q pipeQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *pipeQueue) Push(x any)   { *q = append(*q, x.(*parcel)) }
func (q *pipeQueue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

func (p *pipe) put(now time.Time, x parcel) {
	for range 1 + p.r.IntN(5)/4 { // one in five twice
		if p.r.IntN(10) < 3 { // three in ten lost
			continue
		}
		y := x
		y.at = now.Add(time.Duration(20+p.r.IntN(1500)) * time.Millisecond)
		y.n = p.n
		p.n++
		heap.Push(&p.queue, &y)
	}
}

// TestLossyPipe lets twenty clients connect over a bad line, rekey phase 2, and leave.
func TestLossyPipe(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, nil)
			p := &pipe{r: rand.New(rand.NewPCG(seed, 11))}
			var clients []*initiator
			resend := make(map[*initiator]time.Time)
			goal := 1
			var used time.Time
			for i := range 20 {
				c := nmClient(t, seed*100+uint64(i), true).behindNAT("203.0.113.9", uint16(20000+10*i), "192.168.1.34")
				if i%3 == 0 {
					c = nmClient(t, seed*100+uint64(i), false)
					c.private = c.remote.Addr()
					c.behindNAT(fmt.Sprintf("198.51.100.%d", 10+i), 499, fmt.Sprintf("198.51.100.%d", 10+i))
					c.remote, c.float = c.float, c.remote
				}
				clients = append(clients, c)
				c.first()
			}
			w.e.env.Send = func(path ipsec.Path, msg []byte) {
				for _, c := range clients {
					if path.Remote == c.remote || path.Remote == c.float {
						p.put(w.now, parcel{client: c, msg: append([]byte(nil), msg...)})
					}
				}
			}
			work := func() bool { // what clients send by themselves, every three seconds
				busy := false
				for _, c := range clients {
					if len(c.children) >= goal {
						continue
					}
					busy = true
					if w.now.Before(resend[c]) {
						continue
					}
					resend[c] = w.now.Add(3 * time.Second)
					msg := c.lastSent
					if c.up {
						if c.lastQuick == nil {
							c.quick()
						}
						msg = c.lastQuick
					}
					p.put(w.now, parcel{toServer: true, path: c.from(), client: c, msg: msg})
				}
				return busy
			}
			run := func(d time.Duration) {
				end := w.now.Add(d)
				for w.now.Before(end) {
					work()
					next := w.now.Add(100 * time.Millisecond)
					for len(p.queue) > 0 && p.queue[0].at.Before(next) {
						x := heap.Pop(&p.queue).(*parcel)
						w.now = x.at
						if x.toServer {
							w.e.Receive(w.now, x.path, x.msg)
							continue
						}
						if answer := x.client.receive(x.msg); answer != nil {
							p.put(w.now, parcel{toServer: true, path: x.client.from(), client: x.client, msg: answer})
						}
					}
					w.now = next
					if at := w.e.Deadline(); !at.IsZero() && !at.After(w.now) {
						w.e.Tick(w.now)
					}
					if w.now.Sub(used) < time.Second {
						continue
					}
					used = w.now
					pairs := make(map[ipsec.SPI]bool) // whoever has a pair uses it
					for _, c := range clients {
						for _, ch := range c.children {
							pairs[ch.out] = true
						}
					}
					for _, sa := range w.data.SAs() {
						if sa.Dir == ipsec.In && pairs[sa.SPI] {
							w.data.SetUsage(sa.ID(), ipsec.Usage{Packets: 1, Bytes: 100})
						}
					}
				}
			}
			check := func() {
				t.Helper()
				for i, c := range clients {
					if len(c.children) < goal {
						t.Fatalf("client %d has %d children; drops %v", i, len(c.children), w.e.Snapshot(w.now).Drops)
					}
					w.pair(c, c.children[len(c.children)-1])
				}
			}
			run(90 * time.Second)
			check()
			if len(w.ups) != len(clients) || len(w.downs) != 0 {
				t.Errorf("%d ups, downs %v", len(w.ups), w.downs)
			}
			goal = 2
			run(90 * time.Second)
			check()
			if len(w.ups) != len(clients) || len(w.downs) != 0 {
				t.Errorf("after the rekeying: %d ups, downs %v", len(w.ups), w.downs)
			}
			marks := map[ipsec.Mark]bool{}
			for _, sa := range w.data.SAs() {
				marks[sa.Mark] = true
			}
			if len(marks) != len(clients) {
				t.Errorf("%d marks for %d clients", len(marks), len(clients))
			}
			if s := w.e.Snapshot(w.now); s.Clients != len(clients) || s.HalfOpen != 0 {
				t.Errorf("%d clients, %d half open", s.Clients, s.HalfOpen)
			}
		})
	}
}
