package ppp

import "net/netip"

// ipAddressOption is IP-Address (RFC 1332 section 3.3).
type ipAddressOption struct {
	link *Link

	local      netip.Addr // ours; invalid: the peer is to tell
	fixedLocal bool       // do not let the peer talk us out of it
	refused    bool

	remote netip.Addr // what the peer is to have; invalid: whatever it says, where nobody has to log in here
	peer   netip.Addr // what it has
}

func (*ipAddressOption) kind() uint8 { return optIPAddress }

func (o *ipAddressOption) request() ([]byte, bool) {
	if o.refused {
		return nil, false
	}
	if !o.local.Is4() {
		return make([]byte, 4), true
	}
	return o.local.AsSlice(), true
}

func (o *ipAddressOption) naked(v []byte) {
	if len(v) == 4 && !o.fixedLocal {
		if a := netip.AddrFrom4([4]byte(v)); usable(a) {
			o.local = a
		}
	}
}

func (o *ipAddressOption) rejected() { o.refused = true }

func (o *ipAddressOption) reset() { o.peer = netip.Addr{} }

func (o *ipAddressOption) consider(v []byte) (verdict, []byte) {
	var a netip.Addr
	if len(v) == 4 {
		a = netip.AddrFrom4([4]byte(v))
	}
	if o.remote.Is4() {
		if a != o.remote {
			return nak, o.remote.AsSlice()
		}
	} else if !usable(a) || a == o.local || len(o.link.cfg.Auth) > 0 {
		// We have nothing to give, and a user does not choose an address.
		return reject, nil
	}
	o.peer = a
	return ack, nil
}

// missing makes a peer that forgot the option ask for its address.
func (o *ipAddressOption) missing() []byte {
	if o.remote.Is4() {
		return o.remote.AsSlice()
	}
	return nil
}

// usable reports whether a can be the address of one end of a link.
func usable(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
