package ppp

import "net/netip"

// nameServerOption is one of the four name server addresses of RFC 1877 section 1.
type nameServerOption struct {
	number uint8

	give netip.Addr // what the peer gets; invalid: the option is rejected

	wanted  bool       // ask the peer for it
	learned netip.Addr // its answer
}

func (o *nameServerOption) kind() uint8 { return o.number }

func (o *nameServerOption) request() ([]byte, bool) {
	if !o.wanted {
		return nil, false
	}
	if !o.learned.IsValid() {
		return make([]byte, 4), true
	}
	return o.learned.AsSlice(), true
}

func (o *nameServerOption) naked(v []byte) {
	if len(v) == 4 {
		o.learned = netip.AddrFrom4([4]byte(v))
	}
}

func (o *nameServerOption) rejected() { o.wanted, o.learned = false, netip.Addr{} }

func (*nameServerOption) reset() {}

func (o *nameServerOption) consider(v []byte) (verdict, []byte) {
	if !o.give.IsValid() {
		return reject, nil
	}
	if len(v) != 4 || netip.AddrFrom4([4]byte(v)) != o.give {
		return nak, o.give.AsSlice()
	}
	return ack, nil
}

func (*nameServerOption) missing() []byte { return nil }
