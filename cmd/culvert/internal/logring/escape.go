package logring

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// AppendEscaped writes s with everything that is not printable escaped as in Go: no control character, no direction mark
// and no broken UTF-8 gets through to a terminal.
func AppendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= ' ' && c != 0x7f {
				b = append(b, c)
				i++
				continue
			}
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r != utf8.RuneError && strconv.IsPrint(r) {
			b = append(b, s[i:i+n]...)
		} else {
			q := strconv.Quote(s[i : i+n])
			b = append(b, q[1:len(q)-1]...)
		}
		i += n
	}
	return b
}

// Escape is AppendEscaped for a string.
func Escape(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return string(AppendEscaped(nil, s))
		}
	}
	return s
}

// appendValue writes a value so that it cannot be taken for another key: bare where that is plain, quoted otherwise.
func appendValue(b []byte, v slog.Value) []byte {
	var s string
	switch v.Kind() {
	case slog.KindString:
		s = v.String()
	case slog.KindTime:
		return v.Time().AppendFormat(b, time.RFC3339)
	case slog.KindAny:
		// A value's own String or Error may panic on nil, and the log is where that hurts most.
		s = func() (s string) {
			defer func() {
				if p := recover(); p != nil {
					s = fmt.Sprintf("!%T does not print", v.Any())
				}
			}()
			switch x := v.Any().(type) {
			case error:
				return x.Error()
			case []byte:
				if len(x) > maxValue {
					x = x[:maxValue]
				}
				return fmt.Sprintf("%x", x)
			default:
				return fmt.Sprint(x)
			}
		}()
	default:
		s = v.String()
	}
	if len(s) > maxValue {
		s = string(trimRunes([]byte(s[:maxValue]))) + "..."
	}
	if bare(s) {
		return append(b, s...)
	}
	return strconv.AppendQuote(b, s)
}

func bare(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == '"' || r == '=' || r == '\\' || r == utf8.RuneError || !strconv.IsPrint(r)
	})
}

// trimRunes drops a rune that was cut at the end.
func trimRunes(b []byte) []byte {
	for i := 1; i <= utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}
