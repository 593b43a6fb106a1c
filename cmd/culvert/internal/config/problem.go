package config

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Severity tells what stops the daemon from what does not.
type Severity uint8

const (
	Fatal       Severity = iota // the configuration is refused
	Warning                     // probably not meant, or weak
	Unsupported                 // documented, but this version does not do it yet; harmless to go on without
)

func (s Severity) String() string {
	switch s {
	case Fatal:
		return "error"
	case Warning:
		return "warning"
	case Unsupported:
		return "unsupported"
	}
	return fmt.Sprintf("severity %d", uint8(s))
}

// Problem is one thing that is wrong: where, what, and how to mend it.
type Problem struct {
	File     string
	Line     int    // from 1; 0 when it concerns the whole file
	Key      string // dotted; empty when it concerns the whole file
	Text     string
	Severity Severity
}

// String is `culvert.toml:12: l2tp.server.use-ipsec: "maybe" is not one of no, yes, required`.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		b.WriteString(":" + strconv.Itoa(p.Line))
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	if p.Severity == Warning {
		b.WriteString("warning: ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Error is a refused configuration: all that is wrong with it, warnings included, in the order of the file.
type Error struct{ Problems []Problem }

// Error lists what is fatal, one problem a line.
func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems {
		if p.Severity == Fatal {
			lines = append(lines, p.String())
		}
	}
	return strings.Join(lines, "\n")
}

// result sorts what was found into an error or warnings.
func (r *reader) result(c *Config) (*Config, error) {
	sort.SliceStable(r.problems, func(i, j int) bool {
		a, b := r.problems[i], r.problems[j]
		return a.Line < b.Line
	})
	r.problems = slices.Compact(r.problems) // a table of the wrong type is met by everyone who wants it
	for _, p := range r.problems {
		if p.Severity == Fatal {
			return nil, &Error{Problems: r.problems}
		}
	}
	c.Warnings = r.problems
	return c, nil
}

// nearest finds the name that was probably meant, or "".
func nearest(name string, names []string) string {
	best, bestDist := "", len(name)/3+2
	for _, n := range names {
		if d := distance(name, n); d < bestDist {
			best, bestDist = n, d
		}
	}
	return best
}

// didYouMean is ": did you mean "x"?" where a name is near, and otherwise nothing.
func didYouMean(name string, names []string) string {
	if n := nearest(name, names); n != "" {
		return fmt.Sprintf(": did you mean %q?", n)
	}
	return ""
}

// distance is Levenshtein's, over octets: keys are ASCII. Long names are not worth comparing.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 1 << 16
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
