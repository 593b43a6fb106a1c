package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/logring"
)

// object is a menu that shows and changes a part of the configuration. What keys there are, of which kind, with which
// words and defaults, it has from config's inventory: a key that config reads is here without being written down again.
// The fields say where RouterOS's names differ.
type object struct {
	menu, about string
	path        string // of the TOML tables: "ppp.secret"
	noun        string // "user"; config's word for it, if empty

	columns []string          // of print; nil: print is always in detail
	flags   string            // of the extra fields: "R - running"
	id      string            // RouterOS's name for the name: "name", if empty
	prefix  string            // what is added without a name is called prefix1, prefix2, ...
	only    []string          // keys that are shown here; nil: all
	without []string          // keys that are shown elsewhere
	names   map[string]string // RouterOS's name of a key, where it is another
	alias   map[string]string // further names that are taken for a key
	values  map[string]string // further words that are taken for a value: "key=word" or "word"
	added   map[string]string // what RouterOS sets in `add` when it is not said
	ignored []string          // arguments of RouterOS's that have no counterpart here

	extra   func(src Source, cfg *config.Config, name string) []field
	dynamic func(cfg *config.Config) []string // names of what the configuration implies
	list    func(src Source) []row            // print's own rows, where they are not the tables
	hooks   map[string]func(ch *change, value string) error
	after   func(ch *change) error // when the arguments have been taken
	noAdd   string                 // why nothing can be added
}

func (o *object) dotted() []string { return strings.Split(o.path, ".") }

// single tells a table that there is one of from a set of them.
func (o *object) single() bool { return config.Schema().Collection(o.path) == nil }

func (o *object) prototype() *config.Table {
	if c := config.Schema().Collection(o.path); c != nil {
		return c.Prototype
	}
	if t := config.Schema().Single(o.path); t != nil {
		return t
	}
	return &config.Table{Path: o.dotted()}
}

// shows says whether a key belongs here.
func (o *object) shows(key string) bool {
	return !slices.Contains(o.without, key) && (o.only == nil || slices.Contains(o.only, key))
}

// name is what RouterOS calls a key.
func (o *object) name(key string) string {
	if n, ok := o.names[key]; ok {
		return n
	}
	return key
}

func (o *object) idName() string {
	if o.id != "" {
		return o.id
	}
	return "name"
}

func (o *object) thing() string {
	if o.noun != "" {
		return o.noun
	}
	if c := config.Schema().Collection(o.path); c != nil {
		return c.Kind
	}
	return "entry"
}

// record is a row that is no struct.
type record []field

func (r record) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range r {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(f.key)
		if err != nil {
			return nil, err
		}
		v := f.json
		if v == nil {
			v = f.value
		}
		if f.flag != 0 {
			v = f.set
		}
		e, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(e)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func flagField(key string, letter byte, set bool) field {
	f := field{key: key, flag: letter, set: set, value: "no"}
	if set {
		f.value = "yes"
	}
	return f
}

func textField(key, value string) field {
	return field{key: key, value: logring.Escape(value), text: !plainWord(value), omit: value == "", json: value}
}

func plainWord(s string) bool { return s != "" && word(s) == s }

// alwaysQuoted are texts that RouterOS shows in quotes whatever they hold.
var alwaysQuoted = []string{"name", "user", "comment", "caller-id", "password", "circuit-id", "l2tpv3-circuit-id"}

// fields are the properties of one table.
func (o *object) fields(src Source, cfg *config.Config, t *config.Table, reveal bool) []field {
	var fs []field
	if k := t.Key("disabled"); k != nil && o.shows("disabled") {
		fs = append(fs, flagField("disabled", 'X', k.Effective() == true))
	}
	c := config.Schema().Collection(o.path)
	name := ""
	if c != nil {
		name = t.Name()
		if len(c.Builtin) > 0 {
			fs = append(fs, flagField("default", '*', slices.Contains(c.Builtin, name)))
		}
		if o.dynamic != nil {
			fs = append(fs, flagField("dynamic", 'D', !t.Written))
		}
	}
	var extra []field
	if o.extra != nil {
		for _, f := range o.extra(src, cfg, name) {
			if f.flag != 0 {
				fs = append(fs, f)
			} else {
				extra = append(extra, f)
			}
		}
	}
	if c != nil {
		fs = append(fs, field{key: o.idName(), value: logring.Escape(name), text: true, json: name})
	}
	for _, k := range t.Keys {
		if k.Name == "disabled" && o.prototype().Key("disabled") != nil || !o.shows(k.Name) || k.Name == "comment" {
			continue
		}
		fs = append(fs, o.field(k, reveal))
	}
	fs = append(fs, extra...)
	if k := t.Key("comment"); k != nil && o.shows("comment") {
		fs = append(fs, o.field(k, reveal))
	}
	return fs
}

func (o *object) field(k *config.Key, reveal bool) field {
	v := k.Effective()
	f := field{key: o.name(k.Name), json: v}
	text := keyText(v)
	switch k.Kind {
	case config.Secret:
		f.secret = !reveal
		f.text = text != "" && reveal
		if text != "" && !reveal {
			text = "***"
			f.json = text
		}
	case config.List:
		if v == nil {
			f.json = []string{}
		}
		list, _ := v.([]string)
		if list == nil {
			f.json = []string{}
		}
		f.text = len(list) > 0 && !plainWord(strings.Join(list, ","))
	case config.Text:
		f.text = slices.Contains(alwaysQuoted, f.key) || !plainWord(text)
	}
	f.value = logring.Escape(text)
	f.omit = text == ""
	return f
}

// keyText writes a value as RouterOS does.
func keyText(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case bool:
		if x {
			return "yes"
		}
		return "no"
	case int64:
		return strconv.FormatInt(x, 10)
	case []string:
		return strings.Join(x, ",")
	}
	return ""
}

