package kernel

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"culvert/ppp/netif"

	"golang.org/x/sys/unix"
)

// PPP protocol numbers of the network layers (RFC 1332 section 2, RFC 5072 section 2).
const (
	protocolIPv4 = 0x0021
	protocolIPv6 = 0x0057
)

// Options of a unit.
type Options struct {
	Name string       // of the interface; empty: ppp and the unit's number
	MRU  int          // largest packet we said we take; 0: the kernel's 1500
	IPv6 bool         // let IPv6 packets pass; otherwise they are dropped
	Net  *netif.Netif // to share; nil opens one for this unit

	// Standby is the interface to use, already made; its name stays. Nil: one is made, and goes with the channel.
	Standby *Standby

	newUnit bool // PPPIOCNEWUNIT even where rtnetlink could
}

// Unit is a link's upper half, the network interface. It lives until its Channel is closed.
type Unit struct {
	file   *os.File
	number int
	iface  *netif.Interface
	net    *netif.Netif // ours to close, or nil

	standby *Standby // whose interface it is; nil when it is the unit's own
}

// OpenUnit makes the interface, still down and without addresses, and joins the channel to it. A taken name is
// netif.ErrExists. Making an interface waits for the kernel's RTNL lock: tens of milliseconds.
func (c *Channel) OpenUnit(o Options) (*Unit, error) {
	if o.Name != "" {
		if err := netif.CheckName(o.Name); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.isClosed():
		return nil, ErrClosed
	case c.unit.Load() != nil:
		return nil, errors.New("ppp channel: a unit is open already")
	}
	if o.Standby != nil {
		u, err := o.Standby.join(c, o)
		if err == nil {
			c.unit.Store(u)
		}
		return u, err
	}
	u := &Unit{}
	if o.Net == nil {
		n, err := netif.New()
		if err != nil {
			return nil, err
		}
		o.Net, u.net = n, n
	}
	if err := u.open(c, o); err != nil {
		if u.net != nil {
			u.net.Close()
		}
		return nil, fmt.Errorf("ppp unit %s: %w", o.Name, err)
	}
	c.unit.Store(u)
	go func() {
		select {
		case <-c.serving:
			// How it ends is told by Serve as well, which has the caller's ear.
			_ = c.loop(u.file)
		case <-c.closed:
		}
	}()
	return u, nil
}

func (u *Unit) open(c *Channel, o Options) error {
	fd, err := u.create(o)
	if err != nil {
		return err
	}
	if err = prepare(fd, o); err == nil {
		err = c.connect(u.number)
	}
	if err != nil {
		unix.Close(fd) // the interface goes with it
		return err
	}
	// The poller and the reader come last: a unit without a channel reads as ended.
	u.file, err = device.File(fd)
	return err
}

