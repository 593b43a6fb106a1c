package console

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
)

var menuIP = &menu{name: "ip", about: "address pools and IPsec", menus: []*menu{
	{name: "pool", about: "addresses for users", menus: []*menu{
		{name: "used", about: "addresses that are given out", commands: []*command{
			{name: "print", about: "one line per address", run: func(_ context.Context, c *call) error {
				rows := slices.Clone(c.src.PoolsUsed())
				sort.Slice(rows, func(i, j int) bool {
					a, b := rows[i], rows[j]
					return cmp.Or(cmp.Compare(a.Pool, b.Pool), a.Address.Compare(b.Address)) < 0
				})
				return printRows(c, view{[]string{"pool", "address", "owner", "info"}, ""}, rows)
			}},
		}},
	}},
	{name: "ipsec", about: "key exchange and security associations", menus: []*menu{
		{name: "active-peers", about: "IKE clients", commands: []*command{
			{name: "print", about: "one line per client", run: func(_ context.Context, c *call) error {
				rows := slices.Clone(c.src.IKEPeers())
				sort.Slice(rows, func(i, j int) bool {
					a, b := rows[i], rows[j]
					return cmp.Or(cmp.Compare(b.Uptime, a.Uptime), cmp.Compare(a.Remote, b.Remote), cmp.Compare(a.Cookies, b.Cookies)) < 0
				})
				return printRows(c, view{[]string{"id", "state", "uptime", "ph2-total", "remote-address"}, "R - responder, N - natt-peer"}, rows)
			}},
		}},
		{name: "installed-sa", about: "ESP security associations", commands: []*command{
			{name: "print", about: "one entry per direction; keys are not shown", run: func(_ context.Context, c *call) error {
				rows := slices.Clone(c.src.SAs())
				sort.Slice(rows, func(i, j int) bool {
					a, b := rows[i], rows[j]
					return cmp.Or(cmp.Compare(a.Mark, b.Mark), cmp.Compare(a.AddTime, b.AddTime), cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.SPI, b.SPI)) < 0
				})
				return printRows(c, view{nil, "H - hw-aead, E - esp"}, rows)
			}},
		}},
		{name: "statistics", about: "what was dropped, and why", commands: []*command{
			{name: "print", about: "counters", run: printStatistics},
		}},
	}},
}}

// printStatistics shows counters in the order in which the daemon gives them.
func printStatistics(_ context.Context, c *call) error {
	if err := c.args.rest(); err != nil {
		return err
	}
	if c.args.found {
		return usagef("there is only one, so there is nothing to choose with where")
	}
	counters := c.src.IPsecStatistics()
	if c.json {
		object := map[string]json.Number{}
		for _, x := range counters {
			object[x.Name] = json.Number(strconv.FormatUint(x.Value, 10))
		}
		return writeJSON(c.out, []any{object}, "  ")
	}
	var fs []field
	for _, x := range counters {
		fs = append(fs, field{key: x.Name, value: strconv.FormatUint(x.Value, 10)})
	}
	return c.lines(fs)
}

// names writes a list by the String methods of its elements.
func names[T fmt.Stringer](list []T) []string {
	out := []string{}
	for _, x := range list {
		out = append(out, x.String())
	}
	return out
}
