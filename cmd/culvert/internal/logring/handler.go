package logring

import (
	"context"
	"log/slog"
	"strings"
)

const (
	topicKey    = "topic"
	maxMessage  = 2048 // octets of an entry's text
	maxValue    = 512  // octets of one value, before quoting
	maxResolves = 8    // levels of groups
)

// handler is a slog.Handler; copies of it with attributes share the Log.
type handler struct {
	log    *Log
	topics []string
	joined string // topics, with commas
	attrs  []byte // formatted already: " key=value key=value"
	prefix string // of groups: "a.b."
}

var untopical = []string{"system"}

func (h *handler) topicList() []string {
	if h.topics == nil {
		return untopical
	}
	return h.topics
}

// Enabled decides by the topics that With has set. A topic given with the record itself is looked at in Handle.
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return h.log.filter.Load().Match(h.topicList(), level)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.attrs = append([]byte(nil), h.attrs...)
	for _, a := range attrs {
		if a.Key == topicKey && h.prefix == "" {
			n.setTopic(a.Value.Resolve().String())
			continue
		}
		n.attrs = appendAttr(n.attrs, h.prefix, a, 0)
	}
	return &n
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	n := *h
	n.prefix = h.prefix + name + "."
	return &n
}

func (h *handler) setTopic(s string) {
	h.topics = h.topics[:0:0]
	for _, t := range strings.Split(s, ",") {
		if t = strings.TrimSpace(t); t != "" {
			h.topics = append(h.topics, t)
		}
	}
	h.joined = strings.Join(h.topics, ",")
	if len(h.topics) == 0 {
		h.topics = nil
	}
}

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	topics, joined := h.topicList(), h.joined
	buf := make([]byte, 0, 256)
	buf = AppendEscaped(buf, r.Message)
	buf = append(buf, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == topicKey && h.prefix == "" {
			var own handler
			own.setTopic(a.Value.Resolve().String())
			if own.topics != nil {
				topics, joined = own.topics, own.joined
			}
			return true
		}
		buf = appendAttr(buf, h.prefix, a, 0)
		return len(buf) < maxMessage
	})
	if !h.log.filter.Load().Match(topics, r.Level) {
		return nil
	}
	if joined == "" {
		joined = untopical[0]
	}
	if len(buf) > maxMessage {
		buf = append(trimRunes(buf[:maxMessage]), "..."...)
	}
	t := r.Time
	if t.IsZero() {
		t = h.log.now()
	}
	e := Entry{Time: t, Level: r.Level, Topics: joined, Text: string(buf)}
	h.log.ring.add(e)
	h.log.text.send(e)
	h.log.remote.Load().send(e)
	return nil
}

// appendAttr writes " key=value", groups flattened with dots, LogValuers resolved.
func appendAttr(b []byte, prefix string, a slog.Attr, depth int) []byte {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if depth >= maxResolves {
			return b
		}
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, x := range v.Group() {
			b = appendAttr(b, prefix, x, depth+1)
		}
		return b
	}
	if a.Key == "" && v.Any() == nil {
		return b
	}
	b = append(b, ' ')
	b = AppendEscaped(b, prefix+a.Key)
	b = append(b, '=')
	return appendValue(b, v)
}
