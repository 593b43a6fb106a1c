package netif

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
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
		err := newPPPLink(name, fd)
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

// newPPPLink is RTM_NEWLINK of kind ppp, which the netlink library does not know. The request opens its own socket, in
// the namespace of this thread, as /dev/ppp does.
func newPPPLink(name string, fd int) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	if name != "" {
		req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("ppp"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(unix.IFLA_PPP_DEV_FD, nl.Uint32Attr(uint32(fd)))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
