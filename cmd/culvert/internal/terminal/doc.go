// Package terminal is the person's side of the console: a prompt with editing, history and completion on whatever the
// person sits at, a local terminal or a serial line, and on a serial line the login before it. What is typed goes to the
// daemon; what comes back is shown a page at a time.
//
// Line editing is golang.org/x/term's: it redraws only what changed and needs no more of a terminal than VT100's cursor
// movements, which suits a slow line. It is fed by input.go, which keeps Ctrl-C and what is typed ahead apart from it.
//
// Read shell.go first; screen.go is the way out to the terminal, and lets no control character through.
package terminal
