// Package pki is what IKEv1 needs of X.509: it reads certificates, keys and revocation lists from files, judges the
// certificate of a peer, and makes an authority with certificates of its own for those who have none.
//
// It is strict about who signed what, about dates and revocations, and about the identity a peer shows; it is as tolerant
// as other implementations about key usages, for which the authorities of the world have no common habit.
// What it refuses, it refuses with a *Refusal that says why and what mends it: with certificates, that is what people
// lack. The clock of a router may be wrong; so a refusal for a date names the date and what the clock says.
//
// Nothing here does I/O but the Load functions, and nothing keeps a clock: the time is an argument.
//
// Sources: RFC 5280 (X.509), RFC 4945 (its use in IKE), RFC 2315 (PKCS #7), RFC 7292 (PKCS #12), RFC 8018 (PKCS #5).
//
// Read trust.go first, then identity.go; issue.go makes certificates.
package pki
