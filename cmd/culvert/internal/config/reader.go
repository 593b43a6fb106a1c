package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"culvert/cmd/culvert/internal/logring"
)

// reader collects problems while sections are read; it never stops at the first.
type reader struct {
	file     string
	lines    map[string]int
	problems []Problem

	// The first secret of the file, for the check of its mode.
	secretKey  string
	secretLine int

	badUseIPsec bool // what depends on use-ipsec need not be complained about too
	userKeys    []userKey

	inventory *Inventory // what the getters are asked for, where somebody wants to know
}

func newReader(file string, data []byte) *reader {
	return &reader{file: file, lines: scanLines(string(data))}
}

// table is one TOML table. Every getter marks its key as known; done reports the others.
// A getter leaves *dst alone, and returns false, when the key is absent or wrong; a wrong one has been reported.
type table struct {
	r     *reader
	path  []string
	m     map[string]any
	known []string
}

func (t *table) line(key string) int {
	if key != "" {
		if n, ok := t.r.lines[lineKey(append(slices.Clone(t.path), key))]; ok {
			return n
		}
	}
	// A key that is missing is reported at its table.
	for i := len(t.path); i > 0; i-- {
		if n, ok := t.r.lines[lineKey(t.path[:i])]; ok {
			return n
		}
	}
	return 0
}

func (t *table) add(s Severity, line int, key, format string, args ...any) {
	k := toml.Key(t.path)
	if key != "" {
		k = append(slices.Clone(k), key)
	}
	t.r.problems = append(t.r.problems, Problem{File: t.r.file, Line: line, Key: logring.Escape(k.String()), Text: logring.Escape(fmt.Sprintf(format, args...)), Severity: s})
}

func (t *table) fail(key, format string, args ...any) {
	t.add(Fatal, t.line(key), key, format, args...)
}

func (t *table) warn(key, format string, args ...any) {
	t.add(Warning, t.line(key), key, format, args...)
}

// failAt reports element i of a list.
func (t *table) failAt(key string, i int, format string, args ...any) {
	line, ok := t.r.lines[elementKey(append(slices.Clone(t.path), key), i)]
	if !ok {
		line = t.line(key)
	}
	t.add(Fatal, line, key, format, args...)
}

func (t *table) has(key string) bool {
	_, ok := t.m[key]
	return ok
}

func (t *table) get(key string) (any, bool) {
	if !slices.Contains(t.known, key) {
		t.known = append(t.known, key)
	}
	v, ok := t.m[key]
	return v, ok
}

// sub is the table below; an empty one when absent.
func (t *table) sub(key string) *table {
	s := &table{r: t.r, path: append(slices.Clone(t.path), key)}
	v, ok := t.get(key)
	if !ok {
		return s
	}
	if m, ok := v.(map[string]any); ok {
		s.m = m
		return s
	}
	header := toml.Key(s.path).String()
	if _, ok := v.([]map[string]any); ok {
		t.fail(key, "is an array of tables: write [%s] once, in single brackets", header)
	} else {
		t.fail(key, "is a table: write it as [%s]", header)
	}
	return s
}

// each visits the named tables below a table, in the order of the file.
func (t *table) each(kind string, visit func(name string, s *table)) {
	t.declareCollection(kind, visit)
	for _, name := range t.names() {
		if _, ok := t.m[name].(map[string]any); !ok {
			t.get(name)
			t.fail(name, "a %s is a table of its own: write it as [%s]", kind, toml.Key(append(slices.Clone(t.path), name)))
			continue
		}
		s := t.sub(name)
		if strings.TrimSpace(name) == "" {
			s.fail("", "a %s has a name", kind)
			continue
		}
		visit(name, s)
		s.done()
	}
}

// done reports the keys that nobody asked for.
func (t *table) done() {
	for _, key := range slices.Sorted(maps.Keys(t.m)) {
		if slices.Contains(t.known, key) {
			continue
		}
		what := "unknown key"
		if _, ok := t.m[key].(map[string]any); ok {
			what = "unknown table"
		}
		t.fail(key, "%s%s", what, didYouMean(key, t.known))
	}
}

// wrong reports a value of the wrong type, with the mend where it is plain.
func (t *table) wrong(key string, v any, want string) {
	switch x := v.(type) {
	case string:
		if want == "true or false" && (x == "yes" || x == "no" || x == "true" || x == "false") {
			t.fail(key, "%q is text: write %t, without quotes", x, x == "yes" || x == "true")
			return
		}
		t.fail(key, "%q is text: it has to be %s", x, want)
	case bool, int64, float64:
		t.fail(key, "%v is not %s", x, want)
	case []any, []map[string]any:
		t.fail(key, "a list does not fit here: it has to be %s", want)
	case map[string]any:
		t.fail(key, "a table does not fit here: it has to be %s", want)
	default:
		t.fail(key, "a date does not fit here: it has to be %s", want)
	}
}

