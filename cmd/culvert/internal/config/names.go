package config

import (
	"maps"
	"slices"

	"github.com/BurntSushi/toml"
)

func keysOf[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

// quoteKey writes a name as a part of a dotted key.
func quoteKey(name string) string { return toml.Key{name}.String() }

// didYouMeanOr suggests the nearest name, or else what to do without one.
func didYouMeanOr(name string, names []string, otherwise string) string {
	if s := didYouMean(name, names); s != "" {
		return s
	}
	return otherwise
}
