// Package rtnl speaks rtnetlink(7), as far as a router needs it: links, addresses, routes, proxied neighbours. What the
// kernel refuses is a [netlink.Error].
package rtnl
