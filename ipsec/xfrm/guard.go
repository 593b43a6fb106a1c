package xfrm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
)

// Guard switches on or off that UDP to and from the L2TP ports passes only through SAs: what arrives in clear is dropped
// (XfrmInTmplMismatch in /proc/net/xfrm_stat) and what would leave without a client's SA is refused with EPERM.
func (b *Backend) Guard(on bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.guard(on)
}

func (b *Backend) guard(on bool) error {
	if !on {
		var errs []error
		for len(b.guarded) > 0 {
			errs = append(errs, b.deletePolicy(b.guarded[0]))
			b.guarded = b.guarded[1:]
		}
		return errors.Join(errs...)
	}
	if len(b.guarded) > 0 {
		return nil
	}
	for _, v6 := range []bool{false, true} {
		for _, port := range b.o.Ports {
			for _, p := range guardPolicies(v6, port) {
				err := b.putPolicy(p)
				if v6 && errors.Is(err, unix.EAFNOSUPPORT) {
					continue // a kernel without IPv6
				}
				if err != nil {
					return errors.Join(err, b.guard(false))
				}
				b.guarded = append(b.guarded, p)
			}
		}
	}
	return nil
}

// ExposeSocket lets a UDP socket receive what did not come out of an SA, in spite of the guard: its owner wants to see
// who comes in the clear, to say so, and tells by the mark. Nothing more may leave by it. The caller needs CAP_NET_ADMIN.
func (b *Backend) ExposeSocket(fd int) error {
	return setPolicy(fd, "expose", policy{dir: dirIn, action: actionAllow, priority: priorityMark})
}

// ProtectSocket makes the kernel drop whatever reaches the socket (IPv4 or IPv6) without having come out of one of the
// mark's inbound SAs, before the socket's owner or the L2TP code in the kernel sees it. It replaces the guard for this
// socket and ends with it. The caller needs CAP_NET_ADMIN.
func (b *Backend) ProtectSocket(fd int, m ipsec.Mark) error {
	if m == 0 || uint32(m)&^b.o.MarkMask != 0 {
		return fmt.Errorf("xfrm: protect socket: mark %s is not one under the mask %#x", m, b.o.MarkMask)
	}
	return setPolicy(fd, "protect", policy{
		dir: dirIn, action: actionAllow, priority: priorityMark, tmpl: true, reqid: reqidOf(m, b.o.MarkMask),
	})
}

// setPolicy gives a socket a policy of its own, for all that it receives or sends.
func setPolicy(fd int, what string, p policy) error {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("xfrm: %s socket: %w", what, err)
	}
	level, opt := unix.IPPROTO_IP, unix.IP_XFRM_POLICY
	if domain == unix.AF_INET6 {
		level, opt = unix.IPPROTO_IPV6, unix.IPV6_XFRM_POLICY
	}
	p.sel = selector{family: uint16(domain)}
	// The option takes the two structures one after the other, without attributes.
	v := p.info(host, nil)
	if p.tmpl {
		v = p.template(host, v)
	}
	if err := unix.SetsockoptString(fd, level, opt, string(v)); err != nil {
		return fmt.Errorf("xfrm: %s socket: %w", what, err)
	}
	return nil
}
