// Package l2tp is the control connection of L2TPv2: tunnels and the sessions in them, as a server (LNS) and as the client
// (LAC) that calls one. It negotiates; a DataPlane carries the PPP frames.
//
// RFC 2661 is the protocol, RFC 3193 its use inside IPsec, RFC 3145 a cause code. Read engine.go first: every datagram
// enters at Engine.Receive, is matched to a tunnel there, passes reliable delivery (reliable.go) and reaches the automata
// in control.go and session.go. The wire is header.go, avp.go (the table of attributes), message.go (the table of
// messages), hidden.go and auth.go. dial.go is all that the calling side adds.
//
// The package has no goroutine, clock, socket or lock. One goroutine owns an Engine, tells it the time and calls Tick at
// Deadline.
//
// # Who a peer is
//
// A peer is its address, its port and the security association (Via) it came through. Two Windows clients behind one NAT
// share everything but the latter, their tunnel ids included. A datagram for a live tunnel that comes any other way is
// dropped and counted.
//
// # Values
//
// Receive window 16: what most servers offer, and more than any client fills. Retransmission after 1, 2, 4, 8, 8 s and
// given up after 8 more, 31 s in all, is RFC 2661 section 5.8 with its cap; a HELLO is given a minute, because phones sleep.
// Acknowledgements wait 100 ms for a message to ride on, except for peers with a window of one, who would wait with us.
// HELLO after 60 s of silence is the RFC's own suggestion, and none is sent while data arrives, where the plane can tell.
package l2tp
