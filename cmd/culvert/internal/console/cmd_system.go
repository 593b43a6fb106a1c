package console

import "context"

var menuSystem = &menu{name: "system", about: "this machine", menus: []*menu{
	{name: "resource", about: "memory, processor, versions", commands: []*command{
		{name: "print", about: "what there is", run: func(_ context.Context, c *call) error { return printOne(c, c.src.Resource()) }},
	}},
	{name: "routerboard", about: "which router this is", commands: []*command{
		{name: "print", about: "what the board says of itself", run: func(_ context.Context, c *call) error { return printOne(c, c.src.Routerboard()) }},
	}},
	{name: "identity", about: "the name of this router", commands: append([]*command{
		{name: "print", about: "the name", run: func(_ context.Context, c *call) error {
			return printOne(c, identity{c.src.Config().System.Identity})
		}},
	}, edits("set")...)},
}}

type identity struct {
	Name string `json:"name"`
}
