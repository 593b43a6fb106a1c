// Package dgram reads and writes datagrams many at a time: with recvmmsg and sendmmsg, and where the kernel can, several
// of one size as one (UDP_GRO and UDP_SEGMENT, Linux 5.0 and 4.18), which then pass its network stack once. It tells of
// each which of our addresses it was sent to and which mark it carries. Nothing is allocated per datagram.
//
// The sockets never block, so their system calls are made raw: told of each, Go's scheduler would on a machine with one
// processor give that away and take it back all the time.
//
// A Conn wraps a socket that somebody else has made and bound: UDP, or raw. Read conn.go, then read.go and send.go.
package dgram
