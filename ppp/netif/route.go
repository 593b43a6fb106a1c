package netif

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"culvert/board/rtnl"
)

// Route leads to the peer of an interface. A zero or unspecified Gateway is the peer itself. Metric 0 is the kernel's
// own default (0 for IPv4, 1024 for IPv6).
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr
	Metric  int
}

func (r Route) String() string {
	s := r.Dst.String()
	if r.Gateway.IsValid() {
		s += " via " + r.Gateway.String()
	}
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	return s
}

// normal is the one spelling of r that is compared and stored.
func (r Route) normal() (Route, error) {
	if !r.Dst.IsValid() {
		return r, errors.New("no destination")
	}
	r.Dst = r.Dst.Masked()
	r.Gateway = r.Gateway.Unmap()
	if r.Gateway.IsValid() && r.Gateway.IsUnspecified() {
		r.Gateway = netip.Addr{}
	}
	if r.Gateway.IsValid() && r.Gateway.BitLen() != r.Dst.Addr().BitLen() {
		return r, errors.New("destination and gateway are of different families")
	}
	if r.Metric < 0 || int64(r.Metric) > 1<<32-1 {
		return r, fmt.Errorf("metric %d is not a 32-bit number", r.Metric)
	}
	return r, nil
}

// AddRoute adds a route through the interface, which must be up. A route of somebody else's to the same destination
// with the same metric is never replaced: that is ErrExists.
func (i *Interface) AddRoute(r Route) error {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	return i.addRoute(r)
}

// RemoveRoute removes a route that was added here; any other is left alone.
func (i *Interface) RemoveRoute(r Route) error {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	r, err := r.normal()
	if err != nil {
		return i.fail("remove the route "+r.String(), err)
	}
	return i.removeRoute(r)
}

// SetRoutes makes want the routes of the interface: those added earlier and not in it go. All are tried; the errors of
// those that could not be added come back joined.
func (i *Interface) SetRoutes(want []Route) error {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	return i.setRoutes(want)
}

// Routes are those added here and not removed since.
func (i *Interface) Routes() []Route {
	i.n.mu.Lock()
	defer i.n.mu.Unlock()
	return slices.Clone(i.routes)
}

func (i *Interface) setRoutes(want []Route) error {
	var errs []error
	keep := make([]Route, 0, len(want))
	for _, r := range want {
		if n, err := r.normal(); err == nil {
			keep = append(keep, n)
		}
	}
	for _, r := range slices.Clone(i.routes) {
		if !slices.Contains(keep, r) {
			errs = append(errs, i.removeRoute(r))
		}
	}
	for _, r := range want {
		errs = append(errs, i.addRoute(r))
	}
	return errors.Join(errs...)
}

func (i *Interface) addRoute(r Route) error {
	r, err := r.normal()
	if err != nil {
		return i.fail("add the route "+r.String(), err)
	}
	if i.n.h == nil {
		return i.fail("add the route "+r.String(), errClosed)
	}
	what := "add the route " + r.String()
	nr := i.kernelRoute(r)
	if nr.Gateway.IsValid() {
		if other, err := i.n.onLinkOf(r.Gateway); err == nil && other != 0 && other != i.index {
			return i.fail(what, fmt.Errorf("the gateway is on another link (%s): name the peer, or leave the gateway out", i.n.linkName(other)))
		}
	}
	err = i.n.h.AddRoute(nr)
	switch {
	case errors.Is(err, syscall.EEXIST):
		holder, ours := i.holder(nr)
		if !ours {
			return i.fail(what, fmt.Errorf("a route there with that metric %w%s: remove it, or give this one another metric", ErrExists, holder))
		}
	case errors.Is(err, syscall.ENETDOWN):
		return i.fail(what, fmt.Errorf("%w: bring the interface up first", err))
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return i.fail(what, fmt.Errorf("%w: the gateway cannot be reached over this link: name the peer, or leave the gateway out", err))
	case err != nil:
		return i.fail(what, err)
	}
	if !slices.Contains(i.routes, r) {
		i.routes = append(i.routes, r)
	}
	return nil
}

