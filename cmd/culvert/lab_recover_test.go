package main

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"culvert/board/lab"
)

func TestLabClientKilled(t *testing.T) { inLab(t, onKernel(clientKilled), lab.Timeout(3*time.Minute)) }

// clientKilled: a client that vanishes without a word is missed within the keepalive, and what it held is free again.
func clientKilled(t *testing.T, l *lab.L, path labPath) {
	r := newRig(t, l, rigConfig{Path: path, Keepalive: "3s", DPD: "3s"})
	c := r.client(1)
	addr := r.connect(c)
	r.reaches(c, addr)
	c.Kill()
	start := time.Now()
	if !r.WaitFor(40*time.Second, func() bool { return len(r.Rows("/ip pool used print")) == 0 }) {
		t.Fatalf("%v is still taken", addr)
	}
	t.Logf("the session was given up after %.1f s", time.Since(start).Seconds())
	if !r.WaitFor(40*time.Second, func() bool { return r.left() == "" }) {
		t.Fatalf("left behind: %s", r.left())
	}
	t.Logf("all of it was gone after %.1f s", time.Since(start).Seconds())
	if again := r.connect(c); again != addr {
		t.Logf("the next one got %v after %v", again, addr)
	}
	r.reaches(c, c.Addr("ppp0"))
}

func TestLabServerKilled(t *testing.T) { inLab(t, onKernel(serverKilled), lab.Timeout(4*time.Minute)) }

// serverKilled: a server that dies and starts again finds its clients coming back by themselves.
func serverKilled(t *testing.T, l *lab.L, path labPath) {
	r := newRig(t, l, rigConfig{Path: path, Keepalive: "5s", DPD: "5s"})
	c := r.client(1, func(c *lab.ClientConfig) {
		c.IKE.Persistent, c.IKE.DPD = true, 2*time.Second
		c.LAC.Redial, c.LAC.Echo = time.Second, time.Second
	})
	r.reaches(c, r.connect(c))
	r.Kill()
	down := time.Now()
	r.Start()
	t.Logf("started again after %.2f s", time.Since(down).Seconds())
	if !l.WaitFor(20*time.Second, func() bool { return len(c.Interfaces("ppp")) == 0 }) {
		t.Log("the client has not noticed within 20 s")
	}
	back := func() bool {
		rows, err := r.Console("/ppp active print")
		if err != nil || len(rows) == 0 || !c.Addr("ppp0").IsValid() {
			return false
		}
		_, err = c.Ping(labInner, time.Second)
		return err == nil
	}
	if !l.WaitFor(150*time.Second, back) {
		t.Fatal("the client did not come back within 150 s")
	}
	t.Logf("the client was back %.1f s after the server died", time.Since(down).Seconds())
	if rows := r.Rows("/ppp active print"); len(rows) != 1 {
		t.Errorf("%d sessions, want 1: %v", len(rows), rows)
	}
}

func TestLabRekey(t *testing.T) { inLab(t, onKernel(rekey), lab.Timeout(6*time.Minute)) }

