package xfrm

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
)

// Hold keeps what carries the mark from leaving for remote in the clear, whether the mark has an SA at the moment or not:
// a client that calls a server holds its mark from before the first SA until after the last. UDP to remote with the mark
// is refused with EPERM unless an outbound SA of the mark takes it. Several addresses may be held for one mark; Unhold
// ends it for all. Other packets that carry the mark pass: the kernel leaves it on what came out of the tunnel and is
// forwarded.
func (b *Backend) Hold(m ipsec.Mark, remote netip.Addr) error {
	if m == 0 || uint32(m)&^b.o.MarkMask != 0 {
		return fmt.Errorf("xfrm: hold: mark %s is not one under the mask %#x", m, b.o.MarkMask)
	}
	if !remote.IsValid() || remote.IsUnspecified() {
		return errors.New("xfrm: hold: no address")
	}
	p := holdPolicy(mark{uint32(m), b.o.MarkMask}, remote.Unmap().WithZone(""))
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, have := range b.held[m] {
		if have == p {
			return nil
		}
	}
	if err := b.putPolicy(p); err != nil {
		return err
	}
	b.held[m] = append(b.held[m], p)
	return nil
}

// Unhold ends every Hold of a mark. None is no error.
func (b *Backend) Unhold(m ipsec.Mark) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unhold(m)
}

func (b *Backend) unhold(m ipsec.Mark) error {
	var errs []error
	for _, p := range b.held[m] {
		errs = append(errs, b.deletePolicy(p))
	}
	delete(b.held, m)
	return errors.Join(errs...)
}

// holdPolicy stands behind the policies of marks, which come and go with their SAs.
func holdPolicy(m mark, remote netip.Addr) policy {
	return policy{
		sel: selector{family: familyOf(remote), proto: unix.IPPROTO_UDP, dst: hostPrefix(remote)},
		dir: dirOut, action: actionDrop, priority: priorityHold, mark: m,
	}
}
