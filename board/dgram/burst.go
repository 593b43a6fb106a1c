package dgram

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Datagram is one to send.
type Datagram struct {
	Data []byte
	To   netip.AddrPort
	From netip.Addr // one of our addresses; invalid or unspecified: the kernel chooses
}

// Burst sends datagrams to an address each, many with one system call. It is for one goroutine.
type Burst struct {
	c     *Conn
	msgs  []mmsghdr
	iovs  []unix.Iovec
	to    []unix.RawSockaddrInet6
	ctl   [][ctlSource]byte
	one   bool // the kernel takes one at a time only
	count int
	sent  int
	errno syscall.Errno
	fn    func(fd uintptr) bool
}

const ctlSource = 64 // octets of a control message with an address

// Burst makes one that sends up to messages datagrams at once.
func (c *Conn) Burst(messages int) *Burst {
	b := &Burst{
		c: c, msgs: make([]mmsghdr, messages), iovs: make([]unix.Iovec, messages),
		to: make([]unix.RawSockaddrInet6, messages), ctl: make([][ctlSource]byte, messages),
	}
	b.fn = b.send
	return b
}

// Send sends datagrams in order. One that the kernel refuses, for instance for want of a route, does not keep the rest;
// failed is how many were refused, and err why the last one was.
func (b *Burst) Send(list []Datagram) (failed int, err error) {
	for len(list) > 0 {
		b.count = min(len(list), len(b.msgs))
		if b.one {
			b.count = 1
		}
		for i, d := range list[:b.count] {
			b.fill(i, d)
		}
		if err := b.c.raw.Write(b.fn); err != nil {
			return failed + len(list), err
		}
		if b.errno != 0 { // the first one's
			failed, err, b.sent = failed+1, b.errno, 1
		}
		list = list[b.sent:]
	}
	clear(b.iovs)
	return failed, err
}

func (b *Burst) fill(i int, d Datagram) {
	b.iovs[i].Base = unsafe.SliceData(d.Data)
	b.iovs[i].SetLen(len(d.Data))
	h := &b.msgs[i].hdr
	*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&b.to[i])), Namelen: putAddrPort(&b.to[i], b.c.ipv6, d.To), Iov: &b.iovs[i]}
	h.SetIovlen(1)
	from := d.From.Unmap()
	if from.IsValid() && !from.IsUnspecified() && from.Is4() != b.c.ipv6 {
		ctl := appendSource(b.ctl[i][:0], from)
		h.Control = &ctl[0]
		h.SetControllen(len(ctl))
	}
}

func (b *Burst) send(fd uintptr) (done bool) {
	b.sent, b.errno, done = sendAll(fd, b.msgs[:b.count], &b.one)
	return done
}
