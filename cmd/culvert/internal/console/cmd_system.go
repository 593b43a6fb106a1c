package console

import "context"

var menuSystem = &menu{name: "system", about: "this machine", menus: []*menu{
	{name: "resource", about: "memory, processor, versions", commands: []*command{
		{"print", "what there is", func(_ context.Context, c *call) error { return printOne(c, c.src.Resource()) }},
	}},
	{name: "identity", about: "the name of this router", commands: append([]*command{
		{"print", "the name", func(_ context.Context, c *call) error {
			return printOne(c, identity{c.src.Config().System.Identity})
		}},
	}, edits("set")...)},
}}

type identity struct {
	Name string `json:"name"`
}