// create makes the interface and returns the descriptor that it lives by.
func (u *Unit) create(o Options) (fd int, err error) {
	if fd, err = device.Open(); err != nil {
		return -1, err
	}
	if err := u.name(fd, o); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (u *Unit) name(fd int, o Options) (err error) {
	err = netif.ErrNoPPPLink
	if !o.newUnit {
		err = o.Net.CreatePPP(o.Name, fd)
	}
	rename := false
	if errors.Is(err, netif.ErrNoPPPLink) {
		number := int32(-1)
		if err := ioctlPtr(fd, unix.PPPIOCNEWUNIT, unsafe.Pointer(&number)); err != nil {
			return fmt.Errorf("PPPIOCNEWUNIT: %w", err)
		}
		rename = o.Name != ""
	} else if err != nil {
		return err
	}
	if u.number, err = getInt(fd, unix.PPPIOCGUNIT); err != nil {
		return fmt.Errorf("PPPIOCGUNIT: %w", err)
	}
	name := o.Name
	if name == "" || rename {
		name = fmt.Sprintf("ppp%d", u.number)
	}
	if u.iface, err = o.Net.ByName(name); err != nil {
		return err
	}
	if rename {
		return u.iface.Rename(o.Name)
	}
	return nil
}

// prepare sets what a link wants of its unit.
func prepare(fd int, o Options) error {
	if o.MRU > 0 {
		if err := setInt(fd, unix.PPPIOCSMRU, o.MRU); err != nil {
			return fmt.Errorf("PPPIOCSMRU: %w", err)
		}
	}
	if err := changeFlags(fd, scEnableIP, 0); err != nil {
		return err
	}
	mode6 := int32(npModeDrop)
	if o.IPv6 {
		mode6 = npModePass
	}
	for _, np := range []npioctl{{protocolIPv4, npModePass}, {protocolIPv6, mode6}} {
		// EINVAL: a kernel without that network layer, which drops it anyhow.
		if err := ioctlPtr(fd, unix.PPPIOCSNPMODE, unsafe.Pointer(&np)); err != nil && !is(err, unix.EINVAL) {
			return fmt.Errorf("PPPIOCSNPMODE: %w", err)
		}
	}
	return nil
}

// connect joins the channel to a unit.
func (c *Channel) connect(unit int) error {
	err := control(c.file, func(channel int) error { return setInt(channel, unix.PPPIOCCONNECT, unit) })
	if is(err, unix.ENXIO) {
		return ErrGone
	} else if err != nil {
		return fmt.Errorf("PPPIOCCONNECT: %w", err)
	}
	return nil
}

// close removes the interface, or leaves it to the standby that it belongs to.
func (u *Unit) close() error {
	if u.standby != nil {
		return u.standby.leave(u)
	}
	err := u.file.Close()
	if u.net != nil {
		err = errors.Join(err, u.net.Close())
	}
	return err
}

// Name is the interface's.
func (u *Unit) Name() string { return u.iface.Name() }

// Index is the interface's.
func (u *Unit) Index() int { return u.iface.Index() }

// Number is the unit's in the kernel, the N of pppN where no name was asked for.
func (u *Unit) Number() int { return u.number }

// Interface is where addresses and routes are set.
func (u *Unit) Interface() *netif.Interface { return u.iface }

// Stats are the interface's counters: network-layer traffic and the control frames of the unit.
func (u *Unit) Stats() (netif.Stats, error) { return u.iface.Stats() }

// Idle tells for how long no packet of a network layer was sent, and none received, in whole seconds.
func (u *Unit) Idle() (xmit, recv time.Duration, err error) {
	var t idleTimes
	err = u.control("PPPIOCGIDLE", func(fd int) error { return ioctlPtr(fd, unix.PPPIOCGIDLE, unsafe.Pointer(&t)) })
	return time.Duration(t.xmit) * time.Second, time.Duration(t.recv) * time.Second, err
}

// SetMRU tells the kernel the largest packet we said we take.
func (u *Unit) SetMRU(mru int) error {
	return u.control("PPPIOCSMRU", func(fd int) error { return setInt(fd, unix.PPPIOCSMRU, mru) })
}

// SetMPPE gives the kernel one direction's encryption: the value of CCP option 18 (RFC 3078 section 2) and the start
// key. The kernel starts that direction when it sees the Configure-Ack pass: ours sent starts transmitting, the peer's
// received starts receiving. So before them come SetMPPE and SetCCP(true, false, false), after them SetCCP(true, true, must).
func (u *Unit) SetMPPE(transmit bool, bits uint32, key []byte) error {
	const optionMPPE, optionLen = 18, 6
	if len(key) != 16 {
		return fmt.Errorf("ppp unit %s: an MPPE start key of %d octets, not 16", u.Name(), len(key))
	}
	option := append([]byte{optionMPPE, optionLen, byte(bits >> 24), byte(bits >> 16), byte(bits >> 8), byte(bits)}, key...)
	if u.standby != nil { // CCP is the kernel's to watch: control frames have to pass the unit
		if err := u.standby.pass(u); err != nil {
			return err
		}
	}
	d := optionData{ptr: &option[0], length: uint32(len(option))}
	if transmit {
		d.transmit = 1
	}
	err := u.control("PPPIOCSCOMPRESS", func(fd int) error { return ioctlPtr(fd, unix.PPPIOCSCOMPRESS, unsafe.Pointer(&d)) })
	clear(option)
	if is(err, unix.EINVAL, unix.ENOENT) {
		return fmt.Errorf("%w: the kernel has no MPPE: run modprobe ppp_mppe, or set use-encryption = \"no\" on the profile", err)
	}
	return err
}

// SetCCP tells the kernel how far CCP is. Open lets it act on the acknowledgements that pass, up on resets, and must
// keeps it from sending in the clear what it should have encrypted. Not open stops encryption and forgets the keys.
func (u *Unit) SetCCP(open, up, must bool) error {
	var set int
	for _, f := range [...]struct {
		on   bool
		flag int
	}{{open, scCCPOpen}, {up, scCCPUp}, {must, scMustComp}} {
		if f.on {
			set |= f.flag
		}
	}
	return u.control("PPPIOCSFLAGS", func(fd int) error {
		return changeFlags(fd, set, (scCCPOpen|scCCPUp|scMustComp)&^set)
	})
}

func changeFlags(fd, set, clear int) error {
	flags, err := getInt(fd, unix.PPPIOCGFLAGS)
	if err == nil {
		err = setInt(fd, unix.PPPIOCSFLAGS, flags&^clear|set)
	}
	if err != nil {
		return fmt.Errorf("PPPIOCSFLAGS: %w", err)
	}
	return nil
}

// control runs one ioctl and names the interface when it fails.
func (u *Unit) control(what string, f func(fd int) error) error {
	err := control(u.file, f)
	if err == nil || errors.Is(err, ErrClosed) {
		return err
	}
	return fmt.Errorf("ppp unit %s: %s: %w", u.Name(), what, err)
}
