package console

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"culvert/cmd/culvert/internal/config"
)

// menu is one level of the tree.
type menu struct {
	name, about string
	path        string // "/ppp active"
	menus       []*menu
	commands    []*command
}

// command is a verb of a menu.
type command struct {
	name, about string
	run         func(context.Context, *call) error
	later       bool // documented, but not in this version
}

// root is the whole tree. It never changes after the package is initialised.
var root *menu

func init() {
	root = &menu{about: "Culvert", menus: []*menu{menuInterface, menuIP, menuLog, menuPPP, menuSystem},
		commands: []*command{
			{name: "help", about: "what there is; ? explains a menu", run: func(_ context.Context, c *call) error { return wholeTree(c) }},
			later("export", "the configuration as commands"),
			later("import", "commands from a file"),
		}}
	root.setPaths("")
}

func (m *menu) setPaths(parent string) {
	for _, sub := range m.menus {
		sub.path = strings.TrimSpace(parent + " " + sub.name)
		sub.setPaths(sub.path)
		sub.path = "/" + sub.path
	}
}

// later is a documented command that this version does not have.
func later(name, about string) *command {
	return &command{name: name, about: about + " (not in this version)", later: true, run: func(context.Context, *call) error {
		return fmt.Errorf("%s is not supported by this version yet: change %s and send the daemon SIGHUP", name, config.DefaultPath)
	}}
}

func edits(names ...string) []*command {
	var out []*command
	for _, n := range names {
		out = append(out, later(n, "change the configuration"))
	}
	return out
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
			if sub := pick(m.menus, part, func(m *menu) string { return m.name }); sub != nil {
				m = sub
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
		names = append(names, s.name)
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
		lines = append(lines, line{s.name, s.about + " ..."})
	}
	for _, c := range m.commands {
		lines = append(lines, line{c.name, c.about})
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.name, b.name) })
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
			if !x.later {
				names = append(names, x.name)
			}
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
print takes: detail, count-only, where NAME=VALUE, where NAME~"PATTERN"
Names may be shortened while they are unique. A ? after a menu explains it.
`)
	return err
}
