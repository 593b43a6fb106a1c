// Package ikev1 is the IKEv1 engine: it authenticates peers (phase 1, main mode or aggressive mode, with a pre-shared
// key), agrees on ESP security associations for L2TP with them (phase 2, quick mode), hands those to an ipsec.Backend,
// and keeps them alive, rekeyed and in step with the peer until one side says goodbye.
//
// It holds no goroutine, clock, socket or lock. Messages come in by Receive, time by Tick, and everything that leaves
// goes through the functions of Env; all calls are made from one goroutine. Diffie-Hellman runs where Env.Offload puts it.
//
// Three kinds of object carry the state. A phase1 (phase1.go) is one ISAKMP SA with its keys. A client (client.go) is who is
// behind it: an authenticated identity at an address and port, named by one Mark for as long as it stays, through every
// rekeying of either phase. A child (child.go) is a pair of ESP SAs that belongs to a client, not to the ISAKMP SA that made it.
//
// Sources: RFC 2407 (IPsec DOI), RFC 2408 (ISAKMP), RFC 2409 (IKE), RFC 3526, 5903 and 8031 (groups), RFC 3706 (dead peer
// detection), RFC 3947 and its drafts 02 and 03 (NAT traversal), RFC 3193 (L2TP over IPsec), RFC 4109 and 4868 (algorithms).
//
// Most peers are clients that call us. A server that we call ourselves (dial.go) is a client object like theirs, with a
// dialing that keeps it up.
//
// Strangers are held to bounds: half-open exchanges (halfopen.go, and stateless.go under load), budgets of each source
// (budget.go), Diffie-Hellman in order (admission.go), messages in pieces (fragment.go), keys tried (keyring.go).
//
// Read engine.go first, then main.go and quick.go, which follow the exchanges of RFC 2409 message by message.
package ikev1
