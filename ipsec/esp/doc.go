// Package esp is the ipsec.Backend for kernels without ESP: it protects and opens the packets itself (RFC 4303, transport
// mode), encapsulated in UDP (RFC 3948) or plain as IP protocol 50, and hands UDP payloads up and takes them down. Transport
// mode leaves no IP header in the packet and L2TP is all that travels, so the UDP header is built and stripped here.
//
// The data path is [Backend.Receive], called on the goroutine of a socket, and [Backend.Send]; both work in place, without
// allocation, and read copy-on-write tables that Install, Remove and Move write. An SA is guarded by its own lock, which
// covers sequence number, ciphers and counters. Everything an unauthentic packet can change is a drop counter.
//
// As the kernel does: outer packets may be fragmented after sealing and never carry DF; a packet from a new address is
// reported but must match the selector to be delivered; zero UDP checksums are sent over IPv4 (RFC 3948 section 3.1.2).
//
// Read backend.go first, then receive.go and send.go, window.go for replay, raw.go for protocol 50.
package esp
