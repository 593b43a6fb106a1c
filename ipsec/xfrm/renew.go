package xfrm

import (
	"errors"
	"fmt"
	"slices"

	"culvert/ipsec"
)

// Renew makes every SA anew under its name, with its keys, sequence numbers, replay window, age and counters: an SA keeps
// the ciphers that it got when it was made, and by now the kernel may prefer others. Peers notice nothing but the packets
// of the moment in between. What cannot be made again is lost, as if it had come to its hard lifetime.
func (b *Backend) Renew() (lost []ipsec.SAID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.clients {
		for _, e := range c.sas {
			if e.dead {
				continue
			}
			// What has expired meanwhile reports itself.
			if rerr := b.renew(e); rerr != nil && !errors.Is(rerr, ipsec.ErrNoSA) {
				err = errors.Join(err, rerr)
			}
			if e.dead {
				lost = append(lost, e.sa.ID())
			}
		}
	}
	return lost, err
}

func (b *Backend) renew(e *entry) error {
	r := b.request(e.sa)
	s, err := b.getSA(r.key())
	if err != nil {
		return err
	}
	if s.reqid != r.reqid {
		return ipsec.ErrNoSA
	}
	r.current, r.replay, r.replayESN = slices.Clone(s.current), slices.Clone(s.replay), s.replayESN
	if e.sa.Dir == ipsec.Out {
		r.skipAhead()
	}
	if err := b.deleteSA(r.key(), r.reqid); err != nil {
		return err
	}
	if err := b.add(r); err != nil {
		e.dead = true
		return fmt.Errorf("%s is lost: %w", e.sa.ID(), err)
	}
	return nil
}
