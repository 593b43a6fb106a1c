package xfrm

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"culvert/board/netlink"
)

const (
	dirIn, dirOut           = 0, 1
	actionAllow, actionDrop = 0, 1

	// Our priorities; a lower one is looked at first. They stand before the 100000 and up of other daemons' policies, which
	// would otherwise carry off a client's packets, and are part of our signature.
	priorityMark  = 0xc171
	priorityGuard = 0xc172
	priorityHold  = 0xc173
)

// policy is one entry of the kernel's SPD with at most one template: ESP in transport mode.
type policy struct {
	sel      selector
	dir      uint8
	action   uint8
	priority uint32
	mark     mark
	tmpl     bool
	reqid    uint32 // of the template; 0 takes any SA
	index    uint32 // the kernel's own name, 0 if not known
}

// markPolicy sends what carries a client's mark through the client's SA.
func markPolicy(r *request) policy {
	sel := r.selector()
	// Not the peer's port: a packet filter may rewrite it, and the mark says whose packet it is.
	sel.dport = 0
	return policy{
		sel: sel, dir: dirOut, action: actionAllow, priority: priorityMark,
		mark: mark{uint32(r.sa.Mark), r.mask}, tmpl: true, reqid: r.reqid,
	}
}

// guardPolicies admit UDP to the port only out of an SA, and from it only with a mark that has a policy.
func guardPolicies(v6 bool, port uint16) []policy {
	sel := selector{family: familyIf(v6), proto: unix.IPPROTO_UDP}
	in, out := sel, sel
	in.dport, out.sport = port, port
	return []policy{
		{sel: in, dir: dirIn, action: actionAllow, priority: priorityGuard, tmpl: true},
		{sel: out, dir: dirOut, action: actionDrop, priority: priorityGuard},
	}
}

// same says whether two policies are one apart from the kernel's index.
func (p policy) same(q policy) bool {
	p.index, q.index = 0, 0
	return p == q
}

// ours says whether a policy carries our signature.
func (p policy) ours() bool {
	if p.priority == priorityMark {
		return p.dir == dirOut && p.action == actionAllow && p.tmpl &&
			(p.reqid == reqidBase || ourReqid(p.reqid, p.mark)) // the first is a trial of Probe
	}
	if p.priority == priorityHold {
		return checkMask(p.mark.mask) == nil && p.mark.value != 0 && p.mark.value&^p.mark.mask == 0 && p.sel.dst.IsSingleIP() &&
			p.same(holdPolicy(p.mark, p.sel.dst.Addr()))
	}
	port := p.sel.dport | p.sel.sport
	return slices.ContainsFunc(guardPolicies(p.sel.family == unix.AF_INET6, port), p.same)
}

// info appends struct xfrm_userpolicy_info.
func (p policy) info(l layout, b []byte) []byte {
	start := len(b)
	b = p.sel.append(l, b)
	b = pad(b, start+l.lenPolicy())
	w := b[start:]
	for i := range 4 {
		l.PutUint64(w[polOffLimits+8*i:], infinite)
	}
	l.PutUint32(w[polOffPriority:], p.priority)
	w[polOffDir], w[polOffAction] = p.dir, p.action
	return b
}

// template appends struct xfrm_user_tmpl.
func (p policy) template(l layout, b []byte) []byte {
	start := len(b)
	b = pad(b, start+lenTmpl)
	w := b[start:]
	w[lenAddr+4] = unix.IPPROTO_ESP
	l.PutUint16(w[24:], p.sel.family)
	l.PutUint32(w[44:], p.reqid)
	w[48] = modeTransport
	for i := range 3 { // any algorithm
		l.PutUint32(w[52+4*i:], 0xffffffff)
	}
	return b
}

// append writes XFRM_MSG_NEWPOLICY or UPDPOLICY.
func (p policy) append(l layout, b []byte) []byte {
	b = p.info(l, b)
	if p.tmpl {
		b = l.attr(b, attrTmpl, p.template(l, nil))
	}
	if p.mark != (mark{}) {
		b = l.mark(b, p.mark)
	}
	return b
}

// appendID writes struct xfrm_userpolicy_id and the mark, for GETPOLICY and DELPOLICY: by index if it is known.
func (p policy) appendID(l layout, b []byte) []byte {
	start := len(b)
	b = p.sel.append(l, b)
	b = pad(b, start+lenPolicyID)
	w := b[start:]
	l.PutUint32(w[lenSelector:], p.index)
	w[lenSelector+4] = p.dir
	if p.mark != (mark{}) {
		b = l.mark(b, p.mark)
	}
	return b
}

// parsePolicy reads XFRM_MSG_NEWPOLICY. One with templates other than ours comes back as a policy that is not ours.
func parsePolicy(l layout, b []byte) (policy, error) {
	if len(b) < l.lenPolicy() {
		return policy{}, short("policy", len(b), l.lenPolicy())
	}
	p := policy{
		sel:      parseSelector(l, b),
		priority: l.Uint32(b[polOffPriority:]),
		index:    l.Uint32(b[polOffIndex:]),
		dir:      b[polOffDir],
		action:   b[polOffAction],
	}
	foreign := false
	err := l.attrs(b[netlink.Align(l.lenPolicy()):], func(kind uint16, data []byte) error {
		switch kind {
		case attrTmpl:
			if len(data) < lenTmpl {
				return short("template", len(data), lenTmpl)
			}
			p.tmpl, p.reqid = true, l.Uint32(data[44:])
			if len(data) != lenTmpl || data[lenAddr+4] != unix.IPPROTO_ESP || data[48] != modeTransport || data[50] != 0 {
				foreign = true
			}
		case attrMark:
			if len(data) < 8 {
				return short("mark", len(data), 8)
			}
			p.mark = mark{l.Uint32(data), l.Uint32(data[4:])}
		}
		return nil
	})
	if foreign {
		p.priority = 0
	}
	return p, err
}

func (p policy) String() string {
	dir := [...]string{"in", "out", "forward"}[min(p.dir, 2)]
	return fmt.Sprintf("policy %s proto %d sport %d dport %d mark %#x/%#x", dir, p.sel.proto, p.sel.sport, p.sel.dport, p.mark.value, p.mark.mask)
}
