// Package explain answers why a client is not connected: it keeps what the log says about each of the last clients, from
// the first message of IKE to the login, and draws one sentence from it that names the cause and what mends it.
//
// It listens to the log (Handler) and not to the engines: what an operator may read there is what he is told here, in the
// order in which it happened, and of one client alone. Only what the log takes for worth reading (info and above) counts,
// which strangers can cause at a bounded rate only; clients and events are bounded in number, and those that nobody has
// authenticated give way first.
//
// Read book.go first, then cause.go for the sentences.
package explain
