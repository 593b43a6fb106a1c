package esp

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"culvert/hwcrypto"
	"culvert/ipsec"
)

// Options are for New.
type Options struct {
	// Crypto protects the packets; nil means software.
	Crypto *hwcrypto.Providers
	// SendUDP sends an encapsulated packet (natt.Conns.SendESP). It must not keep the slice.
	SendUDP func(p ipsec.Path, packet []byte) error
	// SendRaw sends a packet as IP protocol 50 (Raw.Send). Nil means that plain ESP cannot be installed.
	SendRaw func(local, remote netip.Addr, packet []byte) error
	// SendUDPBatch and SendRawBatch are the same for several packets, in order, and say how many have gone
	// (natt.Conns.SendESPBatch, Raw.SendBatch). They may be nil.
	SendUDPBatch func(p ipsec.Path, packets [][]byte) (sent int, err error)
	SendRawBatch func(local, remote netip.Addr, packets [][]byte) (sent int, err error)
	// Deliver gets what came out of an SA: the payload of a UDP datagram, and its addresses with the inner ports. It is
	// called on the goroutine that called Receive and must not keep the slice. Who calls Open instead needs none.
	Deliver func(m ipsec.Mark, local, remote netip.AddrPort, payload []byte)
	// PeerPort holds peers to the port of their selector.
	PeerPort bool
	// Now is time.Now if nil.
	Now func() time.Time
	Log *slog.Logger
}

// Backend implements ipsec.Backend. Install, Remove, Move, Usage, Deadline, Tick, Snapshot and Close belong to one goroutine, the loop;
// Receive, Open, Send, SendBatch, SendMessage and Drops may be called from any.
type Backend struct {
	o      Options
	tables atomic.Pointer[tables]
	drops  dropCounters
	stage  sync.Pool // of *[]byte, for SendMessage

	// Of the loop alone:
	all    map[ipsec.SAID]*sa
	outs   map[ipsec.Mark][]*sa // outbound ones of a mark, the newest last
	due    time.Time            // when the next lifetime ends
	ticked time.Time            // the last Tick
	closed bool

	events chan ipsec.Event
	unsent atomic.Bool // an event did not fit and waits for Tick
	done   chan struct{}
}

var _ ipsec.Backend = (*Backend)(nil)

// tables are what the data path finds SAs by. They are never changed, only replaced.
type tables struct {
	in  map[ipsec.SPI]*sa
	out map[ipsec.Mark]*sa // the newest of each mark
}

const (
	defaultReplay = 128        // wide enough for crypto engines and queues that reorder
	softPackets   = 0xf0000000 // rekey before 32-bit sequence numbers run out (RFC 4303 section 3.3.3)
	eventQueue    = 256
	eventRetry    = 50 * time.Millisecond
)

// New returns a Backend without SAs.
func New(o Options) *Backend {
	if o.Crypto == nil {
		o.Crypto = hwcrypto.Open(hwcrypto.Options{Mode: hwcrypto.SoftwareOnly, Log: o.Log})
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	b := &Backend{
		o:      o,
		all:    make(map[ipsec.SAID]*sa),
		outs:   make(map[ipsec.Mark][]*sa),
		events: make(chan ipsec.Event, eventQueue),
		done:   make(chan struct{}),
	}
	b.stage.New = func() any { s := make([]byte, stageLen); return &s }
	b.tables.Store(&tables{in: map[ipsec.SPI]*sa{}, out: map[ipsec.Mark]*sa{}})
	return b
}

// Serve starts the goroutine that calls f with every event until Close. f may wait, for the loop for example.
func (b *Backend) Serve(f func(ipsec.Event)) {
	go func() {
		for {
			select {
			case e := <-b.events:
				f(e)
			case <-b.done:
				return
			}
		}
	}()
}

// Close removes every SA.
func (b *Backend) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	close(b.done)
	b.tables.Store(&tables{})
	for _, s := range b.all {
		s.close()
	}
	b.all, b.outs = nil, nil
	return nil
}

// Install implements ipsec.Backend. It copies the keys.
func (b *Backend) Install(conf ipsec.SA) error {
	if b.closed {
		return errors.New("esp: closed")
	}
	if err := conf.Validate(); err != nil {
		return err
	}
	if conf.Encap == (ipsec.Encap{}) && b.o.SendRaw == nil {
		return &ipsec.SAError{ID: conf.ID(), Field: "encapsulation", Reason: "there is no raw socket for plain ESP"}
	}
	old := b.tables.Load()
	if b.all[conf.ID()] != nil || conf.Dir == ipsec.In && old.in[conf.SPI] != nil {
		return ipsec.ErrSAExists
	}
	s, err := newSA(conf, b.o.Crypto, b.o.Now(), b.o.PeerPort, conf.ESN)
	if err != nil {
		return err
	}
	b.all[conf.ID()] = s
	next := *old
	if conf.Dir == ipsec.In {
		next.in = maps.Clone(old.in)
		next.in[conf.SPI] = s
	} else {
		b.outs[conf.Mark] = append(b.outs[conf.Mark], s)
		next.out = maps.Clone(old.out)
		next.out[conf.Mark] = s
	}
	b.tables.Store(&next)
	b.schedule()
	return nil
}

