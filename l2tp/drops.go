package l2tp

import "fmt"

// Drop is why a datagram was thrown away.
type Drop uint8

const (
	DropMalformed      Drop = iota // header or AVP lengths wrong, not version 2
	DropUnprotected                // not out of an SA, and `use-ipsec` is required
	DropForeign                    // for a live tunnel, but from another address or another SA than its own
	DropNotAllowed                 // the address is outside of Allowed
	DropUnknownTunnel              // control message for a tunnel that is not (or no longer) here
	DropUnknownSession             // message about a call that is not here
	DropData                       // data message that the data plane did not take: no such session
	DropOutside                    // sequence numbers outside of the window
	DropDuplicate                  // acknowledged before; it is acknowledged again
	DropFault                      // message that makes no sense before the tunnel is up
	DropLimit                      // no room: tunnels, or the peer does not acknowledge what it asked for
	DropTie                        // lost the tie against our own SCCRQ
	DropClosing                    // we are shutting down
	DropRate                       // would have earned an answer, but those are rationed
	dropCount
)

var dropNames = [dropCount]string{"malformed", "unprotected", "foreign", "not-allowed", "unknown-tunnel", "unknown-session", "data",
	"outside-window", "duplicate", "fault", "limit", "tie", "closing", "rate"}

func (d Drop) String() string {
	if d < dropCount {
		return dropNames[d]
	}
	return fmt.Sprintf("drop %d", uint8(d))
}
