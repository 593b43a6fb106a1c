package main

import (
	"errors"
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
	openUnit(name string, mru int, ipv6 bool, net *netif.Netif) (pppUnit, error)
}

// pppUnit is the upper half: the network interface.
type pppUnit interface {
	Name() string
	Interface() *netif.Interface
	Stats() (netif.Stats, error)
	Idle() (xmit, recv time.Duration, err error)
}

type kernelChannel struct{ *pppkernel.Channel }

func (c kernelChannel) openUnit(name string, mru int, ipv6 bool, net *netif.Netif) (pppUnit, error) {
	return c.OpenUnit(pppkernel.Options{Name: name, MRU: mru, IPv6: ipv6, Net: net})
}

type userChannel struct{ *pppuser.Channel }

func (c userChannel) openUnit(name string, mru int, ipv6 bool, net *netif.Netif) (pppUnit, error) {
	return c.OpenUnit(pppuser.Options{Name: name, MRU: mru, IPv6: ipv6, Net: net})
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
