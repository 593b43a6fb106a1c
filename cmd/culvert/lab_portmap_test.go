package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/lab"
)

// crowdBehindNAT is a rig with n clients behind one NAT that all use port 1701, as Windows does.
func crowdBehindNAT(t *testing.T, l *lab.L, n int, c rigConfig) (*rig, []*lab.Client) {
	t.Helper()
	c.Users = n
	r := newRig(t, l, c)
	if c.Path == pathKernel && len(r.Lines("nftables port mapping")) == 0 {
		t.Fatal("the server does not tell them apart")
	}
	var clients []*lab.Client
	for i := range n {
		clients = append(clients, r.hidden(i+1, port1701))
	}
	return r, clients
}

func TestLabFiveBehindNAT(t *testing.T) {
	inLab(t, onKernel(fiveBehindNAT), lab.Memory("1G"), lab.Timeout(5*time.Minute))
}

// fiveBehindNAT: five clients behind one NAT, all of one port, come and go in any order, and each has its own traffic and
// nobody else's.
func fiveBehindNAT(t *testing.T, l *lab.L, path labPath) {
	const n = 5
	r, clients := crowdBehindNAT(t, l, n, rigConfig{Path: path})
	crowd(t, r, clients)
	ownTraffic(t, r, clients, "all five")

	type step struct{ leave, back []int }
	steps := []step{
		{leave: []int{2}},
		{leave: []int{0, 4}, back: []int{2}},
		{back: []int{4, 0}},
		{leave: []int{4, 3, 2, 1, 0}, back: []int{3}},
		{back: []int{1, 0, 2, 4}},
	}
	if path != pathKernel {
		steps = steps[:3] // nothing there is told apart by ports
	}
	for _, step := range steps {
		for _, i := range step.leave {
			if err := clients[i].Disconnect(t.Context()); err != nil {
				t.Error(err)
			}
		}
		for _, i := range step.back {
			r.connect(clients[i])
		}
		var here []*lab.Client
		for _, c := range clients {
			if c.Addr("ppp0").IsValid() {
				here = append(here, c)
			}
		}
		ownTraffic(t, r, here, fmt.Sprintf("after %v left and %v came", step.leave, step.back))
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
}

// ownTraffic sends datagrams with each client's name in them both ways, all clients at once, and TCP beside them, and
// looks at every packet that comes out of any tunnel, at either end.
func ownTraffic(t *testing.T, r *rig, clients []*lab.Client, when string) {
	t.Helper()
	const port, rounds = 4000, 100
	names := map[netip.Addr]string{}
	for _, c := range clients {
		c.IP("route replace " + labLAN + " dev ppp0")
		names[c.Addr("ppp0")] = c.Name
	}
	if len(names) != len(clients) {
		t.Fatalf("%s: %d clients have %d addresses: %v", when, len(clients), len(names), names)
	}
	rows := r.Rows("/ppp active print")
	if len(rows) != len(clients) {
		t.Fatalf("%s: %d of %d clients are active: %v", when, len(rows), len(clients), rows)
	}
	// At the server each interface hears one client only, and at a client only what is for it.
	var captures []*lab.Capture
	for _, row := range rows {
		addr := row.String("address")
		captures = append(captures, r.server.Capture(row.String("interface"), func(p lab.Packet) bool {
			return !p.Out && p.Src.Addr().Is4() && p.Src.Addr().String() != addr
		}))
	}
	for _, c := range clients {
		addr := c.Addr("ppp0")
		captures = append(captures, c.Capture("ppp0", func(p lab.Packet) bool {
			return !p.Out && p.Dst.Addr().Is4() && p.Dst.Addr() != addr
		}))
	}
	echo, err := r.lan.ListenUDP(netip.AddrPortFrom(labHost, port))
	r.Must(err, "listen")
	defer echo.Close()
	var mu sync.Mutex
	heard := map[string]int{}
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := echo.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			mu.Lock()
			heard[fmt.Sprintf("%s from %s", bytes.TrimRight(b[:n], "."), names[from.Addr().Unmap()])]++
			mu.Unlock()
			echo.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			if _, err := c.Transfer(r.lan, labHost, 2<<20); err != nil {
				t.Errorf("%s: upload by %s: %v", when, c.Name, err)
			}
			if _, err := r.lan.Transfer(c.Node, c.Addr("ppp0"), 2<<20); err != nil {
				t.Errorf("%s: download by %s: %v", when, c.Name, err)
			}
		})
		wg.Go(func() {
			if got, err := echoes(c, port, rounds); err != nil {
				t.Errorf("%s: %s: %v", when, c.Name, err)
			} else if got < rounds*95/100 {
				t.Errorf("%s: %s got %d of %d datagrams back", when, c.Name, got, rounds)
			}
		})
	}
	wg.Wait()
	for _, c := range captures {
		if got := c.Stop(); len(got) > 0 {
			t.Errorf("%s: %d packets of others, the first %v", when, len(got), got[0])
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, c := range clients {
		own := c.Name + " from " + c.Name
		if heard[own] < rounds*95/100 {
			t.Errorf("%s: %d of %d datagrams by %s were heard", when, heard[own], rounds, c.Name)
		}
		delete(heard, own)
	}
	if len(heard) > 0 {
		t.Errorf("%s: heard also %v", when, heard)
	}
}

// echoes sends the client's name, in datagrams of growing size, and counts what comes back; anything else is an error.
func echoes(c *lab.Client, port uint16, rounds int) (got int, err error) {
	conn, err := c.ListenUDP(netip.AddrPortFrom(c.Addr("ppp0"), port))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	b := make([]byte, 2048)
	for i := range rounds {
		text := append([]byte(c.Name), bytes.Repeat([]byte{'.'}, i*10)...)
		if _, err := conn.WriteToUDPAddrPort(text, netip.AddrPortFrom(labHost, port)); err != nil {
			return got, err
		}
		conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		n, _, err := conn.ReadFromUDPAddrPort(b)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			continue
		}
		if err != nil {
			return got, err
		}
		if s := strings.TrimRight(string(b[:n]), "."); s != c.Name {
			return got, fmt.Errorf("received what %q sent", s)
		}
		got++
	}
	return got, nil
}

