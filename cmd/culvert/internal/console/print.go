package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"reflect"
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
	secret     bool // what is shown is not the value
	json       any  // the value of a field that is no struct's
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

// row is one line of a table with its number, which stays the same whatever part of the table is shown.
type row struct {
	n      int
	fields []field
	value  any // what JSON shows
}

// view says how a table of rows looks without `detail`.
type view struct {
	columns []string // nil: always in detail, as RouterOS does with wide rows
	flags   string   // "Flags: D - dynamic, R - running"
}

// printWords are the bare words that print takes.
var printWords = []string{"brief", "count-only", "detail", "terse", "where"}

// printRows is `print` of a table: [detail | terse] [count-only] [where ...].
func printRows[T any](c *call, v view, rows []T) error {
	list := make([]row, len(rows))
	for i, r := range rows {
		list[i] = row{i, fields(r), r}
	}
	var zero T
	return c.print(v, list, fields(zero))
}

// print shows rows; zero is one without values, for its properties.
func (c *call) print(v view, rows []row, zero []field) error {
	detail, count, terse, brief := c.args.has("detail"), c.args.has("count-only"), c.args.has("terse"), c.args.has("brief")
	c.args.has("without-paging")
	if err := c.args.rest(printWords...); err != nil {
		return err
	}
	rows, err := where(rows, zero, c.args.find)
	if err != nil {
		return err
	}
	switch {
	case count:
		_, err = fmt.Fprintln(c.out, len(rows))
	case c.json:
		values := []any{}
		for _, r := range rows {
			values = append(values, r.value)
		}
		err = writeJSON(c.out, values, "  ")
	case terse:
		err = c.terse(rows)
	case detail || v.columns == nil && !brief:
		err = c.detail(v, rows)
	default:
		if v.columns == nil {
			for _, f := range zero {
				if f.flag == 0 && len(v.columns) < 5 {
					v.columns = append(v.columns, f.key)
				}
			}
		}
		err = c.table(v, len(flagColumn(zero)), rows)
	}
	return err
}

// terse writes one line per row.
func (c *call) terse(rows []row) error {
	var b bytes.Buffer
	for _, r := range rows {
		fmt.Fprintf(&b, "%d %s", r.n, flagColumn(r.fields))
		for _, f := range r.fields {
			if f.flag == 0 && !f.omit {
				b.WriteString(" " + f.key + "=" + f.value)
			}
		}
		b.WriteString("\n")
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// numberWidth is how wide the column of numbers has to be.
func numberWidth(rows []row) int {
	n := 1
	for _, r := range rows {
		n = max(n, len(strconv.Itoa(r.n)))
	}
	return n
}

// commentOf is the comment of a row, which RouterOS puts on a line of its own.
func commentOf(fs []field) string {
	for _, f := range fs {
		if f.key == "comment" {
			return f.value
		}
	}
	return ""
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
func (c *call) table(v view, flags int, rows []row) error {
	var b bytes.Buffer
	if v.flags != "" {
		fmt.Fprintf(&b, "Flags: %s\n", v.flags)
	}
	number := numberWidth(rows)
	widths := make([]int, len(v.columns))
	cells := make([][]string, len(rows))
	for j, key := range v.columns {
		widths[j] = len(key)
		for i, r := range rows {
			value := ""
			if k := slices.IndexFunc(r.fields, func(f field) bool { return f.key == key }); k >= 0 {
				value = r.fields[k].value
			}
			cells[i] = append(cells[i], value)
			widths[j] = max(widths[j], utf8.RuneCountInString(value))
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
	for i, r := range rows {
		n, fl := strconv.Itoa(r.n), flagColumn(r.fields)
		if comment := commentOf(r.fields); comment != "" {
			fmt.Fprintf(&b, " %*s", number, n)
			if v.flags != "" {
				fmt.Fprintf(&b, " %-*s", flags, fl)
			}
			b.WriteString(" ;;; " + comment + "\n")
			n, fl = "", ""
		}
		line(n, fl, cells[i])
	}
	_, err := c.out.Write(b.Bytes())
	return err
}

// detail writes every property as key=value, broken between properties.
func (c *call) detail(v view, rows []row) error {
	var b bytes.Buffer
	if v.flags != "" {
		fmt.Fprintf(&b, "Flags: %s\n", v.flags)
	}
	number := numberWidth(rows)
	for i, r := range rows {
		head := fmt.Sprintf(" %*d ", number, r.n)
		if v.flags != "" {
			head += flagColumn(r.fields) + " "
		}
		b.WriteString(head)
		if comment := commentOf(r.fields); comment != "" {
			b.WriteString(";;; " + comment + "\n" + strings.Repeat(" ", len(head)))
		}
		col := len(head)
		for _, f := range r.fields {
			if f.flag != 0 || f.omit || f.key == "comment" {
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
func printOne[T any](c *call, value T) error {
	return c.printSingle(row{fields: fields(value), value: value})
}

func (c *call) printSingle(r row) error {
	c.args.has("detail")
	if err := c.args.rest(); err != nil {
		return err
	}
	if c.args.found {
		return usagef("there is only one, so there is nothing to choose with where")
	}
	if c.json {
		return writeJSON(c.out, []any{r.value}, "  ")
	}
	return c.lines(r.fields)
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
