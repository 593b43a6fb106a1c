package console

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// pattern is a regular expression, of POSIX's extended kind with the \d, \s and \w that everybody knows, compiled for a
// machine that is in many states at once: a match takes no longer than the states times the characters. Package regexp
// would be a fortieth of the whole program.
type pattern struct {
	states []state
	first  int
}

// state waits for a character of set, then goes on; a fork goes two ways without one.
type state struct {
	kind      stateKind
	set       charset
	next, alt int
}

type stateKind uint8

const (
	stateMatch stateKind = iota
	stateChar
	stateFork
	stateBegin // ^
	stateEnd   // $
)

// charset is characters from lo to hi, pair by pair, or all but those.
type charset struct {
	pairs []rune
	not   bool
}

func (s charset) has(c rune) bool {
	for i := 0; i+1 < len(s.pairs); i += 2 {
		if s.pairs[i] <= c && c <= s.pairs[i+1] {
			return !s.not
		}
	}
	return s.not
}

const (
	maxPattern = 4096 // states of a pattern: a{9}{9}{9} is many
	maxNested  = 100  // parentheses within parentheses
	maxRepeat  = 1000
)

var errPatternSize = errors.New("it is too large")

// node is a part of a pattern's text: a state, a sequence, alternatives, or a repetition (at most -1: without end).
type node struct {
	kind     nodeKind
	state    state
	parts    []node
	min, max int
}

type nodeKind uint8

const (
	nodeState nodeKind = iota
	nodeSequence
	nodeEither
	nodeRepeat
)

func compilePattern(text string) (*pattern, error) {
	p := patternParser{rest: text}
	n, err := p.either(0)
	if err != nil {
		return nil, err
	}
	if p.rest != "" {
		return nil, errors.New("a parenthesis is closed that was not opened")
	}
	re := &pattern{states: []state{{kind: stateMatch}}}
	if re.first = re.add(n, 0); len(re.states) >= maxPattern {
		return nil, errPatternSize
	}
	return re, nil
}

// add appends the states of n, after which the machine is in next, and returns the one to begin with.
func (re *pattern) add(n node, next int) int {
	if len(re.states) >= maxPattern {
		return 0
	}
	switch n.kind {
	case nodeState:
		n.state.next = next
		return re.push(n.state)
	case nodeSequence:
		for i := len(n.parts) - 1; i >= 0; i-- {
			next = re.add(n.parts[i], next)
		}
		return next
	case nodeEither:
		first := re.add(n.parts[0], next)
		for _, part := range n.parts[1:] {
			first = re.push(state{kind: stateFork, next: first, alt: re.add(part, next)})
		}
		return first
	}
	body, after := n.parts[0], next
	if n.max < 0 {
		next = re.push(state{kind: stateFork, alt: after})
		again := re.add(body, next)
		re.states[next].next = again
	}
	for i := n.min; i < n.max && len(re.states) < maxPattern; i++ {
		next = re.push(state{kind: stateFork, next: re.add(body, next), alt: after})
	}
	for i := 0; i < n.min && len(re.states) < maxPattern; i++ {
		next = re.add(body, next)
	}
	return next
}

func (re *pattern) push(s state) int {
	re.states = append(re.states, s)
	return len(re.states) - 1
}

// match says whether the pattern is anywhere in text.
func (re *pattern) match(text string) bool {
	now, then := stateSet{since: make([]int, len(re.states))}, stateSet{since: make([]int, len(re.states))}
	for at := 0; ; {
		if now.enter(re, re.first, at, len(text)) {
			return true
		}
		if at == len(text) {
			return false
		}
		c, size := utf8.DecodeRuneInString(text[at:])
		at += size
		then.list = then.list[:0]
		for _, i := range now.list {
			if s := &re.states[i]; s.set.has(c) && then.enter(re, s.next, at, len(text)) {
				return true
			}
		}
		now, then = then, now
	}
}

// stateSet is the states that wait for the character at a place.
type stateSet struct {
	list  []int
	since []int // by state: the place, plus one, at which it was last entered
}

// enter goes to state i and wherever that leads without a character. It says whether that is the match.
func (set *stateSet) enter(re *pattern, i, at, end int) bool {
	for set.since[i] != at+1 {
		set.since[i] = at + 1
		s := &re.states[i]
		switch s.kind {
		case stateMatch:
			return true
		case stateChar:
			set.list = append(set.list, i)
			return false
		case stateFork:
			if set.enter(re, s.next, at, end) {
				return true
			}
			i = s.alt
			continue
		case stateBegin:
			if at != 0 {
				return false
			}
		case stateEnd:
			if at != end {
				return false
			}
		}
		i = s.next
	}
	return false
}

type patternParser struct{ rest string }

func (p *patternParser) take(s string) bool {
	rest, ok := strings.CutPrefix(p.rest, s)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *patternParser) char() rune {
	c, size := utf8.DecodeRuneInString(p.rest)
	p.rest = p.rest[size:]
	return c
}

func (p *patternParser) either(depth int) (node, error) {
	if depth > maxNested {
		return node{}, errPatternSize
	}
	n := node{kind: nodeEither}
	for {
		part, err := p.sequence(depth)
		if err != nil {
			return n, err
		}
		n.parts = append(n.parts, part)
		if !p.take("|") {
			return n, nil
		}
	}
}

func (p *patternParser) sequence(depth int) (node, error) {
	n := node{kind: nodeSequence}
	for p.rest != "" && p.rest[0] != '|' && p.rest[0] != ')' {
		part, err := p.one(depth)
		if err == nil {
			part, err = p.repeated(part)
		}
		if err != nil {
			return n, err
		}
		n.parts = append(n.parts, part)
	}
	return n, nil
}

