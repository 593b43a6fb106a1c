package console

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"culvert/cmd/culvert/internal/config"
)

// export writes the configuration in force as commands that import takes. What is not written in the file is left out;
// so are secrets, unless show-sensitive asks for them.
func export(_ context.Context, c *call) error {
	reveal := c.args.has("show-sensitive")
	verbose := c.args.has("verbose")
	c.args.has("terse")
	c.args.has("compact")
	c.args.has("hide-sensitive")
	if err := c.args.rest("show-sensitive", "verbose"); err != nil {
		return err
	}
	if reveal && c.script.request.ReadOnly {
		return errReadOnly
	}
	inv, _, err := inForce(c.src)
	if err != nil {
		return err
	}
	var b strings.Builder
	r := c.src.Resource()
	fmt.Fprintf(&b, "# %s by culvert %s\n", r.Now.Format("2006-01-02 15:04:05"), valueText(r.Version))
	if !reveal {
		b.WriteString("# passwords and secrets are left out: export show-sensitive has them\n")
	}
	if c.menu == root || strings.HasPrefix("/system logging ", c.menu.path+" ") {
		if topics, ok := inv.Single("log").Key("topics").Value.([]string); ok {
			b.WriteString("/system logging\nremove [find]\n")
			for _, t := range topics {
				b.WriteString("add topics=" + word(t) + "\n")
			}
		}
	}
	// An object whose table another one shows too is written by the first.
	written := map[string]bool{}
	for _, o := range objects {
		if c.menu != root && c.menu.object != o && !strings.HasPrefix("/"+o.menu+" ", c.menu.path+" ") {
			continue
		}
		var lines []string
		if o.single() {
			if t := inv.Single(o.path); t != nil {
				if l := o.exported(t, reveal, verbose, written); l != "" {
					lines = append(lines, "set"+l)
				}
			}
		} else {
			lines = o.exportAll(inv.Collection(o.path), reveal, verbose, written)
		}
		if len(lines) > 0 {
			b.WriteString("/" + o.menu + "\n")
			for _, l := range lines {
				b.WriteString(fold(l))
			}
		}
	}
	_, err = c.out.Write([]byte(b.String()))
	return err
}

func (o *object) exportAll(c *config.Collection, reveal, verbose bool, written map[string]bool) []string {
	var lines, later []string
	var names []string
	for _, t := range c.All() {
		if !t.Written && !verbose {
			continue
		}
		names = append(names, t.Name())
		l := o.exported(t, reveal, verbose, written)
		// A pool may name one that comes behind it.
		if k := t.Key("next-pool"); k != nil && !slices.Contains(names, keyText(k.Value)) && keyText(k.Value) != "" {
			l = strings.Replace(l, " next-pool="+word(keyText(k.Value)), "", 1)
			later = append(later, "set "+item(t.Name())+" next-pool="+word(keyText(k.Value)))
		}
		switch {
		case slices.Contains(c.Builtin, t.Name()):
			if l != "" {
				lines = append(lines, "set "+item(t.Name())+l)
			}
		case o.noAdd != "":
		default:
			if _, ok := o.added["disabled"]; ok && t.Key("disabled").Value == nil {
				l = " disabled=no" + l
			}
			lines = append(lines, "add "+o.idName()+"="+word(t.Name())+l)
		}
	}
	return append(lines, later...)
}

// item is a name as one of several that a command is about: what looks like numbers is put in quotes.
func item(name string) string {
	w := word(name)
	if w == name && strings.Trim(name, "0123456789,") != name || w == name && strings.Contains(name, ",") {
		return `"` + name + `"`
	}
	return w
}

// exported are the settings of a table, each with a blank before it.
func (o *object) exported(t *config.Table, reveal, verbose bool, written map[string]bool) string {
	var b strings.Builder
	for _, k := range t.Keys {
		id := strings.Join(t.Path, "\x00") + "\x00" + k.Name
		hook := k.Kind == config.Secret && o.hooks[k.Name] != nil // a password's hash
		if !o.shows(k.Name) && !hook || written[id] {
			continue
		}
		v := k.Value
		if v == nil && verbose {
			v = k.Default
		}
		if v == nil {
			continue
		}
		written[id] = true
		if k.Kind == config.Secret && !reveal {
			continue
		}
		b.WriteString(" " + o.name(k.Name) + "=" + word(keyText(v)))
	}
	return b.String()
}

const foldAt = 80 // columns

// fold breaks a command between settings, as RouterOS does: a backslash, and four blanks on the next line.
func fold(line string) string {
	var b strings.Builder
	col, quoted, start := 0, false, 0
	flush := func(end int) {
		w := line[start:end]
		if col > 4 && col+len(w) > foldAt-2 {
			b.WriteString(" \\\n   ")
			col = 3
		}
		b.WriteString(w)
		col += len(w)
		start = end
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == ' ' && !quoted && i > start:
			flush(i)
		}
	}
	flush(len(line))
	b.WriteByte('\n')
	return b.String()
}

const (
	maxImport = 1 << 20 // octets of a file
	maxDepth  = 4       // of files that import files
)

// importFile runs the commands of a file. Its changes are put in force together, at the end, or as far as they are good
// when a command fails; commands about what is not culvert's are named and passed over.
func importFile(ctx context.Context, c *call) error {
	c.args.has("verbose")
	name, ok := c.args.take("file-name")
	if v, given := c.args.take("verbose"); given && v != "yes" && v != "no" {
		return usagef("verbose is yes or no")
	}
	if !ok {
		if len(c.args.words) != 1 {
			return usagef("say which: import FILE")
		}
		name = c.args.words[0].text
		c.args.words = nil
	}
	if err := c.args.rest("file-name"); err != nil {
		return err
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(config.DefaultPath), name)
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file", valueText(name))
	case info.Size() > maxImport:
		return fmt.Errorf("%s is larger than %d octets", valueText(name), maxImport)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if c.script.depth >= maxDepth {
		return fmt.Errorf("%s: files that import files, %d deep", valueText(name), maxDepth)
	}
	return c.script.include(ctx, valueText(name), string(text))
}

// include runs the text of a file.
func (s *script) include(ctx context.Context, name, text string) error {
	statements, err := lex(strings.TrimPrefix(text, "\xef\xbb\xbf"))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	inner := &script{console: s.console, request: s.request, out: s.out, at: root, depth: s.depth + 1, edit: s.edit}
	done, passed := 0, 0
	var failed error
	for _, st := range statements {
		err := inner.statement(ctx, st.toks)
		var notOurs *NotOursError
		switch {
		case errors.As(err, &notOurs):
			passed++
			fmt.Fprintf(s.out, "%s:%d: %v\n", name, st.line, err)
		case err != nil:
			failed = fmt.Errorf("%s:%d: %w", name, st.line, err)
		case !inner.entered:
			done++
		}
		if failed != nil {
			break
		}
	}
	if s.depth == 0 {
		if err := inner.flush(ctx); err != nil {
			return errors.Join(failed, err)
		}
	} else {
		s.edit = inner.edit
	}
	if failed != nil {
		if done > 0 {
			return fmt.Errorf("%w\nthe commands before it are in force", failed)
		}
		return failed
	}
	if !s.request.JSON {
		fmt.Fprintf(s.out, "%d commands done", done)
		if passed > 0 {
			fmt.Fprintf(s.out, ", %d not culvert's", passed)
		}
		fmt.Fprintln(s.out)
	}
	return nil
}
