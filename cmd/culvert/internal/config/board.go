package config

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"culvert/ppp/aaa"
)

// Watchdog is `[system.watchdog]`: the hardware timer that resets the board unless the control loop lives.
type Watchdog struct {
	Timer   bool
	Device  string
	Timeout time.Duration
}

// ResetButton is `[system.reset-button]`.
type ResetButton struct {
	Enabled  bool
	HoldTime time.Duration
	OnEvent  string // a program
}

// Network is `[network]`: the interfaces of an image that has nothing else to set them up.
type Network struct {
	Managed    bool // the section is there
	DNS        []netip.Addr
	Forward    bool // between interfaces: net.ipv4.ip_forward and IPv6's
	Interfaces []NetInterface
}

// NetInterface is `[network.interface.NAME]`.
type NetInterface struct {
	Name      string
	Addresses []netip.Prefix
	DHCP      bool
	Routes    []aaa.Route // gateway = [...] is a default route
	MTU       int         // 0: as it is
	Disabled  bool
}

// board reads what `[system]` says about the machine itself.
func (r *reader) board(t *table, s *System) {
	t.str("led", &s.LED)
	if strings.ContainsAny(s.LED, "/ \t\n") {
		t.fail("led", "%q is not the name of a light in /sys/class/leds", s.LED)
	}
	w := t.sub("watchdog")
	s.Watchdog = Watchdog{Device: "/dev/watchdog", Timeout: 30 * time.Second}
	w.boolean("watchdog-timer", &s.Watchdog.Timer)
	w.str("device", &s.Watchdog.Device)
	if !strings.HasPrefix(s.Watchdog.Device, "/dev/") {
		w.fail("device", "%q is no device in /dev", s.Watchdog.Device)
	}
	w.duration("timeout", 4*time.Second, 10*time.Minute, &s.Watchdog.Timeout)
	w.done()
	b := t.sub("reset-button")
	s.ResetButton = ResetButton{HoldTime: 5 * time.Second}
	b.boolean("enabled", &s.ResetButton.Enabled)
	b.duration("hold-time", 0, time.Minute, &s.ResetButton.HoldTime)
	b.file("on-event", &s.ResetButton.OnEvent)
	if s.ResetButton.Enabled && s.ResetButton.OnEvent == "" {
		b.fail("enabled", "the button does nothing: name a program in on-event")
	}
	b.done()
}

// network reads `[network]`.
func (r *reader) network(root *table, c *Config) {
	c.Network.Managed = root.has("network")
	t := root.sub("network")
	t.list("dns-server", func(s string) error {
		a, err := parseAddr(s)
		if err == nil {
			c.Network.DNS = append(c.Network.DNS, a)
		}
		return err
	})
	if len(c.Network.DNS) > 3 { // resolv.conf(5): MAXNS
		t.fail("dns-server", "%d name servers: no more than 3 are ever asked", len(c.Network.DNS))
	}
	t.boolean("ip-forward", &c.Network.Forward)
	t.sub("interface").each("interface", func(name string, t *table) {
		i := NetInterface{Name: name}
		if err := checkIfname(name); err != nil {
			t.fail("", "%s", err)
		}
		t.list("address", func(s string) error {
			p, err := netip.ParsePrefix(s)
			if a := p.Addr(); err != nil || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
				return fmt.Errorf(`%q is not an interface's address with the length of its network, such as "192.168.88.1/24"`, s)
			}
			i.Addresses = append(i.Addresses, p)
			return nil
		})
		t.boolean("dhcp-client", &i.DHCP)
		t.list("gateway", func(s string) error {
			a, err := parseAddr(s)
			if err == nil {
				all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
				if a.Is6() {
					all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
				}
				i.Routes = append(i.Routes, aaa.Route{Dst: all, Gateway: a})
			}
			return err
		})
		t.list("routes", func(s string) error {
			rt, err := parseRoute(s)
			if err == nil {
				i.Routes = append(i.Routes, rt)
			}
			return err
		})
		t.integer("mtu", 68, 65535, &i.MTU)
		t.boolean("disabled", &i.Disabled)
		c.Network.Interfaces = append(c.Network.Interfaces, i)
	})
	t.done()
}
