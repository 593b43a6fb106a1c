package console

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"culvert/ipsec/ikev1"
)

var menuIP = &menu{name: "ip", about: "address pools and IPsec", menus: []*menu{
	{name: "pool", about: "addresses for users", menus: []*menu{
		{name: "used", about: "addresses that are given out", commands: []*command{
			{name: "print", about: "one line per address", run: func(_ context.Context, c *call) error {
				rows := slices.Clone(c.src.PoolsUsed())
				slices.SortFunc(rows, func(a, b PoolUsedRow) int {
					return cmp.Or(cmp.Compare(a.Pool, b.Pool), a.Address.Compare(b.Address))
				})
				return printRows(c, view{[]string{"pool", "address", "owner", "info"}, ""}, rows)
			}},
		}},
	}, commands: append([]*command{
		{name: "print", about: "one line per pool", run: func(_ context.Context, c *call) error {
			return printRows(c, view{[]string{"name", "ranges", "used", "next-pool"}, ""}, pools(c.src))
		}},
	}, edits("add", "set", "remove")...)},
	{name: "ipsec", about: "key exchange and security associations", menus: []*menu{
		{name: "active-peers", about: "IKE clients", commands: []*command{
			{name: "print", about: "one line per client", run: func(_ context.Context, c *call) error {
				rows := slices.Clone(c.src.IKEPeers())
				slices.SortFunc(rows, func(a, b IKEPeerRow) int {
					return cmp.Or(cmp.Compare(b.Uptime, a.Uptime), cmp.Compare(a.Remote, b.Remote), cmp.Compare(a.Cookies, b.Cookies))
				})
				return printRows(c, view{[]string{"id", "state", "uptime", "ph2-total", "remote-address"}, "R - responder, N - natt-peer"}, rows)
			}},
		}},
		{name: "installed-sa", about: "ESP security associations", commands: []*command{
			{name: "print", about: "one entry per direction; keys are not shown", run: func(_ context.Context, c *call) error {
				rows := slices.Clone(c.src.SAs())
				slices.SortFunc(rows, func(a, b SARow) int {
					return cmp.Or(cmp.Compare(a.Mark, b.Mark), cmp.Compare(a.AddTime, b.AddTime), cmp.Compare(a.Dir, b.Dir), cmp.Compare(a.SPI, b.SPI))
				})
				return printRows(c, view{nil, "H - hw-aead, E - esp"}, rows)
			}},
		}},
		{name: "statistics", about: "what was dropped, and why", commands: []*command{
			{name: "print", about: "counters", run: printStatistics},
		}},
		{name: "profile", about: "phase 1", commands: append([]*command{
			{name: "print", about: "those of the peers", run: func(_ context.Context, c *call) error { return printRows(c, view{}, phase1Rows(c.src)) }},
		}, edits("add", "set", "remove")...)},
		{name: "proposal", about: "phase 2", commands: append([]*command{
			{name: "print", about: "those of the peers", run: func(_ context.Context, c *call) error { return printRows(c, view{}, phase2Rows(c.src)) }},
		}, edits("add", "set", "remove")...)},
		{name: "peer", about: "who may negotiate", commands: append([]*command{
			{name: "print", about: "one entry per peer", run: func(_ context.Context, c *call) error { return printRows(c, view{}, peerRows(c.src)) }},
		}, edits("add", "set", "remove")...)},
		{name: "identity", about: "how peers are authenticated", commands: append([]*command{
			{name: "print", about: "secrets are not shown", run: func(_ context.Context, c *call) error { return printRows(c, view{}, identityRows(c.src)) }},
		}, edits("add", "set", "remove")...)},
	}},
}}

type poolRow struct {
	Name   string   `json:"name" text:""`
	Ranges []string `json:"ranges"`
	Used   int      `json:"used"`
	Next   string   `json:"next-pool"`
}

func pools(src Source) []poolRow {
	used := map[string]int{}
	for _, u := range src.PoolsUsed() {
		used[u.Pool]++
	}
	var rows []poolRow
	for name, p := range src.Config().AAA.Pools {
		r := poolRow{Name: name, Used: used[name], Next: cmp.Or(p.Next, "none")}
		for _, x := range p.Ranges {
			if x.First == x.Last {
				r.Ranges = append(r.Ranges, x.First.String())
			} else {
				r.Ranges = append(r.Ranges, x.First.String()+"-"+x.Last.String())
			}
		}
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b poolRow) int { return cmp.Compare(a.Name, b.Name) })
	return rows
}

