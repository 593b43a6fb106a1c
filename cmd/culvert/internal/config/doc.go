// Package config turns culvert.toml into the Config types of the packages that obey them, and says everything that is
// wrong with the file at once: every problem has the file, the line, the key, what is wrong and how to mend it.
//
// The keys carry RouterOS's names; the file is TOML 1.0 with one named table per object. What is documented but not built
// yet is parsed and checked all the same and reported (unsupported.go), so that nothing is silently ignored.
//
// Read config.go first (what comes out), then reader.go (how a table is read) and one of ppp.go, l2tp.go, ipsec.go.
package config
