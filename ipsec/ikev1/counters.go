package ikev1

// Drop says why a message was ignored, or what else went other than well. Snapshot.Drops counts them by name.
type Drop uint8

const (
	DropHeader        Drop = iota // no ISAKMP header of version 1, or a length that is not the datagram's
	DropTooLong                   // longer than any message we would answer
	DropExchange                  // an exchange type we do not do
	DropNoPeer                    // no configured peer covers the source address
	DropUnknownCookie             // belongs to no ISAKMP SA of ours
	DropPayload                   // malformed payloads
	DropFlags                     // encrypted where it must not be, or in the clear where it must be encrypted
	DropState                     // well formed, but not what this exchange waits for
	DropDuplicate                 // a retransmission beyond the number that are answered, or one being worked on
	DropReplay                    // a message id or sequence number that has been used
	DropDecrypt                   // does not decrypt to payloads
	DropHash                      // authentication hash is wrong or missing
	DropUnauth                    // informational message before authentication
	DropProposal                  // no acceptable proposal
	DropKE                        // invalid Diffie-Hellman value
	DropBusy                      // the worker queue was full
	DropHalfOpen                  // half-open exchange evicted for a newer one
	DropLimit                     // a bound on clients, SAs or exchanges was reached
	DropSelector                  // quick mode for something else than L2TP
	DropBackend                   // the data plane refused an SA
	DropFragment                  // a piece of a message that cannot be put together
	DropBarred                    // from an address that had the wrong key too often
	DropCertificate               // a certificate or signature was refused
	DropRepeat                    // no room for a first message of a kind that nobody has used: it has to come again
	numDrops
)

var dropNames = [numDrops]string{
	"header", "too-long", "exchange-type", "no-peer", "unknown-cookie", "payload", "flags", "state", "duplicate", "replay",
	"decrypt", "hash", "unauthenticated-informational", "proposal", "key-exchange", "busy", "half-open-evicted", "limit",
	"selector", "backend", "fragment", "barred", "certificate", "to-be-repeated",
}

func (d Drop) String() string { return dropNames[d] }
