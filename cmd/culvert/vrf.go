package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
	"culvert/ipsec/natt"
	"culvert/l2tp"
)

// Calls within a VRF (connect-to = "address@vrf"). The sockets of IKE, of L2TP's control messages and of the kernel's
// tunnel are bound to the VRF's device; routes are then looked up in the VRF's table. The link's own interface stays in the
// main one.

var errVRFPath = errors.New(`a VRF takes the kernel's own ESP and L2TP: set data-path = "kernel", or load what the log names as missing for it`)

// intoVRF puts a socket into a VRF.
func intoVRF(fd int, name string) error {
	if err := unix.BindToDevice(fd, name); err != nil {
		return fmt.Errorf("VRF %s: %w: see that it exists (ip link show type vrf)", name, err)
	}
	return nil
}

// enterVRF opens the sockets of IKE in a client's VRF, which stay open for the next call.
func (d *daemon) enterVRF(name string) error {
	switch {
	case name == "":
		return nil
	case d.path != dataPaths[0]:
		return errVRFPath
	case d.ike == nil || d.vrfs[name] != nil:
		return nil
	}
	if err := d.natt.Share(); err != nil {
		return err
	}
	o := d.nattOptions(d.logger("ipsec"))
	o.Device, o.Strangers = name, false
	conns, err := natt.Open(o)
	if err != nil {
		return err
	}
	if d.vrfs == nil {
		d.vrfs = make(map[string]*natt.Conns)
	}
	d.vrfs[name] = conns
	conns.Serve(d.receiveIKE, d.receiveFirst)
	return nil
}

// leaveVRFs closes the sockets in VRFs that no client is configured for any more.
func (d *daemon) leaveVRFs() {
	for name, conns := range d.vrfs {
		used := false
		for _, dl := range d.dialers {
			used = used || dl.cfg.VRF == name || dl.want != nil && dl.want.VRF == name
		}
		if !used {
			conns.Close()
			delete(d.vrfs, name)
		}
	}
}

func (d *daemon) closeVRFs() {
	for name, conns := range d.vrfs {
		conns.Close()
		delete(d.vrfs, name)
	}
}

// conns are the sockets of IKE that lead to a peer: those of the VRF that a client of ours calls it in, or those of no
// VRF.
func (d *daemon) conns(p ipsec.Path) *natt.Conns {
	for _, dl := range d.dialers {
		if dl.cfg.VRF != "" && dl.local.Addr() == p.Local.Addr() {
			if c := d.vrfs[dl.cfg.VRF]; c != nil {
				return c
			}
		}
	}
	return d.natt
}

// dialerAt is the client that calls from and to these addresses.
func (d *daemon) dialerAt(p l2tp.Peer) *dialer {
	for _, dl := range d.dialers {
		if dl.local == p.Local && dl.remote == p.Remote.Addr() {
			return dl
		}
	}
	return nil
}
