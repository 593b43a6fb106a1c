package console

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
)

// menu is one level of the tree.
type menu struct {
	name, about string
	path        string // "/ppp active"
	parent      *menu
	menus       []*menu
	commands    []*command
	foreign     string  // why this menu of RouterOS's is not ours; empty for ours
	object      *object // what of the configuration it shows and changes, if any
}

// command is a verb of a menu.
type command struct {
	name, about string
	run         func(context.Context, *call) error
	writes      bool   // refused to users who may only read
	edits       bool   // changes the configuration
	ask         string // what a person is asked first
	words       []string
}

// root is the whole tree. It never changes after the package is initialised.
var root *menu

func init() {
	root = &menu{about: "Culvert", menus: []*menu{menuInterface, menuIP, menuLog, menuPPP, menuSystem},
		commands: []*command{
			{name: "help", about: "what there is; ? explains a menu", run: func(_ context.Context, c *call) error { return wholeTree(c) }},
			{name: "export", about: "the configuration as commands", words: []string{"show-sensitive", "verbose"}, run: export},
			{name: "import", about: "commands from a file of the router", writes: true, run: importFile},
		}}
	plantObjects()
	plantForeign()
	root.setPaths()
}

func (m *menu) setPaths() {
	for _, sub := range m.menus {
		sub.parent = m
		sub.path = strings.TrimSuffix("/"+strings.TrimPrefix(m.path+" "+sub.name, " "), " ")
		sub.path = strings.Replace(sub.path, "//", "/", 1)
		sub.setPaths()
	}
}

// make finds a menu by its path, "ppp secret", and plants what is missing of it.
func (m *menu) make(path string) *menu {
	for _, name := range strings.Fields(path) {
		i := slices.IndexFunc(m.menus, func(x *menu) bool { return x.name == name })
		if i < 0 {
			m.menus = append(m.menus, &menu{name: name})
			i = len(m.menus) - 1
		}
		m = m.menus[i]
	}
	return m
}

// menuAt finds a menu by its path; the root, if it is none.
func menuAt(path string) *menu {
	m := root
	for _, name := range strings.Fields(strings.TrimPrefix(path, "/")) {
		i := slices.IndexFunc(m.menus, func(x *menu) bool { return x.name == name })
		if i < 0 {
			return root
		}
		m = m.menus[i]
	}
	return m
}

func menuName(m *menu) string { return m.name }

// sub finds a menu below: ours before those that are not, which therefore take no abbreviation away.
func (m *menu) sub(name string) *menu {
	for _, foreign := range []bool{false, true} {
		var list []*menu
		for _, x := range m.menus {
			if (x.foreign != "") == foreign {
				list = append(list, x)
			}
		}
		if x := pick(list, name, menuName); x != nil {
			return x
		}
	}
	return nil
}

// resolve walks from a menu along the words; names may be abbreviated while they stay unique, and slashes may take the
// place of blanks. A nil command means that help was asked for.
func resolve(m *menu, toks []token) (*menu, *command, []token, error) {
	first := true
	for len(toks) > 0 && toks[0].kind == tokWord && !toks[0].quoted {
		word := toks[0].text
		toks = toks[1:]
		if strings.HasPrefix(word, "/") && first {
			m = root
		}
		first = false
		parts := strings.FieldsFunc(word, func(r rune) bool { return r == '/' })
		for i, part := range parts {
			if part == "?" {
				return m, nil, nil, nil
			}
			// `print?` explains too.
			part = strings.TrimSuffix(part, "?")
			if part == ".." {
				if m.parent != nil {
					m = m.parent
				}
				continue
			}
			if sub := m.sub(part); sub != nil {
				m = sub
				if m.foreign != "" {
					return nil, nil, nil, &NotOursError{What: m.path, Why: m.foreign}
				}
				continue
			}
			if cmd := pick(m.commands, part, func(c *command) string { return c.name }); cmd != nil && i == len(parts)-1 {
				return m, cmd, toks, nil
			}
			return nil, nil, nil, m.unknown(part)
		}
	}
	if len(toks) > 0 {
		return nil, nil, nil, m.unknown(toks[0].text)
	}
	return m, nil, nil, nil
}