func (t *table) str(key string, dst *string) bool {
	t.declare(Key{Name: key, Kind: Text}, *dst)
	v, ok := t.get(key)
	if !ok {
		return false
	}
	s, ok := v.(string)
	if !ok {
		t.wrong(key, v, "text in quotes")
		return false
	}
	if strings.ContainsRune(s, 0) {
		t.fail(key, "holds a NUL octet")
		return false
	}
	*dst = s
	return true
}

// secret is str for what must not be shown, not even in a complaint about its type.
func (t *table) secret(key string, dst *string) bool {
	t.declare(Key{Name: key, Kind: Secret}, *dst)
	v, ok := t.get(key)
	if !ok {
		return false
	}
	s, ok := v.(string)
	if !ok {
		t.fail(key, "a secret is text in quotes")
		return false
	}
	if strings.ContainsRune(s, 0) {
		t.fail(key, "holds a NUL octet")
		return false
	}
	if s != "" {
		if line := t.line(key); t.r.secretKey == "" || line < t.r.secretLine {
			t.r.secretKey, t.r.secretLine = logring.Escape(toml.Key(append(slices.Clone(t.path), key)).String()), line
		}
	}
	*dst = s
	return true
}

func (t *table) boolean(key string, dst *bool) bool {
	t.declare(Key{Name: key, Kind: Bool}, *dst)
	v, ok := t.get(key)
	if !ok {
		return false
	}
	b, ok := v.(bool)
	if !ok {
		t.wrong(key, v, "true or false")
		return false
	}
	*dst = b
	return true
}

func (t *table) integer(key string, lo, hi int64, dst *int) bool {
	t.declare(Key{Name: key, Kind: Number}, int64(*dst))
	v, ok := t.get(key)
	if !ok {
		return false
	}
	n, ok := v.(int64)
	if !ok {
		t.wrong(key, v, "a number")
		return false
	}
	return t.inRange(key, n, lo, hi, dst)
}

func (t *table) inRange(key string, n, lo, hi int64, dst *int) bool {
	if n < lo || n > hi {
		t.fail(key, "%d is not within %d..%d", n, lo, hi)
		return false
	}
	*dst = int(n)
	return true
}

// integerOr is a number, or a word that stands for zero ("unlimited", "disabled").
func (t *table) integerOr(key, word string, lo, hi int64, dst *int) bool {
	if *dst == 0 {
		t.declare(Key{Name: key, Kind: Number, Words: []string{word}}, word)
	} else {
		t.declare(Key{Name: key, Kind: Number, Words: []string{word}}, int64(*dst))
	}
	v, ok := t.get(key)
	if !ok {
		return false
	}
	switch x := v.(type) {
	case int64:
		return t.inRange(key, x, lo, hi, dst)
	case string:
		if x == word {
			*dst = 0
			return true
		}
		if n, ok := decimal(x); ok {
			return t.inRange(key, n, lo, hi, dst)
		}
		t.fail(key, "%q is neither %q nor a number", x, word)
	default:
		t.wrong(key, v, fmt.Sprintf("%q or a number", word))
	}
	return false
}

