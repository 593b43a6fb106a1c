package xfrm

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
)

// oseqGap is skipped when an outbound SA is made anew: packets sent between reading its sequence number and replacing
// it must not see their numbers again. Receivers take any number that is higher.
const oseqGap = 1024

// Move implements ipsec.Backend. A new port is written into the SAs as they are. For a new address the kernel has no such
// operation: SAs are made anew with their keys, sequence numbers, replay windows, ages and counters, and the policy follows.
func (b *Backend) Move(m ipsec.Mark, remote netip.AddrPort) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.clients[m]
	if c == nil {
		return ipsec.ErrNoSA
	}
	var moves []move
	live := false
	for _, e := range c.sas {
		if e.dead {
			continue
		}
		live = true
		sa, err := e.sa.MovedTo(remote)
		if err != nil {
			return err
		}
		if sa.Remote != e.sa.Remote || sa.Encap != e.sa.Encap {
			moves = append(moves, move{e: e, from: e.sa, to: sa})
		}
	}
	if !live {
		return ipsec.ErrNoSA
	}
	var err error
	done := 0
	for i := range moves {
		if err = b.apply(&moves[i]); err != nil {
			break
		}
		done++
	}
	if err == nil {
		// Only now does the old way go: until here packets found either the old SA or the new one.
		for i := range moves {
			moves[i].e.sa = moves[i].to
		}
		err = b.syncPolicies(m, c)
		for i := range moves {
			err = errors.Join(err, b.retire(&moves[i]))
		}
		return err
	}
	for _, mv := range slices.Backward(moves[:done]) {
		err = errors.Join(err, b.undo(&mv))
	}
	return err
}

// move is one SA on its way.
type move struct {
	e        *entry
	from, to ipsec.SA
	renewed  bool // made anew, not updated
	gone     bool // the kernel had no such SA any more
}

func (b *Backend) apply(mv *move) error {
	if mv.from.Remote == mv.to.Remote {
		err := b.kernel.do("update "+mv.to.ID().String(), msgUpdSA, b.request(mv.to).append)
		return b.skipGone(mv, err)
	}
	r := b.request(mv.to)
	old := b.request(mv.from)
	s, err := b.getSA(old.key())
	if err == nil && s.reqid != old.reqid {
		err = ipsec.ErrNoSA
	}
	if err != nil {
		return b.skipGone(mv, err)
	}
	r.current, r.replay, r.replayESN = slices.Clone(s.current), slices.Clone(s.replay), s.replayESN
	if mv.to.Dir == ipsec.Out {
		r.skipAhead()
	}
	mv.renewed = true
	if mv.to.Dir == ipsec.Out {
		return b.add(r) // beside the old one, whose address differs
	}
	// An inbound SA's name does not have the peer's address in it: the old one has to go first. Packets that arrive in
	// between are lost, a handful of microseconds.
	if err := b.deleteSA(old.key(), old.reqid); err != nil {
		return err
	}
	if err := b.add(r); err != nil {
		old.current, old.replay, old.replayESN = r.current, r.replay, r.replayESN
		if again := b.add(old); again != nil {
			mv.e.dead = true
			return errors.Join(err, fmt.Errorf("and back: %w", again))
		}
		return err
	}
	return nil
}

// skipGone lets a move pass over an SA that expired meanwhile; its report is on the way.
func (b *Backend) skipGone(mv *move, err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, ipsec.ErrNoSA) {
		mv.gone = true
		return nil
	}
	return err
}

// retire removes what a renewed outbound SA left at the old address.
func (b *Backend) retire(mv *move) error {
	if mv.gone || !mv.renewed || mv.from.Dir != ipsec.Out {
		return nil
	}
	old := b.request(mv.from)
	return b.deleteSA(old.key(), old.reqid)
}

// undo takes one applied move back.
func (b *Backend) undo(mv *move) error {
	if mv.gone {
		return nil
	}
	if mv.renewed && mv.to.Dir == ipsec.Out {
		r := b.request(mv.to)
		return b.deleteSA(r.key(), r.reqid)
	}
	back := move{e: mv.e, from: mv.to, to: mv.from}
	return b.apply(&back)
}

// skipAhead moves the outbound sequence number on by oseqGap.
func (r *request) skipAhead() {
	off := 0 // struct xfrm_replay_state
	if r.replayESN {
		off = 4
	}
	if len(r.replay) < off+4 {
		return
	}
	if seq := host.Uint32(r.replay[off:]); r.sa.ESN && r.replayESN && len(r.replay) >= lenESN {
		if seq != 0 || host.Uint32(r.replay[12:]) != 0 {
			if seq > math.MaxUint32-oseqGap {
				host.PutUint32(r.replay[12:], host.Uint32(r.replay[12:])+1)
			}
			host.PutUint32(r.replay[off:], seq+oseqGap)
		}
	} else if seq != 0 {
		host.PutUint32(r.replay[off:], min(seq, math.MaxUint32-oseqGap-1)+oseqGap)
	}
}
