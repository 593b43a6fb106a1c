package main

import (
	"errors"
	"fmt"
	"strings"

	"culvert/cmd/culvert/internal/config"
	"culvert/ipsec/xfrm"
	l2tpkernel "culvert/l2tp/kernel"
	"culvert/l2tp/sock"
	pppkernel "culvert/ppp/kernel"
	pppuser "culvert/ppp/user"
)

// carrier is who does a layer's work on every packet.
type carrier uint8

const (
	inKernel carrier = iota
	inUserspace
)

// dataPath says who moves the packets. PPP always goes with the L2TP below it: the kernel's PPP takes no frames but from
// the kernel's L2TP, and a TUN device none but from ours.
type dataPath struct {
	esp  carrier // where there is IPsec
	l2tp carrier
}

// dataPaths are the legal ones, the fastest first. ESP in userspace below the kernel's L2TP is none of them: the kernel
// takes L2TP from a UDP socket, which what we have decrypted cannot be put back into.
var dataPaths = []dataPath{
	{esp: inKernel, l2tp: inKernel},
	{esp: inKernel, l2tp: inUserspace}, // kernels without l2tp_ppp or ppp_generic
	{esp: inUserspace, l2tp: inUserspace},
}

// name is for the console and the log: ESP, L2TP and PPP.
func (p dataPath) name(ipsec bool) string {
	esp, rest := "xfrm", "+kernel+kernel"
	if p.esp == inUserspace {
		esp = "esp"
	}
	if !ipsec {
		esp = "none"
	}
	if p.l2tp == inUserspace {
		rest = "+user+user"
	}
	return esp + rest
}

// machine is what this one lacks; nil is what it has. The errors say what mends them.
type machine struct {
	xfrm, marks, l2tp, ppp error // of the kernel's own data path
	tun                    error
}

func probeMachine() machine {
	m := machine{xfrm: xfrm.Probe(), marks: sock.Probe(), l2tp: l2tpkernel.Probe(), ppp: pppkernel.Probe(), tun: pppuser.Probe()}
	if errors.Is(m.marks, sock.ErrNoMarks) {
		m.marks = errNoMarks
	}
	if lacks := new(xfrm.ProbeError); errors.As(m.xfrm, &lacks) && !lacks.Fatal() {
		m.xfrm = nil // it costs only what openIPsec warns of
	}
	return m
}

// lacks is what a data path needs and the machine has not.
func (m machine) lacks(p dataPath, ipsec bool) (lacks []error) {
	add := func(errs ...error) {
		for _, err := range errs {
			if err != nil {
				lacks = append(lacks, err)
			}
		}
	}
	// Without IPsec the first path does not need the kernel's, and nothing is faster. Of the other two the one is taken
	// that will do should the configuration want IPsec later.
	if p.esp == inKernel && (ipsec || p.l2tp == inUserspace) {
		add(m.xfrm, m.marks)
	}
	if p.l2tp == inKernel {
		add(m.l2tp, m.ppp)
	} else {
		add(m.tun)
	}
	return lacks
}

// choose takes the fastest data path that the machine can do, or the one that the configuration insists on. why says
// what a faster one would need.
func (m machine) choose(want config.DataPath, ipsec bool) (p dataPath, why string, err error) {
	switch want {
	case config.DataPathKernel:
		p = dataPaths[0]
		if lacks := m.lacks(p, ipsec); len(lacks) > 0 {
			return p, "", fmt.Errorf(`data-path = "kernel" cannot be had: %s; or set data-path = "auto"`, sentence(lacks))
		}
		return p, "the configuration wants it", nil
	case config.DataPathUserspace:
		p = dataPaths[len(dataPaths)-1]
		if lacks := m.lacks(p, ipsec); len(lacks) > 0 {
			return p, "", fmt.Errorf(`data-path = "userspace" cannot be had: %s`, sentence(lacks))
		}
		return p, "the configuration wants it", nil
	}
	var first []error
	for _, p := range dataPaths {
		lacks := m.lacks(p, ipsec)
		switch {
		case len(lacks) == 0 && first == nil:
			return p, "the kernel does all of it", nil
		case len(lacks) == 0:
			return p, "the kernel's own would be faster, but " + sentence(first), nil
		case first == nil:
			first = lacks
		}
	}
	return p, "", fmt.Errorf("no data path: neither the kernel's (%s), nor one in userspace (%s)",
		sentence(first), sentence(m.lacks(dataPaths[len(dataPaths)-1], ipsec)))
}

// sentence says what is missing and what mends it, and no more: it is one line of the log.
func sentence(errs []error) string {
	var s []string
	for _, err := range errs {
		lacks := new(xfrm.ProbeError)
		switch {
		case errors.As(err, &lacks):
			for _, l := range lacks.Lacks {
				if l.Fatal {
					s = append(s, l.Feature+": "+l.Mend)
				}
			}
		case errors.Is(err, l2tpkernel.ErrUnsupported):
			s = append(s, l2tpkernel.ErrUnsupported.Error())
		default:
			s = append(s, err.Error())
		}
	}
	return strings.Join(s, "; ")
}

// choosePath settles who moves the packets, and says so in one line.
func (d *daemon) choosePath() error {
	ipsec := usesIPsec(d.cfg)
	path, why, err := probeMachine().choose(d.cfg.System.DataPath, ipsec)
	if err != nil {
		return err
	}
	d.path = path
	d.logger("system").Info("data path chosen", "data-path", path.name(ipsec), "why", why)
	return nil
}

// dataPath names what moves the packets: ESP, L2TP and PPP.
func (d *daemon) dataPath() string { return d.path.name(d.ike != nil) }
