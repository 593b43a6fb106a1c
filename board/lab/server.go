package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// A Reference is strongSwan + xl2tpd + pppd as the server: what the server under test is compared with, and the proof
// that the lab's clients work.
type Reference struct {
	*Node
	Charon *Charon
	L2TP   *XL2TPD
}

// ReferenceServer starts strongSwan (unless ike has nothing to authenticate with), xl2tpd and pppd as a server on a node.
func ReferenceServer(n *Node, ike IKE, lns LNS) *Reference {
	n.lab.Helper()
	r := &Reference{Node: n}
	var err error
	if ike.Secures() {
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

// Memory returns the resident memory of all of the server's processes in octets: each session has a pppd. What comes from
// a program's files is counted once for all processes of that program.
func (r *Reference) Memory() (total int64) {
	files := map[string]int64{}
	for _, pid := range r.Processes() {
		total += procMemory(pid, "status", "RssAnon:") + procMemory(pid, "status", "RssShmem:")
		program, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		files[program] = max(files[program], procMemory(pid, "status", "RssFile:"))
	}
	for _, n := range files {
		total += n
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
