package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// Document is the text of a configuration that is being changed. A change touches the lines of its key and no other:
// comments, order, blanks and line ends stay. Each change is proved by decoding the text again and comparing it with what
// was meant; one that the editor cannot make, because of how the file is written, is an *EditError and changes nothing.
type Document struct {
	text  string
	model map[string]any
	later bool // changes are proved together
}

// EditError is a construct of the file that the editor leaves to people.
type EditError struct {
	Line int
	Text string
}

func (e *EditError) Error() string {
	return fmt.Sprintf("line %d of the file cannot be changed from here: %s: change it with an editor", e.Line, e.Text)
}

// NewDocument begins with the text of a file, which has to be TOML.
func NewDocument(name string, data []byte) (*Document, error) {
	model, err := decode(data)
	if err != nil {
		r := newReader(name, nil)
		r.syntax(err)
		return nil, &Error{Problems: r.problems}
	}
	return &Document{text: string(data), model: model}, nil
}

// ProveLater leaves the proof of the changes that follow to one call of Prove, which large files are grateful for.
func (d *Document) ProveLater() { d.later = true }

// Prove says whether the text means what the changes meant. After an error the document is of no use any more.
func (d *Document) Prove() error {
	got, err := decode([]byte(d.text))
	if err != nil || !reflect.DeepEqual(got, d.model) {
		return errors.New("the file is written in a way that the editor does not understand: change it with an editor")
	}
	return nil
}

// Bytes is the text as it is now.
func (d *Document) Bytes() []byte { return []byte(d.text) }

// Has says whether a table is written.
func (d *Document) Has(path []string) bool { return lookUp(d.model, path) != nil }

func lookUp(m map[string]any, path []string) map[string]any {
	for _, p := range path {
		next, ok := m[p].(map[string]any)
		if !ok {
			return nil
		}
		m = next
	}
	return m
}

// Set writes a key of a table, which is made when it is not there. The value is a string, bool, int64 or []string.
func (d *Document) Set(path []string, key string, value any) error {
	encoded, err := encode(value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if old, ok := lookUp(d.model, path)[key]; ok {
		if reflect.DeepEqual(plain(old), value) {
			return nil
		}
		switch old.(type) {
		case map[string]any, []map[string]any: // the decoder lets a value come after it
			full := append(slices.Clone(path), key)
			return &EditError{Line: scanLines(d.text)[lineKey(full)], Text: toml.Key(full).String() + " is a table"}
		}
	}
	return d.edit(func(e *edition) error { return e.set(path, key, encoded) }, func(m map[string]any) {
		t := makeTable(m, path)
		if list, ok := value.([]string); ok {
			array := make([]any, len(list))
			for i, s := range list {
				array[i] = s
			}
			t[key] = array
		} else {
			t[key] = value
		}
	})
}

// Unset takes a key away.
func (d *Document) Unset(path []string, key string) error {
	if _, ok := lookUp(d.model, path)[key]; !ok {
		return nil
	}
	return d.edit(func(e *edition) error { return e.unset(path, key) }, func(m map[string]any) { delete(lookUp(m, path), key) })
}

// Add writes an empty table.
func (d *Document) Add(path []string) error {
	if d.Has(path) {
		return nil
	}
	return d.edit(func(e *edition) error { return e.addTable(path, "") }, func(m map[string]any) { makeTable(m, path) })
}

// Remove takes a table away, with the comments within it.
func (d *Document) Remove(path []string) error {
	if !d.Has(path) {
		return nil
	}
	// With the last `[a.b]` of a file, `a` goes too, unless it is written itself.
	var headers [][]string
	for _, s := range layOut(strings.TrimPrefix(d.text, byteOrderMark)) {
		if s.header {
			headers = append(headers, s.path)
		}
	}
	return d.edit(func(e *edition) error { return e.removeTable(path) }, func(m map[string]any) {
		for n := len(path); n > 0; n-- {
			delete(lookUp(m, path[:n-1]), path[n-1])
			above := path[:n-1]
			if len(lookUp(m, above)) > 0 || slices.ContainsFunc(headers, func(h []string) bool { return slices.Equal(h, above) }) {
				return
			}
		}
	})
}

// Rename gives a table another last name, in its place.
func (d *Document) Rename(path []string, name string) error {
	to := append(slices.Clone(path[:len(path)-1]), name)
	if d.Has(to) {
		return fmt.Errorf("there is a %s already", toml.Key(to))
	}
	return d.edit(func(e *edition) error { return e.rename(path, to) }, func(m map[string]any) {
		parent := lookUp(m, path[:len(path)-1])
		parent[name] = parent[path[len(path)-1]]
		delete(parent, path[len(path)-1])
	})
}

// edit makes one change to the text and proves it.
func (d *Document) edit(change func(*edition) error, meant func(map[string]any)) error {
	e := &edition{src: d.text, statements: layOut(d.text)}
	e.bom = strings.HasPrefix(d.text, byteOrderMark)
	if e.bom {
		e.src = d.text[len(byteOrderMark):]
		e.statements = layOut(e.src)
	}
	e.newline = "\n"
	if i := strings.IndexByte(e.src, '\n'); i > 0 && e.src[i-1] == '\r' {
		e.newline = "\r\n"
	}
	if err := change(e); err != nil {
		return err
	}
	text := e.src
	if e.bom {
		text = byteOrderMark + text
	}
	if d.later {
		d.text = text
		meant(d.model)
		return nil
	}
	want, _ := cloneTree(d.model).(map[string]any)
	meant(want)
	got, err := decode([]byte(text))
	if err != nil || !reflect.DeepEqual(got, want) {
		return &EditError{Line: e.at, Text: "it is written in a way that the editor does not understand"}
	}
	d.text, d.model = text, got
	return nil
}

func makeTable(m map[string]any, path []string) map[string]any {
	for _, p := range path {
		next, ok := m[p].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[p] = next
		}
		m = next
	}
	return m
}

