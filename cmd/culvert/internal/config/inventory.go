package config

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"
)

// The readers are the only description of the configuration: by asking a table for a key they declare its name, its kind
// and what it means when it is not written. Inventory collects that, so that what can be read can also be shown, set,
// completed and exported without being described a second time.

// Kind is the type of a key's value.
type Kind uint8

const (
	Text     Kind = iota
	Secret        // text that is not to be shown
	Bool          //
	Number        // in TOML an integer, or one of Words
	Duration      // text such as "1d"
	Choice        // one of Words
	List          // of text, each one of Words where there are some
)

// Key is one key of a table, as its reader asks for it.
type Key struct {
	Name  string
	Kind  Kind
	Words []string
	// Default is what leaving the key out means, Value what is written, nil if nothing is: string, bool, int64 or []string.
	Default, Value any
}

// Effective is the value in force.
func (k *Key) Effective() any {
	if k.Value != nil {
		return k.Value
	}
	return k.Default
}

// Table is one table and the keys that it may have, in the order in which they are read.
type Table struct {
	Path    []string
	Written bool // it stands in the file
	Keys    []*Key
}

// Key finds a key by its name, or nil.
func (t *Table) Key(name string) *Key {
	i := slices.IndexFunc(t.Keys, func(k *Key) bool { return k.Name == name })
	if i < 0 {
		return nil
	}
	return t.Keys[i]
}

// Name is the last part of the path.
func (t *Table) Name() string { return t.Path[len(t.Path)-1] }

// Collection is a set of named tables.
type Collection struct {
	Path      []string
	Kind      string   // what one of them is called: "user"
	Builtin   []string // names that exist without being written
	Prototype *Table   // what a new one could hold
	Tables    []*Table // those that are written, in the order of the file
}

// Find returns the table of a name: one that is written, or the prototype's copy for one that is built in, or nil.
func (c *Collection) Find(name string) *Table {
	for _, t := range c.Tables {
		if t.Name() == name {
			return t
		}
	}
	if slices.Contains(c.Builtin, name) {
		return &Table{Path: append(slices.Clone(c.Path), name), Keys: c.Prototype.Keys}
	}
	return nil
}

// All lists the tables in the order of the file, after those that are built in and not written.
func (c *Collection) All() []*Table {
	var out []*Table
	for _, name := range c.Builtin {
		if t := c.Find(name); !t.Written {
			out = append(out, t)
		}
	}
	return append(out, c.Tables...)
}

// Inventory is everything that a file says and could say.
type Inventory struct {
	Singles     []*Table // tables that there is one of, without those that hold nothing but tables
	Collections []*Collection

	tables map[string]*Table
	byPath map[string]*Collection
	nested bool // within a prototype
}

// Single finds a table by its dotted path, or nil.
func (v *Inventory) Single(path string) *Table {
	i := slices.IndexFunc(v.Singles, func(t *Table) bool { return strings.Join(t.Path, ".") == path })
	if i < 0 {
		return nil
	}
	return v.Singles[i]
}

// Collection finds a set of tables by its dotted path, or nil.
func (v *Inventory) Collection(path string) *Collection {
	return v.byPath[lineKey(strings.Split(path, "."))]
}

// Inspect reads a file as Parse does and returns what it says, the configuration, and all that is wrong with it. An
// inventory is returned whenever the text is TOML; the configuration only when nothing is fatal.
func Inspect(name string, data []byte) (*Inventory, *Config, error) {
	// What prototypes leave in a Config must not be in force: the inventory has a reader of its own.
	doc, err := decode(data)
	if err != nil {
		_, err := Parse(name, data)
		return nil, nil, err
	}
	r := newReader(name, data)
	v := &Inventory{tables: map[string]*Table{}, byPath: map[string]*Collection{}}
	r.inventory = v
	r.tree(doc, data)
	// A reader of one table may look into another of the same name.
	v.Singles = slices.DeleteFunc(v.Singles, func(t *Table) bool { return slices.Contains(t.Path, prototype) })
	r = &reader{file: name, lines: r.lines}
	c, err := r.result(r.tree(doc, data))
	return v, c, err
}

// Schema is the inventory of the empty file.
var Schema = sync.OnceValue(func() *Inventory {
	v, _, _ := Inspect("", nil)
	return v
})

const prototype = "*" // stands for the name of a table that is not there

