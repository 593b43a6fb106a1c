package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"culvert/cmd/culvert/internal/logring"
)

// field is one property of a row, as text.
type field struct {
	key, value string
	text       bool // quoted in print detail
	omit       bool // left out of print detail
	flag       byte // letter in the flags column, 0: none
	set        bool // of a flag
}

// fields reads a row by the tags of its struct (rows.go).
func fields(row any) []field {
	v := reflect.ValueOf(row)
	out := make([]field, 0, v.NumField())
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name := f.Tag.Get("json")
		if name == "" || name == "-" {
			continue
		}
		_, text := f.Tag.Lookup("text")
		x := field{key: name, text: text, value: valueText(v.Field(i).Interface())}
		if _, blank := f.Tag.Lookup("blank"); blank && v.Field(i).IsZero() {
			x.value, x.omit = "", true
		}
		if letter := f.Tag.Get("flag"); letter != "" {
			x.flag, x.set = letter[0], v.Field(i).Bool()
		}
		out = append(out, x)
	}
	return out
}

func valueText(v any) string {
	switch x := v.(type) {
	case string:
		return logring.Escape(x)
	case bool:
		if x {
			return "yes"
		}
		return "no"
	case netip.Addr:
		if !x.IsValid() {
			return ""
		}
	case time.Time:
		if x.IsZero() {
			return ""
		}
		return x.Format(time.DateTime)
	case []string:
		return logring.Escape(strings.Join(x, ","))
	}
	return logring.Escape(fmt.Sprint(v))
}

// cond is one condition after where.
type cond struct {
	key, op, value string
	re             *regexp.Regexp
}

func newCond(t token) (cond, error) {
	c := cond{key: t.text, op: t.op, value: t.value}
	if c.op == "~" || c.op == "!~" {
		re, err := regexp.Compile(c.value)
		if err != nil {
			return c, usagef("%s is not a pattern: %v", quote(c.value), err)
		}
		c.re = re
	}
	return c, nil
}

// match compares the way the property is shown; numbers, where both sides are some, by value.
func (c cond) match(fs []field) (bool, error) {
	i := slices.IndexFunc(fs, func(f field) bool { return f.key == c.key })
	if i < 0 {
		var keys []string
		for _, f := range fs {
			keys = append(keys, f.key)
		}
		hint := suggest(c.key, keys)
		if hint == "" {
			hint = ": there are " + strings.Join(keys, ", ")
		}
		return false, usagef("there is no property %s%s", quote(c.key), hint)
	}
	have, want := fs[i].value, logring.Escape(c.value)
	switch want { // RouterOS takes both spellings of a boolean
	case "true":
		want = "yes"
	case "false":
		want = "no"
	}
	switch c.op {
	case "=":
		return have == want, nil
	case "!=":
		return have != want, nil
	case "~":
		return c.re.MatchString(have), nil
	case "!~":
		return !c.re.MatchString(have), nil
	}
	a, err1 := strconv.ParseUint(have, 0, 64)
	b, err2 := strconv.ParseUint(want, 0, 64)
	less, more := have < want, have > want
	if err1 == nil && err2 == nil {
		less, more = a < b, a > b
	}
	return c.op == "<" && less || c.op == ">" && more, nil
}

// where drops the rows that a condition does not match. An unknown property is an error even when there are no rows.
func where[T any](rows []T, conds []cond) ([]T, error) {
	if len(conds) == 0 {
		return rows, nil
	}
	var zero T
	for _, c := range conds {
		if _, err := c.match(fields(zero)); err != nil {
			return nil, err
		}
	}
	var out []T
	for _, r := range rows {
		fs, ok := fields(r), true
		for _, c := range conds {
			m, err := c.match(fs)
			if err != nil {
				return nil, err
			}
			ok = ok && m
		}
		if ok {
			out = append(out, r)
		}
	}
	return out, nil
}

// view says how a table of rows looks without `detail`.
type view struct {
	columns []string // nil: always in detail, as RouterOS does with wide rows
	flags   string   // "Flags: D - dynamic, R - running"
}

// printRows is `print` of a table: [detail] [count-only] [where ...].
func printRows[T any](c *call, v view, rows []T) error {
	detail, count := c.args.has("detail"), c.args.has("count-only")
	if err := c.args.rest("detail", "count-only", "where"); err != nil {
		return err
	}
	rows, err := where(rows, c.args.conds)
	if err != nil {
		return err
	}
	switch {
	case count:
		_, err = fmt.Fprintln(c.out, len(rows))
	case c.json:
		if rows == nil {
			rows = []T{}
		}
		err = writeJSON(c.out, rows, "  ")
	case detail || v.columns == nil:
		err = c.detail(v, toFields(rows))
	default:
		var zero T
		err = c.table(v, len(flagColumn(fields(zero))), toFields(rows))
	}
	return err
}

