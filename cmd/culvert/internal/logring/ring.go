package logring

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// ringBytes bounds the ring's text: a thousand ordinary lines fit twice.
const ringBytes = 512 << 10

// followQueue is how many lines a follower may lag behind before it misses some.
const followQueue = 256

// Entry is one line of the log.
type Entry struct {
	Seq    uint64 // counts all entries since the start, from 1
	Time   time.Time
	Level  slog.Level
	Topics string // without the level: "ipsec", "l2tp,ppp"
	Text   string // message and keys, escaped
}

// AllTopics is RouterOS's form: "ipsec,info".
func (e Entry) AllTopics() string { return e.Topics + "," + levelName(e.Level) }

// String is `2026-11-21 02:00:00 ipsec,info message key=value`.
func (e Entry) String() string { return string(e.append(nil)) }

func (e Entry) append(b []byte) []byte {
	b = e.Time.AppendFormat(b, time.DateTime)
	b = append(b, ' ')
	b = AppendEscaped(b, e.Topics)
	b = append(append(b, ','), levelName(e.Level)...)
	return append(append(b, ' '), e.Text...)
}

// Ring keeps the last entries, bounded in number and in octets.
type Ring struct {
	mu       sync.Mutex
	entries  []Entry // oldest first from head, wrapping
	head, n  int
	bytes    int
	maxBytes int
	seq      uint64
	follow   map[chan Entry]struct{}
}

func newRing(lines, bytes int) *Ring {
	return &Ring{entries: make([]Entry, max(lines, 0)), maxBytes: bytes, follow: map[chan Entry]struct{}{}}
}

func (e *Entry) size() int { return len(e.Text) + len(e.Topics) + 64 }

func (r *Ring) add(e Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	e.Seq = r.seq
	for ch := range r.follow {
		select {
		case ch <- e:
		default: // the follower sees the gap in Seq
		}
	}
	if len(r.entries) == 0 {
		return
	}
	for r.n > 0 && (r.n == len(r.entries) || r.bytes+e.size() > r.maxBytes) {
		r.bytes -= r.entries[r.head].size()
		r.entries[r.head] = Entry{}
		r.head = (r.head + 1) % len(r.entries)
		r.n--
	}
	r.entries[(r.head+r.n)%len(r.entries)] = e
	r.n++
	r.bytes += e.size()
}

func (r *Ring) resize(lines int) {
	lines = max(lines, 0)
	r.mu.Lock()
	defer r.mu.Unlock()
	if lines == len(r.entries) {
		return
	}
	old := r.list()
	if len(old) > lines {
		old = old[len(old)-lines:]
	}
	r.entries, r.head, r.n, r.bytes = make([]Entry, lines), 0, len(old), 0
	for i := range old {
		r.entries[i] = old[i]
		r.bytes += old[i].size()
	}
}

func (r *Ring) list() []Entry {
	out := make([]Entry, 0, r.n)
	for i := range r.n {
		out = append(out, r.entries[(r.head+i)%len(r.entries)])
	}
	return out
}

// Lines returns the entries after number since (0: all) that match (nil: all), oldest first.
func (r *Ring) Lines(match func(Entry) bool, since uint64) []Entry {
	r.mu.Lock()
	out := r.list()
	r.mu.Unlock()
	return slices.DeleteFunc(out, func(e Entry) bool { return e.Seq <= since || match != nil && !match(e) })
}

// Follow passes on every entry from now on until ctx ends, then closes. A reader that lags misses entries, which their Seq tells.
func (r *Ring) Follow(ctx context.Context) <-chan Entry {
	ch := make(chan Entry, followQueue)
	r.mu.Lock()
	r.follow[ch] = struct{}{}
	r.mu.Unlock()
	context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.follow, ch)
		close(ch)
	})
	return ch
}

// MatchTopics is a match for Lines: entries whose topics, level included, contain text, as `where topics~"text"` does.
func MatchTopics(text string) func(Entry) bool {
	return func(e Entry) bool { return strings.Contains(e.AllTopics(), text) }
}
