package ppp

import "encoding/binary"

// accmOption is the Async-Control-Character-Map (RFC 1662 section 7.1): granted, and of no meaning inside a tunnel.
type accmOption struct {
	passiveOption
	peer uint32
}

func (*accmOption) kind() uint8 { return optACCM }

func (o *accmOption) reset() { o.peer = 0xffffffff }

func (o *accmOption) consider(v []byte) (verdict, []byte) {
	if len(v) != 4 {
		return reject, nil
	}
	o.peer = binary.BigEndian.Uint32(v)
	return ack, nil
}
