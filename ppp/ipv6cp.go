package ppp

// optInterfaceID is the one option of IPV6CP that is not rejected (RFC 5072 section 4.1).
const optInterfaceID = 1

// InterfaceID is the lower half of an IPv6 address on the link (RFC 5072 section 4.1).
type InterfaceID [8]byte

// interfaceIDOption negotiates the interface identifiers of both ends.
type interfaceIDOption struct {
	link    *Link
	ours    InterfaceID
	refused bool
	peer    InterfaceID
}

func (*interfaceIDOption) kind() uint8 { return optInterfaceID }

// random makes an identifier whose universal/local bit says local.
func (o *interfaceIDOption) random() (id InterfaceID) {
	o.link.random(id[:])
	id[0] &^= 2
	id[7] |= 1 // never zero
	return id
}

func (o *interfaceIDOption) request() ([]byte, bool) {
	if o.refused {
		return nil, false
	}
	if o.ours == (InterfaceID{}) {
		o.ours = o.random()
	}
	return append([]byte(nil), o.ours[:]...), true
}

func (o *interfaceIDOption) naked(v []byte) {
	if len(v) == 8 && InterfaceID(v) != (InterfaceID{}) && InterfaceID(v) != o.peer {
		o.ours = InterfaceID(v)
	} else {
		o.ours = o.random()
	}
}

func (o *interfaceIDOption) rejected() { o.refused = true }

func (o *interfaceIDOption) reset() { o.peer = InterfaceID{} }

func (o *interfaceIDOption) consider(v []byte) (verdict, []byte) {
	if len(v) != 8 || InterfaceID(v) == (InterfaceID{}) || InterfaceID(v) == o.ours {
		id := o.random()
		return nak, append([]byte(nil), id[:]...)
	}
	o.peer = InterfaceID(v)
	return ack, nil
}

func (o *interfaceIDOption) missing() []byte {
	id := o.random()
	return id[:]
}