// repeated reads what follows one: * + ? {3} {3,} {3,5}. A ? after that, which elsewhere asks for the shortest match,
// makes no difference to whether there is one.
func (p *patternParser) repeated(n node) (node, error) {
	for {
		min, max := 0, -1
		switch {
		case p.take("*"):
		case p.take("+"):
			min = 1
		case p.take("?"):
			max = 1
		default:
			var ok bool
			if min, max, ok = p.counts(); !ok {
				return n, nil
			}
			if min > maxRepeat || max > maxRepeat || max >= 0 && min > max {
				return n, errors.New("a count in braces makes no sense")
			}
		}
		p.take("?")
		n = node{kind: nodeRepeat, parts: []node{n}, min: min, max: max}
	}
}

// counts reads {3,5}. Braces of any other look are themselves.
func (p *patternParser) counts() (min, max int, ok bool) {
	inside, rest, closed := strings.Cut(p.rest, "}")
	inside, opened := strings.CutPrefix(inside, "{")
	if !opened || !closed {
		return 0, 0, false
	}
	low, high, two := strings.Cut(inside, ",")
	if min, ok = count(low); !ok {
		return 0, 0, false
	}
	switch {
	case !two:
		max = min
	case high == "":
		max = -1
	default:
		if max, ok = count(high); !ok {
			return 0, 0, false
		}
	}
	p.rest = rest
	return min, max, true
}

func count(s string) (n int, ok bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = min(n*10+int(c-'0'), maxRepeat+1)
	}
	return n, s != ""
}

func (p *patternParser) one(depth int) (node, error) {
	switch c := p.char(); c {
	case '(':
		p.take("?:")
		n, err := p.either(depth + 1)
		if err == nil && !p.take(")") {
			err = errors.New("a parenthesis is not closed")
		}
		return n, err
	case '*', '+', '?':
		return node{}, errors.New("there is nothing before " + string(c) + " to repeat")
	case '^':
		return node{state: state{kind: stateBegin}}, nil
	case '$':
		return node{state: state{kind: stateEnd}}, nil
	case '.':
		return char(charset{pairs: []rune{'\n', '\n'}, not: true})
	case '[':
		s, err := p.bracket()
		if err != nil {
			return node{}, err
		}
		return char(s)
	case '\\':
		s, err := p.escaped()
		if err != nil {
			return node{}, err
		}
		return char(s)
	default:
		return char(charset{pairs: []rune{c, c}})
	}
}

func char(s charset) (node, error) { return node{state: state{kind: stateChar, set: s}}, nil }

// classes have names in brackets, [[:digit:]], and some a letter, \d, whose capital is all others.
var classes = [...]struct {
	letter byte
	name   string
	pairs  string
}{
	{'d', "digit", "09"},
	{'s', "space", "\t\r  "},
	{'w', "word", "09AZ__az"},
	{0, "alpha", "AZaz"},
	{0, "alnum", "09AZaz"},
	{0, "lower", "az"},
	{0, "upper", "AZ"},
	{0, "punct", "!/:@[`{~"},
	{0, "xdigit", "09AFaf"},
	{0, "blank", "\t\t  "},
}

func (p *patternParser) escaped() (charset, error) {
	if p.rest == "" {
		return charset{}, errors.New("there is nothing after a backslash")
	}
	c := p.char()
	switch c {
	case 'n':
		c = '\n'
	case 't':
		c = '\t'
	case 'r':
		c = '\r'
	default:
		for _, class := range classes {
			if class.letter != 0 && c|0x20 == rune(class.letter) {
				return charset{pairs: []rune(class.pairs), not: c&0x20 == 0}, nil
			}
		}
		if c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' {
			return charset{}, errors.New("\\" + string(c) + " has no meaning")
		}
	}
	return charset{pairs: []rune{c, c}}, nil
}

// bracket reads what stands behind [. A ] that comes first, and a - at either end, are themselves.
func (p *patternParser) bracket() (s charset, err error) {
	s.not = p.take("^")
	for first := true; first || !p.take("]"); first = false {
		if p.rest == "" {
			return s, errors.New("a bracket is not closed")
		}
		if name, rest, ok := strings.Cut(p.rest, ":]"); ok && strings.HasPrefix(name, "[:") {
			class := className(name[2:])
			if class == "" {
				return s, errors.New(name + ":] is no class")
			}
			s.pairs = append(s.pairs, []rune(class)...)
			p.rest = rest
			continue
		}
		low, err := p.member()
		if err != nil {
			return s, err
		}
		if low.not {
			return s, errors.New("a class of all others is not possible within brackets")
		}
		if len(low.pairs) == 2 && strings.HasPrefix(p.rest, "-") && !strings.HasPrefix(p.rest, "-]") {
			p.take("-")
			high, err := p.member()
			if err != nil {
				return s, err
			}
			if low.pairs[0] != low.pairs[1] || len(high.pairs) != 2 || high.pairs[0] != high.pairs[1] || high.pairs[0] < low.pairs[0] {
				return s, errors.New("a range within brackets goes backwards")
			}
			low.pairs[1] = high.pairs[0]
		}
		s.pairs = append(s.pairs, low.pairs...)
	}
	return s, nil
}

func (p *patternParser) member() (charset, error) {
	if p.take("\\") {
		return p.escaped()
	}
	if p.rest == "" {
		return charset{}, errors.New("a bracket is not closed")
	}
	c := p.char()
	return charset{pairs: []rune{c, c}}, nil
}

func className(name string) string {
	for _, class := range classes {
		if class.name == name {
			return class.pairs
		}
	}
	return ""
}
