package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
)

var menuPPP = &menu{name: "ppp", about: "users, their profiles and their sessions", menus: []*menu{
	{name: "active", about: "users who are connected now", commands: []*command{
		{name: "print", about: "one line per user, from IKE to PPP", run: func(_ context.Context, c *call) error {
			return printRows(c, view{[]string{"name", "service", "caller-id", "address", "uptime", "encoding"}, "R - radius"}, active(c.src))
		}},
		{name: "remove", about: "disconnect: remove NAME, remove 0,1 or remove [find address=...]", run: removeActive, writes: true},
	}},
}}

// active sorts the users the way they came, so that numbers stay what they were until somebody leaves.
func active(src Source) []ActiveRow {
	rows := slices.Clone(src.Active())
	sort.Slice(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Session, b.Session)) < 0
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
	if _, everybody := c.args.find.(all); everybody {
		return usagef("[find] alone is everything: name what to find, as in [find name=user1]")
	}
	if c.args.found {
		list := make([]row, len(rows))
		for i, r := range rows {
			list[i] = row{i, fields(r), r}
		}
		found, err := where(list, fields(ActiveRow{}), c.args.find)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return errors.New("no such user is connected")
		}
		for _, r := range found {
			choose(rows[r.n])
		}
	}
	if len(c.args.words) == 0 && !c.args.found {
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
