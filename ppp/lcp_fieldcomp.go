package ppp

// compressOption is Protocol-Field-Compression or Address-and-Control-Field-Compression (RFC 1661 sections 6.5 and 6.6).
// The peer may wish for either. It says only that it can receive so: we go on sending in full, for some that asked
// (RouterOS 6) then fail on it, and an octet is not worth that.
type compressOption struct {
	passiveOption
	number uint8
	peer   bool
}

func (o *compressOption) kind() uint8 { return o.number }

func (o *compressOption) reset() { o.peer = false }

func (o *compressOption) consider(v []byte) (verdict, []byte) {
	if len(v) != 0 {
		return reject, nil
	}
	o.peer = true
	return ack, nil
}
