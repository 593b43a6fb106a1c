package main

import (
	"log/slog"
	"slices"

	"culvert/ipsec"
	"culvert/ipsec/portmap"
	"culvert/ipsec/xfrm"
	"culvert/l2tp"
	l2tpkernel "culvert/l2tp/kernel"
)

// openPortmap makes the table that tells clients behind one NAT apart. It can be done without: then those with one port
// get in each other's way.
func (d *daemon) openPortmap(log *slog.Logger) {
	var err error
	d.portmap, err = portmap.New(portmap.Options{Log: log, MarkMask: d.markMask(), Ports: d.ports()})
	if err != nil {
		if lacks := portmap.Probe(); lacks != nil {
			err = lacks
		}
		log.Warn("clients behind one NAT work only if their UDP ports differ, and only one Windows among them", "error", err)
		return
	}
	log.Info("clients behind one NAT may use one UDP port", "by", "nftables port mapping")
}

func (d *daemon) closePortmap() {
	if d.portmap == nil {
		return
	}
	if err := d.portmap.Close(); err != nil {
		d.logger("ipsec").Warn("nftables table not removed", "error", err)
	}
}

// ipsecBackend is the data plane for the key exchange.
func (d *daemon) ipsecBackend() ipsec.Backend {
	if d.portmap == nil {
		return d.esp
	}
	return &natBackend{Backend: d.xfrm, table: d.portmap, log: d.logger("ipsec"), local: d.ports(),
		ours: func(m ipsec.Mark) bool { return d.dialerOf(m) != nil }, mapped: make(map[ipsec.SAID]uint16)}
}

// natBackend gives every client behind a NAT a source port that nobody else has. The mapping is there before the SA that
// the first packet comes out of, and as long as any SA for the port.
type natBackend struct {
	*xfrm.Backend
	table  *portmap.Table
	log    *slog.Logger
	local  []uint16              // our ports of L2TP
	ours   func(ipsec.Mark) bool // says whether the mark is of a call of our own
	mapped map[ipsec.SAID]uint16 // the client's port, for each SA that holds a mapping
}

// l2tpPort is where a client sends from that did not negotiate a port: if any, this is the one that others use too.
const l2tpPort = 1701

func (b *natBackend) Install(sa ipsec.SA) error {
	// Our own calls go to a server, which is one for its address.
	local := sa.Selector.LocalPort
	if b.ours(sa.Mark) || sa.Dir != ipsec.In || sa.Encap == (ipsec.Encap{}) || local != 0 && !slices.Contains(b.local, local) {
		return b.Backend.Install(sa)
	}
	if _, taken := b.mapped[sa.ID()]; taken {
		return b.Backend.Install(sa) // which refuses it, or revives what expired
	}
	port := sa.Selector.RemotePort
	if port == 0 {
		port = l2tpPort
	}
	if _, err := b.table.Add(uint32(sa.Mark), port); err != nil {
		b.log.Warn("a client behind a NAT keeps its port: another one with the same port will be in its way",
			"mark", sa.Mark, "remote", sa.Remote, "port", port, "error", err)
		return b.Backend.Install(sa)
	}
	if err := b.Backend.Install(sa); err != nil {
		b.unmap(sa.Mark, port)
		return err
	}
	b.mapped[sa.ID()] = port
	return nil
}

func (b *natBackend) Remove(id ipsec.SAID) error {
	if err := b.Backend.Remove(id); err != nil {
		return err
	}
	if port, ok := b.mapped[id]; ok {
		delete(b.mapped, id)
		b.unmap(id.Mark, port)
	}
	return nil
}

func (b *natBackend) unmap(m ipsec.Mark, port uint16) {
	if err := b.table.Remove(uint32(m), port); err != nil {
		b.log.Warn("a client's port stays mapped", "mark", m, "error", err)
	}
}

// guardPlane is the kernel's L2TP for the L2TP engine.
func (d *daemon) guardPlane(p *l2tpkernel.Plane) plane {
	if d.portmap == nil {
		return p
	}
	return guardedPlane{p, d.portmap, d.logger("l2tp")}
}

// guardedPlane lets nobody's data into a tunnel but its own client's. Linux from 6.11 on finds a session by its ids
// whatever socket the packet came to, so that the policy on the tunnel's socket is not enough.
type guardedPlane struct {
	*l2tpkernel.Plane
	table *portmap.Table
	log   *slog.Logger
}

func (p guardedPlane) OpenTunnel(s l2tp.TunnelSpec) error {
	if err := p.table.Bind(uint32(s.Peer.Via), uint16(s.Local)); err != nil {
		return err
	}
	err := p.Plane.OpenTunnel(s)
	if err != nil {
		p.unbind(s)
	}
	return err
}

func (p guardedPlane) CloseTunnel(s l2tp.TunnelSpec) {
	p.Plane.CloseTunnel(s)
	p.unbind(s)
}

func (p guardedPlane) unbind(s l2tp.TunnelSpec) {
	if err := p.table.Unbind(uint16(s.Local)); err != nil {
		p.log.Warn("a tunnel id stays reserved", "tunnel", s.Local, "error", err)
	}
}
