package console

import (
	"errors"
	"fmt"
	"slices"
)

// chooser is for commands about some of the rows that print shows now: by name, by number or by condition.
type chooser struct {
	rows   []any    // in print's order
	names  []string // of the rows
	none   any      // a row of the kind, for the names of its properties
	nobody string   // "no user %s is connected"
	count  string   // "%d users are connected"
	absent string   // "no such user is connected"
	usage  string   // what to say when nothing is said
	find   string   // an example of a condition
}

// choose returns indexes of rows, each once.
func (k chooser) choose(c *call) (chosen []int, err error) {
	add := func(i int) {
		if !slices.Contains(chosen, i) {
			chosen = append(chosen, i)
		}
	}
	for _, w := range c.args.words {
		if numbers, ok := numberList(w); ok {
			for _, n := range numbers {
				if n >= len(k.rows) {
					return nil, fmt.Errorf("there is no number %d: "+k.count, n, len(k.rows))
				}
				add(n)
			}
			continue
		}
		found := false
		for i, name := range k.names {
			if name == w.text {
				add(i)
				found = true
			}
		}
		if !found {
			var names []string
			for _, name := range k.names {
				names = append(names, valueText(name))
			}
			return nil, fmt.Errorf(k.nobody+"%s", quote(w.text), suggest(w.text, names))
		}
	}
	if _, everybody := c.args.find.(all); everybody {
		return nil, usagef("[find] alone is everything: name what to find, as in [find %s]", k.find)
	}
	if c.args.found {
		list := make([]row, len(k.rows))
		for i, r := range k.rows {
			list[i] = row{i, fields(r), r}
		}
		found, err := where(list, fields(k.none), c.args.find)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, errors.New(k.absent)
		}
		for _, r := range found {
			add(r.n)
		}
	}
	if len(c.args.words) == 0 && !c.args.found {
		return nil, usagef("%s", k.usage)
	}
	return chosen, nil
}
