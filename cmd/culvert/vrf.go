package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"culvert/ipsec"
	"culvert/ipsec/esp"
	"culvert/ipsec/natt"
	"culvert/l2tp"
)

// Calls within a VRF (connect-to = "address@vrf"). The sockets of IKE, of ESP, of L2TP's control messages and of the
// kernel's tunnel are bound to the VRF's device; routes are then looked up in the VRF's table. The link's own interface
// stays in the main one.

// vrf holds the sockets in one, which are open as long as a client is configured for it.
type vrf struct {
	natt *natt.Conns
	raw  *esp.Raw // nil where the kernel does ESP
}

func (v *vrf) close() {
	v.natt.Close()
	if v.raw != nil {
		v.raw.Close()
	}
}

// vrfWays says which packets leave by the sockets of a VRF. It changes on the loop; our own ESP looks it up at the same
// time.
type vrfWays struct {
	list atomic.Pointer[[]vrfWay]
}

type vrfWay struct {
	local, remote netip.Addr
	*vrf
}

// find returns the VRF that a client calls in between these addresses, or nil. Where none does it is the one with our
// address: a server may answer from another than the one called.
func (w *vrfWays) find(local, remote netip.Addr) (found *vrf) {
	list := w.list.Load()
	if list == nil {
		return nil
	}
	for _, way := range *list {
		if way.local != local {
			continue
		}
		if found = way.vrf; way.remote == remote {
			return found
		}
	}
	return found
}

// learnVRFs brings the ways in line with the clients' calls.
func (d *daemon) learnVRFs() {
	var list []vrfWay
	for _, dl := range d.dialers {
		if v := d.vrfs[dl.cfg.VRF]; v != nil && dl.local.IsValid() {
			list = append(list, vrfWay{dl.local.Addr(), dl.remote, v})
		}
	}
	d.ways.list.Store(&list)
}

// intoVRF puts a socket into a VRF.
func intoVRF(fd int, name string) error {
	if err := unix.BindToDevice(fd, name); err != nil {
		return fmt.Errorf("VRF %s: %w: see that it exists (ip link show type vrf)", name, err)
	}
	return nil
}

// enterVRF opens the sockets of IKE in a client's VRF, and of ESP where that is ours, which stay open for the next call.
func (d *daemon) enterVRF(name string) error {
	if name == "" || d.ike == nil || d.vrfs[name] != nil {
		return nil
	}
	if err := d.natt.Share(); err != nil {
		return err
	}
	log := d.logger("ipsec")
	o := d.nattOptions(log)
	o.Device, o.Strangers = name, false
	v := new(vrf)
	var err error
	if v.natt, err = natt.Open(o); err != nil {
		return err
	}
	if d.path.esp == inUserspace {
		v.raw, err = esp.OpenRaw(esp.RawOptions{Device: name, Deaf: rawHearsVRFs(), Log: log})
		if err != nil {
			return errors.Join(err, v.natt.Close())
		}
		v.raw.Serve(d.espReader)
	}
	if d.vrfs == nil {
		d.vrfs = make(map[string]*vrf)
	}
	d.vrfs[name] = v
	v.natt.Serve(d.receiveIKE, d.receiveFirst)
	return nil
}

// rawHearsVRFs says whether raw sockets that are in no VRF receive what comes in those as well: as the kernel has it
// unless it is told otherwise.
func rawHearsVRFs() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv4/raw_l3mdev_accept")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// leaveVRFs closes the sockets in VRFs that no client is configured for any more.
func (d *daemon) leaveVRFs() {
	for name, v := range d.vrfs {
		used := false
		for _, dl := range d.dialers {
			used = used || dl.cfg.VRF == name || dl.want != nil && dl.want.VRF == name
		}
		if !used {
			delete(d.vrfs, name)
			d.learnVRFs()
			v.close()
		}
	}
}

func (d *daemon) closeVRFs() {
	for name, v := range d.vrfs {
		v.close()
		delete(d.vrfs, name)
	}
}

// conns are the sockets of IKE that lead to a peer: those of the VRF that a client of ours calls it in, or those of no
// VRF.
func (d *daemon) conns(p ipsec.Path) *natt.Conns {
	if v := d.ways.find(p.Local.Addr(), p.Remote.Addr()); v != nil {
		return v.natt
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
