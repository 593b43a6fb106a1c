package user

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"culvert/ppp/netif"

	"golang.org/x/sys/unix"
)

// Options of a unit.
type Options struct {
	Name string       // of the interface; empty: ppp and a number
	MRU  int          // largest packet we said we take; larger ones are taken all the same
	IPv6 bool         // let IPv6 packets pass; otherwise they are dropped
	Net  *netif.Netif // to share; nil opens one for this unit

	// Standby is the interface to use, already made; its name stays. Nil: one is made, and goes with the channel.
	Standby *Standby

	plain bool // no offloads even where the kernel has them
}

// Unit is a link's upper half, the network interface. It lives until its Channel is closed, or its Standby.
type Unit struct {
	channel *Channel // of a unit without a standby
	standby *Standby
	tun     *tun
	ipv6    atomic.Bool
	iface   *netif.Interface
	net     *netif.Netif // ours to close, or nil
	opened  time.Time

	// Of the goroutine that reads the TUN.
	batch   *batch
	readErr syscall.Errno

	mu      sync.Mutex // of writing to the TUN
	join    coalescer
	heard   bool // something has come since lastRx
	stopped bool

	rxPackets, rxBytes, rxDropped, txPackets, txBytes, txDropped atomic.Uint64
	lastRx, lastTx                                               atomic.Int64 // nanoseconds since opened
}

// OpenUnit makes the interface, still down and without addresses, and joins the channel to it. A taken name is
// netif.ErrExists. Making an interface waits for the kernel's RTNL lock: tens of milliseconds. It comes to be in the
// network namespace of the thread that calls, which has to be that of Options.Net.
func (c *Channel) OpenUnit(o Options) (*Unit, error) {
	if o.Name != "" {
		if err := netif.CheckName(o.Name); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.isClosed():
		return nil, ErrClosed
	case c.unit.Load() != nil:
		return nil, errors.New("ppp channel: a unit is open already")
	}
	if o.Standby != nil {
		u, err := o.Standby.join(c, o)
		if err == nil {
			c.unit.Store(u)
		}
		return u, err
	}
	u := &Unit{channel: c, opened: time.Now()}
	u.ipv6.Store(o.IPv6)
	if o.Net == nil {
		n, err := netif.New()
		if err != nil {
			return nil, err
		}
		o.Net, u.net = n, n
	}
	if err := u.open(o); err != nil {
		if u.net != nil {
			u.net.Close()
		}
		return nil, fmt.Errorf("ppp unit %s: %w", o.Name, err)
	}
	c.unit.Store(u)
	go u.read()
	return u, nil
}

func (u *Unit) open(o Options) (err error) {
	name := o.Name
	if name == "" {
		name = "ppp%d"
	}
	if u.tun, err = openTUN(name, o.plain); err != nil {
		return err
	}
	if u.iface, err = o.Net.ByName(u.tun.name); err != nil {
		u.tun.file.Close()
		return err
	}
	return nil
}

// read sends what the kernel routes to the interface, until it is closed or taken away.
func (u *Unit) read() {
	fill := u.fill
	for {
		err := u.tun.raw.Read(fill)
		if u.batch != nil {
			u.sendBatch()
			u.batch.put()
			u.batch = nil
		}
		switch {
		case u.isClosed():
			return
		case err != nil, u.readErr == unix.EBADFD: // the poller tells of nothing else
			u.fail(fmt.Errorf("ppp unit %s: %w", u.tun.name, netif.ErrGone))
			return
		case u.readErr != 0:
			u.fail(fmt.Errorf("ppp unit %s: read: %w", u.tun.name, u.readErr))
			return
		}
	}
}

// sendBatch sends what has gathered and makes room.
func (u *Unit) sendBatch() {
	b := u.batch
	if c := u.carrier(b); b.count > 0 && c != nil && !c.isClosed() {
		octets := 0
		for _, f := range b.frames[:b.count] {
			octets += len(f) - Headroom - 2
		}
		u.txPackets.Add(uint64(b.count))
		u.txBytes.Add(uint64(octets))
		u.lastTx.Store(int64(time.Since(u.opened)))
		// Lower counts its errors; there is nobody to tell for a packet that is lost.
		_ = c.lower.SendBatch(b.frames[:b.count], Headroom)
	}
	b.reset()
}

// protocolOf is the PPP protocol of a packet, if it may pass.
func (u *Unit) protocolOf(packet []byte) (uint16, bool) {
	if len(packet) == 0 {
		return 0, false
	}
	switch packet[0] >> 4 {
	case 4:
		return protocolIPv4, true
	case 6:
		return protocolIPv6, u.ipv6.Load()
	}
	return 0, false
}

