package console

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"
)

// monitor shows a value to a person again and again until ctx ends; once, where that is said, and to programs.
func (c *call) monitor(ctx context.Context, get func(now time.Time) (row, error)) error {
	once := c.args.has("once")
	if err := c.args.rest("once"); err != nil {
		return err
	}
	if once || c.program() {
		r, err := get(time.Now())
		if err != nil {
			return err
		}
		return c.printSingle(r)
	}
	first := true
	out := c.out
	return c.script.console.Every(ctx, func(now time.Time) error {
		r, err := get(now)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		switch {
		case c.script.request.Redraw:
			b.WriteByte('\f')
		case !first:
			b.WriteByte('\n')
		}
		first = false
		c.out = &b
		err = c.lines(r.fields)
		c.out = out
		if err != nil {
			return err
		}
		_, err = out.Write(b.Bytes())
		return err
	})
}

// program says that a command stands alone, so that its answer has an end.
func (c *call) program() bool { return c.json || !c.script.request.Session }

// monitorClient shows where one client stands.
func monitorClient(ctx context.Context, c *call) error {
	if v, ok := c.args.take("numbers"); ok {
		c.args.words = append(c.args.words, token{text: v})
	}
	i := slices.IndexFunc(c.args.words, func(w token) bool { return w.quoted || w.text != "once" })
	if i < 0 {
		return usagef("say which: monitor NAME")
	}
	w := c.args.words[i]
	c.args.words = slices.Delete(slices.Clone(c.args.words), i, i+1)
	clients := c.src.Config().Clients
	var names []string
	for _, x := range clients {
		names = append(names, x.Name)
	}
	name := w.text
	if n, ok := numberList(w); ok && !slices.Contains(names, name) {
		if len(n) != 1 || n[0] >= len(names) {
			return fmt.Errorf("there is no number %s: there are %d clients", w.text, len(names))
		}
		name = names[n[0]]
	}
	if !slices.Contains(names, name) {
		return fmt.Errorf("there is no client %s%s", quote(name), suggest(name, names))
	}
	return c.monitor(ctx, func(time.Time) (row, error) {
		disabled := false
		for _, x := range c.src.Config().Clients {
			disabled = disabled || x.Name == name && x.Disabled
		}
		s := stateOf(c.src.Clients(), name, disabled)
		return row{fields: fields(s), value: s}, nil
	})
}

// TrafficRow is what `/interface monitor-traffic` shows, per second.
type TrafficRow struct {
	Name      string `json:"name" text:""`
	RxPackets uint64 `json:"rx-packets-per-second"`
	RxBits    Bits   `json:"rx-bits-per-second"`
	TxPackets uint64 `json:"tx-packets-per-second"`
	TxBits    Bits   `json:"tx-bits-per-second"`
}

// Bits is a rate in bits a second: "1.2kbps".
type Bits uint64

func (b Bits) String() string {
	switch {
	case b >= 1e9:
		return fmt.Sprintf("%.1fGbps", float64(b)/1e9)
	case b >= 1e6:
		return fmt.Sprintf("%.1fMbps", float64(b)/1e6)
	case b >= 1e3:
		return fmt.Sprintf("%.1fkbps", float64(b)/1e3)
	}
	return fmt.Sprintf("%dbps", uint64(b))
}

// monitorTraffic shows the rates of an interface: since the last look, the first time over a second.
func monitorTraffic(ctx context.Context, c *call) error {
	name, ok := c.args.take("interface")
	if i := slices.IndexFunc(c.args.words, func(w token) bool { return w.quoted || w.text != "once" }); !ok && i >= 0 {
		name, ok = c.args.words[i].text, true
		c.args.words = slices.Delete(slices.Clone(c.args.words), i, i+1)
	}
	if !ok || name == "" {
		return usagef("say which: monitor-traffic NAME")
	}
	last, err := c.src.Traffic(name)
	if err != nil {
		return err
	}
	at := c.src.Resource().Now
	once := c.program() || slices.ContainsFunc(c.args.words, func(w token) bool { return w.text == "once" })
	if once {
		select {
		case <-time.After(c.script.console.Pause):
		case <-ctx.Done():
			return nil
		}
	}
	return c.monitor(ctx, func(time.Time) (row, error) {
		x, err := c.src.Traffic(name)
		if err != nil {
			return row{}, err
		}
		now := c.src.Resource().Now
		per := func(n, before uint64) uint64 {
			d := now.Sub(at)
			if d <= 0 || n < before {
				return 0
			}
			return uint64(float64(n-before) / d.Seconds())
		}
		r := TrafficRow{Name: name, RxPackets: per(x.RxPackets, last.RxPackets), RxBits: Bits(8 * per(x.RxBytes, last.RxBytes)),
			TxPackets: per(x.TxPackets, last.TxPackets), TxBits: Bits(8 * per(x.TxBytes, last.TxBytes))}
		last, at = x, now
		return row{fields: fields(r), value: r}, nil
	})
}
