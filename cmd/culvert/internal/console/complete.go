package console

import (
	"encoding/json"
	"io"
	"slices"
	"strings"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/control"
)

// Complete writes, as JSON, what could follow a text at its end: menus and commands, the settings of a command and their
// words, names of what there is, and after where the properties.
func (c *Console) Complete(at, text string, out io.Writer) error {
	if len(text) > maxCommand {
		return usagef("the command is longer than %d octets", maxCommand)
	}
	words := c.completions(menuAt(at), text)
	return json.NewEncoder(out).Encode(words)
}

func (c *Console) completions(m *menu, text string) control.Completion {
	// Only the last command of the text matters.
	statements, err := lex(text)
	if err != nil {
		return control.Completion{} // a quote is open: it is a text of the person's own
	}
	var toks []token
	if len(statements) > 0 && !strings.HasSuffix(strings.TrimRight(text, " "), ";") {
		toks = statements[len(statements)-1].toks
	}
	partial := token{}
	if len(toks) > 0 && !strings.ContainsAny(text[len(text)-1:], " \t;]") {
		partial = toks[len(toks)-1]
		toks = toks[:len(toks)-1]
		if partial.kind == tokOpen {
			return finish(control.Completion{Words: []control.Word{{Text: "find", End: " "}}}, "")
		}
	}
	typed := partial.text
	if partial.kind == tokCond {
		typed = partial.value
	}
	if partial.quoted {
		return control.Completion{} // the words would have to be quoted alike
	}
	if n := len(toks); n > 0 && toks[n-1].kind == tokOpen && partial.kind == tokWord && strings.HasPrefix("find", partial.text) {
		return finish(control.Completion{Words: []control.Word{{Text: "find", About: "those that", End: " "}}}, typed)
	}
	// The path: complete words lead on; of the last the part behind the last slash counts.
	from := m
	var cmd *command
	rest := toks
	if len(toks) > 0 {
		var err error
		if from, cmd, rest, err = resolve(m, toks); err != nil {
			return control.Completion{}
		}
	}
	if cmd == nil {
		if strings.HasPrefix(typed, "/") && len(toks) == 0 {
			from = root
		}
		if i := strings.LastIndexByte(typed, '/'); i >= 0 {
			if dir := strings.Trim(typed[:i], "/"); dir != "" {
				var err error
				if from, cmd, _, err = resolve(from, []token{{text: dir}}); err != nil || cmd != nil {
					return control.Completion{}
				}
			}
			typed = typed[i+1:]
		}
		return finish(from.completion(), typed)
	}
	return c.arguments(from, cmd, rest, partial, typed)
}

// finish keeps the words that begin as typed.
func finish(c control.Completion, typed string) control.Completion {
	c.Typed = len(typed)
	c.Words = slices.DeleteFunc(c.Words, func(w control.Word) bool { return !strings.HasPrefix(w.Text, typed) })
	return c
}

func (m *menu) completion() (c control.Completion) {
	for _, s := range m.menus {
		if s.foreign == "" {
			c.Words = append(c.Words, control.Word{Text: s.name, About: s.about + " ...", End: " "})
		}
	}
	for _, x := range m.commands {
		c.Words = append(c.Words, control.Word{Text: x.name, About: x.about, End: " "})
	}
	return c
}

// arguments completes what follows a command.
func (c *Console) arguments(m *menu, cmd *command, before []token, partial token, typed string) (out control.Completion) {
	add := func(text, about, end string) {
		out.Words = append(out.Words, control.Word{Text: text, About: about, End: end})
	}
	o := m.object
	inWhere := slices.ContainsFunc(before, func(t token) bool {
		return t.kind == tokOpen || t.kind == tokWord && !t.quoted && t.text == "where"
	}) && (len(before) == 0 || before[len(before)-1].kind != tokClose)
	switch {
	case partial.kind == tokCond && o != nil && partial.op == "=":
		if _, key, _, err := o.argument(partial.text); err == nil && key != nil {
			list := typed
			for _, w := range c.valueWords(o, key) {
				if key.Kind == config.List {
					// After a comma the next one begins.
					list = typed[strings.LastIndexByte(typed, ',')+1:]
				}
				add(w, "", " ")
			}
			return finish(out, list)
		}
		return out
	case partial.kind == tokCond:
		return out
	case inWhere && o != nil:
		if o.list == nil {
			for _, f := range o.fields(nil, nil, &config.Table{Path: append(o.dotted(), ""), Keys: o.prototype().Keys}, false) {
				add(f.key, "", "")
			}
		}
		add("and", "both", " ")
		add("or", "one of them", " ")
		return finish(out, typed)
	}
	for _, w := range cmd.words {
		add(w, "", " ")
	}
	if o != nil && cmd.edits {
		if cmd.name != "add" && !o.single() {
			if inv, cfg, err := inForce(c.src); err == nil {
				for _, t := range o.tables(inv, cfg) {
					if plainWord(t.Name()) {
						add(t.Name(), o.thing(), " ")
					}
				}
			}
		}
		if cmd.name == "add" || cmd.name == "set" {
			for _, a := range o.arguments() {
				about := ""
				if _, key, _, err := o.argument(a); err == nil && key != nil {
					about = strings.Join(key.Words, " | ")
					if about == "" && key.Kind == config.Bool {
						about = "yes | no"
					}
				}
				add(a+"=", about, "")
			}
		}
	}
	if cmd.name == "monitor" && o != nil {
		for _, x := range c.src.Config().Clients {
			add(x.Name, "client", " ")
		}
	}
	if cmd.name == "monitor-traffic" {
		for _, r := range interfaces(c.src) {
			add(r.Name, "interface", " ")
		}
	}
	return finish(out, typed)
}

// valueWords are the words that a setting can have.
func (c *Console) valueWords(o *object, key *config.Key) []string {
	switch {
	case key.Kind == config.Bool:
		return []string{"yes", "no"}
	case len(key.Words) > 0:
		return key.Words
	}
	refers := map[string]string{"profile": "ppp.profile", "default-profile": "ppp.profile", "next-pool": "ip.pool", "remote-address": "ip.pool",
		"remote-ipv6-prefix-pool": "ip.pool", "user": "ppp.secret", "proposal": "ipsec.proposal"}[key.Name]
	if o.path == "ipsec.peer" && key.Name == "profile" {
		refers = "ipsec.profile"
	}
	if refers == "" {
		return nil
	}
	inv, _, err := inForce(c.src)
	if err != nil {
		return nil
	}
	var names []string
	for _, t := range inv.Collection(refers).All() {
		if plainWord(t.Name()) {
			names = append(names, t.Name())
		}
	}
	return names
}
