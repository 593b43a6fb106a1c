package user

import (
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sizes of a batch. A read needs room for the largest packet there is; the rest is for its segments.
const (
	maxPacket  = 0xffff
	readRoom   = Headroom + 2 + maxPacket + Tailroom + frameAlign
	arenaSize  = 160 << 10
	maxFrames  = 64
	frameAlign = 16
)

// batch is the memory in which packets on their way out lie, each with headroom and tailroom of its own.
type batch struct {
	arena  [arenaSize]byte
	used   int
	frames [maxFrames][]byte
	count  int
}

// Idle links hold no memory: a reader takes a batch when there is something to read. There are few, because a batch is
// in use only while its reader runs or the socket below is full; who finds none waits for one.
var (
	batches     chan *batch
	batchesOnce sync.Once
)

func takeBatch() *batch {
	batchesOnce.Do(func() {
		n := runtime.GOMAXPROCS(0) + 1
		batches = make(chan *batch, n)
		for range n {
			batches <- nil // made when first taken
		}
	})
	b := <-batches
	if b == nil {
		b = new(batch)
	}
	b.reset()
	return b
}

func (b *batch) put() { batches <- b }

func (b *batch) reset() {
	b.used, b.count = 0, 0
}

// place is room for a packet of n octets, and tells whether there is any. It is not kept until commit.
func (b *batch) place(n int) (packet []byte, ok bool) {
	at := b.used + Headroom + 2
	if b.count == maxFrames || at+n+Tailroom > arenaSize {
		return nil, false
	}
	return b.arena[at : at+n], true
}

// commit makes the packet in the last place, which has turned out to be n octets long, a frame.
func (b *batch) commit(n int, protocol uint16) {
	end := b.used + Headroom + 2 + n
	frame := b.arena[b.used : end : end+Tailroom]
	frame[Headroom], frame[Headroom+1] = byte(protocol>>8), byte(protocol)
	b.frames[b.count] = frame
	b.count++
	b.used = align(end + Tailroom)
}

func align(n int) int { return (n + frameAlign - 1) &^ (frameAlign - 1) }

// fill reads packets until the TUN has no more or there is no room. It sends only when segments need the room.
func (u *Unit) fill(fd uintptr) bool {
	if u.batch == nil {
		u.batch = takeBatch()
	}
	b := u.batch
	for b.count < maxFrames && arenaSize-b.used >= readRoom {
		room, _ := b.place(maxPacket)
		at := b.used + Headroom + 2
		if u.tun.vnet {
			at -= vnetLen
			room = b.arena[at : at+vnetLen+maxPacket]
		}
		n, errno := readTUN(fd, room)
		switch {
		case errno == syscall.EAGAIN && b.count == 0:
			b.put()
			u.batch = nil
			return false // to wait
		case errno == syscall.EAGAIN:
			return true
		case errno != 0:
			u.readErr = errno
			return true
		}
		var h vnetHeader
		if u.tun.vnet {
			if n < vnetLen {
				u.txDropped.Add(1)
				continue
			}
			h = parseVnet(room)
			room, n = room[vnetLen:], n-vnetLen
		}
		u.transmit(h, room[:n])
	}
	return true
}

// transmit puts a packet, which lies in the next place, or its segments behind it, into the batch.
func (u *Unit) transmit(h vnetHeader, packet []byte) {
	protocol, ok := u.protocolOf(packet)
	if !ok {
		u.txDropped.Add(1)
		return
	}
	b := u.batch
	if h.gsoType == unix.VIRTIO_NET_HDR_GSO_NONE {
		if h.flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
			if complete(h, packet) != nil {
				u.txDropped.Add(1)
				return
			}
		}
		b.commit(len(packet), protocol)
		return
	}
	var s segmenter
	if s.init(h, packet) != nil {
		u.txDropped.Add(1)
		return
	}
	// The segments come behind the packet that they are copied from. When there is no more room there, what has gathered
	// is sent and the packet moves to the front.
	b.used = align(b.used + Headroom + 2 + len(packet))
	for most := s.most(); ; {
		dst, ok := b.place(most)
		if !ok {
			u.sendBatch()
			s.packet = b.arena[:copy(b.arena[:], s.packet)]
			b.used = align(len(s.packet))
			dst, _ = b.place(most) // the arena holds two of the largest
		}
		n := s.next(dst)
		if n == 0 {
			return
		}
		b.commit(n, protocol)
	}
}
