package main

import (
	"errors"
	"net/netip"
	"time"

	"culvert/l2tp"
	pppkernel "culvert/ppp/kernel"
	"culvert/ppp/netif"
	pppuser "culvert/ppp/user"
)

// plane carries the data messages of L2TP sessions: in the kernel, or in this process.
type plane interface {
	l2tp.DataPlane
	Close()
}

// pppChannel is the lower half of a link on either data path; see pppkernel.Channel.
type pppChannel interface {
	Serve(recv func(frame []byte)) error
	Send(frame []byte) error
	Close() error
	// openUnit makes the interface, or takes the standby one where there is one.
	openUnit(name string, mru int, ipv6 bool, net *netif.Netif, s standby) (pppUnit, error)
}

// pppUnit is the upper half: the network interface.
type pppUnit interface {
	Name() string
	Interface() *netif.Interface
	Stats() (netif.Stats, error)
	Idle() (xmit, recv time.Duration, err error)
}

type kernelChannel struct{ *pppkernel.Channel }

func (c kernelChannel) openUnit(name string, mru int, ipv6 bool, net *netif.Netif, s standby) (pppUnit, error) {
	o := pppkernel.Options{Name: name, MRU: mru, IPv6: ipv6, Net: net}
	o.Standby, _ = s.(*pppkernel.Standby)
	return c.OpenUnit(o)
}

type userChannel struct{ *pppuser.Channel }

func (c userChannel) openUnit(name string, mru int, ipv6 bool, net *netif.Netif, s standby) (pppUnit, error) {
	o := pppuser.Options{Name: name, MRU: mru, IPv6: ipv6, Net: net}
	o.Standby, _ = s.(*pppuser.Standby)
	return c.OpenUnit(o)
}

// standby is an interface that waits for a link, and holds what is sent through it meanwhile.
type standby interface {
	Interface() *netif.Interface
	// Carry lets packets pass: the held ones first, those from the one address with the other in its place.
	Carry(from, to netip.Addr) error
	Forget()
	Close() error
}

// openStandby makes one; wanted is called for each packet that is held.
func (d *daemon) openStandby(name string, wanted func()) (standby, error) {
	if d.path.l2tp == inUserspace {
		s, err := pppuser.OpenStandby(pppuser.Options{Name: name, Net: d.netif}, wanted)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
	s, err := pppkernel.OpenStandby(pppkernel.Options{Name: name, Net: d.netif}, wanted)
	if err != nil {
		return nil, err
	}
	return s, nil
}

var errSessionLost = errors.New("the session ended before PPP could start")

// attach makes the PPP channel of an open session.
func (d *daemon) attach(t l2tp.TunnelID, id l2tp.SessionID) (pppChannel, error) {
	if d.path.l2tp == inUserspace {
		s, ok := d.userL2TP.Session(t, id)
		if !ok {
			return nil, errSessionLost
		}
		c, err := pppuser.Attach(s)
		if err != nil {
			return nil, err
		}
		return userChannel{c}, nil
	}
	fd, ok := d.kernelL2TP.Session(t, id)
	if !ok {
		return nil, errSessionLost
	}
	c, err := pppkernel.Attach(fd)
	if err != nil {
		return nil, err
	}
	return kernelChannel{c}, nil
}
