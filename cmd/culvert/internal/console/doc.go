// Package console is the RouterOS-like command line: a tree of menus whose `print` shows a snapshot of the daemon, for
// people as tables and `print detail`, for machines as JSON. It runs inside the daemon, behind the control socket; the
// interactive shell on top of it (shell.go) runs with the person.
//
// What the rows hold comes partly from the network, so no text reaches a terminal before control characters are escaped.
//
// Read console.go first, then rows.go for what can be seen, tree.go for the menus, and cmd_*.go, one per top-level menu.
package console
