package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
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
	{name: "firewall", about: "what culvert does in the firewall", menus: []*menu{
		{name: "ban", about: "addresses that had the wrong key or password too often", commands: []*command{
			{name: "print", about: "one line per address, with what is left of its time", run: func(_ context.Context, c *call) error {
				return printRows(c, view{[]string{"address", "creation-time", "timeout", "where"}, ""}, bans(c.src))
			}},
			{name: "remove", about: "let somebody try again: remove ADDRESS, remove 0,1 or remove [find where=kernel]", run: removeBan, writes: true},
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

// bans sorts the banned by when they were.
func bans(src Source) []BanRow {
	rows := slices.Clone(src.Bans())
	sort.Slice(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		return cmp.Or(cmp.Compare(a.Creation, b.Creation), cmp.Compare(a.Address, b.Address)) < 0
	})
	return rows
}

func removeBan(ctx context.Context, c *call) error {
	rows := bans(c.src)
	k := chooser{none: BanRow{}, nobody: "%s is not banned", count: "%d are banned", absent: "no such address is banned",
		usage: "say whom: remove ADDRESS, remove 0,1 or remove [find address=192.0.2.7]", find: "address=192.0.2.7"}
	for _, r := range rows {
		k.rows, k.names = append(k.rows, r), append(k.names, r.Address)
	}
	chosen, err := k.choose(c)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range chosen {
		if err := c.src.Act(ctx, Action{Verb: Pardon, Source: rows[i].Source}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", rows[i].Address, err))
		}
	}
	return errors.Join(errs...)
}

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
