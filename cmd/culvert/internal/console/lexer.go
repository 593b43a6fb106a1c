package console

import (
	"strings"
	"unicode/utf8"
)

// token is a word, a condition (name, operator, value) or a bracket.
type token struct {
	kind      tokenKind
	text      string // the word, or the name of a condition
	op, value string // of a condition: = != ~ !~ < >
	quoted    bool   // part of the word was in quotes, so it is no keyword
}

type tokenKind uint8

const (
	tokWord tokenKind = iota
	tokCond
	tokOpen  // [
	tokClose // ]
)

// lex splits a command line. Words are separated by blanks; double quotes keep blanks, with RouterOS's escapes \" \\ \n \r
// \t \_ (a blank) \$ \? and \XX (two hexadecimal digits).
func lex(line string) ([]token, error) {
	if !utf8.ValidString(line) {
		return nil, usagef("the command is not UTF-8")
	}
	var toks []token
	for i := 0; i < len(line); {
		switch c := line[i]; c {
		case ' ', '\t', '\r', '\n', ';':
			i++
			continue
		case '[':
			toks = append(toks, token{kind: tokOpen, text: "["})
			i++
			continue
		case ']':
			toks = append(toks, token{kind: tokClose, text: "]"})
			i++
			continue
		}
		var t token
		var b strings.Builder
		for i < len(line) && !strings.ContainsRune(" \t\r\n;[]", rune(line[i])) {
			c := line[i]
			if c == '"' {
				s, n, err := unquote(line[i:])
				if err != nil {
					return nil, err
				}
				b.WriteString(s)
				t.quoted = true
				i += n
				continue
			}
			// The first operator outside of quotes divides a condition.
			if op := operator(line[i:]); op != "" && t.kind == tokWord && b.Len() > 0 && !t.quoted {
				t.kind, t.text, t.op = tokCond, b.String(), op
				b.Reset()
				i += len(op)
				continue
			}
			b.WriteByte(c)
			i++
		}
		if t.kind == tokCond {
			t.value = b.String()
		} else {
			t.text = b.String()
		}
		toks = append(toks, t)
	}
	return toks, nil
}

func operator(s string) string {
	for _, op := range []string{"!=", "!~", "=", "~", "<", ">"} {
		if strings.HasPrefix(s, op) {
			return op
		}
	}
	return ""
}

// unquote reads a quoted text at the start of s and returns how many octets it took.
func unquote(s string) (string, int, error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			out := b.String()
			if !utf8.ValidString(out) {
				return "", 0, usagef("%s is not UTF-8", quote(out))
			}
			return out, i + 1, nil
		case '\\':
			i++
			if i == len(s) {
				return "", 0, usagef("a backslash stands at the end")
			}
			switch c := s[i]; c {
			case '"', '\\', '$', '?':
				b.WriteByte(c)
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case '_':
				b.WriteByte(' ')
			default:
				hi, ok1 := hexDigit(c)
				if i+1 >= len(s) || !ok1 {
					return "", 0, usagef("unknown escape %s", quote(s[i-1:i+1]))
				}
				lo, ok2 := hexDigit(s[i+1])
				if !ok2 {
					return "", 0, usagef("unknown escape %s", quote(s[i-1:i+1]))
				}
				b.WriteByte(hi<<4 | lo)
				i++
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, usagef("a quote is not closed")
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}
