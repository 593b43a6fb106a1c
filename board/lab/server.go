package lab

import (
	"context"
	"net/netip"
	"time"
)

// A Reference is strongSwan + xl2tpd + pppd as the server: what the server under test is compared with, and the proof
// that the lab's clients work.
type Reference struct {
	*Node
	Charon *Charon
	L2TP   *XL2TPD
}

// ReferenceServer starts strongSwan (unless ike.PSK is empty), xl2tpd and pppd as a server on a node.
func ReferenceServer(n *Node, ike IKE, lns LNS) *Reference {
	n.lab.Helper()
	r := &Reference{Node: n}
	var err error
	if ike.PSK != "" {
		r.Charon, err = n.Charon()
		n.lab.Must(err, "reference server")
		n.lab.Must(r.Charon.Load(context.Background(), netip.Addr{}, ike), "reference server")
	}
	r.L2TP, err = n.LNS(lns)
	n.lab.Must(err, "reference server")
	return r
}

// Stop ends the server.
func (r *Reference) Stop() {
	r.L2TP.Stop()
	if r.Charon != nil {
		r.Charon.Stop()
	}
	r.Node.Kill()
}

// Memory returns the resident memory of all of the server's processes in octets: each session has a pppd. What they share
// is counted once.
func (r *Reference) Memory() (total int64) {
	for _, pid := range r.Processes() {
		total += procMemory(pid, "smaps_rollup", "Pss:")
	}
	return total
}

// CPU returns the processor time that the server's processes have used.
func (r *Reference) CPU() (total time.Duration) {
	for _, pid := range r.Processes() {
		total += cpuTime(pid)
	}
	return total
}
