package main

import (
	"culvert/ipsec"
	"culvert/l2tp"
	"culvert/ppp"
)

// What stands around a packet on its way through the tunnel, in octets.
const (
	outerMTU      = 1500 // of the links on the way, as long as nobody says otherwise
	ipv4Header    = 20
	ipv6Header    = 40
	udpHeader     = 8
	l2tpHeader    = 6  // of data messages as the kernel sends them
	l2tpSequenced = 10 // with sequence numbers
	pppHeader     = 4  // address, control and protocol
)

// innerMTU is the largest packet that fits into one of 1500 octets outside. With IPsec suite is what protects it, and
// encap says that ESP is encapsulated in UDP (RFC 3948).
func innerMTU(suite *ipsec.Suite, encap, ipv6, sequenced bool) int {
	room := outerMTU - ipv4Header
	if ipv6 {
		room = outerMTU - ipv6Header
	}
	around := udpHeader + l2tpHeader + pppHeader
	if sequenced {
		around = udpHeader + l2tpSequenced + pppHeader
	}
	if suite == nil {
		return room - around
	}
	if encap {
		room -= udpHeader
	}
	// Padding goes in steps: the largest payload that fits is looked for from above.
	payload := room
	for payload+suite.Overhead(payload) > room {
		payload--
	}
	return payload - around
}

// fit lowers a link's MTU and MRU to what its tunnel can carry without fragments.
func (d *daemon) fit(cfg ppp.Config, s l2tp.SessionInfo) ppp.Config {
	peer := s.Tunnel.Peer
	ipv6, sequenced := peer.Remote.Addr().Is6(), s.Spec.SendSeq || s.Spec.RequireSeq
	most := innerMTU(nil, false, ipv6, sequenced)
	if c := d.clients[ipsec.Mark(peer.Via)]; peer.Via != 0 && c != nil {
		most = innerMTU(&c.info.Suite, c.info.UDP, ipv6, sequenced)
	}
	cfg.MTU, cfg.MRU = min(cfg.MTU, most), min(cfg.MRU, most)
	return cfg
}
