package dgram

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Message is one received datagram, valid until the next Read.
type Message struct {
	Data []byte
	From netip.AddrPort
	// To is which of our addresses it was sent to; invalid if the socket was not told to say (IP_PKTINFO, IPV6_RECVPKTINFO).
	To   netip.Addr
	Mark uint32 // with SO_RCVMARK
	// Truncated says that it was longer than there was room for.
	Truncated bool
}

// Reader takes datagrams from the kernel.
type Reader struct {
	c     *Conn
	msgs  []mmsghdr
	iovs  []unix.Iovec
	from  []unix.RawSockaddrInet6 // the larger one
	ctl   [][ctlIn]byte
	bufs  [][]byte
	one   bool // the kernel gives no more than one at a time
	n     int
	errno unix.Errno
	fn    func(fd uintptr) bool
	msg   Message
}

const (
	ctlIn   = 128     // octets of control messages: address, mark, size of the parts
	joinLen = 1 << 16 // what joined datagrams may come to
)

// Reader makes one that takes up to messages datagrams at once, each of at most size octets. Where the kernel joins
// datagrams each of them is up to 64 KiB; only the memory that is written to is ever there.
func (c *Conn) Reader(messages, size int) *Reader {
	if c.joined {
		size = max(size, joinLen)
	}
	r := &Reader{
		c: c, msgs: make([]mmsghdr, messages), iovs: make([]unix.Iovec, messages), bufs: make([][]byte, messages),
		from: make([]unix.RawSockaddrInet6, messages), ctl: make([][ctlIn]byte, messages),
	}
	all := make([]byte, messages*size)
	for i := range r.msgs {
		r.bufs[i] = all[i*size : (i+1)*size : (i+1)*size]
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(size)
		h := &r.msgs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.from[i]))
		h.Control = &r.ctl[i][0]
	}
	r.fn = r.receive
	return r
}

func (r *Reader) receive(fd uintptr) bool {
	for {
		var n uintptr
		if r.one {
			n, _, r.errno = unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0].hdr)), unix.MSG_DONTWAIT)
			r.msgs[0].n, n = uint32(n), 1
		} else {
			n, _, r.errno = unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.msgs[0])), uintptr(len(r.msgs)), unix.MSG_DONTWAIT, 0, 0)
		}
		switch r.errno {
		case unix.EAGAIN:
			return false // to wait
		case unix.EINTR:
			continue
		case unix.ENOSYS:
			if !r.one {
				r.one = true
				continue
			}
		}
		r.n = int(n)
		return true
	}
}

// Read waits for datagrams and calls deliver with each that is there. The error of a closed socket is net.ErrClosed, or
// os.ErrClosed of a file.
func (r *Reader) Read(deliver func(m *Message)) error {
	for i := range r.msgs { // the kernel wrote what it used
		h := &r.msgs[i].hdr
		h.Namelen, h.Flags = unix.SizeofSockaddrInet6, 0
		h.SetControllen(ctlIn)
	}
	r.errno = 0
	if err := r.c.raw.Read(r.fn); err != nil {
		return err
	}
	if r.errno != 0 {
		return r.errno
	}
	for i := range r.n {
		h := &r.msgs[i].hdr
		m := &r.msg
		*m = Message{From: addrPort(&r.from[i]), Truncated: h.Flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0}
		part := m.parse(r.ctl[i][:min(int(h.Controllen), ctlIn)])
		data := r.bufs[i][:min(int(r.msgs[i].n), len(r.bufs[i]))]
		if part <= 0 || part >= len(data) {
			m.Data = data
			deliver(m)
			continue
		}
		for len(data) > 0 { // all parts are of one size but the last, which may be shorter
			n := min(part, len(data))
			m.Data = data[:n:n]
			data = data[n:]
			deliver(m)
		}
	}
	return nil
}

// parse finds what the control messages tell, and the size of the parts of joined datagrams. The library's parser
// allocates.
func (m *Message) parse(b []byte) (part int) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
		n := int(h.Len)
		if n < unix.CmsgLen(0) || n > len(b) {
			return part
		}
		data := b[unix.CmsgLen(0):n]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// ipi_spec_dst, which is our address even where the datagram was broadcast.
			m.To = netip.AddrFrom4([4]byte(data[4:8]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			m.To = netip.AddrFrom16([16]byte(data[:16]))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_MARK && len(data) >= 4:
			m.Mark = binary.NativeEndian.Uint32(data)
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			part = int(int32(binary.NativeEndian.Uint32(data)))
		}
		next := unix.CmsgSpace(len(data))
		if next > len(b) {
			return part
		}
		b = b[next:]
	}
	return part
}
