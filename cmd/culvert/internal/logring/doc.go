// Package logring is where the daemon's log goes: a slog.Handler that filters by RouterOS's topics, keeps the last lines
// for `/log print`, and passes them on to standard error and to a syslog server (RFC 5424 over UDP, RFC 5426).
//
// No caller ever waits for a sink: each has a bounded queue, and what does not fit is counted and told later. What came
// from the network is quoted, so that a user name cannot speak to the terminal that shows the log. A record that the
// filter drops by its level costs no allocation.
//
// Read log.go first, then filter.go for the meaning of topics.
package logring
