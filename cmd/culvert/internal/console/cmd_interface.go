package console

import (
	"context"
	"slices"
	"sort"
)

var menuInterface = &menu{name: "interface", about: "tunnels and their interfaces",
	commands: []*command{{name: "monitor-traffic", about: "rates of an interface: monitor-traffic NAME [once]", words: []string{"once"}, run: monitorTraffic}},
	menus: []*menu{
		{name: "l2tp-server", about: "interfaces of users who dialled in", menus: []*menu{
			{name: "server", about: "settings of the L2TP server"},
			{name: "tunnel", about: "L2TP control connections", commands: []*command{
				{name: "print", about: "one line per tunnel", run: func(_ context.Context, c *call) error {
					rows := slices.Clone(c.src.Tunnels())
					sort.Slice(rows, func(i, j int) bool {
						a, b := rows[i], rows[j]
						return a.Tunnel < b.Tunnel
					})
					return printRows(c, view{[]string{"tunnel-id", "remote-tunnel-id", "state", "remote-endpoint", "host-name", "sessions", "uptime"}, ""}, rows)
				}},
			}},
		}, commands: []*command{
			{name: "print", about: "one line per interface", run: func(_ context.Context, c *call) error {
				return printRows(c, view{[]string{"name", "user", "mtu", "mru", "client-address", "uptime", "encoding"},
					"D - dynamic, R - running"}, interfaces(c.src))
			}},
		}},
		{name: "l2tp-client", about: "tunnels that this router dials", commands: []*command{
			{name: "monitor", about: "state of one client: monitor NAME [once]", words: []string{"once"}, run: monitorClient},
		}},
	}}

func interfaces(src Source) []InterfaceRow {
	rows := slices.Clone(src.Interfaces())
	sort.Slice(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		return a.Name < b.Name
	})
	return rows
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