func cloneTree(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := maps.Clone(x)
		for k, v := range out {
			out[k] = cloneTree(v)
		}
		return out
	case []any:
		out := slices.Clone(x)
		for i, v := range out {
			out[i] = cloneTree(v)
		}
		return out
	case []map[string]any:
		out := slices.Clone(x)
		for i, v := range out {
			out[i] = cloneTree(v).(map[string]any)
		}
		return out
	}
	return v
}

// edition is a text while one change is made to it.
type edition struct {
	src        string
	statements []statement
	bom        bool
	newline    string
	at         int // line that was last looked at, for complaints
}

func (e *edition) replace(s span, with string) {
	e.at = e.line(s.start)
	e.src = e.src[:s.start] + with + e.src[s.end:]
}

func (e *edition) line(pos int) int { return 1 + strings.Count(e.src[:pos], "\n") }

func (e *edition) refuse(s statement, format string, args ...any) error {
	return &EditError{Line: e.line(s.lines.start), Text: fmt.Sprintf(format, args...)}
}

// header finds the one `[table]` of a path; -1 when there is none.
func (e *edition) header(path []string) (int, error) {
	found := -1
	for i, s := range e.statements {
		switch {
		case s.header && slices.Equal(s.path, path) && s.array:
			return -1, e.refuse(s, "[[%s]] is an array of tables", toml.Key(path))
		case s.header && slices.Equal(s.path, path):
			found = i
		case !s.header && slices.Equal(s.path, path):
			return -1, e.refuse(s, "%s is an inline table", toml.Key(path))
		case !s.header && s.inside && len(s.path) < len(path) && slices.Equal(s.path, path[:len(s.path)]):
			return -1, e.refuse(s, "%s is an inline table", toml.Key(s.path))
		case !s.header && s.dotted && len(s.path) > len(path) && slices.Equal(s.path[:len(path)], path):
			if s.table < 0 || len(e.statements[s.table].path) < len(path) {
				return -1, e.refuse(s, "%s is written with dotted keys", toml.Key(path))
			}
		}
	}
	return found, nil
}

// last is the last statement of a table.
func (e *edition) last(header int) int {
	last := header
	for i := header + 1; i < len(e.statements) && e.statements[i].table == header && !e.statements[i].header; i++ {
		last = i
	}
	return last
}

func (e *edition) find(path []string, key string) (int, error) {
	full := append(slices.Clone(path), key)
	for i, s := range e.statements {
		if s.header || !slices.Equal(s.path, full) {
			continue
		}
		if s.inside {
			return -1, e.refuse(s, "%s is an inline table", toml.Key(full))
		}
		return i, nil
	}
	return -1, nil
}

func (e *edition) set(path []string, key, value string) error {
	if i, err := e.find(path, key); err != nil {
		return err
	} else if i >= 0 {
		s := e.statements[i]
		if s.noted {
			return e.refuse(s, "the list of %s has comments inside", key)
		}
		e.replace(s.value, value)
		return nil
	}
	pair := toml.Key{key}.String() + " = " + value
	h, err := e.header(path)
	if err != nil {
		return err
	}
	if h < 0 {
		return e.addTable(path, pair)
	}
	// Behind the last line of the table, indented as that.
	last := e.statements[e.last(h)]
	indent := ""
	if !last.header {
		line := e.src[last.lines.start:]
		indent = line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	}
	e.insert(last.lines.end, indent+pair+e.newline)
	return nil
}