// A server that is killed leaves no rules in the kernel, not even until it starts again.
func TestLabPortsServerKilled(t *testing.T) {
	inLab(t, func(t *testing.T, l *lab.L) {
		r, clients := crowdBehindNAT(t, l, 2, rigConfig{})
		crowd(t, r, clients)
		r.Kill()
		if rules := r.server.Run("nft", "list", "ruleset"); rules != "" {
			t.Errorf("the dead left rules:\n%s", rules)
		}
		for _, c := range clients {
			c.Kill()
		}
		r.Start()
		r.clean()
		crowd(t, r, clients)
		ownTraffic(t, r, clients, "after a restart")
		// A firewall that is loaded anew does not take the rules away from the clients.
		r.server.Run("nft", "flush", "ruleset")
		ownTraffic(t, r, clients, "after nft flush ruleset")
		for _, c := range clients {
			if err := c.Disconnect(t.Context()); err != nil {
				t.Error(err)
			}
		}
		r.clean()
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
		if rules := r.server.Run("nft", "list", "ruleset"); rules != "" {
			t.Errorf("left after the end:\n%s", rules)
		}
	}, lab.Timeout(3*time.Minute))
}

func TestLabForeignTunnel(t *testing.T) {
	inLab(t, onKernel(foreignTunnel), lab.Timeout(3*time.Minute))
}

// foreignTunnel: a client that knows another's tunnel and session, and has an SA of its own, still gets nothing into them.
func foreignTunnel(t *testing.T, l *lab.L, path labPath) {
	r, clients := crowdBehindNAT(t, l, 2, rigConfig{Path: path})
	crowd(t, r, clients)
	ids := map[string][2]uint16{}
	for _, row := range r.Rows("/ppp active print") {
		ids[row.String("name")] = [2]uint16{uint16(row.Int("tunnel-id")), uint16(row.Int("l2tp-session-id"))}
	}
	victim, attacker := clients[0], clients[1]
	const mark = "forged"
	inside := r.lan.Capture("eth0", func(p lab.Packet) bool { return string(p.Payload) == mark })
	// The attacker's SA takes what leaves from its port 1701, whoever sends it: also what goes past its L2TP daemon.
	sock := boundLike(t, attacker, 1701)
	defer unix.Close(sock)
	send := func(user string, length bool, as netip.Addr) {
		m := l2tpData(ids[user][0], ids[user][1], udp4(as, labHost, 7, mark), length)
		if err := unix.Sendto(sock, m, 0, &unix.SockaddrInet4{Addr: labServer.As4(), Port: 1701}); err != nil {
			t.Fatalf("send: %v", err)
		}
	}
	for range 20 {
		send(victim.Config.User, false, victim.Addr("ppp0"))
		send(victim.Config.User, true, victim.Addr("ppp0"))
	}
	time.Sleep(200 * time.Millisecond)
	send(attacker.Config.User, false, attacker.Addr("ppp0")) // to see that they do come that far
	send(attacker.Config.User, true, attacker.Addr("ppp0"))
	time.Sleep(200 * time.Millisecond)
	own := 0
	for _, p := range inside.Stop() {
		if p.Src.Addr() == victim.Addr("ppp0") {
			t.Errorf("in another's session: %v", p)
			break
		}
		own++
	}
	if own != 2 {
		t.Errorf("%d of 2 packets in its own session came through", own)
	}
	ownTraffic(t, r, clients, "after the attack")
	for _, c := range clients {
		if err := c.Disconnect(t.Context()); err != nil {
			t.Error(err)
		}
	}
	r.clean()
}

// boundLike opens a UDP socket on the client that shares a port with its L2TP daemon.
func boundLike(t *testing.T, c *lab.Client, port int) (fd int) {
	t.Helper()
	var err error
	c.Do(func() {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		// On an address that nothing is sent to, so that it takes nothing away from the daemon.
		if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: c.Up.Addrs[0].As4(), Port: port}); err != nil {
			return
		}
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
	})
	if err != nil {
		t.Fatalf("bind beside the client: %v", err)
	}
	return fd
}
