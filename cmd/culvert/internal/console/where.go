package console

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"culvert/cmd/culvert/internal/config"
	"culvert/cmd/culvert/internal/logring"
)

// expr is a condition on one row. The error is about the condition, not about the row.
type expr interface {
	match(fs []field) (bool, error)
}

type (
	all    struct{}
	not    struct{ x expr }
	and    struct{ x, y expr }
	or     struct{ x, y expr }
	phrase struct { // name op value
		key, op, value string
		re             *pattern
	}
)

func (all) match([]field) (bool, error) { return true, nil }

func (e not) match(fs []field) (bool, error) {
	ok, err := e.x.match(fs)
	return !ok, err
}

// Both sides are looked at in any case, so that a mistake on the other side does not depend on the row.
func (e and) match(fs []field) (bool, error) {
	x, err := e.x.match(fs)
	if err != nil {
		return false, err
	}
	y, err := e.y.match(fs)
	return x && y, err
}

func (e or) match(fs []field) (bool, error) {
	x, err := e.x.match(fs)
	if err != nil {
		return false, err
	}
	y, err := e.y.match(fs)
	return x || y, err
}

func both(x, y expr) expr {
	if x == nil {
		return y
	}
	return and{x, y}
}

const maxNesting = 16 // of parentheses

// whereParser reads conditions: name=value and flag, !flag, joined by `and`, `or` and parentheses; two beside each other
// are both meant.
type whereParser struct {
	toks  []token
	pos   int
	depth int
}

// parseWhere reads to the end, to the closing bracket, or to a word of print's, and returns how many tokens those were.
func parseWhere(toks []token, bracket bool) (expr, int, error) {
	// Parentheses stick to the words beside them: they become words of their own.
	var split []token
	origin := []int{}
	n := len(toks)
	open := 0
	for i, t := range toks {
		if t.kind == tokClose && bracket {
			n = i
			break
		}
		if t.kind == tokWord && !t.quoted && slices.Contains([]string{"detail", "follow", "count-only", "terse", "brief", "show-sensitive"}, t.text) {
			if bracket {
				return nil, 0, usagef("%q is not a condition", t.text)
			}
			n = i
			break
		}
		put := func(t token) { split, origin = append(split, t), append(origin, i) }
		for !t.quoted || t.kind == tokCond {
			rest, ok := strings.CutPrefix(t.text, "(")
			if !ok {
				break
			}
			put(token{text: "("})
			t.text = rest
			open++
		}
		closing := 0
		if last := &t.text; !t.quoted {
			if t.kind == tokCond {
				last = &t.value
			}
			for closing < open && strings.HasSuffix(*last, ")") {
				*last = strings.TrimSuffix(*last, ")")
				closing++
			}
		}
		if t.kind != tokWord || t.text != "" || t.quoted {
			put(t)
		}
		for range closing {
			put(token{text: ")"})
			open--
		}
	}
	p := &whereParser{toks: split}
	if len(split) == 0 {
		return all{}, n, nil
	}
	e, err := p.either()
	if err != nil {
		return nil, 0, err
	}
	if p.pos < len(p.toks) {
		return nil, 0, usagef("unexpected %q", p.toks[p.pos].text)
	}
	return e, n, nil
}

func (p *whereParser) at(word string) bool {
	return p.pos < len(p.toks) && p.toks[p.pos].kind == tokWord && !p.toks[p.pos].quoted && p.toks[p.pos].text == word
}

func (p *whereParser) either() (expr, error) {
	e, err := p.every()
	for err == nil && (p.at("or") || p.at("||")) {
		p.pos++
		var y expr
		if y, err = p.every(); err == nil {
			e = or{e, y}
		}
	}
	return e, err
}

func (p *whereParser) every() (expr, error) {
	e, err := p.one()
	for err == nil && p.pos < len(p.toks) && !p.at("or") && !p.at("||") && !p.at(")") {
		if p.at("and") || p.at("&&") || p.at("where") {
			p.pos++
		}
		var y expr
		if y, err = p.one(); err == nil {
			e = and{e, y}
		}
	}
	return e, err
}

func (p *whereParser) one() (expr, error) {
	if p.pos == len(p.toks) {
		return nil, usagef("a condition such as name=user1 is missing at the end")
	}
	t := p.toks[p.pos]
	p.pos++
	if t.kind == tokCond {
		c := phrase{key: t.text, op: t.op, value: t.value}
		if name, ok := strings.CutPrefix(c.key, "!"); ok {
			c.key = name
			x, err := c.compile()
			return not{x}, err
		}
		return c.compile()
	}
	switch {
	case t.kind != tokWord, t.quoted, t.text == ")", t.text == "and", t.text == "or":
		return nil, usagef("%q is not a condition such as name=user1 or topics~\"ipsec\"", t.text)
	case t.text == "(" || t.text == "!(":
		if p.depth++; p.depth > maxNesting {
			return nil, usagef("more than %d parentheses within each other", maxNesting)
		}
		e, err := p.either()
		if err != nil {
			return nil, err
		}
		if !p.at(")") {
			return nil, usagef("a parenthesis is not closed")
		}
		p.pos++
		p.depth--
		return e, nil
	case t.text == "!" || t.text == "not":
		x, err := p.one()
		return not{x}, err
	}
	// A property alone is a flag: `where dynamic`, `where !disabled`.
	if name, ok := strings.CutPrefix(t.text, "!"); ok {
		return phrase{key: name, op: "!=", value: "true"}, nil
	}
	return phrase{key: t.text, op: "=", value: "true"}, nil
}

func (c phrase) compile() (expr, error) {
	if c.op == "~" || c.op == "!~" {
		re, err := compilePattern(c.value)
		if err != nil {
			return c, usagef("%s is not a pattern: %v", quote(c.value), err)
		}
		c.re = re
	}
	return c, nil
}

// match compares the way the property is shown; numbers, times and addresses, where both sides are some, by value.
func (c phrase) match(fs []field) (bool, error) {
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
		return c.re.match(have), nil
	case "!~":
		return !c.re.match(have), nil
	}
	n := compareValues(have, want)
	return c.op == "<" && n < 0 || c.op == ">" && n > 0, nil
}

func compareValues(a, b string) int {
	if x, err := strconv.ParseUint(a, 0, 64); err == nil {
		if y, err := strconv.ParseUint(b, 0, 64); err == nil {
			return compareOrdered(x, y)
		}
	}
	if x, err := netip.ParseAddr(a); err == nil {
		if y, err := netip.ParseAddr(b); err == nil {
			return x.Compare(y)
		}
	}
	if x, err := config.ParseDuration(a); err == nil {
		if y, err := config.ParseDuration(b); err == nil {
			return compareOrdered(x, y)
		}
	}
	return strings.Compare(a, b)
}

func compareOrdered[T ~uint64 | ~int64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// where drops the rows that a condition does not match. An unknown property is an error even when there are no rows.
func where(rows []row, zero []field, e expr) ([]row, error) {
	if e == nil {
		return rows, nil
	}
	if _, err := e.match(zero); err != nil {
		return nil, err
	}
	var out []row
	for _, r := range rows {
		ok, err := e.match(r.fields)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, r)
		}
	}
	return out, nil
}