// printStatistics shows counters in the order in which the daemon gives them.
func printStatistics(_ context.Context, c *call) error {
	if err := c.args.rest(); err != nil {
		return err
	}
	if len(c.args.conds) > 0 {
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

type phase1Row struct {
	Peers    []string `json:"peers"`
	Enc      []string `json:"enc-algorithm"`
	Hash     []string `json:"hash-algorithm"`
	Groups   []string `json:"dh-group"`
	Lifetime Span     `json:"lifetime"`
	NATT     bool     `json:"nat-traversal"`
	DPD      Span     `json:"dpd-interval"`
	Failures int      `json:"dpd-maximum-failures"`
}

// names writes a list by the String methods of its elements.
func names[T fmt.Stringer](list []T) []string {
	out := []string{}
	for _, x := range list {
		out = append(out, x.String())
	}
	return out
}

// phase1Rows are the profiles that peers use; equal ones share a row.
func phase1Rows(src Source) []phase1Row {
	byText := map[string]*phase1Row{}
	for _, p := range src.Config().IPsec.Peers {
		x := p.Profile
		key := fmt.Sprint(x)
		r := byText[key]
		if r == nil {
			r = &phase1Row{Enc: names(x.Ciphers), Hash: names(x.Hashes), Groups: names(x.Groups), Lifetime: Span(x.Lifetime), NATT: x.NATTraversal,
				DPD: Span(x.DPDInterval), Failures: x.DPDMaxFailures}
			byText[key] = r
		}
		r.Peers = append(r.Peers, p.Name)
	}
	var rows []phase1Row
	for _, key := range slices.Sorted(maps.Keys(byText)) {
		rows = append(rows, *byText[key])
	}
	return rows
}

type phase2Row struct {
	Peers    []string `json:"peers"`
	Suites   []string `json:"algorithms"`
	Lifetime Span     `json:"lifetime"`
	PFS      string   `json:"pfs-group"`
}

func phase2Rows(src Source) []phase2Row {
	byText := map[string]*phase2Row{}
	for _, p := range src.Config().IPsec.Peers {
		x := p.Proposal
		key := fmt.Sprint(x)
		r := byText[key]
		if r == nil {
			r = &phase2Row{Suites: names(x.Suites), Lifetime: Span(x.Lifetime), PFS: "none"}
			if x.PFS != 0 {
				r.PFS = x.PFS.String()
			}
			byText[key] = r
		}
		r.Peers = append(r.Peers, p.Name)
	}
	var rows []phase2Row
	for _, key := range slices.Sorted(maps.Keys(byText)) {
		rows = append(rows, *byText[key])
	}
	return rows
}

type peerRow struct {
	Name     string   `json:"name" text:""`
	Address  []string `json:"address"`
	Exchange string   `json:"exchange-mode"`
	Initial  bool     `json:"send-initial-contact"`
}

func peerRows(src Source) []peerRow {
	var rows []peerRow
	for _, p := range src.Config().IPsec.Peers {
		r := peerRow{Name: p.Name, Address: names(p.Remote), Initial: p.SendInitialContact}
		switch p.Exchange {
		case ikev1.Main:
			r.Exchange = "main"
		case ikev1.Aggressive:
			r.Exchange = "aggressive"
		default:
			r.Exchange = "main-l2tp"
		}
		rows = append(rows, r)
	}
	return rows
}

type identityRow struct {
	Peer   string `json:"peer" text:""`
	Method string `json:"auth-method"`
	Secret masked `json:"secret"`
}

func identityRows(src Source) []identityRow {
	var rows []identityRow
	for _, p := range src.Config().IPsec.Peers {
		if p.Credentials != nil {
			rows = append(rows, identityRow{Peer: p.Name, Method: "digital-signature"})
		}
		if p.Credentials == nil || len(p.Secret)+len(p.Keys) > 0 {
			rows = append(rows, identityRow{Peer: p.Name, Method: "pre-shared-key"})
		}
	}
	return rows
}