// tables are those of a menu in the order in which print numbers them, with what the configuration implies.
func (o *object) tables(inv *config.Inventory, cfg *config.Config) []*config.Table {
	c := inv.Collection(o.path)
	if c == nil {
		return nil
	}
	list := c.All()
	if o.dynamic != nil && cfg != nil {
		for _, name := range o.dynamic(cfg) {
			if c.Find(name) == nil {
				list = append(list, &config.Table{Path: append(o.dotted(), name), Keys: c.Prototype.Keys})
			}
		}
	}
	return list
}

func (o *object) rows(src Source, inv *config.Inventory, cfg *config.Config, reveal bool) []row {
	if o.list != nil {
		return o.list(src)
	}
	var rows []row
	for i, t := range o.tables(inv, cfg) {
		fs := o.fields(src, cfg, t, reveal)
		rows = append(rows, row{i, fs, record(fs)})
	}
	return rows
}

// view is how print shows the rows.
func (o *object) view() view {
	var flags []string
	for _, f := range o.fields(nil, nil, &config.Table{Path: append(o.dotted(), "x"), Keys: o.prototype().Keys}, false) {
		switch f.flag {
		case 'X':
			flags = append(flags, "X - disabled")
		case '*':
			flags = append(flags, "* - default")
		case 'D':
			flags = append(flags, "D - dynamic")
		}
	}
	if o.flags != "" {
		flags = append(flags, o.flags)
	}
	return view{o.columns, strings.Join(flags, ", ")}
}

// inForce is the configuration in force as an inventory.
func inForce(src Source) (*config.Inventory, *config.Config, error) {
	cfg := src.Config()
	inv, _, err := config.Inspect("configuration", cfg.Text)
	if inv == nil {
		return nil, nil, err
	}
	return inv, cfg, nil
}

// print is the command.
func (o *object) print(_ context.Context, c *call) error {
	reveal := c.args.has("show-sensitive")
	if reveal && c.script.request.ReadOnly {
		return errReadOnly
	}
	inv, cfg, err := inForce(c.src)
	if err != nil {
		return err
	}
	if o.single() {
		t := inv.Single(o.path)
		if t == nil {
			return errors.New("there is nothing to show")
		}
		fs := o.fields(c.src, cfg, t, reveal)
		return c.printSingle(row{fields: fs, value: record(fs)})
	}
	zero := o.fields(c.src, cfg, &config.Table{Path: append(o.dotted(), ""), Keys: o.prototype().Keys}, false)
	return c.print(o.view(), o.rows(c.src, inv, cfg, reveal), zero)
}

// commands are what can be done with an object: what its keys allow.
func (o *object) commands() []*command {
	proto := o.prototype()
	edit := func(name, about string, run func(context.Context, *call) error) *command {
		return &command{name: name, about: about, run: run, writes: true, edits: true}
	}
	out := []*command{{name: "print", about: "what there is", run: o.print, words: []string{"detail", "terse", "count-only", "show-sensitive", "where"}}}
	if o.single() {
		out[0].words = []string{"show-sensitive"}
		return append(out, edit("set", "change settings: set NAME=VALUE ...", o.set),
			&command{name: "export", about: "this menu as commands", words: []string{"show-sensitive", "verbose"}, run: export})
	}
	out = append(out, edit("add", "a new one: add NAME=VALUE ...", o.add), edit("set", "change some: set WHICH NAME=VALUE ...", o.set))
	if o.noAdd == "" {
		out = append(out, edit("remove", "take some away: remove WHICH", o.remove))
	}
	if proto.Key("disabled") != nil && o.shows("disabled") {
		out = append(out, edit("enable", "let some work", func(ctx context.Context, c *call) error { return o.able(ctx, c, false) }),
			edit("disable", "keep some without using them", func(ctx context.Context, c *call) error { return o.able(ctx, c, true) }))
	}
	if proto.Key("comment") != nil && o.shows("comment") {
		out = append(out, edit("comment", `say what it is for: comment WHICH "text"`, o.comment))
	}
	return append(out, edit("unset", "back to the default: unset WHICH NAME", o.unset),
		&command{name: "export", about: "this menu as commands", words: []string{"show-sensitive", "verbose"}, run: export})
}

