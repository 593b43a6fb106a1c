package ppp

import "net/netip"

// IPCP configuration options (RFC 1332 section 3, RFC 1877). Not in the list, thus rejected: the deprecated IP-Addresses
// (1), Van Jacobson compression (2) and Mobile IPv4 (4).
const (
	optIPAddress = 3
	optDNS1      = 129
	optNBNS1     = 130
	optDNS2      = 131
	optNBNS2     = 132
)

// ipcp is the options of IPCP with names.
type ipcp struct {
	address ipAddressOption
	servers [4]nameServerOption // DNS1, NBNS1, DNS2, NBNS2
}

func newIPCP(l *Link) *ipcp {
	o := &ipcp{address: ipAddressOption{link: l}}
	for i, kind := range [...]uint8{optDNS1, optNBNS1, optDNS2, optNBNS2} {
		o.servers[i].number = kind
	}
	if l.cfg.PeerDNS {
		o.servers[0].wanted, o.servers[2].wanted = true, true
	}
	return o
}

func (o *ipcp) set() optionSet {
	return optionSet{&o.address, &o.servers[0], &o.servers[1], &o.servers[2], &o.servers[3]}
}

// give fills in what the login brought.
func (o *ipcp) give(local, remote netip.Addr, dns, wins []netip.Addr) {
	o.address.local, o.address.fixedLocal = local, local.Is4() && len(o.address.link.cfg.Auth) > 0
	o.address.remote = remote
	v4 := func(in []netip.Addr) (out [2]netip.Addr) {
		i := 0
		for _, a := range in {
			if a = a.Unmap(); a.Is4() && i < len(out) {
				out[i] = a
				i++
			}
		}
		return out
	}
	d, w := v4(dns), v4(wins)
	o.servers[0].give, o.servers[2].give = d[0], d[1]
	o.servers[1].give, o.servers[3].give = w[0], w[1]
}

// dns is what the peer told us to use.
func (o *ipcp) dns() (out []netip.Addr) {
	for _, i := range [...]int{0, 2} {
		s := &o.servers[i]
		if s.wanted && s.learned.IsValid() && !s.learned.IsUnspecified() {
			out = append(out, s.learned)
		}
	}
	return out
}
