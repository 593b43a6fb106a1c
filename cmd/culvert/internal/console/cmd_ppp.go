package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"culvert/ppp/aaa"
)

var menuPPP = &menu{name: "ppp", about: "users, their profiles and their sessions", menus: []*menu{
	{name: "active", about: "users who are connected now", commands: []*command{
		{name: "print", about: "one line per user, from IKE to PPP", run: func(_ context.Context, c *call) error {
			return printRows(c, view{[]string{"name", "service", "caller-id", "address", "uptime", "encoding"}, "R - radius"}, active(c.src))
		}},
		{name: "remove", about: "disconnect: remove NAME, remove 0,1 or remove [find address=...]", run: removeActive},
	}},
	{name: "secret", about: "users who may log in", commands: append([]*command{
		{name: "print", about: "passwords are not shown", run: func(_ context.Context, c *call) error {
			return printRows(c, view{[]string{"name", "service", "caller-id", "password", "profile", "remote-address"}, "X - disabled"}, secrets(c.src))
		}},
	}, edits("add", "set", "remove", "enable", "disable")...)},
	{name: "profile", about: "what users get", commands: append([]*command{
		{name: "print", about: "profiles", run: func(_ context.Context, c *call) error {
			return printRows(c, view{nil, "* - default"}, profiles(c.src))
		}},
	}, edits("add", "set", "remove")...)},
	{name: "aaa", about: "who decides, and who is told", commands: append([]*command{
		{name: "print", about: "settings", run: func(_ context.Context, c *call) error {
			u := c.src.Config().AAAUse
			return printOne(c, aaaRow{u.UseRADIUS, u.Accounting, Span(u.InterimUpdate)})
		}},
	}, edits("set")...)},
}}

type aaaRow struct {
	UseRADIUS  bool `json:"use-radius"`
	Accounting bool `json:"accounting"`
	Interim    Span `json:"interim-update"`
}

// active sorts the users the way they came, so that numbers stay what they were until somebody leaves.
func active(src Source) []ActiveRow {
	rows := slices.Clone(src.Active())
	slices.SortFunc(rows, func(a, b ActiveRow) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Session, b.Session))
	})
	return rows
}

// removeActive disconnects users by name, by number as print shows them now, or by condition.
func removeActive(ctx context.Context, c *call) error {
	rows := active(c.src)
	var chosen []ActiveRow
	choose := func(r ActiveRow) {
		if !slices.ContainsFunc(chosen, func(x ActiveRow) bool { return x.Session == r.Session }) {
			chosen = append(chosen, r)
		}
	}
	for _, w := range c.args.words {
		if numbers, ok := numberList(w); ok {
			for _, n := range numbers {
				if n >= len(rows) {
					return fmt.Errorf("there is no number %d: %d users are connected", n, len(rows))
				}
				choose(rows[n])
			}
			continue
		}
		found := false
		for _, r := range rows {
			if r.Name == w.text {
				choose(r)
				found = true
			}
		}
		if !found {
			var names []string
			for _, r := range rows {
				names = append(names, valueText(r.Name))
			}
			return fmt.Errorf("no user %s is connected%s", quote(w.text), suggest(w.text, names))
		}
	}
	if len(c.args.conds) > 0 {
		found, err := where(rows, c.args.conds)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return errors.New("no such user is connected")
		}
		for _, r := range found {
			choose(r)
		}
	}
	if len(c.args.words) == 0 && len(c.args.conds) == 0 {
		return usagef("say whom: remove NAME, remove 0,1 or remove [find address=192.0.2.7]")
	}
	var errs []error
	for _, r := range chosen {
		if err := c.src.Act(ctx, Action{Verb: Disconnect, SessionID: uint32(r.Session), User: r.Name}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", quote(r.Name), err))
		}
	}
	return errors.Join(errs...)
}

// numberList reads "0" and "0,2"; a quoted word is always a name.
func numberList(w token) ([]int, bool) {
	if w.quoted {
		return nil, false
	}
	var out []int
	for _, s := range strings.Split(w.text, ",") {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return nil, false
		}
		out = append(out, int(n))
	}
	return out, true
}

