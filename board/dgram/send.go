package dgram

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxMessages = 32     // sent with one system call
	maxParts    = 64     // of datagrams that are sent as one: UDP_MAX_SEGMENTS
	maxCut      = 0xff00 // octets of them
	ctlOut      = 128    // octets of control messages: address, mark, size of the parts
)

// sender is what a system call that sends needs; mu covers all of it.
type sender struct {
	mu    sync.Mutex
	cut   bool // the kernel cuts datagrams
	one   bool // the kernel takes one at a time only
	to    unix.RawSockaddrInet6
	msgs  [maxMessages]mmsghdr
	parts [maxMessages]int // datagrams in each
	ctl   [maxMessages][ctlOut]byte
	iovs  [maxParts + maxMessages]unix.Iovec
	count int // messages to send
	sent  int
	errno syscall.Errno
	fn    func(fd uintptr) bool
	solo  [1][]byte
}

func (s *sender) prepare(c *Conn) {
	s.fn = s.send
	for i := range s.msgs {
		s.msgs[i].hdr.Name = (*byte)(unsafe.Pointer(&s.to))
		s.msgs[i].hdr.Control = &s.ctl[i][0]
	}
}

func (s *sender) send(fd uintptr) (done bool) {
	s.sent, s.errno, done = sendAll(fd, s.msgs[:s.count], &s.one)
	return done
}

// sendAll gives the kernel messages, one where it takes one at a time only, which is found out. sent is how many have gone
// and errno why the first has not; not done: the socket is full.
func sendAll(fd uintptr, msgs []mmsghdr, one *bool) (sent int, errno syscall.Errno, done bool) {
	for {
		var n uintptr
		if *one {
			_, _, errno = unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msgs[0].hdr)), 0)
			n = 1
		} else {
			n, _, errno = unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)), 0, 0, 0)
		}
		switch errno {
		case unix.EAGAIN:
			return 0, errno, false
		case unix.EINTR:
			continue
		case unix.ENOSYS:
			if !*one {
				*one = true
				continue
			}
		}
		return int(n), errno, true
	}
}

// Send sends datagrams in order to one address, from one of ours unless that is unspecified or invalid, and with a mark
// unless it is zero (which needs CAP_NET_ADMIN). It says how many have gone; the error is that of the next.
func (c *Conn) Send(to netip.AddrPort, from netip.Addr, mark uint32, packets ...[]byte) (sent int, err error) {
	s := &c.out
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sendAll(c, to, from, mark, packets)
}

// SendOne is Send for one datagram.
func (c *Conn) SendOne(to netip.AddrPort, from netip.Addr, mark uint32, packet []byte) error {
	s := &c.out
	s.mu.Lock()
	defer s.mu.Unlock()
	s.solo[0] = packet
	_, err := s.sendAll(c, to, from, mark, s.solo[:])
	s.solo[0] = nil
	return err
}

func (s *sender) sendAll(c *Conn, to netip.AddrPort, from netip.Addr, mark uint32, packets [][]byte) (sent int, err error) {
	if to.Addr().Unmap().Is4() == c.ipv6 {
		return 0, unix.EAFNOSUPPORT
	}
	name := putAddrPort(&s.to, c.ipv6, to)
	from = from.Unmap()
	if from.IsValid() && (from.IsUnspecified() || from.Is4() == c.ipv6) {
		from = netip.Addr{}
	}
	whole := 0 // of what comes next, so many are not to be sent as one
	for sent < len(packets) {
		taken := s.fill(packets[sent:], name, from, mark, &whole)
		err := c.raw.Write(s.fn)
		clear(s.iovs[:taken])
		switch {
		case err != nil:
			return sent, err
		case s.errno == 0:
			for i := range s.sent {
				sent += s.parts[i]
			}
			whole = max(0, whole-s.done())
		case s.parts[0] > 1 && s.errno == unix.EIO: // the way out cannot do checksums, or IPsec is on it
			s.cut = false
		case s.parts[0] > 1: // larger than the MTU, which only fragments of each alone can pass
			whole = s.parts[0]
		default:
			return sent, s.errno
		}
	}
	return sent, nil
}

// done is how many datagrams the last call has sent.
func (s *sender) done() (n int) {
	for i := range s.sent {
		n += s.parts[i]
	}
	return n
}

// fill makes messages of as many packets as fit, and says how many there are.
func (s *sender) fill(packets [][]byte, name uint32, from netip.Addr, mark uint32, whole *int) (taken int) {
	most := maxMessages
	if s.one {
		most = 1
	}
	for s.count = 0; s.count < most && taken < len(packets); s.count++ {
		run := 1
		if s.cut && taken >= *whole {
			run = alike(packets[taken:], maxParts+maxMessages-taken)
		}
		if taken+run > len(s.iovs) {
			break
		}
		h := &s.msgs[s.count].hdr
		for i, p := range packets[taken : taken+run] {
			s.iovs[taken+i].Base = unsafe.SliceData(p)
			s.iovs[taken+i].SetLen(len(p))
		}
		h.Iov = &s.iovs[taken]
		h.SetIovlen(run)
		h.Namelen = name
		ctl := s.ctl[s.count][:0]
		if from.IsValid() {
			ctl = appendSource(ctl, from)
		}
		if mark != 0 {
			ctl = appendControl(ctl, unix.SOL_SOCKET, unix.SO_MARK, 4)
			binary.NativeEndian.PutUint32(ctl[len(ctl)-unix.CmsgSpace(4)+unix.CmsgLen(0):], mark)
		}
		if run > 1 {
			ctl = appendControl(ctl, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
			binary.NativeEndian.PutUint16(ctl[len(ctl)-unix.CmsgSpace(2)+unix.CmsgLen(0):], uint16(len(packets[taken])))
		}
		h.Control = &s.ctl[s.count][0]
		if len(ctl) == 0 {
			h.Control = nil
		}
		h.SetControllen(len(ctl))
		s.parts[s.count] = run
		taken += run
	}
	return taken
}

// alike is how many packets from the first on can go as one: of one size, but for the last, which may be shorter.
func alike(packets [][]byte, room int) int {
	size, total, n := len(packets[0]), 0, 0
	if size == 0 {
		return 1
	}
	for _, p := range packets[:min(len(packets), maxParts, room)] {
		if len(p) > size || len(p) == 0 || total+len(p) > maxCut {
			break
		}
		n, total = n+1, total+len(p)
		if len(p) < size {
			break
		}
	}
	return max(n, 1)
}

// appendSource appends the control message that sends from an address. The kernel picks the interface.
func appendSource(b []byte, from netip.Addr) []byte {
	if from.Is4() {
		b = appendControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		a := from.As4()
		copy(b[len(b)-unix.CmsgSpace(unix.SizeofInet4Pktinfo)+unix.CmsgLen(0)+4:], a[:]) // ipi_spec_dst
		return b
	}
	b = appendControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	a := from.As16()
	copy(b[len(b)-unix.CmsgSpace(unix.SizeofInet6Pktinfo)+unix.CmsgLen(0):], a[:])
	return b
}

// appendControl appends a control message with n octets of zeroes for data. CmsgSpace keeps the next one aligned.
func appendControl(b []byte, level, kind int32, n int) []byte {
	at := len(b)
	b = b[:at+unix.CmsgSpace(n)]
	clear(b[at:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(n))
	return b
}
