package main

import (
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"culvert/ipsec"
	"culvert/l2tp"
	"culvert/l2tp/sock"
)

// sockets are those of UDP 1701, and of the ports that clients of ours call from. They change on the loop; the data path
// looks them up at the same time.
type sockets struct {
	list atomic.Pointer[[]*sock.Socket]
}

func (s *sockets) all() []*sock.Socket {
	if p := s.list.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *sockets) set(list []*sock.Socket) { s.list.Store(&list) }

// find returns the socket that listens where the peer sent to, or nil. One of that address alone goes before one of all:
// it may be in a VRF, or a call's own.
func (s *sockets) find(p l2tp.Peer) (found *sock.Socket) {
	for _, x := range s.all() {
		if covers(x.LocalAddr(), p) && (found == nil || found.LocalAddr().Addr().IsUnspecified()) {
			found = x
		}
	}
	return found
}

func (s *sockets) close() {
	for _, x := range s.all() {
		x.Close()
	}
	s.set(nil)
}

// covers says whether a socket bound to local answers for the address that a peer sent to.
func covers(local netip.AddrPort, p l2tp.Peer) bool {
	return local.Port() == p.Local.Port() && local.Addr().Is4() == p.Remote.Addr().Is4() &&
		(local.Addr().IsUnspecified() || local.Addr() == p.Local.Addr())
}

// listen opens a socket and takes it in. Where ESP is our own, marks come with what it delivers: one that a datagram of
// the socket's carries means nothing.
func (d *daemon) listen(addr netip.AddrPort, vrf string) (*sock.Socket, error) {
	s, err := sock.Open(sock.Options{Listen: addr, Reuse: true, Marks: d.path.esp == inKernel, Data: d.dataInSockets(), Control: d.socketIn(vrf)})
	if err != nil {
		return nil, err
	}
	if d.blind(s) && d.ike != nil {
		s.Close()
		return nil, errNoMarks
	}
	d.socks.set(append(slices.Clone(d.socks.all()), s))
	taken, flush := func(l2tp.Peer, []byte) bool { return false }, func() {}
	if d.userL2TP != nil {
		r := d.userL2TP.Receiver()
		taken, flush = r.Deliver, r.Flush
	}
	go s.Serve(func(dg sock.Datagram, msg []byte) {
		p := l2tp.Peer{Local: dg.Local, Remote: dg.Remote, Via: l2tp.Via(dg.Mark & d.mask)}
		if !taken(p, msg) {
			d.receiveControl(p, msg)
		}
	}, flush)
	return s, nil
}

// dataInSockets says that most of the sockets' datagrams are data messages: not if those stay in the kernel, and not if
// they come out of our own ESP, where what the sockets get is at most an exception.
func (d *daemon) dataInSockets() bool {
	return d.userL2TP != nil && (d.path.esp == inKernel || d.ike == nil)
}

func (d *daemon) unlisten(s *sock.Socket) {
	d.socks.set(slices.DeleteFunc(slices.Clone(d.socks.all()), func(x *sock.Socket) bool { return x == s }))
	s.Close()
}

// blind says that the socket does not tell by which SA of the kernel's a datagram came.
func (d *daemon) blind(s *sock.Socket) bool { return d.path.esp == inKernel && !s.Marks() }

var errNoMarks = errors.New("this kernel does not tell by which SA a datagram came (SO_RCVMARK): Linux 5.19 or later is needed for use-ipsec")

// socketIn prepares a socket: in a VRF, if one is named.
func (d *daemon) socketIn(vrf string) func(fd int) error {
	return func(fd int) error {
		if vrf != "" {
			if err := intoVRF(fd, vrf); err != nil {
				return err
			}
		}
		return d.expose(fd)
	}
}

// expose lets the sockets see cleartext where the kernel would drop it for us: the L2TP engine refuses it as strictly,
// and can say who it was.
func (d *daemon) expose(fd int) error {
	if d.xfrm == nil {
		return nil
	}
	return d.xfrm.ExposeSocket(fd)
}

// protect binds a tunnel's own socket to the SA it was born in: the kernel then drops, packet by packet, what comes to it
// by any other way.
func (d *daemon) protect(fd int, p l2tp.Peer) error {
	if dl := d.dialerAt(p); dl != nil && dl.cfg.VRF != "" {
		if err := intoVRF(fd, dl.cfg.VRF); err != nil {
			return err
		}
	}
	if p.Via == 0 || d.xfrm == nil {
		return nil
	}
	return d.xfrm.ProtectSocket(fd, ipsec.Mark(p.Via))
}

// receiveControl hands on a control message; msg is valid only during the call.
func (d *daemon) receiveControl(p l2tp.Peer, msg []byte) {
	p.Via &= l2tp.Via(d.mask) // other bits of the mark are other programs'
	msg = append([]byte(nil), msg...)
	d.loop.offer(func(now time.Time) { d.takeControl(now, p, msg, false) })
}

const (
	earlyWait = 150 * time.Millisecond
	maxEarly  = 64 // messages that wait
)

// takeControl gives a message to the engine. One that has overtaken the end of quick mode, which would be answered before
// there is an SA for the answer, is looked at once more a little later.
func (d *daemon) takeControl(now time.Time, p l2tp.Peer, msg []byte, waited bool) {
	// An SA may carry more than L2TP: what came out of one for a port that is not ours is nothing to us.
	if d.socks.find(p) == nil || d.bans.barred(now, p.Remote.Addr()) {
		return
	}
	if d.secured(p) {
		d.l2tp.Receive(now, p, msg)
		return
	}
	if waited || d.early.Load() >= maxEarly {
		return // it will be sent again
	}
	d.early.Add(1)
	time.AfterFunc(earlyWait, func() {
		d.early.Add(-1)
		d.loop.offer(func(now time.Time) { d.takeControl(now, p, msg, true) })
	})
}

// secured says that there are SAs for what goes to a peer, if it has to have any.
func (d *daemon) secured(p l2tp.Peer) bool { return p.Via == 0 || d.clients[ipsec.Mark(p.Via)] != nil }

// sendControl leaves by the SA that the tunnel was born in, by the socket of the call's own, which may be in a VRF, or by
// the one that listens where the peer sent to. Without its SA it does not leave.
func (d *daemon) sendControl(p l2tp.Peer, msg []byte) {
	if !d.secured(p) {
		return
	}
	var err error
	s := d.socks.find(p)
	if dl := d.dialerAt(p); dl != nil && dl.socket != nil {
		s = dl.socket
	}
	if p.Via != 0 && d.path.esp == inUserspace {
		err = d.userESP.SendMessage(ipsec.Mark(p.Via), p.Local, p.Remote, msg)
	} else if s != nil {
		err = s.Send(sock.Datagram{Local: p.Local, Remote: p.Remote, Mark: uint32(p.Via)}, msg)
	}
	if err != nil {
		d.logger("l2tp").Debug("control message not sent", "remote", p.Remote, "error", err)
	}
}
