package logring

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// LevelPacket is below debug: dumps of messages.
const LevelPacket = slog.LevelDebug - 4

var levels = []struct {
	name  string
	level slog.Level
}{
	{"packet", LevelPacket},
	{"debug", slog.LevelDebug},
	{"info", slog.LevelInfo},
	{"warning", slog.LevelWarn},
	{"error", slog.LevelError},
}

// levelName is the highest named level that is not above l.
func levelName(l slog.Level) string {
	name := levels[0].name
	for _, x := range levels {
		if l >= x.level {
			name = x.name
		}
	}
	return name
}

func levelByName(name string) (slog.Level, bool) {
	for _, x := range levels {
		if x.name == name {
			return x.level, true
		}
	}
	return 0, false
}

// KnownTopics are the topics that the packages of this program use.
var KnownTopics = []string{"account", "console", "crypto", "ipsec", "l2tp", "ppp", "radius", "script", "system"}

// Filter says which records are kept. It is a list of rules, each a list of topics and levels:
//
//	info          everything of level info and above
//	ipsec         everything about ipsec, dumps of packets included
//	ipsec,debug   what is about ipsec, of level debug and above
//	ppp,!debug    what is about ppp, but nothing of level debug and below
//	!ppp          nothing about ppp, whatever the other rules say
//
// A record is kept when one rule wants it and no rule of exclusions alone forbids it. Exclusions alone take from "info".
type Filter struct {
	want, veto []rule
}

type rule struct {
	topics, not []string
	min         slog.Level // at least
	above       slog.Level // more than; from !LEVEL
	hasAbove    bool
}

// ParseFilter reads rules such as "ipsec,debug" and "!ppp".
func ParseFilter(rules []string) (Filter, error) {
	var f Filter
	for _, text := range rules {
		r, positive := rule{min: LevelPacket}, false
		for _, word := range strings.Split(text, ",") {
			word = strings.TrimSpace(word)
			name, negated := strings.CutPrefix(word, "!")
			level, isLevel := levelByName(name)
			switch {
			case isLevel && negated:
				r.above, r.hasAbove = level, true
			case isLevel:
				r.min, positive = level, true
			case !slices.Contains(KnownTopics, name):
				return Filter{}, fmt.Errorf("%q is not one of the topics %s, nor of the levels packet, debug, info, warning, error",
					name, strings.Join(KnownTopics, ", "))
			case negated:
				r.not = append(r.not, name)
			default:
				r.topics, positive = append(r.topics, name), true
			}
		}
		if positive {
			f.want = append(f.want, r)
		} else {
			f.veto = append(f.veto, r)
		}
	}
	if len(f.want) == 0 && len(f.veto) > 0 {
		f.want = []rule{{min: slog.LevelInfo}}
	}
	return f, nil
}

// Match says whether a record with these topics is kept. It does not allocate.
func (f *Filter) Match(topics []string, level slog.Level) bool {
	for i := range f.veto {
		if f.veto[i].forbids(topics, level) {
			return false
		}
	}
	for i := range f.want {
		if f.want[i].wants(topics, level) {
			return true
		}
	}
	return false
}

func (r *rule) wants(topics []string, level slog.Level) bool {
	if level < r.min || r.hasAbove && level <= r.above {
		return false
	}
	for _, t := range r.topics {
		if !slices.Contains(topics, t) {
			return false
		}
	}
	for _, t := range r.not {
		if slices.Contains(topics, t) {
			return false
		}
	}
	return true
}

// forbids is for rules of exclusions alone.
func (r *rule) forbids(topics []string, level slog.Level) bool {
	if r.hasAbove && level <= r.above {
		return true
	}
	for _, t := range r.not {
		if slices.Contains(topics, t) {
			return true
		}
	}
	return false
}