// Remove implements ipsec.Backend. What is sent with the mark then takes the newest SA that is left.
func (b *Backend) Remove(id ipsec.SAID) error {
	s := b.all[id]
	if s == nil {
		return nil
	}
	delete(b.all, id)
	old := b.tables.Load()
	next := *old
	if id.Dir == ipsec.In {
		next.in = maps.Clone(old.in)
		delete(next.in, id.SPI)
	} else {
		left := slices.DeleteFunc(b.outs[id.Mark], func(o *sa) bool { return o == s })
		next.out = maps.Clone(old.out)
		if len(left) == 0 {
			delete(b.outs, id.Mark)
			delete(next.out, id.Mark)
		} else {
			b.outs[id.Mark] = left
			next.out[id.Mark] = left[len(left)-1]
		}
	}
	b.tables.Store(&next)
	s.close()
	b.schedule()
	return nil
}

// Move implements ipsec.Backend. Sequence numbers, windows and counters go on.
func (b *Backend) Move(m ipsec.Mark, remote netip.AddrPort) error {
	confs := make(map[*sa]ipsec.SA)
	for id, s := range b.all {
		if id.Mark != m {
			continue
		}
		moved, err := s.moved(remote)
		if err != nil {
			return err
		}
		confs[s] = moved
	}
	if len(confs) == 0 {
		return ipsec.ErrNoSA
	}
	for s, conf := range confs {
		s.conf = conf
		s.place.Store(newPlace(&conf, b.o.PeerPort))
	}
	return nil
}

// Usage implements ipsec.Backend.
func (b *Backend) Usage(id ipsec.SAID) (ipsec.Usage, error) {
	s := b.all[id]
	if s == nil {
		return ipsec.Usage{}, ipsec.ErrNoSA
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.usage, nil
}

// Suites are those that IKE may propose, strongest first. They need nothing of the kernel.
func Suites() (out []ipsec.Suite) {
	for _, s := range hwcrypto.Suites() {
		// Of the lengths that an ICV may have, the one that the transform identifiers of RFC 4868, 2403 and 2404 mean.
		icv := s.AuthLen() / 2
		if s.Hash == hwcrypto.MD5 || s.Hash == hwcrypto.SHA1 {
			icv = 12
		}
		if !s.AEAD() && s.ICV != icv {
			continue
		}
		out = append(out, ipsec.Suite{Cipher: ciphers[s.Cipher], KeyBits: s.KeyBits, Integrity: hashes[s.Hash], ICVBits: s.ICV * 8})
	}
	return out
}

// The vocabulary of ipsec and that of hwcrypto, which knows nothing of ipsec.
var (
	ciphers = map[hwcrypto.Cipher]ipsec.Cipher{
		hwcrypto.TripleDES: ipsec.TripleDES, hwcrypto.AESCBC: ipsec.AESCBC, hwcrypto.AESGCM: ipsec.AESGCM, hwcrypto.ChaCha20Poly1305: ipsec.ChaCha20Poly1305,
	}
	hashes = map[hwcrypto.Hash]ipsec.Integrity{
		hwcrypto.NoHash: ipsec.IntegrityNone, hwcrypto.MD5: ipsec.HMACMD5, hwcrypto.SHA1: ipsec.HMACSHA1,
		hwcrypto.SHA256: ipsec.HMACSHA256, hwcrypto.SHA384: ipsec.HMACSHA384, hwcrypto.SHA512: ipsec.HMACSHA512,
	}
)

// Suite translates a suite to what hwcrypto.Providers.Choose takes; false if there is none.
func Suite(s ipsec.Suite) (hwcrypto.Suite, bool) {
	out := hwcrypto.Suite{KeyBits: s.KeyBits, ICV: s.ICVBits / 8}
	for h, i := range ciphers {
		if i == s.Cipher {
			out.Cipher = h
		}
	}
	for h, i := range hashes {
		if i == s.Integrity {
			out.Hash = h
		}
	}
	return out, out.Validate() == nil
}

// keyError is for what hwcrypto refuses in spite of Validate.
func keyError(conf *ipsec.SA, err error) error {
	return &ipsec.SAError{ID: conf.ID(), Field: "suite", Reason: fmt.Sprint(err)}
}
