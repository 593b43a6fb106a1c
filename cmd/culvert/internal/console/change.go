package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"culvert/cmd/culvert/internal/config"
)

// edit is the text of the configuration while it is changed. Nothing is in force before commit.
type edit struct {
	base  []byte // what the file held
	doc   *config.Document
	cfg   *config.Config // of doc, when it was last found good
	inv   *config.Inventory
	known map[string]bool // warnings that were there before
}

// begin opens the configuration for a change, or goes on with the changes of a file that is imported.
func (c *call) begin() (*edit, error) {
	if e := c.script.edit; e != nil {
		return e, nil
	}
	base, err := c.src.ReadFile()
	if err != nil {
		return nil, err
	}
	e := &edit{base: base, known: map[string]bool{}}
	if e.doc, err = config.NewDocument("the file", base); err != nil {
		return nil, plainError(err)
	}
	e.doc.ProveLater()
	if e.inv, e.cfg, err = config.Inspect("the file", base); e.inv == nil {
		return nil, plainError(err)
	}
	if e.cfg != nil {
		for _, w := range e.cfg.Warnings {
			e.known[w.Key+w.Text] = true
		}
	}
	if c.script.depth > 0 {
		c.script.edit = e
	}
	return e, nil
}

// commit checks the changes and puts them in force; while a file is imported, it only checks them.
func (c *call) commit(ctx context.Context, e *edit) error {
	inv, cfg, err := config.Inspect("the file", e.doc.Bytes())
	if err != nil {
		if e == c.script.edit {
			// Back to what was good: the file's earlier commands stay.
			e.restore(e.good())
		}
		return plainError(err)
	}
	e.inv, e.cfg = inv, cfg
	if e == c.script.edit {
		return nil
	}
	return c.script.apply(ctx, e)
}

// restore goes back to an earlier text.
func (e *edit) restore(text []byte) {
	if doc, err := config.NewDocument("the file", text); err == nil {
		e.doc = doc
		e.doc.ProveLater()
	}
}

// good is the last text that was found good.
func (e *edit) good() []byte {
	if e.cfg != nil {
		return e.cfg.Text
	}
	return e.base
}

// flush puts in force what an imported file has changed so far.
func (s *script) flush(ctx context.Context) error {
	e := s.edit
	s.edit = nil
	if e == nil || e.cfg == nil {
		return nil
	}
	return s.apply(ctx, e)
}

func (s *script) apply(ctx context.Context, e *edit) error {
	if !bytes.Equal(e.base, e.cfg.Text) {
		if err := s.console.src.Change(ctx, e.base, e.cfg.Text); err != nil {
			return plainError(err)
		}
	}
	if s.request.JSON {
		return nil
	}
	for _, w := range e.cfg.Warnings {
		if key := w.Key + w.Text; !e.known[key] {
			e.known[key] = true
			fmt.Fprintf(s.out, "note: %s: %s\n", w.Key, w.Text)
		}
	}
	return nil
}

// plainError leaves out file and line, which nobody on a console sees.
func plainError(err error) error {
	var e *config.Error
	if !errors.As(err, &e) {
		return err
	}
	var lines []string
	for _, p := range e.Problems {
		if p.Severity != config.Fatal {
			continue
		}
		text := p.Text
		if p.Key != "" {
			text = p.Key + ": " + text
		}
		lines = append(lines, text)
	}
	return errors.New(strings.Join(lines, "\n"))
}

// change is one table that is being changed.
type change struct {
	c     *call
	e     *edit
	o     *object
	path  []string
	isNew bool
	said  map[string]string // the arguments, by their full names
}

func (ch *change) note(format string, args ...any) {
	if !ch.c.json {
		fmt.Fprintf(ch.c.out, "note: "+format+"\n", args...)
	}
}

// table is the table as it is now, or nil.
func (ch *change) table() *config.Table {
	inv, _, _ := config.Inspect("the file", ch.e.doc.Bytes())
	if inv == nil {
		return nil
	}
	if c := inv.Collection(ch.o.path); c != nil {
		return c.Find(ch.path[len(ch.path)-1])
	}
	return inv.Single(ch.o.path)
}

