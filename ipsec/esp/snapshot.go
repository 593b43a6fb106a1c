package esp

import (
	"cmp"
	"net/netip"
	"sort"
	"sync/atomic"

	"culvert/ipsec"
)

// dropCounters count packets that went nowhere.
type dropCounters struct {
	malformed, unknown, encap, expired, replayed, integrity, crypto, dummy, notUDP, selector, checksum, noSA, send atomic.Uint64
}

// Drops counts packets that went nowhere since New.
type Drops struct {
	Malformed uint64 // impossible lengths, of the packet or inside it
	Unknown   uint64 // no inbound SA of that SPI at that address
	Encap     uint64 // encapsulated for a plain SA, or the other way round
	Expired   uint64 // the SA is at its end
	Replayed  uint64 // received before, or too late for the window
	Integrity uint64 // not authentic
	Crypto    uint64 // no provider could open it
	Dummy     uint64 // RFC 4303 section 2.6: meant to be dropped
	NotUDP    uint64 // another protocol inside
	Selector  uint64 // not what the SA is for
	Checksum  uint64 // UDP checksum of a plain SA wrong
	NoSA      uint64 // to be sent with a mark that has no SA
	Send      uint64 // not sealed, or refused by the socket
}

// Drops returns the counters.
func (b *Backend) Drops() Drops {
	d := &b.drops
	return Drops{
		Malformed: d.malformed.Load(), Unknown: d.unknown.Load(), Encap: d.encap.Load(), Expired: d.expired.Load(),
		Replayed: d.replayed.Load(), Integrity: d.integrity.Load(), Crypto: d.crypto.Load(), Dummy: d.dummy.Load(),
		NotUDP: d.notUDP.Load(), Selector: d.selector.Load(), Checksum: d.checksum.Load(), NoSA: d.noSA.Load(), Send: d.send.Load(),
	}
}

// State is one SA as an operator sees it.
type State struct {
	ID            ipsec.SAID
	Local, Remote netip.AddrPort // outer; ports are zero for plain ESP
	Suite         string
	Provider      string // who does the cryptography
	Sequence      uint64 // the last sent, or the highest received
	Window        int    // packets; 0 for outbound
	Usage         ipsec.Usage
	Expired       bool
	Current       bool // outbound: this one carries what is sent with its mark
}

// Snapshot returns every SA, ordered by mark, direction and SPI. It belongs to the loop.
func (b *Backend) Snapshot() []State {
	out := make([]State, 0, len(b.all))
	t := b.tables.Load()
	for id, s := range b.all {
		at := s.place.Load()
		s.mu.Lock()
		st := State{
			ID: id, Local: at.path.Local, Remote: at.path.Remote, Suite: s.suite.String(), Provider: s.crypt.Provider(),
			Sequence: s.seq, Usage: s.usage, Expired: s.expired, Current: t.out[id.Mark] == s,
		}
		if id.Dir == ipsec.In {
			st.Sequence, st.Window = s.window.top, int(s.window.size)
		}
		s.mu.Unlock()
		out = append(out, st)
	}
	sort.Slice(out, func(i, j int) bool {
		a, b := out[i], out[j]
		return cmp.Or(cmp.Compare(a.ID.Mark, b.ID.Mark), cmp.Compare(a.ID.Dir, b.ID.Dir), cmp.Compare(a.ID.SPI, b.ID.SPI)) < 0
	})
	return out
}
