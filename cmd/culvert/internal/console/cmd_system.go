package console

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

var menuSystem = &menu{name: "system", about: "this machine", menus: []*menu{
	{name: "identity", about: "the name of this router"},
	{name: "logging", about: "what is logged: each rule is a list of topics, !topic takes away", commands: []*command{
		{name: "print", about: "the rules", run: printLogging},
		{name: "add", about: "a new rule: add topics=ipsec,debug", run: addLogging, writes: true, edits: true},
		{name: "set", about: "another rule instead: set 0 topics=...", run: setLogging, writes: true, edits: true},
		{name: "remove", about: "take some away: remove 0", run: setLogging, writes: true, edits: true},
	}},
	{name: "resource", about: "memory, processor, versions", commands: []*command{
		{name: "print", about: "what there is", run: func(_ context.Context, c *call) error { return printOne(c, c.src.Resource()) }},
	}},
	{name: "routerboard", about: "which router this is", commands: []*command{
		{name: "print", about: "what the board says of itself", run: func(_ context.Context, c *call) error { return printOne(c, c.src.Routerboard()) }},
	}},
}, commands: []*command{
	{name: "reboot", about: "goodbye to every peer, then the machine begins anew", writes: true, ask: "Reboot, yes? [y/N]: ", run: power(Reboot)},
	{name: "shutdown", about: "goodbye to every peer, then the machine goes off", writes: true, ask: "Shutdown, yes? [y/N]: ", run: power(Shutdown)},
}}

func power(v Verb) func(context.Context, *call) error {
	return func(ctx context.Context, c *call) error {
		if err := c.args.rest(); err != nil {
			return err
		}
		return c.src.Act(ctx, Action{Verb: v})
	}
}

type loggingRow struct {
	Topics string `json:"topics"`
	Action string `json:"action"`
}

func printLogging(_ context.Context, c *call) error {
	var rows []loggingRow
	for _, t := range c.src.Config().Log.Topics {
		rows = append(rows, loggingRow{t, "memory"})
	}
	return printRows(c, view{[]string{"topics", "action"}, ""}, rows)
}

var loggingPath = []string{"log"}

// topics are the rules as the file that is being changed has them.
func (e *edit) topics() []string {
	list, _ := e.inv.Single("log").Key("topics").Effective().([]string)
	return slices.Clone(list)
}

func (c *call) setTopics(ctx context.Context, e *edit, list []string) error {
	ch := &change{c: c, e: e, path: loggingPath}
	return ch.commit(ctx, func() error { return e.doc.Set(loggingPath, "topics", list) })
}

func (c *call) topicsArgument() (string, error) {
	text, ok := c.args.take("topics")
	c.args.take("action") // there is one memory
	c.args.take("prefix")
	if !ok || strings.TrimSpace(text) == "" {
		return "", usagef("topics is missing, such as topics=ipsec,debug")
	}
	return text, nil
}

func addLogging(ctx context.Context, c *call) error {
	text, err := c.topicsArgument()
	if err != nil {
		return err
	}
	if err := c.args.rest("topics", "action"); err != nil {
		return err
	}
	e, err := c.begin()
	if err != nil {
		return err
	}
	list := e.topics()
	if slices.Contains(list, text) {
		return errors.New("there is such a rule already")
	}
	return c.setTopics(ctx, e, append(list, text))
}

// setLogging is set, with topics, and remove, without.
func setLogging(ctx context.Context, c *call) error {
	text, remove := "", len(c.args.sets) == 0
	if !remove {
		var err error
		if text, err = c.topicsArgument(); err != nil {
			return err
		}
		words := c.args.words
		c.args.words = nil
		if err := c.args.rest("topics", "action"); err != nil {
			return err
		}
		c.args.words = words
	}
	e, err := c.begin()
	if err != nil {
		return err
	}
	list := e.topics()
	if len(c.args.words) == 0 && !c.args.found {
		return usagef("say which: a number of print, or [find topics=...]")
	}
	chosen := map[int]bool{}
	for _, w := range c.args.words {
		numbers, ok := numberList(w)
		if !ok {
			return usagef("%s is not a number of print", quote(w.text))
		}
		for _, n := range numbers {
			if n >= len(list) {
				return fmt.Errorf("there is no number %d: there are %d rules", n, len(list))
			}
			chosen[n] = true
		}
	}
	for i, t := range list {
		if c.args.found {
			ok, err := c.args.find.match(fields(loggingRow{t, "memory"}))
			if err != nil {
				return err
			}
			chosen[i] = chosen[i] || ok
		}
	}
	var out []string
	for i, t := range list {
		switch {
		case !chosen[i]:
			out = append(out, t)
		case !remove:
			out = append(out, text)
		}
	}
	if out == nil {
		out = []string{}
	}
	return c.setTopics(ctx, e, out)
}
