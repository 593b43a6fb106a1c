package netif

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"culvert/board/rtnl"
)

// ErrNoPPPLink means that the kernel makes PPP interfaces by PPPIOCNEWUNIT only (before Linux 4.7).
var ErrNoPPPLink = errors.New("the kernel makes no ppp interface by rtnetlink")

// pppBusyTries and pppBusyWait: the kernel only tries ppp_mutex here, to keep a lock order, and says EBUSY when another
// ioctl on /dev/ppp holds it.
const (
	pppBusyTries = 50
	pppBusyWait  = 2 * time.Millisecond
)

// CreatePPP makes a PPP interface with the given name out of a fresh descriptor of /dev/ppp. An empty name lets the
// kernel call it ppp and the unit's number. A taken name is ErrExists.
func (n *Netif) CreatePPP(name string, fd int) error {
	if name != "" {
		if err := CheckName(name); err != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.h == nil {
		return errClosed
	}
	for try := 1; ; try++ {
		err := n.h.AddLink(name, "ppp", rtnl.Uint32(unix.IFLA_PPP_DEV_FD, uint32(fd)))
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EBUSY) && try < pppBusyTries:
			time.Sleep(pppBusyWait)
		case errors.Is(err, syscall.EEXIST):
			return fmt.Errorf("an interface named %s %w: remove it or choose another name", name, ErrExists)
		case errors.Is(err, syscall.EOPNOTSUPP):
			return ErrNoPPPLink
		default:
			return fmt.Errorf("make the ppp interface %s: %w", name, mend(err))
		}
	}
}
