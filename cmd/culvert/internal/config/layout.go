package config

import (
	"slices"
	"strings"
)

// span is a part of the text in octets, end excluded.
type span struct{ start, end int }

// statement is one `key = value` or `[table]` of a TOML document, and where it stands.
type statement struct {
	path   []string // of the key or table, complete
	header bool
	array  bool // [[table]]
	table  int  // the header that a pair stands under, as an index; -1 at the top
	dotted bool // the key has several parts
	name   span // of what is within a header's brackets
	value  span // of a pair's value
	inside bool // the value is an inline table
	noted  bool // the value has comments inside
	lines  span // all of its lines, the last end of line included
}

// layOut finds the statements of a document that the decoder has accepted.
func layOut(src string) []statement {
	s := &lineScanner{src: src, line: 1, lines: map[string]int{}}
	var out []statement
	header := -1
	var prefix []string
	for {
		s.skipBlank(true)
		if s.pos >= len(src) {
			return out
		}
		st := statement{table: header, lines: span{start: strings.LastIndexByte(src[:s.pos], '\n') + 1}}
		if src[s.pos] == '[' {
			s.pos++
			if st.array = s.peek() == '['; st.array {
				s.pos++
			}
			st.header = true
			st.name.start = s.pos
			prefix = s.key()
			st.name.end = s.pos
			st.path = prefix
			header = len(out)
		} else {
			before := s.pos
			key := s.key()
			s.skipBlank(false)
			if s.peek() == '=' {
				s.pos++
			}
			s.skipBlank(false)
			st.path = slices.Concat(prefix, key)
			st.dotted = len(key) > 1
			st.value.start = s.pos
			st.inside = s.peek() == '{'
			st.noted = s.passValue()
			st.value.end = s.pos
			for st.value.end > st.value.start && strings.IndexByte(" \t\r", src[st.value.end-1]) >= 0 {
				st.value.end--
			}
			if s.pos == before {
				s.skipLine() // not TOML: only an end is promised
			}
		}
		if s.pos < len(src) && src[s.pos] != '\n' {
			s.skipLine()
		} else {
			s.step()
		}
		st.lines.end = s.pos
		out = append(out, st)
	}
}

// passValue moves behind a value and says whether there were comments inside.
func (s *lineScanner) passValue() (comments bool) {
	start := s.pos
	s.value(nil, 0)
	switch c := s.src[start:]; {
	case strings.HasPrefix(c, "["):
		return hasComment(s.src[start:s.pos])
	default:
		return false
	}
}

// hasComment looks for a # outside of quotes in an array.
func hasComment(array string) bool {
	s := &lineScanner{src: array, line: 1, lines: map[string]int{}}
	for s.pos < len(array) {
		switch rest := array[s.pos:]; {
		case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, `'''`):
			s.multiline(rest[:3])
		case rest[0] == '"' || rest[0] == '\'':
			s.quoted()
		case rest[0] == '#':
			return true
		default:
			s.pos++
		}
	}
	return false
}
