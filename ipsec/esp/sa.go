package esp

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"culvert/hwcrypto"
	"culvert/ipsec"
)

// sa is one installed SA.
type sa struct {
	id       ipsec.SAID
	suite    hwcrypto.Suite
	overhead int // octets around the encrypted text
	front    int // octets before it: header and IV
	esn      bool
	place    atomic.Pointer[place]
	added    time.Time

	conf ipsec.SA // of the loop alone, without keys

	mu         sync.Mutex // covers the rest
	crypt      *hwcrypto.Crypter
	seq        uint64 // the last one sent
	window     window // of what was received
	usage      ipsec.Usage
	soft, hard ipsec.Lifetime
	softTold   bool // and its event is on the way
	expired    bool // a hard lifetime is over: nothing passes
	hardTold   bool

	told   netip.AddrPort // the last mapping that was reported
	toldAt time.Time
}

// place is where an SA's packets go and come from, and which may. It is replaced by Move.
type place struct {
	path                  ipsec.Path // ports are zero for plain ESP
	encap                 bool
	local, remote         netip.Prefix // selector
	proto                 uint8
	localPort, remotePort uint16
}

func newPlace(conf *ipsec.SA, peerPort bool) *place {
	p := &place{
		path: ipsec.Path{
			Local:  netip.AddrPortFrom(conf.Local, conf.Encap.Local),
			Remote: netip.AddrPortFrom(conf.Remote, conf.Encap.Remote),
		},
		encap: conf.Encap != (ipsec.Encap{}),
		local: conf.Selector.Local, remote: conf.Selector.Remote,
		proto: conf.Selector.Proto, localPort: conf.Selector.LocalPort,
	}
	if !p.local.IsValid() {
		p.local = host(conf.Local)
	}
	if !p.remote.IsValid() {
		p.remote = host(conf.Remote)
	}
	if peerPort {
		p.remotePort = conf.Selector.RemotePort
	}
	return p
}

func host(a netip.Addr) netip.Prefix {
	a = a.WithZone("")
	return netip.PrefixFrom(a, a.BitLen())
}

const protoUDP = 17

// admits says whether the selector lets a UDP datagram pass (RFC 4301 section 4.4.1.1).
func (p *place) admits(local, remote netip.Addr, localPort, remotePort uint16) bool {
	return (p.proto == 0 || p.proto == protoUDP) &&
		(p.localPort == 0 || p.localPort == localPort) &&
		(p.remotePort == 0 || p.remotePort == remotePort) &&
		p.local.Contains(local.WithZone("")) && p.remote.Contains(remote.WithZone(""))
}

func newSA(conf ipsec.SA, crypto *hwcrypto.Providers, now time.Time, peerPort, esn bool) (*sa, error) {
	suite, ok := Suite(conf.Suite)
	if !ok {
		return nil, keyError(&conf, hwcrypto.ErrUnsupported)
	}
	crypt, err := crypto.New(hwcrypto.Config{Suite: suite, Keys: hwcrypto.Keys{Enc: conf.Keys.Enc, Auth: conf.Keys.Auth}, ESN: esn})
	if err != nil {
		return nil, keyError(&conf, err)
	}
	conf.Keys = ipsec.Keys{}
	s := &sa{
		id: conf.ID(), suite: suite, overhead: suite.Overhead(), front: espHeader + suite.IVLen(), esn: esn,
		added: now, crypt: crypt, soft: conf.Soft, hard: conf.Hard,
		conf: conf,
	}
	if s.soft.Packets == 0 && !esn {
		s.soft.Packets = softPackets
	}
	if conf.Dir == ipsec.In {
		size := conf.Replay
		if size == 0 {
			size = defaultReplay
		}
		s.window = newWindow(size, esn)
	}
	s.place.Store(newPlace(&s.conf, peerPort))
	return s, nil
}

// moved is MovedTo, which wants to see keys of the right length; the real ones are with the ciphers.
func (s *sa) moved(remote netip.AddrPort) (ipsec.SA, error) {
	conf := s.conf
	conf.Keys = ipsec.Keys{Enc: make(ipsec.Secret, conf.Suite.EncLen()), Auth: make(ipsec.Secret, conf.Suite.AuthLen())}
	moved, err := conf.MovedTo(remote)
	moved.Keys = ipsec.Keys{}
	return moved, err
}

func (s *sa) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = true
	s.crypt.Close()
}
