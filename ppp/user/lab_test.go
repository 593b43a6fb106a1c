package user

import (
	"fmt"
	"testing"

	"culvert/board/lab"
	l2tpkernel "culvert/l2tp/kernel"
	pppkernel "culvert/ppp/kernel"
)

// TestLabKernel joins a userspace end with the kernel's own L2TP and PPP.
func TestLabKernel(t *testing.T) {
	lab.Run(t, func(t *testing.T, l *lab.L) {
		for _, m := range []mode{{}, {batch: true}, {plain: true}, {sequence: true}, {sequence: true, batch: true}} {
			t.Run(m.String(), func(t *testing.T) { againstKernel(t, m) })
		}
	})
}

func againstKernel(t *testing.T, m mode) {
	kernel, ours := newHost(t), newHost(t)
	// The kernel's end binds to 127.0.0.2 in its own namespace, where our end's socket is as well.
	spec := specFor(2, m.sequence)
	plane := l2tpkernel.New(l2tpkernel.Options{})
	defer plane.Close()
	var channel *pppkernel.Channel
	var unit *pppkernel.Unit
	kernel.run(func() error {
		if err := plane.OpenTunnel(spec.Tunnel); err != nil {
			return err
		}
		if err := plane.OpenSession(spec); err != nil {
			return err
		}
		fd, ok := plane.Session(spec.Tunnel.Local, spec.Local)
		if !ok {
			return fmt.Errorf("no session")
		}
		var err error
		if channel, err = pppkernel.Attach(fd); err != nil {
			return err
		}
		unit, err = channel.OpenUnit(pppkernel.Options{IPv6: true, Net: kernel.net})
		return err
	})
	defer channel.Close()
	frames := make(chan string, 16)
	go channel.Serve(func(f []byte) {
		select {
		case frames <- string(f):
		default:
		}
	})
	e := newEnd(kernel, ours, 1, m)
	lcp := "\xc0\x21\x09\x01\x00\x08\x00\x00\x00\x00"
	for i := range 3 {
		lcp := lcp + string(rune(i))
		if err := e.Send([]byte(lcp)); err != nil {
			t.Fatal(err)
		}
		if got := <-frames; got != lcp {
			t.Errorf("the kernel got %x", got)
		}
		if err := channel.Send([]byte(lcp)); err != nil {
			t.Fatal(err)
		}
		if got := <-e.frames; string(got) != lcp {
			t.Errorf("we got %x", got)
		}
	}
	ours.address(e.unit.Interface(), 1, 1400)
	kernel.address(unit.Interface(), 2, 1400)
	ours.ping("10.0.0.2")
	kernel.ping("-s", "1372", "-M", "do", "10.0.0.1")
	kernel.ping("-s", "4000", "10.0.0.1")
	ours.ping("-6", "-I", e.unit.Name(), "fe80::2")
	const size = 5 << 20
	for _, c := range []struct {
		what     string
		from, to *host
		addr     string
		zone     int
	}{
		{"to the kernel, IPv4", ours, kernel, "10.0.0.2", 0}, {"from the kernel, IPv4", kernel, ours, "10.0.0.1", 0},
		{"to the kernel, IPv6", ours, kernel, "fe80::2", e.unit.Index()}, {"from the kernel, IPv6", kernel, ours, "fe80::1", e.unit.Index()},
	} {
		if c.zone != 0 && e.unit.Index() != unit.Index() {
			t.Errorf("indexes %d and %d", e.unit.Index(), unit.Index())
			continue
		}
		took := transfer(t, c.from, c.to, c.addr, c.zone, size)
		t.Logf("%s: %.0f MB/s", c.what, size/1e6/took.Seconds())
	}
	us, err := e.unit.Stats()
	if err != nil {
		t.Error(err)
	}
	them, err := unit.Stats()
	if err != nil {
		t.Error(err)
	}
	t.Logf("ours %+v, the kernel's %+v", us, them)
	if s, err := plane.SessionStats(spec.Tunnel.Local, spec.Local); err != nil || s.RxErrors != 0 || !m.sequence && s.RxSequenceDrops != 0 {
		t.Errorf("the kernel's session: %+v %v", s, err)
	}
	if s, err := e.plane.SessionStats(e.spec.Tunnel.Local, e.spec.Local); err != nil || s.RxErrors != 0 || s.RxSequenceDrops != 0 {
		t.Errorf("our session: %+v %v", s, err)
	}
	if d := e.plane.Drops(); d.Malformed+d.Foreign != 0 {
		t.Errorf("%+v", d)
	}
}