func toFields[T any](rows []T) [][]field {
	out := make([][]field, len(rows))
	for i, r := range rows {
		out[i] = fields(r)
	}
	return out
}

func flagColumn(fs []field) string {
	var b []byte
	for _, f := range fs {
		switch {
		case f.flag == 0:
		case f.set:
			b = append(b, f.flag)
		default:
			b = append(b, ' ')
		}
	}
	return string(b)
}

// table writes aligned columns under their names.
func (c *call) table(v view, flags int, rows [][]field) error {
	var b bytes.Buffer
	if v.flags != "" {
		fmt.Fprintf(&b, "Flags: %s\n", v.flags)
	}
	number := len(strconv.Itoa(max(len(rows)-1, 0)))
	widths := make([]int, len(v.columns))
	cells := make([][]string, len(rows))
	for j, key := range v.columns {
		widths[j] = len(key)
		for i, fs := range rows {
			k := slices.IndexFunc(fs, func(f field) bool { return f.key == key })
			cells[i] = append(cells[i], fs[k].value)
			widths[j] = max(widths[j], utf8.RuneCountInString(fs[k].value))
		}
	}
	line := func(n, fl string, cells []string) {
		var l strings.Builder
		fmt.Fprintf(&l, " %*s", number, n)
		if v.flags != "" {
			fmt.Fprintf(&l, " %-*s", flags, fl)
		}
		for j, s := range cells {
			fmt.Fprintf(&l, " %-*s", widths[j], s)
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	heads := make([]string, len(v.columns))
	for j, key := range v.columns {
		heads[j] = strings.ToUpper(key)
	}
	line("#", "", heads)
	for i, fs := range rows {
		line(strconv.Itoa(i), flagColumn(fs), cells[i])
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// detail writes every property as key=value, broken between properties.
func (c *call) detail(v view, rows [][]field) error {
	var b bytes.Buffer
	if v.flags != "" {
		fmt.Fprintf(&b, "Flags: %s\n", v.flags)
	}
	number := len(strconv.Itoa(max(len(rows)-1, 0)))
	for i, fs := range rows {
		head := fmt.Sprintf(" %*d ", number, i)
		if v.flags != "" {
			head += flagColumn(fs) + " "
		}
		b.WriteString(head)
		col := len(head)
		for _, f := range fs {
			if f.flag != 0 || f.omit {
				continue
			}
			s := f.key + "=" + f.value
			if f.text {
				s = f.key + "=" + requote(f.value)
			}
			n := utf8.RuneCountInString(s)
			if col > len(head) {
				if col+1+n > c.width {
					b.WriteString("\n" + strings.Repeat(" ", len(head)))
					col = len(head)
				} else {
					b.WriteByte(' ')
					col++
				}
			}
			b.WriteString(s)
			col += n
		}
		b.WriteString("\n")
		if i < len(rows)-1 {
			b.WriteString("\n")
		}
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// printOne is `print` of a menu that is one object: right-aligned names, as RouterOS has it.
func printOne[T any](c *call, row T) error {
	if err := c.args.rest(); err != nil {
		return err
	}
	if len(c.args.conds) > 0 {
		return usagef("there is only one, so there is nothing to choose with where")
	}
	if c.json {
		return writeJSON(c.out, []T{row}, "  ")
	}
	return c.lines(fields(row))
}

func (c *call) lines(fs []field) error {
	width := 0
	for _, f := range fs {
		width = max(width, len(f.key))
	}
	var b bytes.Buffer
	for _, f := range fs {
		b.WriteString(strings.TrimRight(fmt.Sprintf("  %*s: %s", width, f.key, f.value), " ") + "\n")
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// requote puts text, which has been escaped already, in quotes.
func requote(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"` }

// quote is for words of the person's own in messages.
func quote(s string) string { return strconv.Quote(s) }

// writeJSON writes v with everything that a terminal might obey as \u escapes: encoding/json leaves DEL, the C1 controls
// and marks of direction as they are.
func writeJSON(out io.Writer, v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return err
	}
	var safe []byte
	for _, r := range b.String() {
		switch {
		case r == '\n' || strconv.IsPrint(r):
			safe = utf8.AppendRune(safe, r)
		case r > 0xffff:
			r -= 0x10000
			safe = fmt.Appendf(safe, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			safe = fmt.Appendf(safe, `\u%04x`, r)
		}
	}
	_, err := out.Write(safe)
	return err
}