// rekey: keys are renewed under traffic, in both phases, every few seconds for a minute; the traffic does not notice. The
// last client leaves it to the server, which counts octets.
func rekey(t *testing.T, l *lab.L, path labPath) {
	r := newRig(t, l, rigConfig{Path: path, Users: 4, Extra: "[ipsec.proposal.volume]\nlifebytes = \"2M\"\n" +
		"[ipsec.peer.volume]\naddress = \"198.51.100.4\"\nproposal = \"volume\"\n[ipsec.identity.volume]\nsecret = \"" + labSecret + "\"\n"})
	for _, test := range []struct {
		name     string
		duration time.Duration
		c        *lab.Client
	}{
		{"direct", time.Minute, r.client(1, func(c *lab.ClientConfig) { c.IKE.Rekey, c.IKE.Reauth = 4*time.Second, 11*time.Second })},
		{"behind a NAT", 30 * time.Second, r.hidden(2, func(c *lab.ClientConfig) { c.IKE.Rekey, c.IKE.Reauth = 4*time.Second, 11*time.Second })},
		{"with PFS", 20 * time.Second, r.client(3, func(c *lab.ClientConfig) { c.IKE.Rekey, c.IKE.ESP = 4*time.Second, "aes256-sha256-modp2048" })},
		{"by volume", 16 * time.Second, r.client(4)},
	} {
		duration := less(path, test.duration)
		addr := r.connect(test.c)
		up, err := test.c.StartPing(labHost, 5*time.Millisecond, 200)
		l.Must(err, "ping")
		down, err := r.lan.StartPing(addr, 5*time.Millisecond, 200)
		l.Must(err, "ping")
		done := make(chan error, 1)
		go func() { done <- steady(test.c, r.lan, labHost, duration) }()
		spis := map[string]bool{}
		start := time.Now()
		l.WaitFor(duration, func() bool {
			for _, sa := range r.Rows("/ip ipsec installed-sa print") {
				spis[sa.String("spi")] = true
			}
			time.Sleep(500 * time.Millisecond)
			return time.Since(start) > duration
		})
		if err := <-done; err != nil {
			t.Errorf("%s: TCP: %v", test.name, err)
		}
		for _, p := range []struct {
			name string
			*lab.Pinger
		}{{"up", up}, {"down", down}} {
			sent, received := p.Stop()
			t.Logf("%s, %s: %d of %d echoes came back", test.name, p.name, received, sent)
			if lost := sent - received; lost > 10 {
				t.Errorf("%s, %s: %d of %d echoes were lost", test.name, p.name, lost, sent)
			}
		}
		t.Logf("%s: %d SAs in %v", test.name, len(spis)/2, duration)
		if want := int(duration / (8 * time.Second)); len(spis)/2 < want {
			t.Errorf("%s: %d SAs in %v; the keys were not renewed", test.name, len(spis)/2, duration)
		}
		if rows := r.Rows("/ppp active print"); len(rows) != 1 {
			t.Errorf("%s: %d sessions, want the one there was", test.name, len(rows))
		}
		if err := test.c.Disconnect(t.Context()); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		test.c.Kill()
		if !r.WaitFor(20*time.Second, func() bool { return r.left() == "" }) {
			t.Errorf("%s: left behind: %s", test.name, r.left())
		}
	}
}

// steady sends by TCP in small intact portions, one every 200 ms, until the time is over: about 8 Mbit/s.
func steady(from *lab.Client, to *lab.Node, addr netip.Addr, d time.Duration) error {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if _, err := from.Transfer(to, addr, 200<<10); err != nil {
			return err
		}
	}
	return nil
}

func TestLabRebind(t *testing.T) { inLab(t, onKernel(rebind), lab.Kernels("6.12")) }

// rebind: the NAT in front of a client gets another address. The session goes on, with what the client sends next.
func rebind(t *testing.T, l *lab.L, path labPath) {
	r := newRig(t, l, rigConfig{Path: path})
	c := r.hidden(1, port1701)
	addr := r.connect(c)
	r.reaches(c, addr)
	r.internet.IP("route add 203.0.113.2/32 dev nat")
	r.nat.IP("addr add 203.0.113.2/32 dev eth0", "addr del 203.0.113.1/32 dev eth0") // the NAT forgets what went by the old one
	start := time.Now()
	if _, err := c.Ping(labHost, 20*time.Second); err != nil {
		t.Fatalf("the session did not survive: %v", err)
	}
	t.Logf("goes on after %.2f s", time.Since(start).Seconds())
	r.reaches(c, addr)
	if _, err := r.lan.Transfer(c.Node, addr, 1<<20); err != nil {
		t.Error(err)
	}
	if rows := r.Rows("/ppp active print"); len(rows) != 1 || !strings.HasPrefix(rows[0].String("remote-endpoint"), "203.0.113.2:") {
		t.Errorf("the session as it is seen: %v", rows)
	}
	if err := c.Disconnect(t.Context()); err != nil {
		t.Error(err)
	}
	r.clean()
}