func decimal(s string) (int64, bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func (t *table) duration(key string, lo, hi time.Duration, dst *time.Duration) bool {
	t.declare(Key{Name: key, Kind: Duration}, FormatDuration(*dst))
	v, ok := t.get(key)
	if !ok {
		return false
	}
	switch x := v.(type) {
	case string:
		d, err := ParseDuration(x)
		if err != nil {
			t.fail(key, "%s", err)
			return false
		}
		if d < lo || d > hi {
			t.fail(key, "%s is not within %s..%s", x, FormatDuration(lo), FormatDuration(hi))
			return false
		}
		*dst = d
		return true
	case int64:
		t.fail(key, "%d has no unit: write \"%ds\"", x, x)
	default:
		t.wrong(key, v, `a time such as "30s" or "1d"`)
	}
	return false
}

// choice is one of a few words; where both "yes" and "no" are among them, TOML's booleans will do too.
func choice[T comparable](t *table, key string, dst *T, words []string, values ...T) bool {
	t.declare(Key{Name: key, Kind: Choice, Words: words}, wordOf(*dst, words, values))
	v, ok := t.get(key)
	if !ok {
		return false
	}
	s, ok := v.(string)
	if b, isBool := v.(bool); isBool && slices.Contains(words, "yes") {
		s, ok = "no", true
		if b {
			s = "yes"
		}
	}
	if n, isInt := v.(int64); isInt {
		s, ok = fmt.Sprint(n), true
	}
	if !ok {
		t.wrong(key, v, "one of "+strings.Join(words, ", "))
		return false
	}
	i := slices.Index(words, s)
	if i < 0 {
		t.fail(key, "%q is not one of %s", s, strings.Join(words, ", "))
		return false
	}
	*dst = values[i]
	return true
}

// list visits the elements of a list of strings and reports what visit complains about at the element's line. A single
// string passes for a list of one. It returns false when the key is absent or something was wrong.
func (t *table) list(key string, visit func(s string) error) bool {
	t.declare(Key{Name: key, Kind: List}, []string(nil))
	v, ok := t.get(key)
	if !ok {
		return false
	}
	var elems []any
	switch x := v.(type) {
	case []any:
		elems = x
	case string:
		elems = []any{x}
	default:
		t.wrong(key, v, "a list of texts")
		return false
	}
	for i, e := range elems {
		s, isText := e.(string)
		if !isText {
			t.failAt(key, i, "element %d is not text in quotes", i+1)
			ok = false
			continue
		}
		if err := visit(s); err != nil {
			t.failAt(key, i, "%s", err)
			ok = false
		}
	}
	return ok
}

// algorithms is a list of names out of a table of them, each once, at least one.
func algorithms[T comparable](t *table, key string, dst *[]T, parse func(string) (T, bool), names []string) bool {
	t.declare(Key{Name: key, Kind: List, Words: names}, namesOf(*dst, parse, names))
	if !t.has(key) {
		t.get(key)
		return false
	}
	var out []T
	ok := t.list(key, func(s string) error {
		v, found := parse(s)
		if !found {
			return fmt.Errorf("%q is not one of %s", s, strings.Join(names, ", "))
		}
		if slices.Contains(out, v) {
			return fmt.Errorf("%q is named twice", s)
		}
		out = append(out, v)
		t.weak(key, s)
		return nil
	})
	if ok && len(out) == 0 {
		t.fail(key, "nothing is allowed: name at least one of %s", strings.Join(names, ", "))
		return false
	}
	if ok {
		*dst = out
	}
	return ok
}

// weakWhy says of each weak choice what is wrong with it. It works when named, and is in no default.
var weakWhy = map[string]string{
	"3des":     "64-bit blocks collide after some gigabytes (CVE-2016-2183)",
	"md5":      "its collisions are a matter of seconds",
	"modp1024": "states are believed to break it (CVE-2015-4000)",
	"pap":      "the password crosses the link in the clear",
	"chap":     "a recorded login yields the password to guessing",
	"mschap1":  "a recorded login yields the password, by way of single DES",
}

func (t *table) weak(key, name string) {
	if why, ok := weakWhy[name]; ok {
		t.warn(key, "%s is weak: %s", name, why)
	}
}

func (t *table) addrs(key string, dst *[]netip.Addr, max int) bool {
	t.declare(Key{Name: key, Kind: List}, texts(*dst))
	if !t.has(key) {
		t.get(key)
		return false
	}
	var out []netip.Addr
	ok := t.list(key, func(s string) error {
		a, err := parseAddr(s)
		if err != nil {
			return err
		}
		if !a.Is4() {
			return fmt.Errorf("%s is not an IPv4 address, and IPCP carries no other", s)
		}
		out = append(out, a)
		return nil
	})
	if ok && len(out) > max {
		t.fail(key, "PPP carries %d of them, not %d", max, len(out))
		return false
	}
	if ok {
		*dst = out
	}
	return ok
}

func (t *table) prefixes(key string, dst *[]netip.Prefix) bool {
	t.declare(Key{Name: key, Kind: List}, texts(*dst))
	if !t.has(key) {
		t.get(key)
		return false
	}
	var out []netip.Prefix
	ok := t.list(key, func(s string) error {
		p, err := parsePrefix(s)
		if err == nil {
			out = append(out, p)
		}
		return err
	})
	if ok {
		*dst = out
	}
	return ok
}

// path is the absolute name of a file or script, or "".
func (t *table) file(key string, dst *string) bool {
	var s string
	if !t.str(key, &s) {
		return false
	}
	if s != "" && !strings.HasPrefix(s, "/") {
		t.fail(key, "%q is not an absolute path", s)
		return false
	}
	*dst = s
	return true
}

// ifname is a Linux interface name, or "" (IFNAMSIZ is 16 with the final NUL).
func (t *table) ifname(key string, dst *string) bool {
	var s string
	if !t.str(key, &s) {
		return false
	}
	if err := checkIfname(s); s != "" && err != nil {
		t.fail(key, "%s", err)
		return false
	}
	*dst = s
	return true
}

func checkIfname(s string) error {
	if s == "" || len(s) > 15 {
		return fmt.Errorf("%q cannot name an interface: 1 to 15 letters and digits", s)
	}
	if s == "." || s == ".." || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == '/' || c == ':' || c >= 0x7f || c == '%' }) {
		return fmt.Errorf("%q cannot name an interface: no blanks, slashes, colons, percent signs", s)
	}
	return nil
}

var errNoAddress = errors.New("not an address")

// forever is the longest time that protocols count in seconds in 32 bits.
const forever = math.MaxUint32 * time.Second
