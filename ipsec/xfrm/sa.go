package xfrm

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
	"culvert/ipsec"
)

const (
	// defaultReplay is wide enough for crypto engines and queues that reorder.
	defaultReplay = 128
	// softPackets asks for a rekey before the 32-bit sequence number runs out (RFC 4303 section 3.3.3), where it has no more
	// than these.
	softPackets = 0xf0000000
	// mappingSeconds is how long the kernel keeps a new address to itself if the port is the one it told last, instead of
	// reporting every packet.
	mappingSeconds = 1

	infinite      = math.MaxUint64 // XFRM_INF
	espInUDP      = unix.UDP_ENCAP_ESPINUDP
	modeTransport = 0
	flagESN       = 0x80 // XFRM_STATE_ESN
)

// saKey is what the kernel finds an SA by.
type saKey struct {
	dst  netip.Addr
	spi  ipsec.SPI
	mark mark
}

// request is one SA as the kernel takes it.
type request struct {
	sa    ipsec.SA
	reqid uint32
	mask  uint32 // of marks
	// peerPort puts the peer's port into the selector.
	peerPort bool
	// mtimer limits mapping reports; kernels before 5.17 do not know it.
	mtimer bool
	// replay and current continue an SA that was moved: raw REPLAY_VAL or REPLAY_ESN_VAL, and LTIME_VAL.
	replay    []byte
	replayESN bool
	current   []byte
}

// key is the name under which the request's SA is found. Inbound SAs have no mark: a packet has none before decryption.
func (r *request) key() saKey {
	if r.sa.Dir == ipsec.In {
		return saKey{dst: r.sa.Local, spi: r.sa.SPI}
	}
	return saKey{dst: r.sa.Remote, spi: r.sa.SPI, mark: mark{uint32(r.sa.Mark), r.mask}}
}

// selector is the SA's, in the direction of its packets and on the outer addresses.
func (r *request) selector() selector {
	in := r.sa.Selector
	if !in.Local.IsValid() {
		in.Local = hostPrefix(r.sa.Local)
	}
	if !in.Remote.IsValid() {
		in.Remote = hostPrefix(r.sa.Remote)
	}
	if !r.peerPort {
		in.RemotePort = 0
	}
	s := selector{family: familyOf(r.sa.Local), proto: in.Proto}
	if r.sa.Dir == ipsec.In {
		s.src, s.sport, s.dst, s.dport = in.Remote, in.RemotePort, in.Local, in.LocalPort
	} else {
		s.src, s.sport, s.dst, s.dport = in.Local, in.LocalPort, in.Remote, in.RemotePort
	}
	return s
}

// append writes XFRM_MSG_NEWSA or UPDSA.
func (r *request) append(l layout, b []byte) []byte {
	src, dst, sport, dport := r.sa.Remote, r.sa.Local, r.sa.Encap.Remote, r.sa.Encap.Local
	if r.sa.Dir == ipsec.Out {
		src, dst, sport, dport = dst, src, dport, sport
	}
	start := len(b)
	b = r.selector().append(l, b)
	b = pad(b, start+l.lenUserSA())
	w := b[start:]
	putAddr(w[saOffID:], dst)
	putSPI(w[saOffID+lenAddr:], r.sa.SPI)
	w[saOffID+lenAddr+4] = unix.IPPROTO_ESP
	putAddr(w[saOffSaddr:], src)
	soft := r.sa.Soft
	if soft.Packets == 0 && !r.sa.ESN {
		soft.Packets = softPackets
	}
	for i, v := range limits(soft, r.sa.Hard) {
		l.PutUint64(w[saOffLimits+8*i:], v)
	}
	l.PutUint32(w[saOffReqID:], r.reqid)
	l.PutUint16(w[saOffFamily:], familyOf(r.sa.Local))
	w[saOffMode] = modeTransport
	if r.sa.ESN {
		w[saOffFlags] = flagESN
	}

	window := r.sa.Replay
	if window == 0 {
		window = defaultReplay
	}
	switch {
	case r.replay != nil && r.replayESN:
		b = l.attr(b, attrReplayESN, r.replay)
	case r.sa.Dir == ipsec.Out && !r.sa.ESN: // only the receiver has a window, but ESN does not go without one
	case window <= 32 && !r.sa.ESN:
		w[saOffWindow] = byte(window)
	default:
		words := (window + 31) / 32
		esn := make([]byte, lenESN+4*words)
		l.PutUint32(esn, uint32(words))
		l.PutUint32(esn[20:], uint32(window))
		b = l.attr(b, attrReplayESN, esn)
	}
	if r.replay != nil && !r.replayESN {
		b = l.attr(b, attrReplayVal, r.replay)
	}

	b = l.algorithms(b, r.sa.Suite, r.sa.Keys)
	if r.sa.Encap != (ipsec.Encap{}) {
		e := make([]byte, lenEncap)
		l.PutUint16(e, espInUDP)
		putBE16(e[2:], sport)
		putBE16(e[4:], dport)
		b = l.attr(b, attrEncap, e)
	}
	if r.sa.Dir == ipsec.In {
		b = l.attr32(b, attrSetMark, uint32(r.sa.Mark))
		if r.mtimer && r.sa.Encap != (ipsec.Encap{}) {
			b = l.attr32(b, attrMTimer, mappingSeconds)
		}
	} else {
		b = l.mark(b, mark{uint32(r.sa.Mark), r.mask})
		// The packet outside must not look like the client's traffic to routing rules and firewalls.
		b = l.attr32(b, attrSetMark, 0)
	}
	b = l.attr32(b, attrSetMarkMask, r.mask)
	if r.current != nil {
		b = l.attr(b, attrLifetimeVal, r.current)
	}
	return b
}

