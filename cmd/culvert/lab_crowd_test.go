package main

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"culvert/board/lab"
)

// crowd connects n clients at once and returns how long each took; those that failed are reported.
func crowd(t *testing.T, r *rig, clients []*lab.Client) []time.Duration {
	t.Helper()
	took := make([]time.Duration, len(clients))
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			start := time.Now()
			addr, err := c.Connect(t.Context())
			if err == nil {
				_, err = c.Ping(labInner, 20*time.Second)
			}
			if err == nil && !addr.IsValid() {
				err = fmt.Errorf("%s: no address", c.Name)
			}
			took[i], errs[i] = time.Since(start), err
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("%s: %v", clients[i].Name, err)
		}
	}
	return took
}

func longest(d []time.Duration) (m time.Duration) {
	for _, v := range d {
		m = max(m, v)
	}
	return m
}

// Fifty clients come and go one after the other, and leave the server as it was.
func TestLabFiftyInTurn(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		const n = 50
		r := newRig(t, l, rigConfig{Users: n})
		before := r.Memory()
		start := time.Now()
		for i := 1; i <= n; i++ {
			c := r.client(i)
			r.connect(c)
			if _, err := c.Ping(labInner, 10*time.Second); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			if err := c.Disconnect(t.Context()); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			// charon's farewell leaves a moment after it says that it did: killed at once, it may never.
			r.WaitFor(5*time.Second, func() bool { return len(r.Rows("/ip ipsec installed-sa print")) == 0 })
			c.Kill()
		}
		t.Logf("%d sessions in %.1f s; culvert's memory %.1f MB, then %.1f", n, time.Since(start).Seconds(),
			float64(before)/(1<<20), float64(r.Memory())/(1<<20))
		r.clean()
	}, lab.Kernels("6.12"), lab.Memory("1G"), lab.Timeout(6*time.Minute))
}

// Twenty clients come at once, and all of them are served at once.
func TestLabTwentyAtOnce(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		const n = 20
		r := newRig(t, l, rigConfig{Users: n})
		var clients []*lab.Client
		for i := 1; i <= n; i++ {
			clients = append(clients, r.client(i, func(c *lab.ClientConfig) { c.Timeout = 90 * time.Second }))
		}
		took := crowd(t, r, clients)
		t.Logf("%d at once: the last was connected after %.1f s; culvert takes %.1f MB", n, longest(took).Seconds(), float64(r.Memory())/(1<<20))
		if rows := r.Rows("/ppp active print"); len(rows) != n {
			t.Errorf("%d sessions are active, want %d", len(rows), n)
		}
		seen := map[string]bool{}
		for _, row := range r.Rows("/ip pool used print") {
			if a := row.String("address"); seen[a] {
				t.Errorf("address %s was given twice", a)
			} else {
				seen[a] = true
			}
		}
		for _, c := range clients {
			if _, err := c.Ping(labInner, 10*time.Second); err != nil {
				t.Error(err)
			}
		}
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				if err := c.Disconnect(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		r.clean()
	}, lab.Memory("2G"), lab.Timeout(5*time.Minute))
}

// On links that lose, delay, reorder and duplicate, every client still gets in.
func TestLabBadLinks(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		const n = 10
		r := newRig(t, l, rigConfig{Users: n})
		var clients []*lab.Client
		for i := 1; i <= n; i++ {
			c := r.client(i, func(c *lab.ClientConfig) { c.Timeout = 120 * time.Second })
			c.Up.Impair("delay 50ms 10ms loss 5% reorder 10% 50% duplicate 2%")
			clients = append(clients, c)
		}
		took := crowd(t, r, clients)
		t.Logf("%d clients over 5%% loss, 50 ms, reordering and duplication: the slowest took %.1f s", n, longest(took).Seconds())
		for _, c := range clients {
			c.Up.Impair("")
			if err := c.Disconnect(t.Context()); err != nil {
				t.Error(err)
			}
		}
		r.clean()
	}, lab.Memory("1G"), lab.Timeout(6*time.Minute))
}
