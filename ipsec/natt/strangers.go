package natt

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"culvert/board/dgram"
	"culvert/ipsec"
)

// What exchanges with strangers begin with, messages whose responder cookie is zero (RFC 2408 section 3.1), can come from
// anybody and faster than anybody can answer. They get a socket of their own beside each of the others, and so a queue of
// their own: a flood fills that, the kernel drops what is too much before it costs us anything, and those that have begun
// an exchange, or have long had their SAs, never wait behind it. A classic BPF program of the sockets' SO_REUSEPORT group
// tells the two apart (Linux 4.5). They are read and answered many at a time, for a system call costs more than an answer.

// Message is one that begins an exchange, valid during the call that it is given to.
type Message struct {
	Path ipsec.Path
	Data []byte
}

const (
	batchFirst = 16        // first messages taken from the kernel at once, and answers given to it
	maxFirst   = 4 << 10   // octets of a first message
	cookieAt   = 8         // where the responder cookie is
	firstQueue = 512 << 10 // octets of them that may wait in the kernel, by its own count twice as many
	maxHeld    = 64 << 10
)

// begins says whether a message is the first of an exchange.
func begins(msg []byte) bool {
	return len(msg) >= minIKE && [8]byte(msg[cookieAt:cookieAt+8]) == [8]byte{}
}

// tellFirst is the program that answers 1 for the first message of an exchange, 0 for all else; what is too short for it
// counts as 0.
func tellFirst(marker bool) (prog []unix.SockFilter) {
	words := []uint32{cookieAt, cookieAt + 4}
	if marker {
		words = []uint32{0, markerLen + cookieAt, markerLen + cookieAt + 4}
	}
	for i, at := range words {
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at},
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(2*(len(words)-i) - 1)})
	}
	return append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 1}, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K})
}

// part opens a socket for first messages beside s, which is bound already: alone, so that another daemon is noticed.
func (c *Conns) part(s *sock, o Options) (*sock, error) {
	share := func(fd uintptr) error { return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
	if err := s.control(share); err != nil {
		return nil, fmt.Errorf("SO_REUSEPORT: %w", err)
	}
	first, err := c.bind(s.local, s.marker, o, share)
	if err != nil {
		return nil, err
	}
	prog := tellFirst(s.marker)
	err = first.control(func(fd uintptr) error {
		return unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]})
	})
	if err != nil {
		first.conn.Close()
		return nil, fmt.Errorf("SO_ATTACH_REUSEPORT_CBPF: %w", err)
	}
	// Both sockets have the kernel join datagrams or neither has: it looks at either of them. First messages that were joined
	// find no room, which serves whoever sent them so.
	if first.dgrams, err = dgram.New(first.conn, dgram.Options{IPv6: s.local.Addr().Is6()}); err != nil {
		first.conn.Close()
		return nil, err
	}
	first.strangers = true
	first.dgrams.SetBuffers(firstQueue)
	return first, nil
}

// control runs f with the socket's descriptor.
func (s *sock) control(f func(fd uintptr) error) error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	return control(raw, f)
}

func control(raw syscall.RawConn, f func(fd uintptr) error) (err error) {
	cerr := raw.Control(func(fd uintptr) { err = f(fd) })
	return errors.Join(cerr, err)
}

// overrun is how many datagrams the kernel has dropped because the socket's queue was full; 0 before Linux 4.12.
func (s *sock) overrun() (n uint64) {
	const soMeminfo, drops = 0x37, 8
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	s.control(func(fd uintptr) error {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, soMeminfo, uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 {
			n = uint64(info[drops])
		}
		return nil
	})
	return n
}

// held are messages that wait to be sent together.
type held struct {
	on   bool
	msgs []heldMessage
	data []byte // of all of them, with their markers
	list []dgram.Datagram
}

type heldMessage struct {
	s    *sock
	path ipsec.Path
	end  int // in data
}

// Together runs f and sends what it has given to Send with as few system calls as there can be. It is for one goroutine
// at a time.
func (c *Conns) Together(f func()) {
	c.mu.Lock()
	c.held.on = true
	c.mu.Unlock()
	f()
	c.mu.Lock()
	defer c.mu.Unlock()
	h := &c.held
	h.on = false
	begin := 0
	for i := 0; i < len(h.msgs); {
		s := h.msgs[i].s
		h.list = h.list[:0]
		for ; i < len(h.msgs) && h.msgs[i].s == s; i++ {
			m := h.msgs[i]
			h.list = append(h.list, dgram.Datagram{Data: h.data[begin:m.end], To: m.path.Remote, From: m.path.Local.Addr()})
			begin = m.end
		}
		if s.burst == nil {
			s.burst = s.dgrams.Burst(batchFirst)
		}
		if failed, err := s.burst.Send(h.list); failed > 0 {
			c.log.Debug("IKE messages not sent", "messages", failed, "error", err)
		}
	}
	clear(h.list)
	clear(h.msgs)
	h.msgs, h.data = h.msgs[:0], h.data[:0]
	if cap(h.data) > maxHeld {
		h.data = nil
	}
}

// hold keeps a message for Together; false if nothing is to be kept.
func (c *Conns) hold(s *sock, path ipsec.Path, msg []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := &c.held
	if !h.on {
		return false
	}
	if s.marker {
		h.data = append(h.data, 0, 0, 0, 0)
	}
	h.data = append(h.data, msg...)
	h.msgs = append(h.msgs, heldMessage{s, path, len(h.data)})
	return true
}

// firsts are first messages of one reader that are handed on together.
type firsts struct {
	recv func([]Message)
	list []Message
}

func (f *firsts) add(p ipsec.Path, b []byte) { f.list = append(f.list, Message{p, b}) }

func (f *firsts) flush() {
	if len(f.list) > 0 {
		f.recv(f.list)
		clear(f.list)
		f.list = f.list[:0]
	}
}
