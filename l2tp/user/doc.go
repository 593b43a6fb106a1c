// Package user is the L2TPv2 data plane for kernels without one: it strips and pushes the header of data messages
// (RFC 2661 section 3.1), finds the session they belong to, holds each to its peer and its SA, and minds sequence numbers
// (section 5.4).
//
// Whoever reads datagrams, from a UDP socket or out of userspace ESP, calls Plane.Deliver; frames go up by a function
// call on the same goroutine, and down by Session.Send to Options.Send. No packet is copied, queued or allocated for.
// The engine (package l2tp) opens and closes tunnels and sessions; readers see its tables copy-on-write.
//
// Read plane.go first, then receive.go (in), session.go (out) and sequence.go.
package user
