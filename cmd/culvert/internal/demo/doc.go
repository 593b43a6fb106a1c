// Package demo is `culvert demo`: a server and a client of this same binary in network namespaces of their own, a NAT
// between them, traffic through the tunnel, and a word on each step. It needs root and TUN; no package, no module of the
// kernel's, no other program. Nothing of the machine outside of the namespaces is touched, and all of it goes with the
// process, however that ends.
//
// Read demo.go, the story; then network.go and nat.go (where it plays), instance.go (the two daemons), traffic.go (ping
// and TCP) and wire.go (what the NAT sees).
package demo
