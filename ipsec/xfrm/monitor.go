package xfrm

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sort"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
	"culvert/ipsec"
)

// sameMapping is how long one peer's same new address is not reported again; the kernel reports it for every packet.
const sameMapping = time.Second

// monitorBuffer is what the kernel may queue of reports, in octets.
const monitorBuffer = 256 << 10

func openMonitor() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_XFRM)
	if err != nil {
		return nil, fmt.Errorf("xfrm: open monitor: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("xfrm: bind monitor: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, monitorBuffer)
	for _, group := range []int{groupExpire, groupMapping} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("xfrm: monitor group %d: %w", group, err)
		}
	}
	return os.NewFile(uintptr(fd), "xfrm monitor"), nil
}

// Serve starts a goroutine that calls f with the kernel's reports on SAs of this Backend until Close. It is called once.
// If reports were lost, the SAs are looked through for what was missed.
func (b *Backend) Serve(f func(ipsec.Event)) {
	go b.serve(func(e ipsec.Event) {
		if !b.closed.Load() {
			f(e)
		}
	})
}

func (b *Backend) serve(f func(ipsec.Event)) {
	raw, err := b.monitor.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 16<<10)
	for {
		var n int
		var from unix.Sockaddr
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			n, from, rerr = unix.Recvfrom(int(fd), buf, 0)
			return rerr != unix.EAGAIN && rerr != unix.EINTR
		})
		switch {
		case err != nil: // closed
			return
		case rerr == unix.ENOBUFS:
			b.log.Warn("the kernel's reports came too fast and some are lost, looking through all SAs")
			b.resync(f)
			continue
		case rerr != nil:
			b.log.Error("the kernel's reports on SAs cannot be read", "err", rerr)
			time.Sleep(time.Second)
			continue
		}
		if !netlink.FromKernel(from) {
			continue
		}
		err = netlink.Messages(buf[:n], func(h netlink.Header, m []byte) error {
			e, ok, err := b.event(time.Now(), h.Kind, m)
			if ok {
				f(e)
			}
			return err
		})
		if err != nil {
			b.log.Warn("a report of the kernel cannot be read", "err", err)
		}
	}
}

// event turns a report into an Event, and says whether it is about an SA of ours and new.
func (b *Backend) event(now time.Time, kind uint16, m []byte) (ipsec.Event, bool, error) {
	switch kind {
	case msgExpire:
		if len(m) < host.lenExpire() {
			return ipsec.Event{}, false, short("expiry", len(m), host.lenExpire())
		}
		s, err := parseState(host, m, host.lenExpire())
		if err != nil || !b.oursByReqid(s.reqid) {
			return ipsec.Event{}, false, err
		}
		e, ok := b.expired(b.idOf(s), m[host.offExpireHard()] != 0)
		return e, ok, nil
	case msgMapping:
		id, reqid, remote, err := parseMapping(host, m)
		if err != nil || !b.oursByReqid(reqid) {
			return ipsec.Event{}, false, err
		}
		e, ok := b.mapped(now, ipsec.SAID{Dir: ipsec.In, SPI: id, Mark: b.markOf(reqid)}, remote)
		return e, ok, nil
	}
	return ipsec.Event{}, false, nil
}

func (b *Backend) oursByReqid(reqid uint32) bool { return b.markOf(reqid) != 0 }

// expired notes an expiry. The policy of a dead SA stays until its owner removes it: nothing leaves in clear meanwhile.
func (b *Backend) expired(id ipsec.SAID, hard bool) (ipsec.Event, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.live(id)
	switch {
	case e == nil:
		return ipsec.Event{}, false
	case hard:
		e.dead = true
		e.wipe()
		return ipsec.Event{Kind: ipsec.EventHardExpire, ID: id}, true
	case e.softTold:
		return ipsec.Event{}, false
	}
	e.softTold = true
	return ipsec.Event{Kind: ipsec.EventSoftExpire, ID: id}, true
}

// mapped notes that a peer's packets come from elsewhere.
func (b *Backend) mapped(now time.Time, id ipsec.SAID, remote netip.AddrPort) (ipsec.Event, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.live(id)
	if e == nil || e.sa.Remote == remote.Addr() && e.sa.Encap.Remote == remote.Port() {
		return ipsec.Event{}, false
	}
	if e.mapped == remote && now.Sub(e.mappedTold) < sameMapping {
		return ipsec.Event{}, false
	}
	e.mapped, e.mappedTold = remote, now
	return ipsec.Event{Kind: ipsec.EventMapping, ID: id, Remote: remote}, true
}

func (b *Backend) live(id ipsec.SAID) *entry {
	c := b.clients[id.Mark]
	if c == nil {
		return nil
	}
	if e := c.find(id); e != nil && !e.dead {
		return e
	}
	return nil
}

// resync reports the expiries that were missed. Mappings need none of it: the next packet reports again.
func (b *Backend) resync(f func(ipsec.Event)) {
	b.mu.Lock()
	var ids []ipsec.SAID
	for _, c := range b.clients {
		for _, e := range c.sas {
			ids = append(ids, e.sa.ID())
		}
	}
	b.mu.Unlock()
	sort.Slice(ids, func(i, j int) bool {
		x, y := ids[i], ids[j]
		return cmp.Or(cmp.Compare(x.Mark, y.Mark), cmp.Compare(x.SPI, y.SPI)) < 0
	})
	for _, id := range ids {
		if b.closed.Load() {
			return
		}
		b.mu.Lock()
		_, s, err := b.lookup(id)
		soft := err == nil && s.softPassed(time.Now())
		b.mu.Unlock()
		var e ipsec.Event
		var ok bool
		switch {
		case errors.Is(err, ipsec.ErrNoSA):
			e, ok = b.expired(id, true)
		case soft:
			e, ok = b.expired(id, false)
		}
		if ok {
			f(e)
		}
	}
}

// softPassed says whether a soft limit has been reached.
func (s *state) softPassed(now time.Time) bool {
	softBytes, softPackets, softSeconds := s.limits[0], s.limits[2], s.limits[4]
	age := now.Unix() - int64(s.added)
	return s.bytes >= softBytes || s.packets >= softPackets || softSeconds != 0 && age >= 0 && uint64(age) >= softSeconds
}

// parseMapping reads struct xfrm_user_mapping.
func parseMapping(l layout, m []byte) (spi ipsec.SPI, reqid uint32, remote netip.AddrPort, err error) {
	if len(m) < lenMapping {
		return 0, 0, netip.AddrPort{}, short("mapping", len(m), lenMapping)
	}
	family := l.Uint16(m[20:])
	if family != unix.AF_INET && family != unix.AF_INET6 {
		return 0, 0, netip.AddrPort{}, fmt.Errorf("mapping of address family %d", family)
	}
	remote = netip.AddrPortFrom(getAddr(m[44:], family), be16(m[62:]))
	return getSPI(m[16:]), l.Uint32(m[24:]), remote, nil
}
