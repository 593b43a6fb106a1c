package board

import (
	"os"
	"runtime/debug"
)

// Tuning is what a garbage-collected program does to be a good neighbour on a small machine.
type Tuning struct {
	// Limit is the memory, in octets, from which on the collector works harder; 0 is none. It is soft: a program that
	// needs more gets more, slowly.
	Limit int64
	// GCPercent is how much garbage may pile up, relative to what lives.
	GCPercent int
}

// TuneFor chooses by the machine's memory: a router has other things to do with it.
func TuneFor(memory uint64) Tuning {
	const mb = 1 << 20
	switch {
	case memory == 0:
		return Tuning{GCPercent: 100}
	case memory <= 40*mb: // hAP lite
		return Tuning{Limit: 8 * mb, GCPercent: 30}
	case memory <= 80*mb: // hEX lite, hAP ac lite: the kernel shows less than the 64 MB that it has
		return Tuning{Limit: 14 * mb, GCPercent: 40}
	case memory <= 160*mb: // hAP ac2, RB951G
		return Tuning{Limit: 32 * mb, GCPercent: 60}
	case memory <= 320*mb: // hEX
		return Tuning{Limit: 80 * mb, GCPercent: 100}
	}
	return Tuning{GCPercent: 100}
}

// Apply sets the running program, unless whoever started it has set GOMEMLIMIT or GOGC.
func (t Tuning) Apply() {
	if t.Limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(t.Limit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(t.GCPercent)
	}
}

// Settle gives back what starting up has used and left: a small machine notices, a large one need not pause for it.
func (t Tuning) Settle() {
	if t.Limit > 0 {
		debug.FreeOSMemory()
	}
}
