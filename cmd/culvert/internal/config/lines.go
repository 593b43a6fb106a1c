package config

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// The TOML decoder keeps the positions of keys to itself, so this walks the source once more. It runs on text that the
// decoder has accepted, and on other text it only promises to end: a wrong line is the worst it can give.

// lineKey is how a dotted key is looked up; element i of an array is its key with the index appended.
func lineKey(path []string) string { return strings.Join(path, "\x00") }

func elementKey(path []string, i int) string { return lineKey(path) + "\x00\x00" + strconv.Itoa(i) }

const maxDepth = 32 // of nested arrays and inline tables

type lineScanner struct {
	src   string
	pos   int
	line  int
	lines map[string]int
}

// scanLines maps every key, table and array element of a TOML document to its line, from 1.
func scanLines(src string) map[string]int {
	s := &lineScanner{src: src, line: 1, lines: map[string]int{}}
	var prefix []string
	for {
		s.skipBlank(true)
		if s.pos >= len(s.src) {
			return s.lines
		}
		if s.src[s.pos] == '[' {
			s.pos++
			if s.peek() == '[' {
				s.pos++
			}
			line := s.line
			prefix = s.key()
			s.note(prefix, line)
			s.skipLine()
			continue
		}
		s.pair(prefix, 0)
		s.skipLine()
	}
}

// note records a key and, where they were never written, its parents.
func (s *lineScanner) note(path []string, line int) {
	for i := 1; i <= len(path); i++ {
		k := lineKey(path[:i])
		if _, ok := s.lines[k]; !ok {
			s.lines[k] = line
		}
	}
}

func (s *lineScanner) peek() byte {
	if s.pos < len(s.src) {
		return s.src[s.pos]
	}
	return 0
}

// step passes one octet.
func (s *lineScanner) step() {
	if s.pos < len(s.src) {
		if s.src[s.pos] == '\n' {
			s.line++
		}
		s.pos++
	}
}

// skipBlank passes blanks, and line ends and comments where newlines is set.
func (s *lineScanner) skipBlank(newlines bool) {
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; {
		case c == ' ' || c == '\t' || c == '\r':
			s.pos++
		case newlines && c == '\n':
			s.step()
		case newlines && c == '#':
			for s.pos < len(s.src) && s.src[s.pos] != '\n' {
				s.pos++
			}
		default:
			return
		}
	}
}

func (s *lineScanner) skipLine() {
	for s.pos < len(s.src) && s.src[s.pos] != '\n' {
		s.pos++
	}
	s.step()
}

// key reads `a."b c".d` and leaves pos at what follows.
func (s *lineScanner) key() []string {
	var path []string
	for {
		s.skipBlank(false)
		switch c := s.peek(); c {
		case '"', '\'':
			path = append(path, s.quoted())
		default:
			start := s.pos
			for s.pos < len(s.src) && bareKey(s.src[s.pos]) {
				s.pos++
			}
			if start == s.pos {
				return path
			}
			path = append(path, s.src[start:s.pos])
		}
		s.skipBlank(false)
		if s.peek() != '.' {
			return path
		}
		s.pos++
	}
}

func bareKey(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c >= utf8.RuneSelf
}

// quoted reads a one-line string of either kind.
func (s *lineScanner) quoted() string {
	quote, start := s.src[s.pos], s.pos
	s.pos++
	for s.pos < len(s.src) && s.src[s.pos] != quote && s.src[s.pos] != '\n' {
		if s.src[s.pos] == '\\' && quote == '"' && s.pos+1 < len(s.src) && s.src[s.pos+1] != '\n' {
			s.pos++
		}
		s.pos++
	}
	body := s.src[start+1 : min(s.pos, len(s.src))]
	if s.peek() == quote {
		s.pos++
	}
	if quote == '"' && strings.Contains(body, `\`) {
		if u, err := strconv.Unquote(`"` + body + `"`); err == nil {
			return u
		}
	}
	return body
}

// pair reads `key = value` and records it.
func (s *lineScanner) pair(prefix []string, depth int) {
	line := s.line
	path := append(append([]string(nil), prefix...), s.key()...)
	if len(path) > len(prefix) {
		s.note(path, line)
	}
	s.skipBlank(false)
	if s.peek() != '=' {
		return
	}
	s.pos++
	s.value(path, depth)
}

// value passes one value, recording the elements of arrays and the keys of inline tables.
func (s *lineScanner) value(path []string, depth int) {
	s.skipBlank(false)
	if depth > maxDepth {
		s.skipLine()
		return
	}
	switch rest := s.src[min(s.pos, len(s.src)):]; {
	case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, `'''`):
		s.multiline(rest[:3])
	case strings.HasPrefix(rest, `"`), strings.HasPrefix(rest, `'`):
		s.quoted()
	case strings.HasPrefix(rest, "["):
		s.pos++
		for i := 0; ; i++ {
			s.skipBlank(true)
			if s.pos >= len(s.src) {
				return
			}
			if s.peek() == ']' {
				s.pos++
				return
			}
			s.lines[elementKey(path, i)] = s.line
			before := s.pos
			s.value(path, depth+1)
			s.skipBlank(true)
			if s.peek() == ',' || s.pos == before {
				s.step()
			}
		}
	case strings.HasPrefix(rest, "{"):
		s.pos++
		for {
			s.skipBlank(true)
			if s.pos >= len(s.src) {
				return
			}
			if s.peek() == '}' {
				s.pos++
				return
			}
			before := s.pos
			s.pair(path, depth+1)
			s.skipBlank(true)
			if s.peek() == ',' || s.pos == before {
				s.step()
			}
		}
	default:
		for s.pos < len(s.src) && !strings.ContainsRune(",]}#\n", rune(s.src[s.pos])) {
			s.pos++
		}
	}
}

// multiline passes a string in triple quotes; up to two more quotes may stand before the closing three.
func (s *lineScanner) multiline(quotes string) {
	s.pos += 3
	for s.pos < len(s.src) {
		if strings.HasPrefix(s.src[s.pos:], quotes) {
			s.pos += 3
			for range 2 {
				if s.peek() == quotes[0] {
					s.pos++
				}
			}
			return
		}
		if s.src[s.pos] == '\\' && quotes == `"""` {
			s.step()
		}
		s.step()
	}
}