// receive gives the kernel one packet of the peer's, at once or joined with those that follow it. What the packet says
// it is has to be what its frame said: the kernel believes the packet.
func (u *Unit) receive(protocol uint16, packet []byte, more bool) {
	if p, ok := u.protocolOf(packet); !ok || p != protocol || len(packet) > maxPacket {
		u.rxDropped.Add(1)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stopped {
		return
	}
	u.rxPackets.Add(1)
	u.rxBytes.Add(uint64(len(packet)))
	if more {
		u.heard = true
	} else {
		u.lastRx.Store(int64(time.Since(u.opened)))
	}
	if !more || !u.tun.gso {
		u.writePending()
		u.write(packet, vnetHeader{})
		return
	}
	s, ok := parseSegment(packet)
	if ok && u.join.join(s, packet) {
		return
	}
	u.writePending()
	if !ok || s.push || !u.borrow() {
		u.write(packet, vnetHeader{})
		return
	}
	u.join.begin(s, packet)
}

// flush ends a batch of received packets.
func (u *Unit) flush() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.heard {
		// Once a batch: on many boards a look at the clock is a system call.
		u.heard = false
		u.lastRx.Store(int64(time.Since(u.opened)))
	}
	if u.tun.gso {
		u.writePending()
		u.release()
	}
}

func (u *Unit) writePending() {
	if u.join.n > 0 {
		count := u.join.count
		h, packet := u.join.finish()
		if !u.write(packet, h) {
			u.rxDropped.Add(uint64(count - 1))
		}
	}
}

func (u *Unit) write(packet []byte, h vnetHeader) bool {
	if err := u.tun.write(packet, h); err != nil {
		u.rxDropped.Add(1) // the interface is down, or the kernel short of memory
		return false
	}
	return true
}

// joinBuffers holds the memory in which segments are joined. Links take it for the length of a batch; one that finds
// none goes on without.
var joinBuffers = make(chan []byte, maxJoinBuffers)

const maxJoinBuffers = 8

var joinBuffersMade atomic.Int32

// borrow makes sure that there is memory to join in.
func (u *Unit) borrow() bool {
	if u.join.buf != nil {
		return true
	}
	select {
	case u.join.buf = <-joinBuffers:
		return true
	default:
	}
	if joinBuffersMade.Load() < maxJoinBuffers && joinBuffersMade.Add(1) <= maxJoinBuffers {
		u.join.buf = make([]byte, maxJoined)
		return true
	}
	return false
}

func (u *Unit) release() {
	if u.join.buf != nil {
		joinBuffers <- u.join.buf // there is room for all that were made
		u.join.buf = nil
	}
}

// isClosed says that the reader has nothing more to do.
func (u *Unit) isClosed() bool {
	if u.standby != nil {
		return u.standby.isClosed()
	}
	return u.channel.isClosed()
}

// fail tells the link that its interface has ended.
func (u *Unit) fail(err error) {
	c := u.channel
	if u.standby != nil {
		c = u.standby.channel()
	}
	if c != nil {
		c.fail(err)
	}
}

// carrier is what carries the packets of a batch; nil when they are to be held, and then they have been.
func (u *Unit) carrier(b *batch) *Channel {
	if u.standby != nil {
		return u.standby.carrier(b)
	}
	return u.channel
}

// close removes the interface, or leaves it to the standby that it belongs to.
func (u *Unit) close() error {
	if u.standby != nil {
		return u.standby.leave(u)
	}
	return u.remove()
}

// remove ends the interface.
func (u *Unit) remove() error {
	err := u.tun.file.Close()
	u.mu.Lock()
	u.stopped, u.join.n = true, 0
	u.release()
	u.mu.Unlock()
	if u.net != nil {
		err = errors.Join(err, u.net.Close())
	}
	return err
}

// Name is the interface's.
func (u *Unit) Name() string { return u.iface.Name() }

// Index is the interface's.
func (u *Unit) Index() int { return u.iface.Index() }

// Interface is where addresses and routes are set.
func (u *Unit) Interface() *netif.Interface { return u.iface }

// Stats are the counters of network-layer traffic, as it is on the link: the segments of a large packet count each.
// Of those not sent, the kernel has to be asked how many its queue had no room for.
func (u *Unit) Stats() (netif.Stats, error) {
	kernel, err := u.iface.Stats()
	if err != nil {
		return netif.Stats{}, err
	}
	return netif.Stats{
		RxBytes: u.rxBytes.Load(), TxBytes: u.txBytes.Load(), RxPackets: u.rxPackets.Load(), TxPackets: u.txPackets.Load(),
		RxDropped: u.rxDropped.Load(), TxDropped: u.txDropped.Load() + kernel.TxDropped,
	}, nil
}

// Idle tells for how long no packet of a network layer was sent, and none received, in whole seconds.
func (u *Unit) Idle() (xmit, recv time.Duration, err error) {
	if u.isClosed() {
		return 0, 0, ErrClosed
	}
	now := time.Since(u.opened)
	return (now - time.Duration(u.lastTx.Load())).Truncate(time.Second), (now - time.Duration(u.lastRx.Load())).Truncate(time.Second), nil
}
