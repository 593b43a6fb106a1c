package console

import (
	"context"
	"io"
	"time"

	"culvert/cmd/culvert/internal/logring"
)

var menuLog = &menu{name: "log", about: "what happened", commands: []*command{
	{name: "print", about: `the last lines; where topics~"ipsec" chooses, follow goes on`, words: []string{"follow", "count-only", "where"}, run: printLog},
}}

type logRow struct {
	Time    time.Time `json:"time"`
	Topics  string    `json:"topics"`
	Message string    `json:"message" text:""`
}

func newLogRow(e logring.Entry) logRow { return logRow{e.Time, e.AllTopics(), e.Text} }

func printLog(ctx context.Context, c *call) error {
	follow, count := c.args.has("follow"), c.args.has("count-only")
	c.args.has("detail")
	c.args.has("terse")
	c.args.has("without-paging")
	if err := c.args.rest("follow", "count-only", "where"); err != nil {
		return err
	}
	e := c.args.find
	if e == nil {
		e = all{}
	}
	if _, err := e.match(fields(logRow{})); err != nil {
		return err
	}
	keep := func(entry logring.Entry) bool {
		ok, err := e.match(fields(newLogRow(entry)))
		return err == nil && ok
	}
	// Following begins before the past is read, so that nothing falls between.
	var next <-chan logring.Entry
	if follow {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		next = c.src.Log().Follow(ctx)
	}
	past := c.src.Log().Lines(keep, 0)
	if count {
		return writeJSON(c.out, len(past), "")
	}
	if c.json && !follow {
		rows := []logRow{}
		for _, e := range past {
			rows = append(rows, newLogRow(e))
		}
		return writeJSON(c.out, rows, "  ")
	}
	var last uint64
	show := func(e logring.Entry) error {
		last = e.Seq
		if c.json {
			return writeJSON(c.out, newLogRow(e), "")
		}
		_, err := io.WriteString(c.out, e.String()+"\n")
		return err
	}
	for _, e := range past {
		if err := show(e); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	for e := range next {
		if e.Seq > last && keep(e) {
			if err := show(e); err != nil {
				return err
			}
		}
	}
	return nil
}
