// Package isakmp is the wire format of IKEv1 and nothing else: the ISAKMP header, the payload chain, SA proposals with
// their attributes, identities, notifications, deletions, NAT-T payloads, fragments and vendor ids, with the number
// tables of each. It keeps no state, decrypts nothing and decides nothing; package ikev1 does.
//
// Parse functions alias their input, check every length before they use it, bound every count, and fail with *Error,
// which names the payload and carries the notify code to refuse with. Append functions write what Parse reads: what
// parses is re-emitted octet for octet.
//
// Sources: RFC 2408 (ISAKMP), RFC 2407 (IPsec DOI), RFC 2409 (IKE), RFC 3947 (NAT traversal), RFC 3706 (dead peer
// detection), [MS-IKEE] (fragments), and the IANA registries "ipsec-registry" and "isakmp-registry".
//
// Read header.go first, then payload.go and sa.go; the numbers are in phase1.go, phase2.go, notify.go and vendor.go.
package isakmp