type secretRow struct {
	Disabled bool     `json:"disabled" flag:"X"`
	Name     string   `json:"name" text:""`
	Service  string   `json:"service"`
	CallerID string   `json:"caller-id" text:""`
	Password masked   `json:"password"`
	Profile  string   `json:"profile"`
	Local    string   `json:"local-address" blank:""`
	Remote   string   `json:"remote-address" blank:""`
	Routes   []string `json:"routes" text:""`
	Rate     string   `json:"rate-limit" text:"" blank:""`
	Comment  string   `json:"comment" text:"" blank:""`
}

func secrets(src Source) []secretRow {
	cfg := src.Config()
	var rows []secretRow
	for _, s := range cfg.AAA.Secrets {
		r := secretRow{Disabled: s.Disabled, Name: s.Name, Service: s.Service, CallerID: s.CallerID,
			Profile: cmp.Or(s.Profile, cfg.AAA.DefaultProfile), Local: sourceText(s.Local), Remote: sourceText(s.Remote),
			Routes: []string{}, Rate: s.RateLimit, Comment: s.Comment}
		for _, x := range s.Routes {
			text := x.Dst.String()
			if x.Gateway.IsValid() {
				text += " " + x.Gateway.String()
			}
			if x.Metric != 0 {
				text += " " + strconv.Itoa(x.Metric)
			}
			r.Routes = append(r.Routes, text)
		}
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b secretRow) int { return cmp.Compare(a.Name, b.Name) })
	return rows
}

func sourceText(s aaa.Source) string {
	if s.Addr.IsValid() {
		return s.Addr.String()
	}
	return s.Pool
}

type profileRow struct {
	Default    bool     `json:"default" flag:"*"`
	Name       string   `json:"name" text:""`
	Local      string   `json:"local-address" blank:""`
	Remote     string   `json:"remote-address" blank:""`
	PrefixPool string   `json:"remote-ipv6-prefix-pool" blank:""`
	Bridge     string   `json:"bridge" blank:""`
	UseIPv6    bool     `json:"use-ipv6"`
	Encryption string   `json:"use-encryption"`
	OnlyOne    bool     `json:"only-one"`
	ChangeMSS  bool     `json:"change-tcp-mss"`
	Rate       string   `json:"rate-limit" text:"" blank:""`
	DNS        []string `json:"dns-server"`
	WINS       []string `json:"wins-server" blank:""`
	Session    Span     `json:"session-timeout"`
	Idle       Span     `json:"idle-timeout"`
	OnUp       string   `json:"on-up" text:"" blank:""`
	OnDown     string   `json:"on-down" text:"" blank:""`
}

func profiles(src Source) []profileRow {
	cfg := src.Config()
	var rows []profileRow
	for name, p := range cfg.AAA.Profiles {
		rows = append(rows, profileRow{Default: name == "default" || name == "default-encryption", Name: name,
			Local: sourceText(p.Local), Remote: sourceText(p.Remote), PrefixPool: cfg.PrefixPools[name], Bridge: cfg.Bridges[name],
			UseIPv6: p.UseIPv6, Encryption: encryptionText(p.Encrypt), OnlyOne: p.OnlyOne, ChangeMSS: p.ChangeMSS, Rate: p.RateLimit,
			DNS: addrsText(p.DNS), WINS: addrsText(p.WINS), Session: Span(p.SessionTimeout), Idle: Span(p.IdleTimeout), OnUp: p.OnUp, OnDown: p.OnDown})
	}
	slices.SortFunc(rows, func(a, b profileRow) int { return cmp.Compare(a.Name, b.Name) })
	return rows
}

func encryptionText(e aaa.Encryption) string {
	switch e {
	case aaa.EncryptNo:
		return "no"
	case aaa.EncryptYes:
		return "yes"
	case aaa.EncryptRequired:
		return "required"
	}
	return "default"
}

func addrsText(list []netip.Addr) []string {
	out := []string{}
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}
