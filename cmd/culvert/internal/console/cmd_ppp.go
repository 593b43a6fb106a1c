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
	k := chooser{none: ActiveRow{}, nobody: "no user %s is connected", count: "%d users are connected", absent: "no such user is connected",
		usage: "say whom: remove NAME, remove 0,1 or remove [find address=192.0.2.7]", find: "name=user1"}
	for _, r := range rows {
		k.rows, k.names = append(k.rows, r), append(k.names, r.Name)
	}
	chosen, err := k.choose(c)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range chosen {
		r := rows[i]
		if err := c.src.Act(ctx, Action{Verb: Disconnect, SessionID: uint32(r.Session), User: r.Name}); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", quote(r.Name), err))
		}
	}
	return errors.Join(errs...)
}
