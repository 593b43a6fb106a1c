package console

import (
	"strings"
	"unicode/utf8"
)

// token is a word, a setting or condition (name, operator, value) or a bracket.
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

// statement is one command of a script, and the line that it begins on, from 1.
type statement struct {
	line int
	toks []token
}

// prompt finds one that was copied along with the command behind it, as documents show it: [admin@name] /ip ipsec>. What
// stands before the > is the menu that the command belongs to. The size is 0 where there is none.
func prompt(text string) (menu string, size int) {
	if !strings.HasPrefix(text, "[") {
		return "", 0
	}
	user, rest, ok := strings.Cut(text, "@")
	if !ok || strings.ContainsAny(user, "] \t\r\n\f") {
		return "", 0
	}
	name, rest, ok := strings.Cut(rest, "]")
	if !ok || strings.Contains(name, "\n") {
		return "", 0
	}
	menu, rest, ok = strings.Cut(strings.TrimLeft(rest, " \t"), ">")
	if !ok {
		return "", 0
	}
	words := strings.TrimPrefix(menu, "/")
	for i, c := range []byte(words) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && strings.IndexByte(" /-", c) >= 0) {
			return "", 0
		}
	}
	return strings.TrimSpace(words), len(text) - len(rest)
}

// lex splits a script into commands, at line ends and semicolons, and those into words, at blanks. Double quotes keep
// blanks, with RouterOS's escapes \" \\ \n \r \t \_ (a blank) \$ \? and \XX (two hexadecimal digits). A backslash at the
// end of a line joins the next one to it; what begins with # is a comment.
func lex(text string) ([]statement, error) {
	if !utf8.ValidString(text) {
		return nil, usagef("the command is not UTF-8")
	}
	var out []statement
	var toks []token
	line, begun, brackets := 1, 1, 0
	end := func() {
		if len(toks) > 0 {
			out = append(out, statement{begun, toks})
		}
		toks, brackets = nil, 0
	}
	for i := 0; i < len(text); {
		if len(toks) == 0 {
			begun = line
			if text[i] == '#' {
				for i < len(text) && text[i] != '\n' {
					i++
				}
				continue
			}
			if menu, size := prompt(text[i:]); size > 0 {
				if menu != "" {
					for w := range strings.SplitSeq("/"+menu, " ") {
						if w != "" {
							toks = append(toks, token{text: w})
						}
					}
				}
				i += size
				continue
			}
		}
		switch c := text[i]; {
		case c == '\n':
			if brackets == 0 {
				end()
			}
			line++
			i++
			continue
		case c == ';':
			end()
			i++
			continue
		case c == ' ' || c == '\t' || c == '\r':
			i++
			continue
		case joined(text[i:]) > 0:
			line++
			i += joined(text[i:])
			continue
		case c == '[':
			toks = append(toks, token{kind: tokOpen, text: "["})
			brackets++
			i++
			continue
		case c == ']':
			toks = append(toks, token{kind: tokClose, text: "]"})
			brackets = max(0, brackets-1)
			i++
			continue
		}
		var t token
		var b strings.Builder
		for i < len(text) && !strings.ContainsRune(" \t\r\n;[]", rune(text[i])) {
			c := text[i]
			if c == '"' {
				s, n, err := unquote(text[i:])
				if err != nil {
					return nil, err
				}
				line += strings.Count(text[i:i+n], "\n")
				b.WriteString(s)
				t.quoted = true
				i += n
				continue
			}
			if n := joined(text[i:]); n > 0 {
				line++
				i += n
				break
			}
			// The first operator outside of quotes divides a condition.
			if op := operator(text[i:]); op != "" && t.kind == tokWord && b.Len() > 0 && !t.quoted {
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
		// A terminal shows `\...` in front of a line that goes on; copied along, it is nothing.
		if t.kind == tokWord && !t.quoted && (t.text == `\` || t.text == `\...` || t.text == "...") {
			continue
		}
		toks = append(toks, t)
	}
	end()
	return out, nil
}

// joined is how long the backslash is that joins two lines, with the end of line; 0 where there is none.
func joined(s string) int {
	switch {
	case strings.HasPrefix(s, "\\\n"):
		return 2
	case strings.HasPrefix(s, "\\\r\n"):
		return 3
	}
	return 0
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
			// `export` folds long texts: the line end and the blanks of the next line are not part of them.
			if n := joined(s[i-1:]); n > 0 {
				i += n - 1
				for i < len(s) && (s[i] == ' ' || s[i] == '\t') {
					i++
				}
				i--
				continue
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

// word writes a value so that lex reads it back: bare where that is plain.
func word(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:/,+@*-") == "" {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\' || c == '$' || c == '?':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < ' ' || c >= 0x7f:
			const digits = "0123456789ABCDEF"
			b.Write([]byte{'\\', digits[c>>4], digits[c&15]})
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
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