// arguments are the names that add and set take.
func (o *object) arguments() []string {
	var out []string
	if !o.single() {
		out = append(out, o.idName())
	}
	for _, k := range o.prototype().Keys {
		if o.shows(k.Name) {
			out = append(out, o.name(k.Name))
		}
	}
	for name := range o.hooks {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// argument finds what an argument means: the id, a key, a hook, or something of RouterOS's that is ignored. Names may be
// shortened while they are unique.
func (o *object) argument(arg string) (name string, key *config.Key, ignored bool, err error) {
	args := o.arguments()
	for from, to := range o.alias {
		if arg == from {
			arg = to
		}
	}
	if !slices.Contains(args, arg) {
		if slices.Contains(o.ignored, arg) {
			return arg, nil, true, nil
		}
		var begin []string
		for _, n := range args {
			if strings.HasPrefix(n, arg) {
				begin = append(begin, n)
			}
		}
		for from, to := range o.alias {
			if strings.HasPrefix(from, arg) && !slices.Contains(begin, to) {
				begin = append(begin, to)
			}
		}
		switch {
		case len(begin) == 1:
			arg = begin[0]
		case len(begin) > 1:
			slices.Sort(begin)
			return "", nil, false, usagef("%s is ambiguous: %s", quote(arg), strings.Join(begin, ", "))
		default:
			return "", nil, false, usagef("there is no property %s%s", quote(arg), suggestOr(arg, args))
		}
	}
	for _, k := range o.prototype().Keys {
		if o.shows(k.Name) && o.name(k.Name) == arg && o.hooks[arg] == nil {
			return arg, k, false, nil
		}
	}
	return arg, nil, false, nil
}

func suggestOr(word string, names []string) string {
	if s := suggest(word, names); s != "" {
		return s
	}
	return ": there are " + strings.Join(names, ", ")
}

// value reads what somebody typed for a key.
func (o *object) value(k *config.Key, text string) (any, error) {
	name := o.name(k.Name)
	translate := func(s string) string {
		if v, ok := o.values[name+"="+s]; ok {
			return v
		}
		return s
	}
	oneOf := func(s string) (string, error) {
		s = translate(s)
		if slices.Contains(k.Words, s) {
			return s, nil
		}
		var begin []string
		for _, w := range k.Words {
			if s != "" && strings.HasPrefix(w, s) {
				begin = append(begin, w)
			}
		}
		if len(begin) == 1 {
			return begin[0], nil
		}
		return "", usagef("%s: %s is not one of %s", name, quote(s), strings.Join(k.Words, ", "))
	}
	switch k.Kind {
	case config.Bool:
		switch translate(text) {
		case "yes", "true":
			return true, nil
		case "no", "false":
			return false, nil
		}
		return nil, usagef("%s: %s is neither yes nor no", name, quote(text))
	case config.Number:
		text = translate(text)
		if slices.Contains(k.Words, text) {
			return text, nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, usagef("%s: %s is not a number%s", name, quote(text), orWords(k.Words))
		}
		return n, nil
	case config.Duration:
		if text == "none" || text == "disabled" {
			text = "0s"
		}
		d, err := parseSpan(text)
		if err != nil {
			return nil, usagef("%s: %v", name, err)
		}
		if _, err := config.ParseDuration(text); err == nil {
			return text, nil
		}
		return config.FormatDuration(d), nil
	case config.Choice:
		w, err := oneOf(text)
		if err != nil {
			return nil, err
		}
		if n, err := strconv.ParseInt(w, 10, 64); err == nil {
			return n, nil
		}
		return w, nil
	case config.List:
		list := []string{}
		for _, s := range strings.Split(text, ",") {
			if s = strings.TrimSpace(s); s == "" {
				continue
			}
			if len(k.Words) > 0 {
				var err error
				if s, err = oneOf(s); err != nil {
					return nil, err
				}
			}
			list = append(list, s)
		}
		return list, nil
	}
	return translate(text), nil
}

func orWords(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return ", nor " + strings.Join(words, ", ")
}

// NotOursError is a command of RouterOS's that is understood, and not done, because it is about something that culvert
// leaves to the system. A script goes on after it.
type NotOursError struct{ What, Why string }

func (e *NotOursError) Error() string { return fmt.Sprintf("%s: %s", e.What, e.Why) }