// declare notes that a key was asked for, and what it is when it is not written.
func (t *table) declare(k Key, absent any) {
	v := t.r.inventory
	if v == nil {
		return
	}
	x := v.tables[lineKey(t.path)]
	if x == nil {
		x = &Table{Path: slices.Clone(t.path), Written: t.m != nil && !slices.Contains(t.path, prototype)}
		v.tables[lineKey(t.path)] = x
		if !v.nested {
			v.Singles = append(v.Singles, x)
		}
	}
	if x.Key(k.Name) != nil {
		return
	}
	k.Default = absent
	if k.Value = plain(t.m[k.Name]); k.Kind == List {
		if s, ok := k.Value.(string); ok {
			k.Value = []string{s}
		}
	}
	x.Keys = append(x.Keys, &k)
}

// preset corrects what declare took for the default of a key whose getter does not know it.
func (t *table) preset(key string, absent any) {
	if v := t.r.inventory; v != nil {
		v.tables[lineKey(t.path)].Key(key).Default = absent
	}
}

// plain is a decoded value as Key has it; tables and dates are no values of ours.
func plain(v any) any {
	switch x := v.(type) {
	case string, bool, int64:
		return x
	case []any:
		out := make([]string, len(x))
		for i, e := range x {
			out[i] = fmt.Sprint(e)
		}
		return out
	case float64:
		return fmt.Sprint(x)
	}
	return nil
}

// declareCollection notes a set of tables: it has the reader ask an empty one for its keys, and sorts those that are there.
func (t *table) declareCollection(kind string, visit func(string, *table)) {
	v := t.r.inventory
	if v == nil || v.nested {
		return
	}
	c := &Collection{Path: slices.Clone(t.path), Kind: kind}
	v.Collections = append(v.Collections, c)
	v.byPath[lineKey(t.path)] = c
	v.nested = true
	for _, name := range t.names() {
		if m, ok := t.m[name].(map[string]any); ok {
			x := &Table{Path: append(slices.Clone(t.path), name), Written: m != nil}
			v.tables[lineKey(x.Path)] = x
			c.Tables = append(c.Tables, x)
		}
	}
	// The prototype is read by a reader of its own: what is wrong with it concerns nobody.
	r := &reader{file: t.r.file, lines: map[string]int{}, inventory: &Inventory{tables: map[string]*Table{}, byPath: map[string]*Collection{}, nested: true}}
	path := append(slices.Clone(t.path), prototype)
	problems := t.r.problems
	func() {
		defer func() { t.r.problems = problems }()
		visit(prototype, &table{r: r, path: path, m: map[string]any{}})
	}()
	if c.Prototype = r.inventory.tables[lineKey(path)]; c.Prototype == nil {
		c.Prototype = &Table{Path: path}
	}
	v.nested = false
}

// builtin notes names that exist without being written.
func (t *table) builtin(names ...string) {
	if v := t.r.inventory; v != nil {
		v.byPath[lineKey(t.path)].Builtin = names
	}
}

// names are the keys of a table in the order of the file.
func (t *table) names() []string {
	names := slices.Collect(maps.Keys(t.m))
	sort.Slice(names, func(i, j int) bool {
		a, b := names[i], names[j]
		return cmp.Or(t.line(a)-t.line(b), strings.Compare(a, b)) < 0
	})
	return names
}

// wordOf is the word that stands for a value.
func wordOf[T comparable](v T, words []string, values []T) string {
	if i := slices.Index(values, v); i >= 0 {
		return words[i]
	}
	return ""
}

// namesOf are the names of algorithms.
func namesOf[T comparable](list []T, parse func(string) (T, bool), names []string) []string {
	out := []string{}
	for _, v := range list {
		for _, n := range names {
			if x, ok := parse(n); ok && x == v {
				out = append(out, n)
				break
			}
		}
	}
	return out
}

func texts[T fmt.Stringer](list []T) []string {
	out := []string{}
	for _, x := range list {
		out = append(out, x.String())
	}
	return out
}

// decode is the file as a tree of maps.
func decode(data []byte) (map[string]any, error) {
	doc := map[string]any{}
	_, err := toml.Decode(string(bytes.TrimPrefix(data, []byte(byteOrderMark))), &doc)
	return doc, err
}

const byteOrderMark = "\xef\xbb\xbf" // editors on Windows write one
