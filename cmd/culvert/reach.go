package main

import (
	"errors"

	"culvert/ppp"
	"culvert/ppp/netif"
)

// reach does what helps packets between the link and the networks around it, as the profile wants: TCP's MSS lowered to
// what fits (change-tcp-mss), and ARP answered for the peer's address on the network it would belong to (arp-proxy).
// Neither is worth the link. It is called in the session's lane; taking the interface down takes it all back.
func (s *session) reach(iface *netif.Interface, n ppp.Network) {
	if s.grant.ChangeMSS {
		if err := iface.ClampMSS(n.MTU); errors.Is(err, netif.ErrNoMSS) {
			s.d.noMSS.Do(func() { s.log.Warn("TCP's MSS is not lowered on any link", "error", err) })
		} else if err != nil {
			s.log.Warn("TCP's MSS is not lowered", "error", err)
		}
	}
	if s.grant.ARPProxy && s.dialer == nil {
		on, err := iface.ProxyARP(n.Remote)
		switch {
		case err != nil:
			s.log.Warn("ARP is not answered for the user", "address", n.Remote, "error", err)
		case len(on) == 0:
			s.log.Warn("ARP is not answered for the user: no interface has a network that the address is in (arp-proxy of the profile)", "address", n.Remote)
		default:
			s.log.Debug("ARP is answered for the user", "address", n.Remote, "interfaces", on)
		}
	}
}
