package console

import (
	"slices"
	"strconv"
	"strings"
)

// args is what followed the command.
type args struct {
	words []token   // detail, follow, names, numbers
	sets  []setting // name=value, and !name
	find  expr      // of where or [find ...]; nil where there was none
	found bool      // there was a [find ...] or where
}

// setting is name=value, or !name, which takes a value away.
type setting struct {
	key, value string
	unset      bool
}

// has takes a bare word out of the arguments and says whether it was there.
func (a *args) has(word string) bool {
	for i, w := range a.words {
		if !w.quoted && w.text == word {
			a.words = append(a.words[:i:i], a.words[i+1:]...)
			return true
		}
	}
	return false
}

// take takes a setting out of the arguments.
func (a *args) take(key string) (string, bool) {
	for i, s := range a.sets {
		if s.key == key && !s.unset {
			a.sets = slices.Delete(slices.Clone(a.sets), i, i+1)
			return s.value, true
		}
	}
	return "", false
}

// rest complains about what no one asked for.
func (a *args) rest(allowed ...string) error {
	if len(a.sets) > 0 {
		s := a.sets[0]
		if s.unset {
			return usagef("%q is not expected here%s", "!"+s.key, suggest(s.key, allowed))
		}
		if slices.Contains(allowed, "where") {
			return usagef("%q: conditions follow the word where", s.key+"="+s.value)
		}
		return usagef("%q is not expected here%s", s.key+"="+s.value, suggest(s.key, allowed))
	}
	if len(a.words) == 0 {
		return nil
	}
	w := a.words[0].text
	return usagef("%q is not expected here%s", w, suggest(w, allowed))
}

func parseArgs(toks []token) (args, error) {
	var a args
	for i := 0; i < len(toks); i++ {
		t := toks[i]
		switch {
		case t.kind == tokWord && !t.quoted && t.text == "where":
			e, n, err := parseWhere(toks[i+1:], false)
			if err != nil {
				return a, err
			}
			a.find, a.found = both(a.find, e), true
			i += n
		case t.kind == tokOpen:
			if i+1 >= len(toks) || toks[i+1].text != "find" {
				return a, usagef("only [find ...] is understood in brackets")
			}
			e, n, err := parseWhere(toks[i+2:], true)
			if err != nil {
				return a, err
			}
			if i+2+n >= len(toks) {
				return a, usagef("the bracket of [find ...] is not closed")
			}
			a.find, a.found = both(a.find, e), true
			i += n + 2
		case t.kind == tokWord && !t.quoted && len(t.text) > 1 && t.text[0] == '!':
			a.sets = append(a.sets, setting{key: t.text[1:], unset: true})
		case t.kind == tokWord:
			a.words = append(a.words, t)
		case t.kind == tokCond && t.op == "=":
			a.sets = append(a.sets, setting{key: t.text, value: t.value})
		case t.kind == tokCond:
			return a, usagef("%q: conditions follow the word where", t.text+t.op+t.value)
		default:
			return a, usagef("unexpected %q", t.text)
		}
	}
	return a, nil
}

// numberList reads "0" and "0,2"; a quoted word is always a name.
func numberList(w token) ([]int, bool) {
	if w.quoted {
		return nil, false
	}
	var out []int
	for _, s := range strings.Split(w.text, ",") {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return nil, false
		}
		out = append(out, int(n))
	}
	return out, true
}