// pick finds an exact name, or the only one that begins so.
func pick[T any](list []*T, name string, nameOf func(*T) string) *T {
	var found *T
	n := 0
	for _, x := range list {
		if nameOf(x) == name {
			return x
		}
		if name != "" && strings.HasPrefix(nameOf(x), name) {
			found = x
			n++
		}
	}
	if n != 1 {
		return nil
	}
	return found
}

func (m *menu) names() []string {
	var names []string
	for _, s := range m.menus {
		if s.foreign == "" {
			names = append(names, s.name)
		}
	}
	for _, c := range m.commands {
		names = append(names, c.name)
	}
	return names
}

func (m *menu) unknown(word string) error {
	var begin []string
	for _, n := range m.names() {
		if word != "" && strings.HasPrefix(n, word) {
			begin = append(begin, n)
		}
	}
	where := m.path
	if where == "" {
		where = "/"
	}
	if len(begin) > 1 {
		return usagef("%s is ambiguous in %s: %s", quote(word), where, strings.Join(begin, ", "))
	}
	hint := suggest(word, m.names())
	if hint == "" {
		// It may exist elsewhere: `active print` at the root.
		if paths := find(root, word); len(paths) > 0 {
			hint = ": did you mean " + strings.Join(paths, " or ") + "?"
		} else {
			hint = ": there are " + strings.Join(m.names(), ", ")
		}
	}
	return usagef("there is no %s in %s%s", quote(word), where, hint)
}

// find lists the menus of a name anywhere in the tree.
func find(m *menu, name string) []string {
	var out []string
	for _, s := range m.menus {
		if s.foreign != "" {
			continue
		}
		if s.name == name {
			out = append(out, s.path)
		}
		out = append(out, find(s, name)...)
	}
	return out
}

// suggest is `: did you mean x or y?` with the nearest names.
func suggest(word string, names []string) string {
	var near []string
	best := len(word)/2 + 1
	for _, n := range names {
		switch d := distance(word, n); {
		case d < best:
			near, best = []string{n}, d
		case d == best && len(near) > 0:
			near = append(near, n)
		}
	}
	if len(near) == 0 {
		return ""
	}
	return ": did you mean " + strings.Join(near, " or ") + "?"
}

// distance is Levenshtein's with neighbours swapped counting one (optimal string alignment), bounded by length.
func distance(a, b string) int {
	if len(a) > 32 || len(b) > 32 {
		return 1 << 16
	}
	var d [34][34]int
	for i := range len(a) + 1 {
		d[i][0] = i
	}
	for j := range len(b) + 1 {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

// help lists what a menu holds.
func (m *menu) help(out io.Writer) {
	type line struct{ name, about string }
	var lines []line
	for _, s := range m.menus {
		if s.foreign == "" {
			lines = append(lines, line{s.name, s.about + " ..."})
		}
	}
	for _, c := range m.commands {
		lines = append(lines, line{c.name, c.about})
	}
	sort.Slice(lines, func(i, j int) bool {
		a, b := lines[i], lines[j]
		return a.name < b.name
	})
	width := 0
	for _, l := range lines {
		width = max(width, len(l.name))
	}
	fmt.Fprintln(out, m.about)
	for _, l := range lines {
		fmt.Fprintf(out, "  %-*s  %s\n", width, l.name, l.about)
	}
}

// wholeTree lists every menu with its commands.
func wholeTree(c *call) error {
	var walk func(*menu)
	walk = func(m *menu) {
		var names []string
		for _, x := range m.commands {
			names = append(names, x.name)
		}
		if len(names) > 0 && m.path != "" {
			fmt.Fprintf(c.out, "%-32s %s\n", m.path, strings.Join(names, " | "))
		}
		for _, s := range m.menus {
			walk(s)
		}
	}
	walk(root)
	_, err := io.WriteString(c.out, `
print takes: detail, terse, count-only, show-sensitive, where NAME=VALUE, where NAME~"PATTERN" and (x or !y)
set, remove, enable, disable and comment take names, numbers of print, or [find NAME=VALUE]
/export and /import FILE; Names may be shortened while they are unique. A ? after a menu explains it.
`)
	return err
}