// take carries out the arguments: keys first, then what RouterOS's arguments mean beyond one key.
func (ch *change) take(sets []setting) error {
	o := ch.o
	ch.said = map[string]string{}
	var hooks []setting
	for _, s := range sets {
		name, key, ignored, err := o.argument(s.key)
		switch {
		case err != nil:
			return err
		case ignored:
			ch.note("%s is not culvert's: it is left out", name)
			continue
		}
		ch.said[name] = s.value
		switch {
		case key == nil && name == o.idName() && !o.single():
			if s.unset || s.value == "" {
				return usagef("%s has to have a value", name)
			}
			if ch.isNew || s.value == ch.path[len(ch.path)-1] {
				continue
			}
			to := append(slices.Clone(ch.path[:len(ch.path)-1]), s.value)
			if !ch.e.doc.Has(ch.path) {
				return fmt.Errorf("%s is built in: it keeps its name", quote(ch.path[len(ch.path)-1]))
			}
			if err := ch.e.doc.Rename(ch.path, s.value); err != nil {
				return err
			}
			ch.path = to
		case key == nil && s.unset:
			return usagef("%s cannot be unset", name)
		case key == nil:
			hooks = append(hooks, setting{key: name, value: s.value})
		case s.unset:
			if err := ch.e.doc.Unset(ch.path, key.Name); err != nil {
				return err
			}
		default:
			v, err := o.value(key, s.value)
			if err != nil {
				return err
			}
			if key.Kind == config.Duration && sameSpan(ch.current(key.Name), v) {
				continue // written otherwise, it stays as it is
			}
			if err := ch.e.doc.Set(ch.path, key.Name, v); err != nil {
				return err
			}
		}
	}
	for _, h := range hooks {
		if err := o.hooks[h.key](ch, h.value); err != nil {
			return err
		}
	}
	if o.after != nil {
		return o.after(ch)
	}
	return nil
}

// current is what a key of the table has now, if the table is there or built in and the key has been written.
func (ch *change) current(key string) any {
	c := ch.e.inv.Collection(ch.o.path)
	var t *config.Table
	if c != nil {
		t = c.Find(ch.path[len(ch.path)-1])
	} else {
		t = ch.e.inv.Single(ch.o.path)
	}
	if t == nil || !t.Written || t.Key(key) == nil {
		return nil
	}
	return t.Key(key).Value
}

func sameSpan(a, b any) bool {
	x, ok := a.(string)
	if !ok {
		return false
	}
	d1, err1 := config.ParseDuration(x)
	d2, err2 := config.ParseDuration(keyText(b))
	return err1 == nil && err2 == nil && d1 == d2
}

func (o *object) add(ctx context.Context, c *call) error {
	if o.noAdd != "" {
		return &NotOursError{What: c.menu.path + " add", Why: o.noAdd}
	}
	from, copied := c.args.take("copy-from")
	c.args.take("place-before")
	if len(c.args.words) > 0 || c.args.found {
		return c.args.rest(o.arguments()...)
	}
	e, err := c.begin()
	if err != nil {
		return err
	}
	ch := &change{c: c, e: e, o: o, isNew: true}
	name, given := "", false
	for _, s := range c.args.sets {
		if full, key, _, err := o.argument(s.key); err == nil && key == nil && full == o.idName() {
			name, given = s.value, true
		}
	}
	if !given {
		if name, err = o.newName(e); err != nil {
			return err
		}
	}
	ch.path = append(o.dotted(), name)
	if slices.ContainsFunc(o.tables(e.inv, nil), func(t *config.Table) bool { return t.Name() == name }) {
		return fmt.Errorf("there is a %s %s already: change it with set", o.thing(), quote(name))
	}
	sets := c.args.sets
	has := func(key string) bool {
		return slices.ContainsFunc(sets, func(s setting) bool {
			full, _, _, err := o.argument(s.key)
			return err == nil && full == key
		})
	}
	if copied {
		t := e.inv.Collection(o.path).Find(from)
		if t == nil {
			return fmt.Errorf("copy-from: there is no %s %s", o.thing(), quote(from))
		}
		for _, k := range t.Keys {
			if k.Value != nil && !has(o.name(k.Name)) {
				sets = append(sets, setting{key: o.name(k.Name), value: keyText(k.Value)})
			}
		}
	}
	for _, k := range o.prototype().Keys {
		if v, ok := o.added[k.Name]; ok && !has(o.name(k.Name)) {
			sets = append(sets, setting{key: o.name(k.Name), value: v})
		}
	}
	return ch.commit(ctx, func() error {
		if err := e.doc.Add(ch.path); err != nil {
			return err
		}
		return ch.take(sets)
	})
}

