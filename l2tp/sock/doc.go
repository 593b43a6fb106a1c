// Package sock is the UDP socket of an L2TP server or client (RFC 2661 section 8.1, port 1701): it tells of every datagram
// which of our addresses it was sent to and which mark it carries, and sends from that address with that mark. On Linux
// the mark is what is left of the security association that a datagram came through. Read socket.go.
//
// The socket shares its port: the kernel's L2TP gives each tunnel a connected socket of its own on the same port, and
// those take precedence for their peer.
package sock
