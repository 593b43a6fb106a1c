package console

import (
	"cmp"
	"context"
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
			{name: "print", about: "one entry per client", run: func(_ context.Context, c *call) error { return printRows(c, view{nil, "X - disabled"}, clients(c.src)) }},
			later("monitor", "state of one client"),
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
	Comment   string   `json:"comment" text:"" blank:""`
}

func clients(src Source) []clientRow {
	var rows []clientRow
	for _, x := range src.Config().Clients {
		to := x.ConnectTo
		if x.VRF != "" {
			to += "@" + x.VRF
		}
		rows = append(rows, clientRow{Disabled: x.Disabled, Name: x.Name, MTU: x.MTU, MRU: x.MRU, MRRU: numberOr(x.MRRU, "disabled"), ConnectTo: to,
			User: x.User, Profile: x.Profile, Keepalive: Span(x.Keepalive), UseIPsec: x.UseIPsec, Default: x.AddDefaultRoute, OnDemand: x.DialOnDemand,
			Allow: methodsText(x.Allow), Proto: x.ProtoVersion, Comment: x.Comment})
	}
	return rows
}
