package console

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"culvert/cmd/culvert/internal/config"
	"culvert/l2tp"
	"culvert/ppp/aaa"
)

var menuInterface = &menu{name: "interface", about: "tunnels and their interfaces",
	commands: []*command{later("monitor-traffic", "rates of an interface")},
	menus: []*menu{
		{name: "l2tp-server", about: "interfaces of users who dialled in", menus: []*menu{
			{name: "server", about: "settings of the L2TP server", commands: append([]*command{
				{name: "print", about: "settings", run: func(_ context.Context, c *call) error { return printOne(c, server(c.src)) }},
			}, edits("set")...)},
			{name: "tunnel", about: "L2TP control connections", commands: []*command{
				{name: "print", about: "one line per tunnel", run: func(_ context.Context, c *call) error {
					rows := slices.Clone(c.src.Tunnels())
					slices.SortFunc(rows, func(a, b TunnelRow) int { return cmp.Compare(a.Tunnel, b.Tunnel) })
					return printRows(c, view{[]string{"tunnel-id", "remote-tunnel-id", "state", "remote-endpoint", "host-name", "sessions", "uptime"}, ""}, rows)
				}},
			}},
		}, commands: append([]*command{
			{name: "print", about: "one line per interface", run: func(_ context.Context, c *call) error {
				rows := slices.Clone(c.src.Interfaces())
				slices.SortFunc(rows, func(a, b InterfaceRow) int { return cmp.Compare(a.Name, b.Name) })
				return printRows(c, view{[]string{"name", "user", "mtu", "mru", "client-address", "uptime", "encoding"},
					"D - dynamic, R - running"}, rows)
			}},
		}, edits("add", "set", "remove")...)},
		{name: "l2tp-client", about: "tunnels that this router dials", commands: append([]*command{
			{name: "print", about: "one entry per client", run: func(_ context.Context, c *call) error {
				return printRows(c, view{nil, "X - disabled, R - running"}, clients(c.src))
			}},
			{name: "monitor", about: "state of one client: monitor NAME", run: monitorClient},
		}, edits("add", "set", "enable", "disable", "remove")...)},
	}}

type serverRow struct {
	Enabled        bool     `json:"enabled"`
	MTU            int      `json:"max-mtu"`
	MRU            int      `json:"max-mru"`
	MRRU           string   `json:"mrru"`
	Authentication []string `json:"authentication"`
	Keepalive      Span     `json:"keepalive-timeout"`
	MaxSessions    string   `json:"max-sessions"`
	DefaultProfile string   `json:"default-profile"`
	UseIPsec       string   `json:"use-ipsec"`
	Secret         string   `json:"ipsec-secret"`
	CallerIDType   string   `json:"caller-id-type"`
	OneSession     bool     `json:"one-session-per-host"`
	FastPath       bool     `json:"allow-fast-path"`
	Listen         []string `json:"listen"`
	Allowed        []string `json:"allowed-address"`
	Version        string   `json:"accept-proto-version"`
	Pseudowire     string   `json:"accept-pseudowire-type"`
}

func server(src Source) serverRow {
	cfg := src.Config()
	s := cfg.Server
	r := serverRow{Enabled: s.Enabled, MTU: s.PPP.MTU, MRU: s.PPP.MRU, MRRU: numberOr(s.MRRU, "disabled"), Authentication: methodsText(s.PPP.Auth),
		Keepalive: Span(s.PPP.Keepalive), MaxSessions: numberOr(s.L2TP.MaxSessions, "unlimited"), DefaultProfile: s.DefaultProfile,
		CallerIDType: string(s.CallerIDType), OneSession: s.L2TP.OneSessionPerHost, FastPath: s.AllowFastPath, Listen: []string{}, Allowed: []string{},
		Version: s.V3.AcceptVersion, Pseudowire: s.V3.AcceptPseudowire, UseIPsec: protectionText(s.UseIPsec)}
	for _, p := range cfg.IPsec.Peers {
		if p.Name == config.DynamicPeer && len(p.Secret) > 0 {
			r.Secret = p.Secret.String()
		}
	}
	for _, a := range s.Listen {
		r.Listen = append(r.Listen, a.String())
	}
	for _, p := range s.L2TP.Allowed {
		r.Allowed = append(r.Allowed, p.String())
	}
	return r
}

func protectionText(p l2tp.Protection) string {
	switch p {
	case l2tp.ProtectionOffered:
		return "yes"
	case l2tp.ProtectionRequired:
		return "required"
	}
	return "no"
}

func methodsText(list []aaa.Method) []string {
	out := []string{}
	for _, m := range list {
		out = append(out, m.String())
	}
	return out
}

func numberOr(n int, zero string) string {
	if n == 0 {
		return zero
	}
	return strconv.Itoa(n)
}

type clientRow struct {
	Disabled  bool     `json:"disabled" flag:"X"`
	Running   bool     `json:"running" flag:"R"`
	Name      string   `json:"name" text:""`
	MTU       int      `json:"max-mtu"`
	MRU       int      `json:"max-mru"`
	MRRU      string   `json:"mrru"`
	ConnectTo string   `json:"connect-to"`
	User      string   `json:"user" text:""`
	Password  masked   `json:"password"`
	Profile   string   `json:"profile"`
	Keepalive Span     `json:"keepalive-timeout"`
	UseIPsec  bool     `json:"use-ipsec"`
	Secret    masked   `json:"ipsec-secret"`
	Default   bool     `json:"add-default-route"`
	OnDemand  bool     `json:"dial-on-demand"`
	Allow     []string `json:"allow"`
	Proto     string   `json:"l2tp-proto-version"`
	Status    string   `json:"status"`
	Comment   string   `json:"comment" text:"" blank:""`
}

// monitorClient shows where one client stands.
func monitorClient(_ context.Context, c *call) error {
	if len(c.args.words) != 1 {
		return usagef("say which: monitor NAME")
	}
	name := c.args.words[0].text
	c.args.words = nil
	var names []string
	for _, x := range clients(c.src) {
		if x.Name == name {
			return printOne(c, stateOf(c.src.Clients(), x.Name, x.Disabled))
		}
		names = append(names, valueText(x.Name))
	}
	return fmt.Errorf("there is no client %s%s", quote(name), suggest(name, names))
}

// stateOf finds a client's state; one that the daemon does not dial has none.
func stateOf(states []ClientState, name string, disabled bool) ClientState {
	for _, s := range states {
		if s.Name == name {
			return s
		}
	}
	status := "not supported"
	if disabled {
		status = "disabled"
	}
	return ClientState{Name: name, Status: status}
}

func clients(src Source) []clientRow {
	var rows []clientRow
	states := src.Clients()
	for _, x := range src.Config().Clients {
		to := x.ConnectTo
		if x.VRF != "" {
			to += "@" + x.VRF
		}
		state := stateOf(states, x.Name, x.Disabled)
		rows = append(rows, clientRow{Disabled: x.Disabled, Running: state.Status == "connected", Status: state.Status, Name: x.Name, MTU: x.MTU, MRU: x.MRU, MRRU: numberOr(x.MRRU, "disabled"), ConnectTo: to,
			User: x.User, Profile: x.Profile, Keepalive: Span(x.Keepalive), UseIPsec: x.UseIPsec, Default: x.AddDefaultRoute, OnDemand: x.DialOnDemand,
			Allow: methodsText(x.Allow), Proto: x.ProtoVersion, Comment: x.Comment})
	}
	return rows
}