// removeRoute removes one of ours. One that the kernel has dropped already, with an address or the link, is removed.
func (i *Interface) removeRoute(r Route) error {
	at := slices.Index(i.routes, r)
	if at < 0 {
		return nil
	}
	if i.n.h == nil {
		return i.fail("remove the route "+r.String(), errClosed)
	}
	err := i.n.h.RemoveRoute(i.kernelRoute(r))
	if err != nil && !errors.Is(err, syscall.ESRCH) && !errors.Is(gone(err), ErrGone) && !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.ENETDOWN) {
		return i.fail("remove the route "+r.String(), err)
	}
	i.routes = slices.Delete(i.routes, at, at+1)
	return nil
}

func (i *Interface) kernelRoute(r Route) rtnl.Route {
	nr := rtnl.Route{Index: i.index, Dst: r.Dst, Metric: r.Metric, Protocol: unix.RTPROT_STATIC, Table: unix.RT_TABLE_MAIN}
	if r.Gateway.IsValid() && r.Gateway != i.peer && r.Gateway != i.peer6 {
		// Whatever goes into a point-to-point link comes out at the peer, so every gateway is on the link.
		nr.Gateway = r.Gateway
		nr.Flags = unix.RTNH_F_ONLINK
	} else if r.Dst.Addr().Is4() {
		nr.Scope = unix.RT_SCOPE_LINK
	}
	return nr
}

// holder finds the route that is in nr's way and says whether it is nr itself; else text tells where it leads.
func (i *Interface) holder(nr rtnl.Route) (text string, ours bool) {
	family, metric := uint8(unix.AF_INET), nr.Metric
	if nr.Dst.Addr().Is6() {
		family = unix.AF_INET6
		if metric == 0 {
			metric = 1024
		}
	}
	// Given up at an error, the route counts as somebody else's.
	there, _ := i.n.h.Routes(family, func(have rtnl.Route) bool {
		return have.Metric == metric && have.Type == unix.RTN_UNICAST && have.Dst == nr.Dst
	})
	for _, have := range there {
		if have.Index == nr.Index && have.Gateway == nr.Gateway {
			return "", true
		}
		if text == "" && have.Index > 0 {
			text = fmt.Sprintf(" (index %d)", have.Index)
			if have.Gateway.IsValid() {
				text = fmt.Sprintf(" (via %v)", have.Gateway)
			}
		}
	}
	return text, false
}

// onLinkOf is the index of the interface on whose own link addr lies, 0 when it is reached through a gateway or not
// at all.
func (n *Netif) onLinkOf(addr netip.Addr) (int, error) {
	r, err := n.h.RouteTo(addr, 0)
	if err != nil || r.Gateway.IsValid() || r.Type != unix.RTN_UNICAST {
		return 0, err
	}
	return r.Index, nil
}

func (n *Netif) linkName(index int) string {
	link, err := n.link(index)
	if err != nil {
		return fmt.Sprintf("index %d", index)
	}
	return link.Name
}

// Pin holds the way to dst, usually a tunnel's far end, as it is now, by a host route, so that a default route into the
// tunnel does not send the tunnel into itself. unpin removes it; it is never nil. Where a host route is there
// already, or dst is on our own machine, nothing is added and nothing removed.
func (n *Netif) Pin(dst netip.Addr) (unpin func() error, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	none := func() error { return nil }
	dst = dst.Unmap()
	if n.h == nil {
		return none, errClosed
	}
	r, err := n.h.RouteTo(dst.WithZone(""), 0)
	if err != nil {
		return none, fmt.Errorf("route to %v: %w: it cannot be reached from here, look at the default route", dst, mend(err))
	}
	if r.Type != unix.RTN_UNICAST {
		return none, nil
	}
	pin := rtnl.Route{Index: r.Index, Dst: hostNet(dst.WithZone("")), Gateway: r.Gateway, Protocol: protocolOurs, Table: unix.RT_TABLE_MAIN}
	if !r.Gateway.IsValid() && dst.Is4() {
		pin.Scope = unix.RT_SCOPE_LINK
	}
	if err := n.h.AddRoute(pin); errors.Is(err, syscall.EEXIST) {
		return none, nil
	} else if err != nil {
		return none, fmt.Errorf("host route to %v: %w", dst, mend(err))
	}
	return func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.h == nil {
			return errClosed
		}
		err := n.h.RemoveRoute(pin)
		if err == nil || errors.Is(err, syscall.ESRCH) || errors.Is(gone(err), ErrGone) {
			return nil
		}
		return fmt.Errorf("host route to %v: %w", dst, mend(err))
	}, nil
}
