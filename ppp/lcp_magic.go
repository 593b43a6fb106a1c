package ppp

import "encoding/binary"

// maxCollisions is how many equal magic numbers in a row are a loop and no longer chance.
const maxCollisions = 5

// magicOption is the Magic-Number (RFC 1661 section 6.4).
type magicOption struct {
	link       *Link
	ours       uint32 // 0: none negotiated, or none yet
	refused    bool
	peer       uint32
	collisions int
}

func (*magicOption) kind() uint8 { return optMagic }

func (o *magicOption) renew() uint32 {
	var b [4]byte
	for range 4 {
		o.link.random(b[:])
		if n := binary.BigEndian.Uint32(b[:]); n != 0 && n != o.ours {
			return n
		}
	}
	return o.ours + 1 | 1
}

func (o *magicOption) request() ([]byte, bool) {
	if o.refused {
		return nil, false
	}
	if o.ours == 0 {
		o.ours = o.renew()
	}
	return binary.BigEndian.AppendUint32(nil, o.ours), true
}

func (o *magicOption) naked(v []byte) {
	if len(v) == 4 && binary.BigEndian.Uint32(v) == o.ours {
		o.collision()
	}
	o.ours = o.renew()
}

func (o *magicOption) rejected() { o.refused, o.ours = true, 0 }

func (o *magicOption) reset() { o.peer = 0 }

func (o *magicOption) consider(v []byte) (verdict, []byte) {
	if len(v) != 4 {
		return nak, binary.BigEndian.AppendUint32(nil, o.renew())
	}
	n := binary.BigEndian.Uint32(v)
	if n == 0 {
		return nak, binary.BigEndian.AppendUint32(nil, o.renew())
	}
	if n == o.ours {
		o.collision()
		return nak, binary.BigEndian.AppendUint32(nil, o.renew())
	}
	o.collisions = 0
	o.peer = n
	return ack, nil
}

func (o *magicOption) collision() {
	if o.collisions++; o.collisions >= maxCollisions {
		o.link.terminate(Cause{CauseLooped, "the peer's magic number is always ours"})
	}
}

func (*magicOption) missing() []byte { return nil }