// insert puts lines in at the beginning of a line, or at the end of a file whose last line has no end.
func (e *edition) insert(pos int, lines string) {
	if pos > 0 && e.src[pos-1] != '\n' {
		lines = e.newline + lines
	}
	e.replace(span{pos, pos}, lines)
}

func (e *edition) unset(path []string, key string) error {
	i, err := e.find(path, key)
	if err != nil {
		return err
	}
	if i < 0 {
		_, err := e.header(path)
		if err == nil {
			err = &EditError{Line: 1, Text: toml.Key(append(slices.Clone(path), key)).String() + " is not written where the editor looks"}
		}
		return err
	}
	if h, err := e.header(path); err != nil {
		return err
	} else if h < 0 && len(path) > 0 {
		return e.refuse(e.statements[i], "%s is written with dotted keys", toml.Key(path))
	}
	e.replace(e.statements[i].lines, "")
	return nil
}

// addTable writes a table behind the last of its kind, or at the end.
func (e *edition) addTable(path []string, pair string) error {
	if _, err := e.header(path); err != nil {
		return err
	}
	pos := len(e.src)
	for i, s := range e.statements {
		if s.header && !s.array && len(path) > 1 && len(s.path) == len(path) && slices.Equal(s.path[:len(path)-1], path[:len(path)-1]) {
			pos = e.statements[e.last(i)].lines.end
		}
	}
	lines := "[" + toml.Key(path).String() + "]" + e.newline
	if pair != "" {
		lines += pair + e.newline
	}
	if strings.TrimSpace(e.src[:pos]) != "" {
		lines = e.newline + lines
	}
	e.insert(pos, lines)
	return nil
}

func (e *edition) removeTable(path []string) error {
	h, err := e.header(path)
	if err != nil {
		return err
	}
	// From the last to the first, so that the positions stay right.
	found := false
	for i := len(e.statements) - 1; i >= 0; i-- {
		s := e.statements[i]
		below := len(s.path) > len(path) && slices.Equal(s.path[:len(path)], path)
		switch {
		case s.header && (i == h || below):
			if s.array {
				return e.refuse(s, "[[%s]] is an array of tables", toml.Key(s.path))
			}
			gone := span{s.lines.start, e.statements[e.last(i)].lines.end}
			// Of the blank lines around it one set goes with it.
			if rest := e.src[gone.end:]; strings.TrimSpace(rest) == "" || strings.HasPrefix(rest, e.newline) {
				for strings.HasSuffix(e.src[:gone.start], e.newline+e.newline) {
					gone.start -= len(e.newline)
				}
			}
			e.replace(gone, "")
			found = true
		case !s.header && below && (s.table < 0 || len(e.statements[s.table].path) < len(path)):
			return e.refuse(s, "%s is written with dotted keys", toml.Key(path))
		}
	}
	if !found {
		return &EditError{Line: 1, Text: toml.Key(path).String() + " is not written as a table of its own"}
	}
	return nil
}

func (e *edition) rename(path, to []string) error {
	h, err := e.header(path)
	if err != nil {
		return err
	}
	for i := len(e.statements) - 1; i >= 0; i-- {
		s := e.statements[i]
		if !s.header || len(s.path) < len(path) || !slices.Equal(s.path[:len(path)], path) {
			continue
		}
		e.replace(s.name, toml.Key(slices.Concat(to, s.path[len(path):])).String())
	}
	if h < 0 {
		return &EditError{Line: 1, Text: toml.Key(path).String() + " is not written as a table of its own"}
	}
	return nil
}

// encode writes a value in TOML.
func encode(v any) (string, error) {
	switch x := v.(type) {
	case bool:
		return strconv.FormatBool(x), nil
	case int64:
		return strconv.FormatInt(x, 10), nil
	case string:
		return encodeText(x)
	case []string:
		var b strings.Builder
		b.WriteByte('[')
		for i, s := range x {
			if i > 0 {
				b.WriteString(", ")
			}
			t, err := encodeText(s)
			if err != nil {
				return "", err
			}
			b.WriteString(t)
		}
		b.WriteByte(']')
		return b.String(), nil
	}
	return "", fmt.Errorf("a %T cannot be written", v)
}

func encodeText(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("%q is not UTF-8", s)
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
	return b.String(), nil
}
