package explain

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf8"
)

// handler hands records on to the log, and notes those that are about a client.
type handler struct {
	next  slog.Handler
	book  *Book
	topic string
	attrs []Field
	group bool // what comes in a group is not looked at
}

// Handler listens to what is logged through next.
func (b *Book) Handler(next slog.Handler) slog.Handler { return &handler{next: next, book: b} }

// Enabled keeps what the log would drop by its topics: the timeline has no gaps because somebody silenced PPP.
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.next.Enabled(ctx, level)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.next = h.next.WithAttrs(attrs)
	if !n.group {
		n.attrs = slices.Clone(h.attrs)
		for _, a := range attrs {
			n.add(&n.attrs, a)
		}
	}
	return &n
}

func (h *handler) WithGroup(name string) slog.Handler {
	n := *h
	n.next, n.group = h.next.WithGroup(name), h.group || name != ""
	return &n
}

// add notes a key; the topic is one of its own.
func (h *handler) add(fields *[]Field, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup || a.Key == "" {
		return
	}
	s := v.String()
	if len(s) > maxText {
		for s = s[:maxText]; !utf8.ValidString(s) && len(s) > maxText-utf8.UTFMax; {
			s = s[:len(s)-1]
		}
	}
	if a.Key == "topic" {
		h.topic = s
		return
	}
	*fields = append(*fields, Field{a.Key, strings.ToValidUTF8(s, "?")})
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	var err error
	if h.next.Enabled(ctx, r.Level) {
		err = h.next.Handle(ctx, r)
	}
	if r.Level < slog.LevelInfo {
		return err
	}
	own := *h
	fields := slices.Clone(h.attrs)
	if !h.group {
		r.Attrs(func(a slog.Attr) bool {
			own.add(&fields, a)
			return true
		})
	}
	e := Event{Time: r.Time, Level: r.Level, Topic: own.topic, Message: r.Message, Fields: fields}
	h.book.note(e)
	if text, about := h.book.silentFailure(&e); text != "" {
		warning := slog.NewRecord(r.Time, slog.LevelWarn, "a client did not get in", 0)
		warning.AddAttrs(slog.String("remote", about), slog.String("cause", text))
		if h.next.Enabled(ctx, warning.Level) {
			h.next.Handle(ctx, warning)
		}
	}
	return err
}
