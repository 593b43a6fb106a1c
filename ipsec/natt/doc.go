// Package natt holds the UDP sockets of IKE: port 500, and port 4500 where IKE, ESP and keepalives share one flow
// (RFC 3947, RFC 3948). It tells the three apart, remembers at which of our addresses a message arrived, and answers from
// there. Where the kernel does ESP it takes the encapsulated packets away before they reach this package.
//
// Read conns.go first.
package natt
