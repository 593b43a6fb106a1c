// Package control is the unix socket between the daemon and the people and programs that ask it things: the console,
// one-shot commands, scripts.
//
// A request is one line of JSON, {"command": "/ppp active print", "json": false}. The answer is lines of JSON too: any
// number of {"output": "text"}, as the command produces it, then one {"exit": 0} or {"exit": 1, "error": "why"}. Further
// requests may follow on the connection. A peer that goes away cancels what it asked for.
//
// Only root and the daemon's own user may ask: the socket's mode says so, and SO_PEERCRED is checked besides. Requests,
// connections and waiting times are bounded.
//
// Read server.go, then client.go.
package control
