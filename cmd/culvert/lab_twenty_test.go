package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"culvert/board/lab"
)

// Twenty clients behind one NAT, all of port 1701, on either data path.
func TestLabTwentyBehindNAT(t *testing.T) {
	long(t)
	inLab(t, func(t *testing.T, l *lab.L) { twentyBehindNAT(t, l, pathKernel, 3) }, lab.Memory("2G"), lab.Timeout(9*time.Minute))
}

func TestLabTwentyBehindNATUserspace(t *testing.T) {
	long(t)
	inLab(t, func(t *testing.T, l *lab.L) { twentyBehindNAT(t, l, pathUserspace, 1) }, lab.Kernels("6.1"), lab.Memory("2G"), lab.Timeout(9*time.Minute))
}

// long leaves a test of minutes to make lab-long: CI has those of two and five clients.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("CULVERT_LONG") == "" && !lab.InGuest() {
		t.Skip("takes minutes: make lab-long")
	}
}

// twentyBehindNAT: they come in fives, stay idle, leave and come back in an order that chance decides, several at a time,
// while a third of them renew their SAs every few seconds; whoever is there has its own traffic and nobody else's.
func twentyBehindNAT(t *testing.T, l *lab.L, path labPath, rounds int) {
	const n = 20
	r, clients := crowdBehindNAT(t, l, n, rigConfig{Path: path})
	for i, c := range clients {
		c.Config.Timeout = 90 * time.Second
		if i%3 == 0 {
			c.Config.IKE.Rekey = 15 * time.Second
		}
	}
	for at := 0; at < n; at += 5 { // twenty daemons that start at once are too much for some machines
		if crowd(t, r, clients[at:at+5]); t.Failed() {
			return
		}
	}
	t.Logf("culvert takes %.1f MB with %d clients", float64(r.Memory())/(1<<20), n)
	ownTraffic(t, r, clients, "all twenty")

	chance := rand.New(rand.NewPCG(20, 1))
	in := make([]bool, n)
	for i := range in {
		in[i] = true
	}
	for round := range rounds {
		order := chance.Perm(n)[:8]
		var wg sync.WaitGroup
		for _, lane := range [][]int{order[:4], order[4:]} {
			wg.Go(func() {
				for _, i := range lane {
					var err error
					if in[i] {
						err = clients[i].Disconnect(t.Context())
					} else {
						_, err = clients[i].Connect(t.Context())
					}
					if err != nil {
						t.Errorf("round %d: %s: %v", round, clients[i].Name, err)
					}
				}
			})
		}
		wg.Wait()
		var here []*lab.Client
		for _, i := range order {
			in[i] = !in[i]
		}
		for i, c := range clients {
			if in[i] {
				here = append(here, c)
			}
		}
		time.Sleep(3 * time.Second) // idle, but for those that renew
		ownTraffic(t, r, here, fmt.Sprintf("round %d, %d are there", round, len(here)))
	}
	renewed := len(r.Lines("SA pair installed")) - len(r.Lines("phase 1 up"))
	t.Logf("SAs were renewed %d times", renewed)
	if renewed < n/3 {
		t.Errorf("SAs were renewed %d times", renewed)
	}
	var wg sync.WaitGroup
	for i, c := range clients {
		if in[i] {
			wg.Go(func() {
				if err := c.Disconnect(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	// An inbound SA whose client has renewed it and left without a word about the old one goes when there has been no
	// tunnel for a while.
	if !r.WaitFor(2*lingerAfterTunnel, func() bool { return r.left() == "" }) {
		t.Errorf("left behind: %s", r.left())
	}
}
