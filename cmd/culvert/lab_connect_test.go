package main

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"culvert/board/lab"
)

const transferSize = 50 << 20

func TestLabDirect(t *testing.T) { inLab(t, onKernel(direct), lab.Timeout(3*time.Minute)) }
func TestLabNAT(t *testing.T)    { inLab(t, onKernel(behindNAT), lab.Timeout(3*time.Minute)) }

// direct: one client on the open internet: in, traffic both ways, out again from either side, and nothing is left.
func direct(t *testing.T, l *lab.L, path labPath) {
	r := newRig(t, l, rigConfig{Path: path})
	for _, test := range []struct {
		name   string
		change func(*lab.ClientConfig)
	}{{"port 1701", port1701}, {"any port", func(*lab.ClientConfig) {}}} {
		c := r.client(1, test.change)
		wholeSession(t, r, c, test.name)
		c.Kill()
		r.internet.IP("link del client1")
	}
}

// behindNAT: one client behind a NAT.
func behindNAT(t *testing.T, l *lab.L, path labPath) {
	r := newRig(t, l, rigConfig{Path: path})
	for _, test := range []struct {
		name   string
		change func(*lab.ClientConfig)
	}{{"port 1701", port1701}, {"any port", func(*lab.ClientConfig) {}}} {
		c := r.hidden(1, test.change)
		wholeSession(t, r, c, test.name)
		c.Kill()
		r.nat.IP("link del hidden1")
	}
}

// wholeSession takes a client through all that a session is for.
func wholeSession(t *testing.T, r *rig, c *lab.Client, name string) {
	t.Helper()
	start := time.Now()
	addr := r.connect(c)
	t.Logf("%s: connected in %.2f s as %v", name, time.Since(start).Seconds(), addr)
	r.reaches(c, addr)

	rows := r.Rows("/ppp active print")
	if len(rows) != 1 || rows[0].String("name") != c.Config.User || rows[0].String("address") != addr.String() {
		t.Errorf("%s: /ppp active print: %v", name, rows)
	}
	if used := r.Rows("/ip pool used print"); len(used) != 1 || used[0].String("address") != addr.String() {
		t.Errorf("%s: /ip pool used print: %v", name, used)
	}

	size := less(r.path, int64(transferSize))
	up, err := c.Transfer(r.lan, labHost, size)
	if err != nil {
		t.Errorf("%s: upload: %v", name, err)
	}
	down, err := r.lan.Transfer(c.Node, addr, size)
	if err != nil {
		t.Errorf("%s: download: %v", name, err)
	}
	t.Logf("%s: %d MB up at %.0f Mbit/s, down at %.0f", name, size>>20, up, down)

	if err := c.Disconnect(t.Context()); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	r.clean()

	// Once more, and this time the server says goodbye.
	addr = r.connect(c)
	r.reaches(c, addr)
	if _, err := r.Show("/ppp active remove " + c.Config.User); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if !r.WaitFor(10*time.Second, func() bool { return len(c.Interfaces("ppp")) == 0 }) {
		t.Errorf("%s: the client is still up after the server disconnected it", name)
	}
	c.Disconnect(t.Context())
	r.clean()
}

func TestLabShutdown(t *testing.T) { inLab(t, onKernel(shutdown)) }

// shutdown: the server's own end is orderly too: on SIGTERM it says goodbye to everybody and leaves the kernel as it
// found it.
func shutdown(t *testing.T, l *lab.L, path labPath) {
	r := newRig(t, l, rigConfig{Path: path, Users: 2})
	c := []*lab.Client{r.client(1), r.hidden(2)}
	for _, c := range c {
		r.reaches(c, r.connect(c))
	}
	start := time.Now()
	r.Signal(syscall.SIGTERM)
	if err := r.Wait(15 * time.Second); err != nil {
		t.Errorf("culvert: %v", err)
	}
	t.Logf("ended in %.2f s", time.Since(start).Seconds())
	for _, c := range c {
		if !l.WaitFor(5*time.Second, func() bool { return len(c.Interfaces("ppp")) == 0 }) {
			t.Errorf("%s was not told", c.Name)
		}
	}
	if s := r.server.IPsecState(); s != "" {
		t.Errorf("left in the kernel:\n%s", s)
	}
	if i := r.server.Interfaces("ppp"); len(i) > 0 {
		t.Errorf("left in the kernel: %v", i)
	}
}

// Two clients behind one NAT are one address to the server.
func TestLabTwoBehindNAT(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		r := newRig(t, l, rigConfig{Users: 3})
		anyPort := func(*lab.ClientConfig) {}
		twoBehindNAT(t, r, "both any port", anyPort, anyPort)
		twoBehindNAT(t, r, "one 1701", port1701, anyPort)
	}, lab.RealTime(), lab.Timeout(4*time.Minute)) // echoes are counted while a transfer loads the way
}

// Two clients behind one NAT that both use port 1701, as Windows does, are one four-tuple to the server's kernel.
func TestLabTwoBehindNATSamePort(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		twoBehindNAT(t, newRig(t, l, rigConfig{Users: 3}), "both 1701", port1701, port1701)
	}, lab.RealTime(), lab.Timeout(4*time.Minute))
}

func twoBehindNAT(t *testing.T, r *rig, name string, changes ...func(*lab.ClientConfig)) {
	t.Helper()
	var clients []*lab.Client
	var addrs []netip.Addr
	for i, change := range changes {
		c := r.hidden(i+1, change)
		clients, addrs = append(clients, c), append(addrs, r.connect(c))
	}
	for i, c := range clients {
		r.reaches(c, addrs[i])
	}
	// What one receives is not the other's: each asks at once, and each transfer is compared octet by octet.
	var pings []*lab.Pinger
	for _, c := range clients {
		p, err := c.StartPing(labHost, 10*time.Millisecond, 200)
		r.Must(err, "ping")
		pings = append(pings, p)
	}
	for i, c := range clients {
		if _, err := r.lan.Transfer(c.Node, addrs[i], transferSize/4); err != nil {
			t.Errorf("%s: download by %s: %v", name, c.Name, err)
		}
		if _, err := c.Transfer(r.lan, labHost, transferSize/4); err != nil {
			t.Errorf("%s: upload by %s: %v", name, c.Name, err)
		}
	}
	for i, p := range pings {
		if sent, received := p.Stop(); received < sent*98/100 {
			t.Errorf("%s: %s lost %d of %d echoes", name, clients[i].Name, sent-received, sent)
		}
	}
	// One leaves, the other stays.
	if err := clients[0].Disconnect(t.Context()); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	r.reaches(clients[1], addrs[1])
	if err := clients[1].Disconnect(t.Context()); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	r.clean()
	for i, c := range clients {
		c.Kill()
		r.nat.IP(fmt.Sprintf("link del hidden%d", i+1))
	}
	t.Logf("%s: done", name)
}