// commit does the changes and, if any of them fails, undoes them all.
func (ch *change) commit(ctx context.Context, do func() error) error {
	text := ch.e.doc.Bytes()
	err := do()
	if err == nil {
		err = ch.e.doc.Prove()
	}
	if err != nil {
		ch.e.restore(text)
		return err
	}
	return ch.c.commit(ctx, ch.e)
}

// newName is prefix1, or the first after it that is free.
func (o *object) newName(e *edit) (string, error) {
	if o.prefix == "" {
		return "", usagef("%s is missing: add %s=...", o.idName(), o.idName())
	}
	for i := 1; ; i++ {
		name := o.prefix + strconv.Itoa(i)
		if e.inv.Collection(o.path).Find(name) == nil {
			return name, nil
		}
	}
}

// chosen are the tables that the words and conditions of a command mean.
func (o *object) chosen(c *call, e *edit) ([]*config.Table, error) {
	if v, ok := c.args.take("numbers"); ok {
		c.args.words = append(c.args.words, token{text: v})
	}
	if len(c.args.words) == 0 && !c.args.found {
		return nil, usagef("say which: a %s, a number of print, or [find %s=...]", o.idName(), o.idName())
	}
	tables := o.tables(e.inv, e.cfg)
	rows := o.rows(c.src, e.inv, e.cfg, false)
	named := func(name string) *config.Table {
		i := slices.IndexFunc(tables, func(t *config.Table) bool { return t.Name() == name })
		if i < 0 {
			return nil
		}
		return tables[i]
	}
	var out []*config.Table
	choose := func(name string) error {
		t := named(name)
		if t == nil {
			var names []string
			for _, t := range tables {
				names = append(names, valueText(t.Name()))
			}
			if slices.ContainsFunc(rows, func(r row) bool { return nameOf(r, o.idName()) == name }) {
				return fmt.Errorf("%s is dynamic: it comes and goes by itself", quote(name))
			}
			return fmt.Errorf("there is no %s %s%s", o.thing(), quote(name), suggest(name, names))
		}
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
		return nil
	}
	for _, w := range c.args.words {
		if named(w.text) == nil {
			if numbers, ok := numberList(w); ok {
				for _, n := range numbers {
					if n >= len(rows) {
						return nil, fmt.Errorf("there is no number %d: there are %d", n, len(rows))
					}
					if err := choose(nameOf(rows[n], o.idName())); err != nil {
						return nil, err
					}
				}
				continue
			}
		}
		names := []string{w.text}
		if !w.quoted && named(w.text) == nil {
			names = strings.Split(w.text, ",")
		}
		for _, n := range names {
			if err := choose(n); err != nil {
				return nil, err
			}
		}
	}
	if c.args.found {
		zero := o.fields(c.src, e.cfg, &config.Table{Path: append(o.dotted(), ""), Keys: o.prototype().Keys}, false)
		if o.list != nil && len(rows) > 0 {
			zero = rows[0].fields
		}
		found, err := where(rows, zero, c.args.find)
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			if t := named(nameOf(r, o.idName())); t != nil && !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

// nameOf is the name of a row, as it is and not as it is shown.
func nameOf(r row, id string) string {
	for _, f := range r.fields {
		if f.key == id {
			if s, ok := f.json.(string); ok {
				return s
			}
			return f.value
		}
	}
	return ""
}

func (o *object) set(ctx context.Context, c *call) error {
	e, err := c.begin()
	if err != nil {
		return err
	}
	if o.single() {
		if len(c.args.words) > 0 || c.args.found {
			return usagef("there is only one: set NAME=VALUE ...")
		}
		if len(c.args.sets) == 0 {
			return usagef("say what: set NAME=VALUE ...")
		}
		ch := &change{c: c, e: e, o: o, path: o.dotted()}
		return ch.commit(ctx, func() error { return ch.take(c.args.sets) })
	}
	tables, err := o.chosen(c, e)
	if err != nil {
		return err
	}
	if len(c.args.sets) == 0 {
		return usagef("say what: set WHICH NAME=VALUE ...")
	}
	return o.each(ctx, c, e, tables, func(ch *change) error { return ch.take(c.args.sets) })
}

// each changes several tables as one.
func (o *object) each(ctx context.Context, c *call, e *edit, tables []*config.Table, do func(*change) error) error {
	first := &change{c: c, e: e, o: o}
	return first.commit(ctx, func() error {
		for _, t := range tables {
			if err := do(&change{c: c, e: e, o: o, path: slices.Clone(t.Path)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// every changes as one the tables that the words of a command choose; settings it takes none.
func (o *object) every(ctx context.Context, c *call, do func(*change) error) error {
	e, err := c.begin()
	if err != nil {
		return err
	}
	tables, err := o.chosen(c, e)
	if err != nil {
		return err
	}
	if err := c.args.restSettings(); err != nil {
		return err
	}
	return o.each(ctx, c, e, tables, do)
}

func (o *object) remove(ctx context.Context, c *call) error {
	return o.every(ctx, c, func(ch *change) error {
		name := ch.path[len(ch.path)-1]
		if slices.Contains(config.Schema().Collection(o.path).Builtin, name) {
			return fmt.Errorf("%s is built in: it can be changed, not removed", quote(name))
		}
		if !ch.e.doc.Has(ch.path) {
			return fmt.Errorf("%s is dynamic: it goes with what made it", quote(name))
		}
		return ch.e.doc.Remove(ch.path)
	})
}

// restSettings complains about settings where only items are expected.
func (a *args) restSettings() error {
	words := a.words
	a.words = nil
	err := a.rest()
	a.words = words
	return err
}

func (o *object) able(ctx context.Context, c *call, disabled bool) error {
	return o.every(ctx, c, func(ch *change) error {
		if !disabled {
			return ch.e.doc.Unset(ch.path, "disabled")
		}
		return ch.e.doc.Set(ch.path, "disabled", true)
	})
}

func (o *object) comment(ctx context.Context, c *call) error {
	text, given := c.args.take("comment")
	if n := len(c.args.words); !given && n > 0 && (n > 1 || c.args.found) {
		text, given = c.args.words[n-1].text, true
		c.args.words = c.args.words[:n-1]
	}
	if !given {
		return usagef(`say which and what: comment WHICH "text"`)
	}
	e, err := c.begin()
	if err != nil {
		return err
	}
	tables, err := o.chosen(c, e)
	if err != nil {
		return err
	}
	if err := c.args.restSettings(); err != nil {
		return err
	}
	return o.each(ctx, c, e, tables, func(ch *change) error { return ch.e.doc.Set(ch.path, "comment", text) })
}

func (o *object) unset(ctx context.Context, c *call) error {
	n := len(c.args.words)
	if n == 0 || n == 1 && !c.args.found {
		return usagef("say which and what: unset WHICH NAME")
	}
	_, key, _, err := o.argument(c.args.words[n-1].text)
	if err != nil {
		return err
	}
	if key == nil {
		return usagef("%s cannot be unset", c.args.words[n-1].text)
	}
	c.args.words = c.args.words[:n-1]
	e, err := c.begin()
	if err != nil {
		return err
	}
	tables, err := o.chosen(c, e)
	if err != nil {
		return err
	}
	return o.each(ctx, c, e, tables, func(ch *change) error { return ch.e.doc.Unset(ch.path, key.Name) })
}

// parseSpan reads a time as RouterOS takes it: "30" (seconds), "1d2h", "00:05:00", "1d 02:03:04".
func parseSpan(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	head, clock := "", s
	if i := strings.LastIndexAny(s, "wd "); i >= 0 && strings.Contains(s[i:], ":") {
		head, clock = strings.TrimSpace(s[:i+1]), s[i+1:]
	}
	parts := strings.Split(clock, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return config.ParseDuration(s)
	}
	var d time.Duration
	if head != "" {
		var err error
		if d, err = config.ParseDuration(head); err != nil {
			return 0, err
		}
	}
	unit := time.Hour
	for _, p := range parts {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("%s is not a time such as 30s, 1d or 00:05:00", quote(s))
		}
		d += time.Duration(n) * unit
		unit /= 60
	}
	return d, nil
}
