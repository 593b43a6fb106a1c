package user

import (
	"bytes"
	"testing"
)

// pipe is a Lower that keeps what was sent last.
type pipe struct {
	deliver func([]byte, bool)
	flush   func()
	ready   chan struct{} // closed by Receive
	done    chan struct{}
	sent    []byte
	batches int
}

func newPipe() *pipe {
	return &pipe{ready: make(chan struct{}), done: make(chan struct{}), sent: make([]byte, 0, 2048)}
}

func (p *pipe) Receive(deliver func([]byte, bool), flush func()) {
	p.deliver, p.flush = deliver, flush
	close(p.ready)
}

func (p *pipe) Send(buf []byte, at int) error {
	if at < Headroom || cap(buf)-len(buf) < Tailroom {
		panic("no room around the frame")
	}
	p.sent = append(p.sent[:0], buf[at:]...)
	return nil
}

func (p *pipe) SendBatch(bufs [][]byte, at int) error {
	for _, b := range bufs {
		p.Send(b, at)
	}
	p.batches++
	return nil
}

func (p *pipe) Done() <-chan struct{} { return p.done }

func TestControlFrames(t *testing.T) {
	p := newPipe()
	c, err := Attach(p)
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	ended := make(chan error)
	go func() { ended <- c.Serve(func(f []byte) { got = append(got[:0], f...) }) }()
	<-p.ready
	long := append([]byte{0xc0, 0x21}, make([]byte, readSize)...)
	for _, f := range []struct {
		in, want string
	}{
		{"\xc0\x21\x09\x01\x00\x04", "\xc0\x21\x09\x01\x00\x04"},
		{"\xff\x03\xc0\x21\x09\x01\x00\x04", "\xc0\x21\x09\x01\x00\x04"},
		{"\x80\x21\x01\x01\x00\x04", "\x80\x21\x01\x01\x00\x04"},
		{"\xff\x03\xfd\x01", "\x00\xfd\x01"},   // compressed protocol field
		{"\x00\xfd\x01", "\x00\xfd\x01"},       //
		{"\x00\x21\x45", ""}, {"\x21\x45", ""}, // no unit yet
		{"\xff\x03", ""}, {"", ""}, {"\xc0", ""}, // truncated
		{string(long), ""}, {string(long[:readSize]), string(long[:readSize])},
	} {
		got = got[:0]
		p.deliver([]byte(f.in), false)
		if string(got) != f.want {
			t.Errorf("%x: %x, want %x", f.in, got, f.want)
		}
	}
	if c.Dropped() != 6 {
		t.Errorf("%d dropped", c.Dropped())
	}
	for _, f := range [][]byte{{0xc0, 0x21, 1, 1, 0, 4}, long[:readSize]} {
		if err := c.Send(f); err != nil || !bytes.Equal(p.sent, f) {
			t.Errorf("sent %x: %v", p.sent, err)
		}
	}
	for _, f := range [][]byte{nil, {0xc0}, long} {
		if err := c.Send(f); err == nil {
			t.Errorf("%d octets sent", len(f))
		}
	}
	frame := []byte{0xc0, 0x21, 9, 1, 0, 4}
	if n := testing.AllocsPerRun(100, func() { c.Send(frame); p.deliver(frame, true) }); n != 0 {
		t.Errorf("%v allocations per control frame", n)
	}
	c.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got = got[:0]
	p.deliver(frame, false)
	if len(got) != 0 {
		t.Error("delivered after Close")
	}
	close(p.done)
	if _, err := Attach(p); err != ErrGone {
		t.Errorf("attached to what has ended: %v", err)
	}
}