// limits are the members of struct xfrm_lifetime_cfg in order.
func limits(soft, hard ipsec.Lifetime) [8]uint64 {
	orInfinite := func(v uint64) uint64 {
		if v == 0 {
			return infinite
		}
		return v
	}
	return [8]uint64{
		orInfinite(soft.Bytes), orInfinite(hard.Bytes), orInfinite(soft.Packets), orInfinite(hard.Packets),
		seconds(soft.Time), seconds(hard.Time), 0, 0,
	}
}

// seconds rounds up, so that a short lifetime does not become none.
func seconds(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64((d + time.Second - 1) / time.Second)
}

// appendSAID writes struct xfrm_usersa_id and the mark, for GETSA and DELSA.
func (k saKey) append(l layout, b []byte) []byte {
	start := len(b)
	b = pad(b, start+lenUserSAID)
	w := b[start:]
	putAddr(w, k.dst)
	putSPI(w[16:], k.spi)
	l.PutUint16(w[20:], familyOf(k.dst))
	w[22] = unix.IPPROTO_ESP
	if k.mark != (mark{}) {
		b = l.mark(b, k.mark)
	}
	return b
}

func putSPI(b []byte, s ipsec.SPI) {
	putBE16(b, uint16(s>>16))
	putBE16(b[2:], uint16(s))
}

func getSPI(b []byte) ipsec.SPI { return ipsec.SPI(be16(b))<<16 | ipsec.SPI(be16(b[2:])) }

// state is an SA as the kernel reports it.
type state struct {
	key     saKey
	src     netip.Addr
	proto   uint8
	mode    uint8
	family  uint16
	reqid   uint32
	setMark mark

	limits          [8]uint64 // struct xfrm_lifetime_cfg
	bytes, packets  uint64
	added           uint64 // seconds of wall time
	lastUsed        uint64 // likewise, 0 if not told
	replayed, bad   uint32
	current, replay []byte // raw LTIME_VAL and REPLAY_VAL or REPLAY_ESN_VAL
	replayESN       bool
}

// ours says whether a state carries our signature: request id and mark match, and it is what we would make.
func (s *state) ours() bool {
	if s.proto != unix.IPPROTO_ESP || s.mode != modeTransport {
		return false
	}
	if s.reqid == reqidBase { // a trial of Suites or Probe that was cut short
		return s.key.dst == trialAddr(s.family == unix.AF_INET6) && s.key.mark == (mark{})
	}
	m := s.key.mark
	if m == (mark{}) {
		m = s.setMark
	}
	return ourReqid(s.reqid, m)
}

// parseState reads a message that starts with struct xfrm_usersa_info of the given length in all.
func parseState(l layout, b []byte, head int) (*state, error) {
	if len(b) < head || head < l.lenUserSA() {
		return nil, short("SA", len(b), head)
	}
	s := &state{
		family: l.Uint16(b[saOffFamily:]),
		proto:  b[saOffID+lenAddr+4],
		mode:   b[saOffMode],
		reqid:  l.Uint32(b[saOffReqID:]),
	}
	if s.family != unix.AF_INET && s.family != unix.AF_INET6 {
		return nil, fmt.Errorf("SA of address family %d", s.family)
	}
	s.key = saKey{dst: getAddr(b[saOffID:], s.family), spi: getSPI(b[saOffID+lenAddr:])}
	s.src = getAddr(b[saOffSaddr:], s.family)
	for i := range s.limits {
		s.limits[i] = l.Uint64(b[saOffLimits+8*i:])
	}
	s.current = b[saOffCurrent : saOffCurrent+lenLifeCur]
	s.bytes, s.packets, s.added = l.Uint64(s.current), l.Uint64(s.current[8:]), l.Uint64(s.current[16:])
	s.replayed, s.bad = l.Uint32(b[saOffStats+4:]), l.Uint32(b[saOffStats+8:])
	setMask := uint32(math.MaxUint32)
	err := l.attrs(b[min(netlink.Align(head), len(b)):], func(kind uint16, data []byte) error {
		need := map[uint16]int{attrMark: 8, attrSetMark: 4, attrSetMarkMask: 4, attrLastUsed: 8, attrReplayVal: lenReplay, attrReplayESN: lenESN}[kind]
		if len(data) < need {
			return short(fmt.Sprintf("SA attribute %d", kind), len(data), need)
		}
		switch kind {
		case attrMark:
			s.key.mark = mark{l.Uint32(data), l.Uint32(data[4:])}
		case attrSetMark:
			s.setMark.value = l.Uint32(data)
		case attrSetMarkMask:
			setMask = l.Uint32(data)
		case attrLastUsed:
			s.lastUsed = l.Uint64(data)
		case attrReplayVal, attrReplayESN:
			s.replay, s.replayESN = data, kind == attrReplayESN
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.setMark.mask = setMask
	return s, nil
}

// usage is what the kernel tells of an SA's traffic.
func (s *state) usage() ipsec.Usage {
	u := ipsec.Usage{Bytes: s.bytes, Packets: s.packets, IntegrityFailed: uint64(s.bad), Replayed: uint64(s.replayed)}
	if s.lastUsed != 0 && s.lastUsed <= math.MaxInt64 {
		u.LastUsed = time.Unix(int64(s.lastUsed), 0)
	}
	return u
}
