package ppp

import "encoding/binary"

// mruOption is the Maximum-Receive-Unit (RFC 1661 section 6.1).
type mruOption struct {
	ours    int // asked for, until the peer objects
	refused bool
	peer    int
}

func (*mruOption) kind() uint8 { return optMRU }

func (o *mruOption) request() ([]byte, bool) {
	if o.refused || o.ours == defaultMRU {
		return nil, false // the default needs no words
	}
	return binary.BigEndian.AppendUint16(nil, uint16(o.ours)), true
}

// naked takes what the peer would rather send, up to the size that we must be able to receive anyhow.
func (o *mruOption) naked(v []byte) {
	if len(v) != 2 {
		return
	}
	if n := int(binary.BigEndian.Uint16(v)); n >= minMRU && (n <= defaultMRU || n <= o.ours) {
		o.ours = n
	}
}

func (o *mruOption) rejected() { o.refused, o.ours = true, defaultMRU }

func (o *mruOption) reset() { o.peer = defaultMRU }

func (o *mruOption) consider(v []byte) (verdict, []byte) {
	if len(v) != 2 {
		return nak, binary.BigEndian.AppendUint16(nil, defaultMRU)
	}
	n := int(binary.BigEndian.Uint16(v))
	if n < minMRU {
		return nak, binary.BigEndian.AppendUint16(nil, minMRU)
	}
	o.peer = n
	return ack, nil
}

func (*mruOption) missing() []byte { return nil }
